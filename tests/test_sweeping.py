"""Sweeps: a finished run is never lost nor made again, whatever dies, and nothing runs unpaid."""

import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit import cli, sweeping
from dpkit.figures import sweeps as figures
from dpkit.mechanisms import Ledger
from dpkit.sweeping import Grid, Store, export, sweep
from dpkit.sweeping.asked import read
from dpkit.sweeping.composition import total
from tests import sweeps
from tests.sweeps import GRID, PLAN, SEEDS, Here, linear, published, records

VOTES = dp.votes.VotePlan(teachers=30, top_k=2, noise=90.0, delta=1e-3, budget=9.0)
LONG = bool(os.environ.get("DPKIT_LONG"))
KILLS = 1000 if LONG else 50


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs.sqlite"


def content(path):
    """What a store holds, times aside."""
    with Store(path) as store:
        found = {record.key: replace(record, seconds=None) for record in store.records()}
    return found


def ended(*arguments, **options):
    return list(sweep(*arguments, executor=options.pop("executor", Here()), **options))


# ---- what is made, and what is stored ----------------------------------------------------------


def test_every_plan_with_every_seed_is_made_once_and_is_what_train_makes(file):
    made = ended(GRID, published, linear, seeds=SEEDS, store=file)
    assert len(made) == len(GRID) * len(SEEDS) == 12
    assert len({record.key for record in made}) == 12
    record = next(r for r in made if r.seed == 1 and r.settings["method.noise_multiplier"] == 4.0)
    assert record.state == "finished" and record.data == "my-data"
    assert record.epsilon == record.plan.epsilon() == record.run.spent[-1]
    data = published()
    *_, last = dp.train(linear(data, 1), data, record.plan, seed=1, device="cpu")
    assert record.accuracy == record.run.accuracy[-1] == last.peek.accuracy
    assert record.run.guarantee == record.plan.guarantee(seeded=True)
    assert record.versions["torch"] == torch.__version__


def test_a_second_call_makes_nothing_and_tells_the_same(file, monkeypatch):
    first = ended(GRID, published, linear, seeds=SEEDS, store=file)
    before = content(file)
    monkeypatch.setattr(sweeping.workers, "perform", None)  # whoever trained now would fail
    again = ended(GRID, published, linear, seeds=SEEDS, store=file)
    assert {r.key for r in again} == {r.key for r in first} and content(file) == before


def test_a_broken_off_sweep_goes_on_where_it_was(file):
    begun = sweep(GRID, published, linear, seeds=SEEDS, store=file, executor=Here())
    kept = [next(begun) for _ in range(5)]
    begun.close()
    with Store(file) as store:
        paid = store.paid()
    rest = sweep(GRID, published, linear, seeds=SEEDS, store=file, executor=Here())
    found = list(rest)
    assert len(found) == rest.total == rest.finished == 12 and rest.seconds_left == 0.0
    with Store(file) as store:
        assert all(store.paid()[r.key] == paid[r.key] == 1 for r in kept), "none is made twice"


def test_more_seeds_and_plans_join_an_old_store(file):
    ended(PLAN, published, linear, seeds=(0,), store=file)
    ended(PLAN, published, linear, seeds=(0, 1), store=file)
    with Store(file) as store:
        assert [record.seed for record in store.records("finished")] == [0, 1]
        assert store.attempts == 2


