"""Linear layers: norms from two factors, and their clipped sum as one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpkit.gradients.kernel import Kept, Kernel, Piece, Rows, Work, zeroed
from dpkit.gradients.support import Support

FLOOR = 1e-30
"""What a square is at least: zero may be a product that has underflown."""


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
        if grad.ndim == 2:
            if mask is None:
                return Outer(self, kept[0], grad)
            part = None if self.weight is None else mask.part(self.weight)
            few = part is not None and part.has_products(grad.shape[1], grad)
            return (SparseOuter if few else MaskedOuter)(self, kept[0], grad, mask)
        return Rows(self.examples(kept, grad), mask)


class Outer(Work):
    """Gradients g a^T that are never formed.

    |g a^T|^2 = |g|^2 |a|^2 (Goodfellow 2015), and their weighted sum is (factors g)^T a.
    """

    def __init__(self, kernel: LinearKernel, inputs: Tensor, grad: Tensor) -> None:
        """Keep the two factors and take the norms of their products."""
        self.weight, self.bias, self.size = kernel.weight, kernel.bias, kernel.size
        self.inputs, self.grad = inputs, grad
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
    """The same on a support M: |M * (g a^T)|^2 = (g^2)^T M a^2, one more product of matrices.

    What others than the support would get is left for the caller to drop.
    """

    def __init__(self, kernel: LinearKernel, inputs: Tensor, grad: Tensor, mask: Support) -> None:
        """See what the layer has in the support."""
        self._part = None if kernel.weight is None else mask.part(kernel.weight)
        self._biases = None if kernel.bias is None else mask.part(kernel.bias)
        super().__init__(kernel, inputs, grad)

    def _squares(self) -> Tensor:
        # The floors keep a product of an underflown and a huge factor from reading as zero.
        g2 = self.grad.square().clamp_min_(FLOOR)
        square = g2.new_zeros(len(g2))
        if self._part is not None and not self._part.empty:
            a2 = self.inputs.square().clamp_min_(FLOOR)
            ones = self._part.ones(g2).view(g2.shape[1], -1)
            if len(ones) <= ones.shape[1]:  # meet on the narrower side
                square = torch.linalg.vecdot(torch.mm(a2, ones.t()), g2)
            else:
                square = torch.linalg.vecdot(torch.mm(g2, ones), a2)
        if self._biases is not None:
            square = square + torch.mv(g2, self._biases.ones(g2))
        return square


class SparseOuter(MaskedOuter):
    """The same where few weights are left: all products are over those alone.

    Sparse matrices want the records in columns, so both factors are turned over once.
    """

    def __init__(self, kernel: LinearKernel, inputs: Tensor, grad: Tensor, mask: Support) -> None:
        """Turn the factors over."""
        self._turn(inputs, grad)
        super().__init__(kernel, inputs, grad, mask)
        assert self._part is not None
        self._few = self._part
        self.size -= self._few.size

    def _turn(self, inputs: Tensor, grad: Tensor) -> None:
        self._a, self._g = inputs.t().contiguous(), grad.t().contiguous()

    def silence(self, good: Tensor) -> None:
        """Zero both factors, turned over or not."""
        super().silence(good)
        self._turn(self.inputs, self.grad)

    def _squares(self) -> Tensor:
        assert self._part is not None
        g2, a2 = (rows.square().clamp_min_(FLOOR) for rows in (self._g, self._a))
        products = self._part.matrix(len(g2), g2) @ a2
        if self._biases is not None:
            products += self._biases.ones(g2)[:, None]  # a bias sees an input of one
        return products.mul_(g2).sum(0)

    def _add_products(self, into: Tensor, factors: Tensor, fresh: bool) -> None:
        ones = self._few.matrix(len(self._g), self._g)
        sums = torch.sparse.sampled_addmm(ones, self._g * factors, self._a.t(), beta=0.0)
        into.index_add_(0, self._few.index, sums.values())


def _square(rows: Tensor) -> Tensor:
    # The floor keeps a product of an underflown and a huge factor from reading as zero.
    return torch.linalg.vector_norm(rows, dim=1).square_().clamp_min_(FLOOR)
