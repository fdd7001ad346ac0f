"""Balls in bins: each epoch, every record falls into one of t batches, and nobody sees which."""

from __future__ import annotations

import functools
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np

from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import allocation
from dpkit.mechanisms.atoms import Atoms, joined
from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.gaussian import gaussian_profile
from dpkit.mechanisms.subsampled import _noise

_SLACK = 2e-13  # of sums of thousands of probabilities


def _batches() -> Any:
    return knob(MISSING, "t", "batches in an epoch", 1, 1_000_000, integer=True, log=True,
                slider=(2, 1000))  # fmt: skip


@dataclass(frozen=True)
class AllocatedGaussian(Mechanism):
    """An epoch of balls in bins: the mean of N(e_i, s^2) over t batches against N(0, s^2).

    *Guarantee*
    - an upper bound in both directions, close to the truth; `below` is the lower side.

    *Source*: Chua et al. 2025 (balls and bins); the pair of Zhu, Dong, Wang 2022 for its sum.
    """

    batches: int = _batches()
    noise_multiplier: float = _noise()

    def __post_init__(self) -> None:
        """Check both knobs."""
        check_knobs(self)

    @property
    def below(self) -> Mechanism:
        """The same epoch from below."""
        return AllocatedBelow(self.batches, self.noise_multiplier)

    @property
    def band(self) -> str:
        """Where the lower side comes from."""
        return "lower side: the likelihood ratio gathered onto a grid"

    @property
    def smooth(self) -> bool:
        """Finitely many losses have moments everywhere."""
        return self.noise_multiplier > 0

    def profile(self, epsilon: Any) -> np.ndarray:
        """Of finitely many losses."""
        if self.noise_multiplier**2 == 0:
            return np.ones(np.shape(epsilon))
        return _atoms(self.batches, self.noise_multiplier).profile(epsilon)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """Of finitely many losses."""
        if self.noise_multiplier**2 == 0:
            return np.ones(np.shape(epsilon))
        return _atoms(self.batches, self.noise_multiplier).reverse_profile(epsilon)

    def log_moment(self, z: Any) -> np.ndarray:
        """Sums over the losses."""
        z = np.asarray(z)
        if self.noise_multiplier**2 == 0:
            return np.where(z * (1 + z) == 0, 0.0, np.inf)
        return _atoms(self.batches, self.noise_multiplier).log_moment(z)


@dataclass(frozen=True)
class AllocatedBelow(Mechanism):
    """The lower side of an epoch of balls in bins: a cost that the true one is never below."""

    batches: int = _batches()
    noise_multiplier: float = _noise()

    def __post_init__(self) -> None:
        """Check both knobs."""
        check_knobs(self)

    @property
    def _parts(self) -> tuple[allocation.Level, ...]:
        if self.noise_multiplier < allocation.LEAST:
            return ()
        return allocation.levels(self.batches, self.noise_multiplier, False)[0]

    @functools.cached_property
    def _rest(self) -> tuple[float, float]:
        """Q's and P's mass of what no level holds, which is gathered into its own mean.

        Without it the two sides would not belong to one pair, and nothing composed be a bound.
        """
        q = max(1.0 - sum(part.q for part in self._parts), 0.0)
        p = max(1.0 - sum(part.p for part in self._parts), 0.0)
        return (q + _SLACK, max(p - _SLACK, 0.0)) if max(q, p) > 5 * _SLACK else (0.0, 0.0)

    def profile(self, epsilon: Any) -> np.ndarray:
        """E[(R - e^eps)_+] from below."""
        if self.noise_multiplier**2 == 0:
            return np.ones(np.shape(epsilon))
        epsilon = np.asarray(epsilon, dtype=float)
        kappa = np.exp(np.clip(epsilon, -600.0, 600.0))
        left, at = self._rest
        value = sum(part.calls(kappa) for part in self._parts) - allocation.FLOOR
        value = value + np.maximum(at - kappa * left, 0.0)
        return np.maximum(np.maximum(value, -np.expm1(np.minimum(epsilon, 0.0))), 0.0)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """E[(1 - e^eps R)_+] from below."""
        if self.noise_multiplier**2 == 0:
            return np.ones(np.shape(epsilon))
        epsilon = np.asarray(epsilon, dtype=float)
        kappa = np.exp(np.clip(-epsilon, -600.0, 600.0))
        left, at = self._rest
        value = sum(part.puts(kappa) for part in self._parts) / kappa - allocation.FLOOR
        value = value + np.maximum(left - at / kappa, 0.0)
        return np.maximum(np.maximum(value, -np.expm1(np.minimum(epsilon, 0.0))), 0.0)


class _Above:
    """Both profiles of R's upper law, nowhere above those of batches that are known.

    With hardly any noise only these are left: the law itself would reach too far.
    """

    def __init__(self, batches: int, noise_multiplier: float) -> None:
        self.batches, self.sigma = batches, noise_multiplier
        self.parts: tuple[allocation.Level, ...] = ()
        self.cap = 0.0
        if noise_multiplier >= allocation.LEAST:
            self.parts, self.cap = allocation.levels(batches, noise_multiplier, True)
            self._cut = allocation.cut_off(batches, noise_multiplier, self.cap)

    def profile(self, epsilon: np.ndarray) -> np.ndarray:
        if self.sigma < allocation.LEAST:
            return gaussian_profile(1 / self.sigma, epsilon)
        kappa = np.exp(np.minimum(epsilon, 600.0))
        value = sum(part.calls(kappa) for part in self.parts)
        value = value + allocation.tail(self.batches, self.sigma, self.cap, kappa)
        # The allowance for rounding ends well beyond the grids, so that moments stay finite.
        rounding = 5 * allocation.FLOOR + self._cut
        value += rounding * np.maximum(1 - kappa / (2 * self.cap + 2), 0.0)
        return np.minimum(value, gaussian_profile(1 / self.sigma, epsilon))

    def reverse_profile(self, epsilon: np.ndarray) -> np.ndarray:
        if self.sigma < allocation.LEAST:
            return gaussian_profile(1 / self.sigma, epsilon)
        kappa = np.exp(np.maximum(-epsilon, -600.0))
        value = sum(part.puts(kappa) for part in self.parts) / kappa + allocation.FLOOR
        value = value + self._cut
        return np.minimum(value, gaussian_profile(1 / self.sigma, epsilon))


@functools.lru_cache(maxsize=256)
def _atoms(batches: int, noise_multiplier: float) -> Atoms:
    """The upper law of R, its curve joined by lines between a few thousand losses."""
    far = 0.5 / noise_multiplier**2 + 37.0 / noise_multiplier
    return joined(_Above(batches, noise_multiplier), far)
