"""Two sides around the exact composition: losses laid on a grid, composed by Fourier transform.

The upper grid joins the profile's points by lines, the lower one stays under its tangents
(`mechanisms.grid`), so the true curve lies between. The masses are tilted by e^(c L) before they
are transformed: rounding then stays relative to the tail that is asked for, however thin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from dpkit.mechanisms import Mechanism
from dpkit.mechanisms import grid as grids

_MOST = 1 << 20  # cells of one window; beyond it the grid gets coarser, and the gap wider
_OUTSIDE = 32.0  # each side of the window holds less than e^-32 of the tilted mass
_NOISE = 1e-10  # what rounding in the transform may add to a tail, as a share


@dataclass(frozen=True)
class Composed:
    """A composed privacy loss: masses on a grid, as mass = e^(log_scale - tilt * loss) tilted."""

    losses: np.ndarray
    tilted: np.ndarray
    tilt: float
    log_scale: float
    infinite: float
    upper: bool

    def _tails(self) -> tuple[np.ndarray, np.ndarray, float]:
        """sum_{l >= e} m and sum_{l >= e} m e^(e0 - l), scaled by e^(-log_scale + tilt e0)."""
        origin = float(self.losses[0])
        away = self.losses - origin
        weight = self.tilted * np.exp(-self.tilt * away)
        first = np.cumsum(weight[::-1])[::-1]
        second = np.cumsum((weight * np.exp(-away))[::-1])[::-1]
        return first, second, origin

    def deltas(self, epsilon: np.ndarray) -> np.ndarray:
        """delta at each epsilon, on the side that this grid stands for."""
        first, second, origin = self._tails()
        scale = math.exp(min(self.log_scale - self.tilt * origin, 700.0))
        index = np.searchsorted(self.losses, epsilon, side="right")
        inside = index < len(self.losses)
        at = np.minimum(index, len(self.losses) - 1)
        grown = np.exp(np.minimum(epsilon - origin, 700.0))
        value = np.where(inside, scale * (first[at] - grown * second[at]), 0.0)
        return self._rounded(np.maximum(value, 0.0), np.asarray(epsilon))

    def _rounded(self, value: np.ndarray, epsilon: np.ndarray) -> np.ndarray:
        """Outward: rounding, and the mass that the window left out or folded in."""
        at = np.maximum(epsilon, self.losses[0])
        fold = np.exp(np.minimum(self.log_scale - self.tilt * at - _OUTSIDE, 0.0))
        if self.upper:
            return np.minimum(self.infinite + value * (1 + _NOISE) + 2 * fold, 1.0)
        return np.maximum(value * (1 - _NOISE) - 2 * fold, 0.0)

    def epsilon(self, delta: float) -> float:
        """Where delta is met, on this grid's side; infinite if it never is."""
        if self.infinite >= delta:
            return math.inf
        values = self.deltas(self.losses)
        index = int(np.searchsorted(-values, -delta, side="left"))
        if index == 0:
            return float(self.losses[0])
        if index == len(values):
            return math.inf if self.upper else float(self.losses[-1])
        low, high = self.losses[index - 1], self.losses[index]
        above, below = float(values[index - 1]), float(values[index])
        # Between two points delta is a line in e^eps.
        share = (above - delta) / (above - below) if above > below else 1.0
        return float(low + math.log1p(share * math.expm1(high - low)))


@dataclass(frozen=True)
class Plan:
    """What one direction needs: the tilt, the grid's step, and each mechanism's range of cells."""

    tilt: float
    step: float
    ranges: tuple[tuple[int, int], ...]


def planned(
    mechanisms: Sequence[Mechanism],
    counts: Sequence[int],
    delta: float,
    share: float,
    gap: float = math.inf,
) -> Plan | None:
    """A tilt near the saddle and a step whose bracket is about min(gap, share * eps) wide."""
    total = sum(counts)
    spans = [_span(mechanism, 1e-7 * delta / total) for mechanism in mechanisms]
    if any(span is None for span in spans):
        return None
    rough = [_rough(m, span) for m, span in zip(mechanisms, spans, strict=True)]
    tilts = np.concatenate([[1e-9], np.geomspace(1e-3, 3e4, 100) / _scale(rough, counts)])
    logs = np.zeros(len(tilts))
    for (losses, masses), count in zip(rough, counts, strict=True):
        exponent = np.multiply.outer(tilts, losses)
        top = exponent.max(axis=1, keepdims=True)
        logs += count * (top[:, 0] + np.log((masses * np.exp(exponent - top)).sum(axis=1)))
    with np.errstate(divide="ignore"):
        bound = (logs - math.log(delta) + tilts * np.log(tilts)) / tilts
    bound -= (1 + tilts) * np.log1p(tilts) / tilts
    best = int(np.argmin(bound))
    tilt, eps = float(tilts[best]), max(float(bound[best]), 0.0)
    wanted = min(gap, share * max(eps, 1e-3 / tilt))
    step = math.sqrt(4 * wanted / (total * tilt))
    step = min(step, min(sum(span) for span in spans) / 64)
    step = max(step, max(sum(span) for span in spans) / _MOST)
    step = _aligned(mechanisms, step)
    cells = tuple((_cells(low, step), _cells(high, step)) for low, high in spans)
    return Plan(tilt, step, cells)


