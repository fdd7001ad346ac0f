"""Compositions whose epsilon needs no numerics worth the name: nothing, no noise, one release."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from dpkit.mechanisms import Gaussian, Mechanism
from dpkit.mechanisms.gaussian import gaussian_profile


def epsilons(mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float) -> np.ndarray:
    """Epsilon of each row that is closed; NaN for the others."""
    out = np.full(len(counts), np.nan)
    out[counts.sum(axis=1) == 0] = 0.0
    bare = [getattr(mechanism, "noise_multiplier", 1.0) == 0 for mechanism in mechanisms]
    mu2, plain = gaussian_mu2(mechanisms, counts)
    rows = np.isnan(out) & plain
    if rows.any():
        out[rows] = gaussian_epsilon(np.sqrt(mu2[rows]), delta)
    out[np.isnan(out) & (_variation(mechanisms, counts) <= delta)] = 0.0
    for row in np.flatnonzero(np.isnan(out)):
        present = np.flatnonzero(counts[row])
        if any(bare[i] for i in present):
            out[row] = math.inf
        elif len(present) == 1 and counts[row, present[0]] == 1:
            out[row] = single_epsilon(mechanisms[present[0]], delta)
    return out


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
    return ndtr(-ndtri(fpr) - mu)


def gaussian_sigma(mechanism: Mechanism) -> float | None:
    """The multiplier if the pair is N(1, s^2) against N(0, s^2), else None."""
    if isinstance(mechanism, Gaussian):
        return mechanism.noise_multiplier
    return None


def gaussian_epsilon(mu: np.ndarray, delta: float) -> np.ndarray:
    """The exact epsilon of N(mu, 1) against N(0, 1), by bisection and Newton in one sweep."""
    mu = np.asarray(mu, dtype=float)
    out = np.where(np.isinf(mu), np.inf, 0.0)
    rows = np.flatnonzero(np.isfinite(mu) & (gaussian_profile(mu, 0.0) > delta))
    if not len(rows):
        return out
    out[rows] = _gaussian_root(mu[rows], math.log(delta))
    return out


def _gaussian_root(mu: np.ndarray, log_delta: float) -> np.ndarray:
    """Newton on log delta, which is concave in eps: after one step it falls to the root."""
    eps = mu * (mu / 2 + math.sqrt(-2 * log_delta))
    active = np.ones(len(mu), dtype=bool)
    for _ in range(60):
        value = gaussian_profile(mu, eps)
        slope = np.exp(eps + log_ndtr(-mu / 2 - eps / mu))
        good = (value > 0) & (slope > 0)
        value, slope = np.where(good, value, 1.0), np.where(good, slope, 1.0)
        move = np.where(good, (np.log(value) - log_delta) * value / slope, -0.5 * eps)
        eps = np.where(active, np.maximum(eps + move, 0.0), eps)
        active &= np.abs(move) > 1e-15 * eps
        if not active.any():
            break
    return eps


def decreasing_root(
    profile: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, delta: float
) -> np.ndarray:
    """Where a falling profile meets delta, by regula falsi on its logarithm with bisection."""
    log_delta = math.log(delta)

    def gap(eps: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(profile(eps)), -1e6) - log_delta

    at_low, at_high = gap(low), gap(high)
    last = np.zeros(len(low))
    for turn in range(200):
        with np.errstate(invalid="ignore", divide="ignore"):
            middle = high - at_high * (high - low) / (at_high - at_low)
        halve = ~((middle > low) & (middle < high)) | (turn % 4 == 3)
        # A step past the secant's root closes the bracket from the other end.
        nudge = 2e-14 * high
        middle = np.where(middle - low < nudge, low + nudge, middle)
        middle = np.where(high - middle < nudge, high - nudge, middle)
        middle = np.where(halve, 0.5 * (low + high), middle)
        value = gap(middle)
        above = value > 0
        # Illinois: an end that stays twice counts half.
        at_high = np.where(above, np.where(last == 1, at_high / 2, at_high), value)
        at_low = np.where(above, value, np.where(last == -1, at_low / 2, at_low))
        low, high = np.where(above, middle, low), np.where(above, high, middle)
        last = np.where(above, 1, -1)
        if np.all((high - low) <= 5e-14 * high):
            break
    return high


def single_epsilon(mechanism: Mechanism, delta: float) -> float:
    """The exact epsilon of one release, from its profile in both directions."""
    worst = 0.0
    for side in (mechanism, mechanism.reverse):
        if float(side.profile(np.zeros(1))[0]) <= delta:
            continue
        high = 1.0
        while float(side.profile(np.array([high]))[0]) > delta:
            high *= 2.0
            if high > 1e12:
                return math.inf
        root = decreasing_root(side.profile, np.zeros(1), np.array([high]), delta)
        worst = max(worst, float(root[0]))
    return worst
