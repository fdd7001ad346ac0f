"""The support of a step: the coordinates that it may touch, and what each layer needs of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

SPARSE, WIDE = 0.15, 32
"""Up to this share of a layer's coordinates, sums over the support alone are the faster way to the
norm on it than a product of matrices; from so many outputs on, where they outweigh turning the
records over.

The fixed rule for a core, from `benchmarks/pruning.py speed`.
"""


class Support:
    """Some of the D coordinates of a flat vector, in rising order; no other one is touched.

    What a step sums, adds noise to and moves are the k values there, without the gaps.
    """

    def __init__(self, index: Tensor, size: int) -> None:
        """The places (k,) of a vector of `size` coordinates, in rising order."""
        self.index = index.int() if size < 2**31 else index  # gathers faster
        self.size = size
        self._parts: dict[int, Part] = {}

    @classmethod
    def of(cls, mask: Tensor) -> Support:
        """The support of a flat mask (D,) of zeros and ones."""
        return cls(_true(mask.bool()), mask.numel())

    @property
    def share(self) -> float:
        """|S| / D."""
        return len(self.index) / self.size

    @property
    def mask(self) -> Tensor:
        """The support as a flat vector (D,) of truth values."""
        return _marked(self.index, self.size)

    def part(self, place: slice) -> Part:
        """What lies in the support of one parameter's place in the flat vector."""
        if place.start not in self._parts:
            ends = self.index.new_tensor([place.start, place.stop])
            span = slice(*torch.searchsorted(self.index, ends).tolist())
            local = self.index[span] - place.start
            self._parts[place.start] = Part(local, place.stop - place.start, span)
        return self._parts[place.start]

    def touches(self, places: Iterable[slice]) -> bool:
        """Whether any of these places has a coordinate in the support."""
        return any(len(self.part(place).index) for place in places)

    def spread(self, values: Tensor) -> Tensor:
        """The values (k,) in their places in a vector (D,) that is zero elsewhere."""
        return values.new_zeros(self.size).index_add_(0, self.index, values)


class Part:
    """The support within one parameter of n values, by places (k,) in rising order."""

    def __init__(self, index: Tensor, size: int, span: slice) -> None:
        """Hold the places, and where their values lie among those of the whole support.

        What is derived from them is made once, when it is asked for.
        """
        self.index, self.size, self.span = index, size, span
        self.empty, self.full = len(index) == 0, len(index) == size
        self._made: dict[Any, Any] = {}

    def ones(self, like: Tensor) -> Tensor:
        """One on the support and zero elsewhere, (n,)."""
        if "ones" not in self._made:
            self._made["ones"] = _marked(self.index, self.size).to(like)
        return self._made["ones"]

    def is_few(self, rows: int, like: Tensor) -> bool:
        """Whether sums over the support alone beat products with a mask of so many rows."""
        sparse = 0 < len(self.index) <= SPARSE * self.size
        return sparse and rows >= WIDE and like.device.type == "cpu"

    def coordinates(self, columns: int) -> tuple[Tensor, Tensor]:
        """The row and the column of each place in a matrix of so many columns."""
        if "coordinates" not in self._made:
            rows = torch.div(self.index, columns, rounding_mode="floor")
            self._made["coordinates"] = rows, self.index - rows * columns
        return self._made["coordinates"]

    def by_row(self, rows: int, biases: Part | None) -> tuple[Tensor, Tensor]:
        """Of a matrix of so many rows: the columns in the support, and where each row's begin.

        The rows that have a bias in the support have one column more, at the end.
        """
        key = "rows", None if biases is None else biases.span.start
        if key not in self._made:
            wide = self.size // rows
            columns = self.coordinates(wide)[1].numpy()
            firsts = np.arange(0, self.size + 1, wide).astype(columns.dtype)
            starts = np.searchsorted(self.index.numpy(), firsts)
            if biases is not None:
                after = biases.index.numpy() + 1
                columns = np.insert(columns, starts[after], wide)
                starts += np.bincount(after, minlength=rows + 1).cumsum()
            self._made[key] = torch.from_numpy(columns), torch.from_numpy(starts).to(self.index)
        return self._made[key]

    def by_kernel_row(self, high: int, wide: int, out: int) -> list[tuple[Tensor, Tensor]]:
        """Of a convolution's weight (out, in, high, wide), for each kernel row: the places in
        (out, wide, in), and where the same values lie among those of this part.
        """
        if "kernel" not in self._made:
            order = torch.arange(self.size, device=self.index.device).view(out, -1, high, wide)
            order = order.permute(2, 0, 3, 1).flatten(1)
            number = _marked(self.index, self.size).cumsum(0) - 1
            kept = _marked(self.index, self.size)[order]
            there = [_true(row) for row in kept]
            self._made["kernel"] = [(at.int(), number[order[r][at]]) for r, at in enumerate(there)]
        return self._made["kernel"]

    def put(self, sums: Tensor, total: Tensor, fresh: bool) -> None:
        """Add what the support has of a parameter's sums (n,) to the whole support's, or set it."""
        into = total[self.span]
        if fresh:
            torch.index_select(sums, 0, self.index, out=into)
        else:
            into.add_(sums.index_select(0, self.index))


def as_support(mask: Tensor | Support | None, size: int) -> Support | None:
    """The support that a mask of zeros and ones means; refuses one of another size."""
    if mask is None:
        return None
    shape = tuple(mask.shape) if isinstance(mask, Tensor) else (mask.size,)
    if shape != (size,):
        raise ValueError(
            f"mask (support, the coordinates a step may touch) must have the shape ({size},), got "
            f"{shape}."
        )
    return Support.of(mask) if isinstance(mask, Tensor) else mask


def _true(marked: Tensor) -> Tensor:
    """Where a vector of truth values is true; numpy looks several times faster."""
    if marked.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(marked.numpy()))
    return marked.nonzero().flatten()


def _marked(index: Tensor, size: int) -> Tensor:
    whole = torch.zeros(size, dtype=torch.bool, device=index.device)
    return whole.index_fill_(0, index.long(), True)
