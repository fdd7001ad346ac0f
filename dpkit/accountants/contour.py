"""The exact epsilon of a composition: its moments on a vertical line, transformed back.

delta(eps) = (1/pi) Re integral_0^inf M(z) e^(-eps z) / (z (1 + z)) dt on z = c + it, any c > 0,
with M(z) the product of the moments of all releases (Zhu, Dong, Wang 2022). The trapezoid rule
with period P = 2 pi / dt sums to sum_k e^(c k P) delta(eps + k P): aliasing only over-estimates.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from dpkit.mechanisms import Mechanism

LINES = 2.0 ** (np.arange(-48, 61) / 2)
"""The real parts c on which moments are kept, one grid for every mechanism."""
_BLOCK = 16  # nodes that are computed, and kept, together
_MOST_BLOCKS = 24
_LOG_C = np.log(LINES)
_LOG_CC = np.log(LINES) + np.log1p(LINES)
# Chernoff: E[(1 - e^(eps - L))_+] <= M(c) e^(-c eps) c^c / (1+c)^(1+c)
_CHERNOFF = LINES * _LOG_C - (1 + LINES) * np.log1p(LINES)


@functools.lru_cache(maxsize=65_536)
def _real(mechanism: Mechanism) -> np.ndarray:
    """log M on the real axis at every line; infinite where it is out of reach."""
    values = np.full(len(LINES), np.inf)
    start = 0
    for stop in range(8, len(LINES) + 8, 8):
        with np.errstate(over="ignore", invalid="ignore"):
            part = np.real(np.asarray(mechanism.log_moment(LINES[start:stop])))
        values[start:stop] = np.where(np.isfinite(part), np.maximum(part, 0.0), np.inf)
        if not values[start:stop][-1] < 800.0:
            break
        start = stop
    values[np.logical_or.accumulate(~(values < 800.0))] = np.inf
    values.flags.writeable = False
    return values


@functools.lru_cache(maxsize=262_144)
def _block(mechanism: Mechanism, line: int, block: int, nodes: int) -> np.ndarray:
    """log M at `_BLOCK` nodes c + i t of a line; read only."""
    z = LINES[line] + 1j * _times(line, block, nodes)
    values = np.asarray(mechanism.log_moment(z), dtype=complex)
    values.flags.writeable = False
    return values


def _times(line: int, block: int, nodes: int) -> np.ndarray:
    # Period P with c P = nodes, so dt = 2 pi c / nodes.
    return (2 * math.pi * LINES[line] / nodes) * np.arange(block * _BLOCK, (block + 1) * _BLOCK)


def usable(mechanisms: Sequence[Mechanism]) -> bool:
    """Whether every mechanism knows its moments off the real axis."""
    return all(mechanism.smooth for mechanism in mechanisms)


def real_axis(mechanisms: Sequence[Mechanism], counts: np.ndarray) -> np.ndarray:
    """Sums of log moments on every line: (K, n) counts -> (K, lines)."""
    total = np.zeros((len(counts), len(LINES)))
    for column, mechanism in enumerate(mechanisms):
        count = counts[:, column : column + 1]
        with np.errstate(invalid="ignore"):
            total += np.where(count > 0, count * _real(mechanism)[None, :], 0.0)
    return total


def epsilons(
    mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
) -> np.ndarray:
    """Epsilon of each row in this direction; NaN where the contour does not vouch for itself.

    May be negative, where even eps = 0 has less than this delta: the caller cuts at 0.
    """
    real = real_axis(mechanisms, counts)
    with np.errstate(invalid="ignore"):
        chernoff = (real + _CHERNOFF - math.log(delta)) / LINES
    tilt = np.argmin(chernoff, axis=1)
    start = chernoff[np.arange(len(tilt)), tilt]
    out = np.full(len(counts), np.nan)
    line, nodes = _choose(real, tilt, start, math.log(delta))
    for key in sorted({(a, b) for a, b in zip(line.tolist(), nodes.tolist(), strict=True)}):
        rows = np.flatnonzero((line == key[0]) & (nodes == key[1]))
        if key[0] >= 0:
            _solve_rows(mechanisms, counts, key, rows, start, real, math.log(delta), out)
    return out


def _choose(
    real: np.ndarray, tilt: np.ndarray, eps: np.ndarray, log_delta: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each row a line below the saddle whose aliases are small, and its period c P."""
    line, period = np.full(len(tilt), -1), np.zeros(len(tilt), dtype=int)
    for nodes in (32, 64, 128):
        for back in (1, 2, 3, 4, 6):
            index = np.maximum(tilt - back, 0)
            c = LINES[index]
            move = nodes / c
            above = (real + _CHERNOFF - LINES * (eps + move)[:, None]).min(axis=1) + nodes
            good = (above < log_delta - 25.0) & (-nodes < log_delta - 20.0) & (line < 0)
            line[good], period[good] = index[good], nodes
    return line, period


