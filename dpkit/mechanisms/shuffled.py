"""An epoch of shuffled batches: what is certain from above, and what an attack shows from below."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpkit.knobs import check_knobs
from dpkit.later import special
from dpkit.mechanisms.allocated import AllocatedBelow, _batches
from dpkit.mechanisms.atoms import Atoms
from dpkit.mechanisms.base import Mechanism
from dpkit.mechanisms.gaussian import Gaussian
from dpkit.mechanisms.others import EpsilonDelta
from dpkit.mechanisms.subsampled import _noise

_SLICES = 4096  # of the largest coordinate
_LEAST = 0.04  # sigmas below it overflow the slices: nothing is claimed from below
_REACH = 9.0  # standard deviations beyond which a slice goes on for ever


@dataclass(frozen=True)
class ShuffledGaussian(Mechanism):
    """An epoch of t shuffled batches, one of which holds the record: never the Poisson cost.

    *Guarantee*
    - upper side: N(1, s^2) against N(0, s^2), as if all knew the record's batch (parallel
      composition; joint convexity); sensitivity 2, that is s/2, where a record is replaced;
    - `below`: what the largest coordinate tells (Chua et al. 2024) or, where a record is replaced,
      balls in bins at s/2. The truth lies between and is not known;
    - where the noise varies, s is the least of the epoch and `loudest` the largest, which `below`
      takes for all steps (noise can be added later); infinite where a step releases nothing.

    *Source*: Yu et al. 2019, section 4; Chua et al. 2024.
    """

    batches: int = _batches()
    noise_multiplier: float = _noise()
    replaced: bool = False
    loudest: float | None = None

    def __post_init__(self) -> None:
        """Check the knobs, and that the loudest step has no less noise than the least noisy."""
        check_knobs(self)
        if self.loudest is not None and not self.loudest >= self.noise_multiplier:
            raise ValueError(
                f"loudest (largest sigma of the epoch) must lie in [{self.noise_multiplier:g}, "
                f"infinity], got {self.loudest!r}; leave it out where the noise is the same."
            )

    @property
    def gaussian(self) -> Gaussian:
        """The upper side."""
        return Gaussian(self.noise_multiplier / (2 if self.replaced else 1))

    @property
    def below(self) -> Mechanism:
        """The lower side, as if all steps had the noise of the loudest."""
        sigma = self.noise_multiplier if self.loudest is None else self.loudest
        if math.isinf(sigma) or 0 < sigma < _LEAST:
            return EpsilonDelta(0.0, 0.0)
        if self.replaced:
            return AllocatedBelow(self.batches, sigma / 2)
        return ShuffledBelow(self.batches, sigma)

    @property
    def band(self) -> str:
        """Where the two sides come from."""
        low = "balls in bins at twice the sensitivity" if self.replaced else "Chua et al. 2024"
        if self.loudest is not None:
            low = "none" if math.isinf(self.loudest) else f"{low}, at the epoch's largest noise"
        return f"shuffling is a band: upper side as if the order were known, lower side {low}"

    @property
    def symmetric(self) -> bool:
        """As two Gaussians of one width."""
        return True

    @property
    def smooth(self) -> bool:
        """As a Gaussian."""
        return True

    def profile(self, epsilon: Any) -> np.ndarray:
        """The Gaussian's, of which the true one is at most as large."""
        return self.gaussian.profile(epsilon)

    def log_moment(self, z: Any) -> np.ndarray:
        """The Gaussian's."""
        return self.gaussian.log_moment(z)


@dataclass(frozen=True)
class ShuffledBelow(Mechanism):
    """What the largest of t coordinates tells: mean of N(2 e_i, s^2) against mean of N(e_i, s^2).

    All other records pull by -1, the record by +1 against its null: a case of shuffling, seen
    through slices of one number, so its cost is a lower bound however often it is composed.
    *Source*: Chua et al. 2024, section 4.
    """

    batches: int = _batches()
    noise_multiplier: float = _noise()

    def __post_init__(self) -> None:
        """Check both knobs."""
        check_knobs(self)

    def profile(self, epsilon: Any) -> np.ndarray:
        """Of the slices."""
        if self.noise_multiplier**2 == 0:
            return np.ones(np.shape(epsilon))
        return _slices(self.batches, self.noise_multiplier).profile(epsilon)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """Of the slices."""
        if self.noise_multiplier**2 == 0:
            return np.ones(np.shape(epsilon))
        return _slices(self.batches, self.noise_multiplier).reverse_profile(epsilon)


@functools.lru_cache(maxsize=256)
def _slices(batches: int, s: float) -> Atoms:
    """Probabilities of the slices of the maximum under P and under Q."""
    low = min(0.0, -_REACH * s) if batches < 1000 else -2 * s
    cuts = np.linspace(low, 2 + _REACH * s, _SLICES - 1)
    shared = (batches - 1) * special.log_ndtr(cuts / s)
    both = []
    for mean in (2.0, 1.0):
        log_below = shared + special.log_ndtr((cuts - mean) / s)
        below = np.concatenate([[0.0], np.exp(log_below), [1.0]])
        above = np.concatenate([[1.0], -np.expm1(log_below), [0.0]])
        both.append(np.where(below[1:] < 0.5, np.diff(below), -np.diff(above)))
    return Atoms.of(*both)
