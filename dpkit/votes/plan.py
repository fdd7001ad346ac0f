"""A plan of votes: how many noisy votes on images a budget affords, priced before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants import PLD, Accountant, solve_scale
from dpkit.accountants.base import told
from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import Access, Gaussian, Ledger, Mechanism, Neighbours, Refused, Release
from dpkit.plan import round_up

RELATION = Neighbours.REPLACE_ONE
"""A record that comes, goes or changes alters what its teacher sends: two votes, one for another.

So the charge is that of a replacement, whichever of the three relations is asked about.
"""
_UNBOUNDED, MOST_SHOWN = 2**40, 1_000_000


@dataclass(frozen=True)
class VotePlan:
    """Teachers on disjoint shards vote, coordinate by coordinate, on how images should move.

    *Guarantee*
    - a teacher's vote on an image has at most k entries of size 1, so a record moves the sum by
      at most 2 sqrt(k): that, and no property of the data, is charged for each image;
    - a generator step releases B images and costs B of them; `steps` is the largest number whose
      price is within `budget`, so the step that would exceed it is never begun;
    - a record that may sit in r teachers moves r votes, and is charged so.

    *Source*: Wang et al. 2021, "DataLens", with the bound for a vector in place of GNMax's.
    """

    teachers: int = knob(
        MISSING, "N", "teachers, each on a shard of its own", 1, 1_000_000, integer=True, log=True,
        slider=(10, 4000),
    )  # fmt: skip
    top_k: int = knob(
        MISSING, "k", "coordinates that a teacher votes on", 1, 1_000_000, integer=True, log=True,
        slider=(1, 784),
    )  # fmt: skip
    noise: float = knob(
        MISSING, "σ", "noise standard deviation on a sum of votes, in votes", 0, 1e9, open_low=True,
        log=True, slider=(1.0, 10_000.0),
    )  # fmt: skip
    images: int = knob(
        15, "B", "images voted on in a generator step", 1, 100_000, integer=True, log=True,
        slider=(1, 100),
    )  # fmt: skip
    threshold: float = knob(
        0.7, "β", "share of the teachers that a noisy sum must reach to count", 0, 1
    )
    budget: float = knob(
        1.0, "ε", "epsilon that is never exceeded", 0, 1e4, open_low=True, log=True,
        slider=(0.1, 20.0),
    )  # fmt: skip
    delta: float = knob(
        1e-5, "δ", "added probability that e^epsilon does not cover", 0, 1,
        open_low=True, open_high=True, log=True, slider=(1e-8, 1e-2),
    )  # fmt: skip
    copies: int = knob(
        1, "r", "teachers that may hold one record", 1, 1000, integer=True, slider=(1, 4)
    )
    stochastic: float | None = knob(
        None, "b", "gradient at which a random sign is certain, or no chance in it", 0, 1e9,
        open_low=True, optional=True, log=True, slider=(1e-4, 10.0),
    )  # fmt: skip
    most_steps: int | None = knob(
        None, "T", "generator steps at most", 1, 1_000_000, integer=True, optional=True,
        slider=(1, 1000),
    )  # fmt: skip
    accountant: Accountant = field(default_factory=PLD)

    def __post_init__(self) -> None:
        """Check every knob, and that the budget affords one step."""
        check_knobs(self)
        if not isinstance(self.accountant, Accountant):
            raise TypeError(f"accountant must be such as PLD(), got {self.accountant!r}.")
        if not self.accountant.is_bound:
            raise Refused(
                f"{self.accountant.name} gives an estimate, not a bound, and never sets a budget; "
                f"choose PLD() or RDP()."
            )
        if self.copies > self.teachers:
            raise ValueError(
                f"copies (r, teachers that may hold one record) must be a whole number in "
                f"[1, {self.teachers}], the teachers that there are, got {self.copies}."
            )
        if self.affordable < self.images:
            raise Refused(
                f"A generator step on {self.images:,} images would exceed epsilon {self.budget:g} "
                f"at delta {self.delta:g}; allow more, add noise, vote on fewer coordinates or "
                f"take fewer images."
            )

    @property
    def bound(self) -> float:
        """sqrt(k), the norm that a teacher's vote on an image never exceeds."""
        return math.sqrt(self.top_k)

    @property
    def release(self) -> Release:
        """What a step releases: B sums with noise, which is told relative to one vote's norm."""
        mechanism = Gaussian(self.noise / self.bound)
        return Release(mechanism, count=self.images, access=Access.ALL)

    @property
    def charged(self) -> Mechanism:
        """What one image costs: a record changes `copies` votes, each for another."""
        return Gaussian(self.noise / self.bound / self.copies).pair(RELATION)

    @cached_property
    def affordable(self) -> int:
        """How many images can be voted on within the budget, steps left aside."""
        return _last(lambda images: self._price(images) <= self.budget)

    @property
    def steps(self) -> int:
        """Generator steps: those that the budget affords, or `most_steps` if that is fewer."""
        steps = self.affordable // self.images
        return steps if self.most_steps is None else min(steps, self.most_steps)

    def entries(self, steps: int = 1) -> list[tuple[Mechanism, int]]:
        """What so many generator steps are charged."""
        return [(self.charged, steps * self.release.count)]

    def ledger(self, steps: int | None = None) -> Ledger:
        """All charges of the first `steps` generator steps (all of them by default)."""
        steps = self.steps if steps is None else min(steps, self.steps)
        return Ledger.of(self.entries(steps), RELATION)

    def epsilon(self, steps: int | None = None) -> float:
        """The price of so many generator steps; never above the budget."""
        return self.accountant.epsilon(self.ledger(steps), self.delta)

    def curve(self) -> NDArray[np.float64]:
        """Epsilon after each generator step, `(steps,)`."""
        if self.steps > MOST_SHOWN:
            raise ValueError(
                f"most_steps (a bound on the generator's steps) must be at most {MOST_SHOWN:,} for "
                f"a curve, but this plan affords {self.steps:,}: set it, or use less noise."
            )
        counts = self.images * np.arange(1, self.steps + 1)[:, None]
        return self.accountant.curve((self.charged,), counts, self.delta)

    def calibrated(self, steps: int) -> Self:
        """The same plan with the least noise (within 0.5% of epsilon) that affords `steps` steps.

        What it used to afford does not matter; `most_steps` becomes `steps`.
        """
        images, r = steps * self.images, self.copies

        def price(scale: float) -> float:
            pair = Gaussian(scale / r).pair(RELATION)
            return self.accountant.epsilon(Ledger.of([(pair, images)], RELATION), self.delta)

        scale = solve_scale(price, self.budget, start=math.sqrt(images), high=1e8)
        return replace(self, noise=scale * self.bound, most_steps=steps)

    def guarantee(self, *, seeded: bool = False) -> str:
        """The promise in words."""
        seats = "one teacher" if self.copies == 1 else f"up to {self.copies} teachers"
        promise = (
            f"({round_up(self.epsilon())}, {told(self.delta)})-differential privacy for one "
            f"record, added, removed or replaced under its own id, which sits in {seats}: "
            f"{self.steps:,} generator steps of {self.images:,} images, noise of {self.noise:g} "
            f"votes on every coordinate of every sum, whatever the votes were; accounted by "
            f"{self.accountant.name}"
        )
        if seeded:
            return f"Teaching run: whoever knows the seed can remove the noise. Else {promise}."
        return f"{promise}."

    def _price(self, images: int) -> float:
        ledger = Ledger.of([(self.charged, images)], RELATION)
        return self.accountant.epsilon(ledger, self.delta)


def _last(fits: Callable[[int], bool]) -> int:
    """The largest whole number that fits, where smaller ones do; 0 if 1 does not."""
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
        if high > _UNBOUNDED:
            return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
