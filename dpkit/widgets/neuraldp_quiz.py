"""The exercises of the lesson on private activations."""

from __future__ import annotations

import math

from dpkit.methods import NeuralDP
from dpkit.plan import Plan
from dpkit.samplers import Poisson
from dpkit.widgets.exercises import Exercise, Interval

DELTA, STEPS = 1e-5, 100


def _calibrated(epsilon: float, releases: int = 1) -> float:
    """The noise at which so many releases cost epsilon."""
    each = STEPS // releases
    often = {"release": "each epoch", "steps_per_epoch": each} if releases > 1 else {}
    plan = Plan(NeuralDP(**often), Poisson(0.01, STEPS), DELTA)  # type: ignore[arg-type]
    return plan.calibrated(epsilon).method.noise_multiplier  # type: ignore[attr-defined]


def _once() -> Interval:
    sigma = _calibrated(2.0)
    return 0.998 * sigma, 1.01 * sigma


def _ten_times() -> Interval:
    sigma = _calibrated(2.0, 10)
    return 0.998 * sigma, 1.01 * sigma


def _sampled() -> Interval:
    """The price of one release at sigma 4, however small the batches are."""
    epsilon = Plan(NeuralDP(4.0), Poisson(0.01, STEPS), DELTA).epsilon()
    return 0.995 * epsilon, 1.01 * epsilon


def _answers() -> Interval:
    """Of ten answers the true one with chance .9: odds of .9 against .1 / 9."""
    epsilon = math.log(0.9 / (0.1 / 9))
    return 0.99 * epsilon, 1.01 * epsilon


EXERCISES = (
    Exercise(
        _once,
        "let dpkit solve for the noise: `calibrated`.",
        "`dp.Plan(dp.NeuralDP(), dp.Poisson(0.01, 100)).calibrated(2.0).method`.",
        "σ = 3.99: replacing a record moves its row by 2C, so μ = 2/σ.",
    ),
    Exercise(
        _ten_times,
        "K releases of one record add up as μ = 2 √K / σ.",
        "the same price needs √10 times the noise.",
        "σ = 12.6: ten looks at much noise tell as much as one look at little.",
    ),
    Exercise(
        _sampled,
        "which records are in a batch of the head plays no part.",
        "`dp.Plan(dp.NeuralDP(4.0), dp.Poisson(0.01, 100)).epsilon()`.",
        "ε = 2.0, as for batches of all records: every record was released.",
    ),
    Exercise(
        _answers,
        "with ten classes each wrong answer has chance 0.1 / 9.",
        "ε is the logarithm of 0.9 over 0.1 / 9.",
        "ε = ln 81 = 4.39: labels of ten classes are dear to protect one by one.",
    ),
)
"""The exercises of the lesson on private activations."""
