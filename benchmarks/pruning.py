"""Pruning under differential privacy on MNIST: Adamczewski and Park 2023, claim by claim.

`python benchmarks/pruning.py --json FILE` runs `tune` (the learning rate, once, on held-out
training records), `grid` and `speed`; a file that has some runs already is gone on with, and
`ship --ship FILE` writes what the lesson shows. Seeds are paired: a seed fixes the public start,
the batches and the noise of every condition. Accuracy is on the test records, once, after the
last step.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from scipy import stats

import dpkit as dp
from dpkit.methods import Freeze, Magnitude, Mask, PublicGradient, Random, Select
from dpkit.pretraining import pretrained, shapes

DELTA, LOT, EPOCHS, CLIP = 1e-5, 512, 1, 1.0
PUBLIC, PRETRAINING, HELD_OUT = 3_000, 5, 5_000
RATIOS, EPSILONS, RATES = (0.3, 0.5, 0.7, 0.9), (1.0, 2.0, 4.0, 8.0), (1.0, 2.0, 4.0, 8.0, 16.0)
MODES = {"freeze": Freeze, "select": Select}
CRITERIA = {"random": Random(), "magnitude": Magnitude(), "public gradient": PublicGradient(256)}
MARGIN = 0.01
"""Random is on par with magnitude if it is within one point of accuracy, fixed beforehand."""


@dataclass(frozen=True)
class Condition:
    """One cell of the comparison."""

    start: str = "near"
    epsilon: float = 2.0
    ratio: float = 0.0
    mode: str = "none"
    criterion: str = "none"

    @property
    def mask(self) -> Mask | None:
        """What the cell's method is given."""
        if not self.ratio:
            return None
        return MODES[self.mode](self.ratio, CRITERIA[self.criterion])


def conditions() -> Iterator[Condition]:
    """The paper's grid from a near start, then other starts and criteria at one epsilon."""
    for epsilon in EPSILONS:
        yield Condition(epsilon=epsilon)
        yield from masked("near", epsilon, RATIOS, ("random", "magnitude"))
    for start in ("near", "far"):
        yield from masked(start, 2.0, (0.5, 0.9), ("public gradient",))
    yield Condition("far")
    yield from masked("far", 2.0, (0.5, 0.9), ("random", "magnitude"))
    yield Condition("none")
    yield from masked("none", 2.0, (0.9,), ("random",))


def masked(start: str, epsilon: float, ratios: Any, criteria: Any) -> Iterator[Condition]:
    """Both modes of every ratio and criterion."""
    for ratio in ratios:
        for mode in MODES:
            for criterion in criteria:
                yield Condition(start, epsilon, ratio, mode, criterion)


@cache
def records(start: str) -> dp.datasets.Dataset:
    """MNIST with its public split: 3,000 digits (near), or as many toy pictures (far)."""
    data = dp.datasets.load("mnist", public=PUBLIC / 60_000)
    if start != "far":
        return data
    inputs, targets = shapes(data, PUBLIC)
    return replace(data, public_inputs=inputs, public_targets=targets)


@cache
def started(start: str, seed: int) -> torch.nn.Module:
    """The network, trained on the public records unless it begins at random; to be copied."""
    data = records(start)
    model = dp.zoo.mlp(data, seed)
    if start == "none":
        return model
    public = data.public_inputs, data.public_targets
    return pretrained(model, *public, epochs=PRETRAINING, seed=seed)


@cache
def sigma(epsilon: float, records: int) -> float:
    """The noise multiplier of every run at this price."""
    plan = dp.Plan(dp.DPSGD(1.0), sampler(records), DELTA).calibrated(epsilon)
    return float(plan.method.noise_multiplier)


def sampler(records: int) -> dp.Poisson:
    """One epoch of Poisson batches."""
    return dp.Poisson(LOT / records, round(EPOCHS * records / LOT))


def run(one: Condition, seed: int, rate: float, data: Any = None) -> dict[str, Any]:
    """One private run, and what it cost."""
    data = data or records(one.start)
    model = copy.deepcopy(started(one.start, seed))
    method = dp.DPSGD(sigma(one.epsilon, data.num_examples), CLIP, rate, mask=one.mask)
    plan = dp.Plan(method, sampler(data.num_examples), DELTA)
    start = time.process_time()
    *_, last = dp.train(model, data, plan, seed=seed, device="cpu", evaluate_every=0)
    return {
        **vars(one), "seed": seed, "rate": rate, "accuracy": accuracy(model, data),
        "spent": price(last.ledger), "seconds": time.process_time() - start,
    }  # fmt: skip


