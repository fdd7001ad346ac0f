"""Data sets: what loads is what was stored, splits are disjoint, every fault is one sentence."""

import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import types
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dpkit as dp
from dpkit.datasets import fetch, known, toys
from dpkit.datasets.splits import stratified

IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
TOYS = ("moons", "circles", "spiral", "blobs")
REAL = os.environ.get("DPKIT_DATA")


def load(name, **options):
    return dp.datasets.load(name, **options)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No test sees the files of whoever runs it, nor writes into their cache."""
    monkeypatch.delenv("DPKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


# ---- small files in the published formats ---------------------------------------------------


def idx(values):
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return struct.pack(">I", 0x0800 + values.ndim) + sizes + values.astype(np.uint8).tobytes()


def some_images(n, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 10


def idx_files(train=40, test=20):
    x, y = some_images(train, 28, 28)
    tx, ty = some_images(test, 28, 28, seed=1)
    return dict(zip(IDX, map(idx, (x, y, tx, ty)), strict=True)), (x, y, tx, ty)


def write_idx(root, family="MNIST", packed=False, **sizes):
    folder = root / family / "raw"
    folder.mkdir(parents=True)
    stored, arrays = idx_files(**sizes)
    for name, body in stored.items():
        if packed:
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(body))
        else:
            (folder / f"{name}-ubyte").write_bytes(body)
    return arrays


def python2_batch(pixels, labels):
    """CIFAR's batches as Python 2 wrote them: byte strings, numpy.core, protocol 2."""

    def text(value):
        return b"T" + struct.pack("<I", len(value)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n"
    array += number(0) + b"\x85" + text(b"b") + b"\x87R"
    shape = b"".join(map(number, pixels.shape)) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array += b"(" + number(1) + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    labels = b"](" + b"".join(number(int(label)) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


def write_cifar(root, write=python2_batch):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    arrays = []
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        pixels, labels = some_images(10, 3072, seed=i)
        (folder / name).write_bytes(write(pixels, labels))
        arrays.append((pixels, labels))
    return arrays


def write_npz(root, name="pneumoniamnist.npz"):
    root.mkdir(exist_ok=True)
    x, _ = some_images(30, 28, 28)
    tx, _ = some_images(12, 28, 28, seed=1)
    y, ty = (np.arange(n)[:, None] % 2 for n in (30, 12))
    np.savez_compressed(
        root / name, train_images=x, train_labels=y, val_images=tx[:4], val_labels=ty[:4],
        test_images=tx, test_labels=ty,
    )  # fmt: skip
    return x, y.ravel(), tx, ty.ravel()


def unscaled(data, inputs):
    return np.rint(255 * data.scaling.shown(inputs.numpy())).astype(int)


# ---- built-in sets --------------------------------------------------------------------------


def test_digits_are_scikit_learns_split_in_the_published_sizes():
    from sklearn.datasets import load_digits

    data, stored = load("digits"), load_digits()
    assert (data.num_examples, len(data.test_inputs)) == (1437, 360)
    assert data.shape == (1, 8, 8) and data.classes == tuple("0123456789") and data.is_image
    ours = torch.cat([data.inputs, data.test_inputs]).flatten(1).numpy() * 16
    labels = torch.cat([data.targets, data.test_targets]).numpy()
    rows = sorted(map(tuple, np.column_stack([ours, labels])))
    assert rows == sorted(map(tuple, np.column_stack([stored.data, stored.target])))
    per_class = np.bincount(data.test_targets) / np.bincount(stored.target)
    assert np.abs(per_class - 360 / 1797).max() < 1 / 174  # one record of the smallest class


def test_digits_come_from_scikit_learn_itself_if_the_file_moves(monkeypatch):
    usual = load("digits")
    monkeypatch.setattr(pathlib.Path, "is_file", lambda path: False)
    assert load("digits").fingerprint == usual.fingerprint


def test_digits_split_is_fixed_and_subsets_follow_the_seed():
    a, b = load("digits", seed=0), load("digits", seed=9)
    assert torch.equal(a.test_inputs, b.test_inputs) and a.fingerprint == b.fingerprint
    one, same, other = (load("digits", num_examples=100, seed=s) for s in (3, 3, 4))
    assert one.num_examples == 100 and torch.bincount(one.targets).tolist() == [10] * 10
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("num_examples", [4, 5, toys.TEST_EXAMPLES])
def test_toys_have_the_asked_size_and_repeat_by_seed(name, num_examples):
    a, b, c = (load(name, num_examples=num_examples, seed=s) for s in (0, 0, 1))
    assert a.num_examples == num_examples and a.is_planar and not a.is_image
    counts = torch.bincount(a.targets)
    assert counts.max() - counts.min() <= 1
    assert torch.equal(a.inputs, b.inputs) and torch.equal(a.test_inputs, b.test_inputs)
    assert not torch.equal(a.inputs, c.inputs)
    assert not set(map(tuple, a.inputs.tolist())) & set(map(tuple, a.test_inputs.tolist()))


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_of_unit_size_by_constants_not_by_statistics(name):
    big = load(name, num_examples=50_000)
    assert big.inputs.mean(0).abs().max() < 0.1
    assert (big.inputs.std(0) - 1).abs().max() < 0.1
    # The rule cannot look at the data: without noise, a point does not depend on its fellows.
    few, many = (toys.TOYS[name]._drawn(n, 0.0, np.random.default_rng(0))[0] for n in (8, 8))
    toy = toys.TOYS[name]
    shapes = toy.shape(np.zeros(3, int), np.array([0.1, 0.5, 0.9]))
    assert np.array_equal(few, many) and np.isfinite(shapes).all()
    tiny = load(name, num_examples=len(toy.classes), noise=0.0)
    back = tiny.inputs.numpy() * toy.spread + toy.centre
    on = toy.shape(tiny.targets.numpy()[:, None].repeat(4001, 1).ravel(), _along(len(tiny.targets)))
    gaps = np.linalg.norm(back[:, None] - on.reshape(len(back), 4001, 2), axis=2).min(1)
    assert gaps.max() < 5e-3


def _along(n):
    return np.tile(np.linspace(0, 1, 4001), n)


def test_noise_is_the_scatter_about_the_shape():
    data = load("circles", num_examples=20_000, noise=0.05)
    toy = toys.TOYS["circles"]
    radius = np.linalg.norm(data.inputs.numpy() * toy.spread + toy.centre, axis=1)
    off = radius - np.where(data.targets.numpy() == 0, 1.0, 0.5)
    assert abs(off.std() - 0.05) < 0.002 and abs(off.mean()) < 0.005


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_public_records_are_split_off_and_disjoint(name):
    whole, data = load(name), load(name, public=0.2)
    assert data.num_examples + len(data.public_inputs) == whole.num_examples
    assert len(data.public_inputs) == round(0.2 * whole.num_examples)
    rows = [sorted(map(repr, x.flatten(1).tolist())) for x in (data.inputs, data.public_inputs)]
    assert sorted(rows[0] + rows[1]) == sorted(map(repr, whole.inputs.flatten(1).tolist()))
    assert torch.equal(data.test_inputs, whole.test_inputs)
    share = torch.bincount(data.public_targets) / torch.bincount(whole.targets)
    assert (share - 0.2).abs().max() < 0.01


def test_a_class_with_one_record_keeps_it_private():
    from dpkit.datasets.dataset import assembled
    from dpkit.datasets.raw import Raw

    x, y = np.arange(20.0).reshape(10, 2), np.array([1] * 9 + [0])
    data = assembled(Raw("rare", x, y, x, y, ("a", "b")), num_examples=None, public=0.8, seed=0)
    assert torch.bincount(data.targets).tolist() == [1, 1] and len(data.public_targets) == 8


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(0, 1), st.integers(0, 1))
def test_stratified_keeps_totals_and_shares(counts, share, spare):
    targets = np.repeat(np.arange(len(counts)), counts)
    most = sum(counts) - spare * len(counts)
    total = round(share * most)
    mask = stratified(targets, total, seed=1, spare=spare)
    taken = np.bincount(targets[mask], minlength=len(counts))
    assert mask.sum() == total and (np.array(counts) - taken >= spare).all()
    if total >= sum(c > spare for c in counts):
        assert (taken >= [c > spare for c in counts]).all()
    if not spare and total >= len(counts) ** 2:
        assert np.abs(taken - total * np.array(counts) / sum(counts)).max() < len(counts)


# ---- sets from files ------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name, family", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_the_mnist_family_is_read_from_small_files(name, family, packed, tmp_path, monkeypatch):
    x, y, tx, ty = write_idx(tmp_path / "data", family, packed)
    monkeypatch.setenv("DPKIT_DATA", str(tmp_path / "data"))
    data = load(name)
    assert np.array_equal(unscaled(data, data.inputs)[:, 0], x)
    assert np.array_equal(unscaled(data, data.test_inputs)[:, 0], tx)
    assert np.array_equal(data.targets, y) and np.array_equal(data.test_targets, ty)
    assert len(data.classes) == 10 and data.inputs.dtype == torch.float32
    assert data.inputs.min() == torch.tensor(-data.scaling.centre) / data.scaling.spread


def test_mnist_itself_if_it_is_there_else_a_made_one(tmp_path, monkeypatch):
    root = pathlib.Path(REAL or tmp_path)
    if not (root / "MNIST").is_dir():
        write_idx(root)
    raw = root / "MNIST" / "raw"
    labels = (raw / "t10k-labels-idx1-ubyte").read_bytes()
    images = (raw / "t10k-images-idx3-ubyte").read_bytes()
    monkeypatch.setenv("DPKIT_DATA", str(root))
    data = load("mnist")
    assert data.num_examples == int.from_bytes((raw / f"{IDX[1]}-ubyte").read_bytes()[4:8], "big")
    assert bytes(data.test_targets.to(torch.uint8).numpy()) == labels[8:]
    assert unscaled(data, data.test_inputs).astype(np.uint8).tobytes() == images[16:]


@pytest.mark.parametrize("write", [python2_batch, None])
def test_cifar10_is_read_as_python_2_wrote_it_and_as_python_3_does(write, tmp_path):
    def python3(pixels, labels):
        return pickle.dumps({"data": pixels, "labels": labels.tolist()}, protocol=2)

    *train, test = write_cifar(tmp_path, write or python3)
    data = load("cifar10", root=tmp_path)
    assert data.shape == (3, 32, 32) and data.num_examples == 50 and data.classes[3] == "cat"
    stored = np.concatenate([pixels for pixels, _ in train]).reshape(-1, 3, 32, 32)
    assert np.array_equal(unscaled(data, data.inputs), stored)
    assert np.array_equal(data.test_targets, test[1])


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    write_cifar(tmp_path)
    trap = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    trap.write_bytes(pickle.dumps({"data": Trap(), "labels": []}, protocol=2))
    with pytest.raises(ValueError, match=r"data_batch_3 is corrupt .*mkdir, which is no array"):
        load("cifar10", root=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_pneumonia_prefers_the_published_file_and_names_the_subset(tmp_path):
    write_npz(tmp_path, "pneumoniamnist_balanced.npz")
    subset = load("pneumonia", root=tmp_path)
    assert subset.note == "a class-balanced subset" and subset.note in repr(subset)
    x, y, tx, ty = write_npz(tmp_path)
    data = load("pneumonia", root=tmp_path)
    assert data.note == "" and data.name == "pneumonia" and data.classes == ("normal", "pneumonia")
    assert np.array_equal(unscaled(data, data.inputs)[:, 0], x)
    assert np.array_equal(data.targets, y) and np.array_equal(data.test_targets, ty)


def damaged(name, root, how):
    """Write a set, spoil one of its files, and say which."""
    if name == "mnist":
        write_idx(root)
        path = root / "MNIST" / "raw" / f"{IDX[how.get('file', 0)]}-ubyte"
    elif name == "cifar10":
        write_cifar(root)
        path = root / "cifar-10-batches-py" / "data_batch_2"
    else:
        write_npz(root)
        path = root / "pneumoniamnist.npz"
    path.write_bytes(how["spoil"](path.read_bytes()))
    return path


FAULTS = [
    ("mnist", {"spoil": lambda b: b[:-1]}, r"31,376 .* announced|bytes where 31,376"),
    ("mnist", {"spoil": lambda b: b[:10]}, "shorter than its header"),
    ("mnist", {"spoil": lambda b: b"", "file": 3}, "shorter than its header"),
    ("mnist", {"spoil": lambda b: b"\x89PNG" + b[4:]}, "begins with"),
    ("mnist", {"spoil": lambda b: idx(np.zeros(39, np.uint8)), "file": 1}, "39 labels for the 40"),
    ("cifar10", {"spoil": lambda b: b[:5000]}, "corrupt"),
    ("cifar10", {"spoil": lambda b: b""}, "corrupt"),
    ("cifar10", {"spoil": lambda b: pickle.dumps([1], 2)}, "corrupt"),
    ("cifar10", {"spoil": lambda b: b"\x00" + b}, "corrupt"),
    ("pneumonia", {"spoil": lambda b: b[:3000]}, "corrupt"),
    ("pneumonia", {"spoil": lambda b: b[:200] + b"\xff" * 50 + b[250:]}, "corrupt"),
    ("pneumonia", {"spoil": lambda b: b""}, "corrupt"),
]


@pytest.mark.parametrize("name, how, why", FAULTS)
def test_a_damaged_file_is_named_with_the_remedy(name, how, why, tmp_path):
    path = damaged(name, tmp_path, how)
    with pytest.raises(ValueError, match=why) as caught:
        load(name, root=tmp_path)
    said = str(caught.value)
    assert str(path) in said and "corrupt or truncated" in said and "DPKIT_DATA" in said
    assert "\n" not in said and path.exists()


def test_a_truncated_gzip_and_a_wrong_key_are_damage_too(tmp_path):
    write_idx(tmp_path, packed=True)
    path = tmp_path / "MNIST" / "raw" / f"{IDX[0]}-ubyte.gz"
    for spoiled in (path.read_bytes()[:-20], b"not gzip at all"):
        path.write_bytes(spoiled)
        with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz is corrupt"):
            load("mnist", root=tmp_path)
    np.savez(tmp_path / "pneumoniamnist.npz", images=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(ValueError, match="pneumoniamnist.npz is corrupt"):
        load("pneumonia", root=tmp_path)


def test_a_part_of_the_files_is_no_reason_to_download(tmp_path):
    write_idx(tmp_path)
    (tmp_path / "MNIST" / "raw" / f"{IDX[3]}-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"a part of \"mnist\": .*t10k-labels.* is missing"):
        load("mnist", root=tmp_path)


def test_the_cache_is_looked_in_after_the_named_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DPKIT_DATA", str(tmp_path / "named"))
    write_idx(fetch.cache_folder(), train=30)
    assert load("mnist").num_examples == 30
    write_idx(tmp_path / "named", train=50)
    assert load("mnist").num_examples == 50


# ---- downloads ------------------------------------------------------------------------------


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves `pages`; a path in `short` gets half of its bytes, one in `silent` none."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        body = server.pages.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path in server.short else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.pages, server.short, server.asked = {}, set(), []
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def md5(body):
    return hashlib.md5(body).hexdigest()


@pytest.fixture
def published(mirror, monkeypatch):
    """MNIST and CIFAR-10 as torchvision would announce them, but on this machine."""
    stored, arrays = idx_files()
    packed = {f"{name}-ubyte.gz": gzip.compress(body) for name, body in stored.items()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
            body = python2_batch(*some_images(10, 3072))
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    mirror.pages |= {f"/{name}": body for name, body in packed.items()}
    mirror.pages["/cifar.tar.gz"] = archive.getvalue()
    mnist = types.SimpleNamespace(
        mirrors=[mirror.url], resources=[(name, md5(body)) for name, body in packed.items()]
    )
    cifar = types.SimpleNamespace(
        url=mirror.url + "cifar.tar.gz", filename="c.tar.gz", tgz_md5=md5(archive.getvalue())
    )
    announced = types.SimpleNamespace(MNIST=mnist, FashionMNIST=mnist, CIFAR10=cifar)
    monkeypatch.setattr(known, "_torchvision", lambda: announced)
    mirror.announced, mirror.arrays = announced, arrays
    return mirror


def whatever_lies_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_download_is_kept_and_not_repeated(published, tmp_path, capsys):
    first = load("mnist")
    assert np.array_equal(unscaled(first, first.inputs)[:, 0], published.arrays[0])
    assert "train-images-idx3-ubyte.gz" in capsys.readouterr().err  # the progress bar
    asked = len(published.asked)
    assert load("mnist").fingerprint == first.fingerprint and len(published.asked) == asked == 4
    kept = whatever_lies_in(fetch.cache_folder())
    assert kept == ["MNIST", "MNIST/raw", *sorted(f"MNIST/raw/{name}-ubyte" for name in IDX)]
    assert load("cifar10", root=tmp_path / "r").num_examples == 50
    assert "cifar-10-batches-py/test_batch" in whatever_lies_in(tmp_path / "r")
    assert len(whatever_lies_in(tmp_path / "r")) == 7


def test_pneumonia_is_fetched_from_where_medmnist_says(mirror, monkeypatch, tmp_path):
    write_npz(tmp_path / "there")
    body = (tmp_path / "there" / "pneumoniamnist.npz").read_bytes()
    mirror.pages["/p.npz?download=1"] = body
    table = {"pneumoniamnist": {"url": mirror.url + "p.npz?download=1", "MD5": md5(body)}}
    package = types.ModuleType("medmnist")
    package.info = types.ModuleType("medmnist.info")
    package.info.INFO = table
    monkeypatch.setitem(sys.modules, "medmnist", package)
    monkeypatch.setitem(sys.modules, "medmnist.info", package.info)
    assert load("pneumonia", root=tmp_path / "here").num_examples == 30
    assert whatever_lies_in(tmp_path / "here") == ["pneumoniamnist.npz"]


def test_the_next_mirror_is_tried(published):
    published.announced.MNIST.mirrors = [published.url + "gone/", published.url]
    assert load("mnist").num_examples == 40


@pytest.mark.parametrize("fault", ["checksum", "short", "missing"])
def test_a_failed_download_leaves_nothing_behind_and_says_why(fault, published, tmp_path):
    page = f"/{IDX[2]}-ubyte.gz"
    if fault == "checksum":
        published.pages[page] = published.pages[page][:-1] + b"?"
    elif fault == "short":
        published.short.add(page)
    else:
        del published.pages[page]
    said = {"checksum": "came damaged", "short": "came damaged", "missing": "Not Found"}[fault]
    with pytest.raises(ConnectionError, match=said) as caught:
        load("mnist", root=tmp_path / "r")
    assert whatever_lies_in(tmp_path / "r") == [] and len(published.asked) == 3
    assert all(f'"{name}"' in str(caught.value) for name in ("digits", *TOYS))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("moment", ["download", "unpack", "rename"])
def test_an_interrupt_leaves_nothing_behind_and_the_next_try_works(
    moment, published, tmp_path, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        where = {"download": "_chunks", "unpack": "gunzip", "rename": "_renamed"}[moment]
        owner = known if moment == "unpack" else fetch
        patch.setattr(owner, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            load("mnist", root=tmp_path / "r")
    assert whatever_lies_in(tmp_path / "r") == []
    assert load("mnist", root=tmp_path / "r").num_examples == 40


def test_nothing_of_a_download_is_visible_before_it_is_whole(published, tmp_path, monkeypatch):
    seen = []
    rename = fetch._renamed

    def spied(ready, target):
        seen.append((target.exists(), len(list(ready.iterdir()))))
        rename(ready, target)

    monkeypatch.setattr(fetch, "_renamed", spied)
    load("mnist", root=tmp_path)
    assert seen == [(False, 4)]


def test_a_faster_process_wins_and_both_are_served(published, tmp_path, monkeypatch):
    rename = fetch._renamed

    def beaten(ready, target):
        write_idx(tmp_path, train=30)
        rename(ready, target)

    monkeypatch.setattr(fetch, "_renamed", beaten)
    assert load("mnist", root=tmp_path).num_examples == 30
    assert not list(tmp_path.glob(".download-*"))


def test_an_unwritable_folder_is_named(published, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PermissionError, match=r"data folder .*file.* cannot be written .*root="):
        load("mnist", root=tmp_path / "file" / "r")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(known, "gunzip", full)
    with pytest.raises(PermissionError, match="No space left on device") as caught:
        load("mnist", root=tmp_path / "r")
    assert "\n" not in str(caught.value) and whatever_lies_in(tmp_path / "r") == []


def test_no_network_names_the_built_in_sets(monkeypatch, tmp_path):
    closed = types.SimpleNamespace(
        CIFAR10=types.SimpleNamespace(url="http://127.0.0.1:9/x", filename="x", tgz_md5="")
    )
    monkeypatch.setattr(known, "_torchvision", lambda: closed)
    monkeypatch.setenv("DPKIT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ConnectionError) as caught:
        load("cifar10")
    said = str(caught.value)
    assert str(tmp_path / "nowhere") in said and "(no such folder)" in said
    assert "Connection refused" in said and '"digits", "moons"' in said and "\n" not in said


def test_a_missing_and_an_unfit_torchvision_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"not installed .*dpkit\[vision\].*\"digits\""):
        load("mnist")
    monkeypatch.delitem(sys.modules, "torchvision")
    (tmp_path / "torchvision").mkdir()
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="does not fit .*nms does not exist.*built for") as caught:
        load("mnist")
    assert torch.__version__ in str(caught.value) and '"digits"' in str(caught.value)


def test_the_installed_torchvision_announces_what_is_read_of_it():
    code = """
        from dpkit.datasets import known
        try:
            found = known._torchvision()
        except ImportError as reason:
            assert "torchvision, which" in str(reason), reason
        else:
            for one in (found.MNIST, found.FashionMNIST):
                assert [name for name, md5 in one.resources if len(md5) == 32] == [
                    path.name + ".gz" for path in known.KNOWN["mnist"].paths]
                assert all(m.startswith("http") and m.endswith("/") for m in one.mirrors)
            cifar = found.CIFAR10
            assert cifar.base_folder == known.Cifar10.folder and len(cifar.tgz_md5) == 32
            assert cifar.url.endswith(cifar.filename)
    """
    assert fresh(code).returncode == 0


# ---- what is imported, and how much memory it takes -----------------------------------------


def fresh(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    assert run.returncode == 0, run.stderr
    return run


def test_nothing_heavy_is_imported_before_it_is_needed():
    fresh("""
        import sys, dpkit
        dpkit.datasets.NAMES
        assert not {"torch", "sklearn", "torchvision", "scipy"} & set(sys.modules)
        dpkit.datasets.load("digits"), dpkit.datasets.load("moons").picture()
        assert not {"sklearn", "torchvision", "plotly"} & set(sys.modules)
    """)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from the Linux kernel")
def test_a_set_of_mnists_size_is_held_once(tmp_path):
    write_idx(tmp_path, train=60_000, test=10_000)
    said = fresh(
        """
        from pathlib import Path
        from dpkit.datasets import load
        def memory(kind):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))
        load("digits")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = memory("VmRSS")
        data = load("mnist")
        print(memory("VmHWM") - before)
        """,
        DPKIT_DATA=str(tmp_path),
    )
    floats, stored = 70_000 * 784 * 4 / 2**20, 70_000 * 784 / 2**20
    assert floats < float(said.stdout) < floats + stored + 40


# ---- Dataset --------------------------------------------------------------------------------


def made(n=20, k=2, shape=(3,), **options):
    return dp.datasets.Dataset.of(
        np.random.default_rng(0).normal(size=(n, *shape)), np.arange(n) % k, **options
    )


def test_of_takes_arrays_lists_and_tensors_alike():
    values, labels = np.arange(12.0).reshape(6, 2), [0, 1, 2, 0, 1, 2]
    kinds = [
        (values, np.array(labels)), (values.tolist(), labels), (values[::-1][::-1], labels),
        (torch.tensor(values, requires_grad=True), torch.tensor(labels, dtype=torch.int16)),
        (values.astype(">f4"), np.array(labels, np.uint8)), (values.astype(np.float16), labels),
    ]  # fmt: skip
    for inputs, targets in kinds:
        data = dp.datasets.Dataset.of(inputs, targets)
        assert data.inputs.tolist() == values.tolist() and data.targets.tolist() == labels
        assert data.inputs.dtype == torch.float32 and not data.inputs.requires_grad
        assert data.classes == ("0", "1", "2") and len(data.test_inputs) == 0
    frozen = np.ones((2, 2), np.float32)
    frozen.flags.writeable = False
    assert dp.datasets.Dataset.of(frozen, [0, 1]).inputs.sum() == 4


def test_bytes_are_pixels_and_other_numbers_stay():
    pixels = np.array([[[[0, 255]]], [[[51, 102]]]], np.uint8)
    for kind in (pixels, torch.from_numpy(pixels)):
        data = dp.datasets.Dataset.of(kind, [0, 1])
        assert np.allclose(data.inputs.ravel(), [0, 1, 0.2, 0.4])
    assert dp.datasets.Dataset.of(pixels.astype(int), [0, 1]).inputs.max() == 255


def test_tokens_stay_whole_numbers():
    """An int64 tensor is kept; the same numbers in an array or of another kind become float32."""
    tokens, labels = torch.tensor([[3, 0], [1, 2**40], [2, 2]]), [0, 1, 1]
    data = dp.datasets.Dataset.of(tokens, labels, test=(tokens[:1], [0]), public=(tokens, labels))
    for kept in (data.inputs, data.test_inputs, data.public_inputs):
        assert kept.dtype == torch.int64
    assert torch.equal(data.inputs, tokens) and data.picture()["data"]
    assert dp.datasets.Dataset.of(tokens, labels).fingerprint == data.fingerprint
    held = dp.datasets.Dataset.of(tokens.repeat(4, 1), labels * 4, test_share=0.2)
    assert held.inputs.dtype == held.test_inputs.dtype == torch.int64
    for other in (tokens.numpy(), tokens.int(), tokens.tolist(), tokens.bool()):
        assert dp.datasets.Dataset.of(other, labels).inputs.dtype == torch.float32


def test_tokens_that_are_none_are_refused():
    tokens, labels = torch.tensor([[3, 0], [1, -2]]), [0, 1]
    with pytest.raises(ValueError, match="record 1 of the training inputs has -2"):
        dp.datasets.Dataset.of(tokens, labels)
    with pytest.raises(TypeError, match=r"the test inputs .* torch.int64, got torch.float32"):
        dp.datasets.Dataset.of(tokens.abs(), labels, test=([[1.0, 2.0]], [0]))


def test_one_record_is_a_data_set():
    data = dp.datasets.Dataset.of(torch.randn(1, 6), torch.tensor([0]))
    assert (data.num_examples, data.num_classes, data.shape) == (1, 1, (6,))


def test_a_test_share_is_held_out_of_every_class_by_a_fixed_rule():
    a, b = made(n=50, k=5, test_share=0.2), made(n=50, k=5, test_share=0.2)
    assert (a.num_examples, len(a.test_inputs)) == (40, 10) and a.fingerprint == b.fingerprint
    assert torch.bincount(a.test_targets).tolist() == [2] * 5
    rows = sorted(torch.cat([a.inputs, a.test_inputs])[:, 0].tolist())
    assert rows == sorted(made(n=50, k=5).inputs[:, 0].tolist())
    given = made(test=(np.zeros((4, 3)), [1, 1, 0, 1]), public=(np.ones((2, 3)), [0, 0]))
    assert len(given.test_inputs) == 4 and len(given.public_inputs) == 2


def of(x, y, **options):
    return lambda: dp.datasets.Dataset.of(x, y, **options)


X = np.ones((4, 2))
BAD = X.copy()
BAD[2, 1] = np.nan
WRONG = {
    "no records": (of(X[:0], []), "at least one training record"),
    "lengths": (of(X, [0, 1, 0]), "4 training inputs but 3 training targets"),
    "flat inputs": (of(X[:, 0], [0, 1, 0, 1]), r"inputs\[:, None\]"),
    "no features": (of(X[:, :0], [0, 1, 0, 1]), "at least one feature"),
    "columns": (of(X, np.ones((4, 1), int)), r"shape \(N,\).*got \(4, 1\)"),
    "nan": (of(BAD, [0, 1, 0, 1]), "must be finite numbers, record 2"),
    "infinite": (of(X * 1e300, [0, 1, 0, 1]), "must be finite numbers, record 0"),
    "test nan": (of(X, [0, 1, 0, 1], test=(BAD, [0, 1, 0, 1])), "the test inputs must be finite"),
    "negative": (of(X, [0, -1, 0, 1]), "class indices 0 to 1 .* record 1 has -1"),
    "beyond": (of(X, [0, 1, 2, 1], classes=("a", "b")), "record 2 has 2: number the classes"),
    "huge": (of(X, [0, 1, 10**12, 1]), "record 2 has 1000000000000"),
    "floats": (of(X, [0.0, 1.0, 0.5, 1.0]), r"class indices.*float64.*astype\(int\)"),
    "texts": (of(X, ["cat", "dog", "cat", "dog"]), "np.unique"),
    "complex": (of(X * 1j, [0, 1, 0, 1]), "real numbers"),
    "complex tensor": (of(torch.ones(2, 2) * 1j, [0, 1]), "real numbers"),
    "empty class": (of(X, [0, 2, 0, 2]), r"class 1 \('1'\) of 3 has no training record"),
    "no pair": (of(X, [0, 1, 0, 1], test=torch.tensor(X)), r"a pair \(inputs, targets\)"),
    "names": (of(X, [0, 1, 0, 1], classes=("a", "a")), "different names"),
    "name kinds": (of(X, [0, 1, 0, 1], classes=(0, 1)), "must be names"),
    "test shape": (of(X, [0, 1, 0, 1], test=(X[:, :1], [0] * 4)), "shape of the training records"),
    "test label": (of(X, [0, 1, 0, 1], test=(X, [0, 1, 0, 7])), "the test targets .* has 7"),
    "share": (of(X, [0, 1, 0, 1], test_share=1.0), r"test_share .* must lie in \[0, 1\), got 1"),
    "too few": (of(X, [0, 1, 0, 1], test_share=0.9), "leave a training record of each class"),
    "both": (of(X, [0, 1, 0, 1], test_share=0.5, test=(X, [0, 1, 0, 1])), "not both"),
    "too early": (of(X, [0, -3, 0, 1], test_share=0.5), "record 1 has -3"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_each_fault_of_own_data_is_one_sentence(fault):
    make, said = WRONG[fault]
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 300


@pytest.mark.parametrize("shape", [(2,), (3,), (1, 4, 4)])
def test_a_named_class_may_be_empty_since_which_occur_may_be_private(shape):
    """Removing the last record of a class changes no decision, and every picture still draws."""
    for targets in ([0, 2, 0, 2], [0, 1, 0, 1], [1, 1, 2, 2]):
        data = dp.datasets.Dataset.of(torch.rand(4, *shape), targets, classes=("a", "b", "c"))
        assert data.num_classes == 3
        text = json.dumps(data.picture())
        assert "training records" in text


def test_a_wrong_number_type_is_refused_by_the_plain_constructor():
    data = made()
    fields = {**vars(data), "inputs": data.inputs.double()}
    fields.pop("fingerprint", None)
    with pytest.raises(TypeError, match="torch.float32 or torch.int64, got torch.float64"):
        dp.datasets.Dataset(**fields)


LOADS = {
    "unknown": (("mnits", {}), r"no data set 'mnits' \(did you mean 'mnist'\?\).*\"blobs\""),
    "case": (("Fashion_MNIST", {}), "did you mean 'fashion-mnist'"),
    "no text": ((["mnist"], {}), "no data set"),
    "too many": (("digits", {"num_examples": 1438}), r"\[10, 1437\], got 1438"),
    "too few": (("digits", {"num_examples": 9}), r"\[10, 1437\], got 9"),
    "one": (("moons", {"num_examples": 1}), r"\[2, .*got 1"),
    "none": (("blobs", {"num_examples": 0}), "got 0"),
    "half": (("moons", {"num_examples": 10.5}), "whole number"),
    "nan": (("moons", {"num_examples": float("nan")}), "got nan"),
    "text": (("moons", {"num_examples": "10"}), "whole number, got '10'"),
    "truth": (("moons", {"num_examples": True}), "whole number, got True"),
    "public": (("digits", {"public": 1.0}), r"public .*\[0, 1\), got 1"),
    "public nan": (("digits", {"public": float("nan")}), "got nan"),
    "all public": (("digits", {"public": 0.999}), "a private record of each class"),
    "noise": (("moons", {"noise": -0.1}), r"noise .*\[0, 10\], got -0.1"),
    "no toy": (("digits", {"noise": 0.1}), "for the toy sets"),
    "seed": (("moons", {"seed": -1}), "seed .*got -1"),
    "no seed": (("moons", {"seed": None}), "seed .*got None"),
}


@pytest.mark.parametrize("fault", LOADS)
def test_each_fault_of_load_is_one_sentence(fault):
    (name, options), said = LOADS[fault]
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        load(name, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_whole_numbers_of_any_kind_are_taken():
    assert load("moons", num_examples=np.int64(12)).num_examples == 12
    assert load("digits", num_examples=12.0).num_examples == 12


def test_fingerprints_tell_neighbours_apart_and_own_ones_are_keyed():
    data = made()
    less = dp.datasets.Dataset.of(data.inputs[1:], data.targets[1:])
    flipped = dp.datasets.Dataset.of(data.inputs, 1 - data.targets)
    same = dp.datasets.Dataset.of(data.inputs.clone(), data.targets, name="other")
    assert len({data.fingerprint, less.fingerprint, flipped.fingerprint}) == 3
    assert same.fingerprint == data.fingerprint
    code = """
        import dpkit, torch
        print(dpkit.datasets.load("moons").fingerprint)
        print(dpkit.datasets.Dataset.of(torch.ones(2, 2), torch.tensor([0, 1])).fingerprint)
    """
    published, own = fresh(code).stdout.split()
    assert published == load("moons").fingerprint
    assert own != dp.datasets.Dataset.of(torch.ones(2, 2), torch.tensor([0, 1])).fingerprint


def test_a_data_set_travels_by_pickle_and_shows_no_record_in_its_text():
    data = load("digits", num_examples=50)
    back = pickle.loads(pickle.dumps(data))
    assert back.fingerprint == data.fingerprint and torch.equal(back.inputs, data.inputs)
    assert repr(data) == (
        "<Dataset digits: 50 training + 360 test records of shape (1, 8, 8), 10 classes>"
    )
    with pytest.raises(AttributeError):
        data.name = "other"


# ---- pictures -------------------------------------------------------------------------------


def png_pixels(address):
    """The inverse of `picture.png`, written from the PNG specification."""
    body = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert body[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(body):
        size, kind = struct.unpack(">I4s", body[at : at + 8])
        data = body[at + 8 : at + 8 + size]
        assert struct.unpack(">I", body[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + data
        )
        chunks[kind], at = data, at + 12 + size
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert depth == 8 and not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, {0: 1, 2: 3}[colour])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mosaic_shows_the_records_row_by_class(channels):
    data = made(n=12, k=3, shape=(channels, 6, 5))
    figure = data.picture(columns=4)
    json.dumps(figure)
    sheet = png_pixels(figure["data"][0]["source"])
    assert sheet.shape == (3 * 8 - 2, 4 * 7 - 2, channels)
    wanted = np.rint(255 * data.pixels(data.inputs)).astype(int)
    for i in range(3):
        for j, record in enumerate(np.flatnonzero(data.targets.numpy() == i)):
            tile = sheet[8 * i : 8 * i + 6, 7 * j : 7 * j + 5]
            assert np.array_equal(tile.transpose(2, 0, 1), wanted[record])
    assert figure["layout"]["yaxis"]["ticktext"] == ["0", "1", "2"]
    assert "not private" in figure["layout"]["title"]["text"]


def test_points_are_drawn_by_class_and_other_records_as_counts():
    data = load("blobs", num_examples=3_000)
    figure = data.picture()
    traces = figure["data"]
    assert [t["name"] for t in traces] == list(data.classes)
    assert sum(len(t["x"]) for t in traces) == 1_000
    assert len({t["marker"]["color"] for t in traces}) == len(
        {t["marker"]["symbol"] for t in traces}
    )
    first = data.inputs[:1000][data.targets[:1000] == 0]
    assert np.allclose(traces[0]["x"], first[:, 0], atol=1e-4)
    assert all(figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis"))
    bars = made(n=7, k=3).picture()["data"][0]
    assert (bars["type"], bars["y"]) == ("bar", [3, 2, 2])


def test_pixels_undo_the_scaling(tmp_path):
    x, *_ = write_idx(tmp_path)
    data = load("mnist", root=tmp_path)
    shown = data.pixels(data.inputs[:5])
    assert shown.min() >= 0 and shown.max() <= 1
    assert np.allclose(shown[:, 0], x[:5] / 255, atol=1e-6)
    wide = made(shape=(1, 4, 4))
    assert wide.pixels(wide.inputs).min() == 0 and wide.pixels(wide.inputs).max() == 1
