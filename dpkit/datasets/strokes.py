"""Pictures of pen strokes that a program draws: public records that come from no data at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpkit.knobs import Knob, check_knobs, knob

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 64
"""Pictures at a time: the distances of all pixels to all points of a pen's way."""
PIXELS = 4_096
"""... and pixels of them at a time."""
_COUNT = Knob("n", "pictures to draw", 1, 1_000_000, integer=True)


@dataclass(frozen=True)
class Strokes:
    """Grey pictures of one to three curves in a row, drawn at random by a pen of random width.

    What is learnt from them (a mean, directions) is public, and costs nothing: they are the same
    for everybody. They look a little like handwriting, as far as edges and their joints go.
    """

    side: int = knob(28, "s", "pixels of a picture's side", 8, 512, integer=True)
    seed: int = knob(0, "seed", "which pictures", 0, 2**53, integer=True)

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    def images(self, count: int) -> Tensor:
        """The first `count` pictures: 0 is paper, 1 is ink.

        *Shapes*: (count, 1, side, side).
        """
        import torch

        _COUNT.check("count", count)
        count = int(count)
        stream = torch.Generator().manual_seed(int(self.seed))
        drawn = [self._some(CHUNK, stream) for _ in range(-(-count // CHUNK))]
        return torch.cat(drawn)[:count, None]

    def _some(self, count: int, stream: torch.Generator) -> Tensor:
        """Cubic curves, each from where the one before it ended, or from somewhere else."""
        import torch

        def between(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(count, *shape, generator=stream)

        corners = between(0.18, 0.82, 3, 4, 2) * self.side
        joined = between(0, 1, 3) < 0.8
        for curve in (1, 2):
            before = corners[:, curve - 1, 3]
            corners[:, curve, 0] = torch.where(joined[:, curve, None], before, corners[:, curve, 0])
        t = torch.linspace(0, 1, 24)[:, None]
        weights = torch.cat([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], 1)
        ways = weights @ corners
        curves = 1 + (between(0, 3) // 1).clamp_max(2)
        ways[torch.arange(3) >= curves[:, None]] = 1e4  # beyond the paper
        axis = torch.arange(self.side) + 0.5
        pixels = torch.cartesian_prod(axis, axis)
        distances = torch.cat(
            [
                torch.cdist(some.expand(count, -1, 2), ways.flatten(1, 2)).amin(2)
                for some in pixels.split(PIXELS)
            ],
            1,
        )
        ink = between(1.5, 2.5, 1) * (self.side / 28) - distances
        return ink.clamp(0, 1).view(count, self.side, self.side)
