"""The exact epsilon of a composition: its moments on a vertical line, transformed back.

delta(eps) = (1/pi) Re integral_0^inf M(z) e^(-eps z) / (z (1 + z)) dt on z = c + it, any c > 0,
with M(z) the product of the moments of all releases (Zhu, Dong, Wang 2022). The trapezoid rule
with period P = 2 pi / dt sums to sum_k e^(c k P) delta(eps + k P): aliasing only over-estimates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dpkit.accountants.lines import (
    BLOCKS,
    CHUNKS,
    FIRST,
    LINES,
    LOG_CC,
    Releases,
    block_sums,
    places,
    powers_of_z,
    real_sums,
)
from dpkit.mechanisms import Mechanism

_AHEAD = 5  # lines beyond the saddle that bound the alias from above
_BACK = np.array([0, 1, 2, 3, 4, 6])
"""Lines below the saddle; the first that is good is taken."""
_NOTHING = -23.0  # log of a node's share of delta from which on nodes are left out
# Chernoff: E[(1 - e^(eps - L))_+] <= M(c) e^(-c eps) c^c / (1+c)^(1+c)
_CHERNOFF = LINES * np.log(LINES) - (1 + LINES) * np.log1p(LINES)
_ROUNDING = 1e-10
"""A share of the first node that rounding, once for each release, leaves six digits of."""
_CANCELS = 1e-5
"""However few the releases are: what is left below this share keeps too few digits of delta."""
_EQUAL = 1e-10  # log deltas of two directions this close are the same but for rounding
_LEAST, _NODES = np.array([-59.0, -35.0, -20.0, -12.0]), np.array([0, 80, 56, 40, 32])
"""c P for log deltas between these: e^(-c P) / delta, the alias from below, stays under 2e-9."""


class Rows(NamedTuple):
    """Points of a curve, and where to look for their answer."""

    index: np.ndarray  # type: ignore[assignment]
    counts: np.ndarray
    base: np.ndarray  # log M(c) on the line in use
    start: np.ndarray  # an epsilon close to the answer
    log_delta: np.ndarray

    def part(self, pick: np.ndarray) -> Rows:
        """Some of the rows."""
        return Rows(*(field[pick] for field in self))


def usable(mechanisms: Sequence[Mechanism]) -> bool:
    """Whether every mechanism knows its moments off the real axis."""
    return all(mechanism.smooth for mechanism in mechanisms)


def real_axis(
    mechanisms: Releases, counts: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of log moments on every line, Chernoff's bounds on epsilon, and where those are least.

    Computed piece by piece, until the least of (sum + Chernoff's term - target) / c, of which
    there is one, lies well inside; infinite elsewhere.

    Shapes: (K, n) counts -> (K, lines), (K, lines), (K,).
    """
    total = np.full((len(counts), len(LINES)), np.inf)
    for chunk in range(FIRST, len(CHUNKS) - 1):
        stop = CHUNKS[chunk + 1]
        total[:, CHUNKS[chunk] : stop] = real_sums(mechanisms, counts, chunk)
        bound = (total + _CHERNOFF - target) / LINES
        tilt = bound.argmin(axis=1)
        inside = tilt < stop - _AHEAD
        if inside.all() or (inside | np.isinf(total[:, stop - 1])).all():
            break
    for chunk in range(FIRST - 1, -1, -1):
        if (tilt > CHUNKS[chunk + 1] + 6).all():
            break
        part = slice(CHUNKS[chunk], CHUNKS[chunk + 1])
        total[:, part] = real_sums(mechanisms, counts, chunk)
        bound = (total + _CHERNOFF - target) / LINES
        tilt = bound.argmin(axis=1)
    return total, bound, tilt


