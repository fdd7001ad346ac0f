"""The privacy loss distribution as a histogram that a learner can look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpkit.accountants import sandwich
from dpkit.mechanisms import Mechanism


@dataclass(frozen=True)
class LossDistribution:
    """How likely each privacy loss is under P, bin by bin, on the upper and the lower side.

    Shapes: edges (B + 1,), upper and lower (B,). `infinite` is the chance of an unbounded loss.
    """

    edges: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    infinite: float


def histogram(
    mechanisms: tuple[Mechanism, ...], counts: tuple[int, ...], bins: int
) -> LossDistribution:
    """Both sides of the bracket, gathered into bins that hold all but 1e-7 of the mass."""
    if not counts:
        edges = np.linspace(-1.0, 1.0, bins + 1)
        zero = np.where((edges[:-1] <= 0) & (edges[1:] > 0), 1.0, 0.0)
        return LossDistribution(edges, zero, zero.copy(), 0.0)
    plan = sandwich.laid_out(mechanisms, counts, delta=1e-7, tilt=0.0)
    found = [plan and sandwich.composed(mechanisms, counts, plan, side) for side in (True, False)]
    sides = [side for side in found if side]
    if plan is None or len(sides) < 2:
        empty = np.zeros(bins)
        return LossDistribution(np.linspace(-1.0, 1.0, bins + 1), empty, empty.copy(), 1.0)
    total = np.cumsum(np.maximum(sides[0].tilted, 0.0))
    low, high = np.searchsorted(total, [1e-7 * total[-1], (1 - 1e-7) * total[-1]])
    losses, step = sides[0].losses, plan.step
    edges = np.linspace(losses[low] - step / 2, losses[min(high, len(losses) - 1)] + step / 2,
                        bins + 1)  # fmt: skip
    masses = [
        np.histogram(side.losses, edges, weights=side.tilted * np.exp(side.log_scale))[0]
        for side in sides
    ]
    return LossDistribution(edges, masses[0], masses[1], sides[0].infinite)
