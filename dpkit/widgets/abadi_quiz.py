"""The exercises of the founding paper's lesson."""

from __future__ import annotations

import math

from dpkit import abadi
from dpkit.accountants import PLD
from dpkit.mechanisms import Gaussian, Ledger, Neighbours
from dpkit.widgets.exercises import Exercise, Interval

MNIST = 60_000


def _components() -> Interval:
    """The components of the last row, alone."""
    pair = Gaussian(abadi.ROWS[-1].pca_noise).pair(Neighbours.ADD_REMOVE)
    price = PLD().epsilon(Ledger.of([(pair, 1)], Neighbours.ADD_REMOVE), abadi.DELTA)
    return 0.99 * price, 1.01 * price


def _charged() -> Interval:
    """The paper's run of 1.26 with both layers charged: the one that has no components."""
    run = abadi.Experiment(noise_multiplier=4.0, components=0)
    price = abadi.prices(run, MNIST, 10_000).exact
    return 0.99 * price, 1.01 * price


EXERCISES = (
    Exercise(
        lambda: (0.99 * math.log(1e5) / 32, 1.01 * math.log(1e5) / 32),
        "the accountant of 2016 takes λ up to 32, and ε = (α(λ) + ln(1/δ)) / λ.",
        "without any loss α is 0: what is left at λ = 32?",
        "ln(100,000) / 32 = 0.36: below that the accountant of 2016 cannot read, however short "
        "the run. At ε = 0.5 little room is left above it.",
    ),
    Exercise(
        lambda: (2.82, 2.84),
        "a record moves both layers: its joint length is at most √2 C, the noise is 4 C.",
        "noise over sensitivity: 4 C / (√2 C).",
        "4 / √2 = 2.83. Two releases of σ = 4 are one of σ = 2.83.",
    ),
    Exercise(
        _charged,
        "100 epochs in lots of 600 are 10,000 steps; set no components in the panel of prices.",
        "`abadi.prices(abadi.Experiment(noise_multiplier=4.0, components=0), 60_000, 10_000)`.",
        "1.414: more than the 1.26 that the moments accountant reads for one release a step, and "
        "less than the 1.833 that it reads for both layers.",
    ),
    Exercise(
        _components,
        "the noisy covariance is one Gaussian of σ_p = 4 that sees every record.",
        "`dp.PLD().epsilon(dp.Ledger(((dp.Gaussian(4.0), 1),)), 1e-5)`.",
        "0.93 of the 8 are spent before the first step: no sampling hides a record from the "
        "covariance.",
    ),
)
"""The exercises, in the order of the notebook."""