def epsilons(
    mechanisms: Releases,
    counts: np.ndarray,
    delta: float,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Epsilon of each row in this direction; NaN where the contour does not vouch for itself.

    May be negative, where even eps = 0 has less than this delta: the caller cuts at 0. Rows whose
    epsilon is certainly below `known` are answered by minus infinity.
    """
    log_delta = np.full(len(counts), math.log(delta))
    real, bound, tilt = real_axis(mechanisms, counts, log_delta[:, None])
    every = np.arange(len(counts))
    out = np.full(len(counts), np.nan)
    rows = Rows(every, counts, log_delta, _start(real, bound, tilt, log_delta, known), log_delta)
    if known is not None:
        below = bound[every, tilt] < known
        if below.any():
            out[below] = -np.inf
            rows, real, tilt = rows.part(~below), real[~below], tilt[~below]
    for part, line, period in _by_line(rows, real, tilt):
        for done, weights in _transformed(mechanisms, part, line, period):
            floor = np.full(len(done.index), -np.inf) if known is None else known[done.index]
            out[done.index] = _solve(done, weights, line, period, floor)
    return out


def _start(
    real: np.ndarray,
    bound: np.ndarray,
    tilt: np.ndarray,
    log_delta: np.ndarray,
    known: np.ndarray | None,
) -> np.ndarray:
    """A first guess of epsilon: where the answer matters, or by the saddle point formula.

    One look at what is `known` tells whether an answer lies below it.
    """
    if known is not None and np.isfinite(known).all():
        return known
    every = np.arange(len(tilt))
    at, best = np.minimum(np.maximum(tilt, 1), len(LINES) - 2), bound[every, tilt]
    c, low, mid, high = LINES[at], real[every, at - 1], real[every, at], real[every, at + 1]
    root = math.sqrt(2.0)
    with np.errstate(invalid="ignore"):  # second difference on points c/root, c, c root
        rise = ((high - mid) / (root - 1.0) - (mid - low) / (1.0 - 1.0 / root)) / c
        bend = np.maximum(2 * rise / (c * (root - 1.0 / root)), 1e-300)
        guess = (mid - log_delta - LOG_CC[at] - 0.5 * np.log(2 * math.pi * bend)) / c
    guess = np.where(np.isfinite(guess) & (guess < best), guess, best)
    return guess if known is None else np.where(np.isfinite(known), known, guess)


def deltas(mechanisms: Releases, counts: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    """delta of one row of counts at each epsilon; NaN where the contour does not vouch."""
    # Chernoff's bound on delta at eps is least where that on eps at this delta is: any will do
    # to see which lines are needed.
    count, lines = counts[None, :], np.arange(len(LINES))
    real = np.minimum(
        real_axis(mechanisms, count, np.array([[-46.0]]))[0],
        real_axis(mechanisms, count, np.array([[-0.5]]))[0],
    )
    bound = real + _CHERNOFF - np.multiply.outer(epsilon, LINES)
    tilt = np.argmin(bound, axis=1)
    log_delta = np.minimum(bound[np.arange(len(tilt)), tilt] - 3.0, -0.7)
    every = np.broadcast_to(counts, (len(epsilon), len(counts)))
    rows = Rows(np.arange(len(epsilon)), every, log_delta, epsilon, log_delta)
    real = np.broadcast_to(real, (len(epsilon), len(lines)))
    out = np.full(len(epsilon), np.nan)
    for part, line, period in _by_line(rows, real, tilt):
        for done, weights in _transformed(mechanisms, part, line, period):
            out[done.index] = _evaluate(done, weights, line, period)
    return out


def _by_line(rows: Rows, real: np.ndarray, tilt: np.ndarray) -> Iterator[tuple[Rows, int, int]]:
    """Group rows by line and period: a line below the saddle, with aliases small on both sides."""
    period = _NODES[_LEAST.searchsorted(rows.log_delta, side="right")]
    ahead = np.minimum(tilt[:, None] + np.arange(_AHEAD), len(LINES) - 1)
    every = np.arange(len(tilt))
    moments = real[every[:, None], ahead] + _CHERNOFF[ahead]
    index = np.maximum(tilt[:, None] - _BACK, 0)
    move = rows.start[:, None] + period[:, None] / LINES[index]
    with np.errstate(invalid="ignore"):
        alias = moments[:, None, :] - move[:, :, None] * LINES[ahead][:, None, :]
    good = alias.min(axis=2) < (rows.log_delta - period - 21.0)[:, None]
    good &= (period > 0)[:, None] & (tilt[:, None] >= _BACK)
    first = good.argmax(axis=1)
    line = np.where(good[every, first], index[every, first], -1)
    keys = sorted(set(zip(line.tolist(), period.tolist(), strict=True)))
    for key in keys:
        if key[0] >= 0 and len(keys) == 1:
            yield rows._replace(base=real[:, key[0]]), *key
        elif key[0] >= 0:
            pick = np.flatnonzero((line == key[0]) & (period == key[1]))
            yield rows.part(pick)._replace(base=real[pick, key[0]]), *key


def _transformed(
    mechanisms: Releases, rows: Rows, line: int, period: int
) -> Iterator[tuple[Rows, np.ndarray]]:
    """log of M(z) / (z (1+z)) at the nodes, relative to t = 0, for rows that are long enough.

    A row is done when a whole block of nodes adds nothing any more; one that never is, is dropped.
    """
    first = rows.base - LINES[line] * rows.start - LOG_CC[line]
    floor = _NOTHING - np.maximum(first - rows.log_delta, 0.0)
    weights: list[np.ndarray] = []
    for block in range(len(BLOCKS) - 1):
        total = block_sums(mechanisms, rows.counts, line, block, period)
        if total is None:
            return
        total += places(line, period, block)[1] - rows.base[:, None]
        weights.append(total)
        done = total.real[:, -12:].max(axis=1) < floor
        if done.all():
            yield rows, np.concatenate(weights, axis=1) if block else total
            return
        if done.any():
            yield rows.part(done), np.concatenate([part[done] for part in weights], axis=1)
            rows, floor, weights = rows.part(~done), floor[~done], [w[~done] for w in weights]


def _evaluate(rows: Rows, weights: np.ndarray, line: int, period: int) -> np.ndarray:
    """delta at each row's epsilon."""
    c = LINES[line]
    t, shares = powers_of_z(line, period, weights.shape[1])
    turn = np.exp(-1j * np.multiply.outer(rows.start, t))
    value = (np.exp(weights) * shares[0] * turn).real.sum(axis=1) * (t[1] / math.pi)
    height = np.exp(np.minimum(rows.base - c * rows.start - LOG_CC[line], 700.0))
    return np.where(value > _least(rows), np.minimum(value * height, 1.0), np.nan)


def _least(rows: Rows) -> np.ndarray:
    """What cancels to less than this, relative to the first node, is no answer but rounding."""
    return np.maximum(_ROUNDING * rows.counts.sum(axis=1), _CANCELS)


def _solve(
    rows: Rows, weights: np.ndarray, line: int, period: int, floor: np.ndarray
) -> np.ndarray:
    """Halley's method on log delta for every row; each row stops for itself, with its own bits.

    A row that starts at its `floor` and lies below it is answered by minus infinity at once.
    """
    c = float(LINES[line])
    t, shares = powers_of_z(line, period, weights.shape[1])
    height = rows.base - rows.log_delta - (float(LOG_CC[line]) - math.log(t[1] / math.pi))
    powers = (np.exp(weights)[:, None, :] * shares).view(float)  # real and imaginary in turn
    eps, active, least = rows.start.copy(), np.ones(len(rows.start), dtype=bool), _least(rows)
    phase = np.empty(weights.shape, dtype=complex)
    for turn in range(40):
        angle = eps[:, None] * t
        np.cos(angle, out=phase.real)
        np.sin(angle, out=phase.imag)
        value, slope, bend = np.matmul(powers, phase.view(float)[:, :, None])[:, :, 0].T
        good = (value > least) & (slope > 0)
        if not good.all():
            value, slope = np.where(good, value, 1.0), np.where(good, slope, 1.0)
        # With f = log delta - target: f' = -slope / value, f'' = bend / value - f'^2.
        newton = (np.log(value) + height - c * eps) * (value / slope)
        halley = newton / np.maximum(1 + 0.5 * newton * (slope / value - bend / slope), 0.5)
        move = np.where(good, np.minimum(np.maximum(halley, -2.0 / c), 2.0 / c), -0.5 / c)
        eps = eps + active * move
        if turn == 0:
            under = good & (rows.start <= floor) & (newton * c < _EQUAL)
            active &= ~under
        # Cubic convergence: after a move this small the next would be nothing.
        active &= ~(good & (np.abs(move) * c < 1e-5))
        if not active.any():
            break
    return np.where(under, -np.inf, np.where(active | ~np.isfinite(eps), np.nan, eps))
