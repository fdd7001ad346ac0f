"""Two sides around the exact composition: losses laid on a grid, composed by Fourier transform.

The upper grid joins the profile's points by lines, the lower one stays under its tangents
(`mechanisms.grid`), so the true curve lies between. The masses are tilted by e^(c L) before they
are transformed: rounding then stays relative to the tail that is asked for, however thin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from dpkit.mechanisms import Mechanism, tangents
from dpkit.mechanisms import grid as grids

_MOST = 1 << 20  # cells of one window; beyond it the grid gets coarser, and the gap wider
_FEW, _MANY = 1 << 12, 1 << 17  # cells: what is spent at least, and to resolve the bulk
_OUTSIDE = 32.0  # each side of the window holds less than e^-32 of the tilted mass
_SHARE = 2e-4  # the bracket that is aimed at, as a share of epsilon
_THIN, _REACH = -80.0, 10.0  # log deltas: too thin to care for, and what one tilt serves
_NOISE = 1e-10  # what rounding in the transform may add to a tail, as a share

Counts = Sequence[int]
Pairs = Sequence[Mechanism]


@dataclass(frozen=True)
class Composed:
    """A composed privacy loss on a grid; a mass is e^(log_scale - tilt * loss) times `tilted`."""

    losses: np.ndarray
    tilted: np.ndarray
    tilt: float
    log_scale: float
    infinite: float
    upper: bool

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
        at = np.maximum(epsilon, self.losses[0])
        fold = 2 * np.exp(np.minimum(self.log_scale - self.tilt * at - _OUTSIDE, 0.0))
        if self.upper:
            return np.minimum(self.infinite + value * (1 + _NOISE) + fold, 1.0)
        return np.maximum(value * (1 - _NOISE) - fold, 0.0)

    def epsilon(self, delta: float) -> float:
        """Where delta is met, on this grid's side; infinite if it never is."""
        if self.infinite >= delta:
            return math.inf
        values = self._rounded(self._values(slice(1, None), self.losses), self.losses)
        # Far left the allowance for folded mass drowns the lower side: look from the right.
        index = int(np.append(-1, np.flatnonzero(values > delta))[-1]) + 1
        if index == 0:
            return float(self.losses[0])
        if index == len(values):
            return math.inf if self.upper else float(self.losses[-1])
        low, high = float(self.losses[index - 1]), float(self.losses[index])
        above, below = float(values[index - 1]), float(values[index])
        # Between two points delta is a line in e^eps.
        share = (above - delta) / (above - below) if above > below else 1.0
        return low + math.log1p(share * math.expm1(high - low))


@dataclass(frozen=True)
class Layout:
    """What one direction needs: the tilt, the grid's step, and each mechanism's range of cells."""

    tilt: float
    step: float
    ranges: tuple[tuple[int, int], ...]


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


def laid_out(
    mechanisms: Pairs,
    counts: Counts,
    delta: float,
    tilt: float | None = None,
    fine: bool = False,
) -> Layout | None:
    """A tilt near the saddle, and a step whose bracket is about `_SHARE` of epsilon wide.

    A fine one also resolves the bulk of one loss, which only the lower side needs.
    """
    total = sum(counts)
    spans = [_span(mechanism, 1e-6 * delta / total) for mechanism in mechanisms]
    if any(math.isinf(sum(span)) for span in spans):
        return None
    saddle, eps, spread = _saddle(mechanisms, counts, spans, delta)
    wanted = _SHARE * max(eps, 1e-3 / saddle)
    step = math.sqrt(8 * wanted / (total * saddle))
    widest = max(max(sum(span) for span in spans), 24 * spread)
    step = min(step, widest / _FEW)
    if fine:
        core = min(_core(mechanism) for mechanism in mechanisms)
        step = min(step, max(core / 2, widest / _MANY))
    step = max(step, widest / _MOST)
    step = _aligned(mechanisms, counts, step)
    cells = tuple(_cells(m, span, step) for m, span in zip(mechanisms, spans, strict=True))
    return Layout(saddle if tilt is None else tilt, step, cells)


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
        exponent = layout.tilt * part.losses
        top = float(exponent[part.mass > 0].max())
        mass = part.mass * np.exp(np.minimum(exponent - top, 0.0))
        size = float(mass.sum())
        if not size > 0.0:  # nothing but rounding is left under this tilt
            return None
        log_scale += count * (top + math.log(size))
        tilted.append(mass / size)
    low, high = _window(parts, tilted, counts)
    if high - low > 4 * _MOST:
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