@pytest.mark.parametrize(
    "change",
    [
        {"plan": replace(PLAN, delta=1e-4)},
        {"seeds": (7,)},
        {"data": partial(records, 90)},
        {"model": torch.nn.Linear(2, 3)},
        {"evaluate_every": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_a_run_makes_another_key(file, change):
    first = {"plan": PLAN, "data": published, "model": linear, "seeds": (0,)}

    def keys(arguments):
        arguments = dict(arguments)
        parts = [arguments.pop(name) for name in ("plan", "data", "model")]
        return {record.key for record in ended(*parts, store=file, **arguments)}

    assert keys(first) == keys(first)
    assert not keys(first) & keys({**first, **change})


def test_models_that_differ_in_their_weights_alone_are_told_apart():
    one, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    assert sweeping.tasks.name_of(one) != sweeping.tasks.name_of(other)
    assert sweeping.tasks.name_of(one) == sweeping.tasks.name_of(one)
    wide = partial(dp.zoo.mlp, hidden=(3,))
    assert sweeping.tasks.name_of(wide) != sweeping.tasks.name_of(dp.zoo.mlp)


def with_others(shift, public):
    data = published()
    return replace(data, test_inputs=data.test_inputs + shift, public_inputs=data.inputs[:public],
                   public_targets=data.targets[:public])  # fmt: skip


def test_other_test_or_public_records_and_other_flags_are_another_run(file):
    splits = [partial(with_others, *pair) for pair in ((0, 0), (1, 0), (0, 1))]
    assert len({ended(PLAN, data, linear, store=file)[0].key for data in splits}) == 3
    plain, frozen, resting = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    for other in (frozen, resting):
        other.load_state_dict(plain.state_dict())
    frozen.bias.requires_grad_(False)
    resting.eval()
    steep = [torch.nn.LeakyReLU(slope) for slope in (0.1, 0.2)]
    names = [sweeping.tasks.name_of(one) for one in (plain, frozen, resting, *steep)]
    assert len(set(names)) == 5
    wide = [partial(dp.zoo.mlp, hidden=tuple([9] * 500 + [n])) for n in (1, 2)]
    assert len({sweeping.tasks.name_of(one) for one in wide}) == 2


def test_an_estimate_is_shown_at_its_bound(file):
    plan = dp.Plan(dp.DPSGD(0.6), dp.Poisson(0.02, 60), 1e-4, accountant=dp.GDP())
    (record,) = ended(plan, published, linear, store=file)
    bound = dp.PLD().epsilon(plan.ledger(), plan.delta)
    assert record.epsilon == bound > 1.05 * plan.epsilon()
    assert export.point(record).epsilon == bound


def test_a_key_of_a_store_is_whole_or_refused(file):
    with Store(file) as store:
        assert len(store.secret) == 32
    file.with_name("runs.sqlite.key").write_bytes(b"")
    with Store(file) as store, pytest.raises(ValueError, match="no key of a store"):
        _ = store.secret


def test_secret_runs_are_made_as_often_as_asked_and_differ(file):
    made = ended(PLAN, published, linear, seeds=(None, None), store=file)
    assert len({record.key for record in made}) == 2
    assert all("Teaching run" not in record.run.guarantee for record in made)
    assert len(ended(PLAN, published, linear, seeds=(None, None), store=file)) == 2
    with Store(file) as store:
        assert store.attempts == 2


def test_private_records_are_known_again_by_the_owner_of_the_store_alone(file, tmp_path):
    first = ended(PLAN, records, linear, store=file)
    assert ended(PLAN, records(), linear, store=file)[0].key == first[0].key
    other = ended(PLAN, records, linear, store=tmp_path / "other.sqlite")
    assert other[0].fingerprint != first[0].fingerprint, "no guess can be tested without the key"
    assert (file.parent / "runs.sqlite.key").stat().st_mode & 0o77 == 0


def test_the_price_is_on_disk_before_a_run_begins(file):
    seen = []

    class Watching(Here):
        def submit(self, fn, /, task, work):
            base = sqlite3.connect(file)
            seen.append(base.execute("SELECT key, epsilon FROM spends").fetchall()[-1])
            base.close()
            assert seen[-1][0] == task.key
            return super().submit(fn, task, work)

    (record,) = ended(PLAN, published, linear, store=file, executor=Watching())
    assert seen == [(record.key, PLAN.epsilon())]


# ---- what fails, and what is refused -----------------------------------------------------------


def test_what_fails_is_tried_four_times_then_set_aside_and_told(file):
    with pytest.warns(UserWarning, match="set aside after 4 failures: RuntimeError: no model"):
        made = ended(PLAN, published, sweeps.failing, seeds=(0, 1, 2), store=file)
    assert [record.seed for record in made] == [0, 2]
    with Store(file) as store:
        (lost,) = store.records("set aside")
        assert lost.seed == 1 and lost.failures == 4 and "no model today" in lost.error
        assert store.paid()[lost.key] == 4, "an attempt that failed was paid for as well"
    begun = sweep(PLAN, published, sweeps.failing, seeds=(1,), store=file, executor=Here())
    assert list(begun) == [] and begun.set_aside == 1, "and it is not tried again by itself"
    with Store(file) as store:
        store.revive()
        assert store.state(lost.key) == "waiting"


def test_what_fails_once_is_made_at_the_second_attempt(file, tmp_path, monkeypatch):
    monkeypatch.setenv("DPKIT_TEST_MARK", str(tmp_path))
    made = ended(PLAN, published, sweeps.flaky, seeds=(0, 1), store=file)
    assert {record.seed for record in made} == {0, 1}
    assert all(record.failures == 1 and record.error is None for record in made)


def test_what_cannot_be_accounted_is_set_aside_and_told_and_the_rest_runs(file):
    noises = (1.0, -1.0, "loud")
    grid = Grid(PLAN, {"method.noise_multiplier": noises, "sampler.sample_rate": (0.25, 2.0)})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        begun = sweep(grid, published, linear, store=file, executor=Here())
    assert len(told) == 5 and all("is set aside: " in str(one.message) for one in told)
    made = list(begun)
    assert len(made) == 1 and begun.set_aside == 5 and begun.total == 6
    with Store(file) as store:
        refused = list(store.records("refused"))
        assert {record.settings["method.noise_multiplier"] for record in refused} == set(noises)
        assert all("must" in record.error for record in refused)
        with pytest.raises(ValueError, match="no plan, for it was refused"):
            _ = refused[0].plan
        with pytest.raises(ValueError, match="not finished, it is refused"):
            _ = refused[0].run


def test_a_grid_calibrates_to_a_price_last(file):
    grid = Grid(PLAN, {"epsilon": (1.0, 2.0), "sampler.steps": (4, 8)})
    for point in grid:
        wanted = dict(point.settings)
        assert point.plan.epsilon() <= wanted["epsilon"] < 1.01 * point.plan.epsilon()
        assert point.plan.steps == wanted["sampler.steps"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Grid(PLAN, {"method.noise": (1,)}), "DPSGD has no 'noise'"),
        (lambda: Grid(PLAN, {"delta": ()}), "at least one value"),
        (lambda: Grid("plan", {}), "plan must be a Plan"),
        (lambda: sweep(3, "digits", linear), "iterable"),
        (lambda: sweep(["plan"], "moons", linear, executor=Here()), "hold Plans"),
        (lambda: sweep([VOTES], "moons", linear, executor=Here()), "what `train` trains"),
        (lambda: sweep(PLAN, published, lambda d, s: None, executor=Here()), "top of a module"),
        (lambda: sweep(PLAN, published, linear, seeds=3), "seeds must list"),
        (lambda: sweep(PLAN, published, linear, seeds=(-1,)), "whole number in"),
        (lambda: sweep(PLAN, published, linear, workers=0), "worker processes"),
        (lambda: sweep(PLAN, published, linear, executor=3), "concurrent.futures.Executor"),
        (lambda: sweep(PLAN, published, linear, store="no/such/folder.sqlite"), "no folder"),
        (lambda: sweep(PLAN, lambda: published(), linear, executor=Here()), "cannot be sent"),
    ],
)
def test_bad_input_ends_in_a_sentence_before_anything_runs(make, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError, OSError), match=says):
        make()


