"""NeuralDP beside DP-SGD: accuracy against epsilon on MNIST and PneumoniaMNIST, and its speed.

`python benchmarks/neuraldp.py` makes all runs that `results/neuraldp.json` does not hold yet (the
data lie where DPKIT_DATA says), and writes after each. `... tune` chooses learning rates and
dimensions on a sixth of the training records, held out; nothing is tuned on test records.
`... speed` compares training after a release with plain SGD; `... lesson` hands the table to the
lesson, which draws it; `... figure` draws it on a page of its own.

All modes see the same public features: order-2 scattering, and of it d numbers that are fixed by
public records alone (strokes that a program draws; for MNIST also the UCI digits, with labels).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch
from torch import nn

import dpkit as dp
from dpkit.auditing.leaky import NONE, through
from dpkit.datasets import Dataset, PrivateMean, PublicPCA, Scattering, Strokes
from dpkit.datasets.fetch import cache_folder
from dpkit.figures import activations
from dpkit.methods.activation import PrivateActivation

RESULTS = Path(__file__).parent / "results" / "neuraldp.json"
LESSON = Path(dp.__file__).parent / "widgets" / "neuraldp.json"
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
DELTAS = {"mnist": 1e-5, "pneumonia": 1e-4}
SEEDS = range(5)
REPLACE = dp.Neighbours.REPLACE_ONE
BELOW = 16
"""Units of the layer before the activation that the leaky mode trains as well."""
MEANS = {"mnist": PrivateMean(200.0, 12.0), "pneumonia": PrivateMean(40.0, 12.0)}
"""A paid mean of the features, at which activations are measured from: mu = 2 / 200 or 2 / 40."""
RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
DIMENSIONS = (16, 32, 64)
WHOLE = ("DP-SGD", "DP-SGD below", "leaky")
"""Modes that see all 64 numbers: their noise does not grow with them, or is none of theirs."""
AHEAD = 0.8
"""Share of epsilon at which the layers before are trained by DP-SGD; the release takes the rest."""


@dataclass(frozen=True)
class Setting:
    """What is tuned, for one mode and epsilon."""

    dimension: int
    learning_rate: float


def maps(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """Public numbers of every record: nine that tell UCI's digits apart, then principal ones."""
    kept = folder / f"neuraldp-{name}.pt"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(_computed(dp.datasets.load(name)), kept)
    return torch.load(kept, weights_only=True)


def _computed(data: Dataset) -> dict[str, torch.Tensor]:
    rule, scaled = Scattering(), data.scaling
    drawn = rule.features((Strokes().images(4_000) - scaled.centre) / scaled.spread)
    strokes = PublicPCA(max(DIMENSIONS), evenness=1.0).learnt(drawn)
    spread = strokes.features(drawn).std()
    digits = _digits(rule, data, drawn) if data.num_classes == 10 else None

    def of(images: torch.Tensor) -> torch.Tensor:
        parts = []
        for some in images.split(2_000):
            seen = rule.features(some)
            plain = strokes.features(seen) / spread
            parts.append(plain if digits is None else torch.cat([2 * digits(seen), plain], 1))
        return torch.cat(parts)

    return {"train": of(data.inputs), "test": of(data.test_inputs)}


