"""The exact epsilon of a composition: its moments on a vertical line, transformed back.

delta(eps) = (1/pi) Re integral_0^inf M(z) e^(-eps z) / (z (1 + z)) dt on z = c + it, any c > 0,
with M(z) the product of the moments of all releases (Zhu, Dong, Wang 2022). The trapezoid rule
with period P = 2 pi / dt sums to sum_k e^(c k P) delta(eps + k P): aliasing only over-estimates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dpkit.mechanisms import Mechanism

LINES = 2.0 ** (np.arange(-48, 61) / 2)
"""The real parts c on which moments are kept, one grid for every mechanism."""
_LOW, _HIGH = 64, 8  # lines that are computed together: first, and then by and by
_BLOCK = 16  # nodes that are computed, and kept, together
_MOST_BLOCKS = 24
_BEYOND = 800.0  # log moments that no epsilon of interest needs
_LOG_CC = np.log(LINES) + np.log1p(LINES)
# Chernoff: E[(1 - e^(eps - L))_+] <= M(c) e^(-c eps) c^c / (1+c)^(1+c)
_CHERNOFF = LINES * np.log(LINES) - (1 + LINES) * np.log1p(LINES)
_PERIODS = ((-12.0, 32), (-20.0, 40), (-35.0, 56), (-59.0, 80))
"""c P for each log delta: e^(-c P) / delta, the alias from below, stays under 2e-9."""


class Rows(NamedTuple):
    """Points of a curve that share a line: moments there and where to start from."""

    index: np.ndarray
    counts: np.ndarray
    base: np.ndarray  # log M(c)
    start: np.ndarray  # an epsilon close to the answer
    log_delta: np.ndarray

    def part(self, pick: np.ndarray) -> Rows:
        """Some of the rows."""
        return Rows(*(field[pick] for field in self))


@functools.lru_cache(maxsize=65_536)
def _real(mechanism: Mechanism) -> np.ndarray:
    """log M on the real axis at every line; infinite where it is out of reach."""
    values, start, stop = np.full(len(LINES), np.inf), 0, _LOW
    while start < len(LINES):
        with np.errstate(over="ignore", invalid="ignore"):
            part = np.real(np.asarray(mechanism.log_moment(LINES[start:stop])))
        values[start:stop] = np.where(part < _BEYOND, np.maximum(part, 0.0), np.inf)
        if not part[-1] < _BEYOND:
            break
        start, stop = stop, stop + _HIGH
    values[np.logical_or.accumulate(np.isinf(values))] = np.inf
    values.flags.writeable = False
    return values


@functools.lru_cache(maxsize=262_144)
def _block(mechanism: Mechanism, line: int, block: int, period: int) -> np.ndarray:
    """log M at `_BLOCK` nodes c + i t of a line; read only."""
    z = LINES[line] + 1j * _times(line, block, period)
    values = np.asarray(mechanism.log_moment(z), dtype=complex)
    values.flags.writeable = False
    return values


def _times(line: int, block: int, period: int) -> np.ndarray:
    step = 2 * math.pi * LINES[line] / period
    return step * np.arange(block * _BLOCK, (block + 1) * _BLOCK)


def usable(mechanisms: Sequence[Mechanism]) -> bool:
    """Whether every mechanism knows its moments off the real axis."""
    return all(mechanism.smooth for mechanism in mechanisms)


def real_axis(mechanisms: Sequence[Mechanism], counts: np.ndarray) -> np.ndarray:
    """Sums of log moments on every line: (K, n) counts -> (K, lines)."""
    total = np.zeros((len(counts), len(LINES)))
    for column, mechanism in enumerate(mechanisms):
        total += _times_count(counts[:, column], _real(mechanism))
    return total


def _times_count(count: np.ndarray, values: np.ndarray) -> np.ndarray:
    """count x values, where a count of nothing is nothing even of infinity."""
    count = count[:, None].astype(float)
    if np.all(np.isfinite(values)):
        return count * values
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, count * values, 0.0)


def log_delta_bound(real: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
    """Chernoff's bound on log delta at an epsilon for each row of `real_axis`."""
    return np.min(real + _CHERNOFF - np.multiply.outer(epsilon, LINES), axis=1)