def test_what_is_no_store_is_refused(file):
    file.write_text("a letter" * 500)
    with pytest.raises(ValueError, match="not a store of runs"):
        Store(file)
    assert file.read_text() == "a letter" * 500, "and left as it was"
    other = sqlite3.connect(file.with_name("other.sqlite"))
    other.execute("CREATE TABLE letters (text TEXT)")
    other.close()
    with pytest.raises(ValueError, match="database of another program"):
        Store(file.with_name("other.sqlite"))
    with Store(file.with_name("new.sqlite")):
        pass
    base = sqlite3.connect(file.with_name("new.sqlite"))
    base.execute("PRAGMA user_version = 2")
    base.close()
    with pytest.raises(ValueError, match="in version 2; this dpkit reads version 1"):
        Store(file.with_name("new.sqlite"))


def test_a_full_disk_loses_nothing_that_was_finished(file):
    store = Store(file)
    kept = ended(PLAN, published, linear, seeds=range(3), store=store)
    pages = store._base.execute("PRAGMA page_count").fetchone()[0]
    store._base.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(OSError, match="disk is full; free some space"):
        ended(PLAN, published, linear, seeds=range(60), store=store)
    store.close()
    with Store(file) as again:
        assert {r.key for r in kept} <= {r.key for r in again.records("finished")}
    assert len(ended(PLAN, published, linear, seeds=range(60), store=file)) == 60


# ---- processes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The sweep of `tests.sweeps` made in this process, without interruption."""
    path = tmp_path_factory.mktemp("unbroken") / "runs.sqlite"
    ended(GRID, published, linear, seeds=SEEDS, store=path)
    return content(path)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_store_what_one_process_stores(file, unbroken, workers):
    made = list(sweep(GRID, published, linear, seeds=SEEDS, store=file, workers=workers))
    assert len(made) == 12 and content(file) == unbroken


