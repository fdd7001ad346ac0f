"""Two sides around the exact composition: losses laid on a grid, composed by Fourier transform.

The upper grid joins the profile's points by lines, the lower one stays under its tangents
(`mechanisms.grid`), so the true curve lies between. The masses are tilted by e^(c L) before they
are transformed: rounding then stays relative to the tail that is asked for, however thin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dpkit.accountants.layout import MOST, Counts, Layout, Pairs, added, laid_out
from dpkit.later import fft
from dpkit.mechanisms import grid as grids
from dpkit.mechanisms import tangents

_OUTSIDE = 32.0  # each side of the window holds less than e^-32 of the tilted mass
_THIN, _REACH = -80.0, 10.0  # log deltas: too thin to care for, and what one tilt serves
_OVERFLOWS = 700.0  # a cell so wide that e to it is no number
_NOISE = 1e-10  # what rounding in the transform may add to a tail, as a share
_EACH = 2.0**-50  # ... and for each release, as a share of the tail and of all tilted mass


@dataclass(frozen=True)
class Composed:
    """A composed privacy loss on a grid; a mass is e^(log_scale - tilt * loss) times `tilted`."""

    losses: np.ndarray
    tilted: np.ndarray
    tilt: float
    log_scale: float
    infinite: float
    upper: bool
    releases: int

    def deltas(self, epsilon: np.ndarray) -> np.ndarray:
        """delta at each epsilon, on the side that this grid stands for."""
        index = np.searchsorted(self.losses, epsilon, side="right")
        return self._rounded(self._values(index, epsilon), np.asarray(epsilon))

    def _values(self, index: np.ndarray | slice, epsilon: np.ndarray) -> np.ndarray:
        """delta at each epsilon; `index` names the first loss above it, N for none."""
        origin = float(np.sum(self.losses * self.tilted) / np.sum(self.tilted))
        first, second = (np.append(sums, 0.0)[index] for sums in self._tails(origin))
        ahead = np.append(self.losses, self.losses[-1])[index]
        value = np.maximum(first - np.exp(np.minimum(epsilon - ahead, 0.0)) * second, 0.0)
        with np.errstate(divide="ignore"):
            log_value = np.log(value) + (self.log_scale - self.tilt * origin)
        return np.exp(np.minimum(log_value, 0.0))

    def _tails(self, origin: float) -> tuple[np.ndarray, np.ndarray]:
        """Sums over j >= i of the masses m_j and of m_j e^(l_i - l_j), scaled about an origin."""
        count = len(self.tilted)
        step = float(self.losses[1] - self.losses[0]) if count > 1 else 1.0
        # Beyond e^600 lies only what no delta worth asking for can reach.
        weight = self.tilted * np.exp(np.clip(-self.tilt * (self.losses - origin), -700, 600))
        first = np.cumsum(weight[::-1])[::-1]
        # e^(l_i - l_j) in pieces of length 200, which do not overflow; two are enough.
        size = min(max(int(200.0 / step), 1), count)
        pieces = np.append(weight, np.zeros(-count % size)).reshape(-1, size)
        near = step * np.arange(size)
        part = np.cumsum((pieces * np.exp(-near))[:, ::-1], axis=1)[:, ::-1]
        ahead = np.append(part[1:, 0], 0.0) * math.exp(-min(step * size, 700.0))
        second = (part + ahead[:, None]) * np.exp(near)
        return first, second.ravel()[:count]

    def _rounded(self, value: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
        """Outward: rounding, and the mass that the window left out or folded in."""
        at, rounding = np.maximum(epsilon, self.losses[0]), _EACH * self.releases
        lost = math.log(2 * math.exp(-_OUTSIDE) + rounding)
        fold = np.exp(np.minimum(self.log_scale - self.tilt * at + lost, 0.0))
        noise = _NOISE + rounding
        if self.upper:
            return np.minimum(self.infinite + value * (1 + noise) + fold, 1.0)
        return np.maximum(value * (1 - noise) - fold, 0.0)

    def epsilon(self, delta: float) -> float:
        """Where delta is met, on this grid's side; infinite if it never is."""
        if self.infinite >= delta:
            return math.inf
        values = self._rounded(self._values(slice(1, None), self.losses), self.losses)
        # Far left the allowance for folded mass drowns the lower side: look from the right.
        index = int(np.append(-1, np.flatnonzero(values > delta))[-1]) + 1
        if index == 0:  # met at every loss of the window: from below that proves nothing
            return float(self.losses[0]) if self.upper else 0.0
        if index == len(values):
            return math.inf if self.upper else float(self.losses[-1])
        low, high = float(self.losses[index - 1]), float(self.losses[index])
        above, below = float(values[index - 1]), float(values[index])
        # Between two points delta is a line in e^eps.
        share = (above - delta) / (above - below) if above > below else 1.0
        if high - low > _OVERFLOWS:
            return high if self.upper else low
        return low + math.log1p(share * math.expm1(high - low))


