"""Exercises with hints: an answer is checked against what dpkit computes, never sent anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dpkit.accountants import PLD, noise_for_epsilon, steps_for_epsilon
from dpkit.mechanisms import Gaussian, Laplace, Ledger, Neighbours, PoissonSampling
from dpkit.widgets.pricing import RUN

Interval = tuple[float, float]


@dataclass(frozen=True)
class Exercise:
    """A question with a number as its answer, two hints and the reason.

    `accepted` computes the lowest and the highest number that count as right.
    """

    accepted: Callable[[], Interval]
    hint: str
    more: str
    why: str

    def check(self, given: float | None) -> None:
        """Print whether an answer is right, with the next hint if it is not; None asks for one."""
        print(self.verdict(given))

    def verdict(self, given: float | None) -> str:
        """What `check` prints."""
        if given is None:
            return f"Not answered yet. Hint: {self.hint}"
        low, high = self.accepted()
        try:
            number = float(given)
        except (TypeError, ValueError):
            return f"The answer is a number, got {given!r}. Hint: {self.hint}"
        if low <= number <= high:
            return f"Right. {self.why}"
        return (
            f"Not yet: {number:g} is too {'small' if number < low else 'large'}. Hint: {self.more}"
        )


def _near(value: float, share: float = 0.01) -> Interval:
    return value * (1 - share), value * (1 + share)


def _thirty_counts() -> Interval:
    """Thirty Laplace counts of scale 10, exactly."""
    return _near(PLD().epsilon(Ledger(((Laplace(10.0), 30),)), 1e-5))


def _tight_price() -> Interval:
    """The run of Abadi et al. whose price they gave as 1.26."""
    pair = Gaussian(4.0).pair(Neighbours.ADD_REMOVE, PoissonSampling(0.01))
    return _near(PLD().epsilon(Ledger(((pair, 10_000),)), 1e-5))


def _least_noise() -> Interval:
    """Noise multipliers that buy epsilon = 1 and waste at most 2%."""
    sigma = noise_for_epsilon(1.0, delta=RUN.delta, sample_rate=RUN.sample_rate, steps=RUN.steps)
    return sigma * 0.999, sigma * 1.02


def _most_steps() -> Interval:
    """Steps that fit into epsilon = 3, and leave less than 1% of them unused."""
    steps = steps_for_epsilon(
        3.0, delta=RUN.delta, sample_rate=RUN.sample_rate, noise_multiplier=RUN.noise_multiplier
    )
    return 0.99 * steps, steps


PRIVACY = (
    Exercise(
        lambda: _near(math.log(9)),
        "odds are chances divided: 0.9 against 0.1.",
        "ε is the natural logarithm of the odds 0.9 / 0.1.",
        "ε = ln(0.9 / 0.1) = ln 9 = 2.197.",
    ),
    Exercise(
        lambda: _near(10.0),
        "Laplace noise of scale b on a count has pure ε = 1/b.",
        "solve 1/b = 0.1.",
        "One record moves a count by 1, so b = 1/0.1 = 10.",
    ),
    Exercise(
        _thirty_counts,
        "make a ledger of 30 such releases, as in the section on composition.",
        "`dp.PLD().epsilon(dp.Ledger(((dp.Laplace(10.0), 30),)), 1e-5)`; adding up gives 3.",
        "Thirty releases cost about 2.06, not 30 × 0.1 = 3: losses cancel in part.",
    ),
)
"""The exercises of the first lesson."""

ACCOUNTANTS = (
    Exercise(
        _tight_price,
        "set q = 0.01, σ = 4 and T = 10,000 in the panel.",
        "the paper's 1.26 is what the moments accountant says; read the line of PLD.",
        "PLD says 0.947 for the run that was published with 1.26: a quarter less, for nothing.",
    ),
    Exercise(
        _least_noise,
        "more noise, less ε: move σ in the panel, or let dpkit solve for it.",
        "`dp.accountants.noise_for_epsilon` takes ε, delta, sample_rate and steps.",
        "σ = 2.03 buys ε = 1: about twice the noise for less than half of ε.",
    ),
    Exercise(
        _most_steps,
        "look where the curve of PLD crosses 3, or let dpkit solve for it.",
        "`dp.accountants.steps_for_epsilon` takes ε, delta, sample_rate and noise_multiplier.",
        "The moments of 2016 stop after 13,980 steps; exact accounting of the same noise goes on "
        "to 21,364.",
    ),
)
"""The exercises of the accountants' lesson."""


def _noise_of_one() -> Interval:
    """Noise multipliers that buy epsilon = 1 for a hundred small steps, and waste at most 2%."""
    sigma = noise_for_epsilon(1.0, delta=1e-4, sample_rate=64 / 400, steps=100)
    return sigma * 0.999, sigma * 1.02


ANATOMY = (
    Exercise(
        lambda: _near(1.5 * 2.0 / 50),
        "the noise on the sum has standard deviation σC.",
        "the step is the noisy sum divided by L: σC / L.",
        "σC / L = 1.5 × 2 / 50 = 0.06.",
    ),
    Exercise(
        lambda: _near(0.6),
        "how long is (3, 4)? Clipping keeps the direction.",
        "the length is 5, so the gradient is multiplied by 1/5.",
        "(3, 4) has length 5; clipped to 1 it is (0.6, 0.8).",
    ),
    Exercise(
        _noise_of_one,
        "the section on signal to noise does this for ε = 2 with `calibrated`.",
        "`dp.accountants.noise_for_epsilon(1.0, delta=1e-4, sample_rate=64/400, steps=100)`.",
        "Half of ε costs nearly twice the noise.",
    ),
)
"""The exercises of the anatomy lesson."""
