"""The exercises of the lesson on many runs."""

from __future__ import annotations

from dpkit.accountants import PLD, BestOfRandom, noise_for_epsilon
from dpkit.mechanisms import Ledger
from dpkit.methods import DPSGD
from dpkit.plan import Plan
from dpkit.samplers import Poisson
from dpkit.widgets.exercises import Exercise, Interval

RUNS, RATE, STEPS, NOISE, DELTA = 30, 0.1, 50, 2.0, 1e-5
"""Thirty runs of five epochs, as the exercises have them."""


def one() -> Ledger:
    """What one run is charged."""
    return Plan(DPSGD(NOISE), Poisson(RATE, STEPS), DELTA).ledger()


def _all() -> Interval:
    ledger = one()
    entries = [(mechanism, RUNS * count) for mechanism, count in ledger.entries]
    together = PLD().epsilon(Ledger.of(entries, ledger.relation), DELTA)
    return 0.99 * together, 1.01 * together


def _best() -> Interval:
    best = BestOfRandom.expecting(RUNS).epsilon([one()], DELTA)
    return 0.99 * best, 1.01 * best


def _noise() -> Interval:
    """Noise at which all thirty runs together cost what one did, with 2% of slack."""
    price = PLD().epsilon(one(), DELTA)
    sigma = noise_for_epsilon(price, delta=DELTA, sample_rate=RATE, steps=RUNS * STEPS)
    return 0.999 * sigma, 1.02 * sigma


EXERCISES = (
    Exercise(
        _all,
        "thirty runs of 50 steps are 1,500 steps to whoever sees them all.",
        "`dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.1, 1500)).epsilon()`.",
        "About 10.5 where one run cost 1.66: looking is what costs, not keeping.",
    ),
    Exercise(
        _best,
        "make the protocol by `BestOfRandom.expecting(30)` and ask it for the price.",
        "`BestOfRandom.expecting(30).epsilon([plan.ledger()], 1e-5)` with the plan of one run.",
        "About 4.2: nobody has seen the other runs, nor knows how many there were.",
    ),
    Exercise(
        _noise,
        "a longer run at the same price needs more noise.",
        "`dp.accountants.noise_for_epsilon` with 1,500 steps and the price of 50.",
        "σ = 9.25, nearly five times the noise: a search by brute force is paid for in accuracy.",
    ),
)
"""The exercises of the lesson on many runs."""