def worse(
    side: Callable[..., float],
    directions: Sequence[Pairs],
    counts: Counts,
    delta: float,
    *more: Any,
) -> float:
    """The larger `upper` or `lower` of the directions; none is asked whose losses add up to less.

    Its grid may want a million cells, for an answer that nobody hears.
    """
    most = added(directions[0], counts, delta)
    order = sorted(range(len(directions)), key=lambda i: -most[i])
    found = side(directions[order[0]], counts, delta, *more)
    for i in order[1:]:
        if most[i] > found:
            found = max(found, side(directions[i], counts, delta, *more))
    return found


def upper(mechanisms: Pairs, counts: Counts, delta: float) -> float:
    """Upper epsilon of one direction; infinite if the losses reach too far."""
    layout = laid_out(mechanisms, counts, delta)
    side = composed(mechanisms, counts, layout, True) if layout else None
    return max(side.epsilon(delta), 0.0) if side else math.inf


def lower(mechanisms: Pairs, counts: Counts, delta: float, above: float) -> float:
    """Lower epsilon of one direction; `above` is the upper one, to see how good it is."""
    layout = laid_out(mechanisms, counts, delta, fine=True)
    side = composed(mechanisms, counts, layout, False) if layout else None
    best = max(side.epsilon(delta), 0.0) if side else 0.0
    if layout and best < 0.98 * above < math.inf:
        # Joined dots move no loss by more than a cell: a cell lower they are below the truth.
        side = composed(mechanisms, counts, layout, True)
        if side:
            low = replace(side, upper=False, infinite=0.0).epsilon(delta)
            best = max(best, low - layout.step * sum(counts))
    return best


