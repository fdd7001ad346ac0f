"""What a falling noise buys: Yu et al. 2019 on MNIST at equal budgets, and their accounting.

`python benchmarks/schedules.py mnist --seeds 5 --json FILE` (needs DPKIT_DATA or a network; about
four minutes a seed on one core), `... accounting`, `... choice`. Every run is a real one under one
budget: the filter that ends it is the one that `train` has. One clip norm bounds all layers
together, the noisy projection is paid for beside rho, and accuracy is on the test records, after
the last step. The descent "tuned" is the best of those that `choice` compares, at one falling
noise, on 5,000 training records that are held out as public ones. A second call goes on from what
is on file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import dpkit as dp
from dpkit import abadi, schedules

RHO, DELTA, SIGMA_P = 0.78125, 1e-5, 16.0
PUBLIC = 5_000
NOISES = ("uniform", "short", "time", "step", "exponential", "polynomial", "validation")


@dataclass(frozen=True)
class Descent:
    """How a run descends: the rate falls to `end` of its start over `epochs`, 0 for all of them."""

    clip: float = 4.0
    rate: float = 0.1
    end: float = 0.52
    epochs: int = 10
    averaging: float = 0.0
    lot: int = 600


DESCENTS = {
    "paper": Descent(),
    "slow": Descent(rate=0.04),
    "small clip": Descent(0.25, 0.8),
    "small clip, falling": Descent(0.25, 3.2, 0.05, 0),
    "small clip, averaged": Descent(0.25, 3.2, averaging=0.998),
    "small clip, averaged, slower": Descent(0.25, 1.6, averaging=0.998),
    "lots of 3000": Descent(1.0, 1.0, lot=3000),
    "lots of 6000": Descent(1.0, 2.0, lot=6000),
    "lots of 6000, falling": Descent(1.0, 2.0, 0.05, 0, lot=6000),
    "lots of 6000, rate 4": Descent(1.0, 4.0, 0.05, 0, lot=6000),
    "lots of 6000, rate 12": Descent(1.0, 12.0, 0.05, 0, lot=6000),
    "lots of 6000, rate 12, averaged": Descent(1.0, 12.0, 0.05, 0, 0.9, 6000),
    "lots of 6000, rate 30": Descent(1.0, 30.0, 0.05, 0, lot=6000),
    "lots of 6000, small clip": Descent(0.25, 8.0, 0.05, 0, lot=6000),
    "tuned": Descent(4.0, 3.0, 0.05, 0, lot=6000),
}
"""What the paper set, what is compared on records that are held out, and what they chose."""
LONG = {"uniform": 100, "short": 39, "time": 38, "step": 31, "exponential": 71, "polynomial": 44,
        "validation": 60}  # fmt: skip
"""Epochs over which a rate falls that falls to the end; of the last it is not known beforehand."""


def noises(lots: int) -> dict[str, schedules.Shape]:
    """The paper's noise multipliers, one for each epoch of so many lots, and a smaller constant."""
    return {
        "uniform": schedules.Uniform(8.0, steps_per_epoch=lots),
        "short": schedules.Uniform(5.0, steps_per_epoch=lots),
        "time": schedules.TimeDecay(10.0, 0.05, steps_per_epoch=lots),
        "step": schedules.StepDecay(10.0, 0.6, 10, steps_per_epoch=lots),
        "exponential": schedules.ExponentialDecay(10.0, 0.01, steps_per_epoch=lots),
        "polynomial": schedules.PolynomialDecay(10.0, 2.0, 3.0, 100, steps_per_epoch=lots),
        "validation": schedules.ValidationDecay(10.0, 0.7, 10, 5, 0.01, steps_per_epoch=lots),
    }


def run(noise: str, descent: str, seed: int, data: dp.datasets.Dataset) -> dict[str, Any]:
    """One run to the end of its budget."""
    way, network = DESCENTS[descent], abadi.Experiment(pca_noise=SIGMA_P)
    lots = round(data.num_examples / way.lot)
    projected = network.projected(data, seed)
    rate = schedules.PolynomialDecay(
        way.rate, way.end * way.rate, 1.0, way.epochs or LONG[noise], steps_per_epoch=lots
    )
    method = dp.DPSGD(noises(lots)[noise], way.clip, rate, averaging=way.averaging)
    paid = 0.5 / SIGMA_P**2
    plan = dp.Plan(
        method, dp.Shuffle(lots, 200), DELTA, before=network.before, budget=dp.RhoBudget(RHO + paid)
    )  # fmt: skip
    model, start = network.model(projected, seed), time.process_time()
    for step in dp.train(model, projected, plan, seed=seed, device="cpu", evaluate_every=0):
        last = step
    accuracy = abadi.hits(model, projected.test_inputs, projected.test_targets)
    return {
        "noise": noise, "descent": descent, "seed": seed, "epochs": last.step // lots,
        "accuracy": round(accuracy, 5), "rho spent": dp.ZCDP().rho(last.ledger) - paid,
        "epsilon": plan.epsilon(), "seconds": round(time.process_time() - start, 1),
    }  # fmt: skip


