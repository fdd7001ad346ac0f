"""A privacy loss laid on a grid, from above or from below, given its profile alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_NODES = 8192  # points of the uneven grid that moments are read from
_ROUNDING = 1e-13  # of a profile's values; a mass below what this explains is nothing


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


def excess(mechanism: Any, epsilon: np.ndarray) -> np.ndarray:
    """delta(eps) - max(0, 1 - e^eps) for rising eps that include 0: small on both sides.

    In the reverse direction delta(-eps) = 1 - e^-eps + e^-eps delta_reverse(eps).
    """
    zero = int(np.searchsorted(epsilon, 0.0))
    right = np.asarray(mechanism.profile(epsilon[zero:]), dtype=float)
    left = np.asarray(mechanism.reverse_profile(-epsilon[:zero]), dtype=float)
    return np.concatenate([left * np.exp(epsilon[:zero]), right])


def above(mechanism: Any, step: float, low: int, high: int) -> Masses:
    """Masses whose profile joins the true one's grid points by lines in e^eps: never below it.

    *Source*: connect the dots, Doroshenko et al. 2022.
    """
    epsilon = step * np.arange(-low, high + 1)
    values = excess(mechanism, epsilon)
    return Masses(-low, step, masses(values, epsilon), float(values[-1]))


def below(mechanism: Any, step: float, low: int, high: int) -> Masses:
    """Masses whose profile lies nowhere above the true one.

    A convex function lies above its neighbours' chords prolonged. Half-way points show so how far
    each cell's chord may rise above the profile; lowered by that much, the points' chords are
    below it everywhere, and their greatest convex minorant is again a profile.
    """
    half = step / 2 * np.arange(-2 * low, 2 * high + 1)
    fine, total, atoms = _smooth_part(mechanism, half)
    infinite = float(mechanism.profile(np.array([1e300]))[0])
    fine = np.maximum(fine - infinite, 0.0)
    rise = _rise(masses(fine, half, total), step)
    drop = np.maximum(np.append(rise, 0.0), np.append(0.0, rise))
    values, epsilon = fine[::2], half[::2]
    lowered = _lowered(values, rise, epsilon, low)
    mass = _convex(lowered, epsilon, values, total)
    for loss, chance in atoms:  # down to a grid point, if they are not on one
        mass[int(np.clip(np.floor(loss / step + 1e-9), -low, high)) + low] += chance
    return Masses(-low, step, mass, infinite)


def _smooth_part(
    mechanism: Any, epsilon: np.ndarray
) -> tuple[np.ndarray, float, tuple[tuple[float, float], ...]]:
    """The profile less its known atoms (above `total` x max(0, 1 - e^eps)), `total`, the atoms.

    Atoms are kept apart where they take as much from P as from Q, as in every symmetric pair.
    """
    values, atoms = excess(mechanism, epsilon), mechanism.atoms
    from_p = sum(chance for _, chance in atoms)
    from_q = sum(chance * np.exp(-loss) for loss, chance in atoms)
    if not atoms or abs(from_p - from_q) > 1e-15:
        return values, 1.0, ()
    kink = np.maximum(-np.expm1(np.minimum(epsilon, 0.0)), 0.0)
    for loss, chance in atoms:
        values = values - chance * (np.maximum(-np.expm1(np.minimum(epsilon - loss, 0.0)), 0) - kink)
    total = max(1.0 - from_p, 0.0)
    return np.where(values > 1e-15, values, 0.0), total, atoms


def _lowered(values: np.ndarray, rise: np.ndarray, epsilon: np.ndarray, low: int) -> np.ndarray:
    """Points whose chords stay below the profile: each under the lowered chords on both sides.

    About eps = 0 the loss may pile up within a cell, and at the ends there is nothing left to
    lower. The first lowered chord that is good continues as a line to eps = 0; at the ends the
    points rest on max(0, 1 - e^eps), which is below every profile.
    """
    drop = np.maximum(np.append(rise, 0.0), np.append(0.0, rise))
    good = drop < 0.75 * values
    good[[0, -1]] = False
    lowered = np.zeros(len(values))
    sides = []
    for sign, count in ((1, len(values) - low), (-1, low + 1)):  # to the right, to the left
        place = low + sign * np.arange(count)
        kept = np.flatnonzero(good[place])
        # A last point that is kept must have a kept neighbour beyond it, or rest as well.
        last = int(kept[-1]) - 1 if len(kept) else -1
        bad = np.flatnonzero(~good[place[: max(last, 0)]])
        first = int(bad[-1]) + 1 if len(bad) else 0
        if last <= first:
            sides.append(0.0)
            continue
        lowered[place[first:last]] = (values - drop)[place[first:last]]
        near, next_ = place[first], place[first + 1]
        reach = np.expm1(epsilon[place[: first + 1]] - epsilon[near])
        slope = (values[next_] - values[near]) / np.expm1(epsilon[next_] - epsilon[near])
        line = values[near] - rise[min(near, next_)] + slope * reach
        lowered[place[:first]] = np.maximum(line[:-1], 0.0)
        sides.append(float(lowered[low]))
    lowered[low] = min(sides)
    return lowered


def _rise(mass: np.ndarray, step: float) -> np.ndarray:
    """The most by which each cell's chord may lie above the profile, from half-cell masses."""
    shrink, grow = np.exp(-step / 2), np.expm1(step / 2)
    # Over a half cell of width w the chord rises above its neighbours' by A w and B w at the
    # ends; they meet A w B w / (A w + B w) below it.
    left, right = np.maximum(mass[:-1], 0.0) * grow, np.maximum(mass[1:], 0.0) * shrink * grow
    total = left + right
    dip = np.divide(left * right, total, out=np.zeros_like(total), where=total > 0)
    # At the half-way point the full chord is above the profile by its bend x w1 w2 / (w1 + w2).
    middle = np.maximum(mass[1::2], 0.0) * grow / (1.0 + np.exp(step / 2))
    return middle + np.maximum(dip[::2], dip[1::2])