def _digits(rule: Scattering, data: Dataset, drawn: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The nine directions of a linear discriminant between the ten classes of UCI's digits."""
    small = dp.datasets.load("digits")
    images = torch.cat([small.inputs, small.test_inputs])
    labels = torch.cat([small.targets, small.test_targets])
    large = nn.functional.interpolate(images, size=20, mode="bicubic").clamp(0, 1)
    large = nn.functional.pad(large, (4, 4, 4, 4))
    seen = rule.features((large - data.scaling.centre) / data.scaling.spread)
    basis = PublicPCA(400).learnt(torch.cat([drawn, seen]))
    rows = basis.features(seen)
    means = torch.stack([rows[labels == k].mean(0) for k in range(10)])
    inside = rows - means[labels]
    covariance = inside.T @ inside / len(rows)
    covariance += 0.1 * covariance.diagonal().mean() * torch.eye(len(covariance))
    directions = torch.linalg.solve(covariance, (means - means.mean(0)).T)
    nine = torch.linalg.svd(directions, full_matrices=False)[0][:, :9]
    centre, spread = rows.mean(0), ((rows - rows.mean(0)) @ nine).std()
    return lambda features: (basis.features(features) - centre) @ nine / spread


@cache
def seen(name: str, dimension: int, held_out: bool, folder: Path) -> Dataset:
    """A data set of the first d public numbers; for tuning five sixths, measured on the rest."""
    data, rows = dp.datasets.load(name), maps(name, folder)
    full = replace(
        data,
        inputs=rows["train"][:, :dimension].contiguous(),
        test_inputs=rows["test"][:, :dimension].contiguous(),
        public_inputs=rows["train"][:0, :dimension],
    )
    if not held_out:
        return full
    order = torch.randperm(data.num_examples, generator=torch.Generator().manual_seed(123))
    test, train = order.tensor_split([data.num_examples // 6])
    return replace(
        full,
        inputs=full.inputs[train], targets=full.targets[train],
        test_inputs=full.inputs[test], test_targets=full.targets[test],
    )  # fmt: skip


smooth = partial(nn.functional.cross_entropy, label_smoothing=0.1)


def _last(steps) -> dp.Step:
    for step in steps:
        last = step
    return last


def _batches(data: Dataset) -> int:
    return 60 if data.num_examples > 10_000 else 10


def _epochs(data: Dataset) -> int:
    """Passes over what was released, which cost nothing."""
    return 10 if data.num_examples > 10_000 else 30


def _trained(model, data, plan, seed, loss=None) -> tuple[float, float]:
    last = _last(dp.train(model, data, plan, loss=loss, seed=seed, evaluate_every=plan.steps))
    assert last.epsilon == plan.epsilon()
    return last.peek.accuracy, last.epsilon


def dpsgd_plan(data: Dataset, epsilon: float, rate: float, delta: float) -> dp.Plan:
    """20 passes in batches of a fifteenth of the records, linear or not."""
    method = dp.DPSGD(2.0, 0.1, rate, 0.9, averaging=0.9)
    return dp.Plan(method, dp.Poisson(1 / 15, 300), delta, REPLACE).calibrated(epsilon)


def run_dpsgd(data, epsilon, setting, delta, seed):
    """DP-SGD on a linear model of the same features: inputs and labels are protected."""
    plan = dpsgd_plan(data, epsilon, setting.learning_rate, delta)
    return _trained(dp.zoo.logistic(data, seed), data, plan, seed)


def once_plan(data: Dataset, epsilon: float, rate: float, delta: float, **options) -> dp.Plan:
    """Training on one release, or on five of them one after the other."""
    method = dp.NeuralDP(2.0, 1.0, rate, 0.9, averaging=0.99, **options)
    sampler, before = dp.Shuffle(_batches(data), _epochs(data)), (MEANS[data.name].release,)
    return paced(dp.Plan(method, sampler, delta, before=before), epsilon, data.shape[0])


def paced(plan: dp.Plan, epsilon: float, width: int) -> dp.Plan:
    """At this price, the learning rate over the energy 1 + d sigma^2 of a noisy row."""
    plan = plan.calibrated(epsilon)
    energy = 1 + width * plan.method.noise_multiplier**2
    return dp.turned(plan, "method.learning_rate", plan.method.learning_rate / energy)


def run_once(data, epsilon, setting, delta, seed, **options):
    """One release, kept: inputs are protected, labels are public unless they are randomised."""
    plan = once_plan(data, epsilon, setting.learning_rate, delta, **options)
    centre = MEANS[data.name].of(data.inputs, seed=seed)
    return _trained(dp.zoo.released(data, seed, centre=centre), data, plan, seed, smooth)


def run_labels(data, epsilon, setting, delta, seed):
    """One release, and labels by randomised response for half of epsilon: all is protected."""
    rule = dp.RandomisedResponse(epsilon / 2, data.num_classes)
    return run_once(data, epsilon, setting, delta, seed, labels=rule)


def run_each(data, epsilon, setting, delta, seed):
    """Five releases, each trained on for a fifth of the passes."""
    often = {"release": "each epoch", "steps_per_epoch": _epochs(data) // 5 * _batches(data)}
    return run_once(data, epsilon, setting, delta, seed, **often)


class Differences(nn.Module):
    """Scores of the classes, less their mean: a record's own business, and centred."""

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """(B, k) to (B, k)."""
        return scores - scores.mean(1, keepdim=True)


def run_below(data, epsilon, setting, delta, seed):
    """What is before is trained by DP-SGD, then its scores are released: one ledger holds both."""
    before = dp.zoo.logistic(data, seed)
    first = dpsgd_plan(data, AHEAD * epsilon, setting.learning_rate, delta)
    _last(dp.train(before, data, first, seed=seed, evaluate_every=0))
    method = dp.NeuralDP(2.0, 1.0, 3.0, 0.9, averaging=0.99)
    plan = dp.Plan(
        method, dp.Shuffle(_batches(data), _epochs(data)), delta, before=first.ledger().releases
    )
    plan = paced(plan, epsilon, data.num_classes)
    model = dp.zoo.released(data, seed, public=nn.Sequential(before, Differences()))
    return _trained(model, data, plan, seed, smooth)


def run_leaky(data, epsilon, setting, delta, seed):
    """Everything trained through the noise of one release: no epsilon, whatever the noise."""
    sigma = once_plan(data, epsilon, 1.0, delta).method.noise_multiplier
    rate = setting.learning_rate / (1 + BELOW * sigma**2) ** 0.5
    first = dp.zoo.mlp(data, seed, hidden=(BELOW,))[1]
    model = nn.Sequential(nn.Flatten(), first, nn.Tanh(), PrivateActivation(),
                          nn.Linear(BELOW, data.num_classes))  # fmt: skip
    nn.init.zeros_(model[-1].weight), nn.init.zeros_(model[-1].bias)
    *_, accuracy = through(
        model, data, noise_multiplier=sigma, learning_rate=rate, momentum=0.9,
        batch_size=-(-data.num_examples // _batches(data)), epochs=40, seed=seed,
    )  # fmt: skip
    return accuracy, None


MODES = {"DP-SGD": run_dpsgd, "once": run_once, "once, labels too": run_labels,
         "each epoch": run_each, "DP-SGD below": run_below, "leaky": run_leaky}  # fmt: skip
"""The columns, in order; the last one promises nothing."""


def stored(path: Path = RESULTS) -> dict:
    """What has been found so far."""
    if path.is_file():
        return json.loads(path.read_text())
    return {"tuning": {}, "tuned": {}, "runs": {}}


def saved(found: dict, path: Path) -> None:
    """Written beside, then renamed."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    part.replace(path)


def measured(mode: str, name: str, epsilon: float, setting: Setting, seed: int, folder: Path,
             held_out: bool = False) -> dict:  # fmt: skip
    """One run, with what it cost."""
    data = seen(name, setting.dimension, held_out, folder)
    busy = time.process_time()
    accuracy, price = MODES[mode](data, epsilon, setting, DELTAS[name], seed)
    return {
        "accuracy": round(100 * accuracy, 3),
        "epsilon": NONE if price is None else price,
        "processor_seconds": round(time.process_time() - busy, 2),
    }


def tune(options: argparse.Namespace) -> None:
    """The best learning rate and dimension of each mode and epsilon, on held-out records."""
    found = stored(options.json)
    for name, mode, epsilon in product(options.data, options.modes, EPSILONS):
        for dimension, rate in product(
            DIMENSIONS[-1:] if mode in WHOLE else DIMENSIONS,
            options.rates or (RATES[2:] if mode in WHOLE else RATES[:3]),
        ):
            key = f"{name}/{mode}/{epsilon:g}/{dimension}/{rate:g}"
            if key not in found["tuning"]:
                setting = Setting(dimension, rate)
                got = measured(mode, name, epsilon, setting, 100, options.cache, held_out=True)
                found["tuning"][key] = got["accuracy"]
                saved(found, options.json)
        here = {k: v for k, v in found["tuning"].items() if k.startswith(f"{name}/{mode}/")}
        here = {k: v for k, v in here.items() if k.split("/")[2] == f"{epsilon:g}"}
        best = max(here, key=here.__getitem__)
        found["tuned"][f"{name}/{mode}/{epsilon:g}"] = best.split("/")[3:]
        saved(found, options.json)
        print(best, here[best], flush=True)


def table(options: argparse.Namespace) -> None:
    """Every run that is missing; then the means."""
    found = stored(options.json)
    for seed, name, epsilon, mode in product(SEEDS, options.data, EPSILONS, options.modes):
        key = f"{name}/{mode}/{epsilon:g}/{seed}"
        if key in found["runs"]:
            continue
        dimension, rate = found["tuned"][f"{name}/{mode}/{epsilon:g}"]
        setting = Setting(int(dimension), float(rate))
        found["runs"][key] = measured(mode, name, epsilon, setting, seed, options.cache)
        found["conditions"] = conditions()
        saved(found, options.json)
        print(key, found["runs"][key], flush=True)
    print(*lines(found), sep="\n")


@cache
def conditions() -> dict:
    """What holds for all runs."""
    whole = {name: dp.datasets.load(name) for name in DELTAS}
    return {
        "deltas": DELTAS, "relation": REPLACE.name, "accountant": dp.PLD().name,
        "records": {name: data.note or "as published" for name, data in whole.items()},
        "sizes": {name: data.num_examples for name, data in whole.items()},
        "public data": "strokes drawn by a program; for MNIST also UCI digits with labels",
        "tuned on": "a sixth of the training records, held out, one seed; test records never",
        "torch": torch.__version__, "machine": platform.machine(),
    }  # fmt: skip


def cell(found: dict, name: str, mode: str, epsilon: float) -> tuple[float, float] | None:
    """Mean and deviation over the seeds that are there."""
    keys = [f"{name}/{mode}/{epsilon:g}/{seed}" for seed in SEEDS]
    values = [found["runs"][key]["accuracy"] for key in keys if key in found["runs"]]
    if len(values) < 2:
        return None
    return statistics.mean(values), statistics.stdev(values)


def lines(found: dict) -> list[str]:
    """The table as text; the leaky column comes last, and its epsilon is none."""
    said = []
    for name in DELTAS:
        said.append(f"{name:10} " + " ".join(f"{mode:>16}" for mode in MODES) + " (epsilon: none)")
        for epsilon in EPSILONS:
            cells = [cell(found, name, mode, epsilon) for mode in MODES]
            text = ["-" if c is None else f"{c[0]:.2f} +- {c[1]:.2f}" for c in cells]
            said.append(f"{epsilon:10g} " + " ".join(f"{t:>16}" for t in text))
    return said


def lesson(options: argparse.Namespace) -> None:
    """What the lesson shows of it: the table and its conditions, beside the panels."""
    found = stored(options.json)
    cells = {}
    for name, mode, epsilon in product(DELTAS, MODES, EPSILONS):
        got = cell(found, name, mode, epsilon)
        if got is not None:
            mean, deviation = (round(value, 3) for value in got)
            runs = sum(f"{name}/{mode}/{epsilon:g}/{s}" in found["runs"] for s in SEEDS)
            cells[f"{name}/{mode}/{epsilon:g}"] = [mean, deviation, runs]
    told = {"cells": cells, "conditions": found["conditions"], "modes": list(MODES),
            "epsilons": EPSILONS, "speed": found.get("speed")}  # fmt: skip
    saved(told, LESSON)


def figure(options: argparse.Namespace) -> None:
    """The table as curves, in a page beside the JSON."""
    found, drawn = stored(options.json), []
    for name in DELTAS:
        rows = {mode: [cell(found, name, mode, e) for e in EPSILONS] for mode in MODES}
        whole = {mode: cells for mode, cells in rows.items() if None not in cells}
        drawn.append((name, activations.bought(EPSILONS, whole, "leaky")))
    page = options.json.with_suffix(".html")
    page.write_text(dp.figures.as_html(drawn, "Private activations beside DP-SGD", __doc__ or ""))
    print(page)


def speed(options: argparse.Namespace) -> None:
    """Training after a cached release against plain SGD on the same rows, by processor time."""
    rows = seen("mnist", 64, False, options.cache)
    ours, plain = [], []
    for _ in range(options.repeats):
        ours.append(_ours(rows))
        plain.append(_plain(rows))
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    told = {
        "ours": statistics.median(ours),
        "plain SGD": statistics.median(plain),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(r, 3) for r in ratios],
        "what": "an MLP 64-256-10, batches of 1,000, processor seconds for 5 epochs",
    }
    found = stored(options.json)
    found["speed"] = told
    saved(found, options.json)
    print(told)


def _head(data: Dataset) -> nn.Module:
    return dp.zoo.released(data, 0, hidden=(256,))


def _ours(data: Dataset) -> float:
    plan = dp.Plan(dp.NeuralDP(2.0, learning_rate=0.1), dp.Shuffle(60, 6), 1e-5)
    busy = 0.0
    for step in dp.train(_head(data), data, plan, evaluate_every=0):
        if step.step == 60:  # the release and a first epoch are behind
            busy = time.process_time()
    return time.process_time() - busy


def _plain(data: Dataset) -> float:
    head = nn.Sequential(*list(_head(data))[2:])
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    busy = 0.0
    for epoch in range(6):
        if epoch == 1:
            busy = time.process_time()
        for who in torch.randperm(data.num_examples).split(1_000):
            x, y = data.inputs[who], data.targets[who]
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(head(x), y)
            loss.backward()
            optimiser.step()
            loss.item()
    return time.process_time() - busy


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", nargs="?", default="table", choices=("table", "tune", "speed", "lesson", "figure")
    )
    parser.add_argument("--data", nargs="+", default=list(DELTAS), choices=list(DELTAS))
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--rates", nargs="+", type=float)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--cache", type=Path, default=cache_folder() / "neuraldp")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"table": table, "tune": tune, "speed": speed, "lesson": lesson, "figure": figure}[
        options.what
    ](options)


if __name__ == "__main__":
    main()
