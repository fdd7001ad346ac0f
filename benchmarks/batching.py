"""What batching costs: drawing a batch beside a training step, and an epsilon of balls in bins.

`python benchmarks/batching.py [--peers PYTHON]`: PYTHON is an interpreter that has
PLD_accounting or opake-accounting; minutes for the former, which are its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dpkit as dp
from dpkit.accountants import closed, lines
from dpkit.mechanisms import AllocatedGaussian, Ledger, allocated, allocation

CASES = ((1.0, 100, 1), (0.5, 100, 1), (2.0, 50, 20), (1.1, 234, 60))
RECORDS, BATCH = 60_000, 600
PEERS = """
import time
cases = {cases!r}
def told(name, case, run):
    start = time.perf_counter()
    print(name, *case, run(), f'{{time.perf_counter() - start:.3f}} s', flush=True)
try:
    from opake.api.accounting.core import _native
    from opake.api.accounting.core.discretization import DiscretizationConfig
    fine = DiscretizationConfig().to_native()
    def opake(s, t, e):
        one = _native.random_allocation_gaussian_pld(s, t, 1, fine)
        return one.self_compose(e).epsilon_at(1e-5)
    for case in cases:
        told('opake', case, lambda: opake(*case))
except (ImportError, TypeError) as error:  # 0.16.1 does not load in Python 3.11
    print('opake:', error)
try:
    from PLD_accounting.random_allocation_api import gaussian_allocation_epsilon_range as bounds
    for s, t, e in cases[:1]:
        told('PLD_accounting', (s, t, e), lambda: bounds(
            delta=1e-5, sigma=s, num_steps=t, num_epochs=e))
except ImportError as error:
    print('PLD_accounting:', error)
"""


def timed(run: Callable[[], object], rounds: int) -> float:
    """Median seconds of processor time of a call."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def draws() -> None:
    """Each scheme's batch of about 600 of 60,000, as a share of an MLP's private step."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((RECORDS, 784)).astype(np.float32))
    targets = torch.from_numpy(rng.integers(0, 10, RECORDS))
    model = nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, 10))
    plan = dp.Plan(dp.DPSGD(1.1), dp.Poisson(BATCH / RECORDS, 10_000))
    steps = dp.train(model, (inputs, targets), plan, seed=0, evaluate_every=0)
    for _ in range(5):
        next(steps)
    step = timed(lambda: next(steps), 30)
    print(f"training step of an MLP of 784, 1000, 10: {1e3 * step:.2f} ms")
    t = RECORDS // BATCH
    for sampler in (dp.Poisson(BATCH / RECORDS, 10**6), dp.Shuffle(t, 10**4),
                    dp.FixedSize(BATCH, RECORDS, 10**6), dp.BallsInBins(t, 10**4),
                    dp.TruncatedPoisson(BATCH / RECORDS, 10**6, 1000, RECORDS)):  # fmt: skip
        batches = sampler.batches(RECORDS, rng)
        share = timed(lambda batches=batches: [next(batches) for _ in range(10 * t)], 5)
        share /= 10 * t
        name = type(sampler).__name__
        print(f"{name:17} {1e6 * share:7.1f} us a batch, {share / step:6.2%} of a step")


def epsilons() -> None:
    """A cold epsilon of balls in bins at delta 1e-5."""

    def cold(sigma: float, t: int, epochs: int) -> float:
        for cached in (allocation.levels, allocated._atoms, closed._at_zero,
                       lines.on_axis, lines.on_line):  # fmt: skip
            getattr(cached, "cache_clear", lambda: None)()
        pair = AllocatedGaussian(t, sigma)
        return dp.PLD().epsilon(Ledger.of([(pair, epochs)]), 1e-5)

    for case in CASES:
        seconds = timed(lambda case=case: cold(*case), 15)
        print("dpkit", *case, f"{cold(*case):.6f} {1e3 * seconds:.1f} ms")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="a Python that has the peers installed")
    options = parser.parse_args()
    draws()
    epsilons()
    if options.peers:
        subprocess.run([options.peers, "-c", PEERS.format(cases=CASES)], check=False)


if __name__ == "__main__":
    main()
