"""The exercises of the lesson on votes."""

from __future__ import annotations

import math
from dataclasses import replace

from dpkit.votes.plan import VotePlan
from dpkit.widgets.exercises import Exercise, Interval

_PUBLISHED = VotePlan(4000, 200, 5000.0, 15, 0.7, 1.0, 1e-5)


def _a_quarter() -> Interval:
    """Images that epsilon 1 affords if 50 coordinates are voted on in place of 200."""
    images = replace(_PUBLISHED, top_k=50).affordable
    return images - 5, images + 5


def _three_seats() -> Interval:
    """The noise that makes up for records in three teachers."""
    least = replace(_PUBLISHED, copies=3).calibrated(_PUBLISHED.steps).noise
    return 0.99 * least, 1.02 * least


def _false_charge() -> Interval:
    """Images that the bound for an argmax, sqrt(2), would allow on the same noise."""
    claimed = _PUBLISHED.affordable * 4 * _PUBLISHED.top_k / 2
    return 0.99 * claimed, 1.01 * claimed


def _in_votes() -> Interval:
    sigma = 2.0 * math.sqrt(100)
    return sigma, sigma


EXERCISES = (
    Exercise(
        _a_quarter,
        "the price of an image is ρ = 2k/σ²: how does it change with k?",
        "`dp.votes.VotePlan(4000, 50, 5000.0).affordable`.",
        "A quarter of the coordinates, a quarter of the price: 8,981 images, four times as many.",
    ),
    Exercise(
        _three_seats,
        "a record in three teachers moves three votes.",
        "2√k becomes 3 × 2√k; what must σ become for the same ratio?",
        "Three times the noise, 15,000 votes: with 4,000 teachers nothing would be left.",
    ),
    Exercise(
        _false_charge,
        "that bound is for votes with a single 1: a vote changed moves them by √2, not by 2√k.",
        "images go with the inverse square of the sensitivity: (2√200)² = 800 against 2.",
        "400 times as many, about 898,000: each of them a release that nobody pays for.",
    ),
    Exercise(
        _in_votes,
        "the noise multiplier is told relative to the norm of one contribution.",
        "k votes of size 1 have the norm √k = 10.",
        "σ = 2 × √100 = 20 votes on each coordinate, those that nobody chose included.",
    ),
)
"""The exercises of the lesson on votes."""
