"""Many runs at once: two workers against one, a large explorer, methods compared on MNIST.

`python benchmarks/sweeps.py workers` makes 100 runs on the digits, by one worker and by two in
turn (bars: at most 60 s on two cores, and 1.7 times as fast). `... explorer` times each thing that
a reader can do with a store of 5,000 rows that a program makes up, for timing alone (bar: 150 ms);
`... browser` times the same from the reader's hand to the frame with the new picture, in JupyterLab
and headless Chromium, which both draw by the processor (bar: 150 ms).
`... mnist` makes the sweep that the lesson on many runs shows, and goes on where it stopped; it
needs MNIST, where DPKIT_DATA says, or a network. Each prints JSON; `--json` writes it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import neuraldp
import numpy as np
import reader
import torch
from torch import nn

import dpkit as dp
from dpkit.datasets import Dataset
from dpkit.datasets.fetch import cache_folder
from dpkit.runs import Run, plan_to_json
from dpkit.sweeping import export

LESSON = Path(dp.__file__).parent / "widgets" / "sweep_mnist.json"
SMALL = dp.Plan(dp.DPSGD(2.0, 1.0, 0.5), dp.Poisson(0.1, steps=50), delta=1e-5)
"""A run as the lesson on many runs has it: five epochs of the digits."""
EPSILONS, SEEDS, DELTA = (0.5, 1.0, 2.0, 4.0, 8.0), (0, 1, 2), 1e-5
WIDTH, SENT = 64, 16
"""Public numbers of a record, and those of them that NeuralDP releases."""


# ---- two workers against one -------------------------------------------------------------------


def workers(options: argparse.Namespace) -> dict[str, object]:
    """Seconds from the call of `sweep` to the last record, processes begun included."""
    over = {"method.noise_multiplier": (0.8, 1.1, 2.0, 4.0, 8.0), "method.max_grad_norm": (0.1, 1)}
    grid, seeds = dp.Grid(SMALL, over), range(options.seeds)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(options.rounds):
        for count in (1, 2) if turn % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                made = dp.sweep(grid, "digits", dp.zoo.mlp, seeds=seeds, workers=count,
                                store=Path(folder) / "runs.sqlite")  # fmt: skip
                assert len(list(made)) == 10 * options.seeds
                seconds[count].append(round(time.perf_counter() - start, 2))
            print(f"{count} worker(s): {seconds[count][-1]} s", flush=True)
    times = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return {
        "what": f"{10 * options.seeds} runs on the digits:"
        " MLP 64-100-10, 50 steps, one thread a worker",
        "seconds with one worker": seconds[1], "seconds with two workers": seconds[2],
        "median seconds with two": statistics.median(seconds[2]), "bar in seconds": 60,
        "two against one, by round": [round(t, 3) for t in times],
        "median": round(statistics.median(times), 3), "bar": 1.7, **machine(),
    }  # fmt: skip


# ---- 5,000 runs in the explorer ----------------------------------------------------------------


def made_up(store: dp.Store, size: int) -> None:
    """Rows of plans that can be priced with accuracies that nobody measured: for timing alone."""
    rng, rows, steps = np.random.default_rng(0), [], list(range(5, 51, 5))
    knobs = list(product(np.geomspace(0.6, 8, 50), (0.1, 0.5, 1, 5, 10), (0.3, 1)))
    prices = {noise: dp.turned(SMALL, "method.noise_multiplier", float(noise)).epsilon()
              for noise, _, _ in knobs}  # fmt: skip
    for number in range(size):
        noise, clip, rate = knobs[number % len(knobs)]
        plan, epsilon = replace(SMALL, method=dp.DPSGD(float(noise), clip, rate)), prices[noise]
        curve = np.sort(rng.beta(8, 1 + 2 / epsilon, len(steps))).tolist()
        spent = [epsilon * (step / 50) ** 0.5 for step in steps]
        run = Run(plan, "made up", "made up", 1000, "", number // len(knobs), status="done",
                  done=50, spent_steps=steps, spent=spent, tested_steps=steps, accuracy=curve,
                  test_loss=curve)  # fmt: skip
        rows.append({"key": f"{number}", "place": number, "state": "waiting", "seed": run.seed,
                     "plan": plan_to_json(plan), "settings": "{}", "data": "made up",
                     "fingerprint": "", "model": "made up", "versions": "{}",
                     "epsilon": epsilon, "run": run.to_json(), "accuracy": curve[-1]})  # fmt: skip
    store.add(rows)
    for row in rows:
        store.pay(row["key"], row["epsilon"])
        store.finish(row["key"], row["run"], row["accuracy"], 0.0)


def explorer(options: argparse.Namespace) -> dict[str, object]:
    """Milliseconds from a control's change until every plot is handed to the page."""
    from dpkit.widgets import Explorer

    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "made-up.sqlite"
        if not path.exists():
            with dp.Store(path) as store:
                made_up(store, options.runs)
        start = time.perf_counter()
        panel = Explorer(path)
        opened = time.perf_counter() - start
        assert panel.join() and len(panel.cloud) == options.runs
        found = {name: times(act, options.rounds) for name, act in interactions(panel)}
        panel.check()
        panel.close()
    bar = {name: told["95th percentile"] <= 150 for name, told in found.items()}
    return {
        "what": f"{options.runs:,} rows made up for timing; milliseconds in Python",
        "seconds until the panel is there": round(opened, 2), "milliseconds": found,
        "bar": 150, "within the bar": bar, **machine(),
    }  # fmt: skip