def epsilons(
    mechanisms: Sequence[Mechanism],
    counts: np.ndarray,
    delta: float,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Epsilon of each row in this direction; NaN where the contour does not vouch for itself.

    May be negative, where even eps = 0 has less than this delta: the caller cuts at 0. Rows whose
    epsilon is certainly below `known` are answered by minus infinity.
    """
    log_delta = math.log(delta)
    real = real_axis(mechanisms, counts)
    out = np.full(len(counts), np.nan)
    rest = np.arange(len(counts))
    if known is not None:
        below = log_delta_bound(real, np.where(np.isnan(known), 0.0, known)) < log_delta
        out[below & ~np.isnan(known)] = -np.inf
        rest = np.flatnonzero(np.isnan(out))
    if len(rest):
        real = real[rest]
        with np.errstate(invalid="ignore"):
            bound = (real + _CHERNOFF - log_delta) / LINES
        tilt = np.argmin(bound, axis=1)
        start = np.take_along_axis(bound, tilt[:, None], axis=1)[:, 0]
        rows = Rows(rest, counts[rest], start, start, np.full(len(rest), log_delta))
        for rows, line, period in _by_line(rows, real, tilt):
            for part, weights in _transformed(mechanisms, rows, line, period):
                out[part.index] = _solve(part, weights, line, period)
    return out


def deltas(
    mechanisms: Sequence[Mechanism], counts: np.ndarray, epsilon: np.ndarray
) -> np.ndarray:
    """delta of one row of counts at each epsilon; NaN where the contour does not vouch."""
    real = np.broadcast_to(real_axis(mechanisms, counts[None, :]), (len(epsilon), len(LINES)))
    bound = real + _CHERNOFF - np.multiply.outer(epsilon, LINES)
    tilt = np.argmin(bound, axis=1)
    # The bound is some way above: Bahadur and Rao's factor is at most a few units here.
    log_delta = np.take_along_axis(bound, tilt[:, None], axis=1)[:, 0] - 3.0
    every = np.broadcast_to(counts, (len(epsilon), len(counts)))
    rows = Rows(np.arange(len(epsilon)), every, epsilon, epsilon, np.minimum(log_delta, -0.7))
    out = np.full(len(epsilon), np.nan)
    for rows, line, period in _by_line(rows, real, tilt):
        for part, weights in _transformed(mechanisms, rows, line, period):
            out[part.index] = _evaluate(part, weights, line, period)
    return out


def _by_line(
    rows: Rows, real: np.ndarray, tilt: np.ndarray
) -> Iterator[tuple[Rows, int, int]]:
    """Group rows by line and period: a line below the saddle, with aliases small on both sides."""
    period = np.zeros(len(tilt), dtype=int)
    for least, nodes in reversed(_PERIODS):
        period[rows.log_delta >= least] = nodes
    line = np.full(len(tilt), -1)
    for back in (1, 2, 3, 4, 6):
        todo = np.flatnonzero((line < 0) & (period > 0) & (tilt >= back))
        if not len(todo):
            break
        index = tilt[todo] - back
        ahead = rows.start[todo] + period[todo] / LINES[index]
        alias = log_delta_bound(real[todo], ahead) + period[todo]
        good = alias < rows.log_delta[todo] - 21.0
        line[todo[good]] = index[good]
    for key in sorted(set(zip(line.tolist(), period.tolist(), strict=True))):
        if key[0] >= 0:
            pick = np.flatnonzero((line == key[0]) & (period == key[1]))
            part = rows.part(pick)
            yield part._replace(base=real[pick, key[0]]), *key


def _transformed(
    mechanisms: Sequence[Mechanism], rows: Rows, line: int, period: int
) -> Iterator[tuple[Rows, np.ndarray]]:
    """log of M(z) / (z (1+z)) at the nodes, relative to t = 0, for rows that are long enough.

    A row is done when a whole block of nodes adds nothing any more; one that never is, is dropped.
    """
    first = rows.base - LINES[line] * rows.start - _LOG_CC[line]
    floor = -28.0 - np.maximum(first - rows.log_delta, 0.0)
    weights = np.zeros((len(rows.index), 0), dtype=complex)
    for block in range(_MOST_BLOCKS):
        z = LINES[line] + 1j * _times(line, block, period)
        total = np.zeros((len(rows.index), _BLOCK), dtype=complex)
        for column, mechanism in enumerate(mechanisms):
            count = rows.counts[:, column]
            if count.any():
                values = _block(mechanism, line, block, period)
                if not np.all(np.isfinite(values)):
                    return
                total += count[:, None] * values
        total += _LOG_CC[line] - np.log(z * (1 + z)) - rows.base[:, None]
        weights = np.concatenate([weights, total], axis=1) if block else total
        done = np.real(total).max(axis=1) < floor
        if done.any():
            yield rows.part(done), weights[done]
            rows, weights, floor = rows.part(~done), weights[~done], floor[~done]
        if not len(rows.index):
            return


def _evaluate(rows: Rows, weights: np.ndarray, line: int, period: int) -> np.ndarray:
    """delta at each row's epsilon."""
    c = LINES[line]
    step = 2 * math.pi * c / period
    weights = np.exp(weights)
    weights[:, 0] *= 0.5
    turn = np.exp(-1j * np.multiply.outer(rows.start, step * np.arange(weights.shape[1])))
    value = np.real(weights * turn).sum(axis=1) * (step / math.pi)
    height = np.exp(np.minimum(rows.base - c * rows.start - _LOG_CC[line], 700.0))
    # What cancels to less than the nodes' rounding is no answer.
    return np.where(value > 1e-11, np.minimum(value * height, 1.0), np.nan)


def _solve(rows: Rows, weights: np.ndarray, line: int, period: int) -> np.ndarray:
    """Newton on log delta for every row; each row stops for itself, so its bits are its own."""
    c = LINES[line]
    step = 2 * math.pi * c / period
    height = rows.base - _LOG_CC[line] + math.log(step / math.pi) - rows.log_delta
    t = step * np.arange(weights.shape[1])
    weights = np.exp(weights)
    weights[:, 0] *= 0.5
    slope_weights = weights * (c + 1j * t)
    eps, active = rows.start.copy(), np.ones(len(rows.start), dtype=bool)
    for _ in range(40):
        turn = np.exp(-1j * np.multiply.outer(eps, t))
        value = np.real(weights * turn).sum(axis=1)
        slope = np.real(slope_weights * turn).sum(axis=1)
        good = (value > 1e-11) & (slope > 0)
        value, slope = np.where(good, value, 1.0), np.where(good, slope, 1.0)
        move = (np.log(value) + height - c * eps) * value / slope
        move = np.where(good, np.clip(move, -2.0 / c, 2.0 / c), -0.5 / c)
        eps = np.where(active, eps + move, eps)
        active &= ~(np.abs(move) < 1e-11 * (1e-3 / c + np.abs(eps)))
        if not active.any():
            break
    return np.where(active | ~np.isfinite(eps), np.nan, eps)
