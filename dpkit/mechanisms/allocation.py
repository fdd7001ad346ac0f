"""The likelihood ratio of a record that falls into one of t batches, from above and from below.

Under Q each batch gives X = exp((2x-1)/(2 s^2)), x ~ N(0, s^2), and the ratio is R, the mean of t
of them. The hockey-stick divergence is convex in R. So each X may be split onto a grid with its
mean kept (from above), or gathered onto it (from below): the convex order survives sums.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from dpkit.later import fft, special

FLOOR = 1e-14
"""More than rounding in the transforms, and what they fold over, moves in any profile."""
_FINE = 48.0  # grid points to a standard deviation of X
_FACTOR = 16  # how much wider each level's grid is than the one before
_CAP = 58.0  # squared standard deviations of log X under P at which jumps are cut off
_BODY = 4.0  # standard deviations of log X under Q that the finest level holds
_CELLS = 6_000  # cells of the finest grid for one term, at most
_UNLIKELY = 1e-10  # chance that all terms lie in the first cell
_ENOUGH = 20_000  # cells of the finest grid that may hold all there is
_LOW = 9.5  # standard deviations of log X under Q below which nothing is
_MOST = 1 << 20  # cells of a window


LEAST = 0.15
"""Noise multiplier below which the law is not laid out: it would take hundreds of levels."""


class Level(NamedTuple):
    """A part of R's law on the grid `(first + i) step`: what is beyond and below each point.

    Shapes: call = E[(R - r)_+], put = E[(r - R)_+], both (cells,). p and q are the part's masses.
    """

    first: float
    step: float
    call: np.ndarray
    put: np.ndarray
    p: float
    q: float

    def calls(self, kappa: np.ndarray) -> np.ndarray:
        """E[(R - kappa)_+] of this part."""
        at = kappa / self.step - self.first
        inside = np.interp(at, np.arange(len(self.call)), self.call, right=0.0)
        return np.where(at < 0, self.p - kappa * self.q, inside)

    def puts(self, kappa: np.ndarray) -> np.ndarray:
        """E[(kappa - R)_+] of this part."""
        at = kappa / self.step - self.first
        inside = np.interp(at, np.arange(len(self.put)), self.put, left=0.0)
        return np.where(at > len(self.put) - 1, kappa * self.q - self.p, inside)


@functools.lru_cache(maxsize=16)
def levels(batches: int, noise_multiplier: float, upper: bool) -> tuple[tuple[Level, ...], float]:
    """The law of R, level by level of its largest term, and the size at which terms are cut."""
    s = 1.0 / noise_multiplier
    cap = math.exp(0.5 * s * s + s * math.sqrt(_CAP + 2 * math.log(batches)))
    high, step = _finest(s, cap, batches)
    low = math.floor(math.exp(-0.5 * s * s - _LOW * s) / step)
    found = [_level([_placed(s, step, low, high, upper)], step, batches)]
    while high * step < cap:
        step, low, start = step * _FACTOR, low // _FACTOR, high // _FACTOR
        parts = [_placed(s, step, low, start, upper), _placed(s, step, start, high, upper)]
        if parts[0].any():
            found.append(_level(parts, step, batches))
        else:
            found.append(_one_jump(s, parts[1], start, step, batches))
    return tuple(found), high * step


def _finest(s: float, cap: float, batches: int) -> tuple[int, float]:
    """Cells of the finest grid for one term, a multiple of the factor, and their width.

    Fine enough for X's spread, and for the chance that all terms lie in the first cell.
    """
    body = math.exp(-0.5 * s * s + _BODY * s)
    # The spread of X below the body's end, or of all of it if that is smaller.
    first, square = special.log_ndtr((math.log(body) - np.array([0.5, 1.5]) * s * s) / s)
    within = math.exp(s * s + float(square)) - math.exp(2 * float(first))
    spread = math.sqrt(min(within, math.expm1(s * s)))
    least = math.exp(-0.5 * s * s + s * float(special.ndtri(_UNLIKELY ** (1 / batches))))
    step = max(min(spread / _FINE, least), 18.0 * spread * math.sqrt(batches) / _MOST)
    low = math.exp(-0.5 * s * s - _LOW * s)
    body = cap if cap - low < _ENOUGH * step else min(body, low + _CELLS * step)
    return math.ceil(body / (_FACTOR * step)) * _FACTOR, step


def cut_off(batches: int, noise_multiplier: float, cap: float) -> float:
    """More than the chance under Q that some X is larger than `cap`."""
    return batches * float(_above_q(math.log(cap), 1.0 / noise_multiplier))


def tail(batches: int, noise_multiplier: float, cap: float, kappa: np.ndarray) -> np.ndarray:
    """A bound on E[(R - kappa)_+] where some X is larger than `cap`.

    (R - k)_+ is at most the mean of (X_i - k)_+, and any of t terms may be the one.
    """
    s = 1.0 / noise_multiplier
    log_k, log_cap = np.log(kappa), math.log(cap)
    log_far = np.maximum(log_k, log_cap)
    alone = _above_p(log_far, s) - kappa * _above_q(log_far, s)
    call = _above_p(log_k, s) - kappa * _above_q(log_k, s)
    return np.maximum(alone, 0.0) + (batches - 1) * float(_above_q(log_cap, s)) * call


def _above_q(log_x: np.ndarray | float, s: float) -> np.ndarray:
    return special.ndtr(-(np.asarray(log_x) + 0.5 * s * s) / s)


def _above_p(log_x: np.ndarray | float, s: float) -> np.ndarray:
    return special.ndtr(-(np.asarray(log_x) - 0.5 * s * s) / s)


def _pieces(s: float, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P's and Q's mass of X between neighbouring edges, each from its smaller tail."""
    with np.errstate(divide="ignore"):
        log_x = np.log(edges)
    out = []
    for shift in (-0.5, 0.5):
        z = log_x / s + shift * s
        left, right = np.diff(special.ndtr(z)), -np.diff(special.ndtr(-z))
        out.append(np.where(z[1:] < 0, left, right))
    return out[0], out[1]