def mnist(options: argparse.Namespace, found: dict[str, Any]) -> Iterator[None]:
    """All noises, seed by seed: what is done is on file when the time is up."""
    data = dp.datasets.load("mnist", public=PUBLIC / 60_000)
    found |= {"data": repr(data), "rho": RHO, "sigma_p": SIGMA_P, "pixels": "in [0, 1]"}
    found["descents"] = {name: asdict(DESCENTS[name]) for name in ("paper", "tuned")}
    runs = found.setdefault("runs", [])
    done = {(one["noise"], one["descent"], one["seed"]) for one in runs}
    for seed in range(options.seeds):
        for noise in options.noises:
            for descent in options.descents:
                if (noise, descent, seed) not in done:
                    runs.append(run(noise, descent, seed, data))
                    found["summary"] = summary(runs)
                    print(json.dumps(runs[-1]), flush=True)
                    yield


def choice(options: argparse.Namespace, found: dict[str, Any]) -> Iterator[None]:
    """Every descent on training records that are held out: public ones, which cost nothing."""
    data = dp.datasets.load("mnist", public=PUBLIC / 60_000)
    held = replace(data, test_inputs=data.public_inputs, test_targets=data.public_targets)
    result = found.setdefault("choice", {})
    for noise in options.noises:
        for descent in options.descents:
            if f"{noise}, {descent}" not in result:
                one = run(noise, descent, 0, held)
                result[f"{noise}, {descent}"] = one["accuracy"]
                print(json.dumps(one), flush=True)
                yield


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and spread of the accuracy, and the epochs, by descent and noise."""
    out = {}
    for descent, noise in dict.fromkeys((one["descent"], one["noise"]) for one in runs):
        some = [one for one in runs if (one["descent"], one["noise"]) == (descent, noise)]
        accuracy = [one["accuracy"] for one in some]
        out[f"{descent}: {noise}"] = {
            "runs": len(some),
            "mean accuracy": round(statistics.mean(accuracy), 5),
            "standard deviation": round(statistics.stdev(accuracy), 5) if len(some) > 1 else 0.0,
            "mean epochs": statistics.mean(one["epochs"] for one in some),
        }
    return out


def accounting(options: argparse.Namespace, found: dict[str, Any]) -> Iterator[None]:
    """Their accounting (N = 50,000, lot 500, sigma 6, 400 epochs) beside what is exact."""
    method, lots, epochs = dp.DPSGD(6.0), 100, 400
    shuffled = dp.Plan(method, dp.Shuffle(lots, epochs), DELTA).ledger()
    sampled = dp.Plan(method, dp.Poisson(1 / lots, lots * epochs), DELTA).ledger()
    rho = dp.ZCDP().rho(shuffled)
    rule = dp.accountants.YuRandomSampling().claim(sampled, DELTA)
    found["accounting"] = {
        "reshuffled, zCDP as in the paper": rho + 2 * (rho * math.log(1 / DELTA)) ** 0.5,
        "reshuffled, zCDP with the best conversion": dp.ZCDP().epsilon(shuffled, DELTA),
        "reshuffled, as if the order were known": dp.PLD().epsilon(shuffled, DELTA),
        "reshuffled, at least": dp.PLD().bounds(shuffled, DELTA).lower,
        "sampled, moments accountant": dp.Moments().epsilon(sampled, DELTA),
        "sampled, the paper's rule": rule.epsilon,
        "sampled, the rule is false": rule.fault,
        "sampled, tCDP": dp.ZCDP().epsilon(sampled, DELTA),
        "sampled, RDP": dp.RDP().epsilon(sampled, DELTA),
        "sampled, exact": dp.PLD().epsilon(sampled, DELTA),
    }
    print(json.dumps(found["accounting"], indent=1))
    yield


def main() -> None:
    """Read the command line, go on from what is on file, and write after every run."""
    parts = {"accounting": accounting, "choice": choice, "mnist": mnist}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--noises", nargs="*", default=list(NOISES), choices=NOISES)
    parser.add_argument("--descents", nargs="*", default=["paper"], choices=DESCENTS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    there = options.json is not None and options.json.exists()
    found: dict[str, Any] = json.loads(options.json.read_text()) if there else {}
    found |= {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "torch": torch.__version__,
    }
    for part in options.parts:
        for _ in parts[part](options, found):
            if options.json:
                options.json.write_text(json.dumps(found, indent=1))
    print(json.dumps(found.get("summary", {}), indent=1))


if __name__ == "__main__":
    main()
