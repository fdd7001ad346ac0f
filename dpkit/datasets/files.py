"""Read the files of image sets: idx (MNIST), pickled batches (CIFAR-10) and npz (MedMNIST)."""

from __future__ import annotations

import gzip
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dpkit.datasets.raw import Array

Split = tuple[Array, Array]
"""Stored inputs and targets."""

_DAMAGE = (
    EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, UnicodeError,
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile,
)  # fmt: skip


def idx_split(images: Path, labels: Path) -> Split:
    """Images `(N, 1, height, width)` and labels `(N,)` of the MNIST family, both uint8."""
    with _blamed(images):
        pixels = _idx(images, dims=3)
    with _blamed(labels):
        targets = _idx(labels, dims=1)
        if len(targets) != len(pixels):
            raise ValueError(f"{len(targets):,} labels for the {len(pixels):,} images beside it")
    return pixels[:, None], targets.astype(np.int64)


def cifar_split(batches: Sequence[Path]) -> Split:
    """Images `(N, 3, 32, 32)` uint8 and labels `(N,)` of CIFAR-10's Python batches."""
    pixels, targets = [], []
    for path in batches:
        with _blamed(path), path.open("rb") as file:
            batch = _OnlyArrays(file, encoding="latin1").load()
            rows, labels = np.asarray(batch["data"]), np.asarray(batch["labels"], np.int64)
            if rows.dtype != np.uint8 or rows.shape != (len(labels), 3 * 32 * 32):
                raise ValueError(f"{len(labels):,} labels for {rows.dtype} data {rows.shape}")
            pixels.append(rows.reshape(-1, 3, 32, 32))
            targets.append(labels)
    return np.concatenate(pixels), np.concatenate(targets)


def npz_split(path: Path, split: str) -> Split:
    """Images `(N, 1, height, width)` uint8 and labels `(N,)` of a MedMNIST file of grey images."""
    with _blamed(path), path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        pixels, labels = file[f"{split}_images"], file[f"{split}_labels"]
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or labels.size != len(pixels):
            raise ValueError(f"{split} labels {labels.shape} for {pixels.dtype} {pixels.shape}")
    return pixels[:, None], labels.reshape(-1).astype(np.int64)


def found(path: Path) -> Path | None:
    """The file, plain or as `.gz`, if it is there."""
    packed = path.with_name(path.name + ".gz")
    return next((p for p in (path, packed) if p.is_file()), None)


def _idx(path: Path, dims: int) -> Array:
    """An idx file of bytes: magic number 0x0800 + dims, the sizes (big-endian), the values."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            stored = np.frombuffer(file.read(), np.uint8)
    else:
        stored = np.fromfile(path, np.uint8)
    head = 4 * (1 + dims)
    if len(stored) < head:
        raise ValueError(f"{len(stored)} bytes, shorter than its header")
    magic, *sizes = (int(size) for size in stored[:head].view(">u4"))
    if magic != 0x0800 + dims:
        raise ValueError(f"it begins with {magic:#010x}, not {0x0800 + dims:#010x}")
    if len(stored) - head != np.prod(sizes):
        raise ValueError(f"{len(stored):,} bytes where {head + np.prod(sizes):,} are announced")
    return stored[head:].reshape(sizes)


class _OnlyArrays(pickle.Unpickler):
    """Reads pickled numpy arrays and nothing else: a stranger's pickle may run any code."""

    def find_class(self, module: str, name: str) -> Any:
        """The few names that an array needs, whichever numpy wrote it."""
        rebuild = np.empty(0, np.uint8).__reduce__()[0]
        home = module.replace("numpy._core", "numpy.core")
        allowed: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): rebuild,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        if (home, name) not in allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array")
        return allowed[home, name]


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into an old pickle: as text, to be encoded again."""
    return text.encode("latin1")


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file provokes into one sentence that names the file."""
    try:
        yield
    except OSError as reason:
        if isinstance(reason, gzip.BadGzipFile):
            _refuse(path, reason)
        why = reason.strerror or reason
        raise OSError(f"The data file {path} cannot be read ({why}).") from reason
    except _DAMAGE as reason:
        _refuse(path, reason)


def _refuse(path: Path, reason: Exception) -> NoReturn:
    raise ValueError(
        f"The data file {path} is corrupt or truncated ({str(reason).rstrip('.')}): delete it and "
        f"load again, or set DPKIT_DATA to a folder with a good copy."
    ) from reason
