"""Augmentation multiplicity: a record is seen in several views, and still counts as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpkit.knobs import check_knobs, knob

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Views(ABC):
    """The views of one step: the same changes for every record.

    *Guarantee*
    - no view looks at another record, and which views there are depends on no record at all.
    """

    count: int

    @abstractmethod
    def of(self, inputs: Tensor) -> Tensor:
        """All views: (b, ...) to (b * count, ...), those of a record in a row."""


class Augmentation(ABC):
    """A rule that draws the views of a step.

    The engine clips the mean of a record's gradients over its views, so that one record moves a
    sum by C at most, however many views there are.

    *Source*: De et al. 2022, "Unlocking high-accuracy differentially private image
    classification", section 3.3.
    """

    @abstractmethod
    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse records of a shape that has no such views, in one sentence."""

    @abstractmethod
    def drawn(self, device: torch.device) -> Views:
        """The views of the next step, from torch's own random numbers."""


@dataclass(frozen=True)
class Shifts(Augmentation):
    """Images moved by up to some pixels, their edges repeated, and mirrored if wished."""

    views: int = knob(4, "K", "views of a record in a step", 1, 1_000, integer=True)
    pixels: int = knob(2, "r", "pixels that a view is moved by at most", 0, 100, integer=True)
    mirrored: bool = False

    def __post_init__(self) -> None:
        """Check the knobs, and that there are as many views."""
        check_knobs(self)
        most = (2 * self.pixels + 1) ** 2 * (1 + self.mirrored)
        if self.views > most:
            raise ValueError(
                f"views (K, views of a record in a step) must be a whole number in [1, {most}], "
                f"as many as there are moves by {self.pixels} pixels, got {self.views}."
            )

    def check(self, shape: tuple[int, ...]) -> None:
        """Shifts are for images, which are a grid of pixels larger than the move."""
        if len(shape) != 3:
            raise ValueError(
                f"Shifts move images of shape (channels, height, width), but the records have "
                f"shape {tuple(shape)}: leave the augmentation out, or bring images."
            )
        if min(shape[1:]) <= self.pixels:
            raise ValueError(
                f"pixels (r, pixels that a view is moved by at most) must be less than the "
                f"{min(shape[1:])} pixels of an image's side, got {self.pixels}."
            )

    def drawn(self, device: torch.device) -> Views:
        """Different moves, drawn without looking at any record."""
        import torch

        side = 2 * self.pixels + 1
        chosen = torch.randperm(side**2 * (1 + self.mirrored), device=device)[: self.views]
        return _Shifted(
            self.pixels, [(n // side % side, n % side, n >= side**2) for n in chosen.tolist()]
        )


class _Shifted(Views):
    def __init__(self, reach: int, moves: list[tuple[int, int, bool]]) -> None:
        self.reach, self.moves, self.count = reach, moves, len(moves)

    def of(self, inputs: Tensor) -> Tensor:
        import torch
        from torch.nn import functional

        height, width = inputs.shape[2:]
        wide = functional.pad(inputs, [self.reach] * 4, mode="replicate")
        views = []
        for down, across, mirrored in self.moves:
            view = wide[:, :, down : down + height, across : across + width]
            views.append(view.flip(3) if mirrored else view)
        return torch.stack(views, 1).flatten(0, 1)
