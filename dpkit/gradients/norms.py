"""Normalisation layers that stay within one record: GroupNorm, LayerNorm, InstanceNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpkit.gradients.kernel import Kept, Kernel, Piece


class GroupNormKernel(Kernel):
    """GroupNorm and lawful InstanceNorm: the scale's gradient is g times the normalised input."""

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """GroupNorm, and InstanceNorm (whose statistics of the batch the checks refuse)."""
        kinds = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
        return type(module) in kinds

    def examples(self, kept: Kept, grad: Tensor) -> list[Piece]:
        """Sums over the positions of each channel."""
        (inputs,) = kept
        pieces = []
        if self.weight is not None:
            m = self.module
            groups = m.num_groups if isinstance(m, nn.GroupNorm) else inputs.shape[1]
            normal = functional.group_norm(inputs, groups, eps=m.eps)
            pieces.append((self.weight, (grad * normal).flatten(2).sum(2)))
        if self.bias is not None:
            pieces.append((self.bias, grad.flatten(2).sum(2)))
        return pieces


class LayerNormKernel(Kernel):
    """LayerNorm: sums over positions of g times the normalised input."""

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """LayerNorm itself."""
        return type(module) is nn.LayerNorm

    def examples(self, kept: Kept, grad: Tensor) -> list[Piece]:
        """Sums over all dimensions between the record and the normalised ones."""
        (inputs,) = kept
        shape = self.module.normalized_shape
        size = torch.Size(shape).numel()
        pieces = []
        if self.weight is not None:
            normal = functional.layer_norm(inputs, shape, eps=self.module.eps)
            rows = (grad * normal).reshape(grad.shape[0], -1, size).sum(1)
            pieces.append((self.weight, rows))
        if self.bias is not None:
            pieces.append((self.bias, grad.reshape(grad.shape[0], -1, size).sum(1)))
        return pieces
