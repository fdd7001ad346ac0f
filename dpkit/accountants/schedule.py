"""Long schedules: thousands of different noises, each a blend of two of a few.

For a fixed rate and epsilon the profile of a sampled Gaussian is convex in sigma^k where
(1 + k) sigma^2 >= 1/4, since that of N(1/sigma, 1) has the slope phi(epsilon sigma - 1/(2 sigma))
in 1/sigma. So the chord between two noises of a grid lies above it: to draw one of the two by a
public coin costs no less. The chord of the next cell, prolonged, lies below it; that is a pair
too, as the loss of less noise has at least (1 - small) of the density of more. Both miss the
truth by the square of the grid's step, and both have moments that are linear in those of the grid.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpkit.accountants import closed, contour
from dpkit.mechanisms import Gaussian, Mechanism, SubsampledGaussian
from dpkit.mechanisms.gaussian import gaussian_profile

CELLS = 32
"""Cells of the grid in an octave of the noise."""
_TERMS = 12  # of the series of log(1 + w r)
_SMALL = 0.1  # |r| up to which that many terms keep thirteen digits
_MOST = 100_000  # releases, beyond which rounding would tell
_MANY = 512  # cells: rates are not blended, so each has its own
_OTHERS = 64  # different mechanisms that are no sampled Gaussian
_LEAST, _LARGEST = 0.1, 1e4  # noises that are blended
_ROUNDING = 1e-8  # of the contour, which a bracket allows for
_UNIT = Gaussian(1.0)  # unsampled Gaussians are mu^2 of it

Cells = tuple[tuple[Mechanism, Mechanism], ...]


@dataclass(frozen=True)
class Blends:
    """Releases of one direction as features: their log moments are counts times features.

    A cell's features are log M_a and (-1)^(j+1) r^j / j with r = M_b / M_a - 1, for its two noises
    a and b; a release is counted 1 and w^j.
    """

    cells: Cells
    others: tuple[Mechanism, ...]
    weight: np.ndarray
    """(K, features)."""

    def reverse(self) -> Blends:
        """The other direction."""
        cells = tuple((a.reverse, b.reverse) for a, b in self.cells)
        return Blends(cells, tuple(other.reverse for other in self.others), self.weight)

    def total(self, weight: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Sums of log moments: (K, features), (N,) -> (K, N); NaN where they are not known.

        On the real axis, where a series is too short, log(1 + x) <= x makes a bound of them.
        """
        key = z.tobytes()
        first = [_moments(a, key, z.dtype.kind) for a, _ in self.cells]
        second = [_moments(b, key, z.dtype.kind) for _, b in self.cells]
        rest = [_moments(other, key, z.dtype.kind) for other in self.others]
        features = np.empty((weight.shape[1], len(z)), dtype=z.dtype)
        if self.cells:
            _series(np.array(first), np.array(second), features)
        if rest:
            features[len(features) - len(rest) :] = rest
        reach = np.isfinite(features).all(axis=0)
        out = np.full((len(weight), len(z)), np.nan, dtype=z.dtype)
        within = np.ascontiguousarray(features[:, reach]).view(float)
        out[:, reach] = (weight @ within).view(z.dtype)
        return out


