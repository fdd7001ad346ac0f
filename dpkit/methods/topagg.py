"""TopAgg: DP-SGD in which a record keeps only the largest coordinates of its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dpkit.knobs import knob
from dpkit.mechanisms import Gaussian, Release
from dpkit.methods.base import Loss
from dpkit.methods.dpsgd import DPSGD, DPSGDStepper

if TYPE_CHECKING:
    import torch

    from dpkit.gradients import Clipped
    from dpkit.schedules import Schedule


@dataclass(frozen=True)
class TopAgg(DPSGD):
    """Top-k gradients, or their signs, summed with noise and denoised by a threshold.

    With `signs` a record sends k votes of C / sqrt(k) each, a vector of norm C whatever k is (the
    paper's votes of +1 and -1 are C = sqrt(k)); without, its top-k gradient is clipped to C.

    *Guarantee*
    - a record adds a vector of norm at most C, as in DPSGD, and costs the same;
    - which coordinates a record keeps is private: noise goes on all of them;
    - the threshold reads the noisy sum alone, so it is post-processing.

    *Source*: Wang et al. 2021, "DataLens", section 5 (TOPAGG), inside Abadi's algorithm.
    """

    top_k: int = knob(
        200, "k", "coordinates of its gradient that a record keeps", 1, 10_000_000, integer=True,
        log=True, slider=(1, 5000),
    )  # fmt: skip
    signs: bool = False
    """Whether a record sends the signs of what it keeps, in place of the numbers."""
    threshold: float = knob(
        0.0, "τ", "noise deviations below which a coordinate of the sum is set to zero", 0, 100,
        slider=(0.0, 5.0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check every knob."""
        super().__post_init__()
        if self.mask is not None:
            raise ValueError(
                f"mask (which parameters a step may move) must be None in TopAgg, whose records "
                f"choose coordinates for themselves, got {self.mask!r}: use DPSGD(mask=...)."
            )
        if not isinstance(self.signs, bool):
            raise TypeError(f"signs (votes in place of numbers) must be a bool, got {self.signs}.")

    def start(self, model: torch.nn.Module, loss: Loss, expected_batch: Schedule) -> TopAggStepper:
        """Take hold of a model of at least k parameters."""
        from dpkit.gradients import Engine

        engine = Engine(model, loss, self.clipping)
        if self.top_k > engine.size:
            raise ValueError(
                f"top_k (k, coordinates of its gradient that a record keeps) must be a whole "
                f"number in [1, {engine.size}], the parameters of this model, got {self.top_k}; "
                f"keep fewer."
            )
        return TopAggStepper(self, engine, expected_batch)


class TopAggStepper(DPSGDStepper):
    """TopAgg at work on one model."""

    method: TopAgg

    def _clipped(self, batch: tuple[torch.Tensor, torch.Tensor], bound: float) -> Clipped:
        """The sum over a batch of what each record keeps, bounded."""
        augmentation = self.method.augmentation
        views = None if augmentation is None else augmentation.drawn(batch[0].device)
        vote = bound / math.sqrt(self.method.top_k) if self.method.signs else None
        keep = partial(kept, top_k=self.method.top_k, vote=vote)
        return self.engine.transformed_sum(*batch, keep, bound, views)

    def denoised(self, noisy: torch.Tensor, release: Release, bound: float) -> torch.Tensor:
        """The noisy sum without the coordinates that are hardly more than noise."""
        assert isinstance(release.mechanism, Gaussian)
        level = self.method.threshold * release.mechanism.noise_multiplier * bound
        return noisy.masked_fill_(noisy.abs() < level, 0.0) if level else noisy


def kept(rows: torch.Tensor, top_k: int, vote: float | None = None) -> torch.Tensor:
    """The `top_k` largest coordinates of each row (by size), the others zero.

    With `vote` each of them becomes a sign of that size; a coordinate that is zero stays so.

    *Shapes*: rows (B, D), the result likewise.
    """
    import torch

    places = rows.abs().topk(top_k, dim=1, sorted=False).indices
    values = rows.gather(1, places)
    values = values if vote is None else values.sign_().mul_(vote)
    return torch.zeros_like(rows).scatter_(1, places, values)