def masses(values: np.ndarray, epsilon: np.ndarray, total: float = 1.0) -> np.ndarray:
    """Masses under P of the profile that joins the points by lines in e^eps.

    The points are `values` above total x max(0, 1 - e^eps). A mass is e^eps times the change of
    slope; left of the first point the line starts at (0, total).
    """
    gap, run = np.diff(epsilon), np.diff(values)
    # A chord across eps = 0 also takes its share of the kink there.
    cross = (epsilon[:-1] < 0) & (epsilon[1:] > 0)
    from_left, from_right = run, run
    if cross.any():
        from_left = run + total * np.where(cross, np.expm1(np.where(cross, epsilon[1:], 0.0)), 0)
        from_right = run + total * np.where(cross, np.expm1(np.where(cross, epsilon[:-1], 0.0)), 0)
    grow = np.expm1(np.minimum(gap, 700.0))
    mass = np.append(from_left / grow, 0.0)
    mass -= np.append(values[0], from_right * (1.0 + 1.0 / grow))
    mass[epsilon == 0.0] += total
    return mass


def _convex(
    lowered: np.ndarray, epsilon: np.ndarray, values: np.ndarray, total: float
) -> np.ndarray:
    """Masses of the greatest convex minorant of the points.

    A point where the line turns down cannot be a vertex of it; such points are taken out, each
    with a second look at its neighbours. What rounding of the values explains is left alone: it
    cancels in sums.
    """
    mass = masses(lowered, epsilon, total)
    step = float(epsilon[1] - epsilon[0])
    slack = _ROUNDING * values * (1.0 + 1.0 / step)
    queue = np.flatnonzero(mass < -slack).tolist()
    if not queue:
        return mass
    out = set()
    before, after = list(range(-1, len(mass) - 1)), list(range(1, len(mass) + 1))
    while queue:
        i = queue.pop()
        j, k = before[i], after[i]
        if i in out or j < 0 or k >= len(mass):
            continue
        chord = _chord(lowered, epsilon, total, (j, i, k))
        if not lowered[i] > chord + slack[i] * min(epsilon[i] - epsilon[j], epsilon[k] - epsilon[i]):
            continue
        out.add(i)
        after[j], before[k] = k, j
        queue += [j, k]
    place = np.setdiff1d(np.arange(len(mass)), np.fromiter(out, int), assume_unique=True)
    mass = np.zeros(len(lowered))
    mass[place] = masses(lowered[place], epsilon[place], total)
    return mass