def _series(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
    """The features of all cells: (cells, N) twice, into the first rows of `out`."""
    with np.errstate(invalid="ignore", over="ignore"):
        r = np.expm1(second - first)
        large = ~(np.abs(r) <= _SMALL)
    size, power = len(first), r
    if np.iscomplexobj(r):
        power = np.where(large, np.nan, r)
    out[:size] = first
    for j in range(1, _TERMS + 1):
        out[j * size : (j + 1) * size] = power / j
        power = np.where(large, 0.0, power * -r)


@functools.lru_cache(maxsize=16_384)
def _moments(mechanism: Mechanism, key: bytes, kind: str) -> np.ndarray:
    """log M at these places; NaN out of reach."""
    z = np.frombuffer(key, dtype=complex if kind == "c" else float)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        values = np.asarray(mechanism.log_moment(z))
    values = np.where(np.isfinite(values), values, np.nan)
    values.flags.writeable = False
    return values


def epsilons(
    mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float, upper: bool = True
) -> np.ndarray:
    """A bound on the epsilon of each row, from above or below; NaN where there is no answer.

    Guarantee: the contour of a pair that is proven to cost no less, or no more.
    """
    out, total = np.full(len(counts), np.nan), counts.sum(axis=1)
    rows = np.flatnonzero((total > 1) & (total <= _MOST))  # a single release has a closed form
    out[total == 0] = 0.0
    forward = blended(mechanisms, counts[rows], upper) if len(rows) else None
    if forward is None:
        return out
    if not forward.cells and forward.others == (_UNIT,):
        mu2 = forward.weight.sum(axis=1)
        out[rows] = closed.gaussian_epsilon(np.sqrt(mu2), delta)
        return out
    ahead = contour.epsilons(forward, forward.weight, delta)
    back = contour.epsilons(forward.reverse(), forward.weight, delta, ahead)
    out[rows] = np.maximum(np.maximum(ahead, back), 0.0)
    return out


def deltas(mechanisms: Sequence[Mechanism], counts: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    """Upper deltas of one row of counts at each epsilon; NaN where there is no answer."""
    forward = blended(mechanisms, counts[None, :], True) if counts.sum() <= _MOST else None
    if forward is None or not np.isfinite(epsilon).all():
        return np.full(len(epsilon), np.nan)
    if not forward.cells and forward.others == (_UNIT,):
        return gaussian_profile(math.sqrt(float(forward.weight.sum())), epsilon)
    sides = (forward, forward.reverse())
    found = [contour.deltas(side, forward.weight[0], epsilon) for side in sides]
    return np.maximum(*found)


def bracket(
    mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
) -> tuple[float, float] | None:
    """Bounds on the epsilon of one row, which allow for rounding; None without an answer."""
    low, high = (float(epsilons(mechanisms, counts, delta, up)[0]) for up in (False, True))
    return (low * (1 - _ROUNDING), high * (1 + _ROUNDING)) if low <= high else None


def blended(mechanisms: Sequence[Mechanism], counts: np.ndarray, upper: bool) -> Blends | None:
    """The releases as blends, unsampled ones as one; None if something cannot be blended."""
    kind = np.array([_kind(mechanism) for mechanism in mechanisms], dtype=int)
    sampled, plain, other = (np.flatnonzero(kind == which) for which in range(3))
    others = [mechanisms[place] for place in other.tolist()]
    if len(others) > _OTHERS or not all(mechanism.smooth for mechanism in others):
        return None
    columns, cells = [counts[:, other]], Cells()
    if len(plain):
        others.append(_UNIT)
        columns.append(_mu2([mechanisms[place] for place in plain.tolist()], counts[:, plain]))
    if len(sampled):
        found = _cells([mechanisms[place] for place in sampled.tolist()], upper)
        if found is None or not np.isfinite(columns[-1]).all():
            return None
        cells, index, share = found
        columns.insert(0, _weights(counts[:, sampled], index, share, len(cells)))
    return Blends(cells, tuple(others), np.concatenate(columns, axis=1))


def _kind(mechanism: Mechanism) -> int:
    """0 for what is blended, 1 for unsampled Gaussian noise, 2 for others."""
    if type(mechanism) is SubsampledGaussian and mechanism.sample_rate < 1.0:
        return 0
    return 2 if closed.gaussian_sigma(mechanism) is None else 1


def _mu2(gaussians: Sequence[Mechanism], counts: np.ndarray) -> np.ndarray:
    """Sums of counts over sigma^2, as releases of `_UNIT`: (K, n) -> (K, 1)."""
    sigma = np.array([closed.gaussian_sigma(mechanism) for mechanism in gaussians], dtype=float)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        lost = counts / (sigma * sigma)
    return np.where(counts > 0, lost, 0.0).sum(axis=1)[:, None]


def _cells(sampled: Sequence[Any], upper: bool) -> tuple[Cells, np.ndarray, np.ndarray] | None:
    """The cells in use, which one each release is in, and its share w of the second noise."""
    sigma = np.array([mechanism.noise_multiplier for mechanism in sampled])
    rate = np.array([mechanism.sample_rate for mechanism in sampled])
    if sigma.min() < _LEAST or sigma.max() > _LARGEST:
        return None
    low = np.floor(CELLS * np.log2(sigma))
    place = low if upper else low + 1
    pairs, index = np.unique(rate + 1j * place, return_inverse=True)
    if len(pairs) > _MANY:
        return None
    cells = tuple(
        (SubsampledGaussian(q, 2.0 ** (k / CELLS)), SubsampledGaussian(q, 2.0 ** ((k + 1) / CELLS)))
        for q, k in zip(pairs.real.tolist(), pairs.imag.tolist(), strict=True)
    )
    power = np.maximum(0.25 / np.exp2(2 * low / CELLS) - 1.0, 1.0) * math.log(2.0)
    share = np.expm1(power * (np.log2(sigma) - place / CELLS)) / np.expm1(power / CELLS)
    return cells, index, share


def _weights(counts: np.ndarray, index: np.ndarray, share: np.ndarray, cells: int) -> np.ndarray:
    """Sums of counts times w^j in each cell: (K, n) -> (K, (terms + 1) cells)."""
    order = np.argsort(index, kind="stable")
    ends = np.searchsorted(index[order], np.arange(1, cells))
    sums = np.empty((len(counts), _TERMS + 1, cells))
    for cell, places in enumerate(np.split(order, ends)):
        sums[:, :, cell] = counts[:, places].astype(float) @ np.vander(
            share[places], _TERMS + 1, increasing=True
        )
    return sums.reshape(len(counts), -1)