def test_any_executor_stores_the_same(tmp_path, unbroken):
    for number, kind in enumerate((ThreadPoolExecutor, ProcessPoolExecutor)):
        with kind(2) as executor, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forks beside threads
            store = tmp_path / f"{number}.sqlite"
            made = list(sweep(GRID, published, linear, seeds=SEEDS, store=store, executor=executor))
            assert len(made) == 12 and content(store) == unbroken
            assert executor.submit(int).result() == 0, "it is not shut down"


def test_a_dask_cluster_stores_the_same(file, unbroken):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        pool = client.get_executor()
        made = list(sweep(GRID, published, linear, seeds=SEEDS, store=file, executor=pool))
    assert len(made) == 12 and content(file) == unbroken


def test_a_worker_that_dies_over_a_run_costs_that_run_alone(file):
    with pytest.warns(UserWarning, match="set aside after 4 failures: its worker died"):
        made = list(sweep(PLAN, published, sweeps.deadly, seeds=(0, 1, 2), store=file, workers=2))
    assert {record.seed for record in made} == {0, 2}


def test_workers_that_are_killed_now_and_then_delay_a_sweep_only(file, monkeypatch):
    """The long form kills a worker every 10 s for 5 minutes, while each run takes a second."""
    runs, nap, every, lasting = (600, 1.0, 10.0, 300.0) if LONG else (12, 0.3, 1.0, 2.5)
    monkeypatch.setenv("DPKIT_TEST_NAP", str(nap))
    begun = sweep(PLAN, published, sweeps.slow, seeds=range(runs), store=file, workers=2)
    keys, kills, began = [], 0, time.monotonic()
    for record in begun:
        keys.append(record.key)
        living = [p for pool in begun._workers._pools for p in (pool and pool._processes) or ()]
        if living and kills < min((time.monotonic() - began) / every, lasting / every):
            with suppress(ProcessLookupError):  # not yet replaced since the last time
                os.kill(living[kills % len(living)], signal.SIGKILL)
                kills += 1
    assert kills >= lasting // every and begun.set_aside == 0
    assert len(set(keys)) == len(keys) == runs
    monkeypatch.setenv("DPKIT_TEST_NAP", "0")
    again = file.with_name("unbroken.sqlite")
    ended(PLAN, published, sweeps.slow, seeds=range(runs), store=again)
    made, unbroken = content(file), content(again)
    assert {k: r.run_json for k, r in made.items()} == {k: r.run_json for k, r in unbroken.items()}
    with Store(file) as store:
        assert kills / 2 < store.attempts - runs <= kills, "a death costs one attempt at most"


def test_a_killed_sweep_loses_no_finished_run_and_ends_as_if_unbroken(tmp_path):
    """In forks that are killed at random moments, and that start anew on what they left."""
    seeds = range(6)
    program = (
        "import sys, pathlib; from tests.sweeps import killed; "
        f"killed(pathlib.Path(sys.argv[1]), {KILLS}, range(6))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=3000)
    ended(GRID, published, linear, seeds=seeds, store=tmp_path / "unbroken.sqlite")
    unbroken, broken_off = content(tmp_path / "unbroken.sqlite"), 0
    for told in tmp_path.glob("*.told"):
        finished = set(told.read_text().split())
        found = content(told.with_suffix(".sqlite"))
        assert finished <= {key for key, r in found.items() if r.state == "finished"}
        assert all(found[key] == unbroken[key] for key in finished), "bit for bit"
        with Store(told.with_suffix(".sqlite")) as store:
            broken_off += store.attempts - len(store.paid())
        made = ended(GRID, published, linear, seeds=seeds, store=told.with_suffix(".sqlite"))
        assert len(made) == 36 and content(told.with_suffix(".sqlite")) == unbroken
    assert broken_off > KILLS / 5, "kills met runs under way, which were paid for again"


def test_a_killed_sweep_takes_its_workers_along(file, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    program = "import sys; from tests.sweeps import with_a_worker; with_a_worker(sys.argv[1])"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"DPKIT_TEST_MARK": str(marks)},
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline()
        process.kill()
    (worker,) = (int(mark.name) for mark in marks.iterdir())
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker), "the worker outlived its sweep"


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


# ---- files, tables, totals ---------------------------------------------------------------------

FILE = """
data = "moons"
model = "logistic"
seeds = [0, 1]

[settings]
examples = 60
epochs = 2
batch = 20

[grid]
noise = [1.0, 4.0, -1.0]
"""


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "asked.toml"
    path.write_text(FILE)
    return path


