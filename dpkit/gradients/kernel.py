"""What a layer must provide so that its per-example gradients can be bounded and summed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dpkit.gradients.support import Support

Kept = tuple[Tensor, ...]
"""What a layer remembers of its forward pass; every tensor has the records first."""

LONG = 8192
"""Values whose squares torch may add up in one go."""

Piece = tuple[slice, Tensor]
"""A place in the flat vector, and the per-example gradients (B, n) that belong there."""

Gathered = tuple[slice, Tensor, Tensor | None]
"""A place in the total, a piece (B, k), and where in the place it belongs; None: all in order."""


class Work(ABC):
    """The gradients of one layer for one microbatch, in a form that can be weighted and summed.

    The total is the flat vector (D,), or with a support its values (k,) alone.
    """

    squares: Tensor
    """The squared gradient norm of each record, (B,)."""

    size: int
    """How many coordinates of the total are this layer's."""

    elements: int = 0
    """How many values of per-example gradients are held."""

    @abstractmethod
    def silence(self, good: Tensor) -> None:
        """Replace what bad records (False in `good`) hold by zeros, before any product sees it.

        A factor of zero is not enough: 0 x NaN is NaN.
        """

    @abstractmethod
    def add(self, total: Tensor, factors: Tensor, fresh: bool = False) -> None:
        """Add every record's gradient times its factor to the flat `total`.

        With `fresh` what `total` holds in this layer's places is overwritten, not added to.
        """


class Rows(Work):
    """Per-example gradients held as they are, of the support alone where there is one."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        mask: Support | None = None,
        squares: Tensor | None = None,
        gathered: Sequence[Gathered] = (),
    ) -> None:
        """Keep to the support, if there is one, and take the norms unless they are given.

        What is `gathered` already lies in the support.
        """
        every = [(place, rows, None) for place, rows in pieces]
        self.pieces = [*(every if mask is None else _kept(pieces, mask)), *gathered]
        self.squares = row_squares(part[1] for part in self.pieces) if squares is None else squares
        self.elements = sum(rows.numel() for _, rows, _ in self.pieces)
        self.size = sum(rows.shape[1] for _, rows, _ in self.pieces)

    def silence(self, good: Tensor) -> None:
        """Zero the rows of bad records."""
        self.pieces = [(place, zeroed(rows, good), index) for place, rows, index in self.pieces]

    def add(self, total: Tensor, factors: Tensor, fresh: bool = False) -> None:
        """One matrix-vector product for each parameter."""
        for place, rows, index in self.pieces:
            if index is None:
                total[place].addmv_(rows.t(), factors, beta=int(not fresh))
            elif fresh:
                total[place].index_copy_(0, index, torch.mv(rows.t(), factors))
            else:
                total[place].index_add_(0, index, torch.mv(rows.t(), factors))


class Kernel(ABC):
    """Per-example gradients of one layer, from its input and the gradient at its output.

    The base computes all from `examples`; a layer that knows a cheaper way overrides `work`.
    """

    def __init__(self, module: nn.Module, weight: slice | None, bias: slice | None) -> None:
        """A layer, and where its parameters lie in the flat vector (None: frozen or missing)."""
        self.module: Any = module
        self.weight = weight
        self.bias = bias
        places = [place for place in (weight, bias) if place is not None]
        self.size = sum(place.stop - place.start for place in places)

    @staticmethod
    @abstractmethod
    def handles(module: nn.Module) -> bool:
        """Whether this kind of kernel knows the gradients of a module."""

    @abstractmethod
    def examples(self, kept: Kept, grad: Tensor) -> Sequence[Piece]:
        """Per-example gradients, from what `keep` kept and the gradient at the output."""

    def keep(self, inputs: Tensor, output: Tensor) -> Kept:
        """What must be remembered of the forward pass: the input, unless more is needed."""
        return (inputs.detach(),)

    def work(self, kept: Kept, grad: Tensor, mask: Support | None) -> Work:
        """The layer's gradients for a microbatch, on the support if there is one."""
        return Rows(self.examples(kept, grad), mask)


def _kept(pieces: Sequence[Piece], mask: Support) -> list[Gathered]:
    """What the support holds of each piece, in its order."""
    parts = [(mask.part(place), rows) for place, rows in pieces]
    return [
        (part.span, rows if part.full else rows.index_select(1, part.index), None)
        for part, rows in parts
    ]


def row_squares(pieces: Iterable[Tensor]) -> Tensor:
    """The sum over pieces of the squared norm of each row."""
    first, *others = (row_norms(rows).square_() for rows in pieces)
    for square in others:
        first.add_(square)
    return first


def row_norms(rows: Tensor) -> Tensor:
    """The norm of each row, to a few units in the last place however long the rows are.

    torch adds 262,144 squares in float32 with an error of 2e-6, mostly downward: a norm that is
    told too small lets a record pass its bound.
    """
    long = rows.shape[1]
    if long < 2 * LONG:
        return torch.linalg.vector_norm(rows, dim=1)
    even = long // LONG * LONG
    parts = torch.linalg.vector_norm(rows[:, :even].unflatten(1, (-1, LONG)), dim=2)
    if even < long:
        rest = torch.linalg.vector_norm(rows[:, even:], dim=1, keepdim=True)
        parts = torch.cat([parts, rest], dim=1)
    return torch.linalg.vector_norm(parts, dim=1)


def zeroed(rows: Tensor, good: Tensor) -> Tensor:
    """The rows with those of bad records replaced by zeros."""
    return torch.where(good.view(-1, *[1] * (rows.ndim - 1)), rows, rows.new_zeros(()))


def stacked_squares(works: Sequence[Work | None], losses: Tensor) -> Tensor:
    """Squared norms (K, B), zeros for a layer that the loss does not reach."""
    return torch.stack(
        [torch.zeros_like(losses) if work is None else work.squares for work in works]
    )
