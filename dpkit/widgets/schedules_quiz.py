"""The exercises of the budget lesson."""

from __future__ import annotations

import math

from dpkit.budgets import RhoBudget
from dpkit.mechanisms import Neighbours
from dpkit.methods import DPSGD
from dpkit.plan import Plan
from dpkit.samplers import Shuffle
from dpkit.schedules import StepDecay
from dpkit.widgets.exercises import Exercise, Interval

RHO, DELTA = 0.78125, 1e-5
RECORDS = 1_437


def _halved() -> Interval:
    """Epochs of a noise of 12 that falls to seven tenths every 15 epochs."""
    noise = DPSGD(StepDecay(12.0, 0.7, 15))
    plan = Plan(noise, Shuffle(1, 400), DELTA, Neighbours.ZERO_OUT, budget=RhoBudget(RHO))
    return plan.steps, plan.steps


def _last_thirty() -> Interval:
    """The noise that thirty epochs may have after thirty at 10."""
    sigma = math.sqrt(30 / (2 * (RHO - 30 / (2 * 10**2))))
    return 0.995 * sigma, 1.02 * sigma


def _promise() -> Interval:
    epsilon = RhoBudget(RHO).epsilon(DELTA)
    return 0.998 * epsilon, 1.01 * epsilon


def _look() -> Interval:
    """The noise on an accuracy at which forty looks cost a hundredth of the budget."""
    sigma = math.sqrt(40 / (2 * RECORDS**2 * RHO / 100))
    return 0.98 * sigma, 1.02 * sigma


EXERCISES = (
    Exercise(
        _halved,
        "choose step decay in the panel and set its three sliders.",
        "start 12, factor 0.7, period 15; read where the curve turns to dots.",
        "58 epochs fit; the next would cost ρ = 0.0295, and 0.0223 of the budget are left.",
    ),
    Exercise(
        _last_thirty,
        "thirty epochs at 10 cost 30 / (2 × 100) = 0.15; what is left for the others?",
        "solve 30 / (2σ²) = 0.78125 − 0.15 for σ.",
        "σ = √(15 / 0.63125) = 4.87: less noise late, at the same price.",
    ),
    Exercise(
        _promise,
        "nobody knows beforehand how long such a run is going to be, only its budget.",
        "`dp.RhoBudget(0.78125).epsilon(1e-5)`; 5.68 is for a run that was fixed beforehand.",
        "ε = 6.13, whatever the noise reacted to: the filter keeps the budget, and nothing less "
        "may be promised.",
    ),
    Exercise(
        _look,
        "the number of right answers moves by 1; an accuracy by 1 / |V|.",
        "a look costs 1 / (2 |V|² σ_v²); forty of them may cost 0.0078125.",
        "σ_v = 0.035: an accuracy that is known to within a few points, forty times.",
    ),
)
"""The exercises of the budget lesson."""
