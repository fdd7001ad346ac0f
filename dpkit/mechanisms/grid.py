"""A privacy loss laid on a grid, from above or from below, given its profile alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_TINY = 1e-18


class Masses(NamedTuple):
    """Probability under P of the losses `step * (first + i)`, and of an infinite loss."""

    first: int
    step: float
    mass: np.ndarray
    infinite: float

    @property
    def losses(self) -> np.ndarray:
        """The grid's losses."""
        return self.step * np.arange(self.first, self.first + len(self.mass))


def excess(mechanism: Any, step: float, low: int, high: int) -> np.ndarray:
    """delta(eps) - max(0, 1 - e^eps) at eps = step * (-low ... high): small on both sides."""
    right = np.asarray(mechanism.profile(step * np.arange(0, high + 1)), dtype=float)
    back = step * np.arange(1, low + 1)
    left = np.asarray(mechanism.reverse_profile(back), dtype=float) * np.exp(-back)
    return np.concatenate([left[::-1], right])


def above(mechanism: Any, step: float, low: int, high: int) -> Masses:
    """Masses whose profile joins the true one's grid points by lines in e^eps: never below it.

    *Source*: connect the dots, Doroshenko et al. 2022.
    """
    values = excess(mechanism, step, low, high)
    return Masses(-low, step, _masses(values, step, low), float(values[-1]))


def below(mechanism: Any, step: float, low: int, high: int) -> Masses:
    """Masses whose profile lies nowhere above the true one.

    A convex function lies above its neighbours' chords prolonged. Half-way points show so how far
    each cell's chord may rise above the profile; lowered by that much, the points' chords are
    below it everywhere, and their greatest convex minorant is again a profile.
    """
    fine = excess(mechanism, step / 2, 2 * low, 2 * high)
    rise = _rise(_masses(fine, step / 2, 2 * low), step)
    drop = np.maximum(np.append(rise, 0.0), np.append(0.0, rise))
    values = fine[::2]
    # Where a point would fall below max(0, 1 - e^eps), which is below every profile, it rests on
    # that, and so do its neighbours: no chord may climb from there to a point kept high.
    rests = drop >= values
    rests[[0, -1]] = True
    rests[1:] |= rests[:-1].copy()
    rests[:-1] |= rests[1:].copy()
    lowered = np.where(rests, 0.0, values - drop)
    return Masses(-low, step, _convex(lowered, step, low), 0.0)


def _rise(mass: np.ndarray, step: float) -> np.ndarray:
    """The most by which each cell's chord may lie above the profile, from half-cell masses.

    With bend b = mass * (e^(h/2) - 1) / e^eps * ... at the half-way point, the chord is b w / (..)
    above it there; within a half cell the profile dips below its own chord by no more than where
    the neighbouring chords, prolonged, meet.
    """
    shrink, grow = np.exp(-step / 2), np.expm1(step / 2)
    # In each half cell: A w and B w, the rise of the left and the right neighbour's bend.
    left, right = mass[:-1] * grow, mass[1:] * shrink * grow
    total = np.maximum(left, 0.0) + np.maximum(right, 0.0)
    dip = np.divide(left * right, total, out=np.zeros_like(total), where=total > 0)
    dip = np.maximum(dip, 0.0)
    # At the half-way point the full chord is above the profile by m w1 w2 / (w1 + w2) / u.
    middle = np.maximum(mass[1::2], 0.0) * grow / (1.0 + np.exp(step / 2))
    return middle + np.maximum(dip[::2], dip[1::2])


def _masses(values: np.ndarray, step: float, low: int) -> np.ndarray:
    """Second differences of a profile in e^eps, times e^eps: the masses under P."""
    rise = np.diff(values) / np.expm1(step)
    left = np.append(values[0], rise * np.exp(step))
    right = np.append(rise, 0.0)
    mass = right - left
    mass[low] += 1.0
    return mass


def _convex(values: np.ndarray, step: float, low: int) -> np.ndarray:
    """Masses of the greatest convex minorant of the points (e^eps, values).

    A point where the line turns down cannot be a vertex of it; take such points out until none
    is left.
    """
    mass = _masses(values, step, low)
    if np.all(mass >= -_TINY):
        return np.maximum(mass, 0.0)
    place = np.arange(len(values))
    while True:
        kept_mass = _kept_masses(values[place], place, step, low)
        down = kept_mass < 0.0
        if not down.any():
            break
        place = place[~down]
    mass = np.zeros(len(values))
    mass[place] = kept_mass
    return mass


def _kept_masses(values: np.ndarray, place: np.ndarray, step: float, low: int) -> np.ndarray:
    """`_masses` for points that are not evenly spaced any more."""
    eps = step * (place - low)
    gap, run = np.diff(eps), np.diff(values)
    # A chord across eps = 0 also takes its share of the kink of max(0, 1 - e^eps).
    cross = (eps[:-1] < 0) & (eps[1:] > 0)
    from_left = run + np.where(cross, np.expm1(np.where(cross, eps[1:], 0.0)), 0.0)
    from_right = run + np.where(cross, np.expm1(np.where(cross, eps[:-1], 0.0)), 0.0)
    grow = np.expm1(np.minimum(gap, 700.0))
    right = np.append(from_left / grow, 0.0)
    left = np.append(values[0], from_right * (1.0 + 1.0 / grow))
    mass = right - left
    mass[place == low] += 1.0
    return mass


def log_moment(mechanism: Any, z: np.ndarray) -> np.ndarray:
    """log E_P[e^(z L)] from the masses above: for real z > 0 or z < -1 never below the truth."""
    if np.iscomplexobj(z):
        raise TypeError(f"{type(mechanism).__name__} gives moments of real order only.")
    flat = np.atleast_1d(z).astype(float)
    return np.array([_moment(mechanism, order) for order in flat.ravel()]).reshape(z.shape)


def _moment(mechanism: Any, order: float) -> float:
    """One moment on a grid as fine and as wide as this order needs."""
    step, span = 1e-3, 1.0
    while span < 2_000.0 and _tail(mechanism, order, span) > 1e-17:
        span *= 1.5
    step = max(min(step, 0.02 / (1.0 + abs(order))), span / 400_000)
    count = int(np.ceil(span / step))
    masses = above(mechanism, step, count, count)
    if masses.infinite > 0 and order > 0 and _tail(mechanism, order, span) > 1e-17:
        return np.inf
    exponents = order * masses.losses
    top = float(exponents.max())
    total = float(np.sum(masses.mass * np.exp(exponents - top)))
    return top + float(np.log(total)) if top > 30 else float(np.log1p(_growth(masses, exponents)))


def _growth(masses: Masses, exponents: np.ndarray) -> float:
    return float(np.sum(masses.mass * np.expm1(exponents)) - masses.infinite)


def _tail(mechanism: Any, order: float, span: float) -> float:
    """The larger share of the moment that lies beyond a span, on either side."""
    right = np.log(max(float(mechanism.profile(np.array([span]))[0]), 1e-320))
    left = np.log(max(float(mechanism.reverse_profile(np.array([span]))[0]), 1e-320))
    forward = np.exp(min(right + max(order, 0.0) * span, 50.0)) if right > -736 else 0.0
    back = np.exp(min(left - (1.0 + order) * span, 50.0)) if left > -736 else 0.0
    return float(max(forward, back))
