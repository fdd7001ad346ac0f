"""A pair of discrete distributions: finitely many privacy losses, each with its probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dpkit.mechanisms import tangents
from dpkit.mechanisms.grid import masses, points, reach
from dpkit.mechanisms.quadrature import _one_side

_KNOTS = 750  # losses on each side that stand for all
_FAR = 600.0  # losses beyond which nobody looks: they count as infinite


@dataclass(frozen=True)
class Atoms:
    """Losses in rising order with their probability under P and under Q.

    Shapes: losses, p, q (J,). `infinite` is what P has and Q lacks, `lacking` the reverse.
    """

    losses: np.ndarray
    p: np.ndarray
    q: np.ndarray
    infinite: float = 0.0
    lacking: float = 0.0

    @classmethod
    def of(cls, p: np.ndarray, q: np.ndarray) -> Atoms:
        """The pair of two probability vectors over the same outcomes."""
        both = (p > 0) & (q > 0)
        losses = np.log(p[both]) - np.log(q[both])
        order = np.argsort(losses, kind="stable")
        lost = float(p[(p > 0) & ~(q > 0)].sum()), float(q[(q > 0) & ~(p > 0)].sum())
        return cls(losses[order], p[both][order], q[both][order], *lost)

    def profile(self, epsilon: Any) -> np.ndarray:
        """sum of (p - e^eps q)_+, from sums of positive terms alone; by the reverse below 0."""
        epsilon = np.minimum(np.asarray(epsilon, dtype=float), 700.0)
        left = self.reverse_profile(np.maximum(-epsilon, 0.0))
        tail, values = self._ahead
        index = np.searchsorted(self.losses, epsilon, side="right")
        nearest = np.append(self.losses, 0.0)[index]
        gap = np.exp(epsilon) * np.expm1(np.maximum(nearest - epsilon, 0.0))
        right = np.minimum(self.infinite + values[index] + tail[index] * gap, 1.0)
        return np.where(epsilon < 0, -np.expm1(epsilon) + np.exp(epsilon) * left, right)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """sum of (q - e^eps p)_+."""
        at = np.maximum(-np.asarray(epsilon, dtype=float), -700.0)
        sums, values = self._behind
        index = np.searchsorted(self.losses, at, side="left")
        nearest = np.append(0.0, self.losses)[index]
        gap = -np.expm1(np.minimum(nearest - at, 0.0))
        value = values[index] * np.exp(np.minimum(nearest - at, 0.0)) + sums[index] * gap
        return np.minimum(self.lacking + value, 1.0)

    @cached_property
    def _ahead(self) -> tuple[np.ndarray, np.ndarray]:
        """Q's mass from each loss on, and the profile at each loss; zeros for beyond the last."""
        tail = np.append(np.cumsum(self.q[::-1])[::-1], 0.0)
        rise = np.append(np.diff(np.exp(self.losses)), 0.0) * tail[1:]
        return tail, np.append(np.cumsum(rise[::-1])[::-1], 0.0)

    @cached_property
    def _behind(self) -> tuple[np.ndarray, np.ndarray]:
        """Q's mass up to each loss, and the reverse profile there; zeros for before the first."""
        sums = np.append(0.0, np.cumsum(self.q))
        puts = np.append(0.0, np.cumsum(np.diff(np.exp(self.losses)) * sums[1:-1]))
        return sums, np.append(0.0, puts * np.exp(-self.losses))

    def log_moment(self, z: np.ndarray) -> np.ndarray:
        """log E_P[e^(z L)], real or complex; infinite where a lost mass makes it so."""
        z = np.asarray(z)
        flat = np.atleast_1d(z).ravel()
        with np.errstate(divide="ignore"):
            log_p, log_q = np.log(self.p), np.log(self.q)
        forward = np.real(flat) >= -0.5
        out = np.empty(len(flat), dtype=flat.dtype if np.iscomplexobj(flat) else float)
        if forward.any():
            out[forward] = _one_side(self.losses, log_p, flat[forward])
        if not forward.all():
            turned = -1.0 - flat[~forward]
            out[~forward] = _one_side(-self.losses, log_q, turned)
        lost = (np.real(flat) > 0) & (self.infinite > 0)
        lost |= (np.real(flat) < -1) & (self.lacking > 0)
        out[lost] = np.inf
        return out.reshape(z.shape)


def joined(side: Any, far: float) -> Atoms:
    """A pair no less private than its profiles say: their points joined by lines in e^eps.

    `side` has `profile` and `reverse_profile`, of which less than 1e-290 lies beyond `far`.
    """
    far = min(far, _FAR)
    left, right = _knots(side.reverse_profile, far), _knots(side.profile, far)
    knots = np.append(-left[:0:-1], right)
    of = points(side, knots, len(left) - 1)
    mass = tangents._convex(of, of.values)
    if mass is None:
        mass = np.maximum(masses(of), 0.0)
    kept = mass > 0
    p, losses = mass[kept], knots[kept]
    lost = (float(of.values[-1]), float(of.values[0]) * math.exp(-knots[0]))
    return Atoms(losses, p, p * np.exp(-losses), *(x if x > 1e-280 else 0.0 for x in lost))


def _knots(profile: Callable[[np.ndarray], np.ndarray], far: float) -> np.ndarray:
    """Losses from 0 on: dense about 0 and where a tail may matter, a few far beyond."""
    near = min(reach(profile, 1e-18), far)
    core = max(float(profile(np.zeros(1))[0]), 1e-9 * near)
    dense = core * np.sinh(np.linspace(0.0, np.arcsinh(near / core), _KNOTS))
    return np.append(dense, np.linspace(near, far * (1 + 1e-9), 100)[1:])