def deltas(mechanisms: Pairs, counts: Counts, epsilon: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Upper deltas at each epsilon of one direction, each with a tilt near its own saddle.

    `above` bounds log delta from above; where it is below `_THIN` it is the answer.
    """
    above = np.minimum(above, 0.0)
    out, tries = np.exp(above), np.zeros(len(above), dtype=int)
    rest = above > _THIN
    while rest.any():
        near = rest & (above >= float(above[rest].max()) - _REACH)
        aim = 0.5 * (float(above[near].max()) + float(above[near].min())) - 0.5
        layout = laid_out(mechanisms, counts, math.exp(aim))
        side = composed(mechanisms, counts, layout, True) if layout else None
        found = side.deltas(np.minimum(epsilon[near], 1e300)) if side else out[near]
        out[near] = np.minimum(out[near], found)
        above[near] = np.log(np.maximum(out[near], 1e-300))
        # Where the truth lies far below the first bound the tilt was not its own: once more.
        tries[near] += 1
        rest &= ~near | ((above < aim - 3.0) & (tries < 3) & (above > _THIN))
    return out


def composed(mechanisms: Pairs, counts: Counts, layout: Layout, upper: bool) -> Composed | None:
    """Compose all releases on one side of the bracket; None if that takes too wide a window."""
    lay = grids.above if upper else tangents.below
    parts = [
        lay(mechanism, layout.step, low, high)
        for mechanism, (low, high) in zip(mechanisms, layout.ranges, strict=True)
    ]
    log_finite = sum(
        count * math.log1p(-min(part.infinite, 1 - 1e-16))
        for part, count in zip(parts, counts, strict=True)
    )
    tilted, log_scale = [], 0.0
    for part, count in zip(parts, counts, strict=True):
        exponent, there = layout.tilt * part.losses, part.mass > 0
        if not there.any():  # all of it is infinite
            return None
        top = float(exponent[there].max())
        mass = part.mass * np.exp(np.minimum(exponent - top, 0.0))
        size = float(mass.sum())
        if not size > 0.0:  # nothing but rounding is left under this tilt
            return None
        log_scale += count * (top + math.log(size))
        tilted.append(mass / size)
    low, high = _window(parts, tilted, counts)
    if high - low > 4 * MOST:
        return None
    size = fft.next_fast_len(high - low + 1, real=True)
    origin = math.fsum(c * part.origin for part, c in zip(parts, counts, strict=True))
    return Composed(
        losses=origin + layout.step * np.arange(low, low + size),
        tilted=np.roll(_power(parts, tilted, counts, size), -(low % size)),
        tilt=layout.tilt,
        log_scale=log_scale,
        infinite=-math.expm1(log_finite),
        upper=upper,
        releases=sum(counts),
    )


def _power(
    parts: list[grids.Masses], tilted: list[np.ndarray], counts: Counts, size: int
) -> np.ndarray:
    """Circular convolution of all masses, each to the power of its count."""
    spectrum = np.ones(size // 2 + 1, dtype=complex)
    for part, mass, count in zip(parts, tilted, counts, strict=True):
        index = (part.first + np.arange(len(mass))) % size
        base = fft.rfft(np.bincount(index, weights=mass, minlength=size))
        while count:
            if count & 1:
                spectrum *= base
            count >>= 1
            if count:
                base = base * base
    return fft.irfft(spectrum, size)


def _window(parts: list[grids.Masses], tilted: list[np.ndarray], counts: Counts) -> tuple[int, int]:
    """Grid indices that hold all but e^-32 of the tilted mass on each side (Chernoff)."""
    variance = 0.0
    for part, mass, count in zip(parts, tilted, counts, strict=True):
        index = part.first + np.arange(len(mass))
        mean = float(np.sum(mass * index))
        variance += count * float(np.sum(mass * (index - mean) ** 2))
    spread = math.sqrt(max(variance, 1.0))
    edges = []
    for sign in (-1.0, 1.0):
        best, slope = math.inf, 6.0 / spread
        for _ in range(40):  # a heavy tail needs a gentler slope: halve it while that helps
            now = (_cumulant(parts, tilted, counts, sign * slope) + _OUTSIDE) / slope
            if now >= best:
                break
            best, slope = now, slope / 2
        edges.append(sign * best)
    least = sum(c * p.first for p, c in zip(parts, counts, strict=True))
    most = sum(c * (p.first + len(p.mass) - 1) for p, c in zip(parts, counts, strict=True))
    return max(math.floor(edges[0]) - 2, least), min(math.ceil(edges[1]) + 2, most)


def _cumulant(
    parts: list[grids.Masses], tilted: list[np.ndarray], counts: Counts, a: float
) -> float:
    total = 0.0
    for part, mass, count in zip(parts, tilted, counts, strict=True):
        with np.errstate(divide="ignore"):
            exponent = a * (part.first + np.arange(len(mass))) + np.log(np.maximum(mass, 0.0))
        top = float(exponent.max())
        total += count * (top + math.log(float(np.sum(np.exp(exponent - top)))))
    return total