def test_the_command_makes_what_a_file_asks_for_and_goes_on(asked, capsys):
    tables = [f"--csv={asked.with_suffix('.csv')}", f"--html={asked.with_suffix('.html')}"]
    for _ in range(2):
        assert cli.main(["sweep", str(asked), "--workers", "1", "--quiet", *tables]) == 1
        told = capsys.readouterr()
        assert "4 of 6 runs" in told.out and "2 set aside" in told.out
        assert "note: The plan with noise = -1.0 is set aside" in told.err
        assert "4 attempts at 4 runs, shown or not, cost ε = " in told.out
    with Store(asked.with_suffix(".sqlite")) as store:
        assert store.attempts == 4
        wanted = {record.key: record for record in store.records("finished")}
    with open(asked.with_suffix(".csv"), newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["key"] for row in table} == set(wanted)
    for row in table:
        record = wanted[row["key"]]
        assert float(row["epsilon"]) == record.plan.epsilon()
        assert float(row["accuracy"]) == record.accuracy
        assert float(row["method.noise_multiplier"]) in (1.0, 4.0)
        assert row["guarantee"] == record.run.guarantee
    page = asked.with_suffix(".html").read_text()
    assert "4 runs; frontier: " in page and "<script src=" not in page


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"moons"', "moons", "not TOML.*line 2"),
        ("model =", "modle =", r"line 3: modle is no key of a sweep \(did you mean model\?\)"),
        ('"logistic"', '"logistics"', "line 3: model is refused: .*did you mean 'logistic'"),
        ('"moons"', '"mist"', "line 2: data is refused: .*mnist"),
        ("[0, 1]", "0", "line 4: seeds must be a list, got 0"),
        ("[0, 1]", "[0.5]", "line 4: seeds must list whole numbers"),
        ("[0, 1]", f"[{2**63}]", "line 4: seeds must list whole numbers"),
        ("[0, 1]", "[0]\nworkers = 0", "line 5: workers must be a whole number from 1, got 0"),
        ("epochs = 2", "epochs = [1, 2]", "line 8: epochs must be one value here; a list belongs"),
        ("epochs = 2", "epoch = 2", "line 8: epoch is refused: .*did you mean 'epochs'"),
        ("epochs = 2", "epochs = -2", r"line 8: epochs is refused: .*\(0, 100000\]"),
        ("noise = [1.0, 4.0, -1.0]", "noise = 3", "line 12: noise must list at least one value"),
        ("noise = [1.0, 4.0, -1.0]", "noise = [1.0]\nepsilon = [1.0]", "line 12: noise is solved"),
        ("noise = ", "nose = ", "line 12: nose is refused: .*did you mean 'noise'"),
        ("noise = [1.0, 4.0, -1.0]", "seed = [1]", "line 12: seed belongs to the whole sweep"),
    ],
)
def test_a_malformed_file_is_told_by_line_and_key(asked, old, new, says, capsys):
    asked.write_text(FILE.replace(old, new))
    assert cli.main(["sweep", str(asked)]) == 2
    told = capsys.readouterr().err
    assert re.search(says, told) and len(told.splitlines()) == 1
    assert not asked.with_suffix(".sqlite").exists(), "nothing was begun"


METHODS = """
data = "moons"
model = "logistic"
relation = "REPLACE_ONE"
[settings]
examples = 60
epochs = 2
noise = 2.0
[grid]
batch = [20, 30]
[[methods]]
name = "plain"
[[methods]]
noise = { type = "TimeDecay", start = 3.0, decay = 0.05 }
batch = 10
[[methods]]
name = "frozen"
frozen = [0.25, 0.5]
[[methods]]
name = "private activations"
model = "released"
method = { type = "NeuralDP", labels = { type = "RandomisedResponse", epsilon = 1.0 } }
[[methods]]
name = "signs"
kept = 2
sends = "signs"
"""


