"""Gaussian noise: the mechanism behind DP-SGD, with everything known in closed form."""

from __future__ import annotations

import functools
import math
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np

from dpkit.knobs import check_knobs, knob
from dpkit.later import special
from dpkit.mechanisms.base import (
    FixedSizeSampling,
    Mechanism,
    Neighbours,
    PoissonSampling,
    Refused,
    Sampling,
    sampling_text,
)


@dataclass(frozen=True)
class Gaussian(Mechanism):
    """Noise of standard deviation `noise_multiplier` times the norm of one contribution.

    Guarantee: no noise (0) is allowed, draws nothing and costs an infinite epsilon.
    """

    noise_multiplier: float = knob(
        MISSING,
        "sigma",
        "noise standard deviation over clip norm",
        0.0,
        math.inf,
        open_high=True,
        slider=(0.3, 10.0),
        log=True,
    )

    def __post_init__(self) -> None:
        """Check the multiplier."""
        check_knobs(self)

    @property
    def symmetric(self) -> bool:
        """Two Gaussians of one width look alike from both sides."""
        return True

    @property
    def smooth(self) -> bool:
        """The moments are entire functions."""
        return True

    def profile(self, epsilon: Any) -> np.ndarray:
        """The exact profile (Balle and Wang 2018, theorem 8)."""
        mu = math.inf if self.noise_multiplier == 0 else 1.0 / self.noise_multiplier
        return gaussian_profile(mu, epsilon)

    def log_moment(self, z: Any) -> np.ndarray:
        """(z + z^2) / (2 sigma^2)."""
        z = np.asarray(z)
        if self.noise_multiplier**2 == 0:
            return np.where(z * (1 + z) == 0, 0.0, np.inf)
        return z * (1 + z) / (2 * self.noise_multiplier**2)

    def draw(self, total: Any, norm: float, generator: Any) -> Any:
        """In one pass by a `Noise`, else in double precision and cast after adding.

        Single precision alone has no far tail; `Noise` shows its own to be right.
        """
        if self.noise_multiplier == 0:
            return total
        if hasattr(generator, "add_"):
            return generator.add_(total, self.noise_multiplier * norm)
        noise = total.new_empty(total.shape).double()
        noise.normal_(0.0, self.noise_multiplier * norm, generator=generator)
        return noise.add_(total).type_as(total)

    def pair(self, relation: Neighbours, sampling: Sampling | None = None) -> Mechanism:
        """Sensitivity 1 to add or zero out, 2 to replace; sampling mixes the two sides."""
        sigma = self.noise_multiplier
        replace_one = relation is Neighbours.REPLACE_ONE
        if sampling is None or getattr(sampling, "sample_rate", None) == 1.0:
            return Gaussian(sigma / 2) if replace_one else self
        if isinstance(sampling, PoissonSampling):
            return _sampled()[replace_one](sampling.sample_rate, sigma)
        if isinstance(sampling, FixedSizeSampling) and relation is not Neighbours.ADD_REMOVE:
            # A null may displace a record too, so zeroing out costs no more than replacing.
            return _sampled()[2](sampling.sample_rate, sigma, not replace_one)
        raise Refused(
            f"Gaussian noise {sampling_text(sampling)} cannot be accounted for neighbours that "
            f"{relation.value}; use Poisson sampling, or neighbours that replace one record."
        )


@functools.cache
def _sampled() -> tuple[Any, ...]:
    """What this module's own importer defines."""
    from dpkit.mechanisms import subsampled

    return subsampled.SubsampledGaussian, subsampled.ReplacedGaussian, subsampled.FixedSizeGaussian


def gaussian_profile(mu: Any, epsilon: Any) -> np.ndarray:
    """delta(eps) = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) for N(mu, 1) and N(0, 1).

    Shapes: mu and epsilon broadcast. mu = inf means no noise (delta 1), mu = 0 nothing released.
    """
    mu, epsilon = np.broadcast_arrays(np.asarray(mu, float), np.asarray(epsilon, float))
    size = np.abs(epsilon)
    safe = np.where((mu > 0) & np.isfinite(mu), mu, 1.0)
    near = np.clip(size / safe - safe / 2, -1e300, 1e154)
    far = np.minimum(size / safe + safe / 2, 1e300)
    # The first form keeps relative accuracy in the tail, where the second cancels.
    scale = 0.5 * np.exp(-0.5 * np.maximum(near, 0.0) ** 2)
    right = scale * (
        special.erfcx(np.maximum(near, 0.0) / math.sqrt(2)) - special.erfcx(far / math.sqrt(2))
    )
    left = special.ndtr(-near) - scale_left(near) * special.erfcx(far / math.sqrt(2))
    value = np.maximum(np.where(near > 0, right, left), 0.0)
    value = np.where(np.isinf(mu), 1.0, np.where(mu > 0, value, 0.0))
    small = np.exp(-size)
    return np.where(epsilon < 0, 1 - small + small * value, value)


def scale_left(near: np.ndarray) -> np.ndarray:
    """Half the Gaussian density's shape at a point left of the centre."""
    return 0.5 * np.exp(-0.5 * np.maximum(np.minimum(near, 0.0), -1e154) ** 2)