def _placed(s: float, step: float, low: int, high: int, upper: bool) -> np.ndarray:
    """Q's masses of the X between two grid points, at the points 0 .. high."""
    nodes = np.arange(low, high + 1)
    out = np.zeros(high + 1)
    if upper:
        out[low:] = _split(*_pieces(s, step * nodes), nodes, step)
    else:
        halves = _pieces(s, step * np.arange(2 * low, 2 * high + 1) / 2)
        out[low:] = _gathered(*halves, nodes, step)
    return out


def _split(p: np.ndarray, q: np.ndarray, nodes: np.ndarray, step: float) -> np.ndarray:
    """Each cell's mass on its two ends, its mean kept."""
    right = np.minimum(np.maximum(p / step - nodes[:-1] * q, 0.0), q)
    return np.append(q - right, 0.0) + np.append(0.0, right)


def _gathered(half_p: np.ndarray, half_q: np.ndarray, nodes: np.ndarray, step: float) -> np.ndarray:
    """Masses below in the convex order: their call lies under its tangents at half-way points.

    A point is lowered by the most that either neighbouring tangent lies under the call there; at
    the ends it rests on the lines that every call is above; then the convex minorant is taken.
    """
    mass = _split(half_p[::2] + half_p[1::2], half_q[::2] + half_q[1::2], nodes, step)
    after = half_p[::2] / step - nodes[:-1] * half_q[::2]  # E[X - x; the half cell right of x]
    ahead = nodes[1:] * half_q[1::2] - half_p[1::2] / step
    drop = np.maximum(np.append(after, 0.0), np.append(0.0, ahead))
    below = np.append(0.0, np.cumsum(mass)[:-1])
    put = np.cumsum(below)
    beyond = np.append(np.cumsum(mass[::-1])[::-1][1:], 0.0)
    call = np.cumsum(beyond[::-1])[::-1]
    first = int(np.append(0, np.flatnonzero(drop[:-1] >= put[:-1]) + 1)[-1])
    last = int(np.append(np.flatnonzero(drop[1:] >= call[1:]), len(drop) - 1)[0])
    if last - first < 4:  # too few cells to gather into: what is left out only lowers
        return np.zeros(len(mass))
    drop[: first + 1], drop[last:] = put[: first + 1], call[last:]
    lowered = mass - np.diff(drop, 2, prepend=0.0, append=0.0)
    if np.any(lowered < -1e-12 * mass):
        lowered = _minorant(lowered, 1e-12 * mass)
    return np.maximum(lowered, 0.0)


