"""Linear layers: norms from two factors, and their clipped sum as one matrix product."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from dpkit.gradients.kernel import Gathered, Kept, Kernel, Piece, Rows, Work, zeroed
from dpkit.gradients.support import Part, Support

FLOOR = 1e-30
"""What a square is at least: zero may be a product that has underflown."""

FEW = 256
"""Up to so many weights the gradients of each record are formed on them one by one."""

LANES, VECTOR = 64, 16
"""Records that are summed side by side, so that their squares stay in a core's own cache; numbers
of which a whole number of registers is full.
"""


class LinearKernel(Kernel):
    """A Linear layer on (B, d), or on a sequence (B, T, d)."""

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """Linear itself, and subclasses that keep its forward."""
        return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward

    def examples(self, kept: Kept, grad: Tensor) -> list[Piece]:
        """g a^T, summed over positions."""
        (inputs,) = kept
        g = grad.reshape(grad.shape[0], -1, grad.shape[-1])
        pieces = []
        if self.weight is not None:
            a = inputs.reshape(inputs.shape[0], -1, inputs.shape[-1])
            pieces.append((self.weight, torch.bmm(g.transpose(1, 2), a).flatten(1)))
        if self.bias is not None:
            ones = g.new_ones(g.shape[0], 1, g.shape[1])  # a product is faster than a reduction
            pieces.append((self.bias, torch.bmm(ones, g).squeeze(1)))
        return pieces

    def work(self, kept: Kept, grad: Tensor, mask: Support | None) -> Work:
        """Two factors where each record has one position, per-example products otherwise."""
        if grad.ndim > 2:
            return Rows(self.examples(kept, grad), mask)
        if mask is None:
            return Outer(self.weight, self.bias, kept[0], grad)
        weight, bias = (None if p is None else mask.part(p) for p in (self.weight, self.bias))
        if all(part is None or part.full for part in (weight, bias)):
            return Outer(_span(weight), _span(bias), kept[0], grad)
        if weight is not None and len(weight.index) <= FEW:
            return Rows((), gathered=_picked(weight, bias, kept[0], grad))
        return MaskedOuter(weight, bias, kept[0], grad)


class Outer(Work):
    """Gradients g a^T that are never formed.

    |g a^T|^2 = |g|^2 |a|^2 (Goodfellow 2015), and their weighted sum is (factors g)^T a.
    """

    def __init__(
        self, weight: slice | None, bias: slice | None, inputs: Tensor, grad: Tensor
    ) -> None:
        """Keep the two factors and take the norms of their products; the places in the total."""
        self.weight, self.bias, self.inputs, self.grad = weight, bias, inputs, grad
        self.size = sum(place.stop - place.start for place in (weight, bias) if place is not None)
        self.squares = self._squares()

    def _squares(self) -> Tensor:
        square = _square(self.grad)
        if self.weight is None:
            return square
        if self.bias is None:
            return square.mul_(_square(self.inputs))
        return torch.addcmul(square, square, _square(self.inputs))

    def silence(self, good: Tensor) -> None:
        """Zero both factors: either may hold the infinity."""
        self.inputs, self.grad = zeroed(self.inputs, good), zeroed(self.grad, good)

    def add(self, total: Tensor, factors: Tensor, fresh: bool = False) -> None:
        """Add (factors g)^T a, scaling the narrower of the two matrices."""
        if self.bias is not None:
            total[self.bias].addmv_(self.grad.t(), factors, beta=int(not fresh))
        if self.weight is not None:
            self._add_products(total[self.weight], factors, fresh)

    def _add_products(self, into: Tensor, factors: Tensor, fresh: bool) -> None:
        grad, inputs = self.grad, self.inputs
        if grad.shape[1] <= inputs.shape[1]:
            grad = grad * factors[:, None]
        else:
            inputs = inputs * factors[:, None]
        into.view(grad.shape[1], -1).addmm_(grad.t(), inputs, beta=int(not fresh))


class MaskedOuter(Outer):
    """The same on a support M: |M * (g a^T)|^2 = (g^2)^T M a^2, and those of the sums in M.

    Squares of the narrower factor and the products that meet it have a floor, so that one that
    has underflown, times a huge one, does not read as zero.
    """

    def __init__(
        self, weight: Part | None, bias: Part | None, inputs: Tensor, grad: Tensor
    ) -> None:
        """See what the layer has in the support."""
        self._weights = None if weight is None or weight.empty else weight
        self._biases = None if bias is None or bias.empty else bias
        super().__init__(_span(self._weights), _span(self._biases), inputs, grad)

    def _squares(self) -> Tensor:
        weights, biases, outputs = self._weights, self._biases, self.grad.shape[1]
        if weights is not None and weights.is_few(outputs, self.grad):
            return self._summed(*weights.by_row(outputs, biases))
        g2 = self.grad.square().clamp_min_(FLOOR)
        square = g2.new_zeros(len(g2))
        if weights is not None:
            a2, ones = self.inputs.square(), weights.ones(g2).view(outputs, -1)
            if len(ones) <= ones.shape[1]:  # meet on the narrower side
                square = torch.linalg.vecdot(torch.mm(a2, ones.t()).clamp_min_(FLOOR), g2)
            else:
                products = torch.mm(g2, ones).clamp_min_(FLOOR)
                square = torch.linalg.vecdot(products, a2.clamp_min_(FLOOR))
        return square if biases is None else square.addmv_(g2, biases.ones(g2))

    def _summed(self, columns: Tensor, starts: Tensor) -> Tensor:
        """M a^2 as sums over few columns of M, some records at a time, each in a lane of its own.

        The gradient is not squared alone, so that its square cannot underflow.
        """
        width = min(LANES, math.ceil(len(self.grad) / VECTOR) * VECTOR)
        a2 = self.grad.new_ones(self.inputs.shape[1] + 1, width)  # the last is what a bias sees
        g, found = self.grad.new_ones(self.grad.shape[1], width), []
        for some in zip(self.inputs.split(width), self.grad.split(width), strict=True):
            _turn(some[0], a2)
            _turn(some[1], g)
            sums, *_ = torch.embedding_bag(a2.square_(), columns, starts, include_last_offset=True)
            found.append(sums.clamp_min_(FLOOR).mul_(g).mul_(g).sum(0))
        return torch.cat(found)[: len(self.grad)]

    def add(self, total: Tensor, factors: Tensor, fresh: bool = False) -> None:
        """Add what the support has of (factors g)^T a."""
        if self._biases is not None:
            self._biases.put(torch.mv(self.grad.t(), factors), total, fresh)
        if self._weights is not None:
            whole = total.new_empty(self._weights.size)
            self._add_products(whole, factors, fresh=True)
            self._weights.put(whole, total, fresh)


def _picked(weight: Part, bias: Part | None, inputs: Tensor, grad: Tensor) -> list[Gathered]:
    """Per-example gradients g a^T at a few places."""
    outputs, columns = weight.coordinates(inputs.shape[1])
    rows = grad.index_select(1, outputs).mul_(inputs.index_select(1, columns))
    found: list[Gathered] = [(weight.span, rows, None)]
    if bias is not None and not bias.empty:
        found.append((bias.span, grad.index_select(1, bias.index), None))
    return found


def _span(part: Part | None) -> slice | None:
    return None if part is None else part.span


def _turn(rows: Tensor, into: Tensor) -> None:
    """Lay rows (b, n) side by side, at the upper left; numpy takes half of torch's time."""
    np.copyto(into.numpy()[: rows.shape[1], : len(rows)], rows.numpy().T)


def _square(rows: Tensor) -> Tensor:
    # The floor keeps a product of an underflown and a huge factor from reading as zero.
    return torch.linalg.vector_norm(rows, dim=1).square_().clamp_min_(FLOOR)