def _chord(
    values: np.ndarray, epsilon: np.ndarray, total: float, place: tuple[int, int, int]
) -> float:
    """The height at the middle point of the chord of the outer two, less the kink's there."""
    j, i, k = place
    share = np.expm1(epsilon[i] - epsilon[j]) / np.expm1(epsilon[k] - epsilon[j])
    kink = 0.0
    if epsilon[j] < 0 < epsilon[k]:
        base = -np.expm1(epsilon[j]) * (1.0 - share)
        kink = total * (base - max(0.0, -float(np.expm1(epsilon[i]))))
    return float(values[j] + share * (values[k] - values[j]) + kink)


def log_moment(mechanism: Any, z: np.ndarray) -> np.ndarray:
    """log E_P[e^(z L)] from above, for real z > 0 or z < -1; infinite where the tail is unknown."""
    if np.iscomplexobj(z):
        raise TypeError(f"{type(mechanism).__name__} gives moments of real order only.")
    flat = np.atleast_1d(z).astype(float).ravel()
    out = np.zeros(len(flat))
    for pick, sign in ((flat > 0, 1.0), (flat < -1, -1.0)):
        if pick.any():
            ahead, back = mechanism.profile, mechanism.reverse_profile
            side = _Side(ahead, back) if sign > 0 else _Side(back, ahead)
            out[pick] = _moments(side, flat[pick] if sign > 0 else -1.0 - flat[pick])
    return out.reshape(np.shape(z))


class _Side(NamedTuple):
    """A direction, as two profiles."""

    profile: Callable[[np.ndarray], np.ndarray]
    reverse_profile: Callable[[np.ndarray], np.ndarray]


def _moments(side: _Side, orders: np.ndarray) -> np.ndarray:
    """Moments of the masses from above on a grid that is fine about 0 and reaches far out."""
    ahead, back = reach(side.profile, 1e-290), reach(side.reverse_profile, 1e-290)
    core = max(float(side.profile(np.zeros(1))[0]), 1e-12 * (ahead + back), 1e-300)
    share = np.arcsinh(ahead / core) / (np.arcsinh(ahead / core) + np.arcsinh(back / core))
    right = int(np.clip(share * _NODES, 16, _NODES - 16))
    u = np.linspace(0.0, 1.0, right + 1)
    v = np.linspace(1.0, 0.0, _NODES - right + 1)
    epsilon = core * np.append(
        -np.sinh(v[:-1] * np.arcsinh(back / core)), np.sinh(u * np.arcsinh(ahead / core))
    )
    values = excess(side, epsilon)
    mass, infinite = np.maximum(masses(values, epsilon), 0.0), float(values[-1])
    if infinite > 1e-280:
        return np.full(len(orders), np.inf)
    out = np.empty(len(orders))
    with np.errstate(divide="ignore"):
        log_mass = np.log(mass)
    for i, order in enumerate(orders):
        exponent = order * epsilon
        log_term = exponent + log_mass
        top = float(log_term.max())
        if top < 1.0:
            out[i] = np.log1p(np.sum(mass * np.expm1(np.minimum(exponent, 500.0))))
        else:
            out[i] = top + np.log(np.sum(np.exp(log_term - top)))
        if np.max(log_term[-8:]) > top - 30.0 and infinite > 0.0:
            out[i] = np.inf
    return out


def reach(profile: Callable[[np.ndarray], np.ndarray], tail: float) -> float:
    """The least eps at which a falling profile is below a tail, or level at its last value."""
    eps = np.concatenate([[0.0], np.geomspace(1e-12, 1e12, 97)])
    for _ in range(3):
        values = profile(eps)
        index = int(np.argmax(values <= max(float(values[-1]), tail)))
        if index == 0:
            return float(eps[1]) if eps[0] == 0 else float(eps[0])
        eps = np.linspace(eps[index - 1], eps[index], 33)
    return float(eps[-1]) if eps[-1] < 1e12 else float("inf")
