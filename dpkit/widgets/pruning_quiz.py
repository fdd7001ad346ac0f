"""The exercises of the pruning lesson."""

from __future__ import annotations

import math

from dpkit.methods import DPSGD, Freeze
from dpkit.plan import Plan
from dpkit.samplers import Poisson
from dpkit.widgets.exercises import Exercise, Interval

SIGMA, CLIP, SIZE = 1.2, 0.5, 79_510


def _kept() -> Interval:
    """Weights of the MNIST network that a ratio of 0.7 leaves."""
    kept = Freeze(0.7).kept(0, SIZE)
    return kept, kept


def _noise() -> Interval:
    """The norm of a step's noise on them."""
    norm = SIGMA * CLIP * math.sqrt(Freeze(0.7).kept(0, SIZE))
    return 0.99 * norm, 1.01 * norm


def _scaled() -> Interval:
    """The clip norm that suits a random tenth of the weights."""
    return 0.99 * math.sqrt(0.1), 1.01 * math.sqrt(0.1)


def _price() -> Interval:
    """The price of the run with nine tenths of the weights frozen."""
    plan = Plan(DPSGD(2.0, mask=Freeze(0.9)), Poisson(0.01, 1_000))
    epsilon = plan.epsilon()
    return 0.99 * epsilon, 1.01 * epsilon


EXERCISES = (
    Exercise(
        _kept,
        "|S| = ⌈(1 − p) D⌉.",
        "three tenths of 79,510.",
        "⌈0.3 × 79,510⌉ = 23,853.",
    ),
    Exercise(
        _noise,
        "each of the |S| coordinates gets noise of standard deviation σC.",
        "its norm is about σC √|S|.",
        "1.2 × 0.5 × √23,853 ≈ 92.7; without pruning 169.",
    ),
    Exercise(
        _scaled,
        "a random tenth of the coordinates holds about a tenth of the energy.",
        "a norm is the root of an energy: C √(|S|/D).",
        "√0.1 ≈ 0.316: the same records are clipped as before, and the noise is smaller too.",
    ),
    Exercise(
        _price,
        "what does the price depend on?",
        "on q, σ and the number of steps: `dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.01, 1_000))`.",
        "ε = 0.622 with the mask as without: fewer weights cost no less.",
    ),
)
"""The exercises of the pruning lesson."""
