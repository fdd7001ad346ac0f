"""Compositions whose epsilon needs no numerics worth the name: nothing, no noise, one release."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from dpkit.later import special
from dpkit.mechanisms import (
    FixedSizeGaussian,
    Gaussian,
    Mechanism,
    ReplacedGaussian,
    ShuffledGaussian,
    SubsampledGaussian,
    UpperSide,
)
from dpkit.mechanisms.gaussian import gaussian_profile

_SAMPLED = (SubsampledGaussian, ReplacedGaussian, FixedSizeGaussian)


def epsilons(mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float) -> np.ndarray:
    """Epsilon of each row that is closed; NaN for the others (see `nothing` for one more look)."""
    out = np.full(len(counts), np.nan)
    out[counts.sum(axis=1) == 0] = 0.0
    bare = [getattr(mechanism, "noise_multiplier", 1.0) == 0 for mechanism in mechanisms]
    mu2, plain = gaussian_mu2(mechanisms, counts)
    rows = np.isnan(out) & plain
    if rows.any():
        out[rows] = gaussian_epsilon(np.sqrt(mu2[rows]), delta)
    for row in np.flatnonzero(np.isnan(out)):
        present = np.flatnonzero(counts[row])
        if any(bare[i] for i in present):
            out[row] = math.inf
        elif len(present) == 1 and counts[row, present[0]] == 1:
            out[row] = single_epsilon(mechanisms[present[0]], delta)
    return out


def nothing(mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float) -> np.ndarray:
    """Which rows certainly cost nothing at this delta: the sum of delta(0) does not exceed it."""
    return _variation(mechanisms, counts) <= delta


def _variation(mechanisms: Sequence[Mechanism], counts: np.ndarray) -> np.ndarray:
    """The sum of delta(0), which delta(0) of the composition never exceeds."""
    total = np.zeros(len(counts))
    for column, mechanism in enumerate(mechanisms):
        total = total + counts[:, column] * _at_zero(mechanism)
    return total


@functools.lru_cache(maxsize=65_536)
def _at_zero(mechanism: Mechanism) -> float:
    return float(mechanism.profile(np.zeros(1))[0])


def gaussian_mu2(
    mechanisms: Sequence[Mechanism], counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """mu^2 of each row, and whether the row holds unsampled Gaussians alone."""
    mu2, plain = np.zeros(len(counts)), np.ones(len(counts), dtype=bool)
    for column, mechanism in enumerate(mechanisms):
        used = counts[:, column] > 0
        sigma = gaussian_sigma(mechanism)
        if sigma is None:
            plain &= ~used
        elif sigma**2 == 0:
            mu2 = np.where(used, np.inf, mu2)
        else:
            mu2 = mu2 + counts[:, column] / sigma**2
    return mu2, plain


def gaussian_tradeoff(mu: float, fpr: np.ndarray) -> np.ndarray:
    """Phi(Phi^-1(1 - a) - mu) (Dong, Roth, Su 2019)."""
    if math.isinf(mu):
        return np.zeros_like(fpr)
    return special.ndtr(-special.ndtri(fpr) - mu)


def gaussian_sigma(mechanism: Mechanism) -> float | None:
    """The multiplier if the pair is N(1, s^2) against N(0, s^2), else None."""
    if isinstance(mechanism, Gaussian):
        return mechanism.noise_multiplier
    if isinstance(mechanism, UpperSide):
        return gaussian_sigma(mechanism.mechanism)
    if isinstance(mechanism, ShuffledGaussian):  # its upper side
        return mechanism.gaussian.noise_multiplier
    if isinstance(mechanism, _SAMPLED) and mechanism.sample_rate == 1.0:
        once = isinstance(mechanism, SubsampledGaussian)
        return mechanism.noise_multiplier / (1 if once else 2)
    return None


def gaussian_epsilon(mu: np.ndarray, delta: float) -> np.ndarray:
    """The exact epsilon of N(mu, 1) against N(0, 1)."""
    mu = np.asarray(mu, dtype=float)
    out = np.where(np.isinf(mu), np.inf, 0.0)
    rows = np.flatnonzero(np.isfinite(mu) & (gaussian_profile(mu, 0.0) > delta))
    if not len(rows):
        return out
    with np.errstate(over="ignore"):
        out[rows] = mu[rows] * (mu[rows] / 2 + _gaussian_root(mu[rows], math.log(delta)))
    return np.maximum(out, 0.0)


def _gaussian_root(mu: np.ndarray, log_delta: float) -> np.ndarray:
    """n = eps / mu - mu / 2 by Newton on log delta, which is concave: from the right it falls.

    With g(n) = e^(n^2/2) Phi(-n): delta = e^(-n^2/2) (g(n) - g(n + mu)), and the slope in n is
    -mu e^(-n^2/2) g(n + mu). Neither loses digits however large mu is.
    """
    n = np.full(len(mu), math.sqrt(-2 * log_delta))
    active = np.ones(len(mu), dtype=bool)
    for _ in range(60):
        away = 0.5 * special.erfcx((n + mu) / math.sqrt(2))
        size = np.exp(-0.5 * n * n)
        ahead = size * (0.5 * special.erfcx(np.maximum(n, 0.0) / math.sqrt(2)) - away)
        value = np.where(n > 0, ahead, special.ndtr(-n) - size * away)
        good = (value > 0) & (size > 0)
        value, slope = np.where(good, value, 1.0), np.where(good, mu * size * away, 1.0)
        move = np.where(good, (np.log(value) - log_delta) * value / slope, -0.5 * (n + mu / 2))
        moved = np.maximum(n + move, -mu / 2)
        active &= np.abs(moved - n) > 1e-15 * (n + mu)
        n = np.where(active, moved, n)
        if not active.any():
            break
    return n


_NEAR = np.array([1e-1, 1e-2, 1e-4, 1e-7])
_PLACES = np.concatenate([-_NEAR, _NEAR])
"""Where to look beside the secant's root, in widths of the bracket."""


def decreasing_root(profile: Callable[[np.ndarray], np.ndarray], delta: float) -> float:
    """Where a falling profile meets delta, from above; infinite if it never does.

    Each round looks at many points at once: an even grid, and the neighbourhood of the root of
    the secant through the logarithms.
    """
    eps = np.concatenate([[0.0], np.geomspace(1e-12, 1e12, 97)])
    high, log_delta = math.inf, math.log(delta)
    for _ in range(60):
        with np.errstate(divide="ignore"):
            gap = np.maximum(np.log(profile(eps)), -1e6) - log_delta
        last = int(np.append(-1, np.flatnonzero(gap > 0))[-1])
        if last in (-1, len(eps) - 1):
            return 0.0 if last < 0 else high
        low, high = float(eps[last]), float(eps[last + 1])
        if high - low <= 5e-15 * high:
            break
        share = float(gap[last] / (gap[last] - gap[last + 1]))
        near = np.clip(share + _PLACES, 0.0, 1.0)
        eps = low + (high - low) * np.sort(np.append(np.linspace(0.0, 1.0, 9), near))
    return high


def single_epsilon(mechanism: Mechanism, delta: float) -> float:
    """The exact epsilon of one release, from its profile in both directions."""
    sides = {mechanism, mechanism.reverse}
    return max(decreasing_root(side.profile, delta) for side in sides)