def _solve_rows(
    mechanisms: Sequence[Mechanism],
    counts: np.ndarray,
    key: tuple[int, int],
    rows: np.ndarray,
    start: np.ndarray,
    real: np.ndarray,
    log_delta: float,
    out: np.ndarray,
) -> None:
    """Rows that share a line, in groups that need the same number of blocks."""
    line, nodes = key
    c = LINES[line]
    moments = np.zeros((len(rows), 0), dtype=complex)
    base = real[rows, line]
    first = base - c * start[rows] - _LOG_CC[line]
    floor = -28.0 - np.maximum(first - log_delta, 0.0)
    for block in range(_MOST_BLOCKS):
        t = _times(line, block, nodes)
        total = np.zeros((len(rows), _BLOCK), dtype=complex)
        for column, mechanism in enumerate(mechanisms):
            count = counts[rows, column][:, None]
            if count.any():
                total += count * _block(mechanism, line, block, nodes)
        z = c + 1j * t
        weight = total - base[:, None] - np.log(z * (1 + z)) + _LOG_CC[line]
        moments = np.concatenate([moments, weight], axis=1)
        done = np.real(weight).max(axis=1) < floor
        if done.any():
            height = first[done] + c * start[rows[done]]
            out[rows[done]] = _newton(
                moments[done], height, start[rows[done]], line, nodes, log_delta
            )
            keep = ~done
            rows, moments, base = rows[keep], moments[keep], base[keep]
            first, floor = first[keep], floor[keep]
        if not len(rows):
            return


def _newton(
    weights: np.ndarray,
    height: np.ndarray,
    start: np.ndarray,
    line: int,
    nodes: int,
    log_delta: float,
) -> np.ndarray:
    """Solve log delta(eps) = log_delta for every row; each row stops for itself."""
    c = LINES[line]
    step = 2 * math.pi * c / nodes
    t = step * np.arange(weights.shape[1])
    weights = np.exp(weights)
    weights[:, 0] *= 0.5
    slope_weights = weights * (c + 1j * t)
    eps, active = start.copy(), np.ones(len(start), dtype=bool)
    for _ in range(40):
        turn = np.exp(-1j * np.multiply.outer(eps, t))
        value = np.real(weights * turn).sum(axis=1)
        slope = np.real(slope_weights * turn).sum(axis=1)
        bad = ~(value > 0) | ~(slope > 0)
        safe = np.where(bad, 1.0, value)
        log_value = np.log(safe * (step / math.pi)) + height - c * eps
        move = (log_value - log_delta) * safe / np.where(bad, 1.0, slope)
        move = np.where(bad, -0.5 / c, np.clip(move, -2.0 / c, 2.0 / c))
        eps = np.where(active, eps + move, eps)
        active &= np.abs(move) > 1e-12 * (1e-3 / c + np.abs(eps))
        if not active.any():
            break
    return np.where(active | ~np.isfinite(eps), np.nan, eps)
