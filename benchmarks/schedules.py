"""What a falling noise buys: Yu et al. 2019 on MNIST at equal budgets, and their accounting.

`python benchmarks/schedules.py mnist --seeds 5 --json FILE` (needs DPKIT_DATA or a network; about
ten minutes a seed on one core), `... accounting`. Every run is a real one under one budget: the
filter that ends it is the one that `train` has. Accuracy is on the test records, after the last
step. One clip norm bounds all layers together, and the noisy projection is paid for beside rho.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn

import dpkit as dp
from dpkit import schedules

RHO, DELTA, LOT, CLIP = 0.78125, 1e-5, 600, 4.0
COMPONENTS, SIGMA_P = 60, 16.0
PUBLIC = 5_000
KEPT = ("uniform", "time", "step", "exponential", "polynomial", "validation")


def noises(lots: int) -> dict[str, schedules.Shape]:
    """The paper's noise multipliers, one for each epoch of so many lots."""
    return {
        "uniform": schedules.Uniform(8.0, steps_per_epoch=lots),
        "time": schedules.TimeDecay(10.0, 0.05, steps_per_epoch=lots),
        "step": schedules.StepDecay(10.0, 0.6, 10, steps_per_epoch=lots),
        "exponential": schedules.ExponentialDecay(10.0, 0.01, steps_per_epoch=lots),
        "polynomial": schedules.PolynomialDecay(10.0, 2.0, 3.0, 100, steps_per_epoch=lots),
        "validation": schedules.ValidationDecay(10.0, 0.7, 10, 5, 0.01, steps_per_epoch=lots),
    }


def network(seed: int) -> nn.Module:
    """60 components, 1,000 hidden units."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(COMPONENTS, 1000), nn.ReLU(), nn.Linear(1000, 10))


def run(
    noise: str, seed: int, data: dp.datasets.Dataset, first: float = 0.1
) -> dict[str, float | str]:
    """One run to the end of its budget; the learning rate falls from `first` over ten epochs."""
    lots = round(data.num_examples / LOT)
    pca = dp.datasets.PrivatePCA(COMPONENTS, SIGMA_P)
    projected = pca.of(data, seed=seed)
    rate = schedules.PolynomialDecay(first, 0.52 * first, 1.0, 10, steps_per_epoch=lots)
    method = dp.DPSGD(noises(lots)[noise], CLIP, rate)
    budget = dp.RhoBudget(RHO + 0.5 / SIGMA_P**2)
    plan = dp.Plan(
        method, dp.Shuffle(lots, 200), DELTA, before=(pca.release,), budget=budget
    )  # fmt: skip
    start, best = time.process_time(), 0.0
    for step in dp.train(
        network(seed), projected, plan, seed=seed, device="cpu", evaluate_every=lots
    ):
        if step.peek.accuracy is not None and step.step % lots == 0:
            last = step.peek.accuracy
            best = max(best, last)
    spent = dp.ZCDP().rho(step.ledger) - 0.5 / SIGMA_P**2
    return {
        "noise": noise, "seed": seed, "rate": first, "epochs": step.step // lots,
        "accuracy": last, "best": best, "rho spent": spent, "epsilon": plan.epsilon(),
        "seconds": time.process_time() - start,
    }  # fmt: skip


def mnist(options: argparse.Namespace, found: dict[str, object]) -> None:
    """All noises, seed by seed: what is done is on file when the time is up."""
    torch.set_num_threads(1)
    data = dp.datasets.load("mnist", public=PUBLIC / 60_000)
    runs: list[dict[str, float | str]] = []
    found |= {"data": repr(data), "rho": RHO, "sigma_p": SIGMA_P, "runs": runs, "summary": {}}
    for seed in range(options.seeds):
        for noise in options.noises:
            runs.append(run(noise, seed, data, options.rate))
            print(json.dumps(runs[-1]), flush=True)
            found["summary"] = _summary(runs)
            _write(options.json, found)
    print(json.dumps(found["summary"], indent=1))


def _summary(runs: list[dict[str, float | str]]) -> dict[str, dict[str, float]]:
    """Mean and spread of the accuracy, and the epochs, by noise."""
    out = {}
    for noise in dict.fromkeys(str(one["noise"]) for one in runs):
        some = [one for one in runs if one["noise"] == noise]
        accuracy = [float(one["accuracy"]) for one in some]
        out[noise] = {
            "runs": len(some),
            "mean accuracy": statistics.mean(accuracy),
            "standard deviation": statistics.stdev(accuracy) if len(some) > 1 else 0.0,
            "mean epochs": statistics.mean(float(one["epochs"]) for one in some),
        }
    return out


def accounting(options: argparse.Namespace, found: dict[str, object]) -> None:
    """Their accounting (N = 50,000, lot 500, sigma 6, 400 epochs) beside what is exact."""
    method, lots, epochs = dp.DPSGD(6.0), 100, 400
    shuffled = dp.Plan(method, dp.Shuffle(lots, epochs), DELTA).ledger()
    sampled = dp.Plan(method, dp.Poisson(1 / lots, lots * epochs), DELTA).ledger()
    rho = dp.ZCDP().rho(shuffled)
    rule = dp.accountants.YuRandomSampling().claim(sampled, DELTA)
    table = {
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
    found["accounting"] = table
    print(json.dumps(table, indent=1))


def _write(path: Path | None, found: dict[str, object]) -> None:
    if path:
        path.write_text(json.dumps(found, indent=1))


def main() -> None:
    """Read the command line, run the parts, print them and write the JSON."""
    parts = {"accounting": accounting, "mnist": mnist}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--noises", nargs="*", default=list(KEPT), choices=KEPT)
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate at first")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "torch": torch.__version__,
    }
    for part in options.parts:
        parts[part](options, found)
        _write(options.json, found)


if __name__ == "__main__":
    main()
