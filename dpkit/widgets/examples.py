"""The small worlds that the first lesson looks at: a survey, a noisy count, repeated releases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dpkit.accountants import PLD, Accountant, Advanced, Basic
from dpkit.figures import privacy
from dpkit.mechanisms import Gaussian, Laplace, Mechanism, RandomisedResponse
from dpkit.words import marked

Values = NDArray[np.float64]

COUNT = 42.0
"""What the count would be without you."""
GAMES = 10_000
"""Games of each kind that are really played."""


@dataclass(frozen=True)
class Noise:
    """A kind of noise: the mechanism that is charged, its standard shape, and its draws."""

    mechanism: type[Laplace] | type[Gaussian]
    density: Callable[[Values], Values]
    below: Callable[[Values], Values]
    draw: Callable[[np.random.Generator, int], Values]


NOISES = {
    "Laplace": Noise(
        Laplace,
        lambda z: 0.5 * np.exp(-np.abs(z)),
        lambda z: np.where(z < 0, 0.5 * np.exp(np.minimum(z, 0)), 1 - 0.5 * np.exp(-np.abs(z))),
        lambda rng, n: rng.laplace(size=n),
    ),
    "Gaussian": Noise(
        Gaussian,
        lambda z: np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi),
        ndtr,
        lambda rng, n: rng.standard_normal(n),
    ),
}


@dataclass(frozen=True)
class Survey:
    """One survey by randomised response: who truly says yes, and what everyone answered."""

    mechanism: RandomisedResponse
    truth: NDArray[np.bool_]
    said: NDArray[np.bool_]

    @classmethod
    def ask(cls, keep: float, people: int, share: float, seed: int) -> Survey:
        """Ask everyone once; the same seed tosses the same coins whatever `keep` is."""
        mechanism = RandomisedResponse(math.log(keep / (1 - keep)))
        truth = np.arange(people) < round(share * people)
        rng = np.random.default_rng(seed)
        truth = rng.permutation(truth)
        return cls(mechanism, truth, np.where(rng.random(people) < mechanism.keep, truth, ~truth))

    def estimate(self, yes: Any) -> Any:
        """The share of true yes that a number of yes answers points to; NaN from fair coins."""
        keep = self.mechanism.keep
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (np.asarray(yes) / len(self.truth) - (1 - keep)) / (2 * keep - 1)
        return np.where(keep > 0.5, found, np.nan)

    def again(self, surveys: int, seed: int) -> Values:
        """Estimates of more surveys of the same people, with fresh coins."""
        rng, keep, yes = np.random.default_rng(seed), self.mechanism.keep, int(self.truth.sum())
        true = rng.binomial(yes, keep, surveys)
        return self.estimate(true + rng.binomial(len(self.truth) - yes, 1 - keep, surveys))


@dataclass(frozen=True)
class Count:
    """A count published with noise: the two worlds, with your record and without it."""

    noise: Noise
    scale: float

    @property
    def mechanism(self) -> Mechanism:
        """What is charged; one record moves a count by 1."""
        return self.noise.mechanism(self.scale)

    def density(self, x: Values, with_record: bool) -> Values:
        """Of the published number."""
        return self.noise.density((x - COUNT - with_record) / self.scale) / self.scale

    def errors(self, threshold: Any) -> tuple[Values, Values]:
        """False alarms and misses of "you are in, if more than `threshold` is published"."""
        t = np.asarray(threshold, float) - COUNT
        return self.noise.below(-t / self.scale), self.noise.below((t - 1) / self.scale)

    def games(self, threshold: float, seed: int) -> tuple[float, float]:
        """Shares of false alarms and misses among games that were really played."""
        rng = np.random.default_rng(seed)
        out, into = (self.scale * self.noise.draw(rng, GAMES) + COUNT for _ in range(2))
        return float((out > threshold).mean()), float((into + 1 <= threshold).mean())


@dataclass(frozen=True)
class Composed:
    """The same release, again and again, and what three ways of adding up say of it."""

    mechanism: Mechanism
    releases: int
    delta: float

    WAYS: ClassVar = (
        (Basic(), marked("basic"), 5),
        (Advanced(), marked("advanced"), 6),
        (PLD(), marked("exact"), 0),
    )

    def line(self, accountant: Accountant, name: str, look: int) -> privacy.Priced:
        """Epsilon against the number of releases; few points where each costs a composition."""
        points = 60 if self.mechanism.smooth or look else 13
        steps = np.unique(np.linspace(1, self.releases, min(points, self.releases)).astype(int))
        epsilon = accountant.curve([self.mechanism], steps, self.delta)
        return privacy.Priced(name, look, np.append(0, steps), np.append(0.0, epsilon))

    def lines(self) -> list[privacy.Priced]:
        """All three."""
        return [self.line(*way) for way in self.WAYS]