def composed(
    mechanisms: Sequence[Mechanism], counts: Sequence[int], plan: Plan, upper: bool
) -> Composed:
    """Compose all releases on one side of the bracket."""
    lay = grids.above if upper else grids.below
    parts = [
        lay(mechanism, plan.step, low, high)
        for mechanism, (low, high) in zip(mechanisms, plan.ranges, strict=True)
    ]
    log_finite = sum(
        count * math.log1p(-min(part.infinite, 1 - 1e-16))
        for part, count in zip(parts, counts, strict=True)
    )
    tilted, scales = [], 0.0
    for part, count in zip(parts, counts, strict=True):
        exponent = plan.tilt * part.losses
        top = float(exponent[part.mass > 0].max())
        mass = part.mass * np.exp(np.minimum(exponent - top, 0.0))
        size = float(mass.sum())
        scales += count * (top + math.log(size))
        tilted.append(mass / size)
    low, high = _window(parts, tilted, counts)
    size = fft.next_fast_len(high - low + 1, real=True)
    total = _power(parts, tilted, counts, size)
    return Composed(
        losses=plan.step * np.arange(low, low + size),
        tilted=np.roll(total, -(low % size)),
        tilt=plan.tilt,
        log_scale=scales,
        infinite=-math.expm1(log_finite),
        upper=upper,
    )


def _power(
    parts: list[grids.Masses], tilted: list[np.ndarray], counts: Sequence[int], size: int
) -> np.ndarray:
    """Circular convolution of all masses, each to the power of its count."""
    spectrum = np.ones(size // 2 + 1, dtype=complex)
    for part, mass, count in zip(parts, tilted, counts, strict=True):
        index = (part.first + np.arange(len(mass))) % size
        folded = np.bincount(index, weights=mass, minlength=size)
        base = fft.rfft(folded)
        while count:
            if count & 1:
                spectrum *= base
            count >>= 1
            if count:
                base = base * base
    return fft.irfft(spectrum, size)


def _window(
    parts: list[grids.Masses], tilted: list[np.ndarray], counts: Sequence[int]
) -> tuple[int, int]:
    """Grid indices that hold all but e^-32 of the tilted mass on each side (Chernoff)."""
    mean, variance = 0.0, 0.0
    for part, mass, count in zip(parts, tilted, counts, strict=True):
        index = part.first + np.arange(len(mass))
        middle = float(np.sum(mass * index))
        mean += count * middle
        variance += count * float(np.sum(mass * (index - middle) ** 2))
    spread = math.sqrt(max(variance, 1.0))
    edges = []
    for sign in (-1, 1):
        reach = [
            (_cumulant(parts, tilted, counts, sign * a / spread) + _OUTSIDE) * spread / a
            for a in (1.0, 2.0, 4.0, 8.0)
        ]
        edges.append(sign * min(reach))
    low, high = math.floor(edges[0]) - 2, math.ceil(edges[1]) + 2
    least = sum(c * p.first for p, c in zip(parts, counts, strict=True))
    most = sum(c * (p.first + len(p.mass) - 1) for p, c in zip(parts, counts, strict=True))
    return max(low, least), min(high, most)


def _cumulant(
    parts: list[grids.Masses], tilted: list[np.ndarray], counts: Sequence[int], a: float
) -> float:
    total = 0.0
    for part, mass, count in zip(parts, tilted, counts, strict=True):
        with np.errstate(divide="ignore"):
            exponent = a * (part.first + np.arange(len(mass))) + np.log(np.maximum(mass, 0.0))
        top = float(exponent.max())
        total += count * (top + math.log(float(np.sum(np.exp(exponent - top)))))
    return total


def _span(mechanism: Mechanism, tail: float) -> tuple[float, float] | None:
    """How far the loss reaches to the left and to the right, but for this tail."""
    back = _reach(mechanism.reverse_profile, tail)
    ahead = _reach(mechanism.profile, tail)
    return None if back is None or ahead is None else (back, ahead)


def _reach(profile: object, tail: float) -> float | None:
    """The least eps at which a falling profile is below a tail or level; None if beyond 1e12."""
    eps = np.concatenate([[0.0], np.geomspace(1e-12, 1e12, 97)])
    for _ in range(3):
        values = profile(eps)  # type: ignore[operator]
        last = max(float(values[-1]), tail)
        index = int(np.argmax(values <= last))
        if index == 0:
            return float(eps[1]) if eps[0] == 0 else float(eps[0])
        eps = np.linspace(eps[index - 1], eps[index], 33)
    return float(eps[-1])


def _rough(mechanism: Mechanism, span: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A coarse grid from above, to find the tilt with."""
    step = sum(span) / 400
    masses = grids.above(mechanism, step, _cells(span[0], step), _cells(span[1], step))
    return masses.losses, np.maximum(masses.mass, 0.0)


def _scale(rough: list[tuple[np.ndarray, np.ndarray]], counts: Sequence[int]) -> float:
    """The standard deviation of the composed loss, roughly."""
    total = 0.0
    for (losses, masses), count in zip(rough, counts, strict=True):
        size = float(masses.sum())
        mean = float(np.sum(masses * losses)) / size
        total += count * float(np.sum(masses * (losses - mean) ** 2)) / size
    return math.sqrt(max(total, 1e-300))


def _cells(span: float, step: float) -> int:
    return max(math.ceil(span / step - 1e-9), 1)


def _aligned(mechanisms: Sequence[Mechanism], step: float) -> float:
    """A step that puts the atoms of the losses on grid points, where one such step exists."""
    atoms = {abs(atom) for mechanism in mechanisms for atom in mechanism.atoms if atom}
    if not atoms:
        return step
    unit = min(atoms)
    fine = unit / math.ceil(unit / step) if unit > step else step
    whole = all(abs(atom / fine - round(atom / fine)) < 1e-9 * atom / fine for atom in atoms)
    return fine if whole else step
