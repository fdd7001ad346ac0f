"""What the tests of sweeps train, where workers can import it, and sweeps that are to be killed."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TextIO

import torch
from torch import nn

import dpkit as dp
from dpkit.sweeping import Grid, sweep

PLAN = dp.Plan(dp.DPSGD(1.1, 1.0, 0.5), dp.Poisson(0.25, 6), delta=1e-3)
GRID = Grid(PLAN, {"method.noise_multiplier": (1.0, 2.0, 4.0), "method.max_grad_norm": (0.5, 1.0)})
SEEDS = (0, 1)


def records(size: int = 60) -> dp.datasets.Dataset:
    """Three clouds in the plane."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(size) % 3
    inputs = torch.randn(size, 2, generator=generator) + 3 * targets[:, None]
    return dp.datasets.Dataset.of(inputs, targets, test=(inputs, targets))


def published() -> dp.datasets.Dataset:
    """The same for everybody."""
    from dataclasses import replace

    return replace(records(), published=True)


def linear(data: dp.datasets.Dataset, seed: int | None) -> nn.Module:
    """The smallest model."""
    model = nn.Linear(2, 3)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    return model


def slow(data: dp.datasets.Dataset, seed: int | None) -> nn.Module:
    """A model that takes its time."""
    time.sleep(float(os.environ["DPKIT_TEST_NAP"]))
    return linear(data, seed)


def failing(data: dp.datasets.Dataset, seed: int | None) -> nn.Module:
    """No model for seed 1."""
    if seed == 1:
        raise RuntimeError("no model today")
    return linear(data, seed)


def deadly(data: dp.datasets.Dataset, seed: int | None) -> nn.Module:
    """A worker that dies over seed 1, as when memory is short."""
    if seed == 1:
        os._exit(9)
    return linear(data, seed)


def marking(data: dp.datasets.Dataset, seed: int | None) -> nn.Module:
    """A model that tells which process made it."""
    Path(os.environ["DPKIT_TEST_MARK"], str(os.getpid())).touch()
    return linear(data, seed)


def flaky(data: dp.datasets.Dataset, seed: int | None) -> nn.Module:
    """A model that fails at its first attempt."""
    mark = Path(os.environ["DPKIT_TEST_MARK"]) / str(seed)
    if not mark.exists():
        mark.touch()
        raise RuntimeError("not yet")
    return linear(data, seed)


class Here(Executor):
    """Runs everything at once, in this process."""

    _max_workers = 1

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def told(store: str, out: TextIO, seeds: range) -> None:
    """Make the runs of `GRID` in this process, and tell the key of each once it is finished."""
    for done in sweep(GRID, published, linear, seeds=seeds, store=store, executor=Here()):
        print(done.key, file=out, flush=True)


def with_a_worker(store: str) -> None:
    """The same by one worker process, which leaves its number."""
    for done in sweep(GRID, published, marking, store=store, workers=1):
        print(done.key, flush=True)


def killed(folder: Path, kills: int, seeds: range) -> None:
    """Begin the sweep again and again, each time in a fork of its own that is killed soon after.

    Each store is given up once its sweep is whole, so that the kills meet all its stages.
    """
    rng = random.Random(0)
    told(str(folder / "warm.sqlite"), sys.stdout, range(1))
    number, store = 0, folder / "0.sqlite"
    for _ in range(kills):
        with open(store.with_suffix(".told"), "a") as out:
            child = os.fork()
            if not child:
                told(str(store), out, seeds)
                os._exit(0)
            time.sleep(rng.uniform(0.0, 0.6))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if len(set(store.with_suffix(".told").read_text().split())) == len(GRID) * len(seeds):
            number += 1
            store = folder / f"{number}.sqlite"