def interactions(panel) -> Iterator[tuple[str, Callable[[int], object]]]:
    """Everything that a reader can do, and the two that come a moment later."""
    knobs = ("method.noise_multiplier", "method.max_grad_norm", "method.learning_rate")
    yield "colour by a knob", lambda n: panel.turn(colour=knobs[n % 3])
    yield "compare by a knob", lambda n: panel.turn(by=knobs[1 + n % 2] if n % 3 else "none")
    yield "walk along the frontier", lambda n: panel.turn(run=1 + n % len(panel.cloud.frontier))
    yield (
        "select a dot",
        lambda n: panel.select(panel.cloud.points[(n * 997) % len(panel.cloud)].key),
    )
    yield "choose the knob of the filter", lambda n: panel.turn(knob=knobs[n % 3])
    held = panel.cloud.values(panel.value("knob"))
    yield "filter by its value", lambda n: panel.turn(value=repr(held[n % 2]))
    yield "no filter", lambda n: (panel.turn(value="all"), panel.turn(knob=knobs[n % 3]))[0]
    panel.turn(value="all", knob="none", colour="none", by="none")
    panel.join()
    yield "parallel coordinates, a moment later", lambda n: next(iter(panel.afterwards()))()
    yield "total cost, once for new runs", lambda n: (setattr(panel, "_priced", -1), [
        draw() for draw in panel.afterwards()])  # fmt: skip


def times(act: Callable[[int], object], rounds: int) -> dict[str, float]:
    """Median and 95th percentile, in milliseconds; two goes before that do not count."""
    found = []
    for number in range(rounds + 2):
        start = time.perf_counter()
        act(number)
        found.append(1000 * (time.perf_counter() - start))
    return reader.percentiles(found)


