"""Where the grids of a composition are laid: their tilt, their step and how far they reach."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dpkit.mechanisms import Mechanism
from dpkit.mechanisms import grid as grids

MOST = 1 << 20  # cells of one window; beyond it the grid gets coarser, and the gap wider
_FEW, _MANY = 1 << 12, 1 << 17  # cells: what is spent at least, and to resolve the bulk
_EMPTY = 30.0  # an epsilon that promises nothing: its lower side is not worth a million cells
_SHARE = 2e-4  # the bracket that is aimed at, as a share of epsilon

Counts = Sequence[int]
Pairs = Sequence[Mechanism]


@dataclass(frozen=True)
class Layout:
    """What one direction needs: the tilt, the grid's step, and each mechanism's range of cells."""

    tilt: float
    step: float
    ranges: tuple[tuple[int, int], ...]


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
        step = min(step, max(core / 2, widest / (MOST if eps < _EMPTY else _MANY)))
    step = max(step, widest / MOST)
    step = _aligned(mechanisms, counts, step)
    cells = tuple(_cells(m, span, step) for m, span in zip(mechanisms, spans, strict=True))
    return Layout(saddle if tilt is None else tilt, step, cells)


def added(mechanisms: Pairs, counts: Counts, delta: float) -> tuple[float, float]:
    """More than epsilon of the two directions: every loss where 1e-6 of delta is left of all.

    As the epsilons of a composition add up in each direction by itself.
    """
    tail = 1e-6 * delta / sum(counts)
    ahead = back = 0.0
    for mechanism, count in zip(mechanisms, counts, strict=True):
        left, right = _span(mechanism, tail)
        ahead += count * _checked(mechanism.profile, right, tail)
        back += count * _checked(mechanism.reverse_profile, left, tail)
    return ahead, back


def _checked(profile: Callable[[np.ndarray], np.ndarray], end: float, tail: float) -> float:
    """An end of a loss, with room for rounding; infinite if more than the tail lies beyond it."""
    at = end * (1 + 1e-9)
    return at if at < math.inf and float(profile(np.array([at]))[0]) <= tail else math.inf


def _saddle(
    mechanisms: Pairs, counts: Counts, spans: Sequence[tuple[float, float]], delta: float
) -> tuple[float, float, float]:
    """Where Chernoff's bound is least, its epsilon, and the spread there, from coarse grids."""
    rough = [_rough(m, span) for m, span in zip(mechanisms, spans, strict=True)]
    # A loss that hardly ever moves, and then far, wants a tilt by its reach, not by its spread.
    scale = _scale(rough, counts)
    tilts = np.geomspace(min(1e-3 / scale, 0.05 / max(map(sum, spans))), 3e4 / scale, 120)
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


@functools.lru_cache(maxsize=4096)
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
