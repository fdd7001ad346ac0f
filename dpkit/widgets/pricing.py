"""One run priced by every accountant: the numbers behind the panels of the accountants' lesson."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dpkit.accountants import GDP, PLD, RDP, ZCDP, Accountant, Advanced, Basic, Moments
from dpkit.figures.privacy import Answer, Priced
from dpkit.mechanisms import Gaussian, Ledger, Mechanism, Neighbours, PoissonSampling, Refused
from dpkit.words import marked

ACCOUNTANTS: tuple[tuple[Accountant, str, int, int], ...] = marked(
    (
        (PLD(), "PLD", 49, 8),
        (RDP(), "RDP", 49, 49),
        (Moments(), "moments (2016)", 49, 49),
        (ZCDP(), "zCDP / tCDP", 49, 49),
        (GDP(), "GDP: an estimate", 49, 49),
        (Basic(), "basic", 4, 1),
        (Advanced(), "advanced", 4, 1),
    )
)
"""Every accountant: its name in the lesson, the points of its curve, and how many go at a time."""
_ORDER = (1, 2, 3, 4, 0, 5, 6)
"""Whose points come first: curves that cost next to nothing, then the one that matters."""


@dataclass(frozen=True)
class Setting:
    """A run of DP-SGD as its accountants see it: Gaussian noise on Poisson batches."""

    sample_rate: float
    noise_multiplier: float
    steps: int
    delta: float
    relation: Neighbours = Neighbours.ADD_REMOVE

    @property
    def charged(self) -> Mechanism:
        """One step after sampling."""
        sampling = PoissonSampling(self.sample_rate)
        return Gaussian(self.noise_multiplier).pair(self.relation, sampling)

    @property
    def ledger(self) -> Ledger:
        """All steps."""
        return Ledger(((self.charged, self.steps),), self.relation)

    def priced(self, place: int) -> Iterator[Priced]:
        """One accountant's curve growing back from its end; `Refused` if it cannot account it."""
        accountant, name, points, size = ACCOUNTANTS[place]
        every = np.unique(np.geomspace(1, self.steps, min(points, self.steps)).round().astype(int))
        epsilon = np.array([])
        while len(epsilon) < len(every):
            left = len(every) - len(epsilon)
            some = every[max(left - (size if len(epsilon) else 1), 0) : left]
            epsilon = np.append(accountant.curve([self.charged], some, self.delta), epsilon)
            yield Priced(name, place, every[-len(epsilon) :], epsilon)


RUN = Setting(256 / 60_000, 1.1, 14_040, 1e-5)
"""The run of the lesson: 60 epochs of MNIST in batches of 256 expected records."""


class Prices:
    """Every accountant's curve for one setting, as far as it has been computed.

    *Guarantee*: each line's end, the epsilon of the whole run, is there from the start.
    """

    def __init__(self, setting: Setting) -> None:
        """Compute the ends."""
        self.setting = setting
        self.refused: dict[str, str] = {}
        self._lines: dict[int, Priced] = {}
        self._growing = {place: setting.priced(place) for place in range(len(ACCOUNTANTS))}
        for place in _ORDER:
            self._grow(place)

    @property
    def lines(self) -> list[Priced]:
        """What is known of each curve, in the order of ACCOUNTANTS."""
        return [line for _, line in sorted(self._lines.items())]

    @property
    def ends(self) -> dict[str, float]:
        """Each accountant's epsilon of the whole run, by its name."""
        return {line.name: float(np.asarray(line.epsilon)[-1]) for line in self.lines}

    def grow(self, seconds: float) -> bool:
        """Add points until all are there or time is up; tells whether more is left."""
        until = time.perf_counter() + seconds
        for place in _ORDER:
            while place in self._growing and time.perf_counter() < until:
                self._grow(place)
        return bool(self._growing)

    def _grow(self, place: int) -> None:
        try:
            self._lines[place] = next(self._growing[place])
        except StopIteration:
            del self._growing[place]
        except Refused as refusal:
            self.refused[ACCOUNTANTS[place][1]] = str(refusal)
            del self._growing[place]


def published_answers(setting: Setting = RUN) -> tuple[Answer, ...]:
    """Five epsilons that have been published for one run, each computed anew."""
    ledger, delta = setting.ledger, setting.delta
    replaced = replace(setting, relation=Neighbours.REPLACE_ONE).ledger
    return (
        Answer(marked("moments, old conversion"), Moments().epsilon(ledger, delta),
               marked("upper bound"),
               marked("few orders, and a conversion that gives away more than it must")),
        Answer(marked("RDP, tight conversion"), RDP().epsilon(ledger, delta), marked("upper bound"),
               marked(
                   "the same moments with a sharper last step; moments forget the shape of the "
                   "loss"
               )),
        Answer(marked("PLD"), PLD().epsilon(ledger, delta), marked("exact"),
               marked("keeps the whole distribution of the loss, so nothing is given away")),
        Answer(marked("GDP, limit theorem"), GDP().epsilon(ledger, delta), marked("estimate"),
               marked("takes the run for a Gaussian, which it is only in the limit: too low")),
        Answer(marked("PLD, replace one"), PLD().epsilon(replaced, delta),
               marked("another promise"),
               marked("exact as well, but neighbours replace a record: its pull may turn around")),
    )  # fmt: skip