def browser(options: argparse.Namespace) -> dict[str, object]:
    """Milliseconds from the reader's event to the frame in which the plane has changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "made-up.sqlite"
        if not path.exists():
            with dp.Store(path) as store:
                made_up(store, options.runs)
        cell = f"from dpkit.widgets import Explorer\npanel = Explorer({str(path)!r})\npanel"
        with reader.opened(cell) as notebook:
            found = {name: reader.seen(notebook.page, kind, act, options.rounds)
                     for name, kind, act in reader.hand(notebook)}  # fmt: skip
            notebook.kernel("panel.check()")
    return {
        "what": f"{options.runs:,} rows made up for timing; milliseconds in JupyterLab",
        "milliseconds": found, "bar": 150,
        "within the bar": {name: told["95th percentile"] <= 150 for name, told in found.items()},
        **machine(),
    }  # fmt: skip


# ---- methods compared on MNIST -----------------------------------------------------------------


def numbers() -> Dataset:
    """MNIST as 64 numbers of public maps: see `benchmarks/neuraldp.py`."""
    return replace(neuraldp.seen("mnist", WIDTH, False, _folder()), name="mnist, 64 public numbers")


def private(data: Dataset, seed: int | None) -> nn.Module:
    """The first numbers released, measured from a mean that the plan pays for."""
    first = nn.Linear(WIDTH, SENT, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.eye(SENT, WIDTH))
    centre = neuraldp.MEANS["mnist"].of(data.inputs[:, :SENT], seed=seed)
    return dp.zoo.released(data, seed, public=first, centre=centre)


def methods() -> Iterator[dp.Grid]:
    """A linear model by four methods, and NeuralDP with randomised labels: one promise for all."""
    falling = dp.schedules.TimeDecay(2.0, 0.05, steps_per_epoch=15)
    common = {"max_grad_norm": 0.1, "learning_rate": 3.0, "momentum": 0.9, "averaging": 0.9}
    kinds = (
        dp.DPSGD(2.0, **common), dp.DPSGD(falling, **common),
        dp.DPSGD(2.0, **common, mask=dp.Freeze(0.5)), dp.TopAgg(2.0, **common, top_k=65),
    )  # fmt: skip
    for kind in kinds:
        rates = (3.0,) if isinstance(kind, dp.TopAgg) else (3.0, 10.0)  # ten times as dear
        plan = dp.Plan(kind, dp.Poisson(1 / 15, 300), DELTA, dp.Neighbours.REPLACE_ONE)
        yield dp.Grid(plan, {"method.learning_rate": rates, "epsilon": EPSILONS})
    sent = neuraldp.seen("mnist", SENT, False, _folder())
    for epsilon, rate in product(EPSILONS, (0.03, 0.1)):
        labels = dp.RandomisedResponse(epsilon / 2, 10)
        plan = neuraldp.once_plan(sent, epsilon, rate, DELTA, labels=labels)
        yield dp.Grid(plan, {}, private)


def mnist(options: argparse.Namespace) -> dict[str, object]:
    """Make what is missing, then write all of it where the lesson finds it."""
    store = options.store or _folder().parent / "sweep_mnist.sqlite"
    grids = list(methods())
    runs = dp.sweep(grids, numbers, dp.zoo.logistic, seeds=SEEDS, store=store,
                    workers=options.workers, device="cpu", evaluate_every=30)  # fmt: skip
    kept = []
    for record in runs:
        kept.append(record)
        kind = export.kind(record.plan.method)
        print(f"{runs.finished} of {runs.total}: {kind}, seed {record.seed}, "
              f"epsilon {record.epsilon:.2f}, {record.accuracy:.2%}", flush=True)  # fmt: skip
    kept.sort(key=lambda record: record.place)
    export.to_json(kept, LESSON, digits=3, made_by="python benchmarks/sweeps.py mnist")
    return {"runs": len(kept), "set aside": runs.set_aside, "bytes": LESSON.stat().st_size,
            "seconds of training": round(sum(r.seconds for r in kept)), "written to": LESSON.name,
            **machine()}  # fmt: skip


def _folder() -> Path:
    return cache_folder() / "neuraldp"


def machine() -> dict[str, object]:
    """What holds for all of it."""
    load = f"load {os.getloadavg()[0]:.1f}"
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {load}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("workers", "explorer", "browser", "mnist"))
    parser.add_argument(
        "--rounds", type=int, help="3 of workers, 40 of each interaction, 20 in the browser"
    )
    parser.add_argument("--runs", type=int, default=5_000, help="rows in the explorer")
    parser.add_argument("--seeds", type=int, default=10, help="ten runs of `workers` a seed")
    parser.add_argument("--workers", type=int, help="processes that make the MNIST sweep")
    parser.add_argument("--store", type=Path, help="where the MNIST sweep or the rows are kept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.rounds = options.rounds or {"workers": 3, "browser": 20}.get(options.part, 40)
    part = {"workers": workers, "explorer": explorer, "browser": browser, "mnist": mnist}[
        options.part
    ]
    found = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    found[options.part] = part(options)
    print(json.dumps(found[options.part], indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
