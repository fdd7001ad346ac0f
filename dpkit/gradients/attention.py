"""Multi-head attention, through the two Linear layers that it is made of."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpkit.gradients.linear import LinearKernel


class InProjection(LinearKernel):
    """The projection of queries, keys and values inside a `torch.nn.MultiheadAttention`.

    torch multiplies by its weights out of the sight of forward hooks. While the engine listens,
    `forward` stands in for the layer's own: the same arithmetic, with the projection as a Linear
    that shares its parameters, and with the records first.
    """

    def __init__(self, module: nn.Module, weight: slice | None, bias: slice | None) -> None:
        """A layer, and where the parameters of its projection lie in the flat vector."""
        self.host: Any = module
        shared: Any = nn.Linear(1, 1, device="meta")
        shared.weight, shared.bias = self.host.in_proj_weight, self.host.in_proj_bias
        super().__init__(shared, weight, bias)

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """One width for queries, keys and values, and no extra key."""
        return (
            type(module) is nn.MultiheadAttention
            and module.in_proj_weight is not None
            and module.bias_k is None
            and not module.add_zero_attn
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch.nn.MultiheadAttention on batches, with its draws of dropout too."""
        host, swap = self.host, not self.host.batch_first
        q, k, v = self._projected(query, key, value, swap)
        mask = _merged(attn_mask, key_padding_mask, q)
        dropout, weights = host.dropout if host.training else 0.0, None
        if need_weights:
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = functional.dropout(weights, dropout) if dropout else weights
            out = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        result = host.out_proj(out.transpose(1, 2).flatten(2))
        return result.transpose(0, 1) if swap else result, weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, swap: bool) -> list[Tensor]:
        """Queries, keys and values as (B, heads, T, width of a head)."""
        given = [query, key, value]
        made: dict[int, tuple[Tensor, ...]] = {}
        for one in given:
            if id(one) not in made:
                made[id(one)] = self.module(one.transpose(0, 1) if swap else one).chunk(3, dim=-1)
        heads = self.host.num_heads
        parts = [made[id(one)][place] for place, one in enumerate(given)]
        return [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts]


def _merged(mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
    """Both masks as one that is added to the scores (B, heads, T, S)."""
    added = None
    if mask is not None:
        added = _additive(mask, like)
        if added.ndim == 3:
            added = added.unflatten(0, (like.shape[0], -1))
    if padding is not None:
        left_out = _additive(padding, like)[:, None, None, :]
        added = left_out if added is None else added + left_out
    return added


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -math.inf)
