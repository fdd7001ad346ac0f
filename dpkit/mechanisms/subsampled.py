"""What sampling does to a release: the record is there with chance q, and nobody sees when."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np

from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import quadrature
from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.gaussian import gaussian_profile


def _rate() -> Any:
    return knob(
        MISSING, "q", "chance that a step sees a record", 0.0, 1.0, open_low=True,
        slider=(1e-4, 1.0), log=True,
    )  # fmt: skip


def _noise() -> Any:
    return knob(
        MISSING, "sigma", "noise standard deviation over clip norm", 0.0, math.inf, open_high=True,
        slider=(0.3, 10.0), log=True,
    )  # fmt: skip


def thin(rate: float, profile: Any, epsilon: Any) -> np.ndarray:
    """The profile of (1-q) Q + q P against Q, from the profile of P against Q.

    *Source*: Balle, Barthe, Gaboardi 2018, theorem 2, in the form that holds for every real eps.
    """
    epsilon = np.asarray(epsilon, dtype=float)
    inside = -np.expm1(-epsilon) + rate * np.exp(-epsilon)  # e^-eps (e^eps - 1 + q)
    seen = inside > 0
    moved = np.expm1(np.clip(epsilon, -1.0, 1.0)) / rate
    near = np.log1p(np.maximum(moved, -0.75))
    wide = epsilon + np.log(np.where(seen, inside, 1.0)) - math.log(rate)
    shifted = np.where(np.abs(epsilon) < min(1.0, rate / 2), near, wide)
    value = rate * profile(np.where(seen, shifted, 0.0))
    return np.where(seen, value, -np.expm1(np.minimum(epsilon, 0.0)))


def thin_reverse(rate: float, reverse_profile: Any, epsilon: Any) -> np.ndarray:
    """The profile of Q against (1-q) Q + q P, from the profile of Q against P."""
    epsilon = np.asarray(epsilon, dtype=float)
    bounded = np.minimum(epsilon, 700.0)
    inside = -np.expm1(bounded) + rate * np.exp(bounded)  # 1 - (1-q) e^eps
    seen = inside > 0
    shifted = epsilon + math.log(rate) - np.log(np.where(seen, inside, 1.0))
    return np.where(seen, inside * reverse_profile(np.where(seen, shifted, 0.0)), 0.0)


@dataclass(frozen=True)
class Subsampled(Mechanism):
    """Any pair under Poisson sampling, for neighbours that add, remove or zero out a record."""

    mechanism: Mechanism
    sample_rate: float = _rate()

    def __post_init__(self) -> None:
        """Check the rate."""
        check_knobs(self)

    @property
    def symmetric(self) -> bool:
        """Only without sampling, and then if the mechanism is."""
        return self.sample_rate == 1.0 and self.mechanism.symmetric

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """A loss l becomes log(1 - q + q e^l), at the chance q P + (1-q) Q."""
        q = self.sample_rate
        return tuple(
            (math.log1p(q * math.expm1(loss)), chance * (q + (1 - q) * math.exp(-loss)))
            for loss, chance in self.mechanism.atoms
        )

    def profile(self, epsilon: Any) -> np.ndarray:
        """The two-line rule."""
        return thin(self.sample_rate, self.mechanism.profile, epsilon)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """The two-line rule for the other direction."""
        return thin_reverse(self.sample_rate, self.mechanism.reverse_profile, epsilon)


@dataclass(frozen=True)
class SubsampledGaussian(Mechanism):
    """(1-q) N(0, s^2) + q N(1, s^2) against N(0, s^2): a step of DP-SGD on a Poisson batch."""

    sample_rate: float = _rate()
    noise_multiplier: float = _noise()

    def __post_init__(self) -> None:
        """Check rate and multiplier."""
        check_knobs(self)

    @property
    def symmetric(self) -> bool:
        """Only without sampling."""
        return self.sample_rate == 1.0

    @property
    def anchors(self) -> tuple[float, ...]:
        """Little noise says clearly "not seen": the loss piles up just above log(1 - q)."""
        piles = self.sample_rate < 1 and self.noise_multiplier < 1.5
        return (math.log1p(-self.sample_rate),) if piles else ()

    @property
    def leads(self) -> bool:
        """Mironov, Talwar, Zhang 2019, theorem 5: the remove direction has the larger moments."""
        return True

    @property
    def smooth(self) -> bool:
        """The moments are analytic in a strip about the real axis."""
        return self.noise_multiplier > 0

    def profile(self, epsilon: Any) -> np.ndarray:
        """The two-line rule on the Gaussian profile."""
        mu = _mu(self.noise_multiplier)
        return thin(self.sample_rate, lambda eps: gaussian_profile(mu, eps), epsilon)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """The two-line rule for the other direction."""
        mu = _mu(self.noise_multiplier)
        return thin_reverse(self.sample_rate, lambda eps: gaussian_profile(mu, eps), epsilon)

    def log_moment(self, z: Any) -> np.ndarray:
        """By the trapezoid rule, which converges exponentially (see `quadrature`)."""
        return quadrature.poisson(self.sample_rate, self.noise_multiplier, np.asarray(z))


@dataclass(frozen=True)
class ReplacedGaussian(Mechanism):
    """(1-q) N(0, s^2) + q N(1, s^2) against (1-q) N(0, s^2) + q N(-1, s^2).

    The pair for neighbours that replace one record by another under Poisson sampling.
    """

    sample_rate: float = _rate()
    noise_multiplier: float = _noise()

    def __post_init__(self) -> None:
        """Check rate and multiplier."""
        check_knobs(self)

    @property
    def symmetric(self) -> bool:
        """The mirror image swaps the two sides."""
        return True

    @property
    def smooth(self) -> bool:
        """The moments are analytic in a strip about the real axis."""
        return self.noise_multiplier > 0

    def profile(self, epsilon: Any) -> np.ndarray:
        """The loss rises along the line, so the best set is a half line {x > x0}."""
        return quadrature.replaced_profile(self.sample_rate, self.noise_multiplier, epsilon)

    def log_moment(self, z: Any) -> np.ndarray:
        """By the trapezoid rule (see `quadrature`)."""
        return quadrature.replaced(self.sample_rate, self.noise_multiplier, np.asarray(z))


@dataclass(frozen=True)
class FixedSizeGaussian(Mechanism):
    """Replace-one neighbours under fixed-size sampling: the displaced record counts too.

    Guarantee: an upper bound; the true cost may be lower, but not below that of `below`: all
    other records at -C, the one at +C against -C or, where it is zeroed out, others at 0.
    *Source*: Zhu, Dong, Wang 2022, theorem 11 (subset sampling), on N(0) against N(2).
    """

    sample_rate: float = _rate()
    noise_multiplier: float = _noise()
    zeroed: bool = False
    """Whether the other record is a null; its cost is then bounded by that of any record."""

    def __post_init__(self) -> None:
        """Check rate and multiplier."""
        check_knobs(self)

    @property
    def below(self) -> Mechanism:
        """Poisson sampling for one record gone, at half the noise where it is replaced."""
        sigma = self.noise_multiplier * (1 if self.zeroed else 0.5)
        return SubsampledGaussian(self.sample_rate, sigma)

    @property
    def band(self) -> str:
        """Where the two sides come from."""
        return "fixed size is a band: upper side Zhu, Dong, Wang 2022, lower side a worst case"

    @property
    def symmetric(self) -> bool:
        """Built so from the worse direction on each side."""
        return True

    def profile(self, epsilon: Any) -> np.ndarray:
        """The remove direction for eps >= 0, the add direction of its reverse below."""
        epsilon = np.asarray(epsilon, dtype=float)
        mu = 2 * _mu(self.noise_multiplier)
        size = np.abs(epsilon)
        value = thin(self.sample_rate, lambda eps: gaussian_profile(mu, eps), size)
        small = np.exp(-size)
        return np.where(epsilon < 0, 1 - small + small * value, value)


def _mu(noise_multiplier: float) -> float:
    return math.inf if noise_multiplier == 0 else 1.0 / noise_multiplier
