"""Normalisation layers that stay within one record: GroupNorm, LayerNorm, InstanceNorm."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from dpkit.gradients.kernel import Kept, Kernel, Piece


class GroupNormKernel(Kernel):
    """GroupNorm and lawful InstanceNorm: the scale's gradient is g times the normalised input."""

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """GroupNorm, and InstanceNorm (whose statistics of the batch the checks refuse)."""
        kinds = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
        return type(module) in kinds

    def keep(self, inputs: Tensor, output: Tensor) -> Kept:
        """The input, and the mean and inverse deviation that the forward pass has computed."""
        kept, node = inputs.detach(), cast(Any, output.grad_fn)
        if hasattr(node, "_saved_result2"):
            return kept, node._saved_result1, node._saved_result2
        return (kept, *self._statistics(kept))

    def examples(self, kept: Kept, grad: Tensor) -> list[Piece]:
        """Sums over the positions of each channel, as one GroupNorm of batch * channels channels.

        With every record's channels side by side, the layer's own gradient is per example.
        """
        inputs, mean, inverse = kept
        batch, channels = inputs.shape[:2]
        everywhere = (1, batch * channels, -1)
        _, weight, bias = torch.ops.aten.native_group_norm_backward(
            grad.reshape(everywhere), inputs.reshape(everywhere),
            mean.view(1, -1), inverse.view(1, -1), inverse.new_empty(batch * channels),
            1, batch * channels, inputs[0, 0].numel(), mean.numel(),
            (False, self.weight is not None, self.bias is not None),
        )  # fmt: skip
        pieces = [(self.weight, weight), (self.bias, bias)]
        return [(place, rows.view(batch, -1)) for place, rows in pieces if place is not None]

    def _statistics(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        m = self.module
        groups = m.num_groups if isinstance(m, nn.GroupNorm) else inputs.shape[1]
        grouped = inputs.reshape(len(inputs), groups, -1)
        variance, mean = torch.var_mean(grouped, dim=2, correction=0)
        return mean, (variance + m.eps).rsqrt()


class LayerNormKernel(Kernel):
    """LayerNorm: sums over positions of g times the normalised input."""

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """LayerNorm itself."""
        return type(module) is nn.LayerNorm

    def keep(self, inputs: Tensor, output: Tensor) -> Kept:
        """The input, and the mean and inverse deviation that the forward pass has computed."""
        kept, node = inputs.detach(), cast(Any, output.grad_fn)
        if hasattr(node, "_saved_result2"):
            return kept, node._saved_result1, node._saved_result2
        dims = tuple(range(-len(self.module.normalized_shape), 0))
        variance, mean = torch.var_mean(kept, dim=dims, correction=0)
        return kept, mean, (variance + self.module.eps).rsqrt()

    def examples(self, kept: Kept, grad: Tensor) -> list[Piece]:
        """sum_t g_t (x_t - mean_t) / deviation_t as two small products: no normalised copy."""
        inputs, mean, inverse = kept
        size = torch.Size(self.module.normalized_shape).numel()
        batch = len(inputs)
        g, x = grad.reshape(batch, -1, size), inputs.reshape(batch, -1, size)
        inverse = inverse.reshape(batch, 1, -1)
        pieces = []
        shift = torch.stack([inverse * mean.reshape(batch, 1, -1), torch.ones_like(inverse)], 2)
        sums = torch.bmm(shift.squeeze(1), g)
        if self.weight is not None:
            rows = torch.bmm(inverse, g * x).squeeze(1).sub_(sums[:, 0])
            pieces.append((self.weight, rows))
        if self.bias is not None:
            pieces.append((self.bias, sums[:, 1]))
        return pieces