def test_a_file_compares_methods(tmp_path, capsys):
    path = tmp_path / "methods.toml"
    path.write_text(METHODS)
    found = read(path).points
    assert all(p.plan is not None and p.plan.neighbours.name == "REPLACE_ONE" for p in found)
    made = [(dict(p.settings)["name"], export.kind(p.plan.method)) for p in found]
    assert made == [("plain", "DPSGD")] * 2 + [("method 2", "DPSGD with TimeDecay")] + [
        ("frozen", "DPSGD with Freeze")] * 4 + [("private activations", "NeuralDP")] * 2 + [
        ("signs", "TopAgg")] * 2  # fmt: skip
    assert found[0].plan.method.noise_multiplier == found[7].plan.method.noise_multiplier == 2.0
    assert 2 * found[2].plan.sampler.sample_rate == found[0].plan.sampler.sample_rate
    assert [p.model is None for p in found] == [True] * 7 + [False] * 2 + [True] * 2
    assert cli.main(["sweep", str(path), "--workers", "1", "--quiet"]) == 0
    assert "11 of 11 runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"REPLACE_ONE"', '"REPLACE"', "line 4: relation is refused: .*did you mean 'REPLACE_ONE'"),
        ("0.05 }", "5.0e3 }", "line 14: noise is refused: decay.*got 5000"),
        (", decay = 0.05", "", "line 14: noise is refused: TimeDecay needs decay as well"),
        ('"TimeDecay"', "3", "line 14: noise is refused: There is no type '3'"),
        ('"TimeDecay"', '"Access"', "line 14: noise is refused: There is no type 'Access'"),
        ('"TimeDecay"', '"TimeDecoy"', "line 14: noise is refused: .*did you mean 'TimeDecay'"),
        ("decay = 0.05", "decoy = 1", "line 14: noise is refused: .*TimeDecay.*mean 'decay'"),
        ('"released"', '"leased"', "line 21: model is refused: .*did you mean 'released'"),
        ('"NeuralDP"', '"VotePlan"', "line 22: method is refused: .*VotePlan"),
        ('{ type = "NeuralDP", ', "{ ", "line 22: method is refused: .*without a type"),
        ("kept = 2", "keep = 2", "line 25: keep is refused: .*did you mean 'kept'"),
        ("kept = 2", 'model = ["a"]', "line 25: model must be a text, one a method"),
        ("kept = 2", "clip = -1", "line 25: clip is refused: .*got -1"),
        ("noise = 2.0", "clip = 2.0", "line 8: clip is refused: NeuralDP has no .*max_grad_norm"),
    ],
)
def test_a_malformed_method_is_told_by_line_and_key(tmp_path, old, new, says, capsys):
    path = tmp_path / "methods.toml"
    path.write_text(METHODS.replace(old, new, 1))
    assert cli.main(["sweep", str(path)]) == 2
    told = capsys.readouterr().err
    assert re.search(says, told) and len(told.splitlines()) == 1


def test_the_command_tells_what_it_lacks(asked, tmp_path, capsys):
    assert cli.main(["sweep"]) == 2 and "--example" in capsys.readouterr().err
    assert cli.main(["sweep", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    pytest.importorskip("distributed")
    assert cli.main(["sweep", str(asked), "--dask", "tcp://127.0.0.1:1"]) == 2
    assert "No Dask scheduler answers at tcp://127.0.0.1:1" in capsys.readouterr().err


def test_the_example_is_a_sweep_file(tmp_path, capsys):
    assert cli.main(["sweep", "--example"]) == 0
    path = tmp_path / "example.toml"
    path.write_text(capsys.readouterr().out)
    found = read(path)
    assert len(found.points) == 12 and all(point.plan for point in found.points)
    path.write_text(
        re.sub(r"^# ([\[a-z])", r"\1", path.read_text().partition("own")[2], flags=re.M)
    )
    path.write_text("data = 'digits'\n[settings]\nepochs = 5\n#" + path.read_text())
    assert len(read(path).points) == 6 and all(point.plan for point in read(path).points)


def test_the_total_is_the_composition_of_every_attempt(file):
    with pytest.warns(UserWarning, match="set aside after 4 failures"):
        ended(PLAN, published, sweeps.failing, seeds=(0, 1), store=file)
    with Store(file) as store:
        found = total(store)
        assert (found.runs, found.attempts) == (2, 5), "the four that failed were paid for"
        entries = [(m, 5 * count) for m, count in PLAN.ledger().entries]
        five = Ledger.of(entries, PLAN.neighbours)
        assert found.epsilon == pytest.approx(dp.PLD().epsilon(five, PLAN.delta))
        assert dp.plan.round_up(found.epsilon) in found.sentence
        fixed = replace(PLAN, sampler=dp.FixedSize(15, 60, 6))
        ended(fixed, published, linear, store=store)
        assert "different neighbouring relations" in total(store).sentence
    with Store(file.with_name("none.sqlite")) as store:
        assert total(store).sentence == "Nothing was run yet."


def test_the_total_of_runs_that_leave_labels_open_says_so(file):
    bare = dp.Plan(dp.NeuralDP(4.0), dp.Poisson(0.25, 6), 1e-3)
    with Store(file) as store:
        ended(bare, published, dp.zoo.released, store=store)
        assert ", of the input of one example, its label being public" in total(store).sentence
        whole = replace(bare, method=dp.NeuralDP(4.0, labels=dp.RandomisedResponse(1.0, 3)))
        ended(whole, published, dp.zoo.released, store=store)
        assert "more than can be told together: some protect the input" in total(store).sentence


def test_other_records_have_a_total_of_their_own(file):
    ended(PLAN, published, linear, store=file)
    ended(PLAN, partial(records, 90), linear, store=file)
    with Store(file) as store:
        assert total(store, published().fingerprint).epsilon == pytest.approx(PLAN.epsilon())
        both = total(store)
        assert both.sets == 2 and both.epsilon > 1.2 * PLAN.epsilon(), "sets may share a record"
        assert "on 2 data sets" in both.sentence and "in all of them" in both.sentence


def test_parquet_holds_the_same_table(file, tmp_path):
    falling = dp.turned(PLAN, "method.noise_multiplier", dp.schedules.TimeDecay(3.0, 0.1))
    made = ended([GRID, falling], published, linear, store=file)
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="pandas and pyarrow"):
            export.to_parquet(made, tmp_path / "runs.parquet")
        return
    table = pandas.read_parquet(export.to_parquet(made, tmp_path / "runs.parquet"))
    assert list(table["epsilon"]) == [record.epsilon for record in made]
    assert list(table["key"]) == [record.key for record in made]
    assert set(table["method.noise_multiplier"]) == {"1.0", "2.0", "4.0", "TimeDecay(1, 3, 0.1)"}


def test_runs_are_shared_whole_in_one_small_file(file, tmp_path):
    wild = replace(PLAN, method=dp.DPSGD(0.0, 1e6, 1e4))  # no privacy, and it diverges
    made = ended([GRID, wild], published, linear, seeds=SEEDS, store=file)
    path = export.to_json(made, tmp_path / "runs.json", made_by="a test")
    assert export.from_json(path) == made and "a test" in path.read_text()
    for wrong in ("{", "[]", '{"dpkit": "runs", "version": 9}', '{"dpkit": "plan", "version": 1}'):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="not a file of runs in version 1"):
            export.from_json(path)