def _saddle(
    mechanisms: Pairs, counts: Counts, spans: Sequence[tuple[float, float]], delta: float
) -> tuple[float, float, float]:
    """Where Chernoff's bound is least, its epsilon, and the spread there, from coarse grids."""
    rough = [_rough(m, span) for m, span in zip(mechanisms, spans, strict=True)]
    tilts = np.geomspace(1e-3, 3e4, 100) / _scale(rough, counts)
    logs, variance = np.zeros(len(tilts)), np.zeros(len(tilts))
    for (losses, masses), count in zip(rough, counts, strict=True):
        with np.errstate(divide="ignore"):
            exponent = np.multiply.outer(tilts, losses) + np.log(masses)
        top = exponent.max(axis=1, keepdims=True)
        tilted = np.exp(exponent - top)
        size = tilted.sum(axis=1)
        logs += count * (top[:, 0] + np.log(size))
        mean = (tilted * losses).sum(axis=1) / size
        variance += count * (tilted * (losses - mean[:, None]) ** 2).sum(axis=1) / size
    bound = logs - math.log(delta) + tilts * np.log(tilts) - (1 + tilts) * np.log1p(tilts)
    bound /= tilts
    best = int(np.argmin(bound))
    return float(tilts[best]), max(float(bound[best]), 0.0), math.sqrt(variance[best])


def _span(mechanism: Mechanism, tail: float) -> tuple[float, float]:
    """How far the loss reaches to the left and to the right, but for this tail."""
    return grids.reach(mechanism.reverse_profile, tail), grids.reach(mechanism.profile, tail)


def _core(mechanism: Mechanism) -> float:
    """About 0.4 standard deviations of the bulk of one loss, whatever its tails: delta(0)."""
    return max(float(mechanism.profile(np.zeros(1))[0]), 1e-300)


def _rough(mechanism: Mechanism, span: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A coarse grid from above, to find the tilt with."""
    step = sum(span) / 400
    masses = grids.above(mechanism, step, *_cells(mechanism, span, step))
    return masses.losses, np.maximum(masses.mass, 0.0)


def _scale(rough: list[tuple[np.ndarray, np.ndarray]], counts: Counts) -> float:
    """The standard deviation of the composed loss, roughly."""
    total = 0.0
    for (losses, masses), count in zip(rough, counts, strict=True):
        size = float(masses.sum())
        mean = float(np.sum(masses * losses)) / size
        total += count * float(np.sum(masses * (losses - mean) ** 2)) / size
    return math.sqrt(max(total, 1e-300))


def _cells(mechanism: Mechanism, span: tuple[float, float], step: float) -> tuple[int, int]:
    """Cells to the left and right of a grid's origin; the outermost are given away below."""
    origin = grids.origin_of(mechanism)
    low, high = span[0] + origin, span[1] - origin
    return max(math.ceil(low / step), 0) + 3, max(math.ceil(high / step), 0) + 3


def _aligned(mechanisms: Pairs, counts: Counts, step: float) -> float:
    """A step no larger that puts the anchors of the most frequent release on grid points.

    Its first anchor is its grid's origin and its second can always be met; among the steps that
    do, the one is taken that brings the others closest to a grid point from above.
    """
    pairs = sorted(zip(counts, mechanisms, strict=True), key=lambda pair: -pair[0])
    for _, mechanism in pairs:
        away = np.abs(np.array(mechanism.anchors[1:]) - grids.origin_of(mechanism))
        away = away[away > step / 2]
        if len(away):
            unit = float(away.min())
            least = math.ceil(unit / step - 1e-9)
            steps = unit / np.arange(least, least + 64 + least // 2)
            off = np.mod(np.divide.outer(away, steps) + 1e-7, 1.0).max(axis=0)
            return float(steps[int(np.argmin(np.round(off, 6)))])
    return step