def _minorant(lowered: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """Masses of the greatest convex function below: a place of negative mass is none.

    Its mass goes to the places on both sides, mean kept, as when a corner is cut off.
    """
    mass, size = lowered.tolist(), len(lowered)
    before, after = list(range(-1, size - 1)), list(range(1, size + 1))
    queue = np.flatnonzero(lowered < -slack).tolist()
    while queue:
        i = queue.pop()
        j, k = before[i], after[i]
        if mass[i] >= -slack[i]:
            continue
        if j < 0 or k >= size:  # no such function: nothing is below everything
            return np.zeros(size)
        share = (i - j) / (k - j)
        mass[j] += (1 - share) * mass[i]
        mass[k] += share * mass[i]
        mass[i] = 0.0
        after[j], before[k] = k, j
        queue += [j, k]
    return np.array(mass)


def _level(parts: list[np.ndarray], step: float, batches: int) -> Level:
    """R's law where the largest term lies in the last part, by powers of transforms."""
    whole = parts[0].copy() if len(parts) == 1 else parts[1].copy()
    if len(parts) > 1:
        whole[: len(parts[0])] += parts[0]
    if not whole.any():
        return Level(0.0, 1.0, np.zeros(2), np.zeros(2), 0.0, 0.0)
    low, high = _window(whole, step, batches)
    size = fft.next_fast_len(high - low + 1, real=True)
    laws = _power(whole, step, batches, size)
    if len(parts) > 1:
        laws = laws - _power(parts[0], step, batches, size)
    p, q = np.maximum(np.roll(laws, -(low % size), axis=1), 0.0)
    # Each is exact where it is the larger one; R is the ratio of the two.
    ratio = (low + np.arange(size)) / batches * step
    p = np.where(ratio < 1, ratio * q, p)
    q = np.where(ratio < 1, q, p / np.maximum(ratio, 1.0))
    return _summed(low, step / batches, p, q)


def _one_jump(s: float, jump: np.ndarray, start: int, step: float, batches: int) -> Level:
    """From below: one term alone beyond `start`, the others gathered into their mean."""
    log_cut = math.log(start * step)
    stay = 1.0 - float(_above_q(log_cut, s))
    others = (batches - 1) * (1.0 - float(_above_p(log_cut, s))) / stay
    first = others / step
    q = batches * jump * stay ** (batches - 1)
    return _summed(first, step / batches, (first + np.arange(len(q))) * step / batches * q, q)


def _summed(first: float, grain: float, p: np.ndarray, q: np.ndarray) -> Level:
    """A level from the masses at its points."""
    tail = np.append(np.cumsum(q[::-1])[::-1][1:], 0.0)
    below = np.append(0.0, np.cumsum(q)[:-1])
    return Level(
        first=first,
        step=grain,
        call=np.cumsum(tail[::-1])[::-1] * grain,
        put=np.cumsum(below) * grain,
        p=float(p.sum()),
        q=float(q.sum()),
    )


def _power(mass: np.ndarray, step: float, batches: int, size: int) -> np.ndarray:
    """The sum's laws: one term under P and all others under Q, and all under Q. (2, size)."""
    place = np.arange(len(mass))
    both = np.zeros((2, size))
    for row, weights in enumerate((step * place * mass, mass)):
        both[row] = np.bincount(place % size, weights, size)
    waves = fft.rfft(both, axis=1)
    square, others = waves[1].copy(), batches - 1
    while others:
        if others & 1:
            waves *= square
        others >>= 1
        if others:
            square = square * square
    return fft.irfft(waves, size, axis=1)


def _window(mass: np.ndarray, step: float, batches: int) -> tuple[int, int]:
    """Indices of the sum that hold all but e^-38 of P's mass on each side (Chernoff)."""
    at = np.flatnonzero(mass)
    q, p = mass[at], mass[at] * at * step
    mean = float(q @ at) / float(q.sum())
    spread = math.sqrt(batches * float(q @ (at - mean) ** 2) + 1.0)
    # Light tails want a rate near 9 / spread, a single jump wants one near 40 / its size.
    slow = min(9.0 / spread, 40.0 / float(at[-1] - at[0] + 1))
    rates = np.geomspace(0.2 * slow, 18.0 / spread, 24)
    rates = rates[rates * float(at[-1] - at[0]) < 600.0]
    edges = []
    for sign in (-1.0, 1.0):
        grown = np.exp(sign * np.multiply.outer(rates, at - mean))
        log = np.log(grown @ p) + (batches - 1) * np.log(grown @ q)
        edges.append(batches * mean + sign * float(np.min((log + 38.0) / rates)))
    low = max(math.floor(edges[0]) - 1, int(at[0]) * batches)
    high = min(math.ceil(edges[1]) + 1, int(at[-1]) * batches)
    return low, high
