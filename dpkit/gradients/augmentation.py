"""Augmentation multiplicity: a record is seen in several views, and still counts as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpkit.knobs import check_knobs, knob

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Views(ABC):
    """The views of one step on one process: the same changes for every record.

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


def check_apart(augmentation: Augmentation, inputs: Tensor) -> None:
    """Refuse views in which records are mixed or out of place, by a look at invented ones.

    *Shapes*: inputs (b, ...), made up, b >= 2.
    """
    views = augmentation.drawn(inputs.device)
    seen, count = views.of(inputs), views.count
    apart = len(seen) == count * len(inputs)
    for one in range(len(inputs) if apart else 0):
        other = inputs.clone()
        other[one] = 1 - other[one]
        moved = (views.of(other) != seen).flatten(1).any(1)
        moved[one * count : (one + 1) * count] = False
        apart = apart and not moved.any()
    if not apart:
        raise ValueError(
            f"{type(augmentation).__name__} must give each record's {count} views in a row, "
            f"({len(inputs)} x {count}, ...), and no view may look at another record; got "
            f"{len(seen)} rows, or rows that mix records: stack the views along dimension 1 and "
            f"flatten(0, 1)."
        )


def means(
    examples: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    inputs: Tensor,
    targets: Tensor,
    count: int,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Mean gradients (b, D) and losses (b,) over each record's `count` views.

    No more than `most` gradients are held at a time; one record alone may have more views.

    *Shapes*: inputs (b * count, ...), targets (b * count, ...).
    """
    if len(inputs) <= most or len(inputs) > count:
        rows, losses = (found.unflatten(0, (-1, count)) for found in examples(inputs, targets))
        return rows.mean(1), losses.mean(1)
    parts = zip(inputs.split(most), targets.split(most), strict=True)
    rows, losses = examples(*next(parts))
    rows, losses = rows.sum(0, keepdim=True), losses.sum(0, keepdim=True)
    for part in parts:
        more, their = examples(*part)
        rows, losses = rows.add_(more.sum(0)), losses.add_(their.sum(0))
    return rows.div_(count), losses.div_(count)


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