@cache
def price(ledger: dp.Ledger) -> float:
    """The epsilon of what a run was charged."""
    return dp.PLD().epsilon(ledger, DELTA)


@torch.no_grad()
def accuracy(model: torch.nn.Module, data: dp.datasets.Dataset) -> float:
    """The share of the test records that the model gets right."""
    return float((model(data.test_inputs).argmax(1) == data.test_targets).double().mean())


def tune(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """One learning rate for all: the best mean over the starts, on held-out training records."""
    table = found.setdefault("tuning", {"held out": HELD_OUT, "runs": []})
    if "rate" in table:
        return
    for rate in RATES:
        for start in ("near", "far"):
            for one in (Condition(start), Condition(start, 2.0, 0.7, "freeze", "random")):
                data = records(start)
                own, held = slice(HELD_OUT, None), slice(0, HELD_OUT)
                split = replace(
                    data, inputs=data.inputs[own], targets=data.targets[own],
                    test_inputs=data.inputs[held], test_targets=data.targets[held],
                )  # fmt: skip
                table["runs"].append(run(one, 100, rate, split))
                print(json.dumps(table["runs"][-1]), flush=True)
    means = {rate: _mean(r["accuracy"] for r in table["runs"] if r["rate"] == rate)
             for rate in RATES}  # fmt: skip
    table |= {"means": means, "rate": max(means, key=lambda rate: means[rate])}
    _write(options.json, found)


def grid(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """All conditions, seed by seed: what is done is on file when the time is up."""
    runs = found.setdefault("runs", [])
    done = {(_key(one), one["seed"]) for one in runs}
    for seed in range(options.seeds):
        for one in conditions():
            if (_key(vars(one)), seed) not in done:
                runs.append(run(one, seed, found["tuning"]["rate"]))
                print(json.dumps(runs[-1]), flush=True)
                found["claims"] = claims(runs)
                _write(options.json, found)
    print(json.dumps(found["claims"], indent=1))


def _key(one: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(one[name] for name in Condition.__dataclass_fields__)


def claims(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The paper's three claims by paired differences, over the seeds that have every cell."""
    by = {(_key(one), one["seed"]): one["accuracy"] for one in runs}
    cells = [_key(vars(one)) for one in conditions()]
    seeds = sorted(s for s in {one["seed"] for one in runs} if all((c, s) in by for c in cells))
    if len(seeds) < 2:
        return {"seeds": seeds}

    def pick(**fields: Any) -> list[float]:
        return [by[(_key(vars(Condition(**fields))), seed)] for seed in seeds]

    main = [one for one in conditions() if one.start == "near" and one.criterion in
            ("random", "magnitude")]  # fmt: skip
    gains = {_name(one): interval(_minus(pick(**vars(one)), pick(epsilon=one.epsilon)), len(main))
             for one in main}  # fmt: skip
    pairs = {mode: _minus_means(pick, mode) for mode in MODES}
    parity = {mode: interval(values) for mode, values in pairs.items()}
    tried = [one for one in conditions() if one.start == "far"]
    nears = [pick(**vars(replace(one, start="near"))) for one in tried]
    close = {_name(one): interval(_minus(near, pick(**vars(one))), len(tried))
             for one, near in zip(tried, nears, strict=True)}  # fmt: skip
    return {
        "seeds": seeds,
        "fewer updated parameters can help": {
            "rule": "the accuracy of some ratio above 0 exceeds that of ratio 0 at the same "
                    "epsilon, by an interval above zero that allows for all comparisons",
            "reproduced": any(one["family"][0] > 0 for one in gains.values()),
            "differences": gains,
        },
        "random is on par with magnitude": {
            "rule": f"the 95% interval of the mean difference lies within {MARGIN:.0%} of zero, "
                    "in both modes",
            "reproduced": all(max(map(abs, one["interval"])) <= MARGIN for one in parity.values()),
            "differences": parity,
        },
        "closeness of public data matters": {
            "rule": "near exceeds far in every condition, by intervals above zero that allow for "
                    "all comparisons",
            "reproduced": all(one["family"][0] > 0 for one in close.values()),
            "differences": close,
        },
    }  # fmt: skip


def _minus_means(pick: Callable[..., list[float]], mode: str) -> list[float]:
    """Random less magnitude, of each seed, over all ratios and epsilons."""
    sides = {
        criterion: [pick(epsilon=epsilon, ratio=ratio, mode=mode, criterion=criterion)
                    for epsilon in EPSILONS for ratio in RATIOS]
        for criterion in ("random", "magnitude")
    }  # fmt: skip
    means = {name: [_mean(seed) for seed in zip(*cells, strict=True)]
             for name, cells in sides.items()}  # fmt: skip
    return _minus(means["random"], means["magnitude"])


def interval(values: list[float], comparisons: int = 1) -> dict[str, Any]:
    """Mean, standard deviation and Student's 95% interval; `family` allows for all comparisons."""
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    half = [float(stats.t.isf(0.025 / many, len(values) - 1)) * deviation / math.sqrt(len(values))
            for many in (1, comparisons)]  # fmt: skip
    told = {"mean": mean, "standard deviation": deviation, "values": values}
    return told | {"interval": [mean - half[0], mean + half[0]],
                   "family": [mean - half[1], mean + half[1]]}  # fmt: skip


def _minus(left: list[float], right: list[float]) -> list[float]:
    return [a - b for a, b in zip(left, right, strict=True)]


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _name(one: Condition) -> str:
    kind = f"{one.mode} {one.criterion} {one.ratio:g}" if one.ratio else "all"
    return f"epsilon {one.epsilon:g}, {one.start}, {kind}"


def speed(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Processor time of a step with Freeze(0.9) over that of a step without, side by side."""
    torch.set_num_threads(1)
    table: dict[str, Any] = {"load": os.getloadavg()[0]}
    masks = {"Freeze(0.9)": Freeze(0.9), "Freeze(0.5)": Freeze(0.5), "Select(0.9)": Select(0.9)}
    for hidden in (1000, 100, 0):
        for lot in (64, 256):
            name = f"784-{hidden}-10" if hidden else "cnn"
            ratios = {told: _ratio(hidden, lot, mask) for told, mask in masks.items()}
            table[f"{name}, batch {lot}"] = ratios
            print(name, lot, ratios, flush=True)
    found["speed"] = table
    _write(options.json, found)


def _ratio(hidden: int, lot: int, mask: Mask, rounds: int = 60) -> float:
    """The median over rounds of one step's processor time with the mask, over one without."""
    data = records("near")
    runs = []
    for one in (None, mask):
        model = dp.zoo.mlp(data, 0, hidden=(hidden,)) if hidden else dp.zoo.cnn(data, 0)
        plan = dp.Plan(dp.DPSGD(1.0, mask=one), dp.Poisson(lot / data.num_examples, 10_000),
                       accountant=dp.RDP())  # fmt: skip
        runs.append(dp.train(model, data, plan, seed=0, device="cpu", evaluate_every=0))
    for steps in runs:
        next(steps), next(steps)
    found = []
    for _ in range(rounds):
        times = []
        for steps in runs:
            start = time.process_time()
            next(steps)
            times.append(time.process_time() - start)
        found.append(times[1] / times[0])
    return statistics.median(found)


def ship(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """What the lesson shows, beside the lesson: accuracies by condition, and the claims."""
    runs, seeds = found["runs"], claims(found["runs"])["seeds"]
    cells = []
    for one in conditions():
        by = {run["seed"]: run["accuracy"] for run in runs if _key(run) == _key(vars(one))}
        cells.append(vars(one) | {"accuracy": [by[seed] for seed in seeds]})
    setting = found["setting"] | {"learning rate": found["tuning"]["rate"], "seeds": seeds}
    told = {name: one for name, one in claims(runs).items() if name != "seeds"}
    _write(options.ship, {"setting": setting, "cells": cells, "claims": told}, indent=None)


def _write(path: Path | None, found: dict[str, Any], indent: int | None = 1) -> None:
    if path:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(found, indent=indent))
        part.replace(path)


def main() -> None:
    """Read the command line, go on with what is on file, run the parts and write the JSON."""
    parts = {"tune": tune, "grid": grid, "speed": speed, "ship": ship}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["tune", "grid", "speed"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ship", type=Path, help="where `ship` writes the lesson's file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    if options.json and options.json.exists():
        found = json.loads(options.json.read_text())
    found |= {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "torch": torch.__version__,
        "setting": {
            "data": "mnist", "private records": 60_000 - PUBLIC, "public records": PUBLIC,
            "model": "784-100-10, ReLU", "delta": DELTA, "batch": LOT, "epochs": EPOCHS,
            "clip": CLIP, "momentum": 0, "sampler": "Poisson", "accountant": "PLD",
            "relation": "ADD_REMOVE", "pretraining epochs": PRETRAINING,
        },
    }  # fmt: skip
    for part in options.parts:
        parts[part](options, found)


if __name__ == "__main__":
    main()