def test_the_python_of_a_run_names_data_only_that_have_a_name(file):
    (record,) = ended(PLAN, published, linear, store=file)
    assert "data = ...  # my-data, 60 training records" in export.python(record)


# ---- figures -----------------------------------------------------------------------------------


def dot(epsilon, accuracy, seed=0, **knobs):
    return figures.Point(f"{epsilon} {seed}", epsilon, accuracy, f"{epsilon} {knobs}", seed, knobs)


def test_the_frontier_is_made_of_means_not_of_lucky_seeds():
    dots = [
        dot(1, 0.5, 0),
        dot(1, 0.9, 1),
        dot(2, 0.72, 0),
        dot(2, 0.74, 1),
        dot(3, 0.7),
        dot(4, 0.8),
    ]
    cloud = figures.Cloud(dots)
    assert [(m.epsilon, round(m.accuracy, 3)) for m in cloud.frontier] == [
        (1, 0.7), (2, 0.73), (4, 0.8)]  # fmt: skip
    assert [cloud.points[m.best].accuracy for m in cloud.frontier] == [0.9, 0.74, 0.8]
    assert cloud.frontier[1].half == pytest.approx(12.706 * 0.01, rel=1e-3), "Student's t"
    assert cloud.frontier[2].half == float("inf"), "one seed says nothing of its spread"
    drawn = figures.plane(cloud)
    assert list(drawn["data"][0]["y"]) == pytest.approx([50, 90, 72, 74, 70, 80])
    assert drawn["data"][1]["x"] == [1, 2, 4, 4], "the line goes on to the dearest run"
    assert "6 runs; frontier: 70.0% at ε 1" in cloud.in_words


def test_kinds_are_compared_by_their_frontiers_and_knobs_have_an_axis_each():
    cloud = figures.Cloud(
        [dot(e, a, s, kind=k) for k, e, a in (("one", 1, 0.5), ("two", 1, 0.6), ("two", 2, 0.7))
         for s in (0, 1, 2)]
    )  # fmt: skip
    assert cloud.varying == ["kind"] and cloud.values("kind") == ["one", "two"]
    parts = {kind: cloud.where("kind", kind) for kind in cloud.values("kind")}
    assert [len(part) for part in parts.values()] == [3, 6]
    drawn = figures.compared(parts)
    assert [line["name"] for line in drawn["data"] if "name" in line] == ["one", "two"]
    axes = figures.parallel(cloud, ["kind"], {})["data"][0]["dimensions"]
    assert [axis["label"] for axis in axes] == ["kind", "log₁₀ ε", "accuracy (%)"]
    assert axes[0]["ticktext"] == ["one", "two"]


