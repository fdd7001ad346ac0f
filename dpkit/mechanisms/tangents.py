"""A privacy loss laid on a grid from below: a profile that lies under the true one's tangents."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpkit.mechanisms.grid import Masses, Points, above, masses, origin_of, points

_ROUNDING = 1e-13  # of a profile's values; a mass below what this explains is nothing
_PATIENCE = 60_000  # looks at single points, a few microseconds each


def below(mechanism: Any, step: float, low: int, high: int) -> Masses:
    """Masses whose profile lies nowhere above the true one.

    A convex function lies above its neighbours' chords prolonged. Half-way points show so how far
    each cell's chord may rise above the profile; lowered by that much, the points' chords are
    below it everywhere, and their greatest convex minorant is again a profile.
    """
    origin = origin_of(mechanism)
    half = origin + step / 2 * np.arange(-2 * low, 2 * high + 1)
    infinite = float(mechanism.profile(np.array([1e300]))[0])
    fine = _finite(points(mechanism, half, 2 * low), infinite)
    fine, atoms = _smooth_part(mechanism, fine)
    coarse = Points(half[::2], fine.values[::2], low, fine.at_kink, fine.total)
    lowered = _lowered(coarse, _rise(masses(fine), step))
    if lowered is None:
        return _cell_lower(above(mechanism, step, low, high), infinite)
    mass = _convex(lowered, coarse.values)
    if mass is None:
        return _cell_lower(above(mechanism, step, low, high), infinite)
    for loss, chance in atoms:  # down to a grid point, if they are not on one
        place = np.floor((loss - origin) / step + 1e-7)
        mass[int(np.clip(place, -low, high)) + low] += chance
    return Masses(origin, -low, step, mass, infinite)


def _cell_lower(upper: Masses, infinite: float) -> Masses:
    """Joined dots move no loss by more than a cell: a cell lower they are below the truth."""
    return upper._replace(first=upper.first - 1, infinite=infinite)


def _finite(of: Points, infinite: float) -> Points:
    """The profile of the finite losses alone."""
    if infinite == 0.0:
        return of
    u = np.exp(np.minimum(of.epsilon, 700.0))
    less = infinite * np.where(np.arange(len(u)) < of.kink, u, 1.0)
    return Points(
        of.epsilon,
        np.maximum(of.values - less, 0.0),
        of.kink,
        max(of.at_kink - infinite * float(u[of.kink]), 0.0),
        of.total - infinite,
    )


def _smooth_part(mechanism: Any, of: Points) -> tuple[Points, tuple[tuple[float, float], ...]]:
    """The profile less its known atoms, and the atoms.

    Atoms are kept apart where they take as much from P as from Q, as in every symmetric pair.
    """
    atoms = mechanism.atoms
    from_p = sum(chance for _, chance in atoms)
    from_q = sum(chance * np.exp(-loss) for loss, chance in atoms)
    if not atoms or abs(from_p - from_q) > 1e-15:
        return of, ()
    left = np.arange(len(of.values)) < of.kink
    taken, at_kink = np.zeros(len(of.values)), 0.0
    for loss, chance in atoms:
        # Less p (1 - e^(eps-l))_+, and on the left less what of it belongs to p (1 - e^eps).
        part = chance * -np.expm1(np.minimum(of.epsilon - loss, 0.0))
        line = chance * -np.expm1(np.minimum(of.epsilon, 700.0))
        taken += np.where(left, part - line, part)
        at_kink += float((part - line)[of.kink])
    values = of.values - taken
    values = np.where(values > 1e-15, values, 0.0)
    smooth = of.at_kink - at_kink
    return (
        Points(of.epsilon, values, of.kink, smooth if smooth > 1e-15 else 0.0, of.total - from_p),
        atoms,
    )


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


def _lowered(of: Points, rise: np.ndarray) -> Points | None:
    """Points whose chords stay below the profile: each under the lowered chords on both sides.

    Where a point would fall below the rest line max(0, 1 - e^eps), which is below every profile,
    it rests on that, and so does its neighbour: no chord may climb from there to a point kept
    high. None if the kink of the rest line would lie under a chord.
    """
    epsilon, kink, size = of.epsilon, of.kink, len(of.values)
    drop = np.maximum(np.append(rise, 0.0), np.append(0.0, rise))
    line = of.total * -np.expm1(np.minimum(epsilon, 700.0))
    rest = np.where(np.arange(size) < kink, np.maximum(-line, 0.0), np.maximum(line, 0.0))
    first, last = _longest_run(of.values - drop >= rest)
    start, stop = first + 1, (last if last == size else last) - 1
    if stop - start < 2 or (last < size and epsilon[stop] < 0.0):
        return None
    lowered = rest.copy()
    lowered[start:stop] = (of.values - drop)[start:stop]
    if first and epsilon[first] > 0.0:
        # The bulk lies within a cell right of the kink: the first chord goes on as a line to it.
        if not kink < first or epsilon[kink] >= 0.0:
            return None
        slope = (of.values[start] - of.values[first]) / np.expm1(epsilon[start] - epsilon[first])
        away = np.expm1(epsilon[kink : first + 1] - epsilon[first])
        lowered[kink : first + 1] = of.values[first] - rise[first] + slope * away
        lowered[kink] = min(lowered[kink], rest[kink])
    at_kink = float(lowered[kink] - line[kink])
    if start <= kink < stop:
        at_kink = of.at_kink - float(drop[kink])
    return Points(epsilon, lowered, kink, at_kink, of.total)


def _longest_run(good: np.ndarray) -> tuple[int, int]:
    """Start and end (exclusive) of the longest run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], good.astype(np.int8), [0]])))
    if not len(edges):
        return 0, 0
    starts, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest])


