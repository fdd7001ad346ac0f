"""Convolutions: per-example gradients as one small matrix product for each record."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpkit.gradients.kernel import Kept, Kernel, Piece


class ConvKernel(Kernel):
    """Conv1d and Conv2d with one group: patches of the input times the gradient at the output."""

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """Ungrouped one and two-dimensional convolutions with their own forward."""
        for kind in (nn.Conv1d, nn.Conv2d):
            if isinstance(module, kind) and type(module).forward is kind.forward:
                return bool(module.groups == 1)
        return False

    def examples(self, kept: Kept, grad: Tensor) -> list[Piece]:
        """g times the patches that each output position saw, summed over positions."""
        (inputs,) = kept
        g = grad.flatten(2)
        pieces = []
        if self.weight is not None:
            patches = self._patches(inputs)
            pieces.append((self.weight, torch.bmm(g, patches.transpose(1, 2)).flatten(1)))
        if self.bias is not None:
            pieces.append((self.bias, g.sum(2)))
        return pieces

    def _patches(self, inputs: Tensor) -> Tensor:
        """(B, C_in * kernel, positions)."""
        m = self.module
        mode = "constant" if m.padding_mode == "zeros" else m.padding_mode
        padded = functional.pad(inputs, m._reversed_padding_repeated_twice, mode=mode)
        if isinstance(m, nn.Conv1d):
            return functional.unfold(
                padded.unsqueeze(2), (1, *m.kernel_size), (1, *m.dilation), 0, (1, *m.stride)
            )
        return functional.unfold(padded, m.kernel_size, m.dilation, 0, m.stride)
