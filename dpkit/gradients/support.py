"""The support of a step: the coordinates that it may touch, and what each layer needs of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SPARSE, WIDE = 0.15, 256
"""Up to this share of a layer's coordinates, what the support alone needs is the faster; products
of matrices only from so many outputs on, where they outweigh turning the records over.

The fixed rule for a core, from `benchmarks/pruning.py speed`.
"""


class Support:
    """Some of the D coordinates of a flat vector, in rising order; no other one is touched."""

    def __init__(self, index: Tensor, size: int) -> None:
        """The places (k,) of a vector of `size` coordinates, in rising order."""
        self.index, self.size = index, size
        self._parts: dict[int, Part] = {}

    @classmethod
    def of(cls, mask: Tensor) -> Support:
        """The support of a flat mask (D,) of zeros and ones."""
        return cls(mask.bool().nonzero().flatten(), mask.numel())

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
            first, last = torch.searchsorted(self.index, ends).tolist()
            local = self.index[first:last] - place.start
            self._parts[place.start] = Part(local, place.stop - place.start)
        return self._parts[place.start]

    def touches(self, places: Iterable[slice]) -> bool:
        """Whether any of these places has a coordinate in the support."""
        return any(len(self.part(place).index) for place in places)


class Part:
    """The support within one parameter of n values, by places (k,) in rising order."""

    def __init__(self, index: Tensor, size: int) -> None:
        """Hold the places; what is derived from them is made once, when it is asked for."""
        self.index, self.size = index, size
        self.empty, self.full = len(index) == 0, len(index) == size
        self.sparse = len(index) <= SPARSE * size
        self._made: dict[Any, Any] = {}

    def ones(self, like: Tensor) -> Tensor:
        """One on the support and zero elsewhere, (n,)."""
        if "ones" not in self._made:
            self._made["ones"] = _marked(self.index, self.size).to(like)
        return self._made["ones"]

    def has_products(self, rows: int, like: Tensor) -> bool:
        """Whether sparse products by a matrix of so many rows are faster, and torch has them."""
        here = like.device.type == "cpu" and torch.backends.mkl.is_available()
        return self.sparse and not self.empty and rows >= WIDE and here

    def matrix(self, rows: int, like: Tensor) -> Tensor:
        """One on the support as a sparse matrix of so many rows: its values are in our order."""
        if "matrix" not in self._made:
            columns = self.size // rows
            counts = torch.bincount(self.index // columns, minlength=rows)
            starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
            ones = like.new_ones(len(self.index))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse")  # said once by torch
                self._made["matrix"] = torch.sparse_csr_tensor(
                    starts, (self.index % columns).int(), ones, (rows, columns)
                )
        return self._made["matrix"]

    def by_kernel_row(self, high: int, wide: int, out: int) -> list[tuple[Tensor, Tensor]]:
        """Of a convolution's weight (out, in, high, wide), for each kernel row: the places in
        (out, wide, in), and the places of the same values in the parameter.
        """
        if "kernel" not in self._made:
            order = torch.arange(self.size, device=self.index.device).view(out, -1, high, wide)
            order = order.permute(2, 0, 3, 1).flatten(1)
            kept = _marked(self.index, self.size)[order]
            there = [row.nonzero().flatten() for row in kept]
            self._made["kernel"] = [(at, order[r][at]) for r, at in enumerate(there)]
        return self._made["kernel"]


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


def _marked(index: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.bool, device=index.device).index_fill_(0, index, True)