def _convex(of: Points, scale: np.ndarray) -> np.ndarray | None:
    """Masses of the greatest convex minorant of the points; None if that takes too long.

    A point where the line turns down cannot be a vertex of it; such points are taken out, each
    with a second look at its neighbours. What rounding of the values (`scale`) explains is left
    alone: it cancels in sums.
    """
    mass = masses(of)
    step = float(of.epsilon[1] - of.epsilon[0])
    slack = _ROUNDING * scale * (1.0 + 1.0 / step)
    queue = np.flatnonzero(mass < -slack).tolist()
    if not queue:
        return mass
    gone = np.zeros(len(mass), dtype=bool)
    before, after = list(range(-1, len(mass) - 1)), list(range(1, len(mass) + 1))
    for _ in range(_PATIENCE):
        if not queue:
            return _without(of, gone)
        i = queue.pop()
        j, k = before[i], after[i]
        if i == len(mass) - 1 or gone[i] or not _turns_down(of, j, i, k, float(slack[i]) * step):
            continue
        gone[i] = True
        before[k] = j
        if j >= 0:
            after[j] = k
        queue += [j, k] if j >= 0 else [k]
    return None


def _turns_down(of: Points, j: int, i: int, k: int, slack: float) -> bool:
    """Whether point i lies above the chord from j (-1: the point (0, total)) to k."""
    reach = float(of.epsilon[k] - of.epsilon[i])
    start = _relative(of, j, i) if j >= 0 else _relative(of, -1, i)
    back = float(np.expm1(of.epsilon[j] - of.epsilon[i])) if j >= 0 else -1.0
    # In units of u_i: j at `back` < 0, i at 0, k at `ahead` > 0.
    ahead = float(np.expm1(min(reach, 700.0)))
    share = -back / (ahead - back)
    here, end = _relative(of, i, i), _relative(of, k, i)
    return here > start + share * (end - start) + slack


def _relative(of: Points, i: int, seen_from: int) -> float:
    """The value of a point as the side on which another lies counts."""
    left = seen_from < of.kink
    if i < 0:
        return 0.0 if left else of.total
    if i == of.kink:
        return of.at_kink if left else float(of.values[i])
    base = of.total * -float(np.expm1(min(float(of.epsilon[i]), 700.0)))
    value = float(of.values[i])
    if (i < of.kink) == left:
        return value
    return value - base if left else value + base


def _without(of: Points, gone: np.ndarray) -> np.ndarray:
    """Masses when some points are gone; the kink's mass moves to the chord that crosses it."""
    kept = np.flatnonzero(~gone)
    out = np.zeros(len(gone))
    if not gone[of.kink]:
        kink = int(np.searchsorted(kept, of.kink))
        part = Points(of.epsilon[kept], of.values[kept], kink, of.at_kink, of.total)
    else:  # the next point to the right becomes the kink: count it from the left as well
        kink = int(np.searchsorted(kept, of.kink))
        at_kink = _relative(of, int(kept[kink]), 0) if of.kink else float(of.values[kept[kink]])
        part = Points(of.epsilon[kept], of.values[kept], kink, at_kink, of.total)
    out[kept] = masses(part)
    return out