def test_an_axis_of_numbers_and_schedules_is_in_order_with_few_labels():
    some = [dot(1, 0.5, noise=float(n)) for n in range(1, 25)]
    axis = figures.parallel(figures.Cloud([*some, dot(1, 0.5, noise="Falls(3)")]), ["noise"], {})
    axis = axis["data"][0]["dimensions"][0]
    assert axis["values"].tolist() == list(range(25)), "2 comes before 10, text after numbers"
    assert axis["tickvals"] == list(range(0, 25, 3)) and axis["ticktext"][:2] == ["1", "4"]


def test_nothing_yet_is_said_so():
    nothing = figures.Cloud([dot(float("inf"), 1)])
    for drawn in (figures.plane(nothing), figures.parallel(nothing, [], {})):
        assert "No finished run yet" in drawn["layout"]["annotations"][0]["text"]
    assert figures.compared({"none": nothing})["data"] and nothing.in_words


class Maker:
    """A factory with a state of its own."""

    def __init__(self, wide):
        self.wide = wide

    def build(self, data, seed):
        return nn.Sequential(nn.Linear(2, self.wide), nn.ReLU(), nn.Linear(self.wide, 3))


class Listed(nn.Module):
    """A model whose attributes are lists, and whose buffer no state holds."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = numbers
        self.register_buffer("scale", torch.tensor(float(numbers[-1])), persistent=False)


def test_models_of_one_name_that_differ_elsewhere_are_told_apart():
    from dpkit.sweeping.tasks import name_of

    assert name_of(Maker(8).build) == name_of(Maker(8).build) != name_of(Maker(64).build)
    assert name_of(Listed([1, 2])) == name_of(Listed([1, 2])) != name_of(Listed([3, 2]))
    other = Listed([1, 2])
    other.scale.fill_(7.0)
    assert name_of(other) != name_of(Listed([1, 2]))
    kinds = []
    for twice in (1, 2):
        space = {"nn": nn, "__name__": f"place{twice}"}
        exec("class Net(nn.Linear):\n    pass", space)
        kinds.append(space["Net"](1, 1, bias=False))
        nn.init.ones_(kinds[-1].weight)
    assert name_of(kinds[0]) != name_of(kinds[1])


def test_runs_of_other_records_or_promises_are_not_passed_off_as_one_kind(tmp_path):
    def unlike(records):
        return figures.Cloud(export.points(records)).unlike()

    with Store(tmp_path / "s.sqlite") as store:
        for size in (60, 90):
            list(sweep(PLAN, records(size), linear, store=store, executor=Here()))
        held = list(store.records("finished"))
        assert len({r.data for r in held}) == 1 and "records: " in unlike(held)
        assert not unlike(held[:1])


def test_an_epsilon_that_is_not_its_plans_is_refused(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        list(sweep(PLAN, published, linear, store=store, executor=Here()))
        file = export.to_json(store.records("finished"), tmp_path / "runs.json")
    assert len(export.from_json(file)) == 1
    text = file.read_text()
    epsilon = json.loads(text)["plans"][0]["epsilon"]
    for told in ("0.01", "null"):
        file.write_text(text.replace(f'"epsilon":{epsilon!r}', f'"epsilon":{told}'))
        with pytest.raises(ValueError, match="not a file of runs"):
            export.from_json(file)


def test_grids_that_are_refused_alike_are_all_told(tmp_path):
    wrong = {"method.noise_multiplier": (-1.0,)}
    grids = [Grid(PLAN, wrong), Grid(replace(PLAN, delta=1e-4), wrong)]
    with pytest.warns(UserWarning, match="set aside"):
        run = sweep(grids, records(), linear, store=tmp_path / "s.sqlite", executor=Here())
        assert list(run) == [] and (run.total, run.set_aside) == (2, 2)


def test_noise_beside_the_epsilon_that_solves_for_it_is_refused():
    with pytest.raises(ValueError, match="leave one of them out"):
        Grid(PLAN, {"method.noise_multiplier": (1.0, 2.0), "epsilon": (1.0,)})
    shapes = [dp.schedules.TimeDecay(2.0, 0.1)]
    assert len(Grid(PLAN, {"method.noise_multiplier": shapes, "epsilon": (1.0,)})) == 1
