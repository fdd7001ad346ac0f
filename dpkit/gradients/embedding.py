"""Embeddings: a record's gradient touches only the rows that its tokens name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpkit.gradients.kernel import Kept, Kernel, Piece, Rows, Work, row_squares, zeroed
from dpkit.gradients.support import Support


class EmbeddingKernel(Kernel):
    """Embedding of integer tokens (B, ...)."""

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """Embedding without the options that change rows or scale by frequency in the batch."""
        return (
            type(module) is nn.Embedding
            and module.max_norm is None
            and not module.scale_grad_by_freq
            and not module.sparse
        )

    def examples(self, kept: Kept, grad: Tensor) -> list[Piece]:
        """The dense table's gradient for each record; for tied tables and masks."""
        tokens, g = self._positions(kept, grad)
        rows = g.new_zeros(len(tokens), self.module.num_embeddings, g.shape[-1])
        rows.scatter_add_(1, tokens[:, :, None].expand_as(g), g)
        return [] if self.weight is None else [(self.weight, rows.flatten(1))]

    def work(self, kept: Kept, grad: Tensor, mask: Support | None) -> Work:
        """Sums over equal tokens, without the table."""
        if mask is not None:
            return Rows(self.examples(kept, grad), mask)
        return Lookups(self, *self._positions(kept, grad))

    def _positions(self, kept: Kept, grad: Tensor) -> tuple[Tensor, Tensor]:
        tokens = kept[0].reshape(len(grad), -1)
        g = grad.reshape(*tokens.shape, grad.shape[-1])
        padding = self.module.padding_idx
        if padding is not None:
            g = torch.where((tokens == padding)[:, :, None], g.new_zeros(()), g)
        return tokens, g


class Lookups(Work):
    """Gradients at the looked-up positions, (B, T, d), those of equal tokens added up in the first.

    The very sums that are squared for the norm are released: a norm by products of pairs would
    cancel where two positions nearly do, and let the rest through unclipped.
    """

    def __init__(self, kernel: EmbeddingKernel, tokens: Tensor, grad: Tensor) -> None:
        """Compare all pairs of positions of each record, and add up where tokens are equal."""
        self.weight, self.tokens, self.size = kernel.weight, tokens, kernel.size
        pattern = tokens[:1] if tokens.stride(0) == 0 else tokens  # one row for all, expanded
        same = pattern[:, :, None] == pattern[:, None, :]
        first = ~same.tril(-1).any(2)
        gather = (same & first[:, :, None]).to(grad.dtype).expand(len(grad), -1, -1)
        self.grad = torch.bmm(gather, grad)
        self.squares = row_squares([self.grad.flatten(1)])

    def silence(self, good: Tensor) -> None:
        """Zero the gradients of bad records."""
        self.grad = zeroed(self.grad, good)

    def add(self, total: Tensor, factors: Tensor, fresh: bool = False) -> None:
        """Scatter the scaled gradients into the table."""
        g = self.grad * factors[:, None, None]
        if fresh:
            total[self.weight].zero_()
        table = total[self.weight].view(-1, g.shape[-1])
        table.index_add_(0, self.tokens.reshape(-1), g.flatten(0, 1))
