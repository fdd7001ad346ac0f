"""Convolutions: per-example gradients as a few batched matrix products for each kernel row."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpkit.gradients.kernel import Gathered, Kept, Kernel, Piece, Rows, Work, row_squares, zeroed
from dpkit.gradients.support import Part, Support

BLOCK_BYTES = 2 * 2**20
"""Size of the gathered columns worked on at a time: about what a core's own cache holds."""

DEVICE_BLOCK_BYTES = 2**30
"""The same on a GPU, where few large products are faster and memory is the limit."""


class ConvKernel(Kernel):
    """Conv1d and Conv2d, of any stride, dilation, padding and number of groups."""

    @staticmethod
    def handles(module: nn.Module) -> bool:
        """One and two-dimensional convolutions with their own forward."""
        kinds = (nn.Conv1d, nn.Conv2d)
        return any(
            isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds
        )

    def examples(self, kept: Kept, grad: Tensor) -> list[Piece]:
        """Per-example gradients in the order of the parameters."""
        inputs, grad = _planar(kept[0]), _planar(grad)
        pieces = []
        if self.weight is not None:
            if self._prefers_groups(inputs):
                pieces.append((self.weight, self._grouped(inputs, grad)))
            else:
                rows = self._by_kernel_row(inputs, grad)  # (kh, B, out, kw, in)
                pieces.append((self.weight, rows.permute(1, 2, 4, 0, 3).flatten(1)))
        if self.bias is not None:
            pieces.append((self.bias, grad.sum((2, 3))))
        return pieces

    def work(self, kept: Kept, grad: Tensor, mask: Support | None) -> Work:
        """Gradients kept in the order in which they were computed."""
        inputs, grad = _planar(kept[0]), _planar(grad)
        if self.weight is None or self._prefers_groups(inputs):
            return Rows(self.examples((inputs,), grad), mask)
        bias = None if self.bias is None else grad.sum((2, 3))
        rows = self._by_kernel_row(inputs, grad)
        part = None if mask is None else mask.part(self.weight)
        if part is None:
            return KernelRows(self, rows, bias)
        pieces = [] if self.bias is None or bias is None else [(self.bias, bias)]
        return Rows(pieces, mask, gathered=self._gathered(rows, part))

    def _by_kernel_row(self, inputs: Tensor, grad: Tensor) -> Tensor:
        """(kh, B, out, kw, in): gathers the columns that each kernel row sees, then multiplies.

        Only the kernel's columns are gathered: the lines of positions that kernel row r meets are
        every `stride`-th line from r * dilation on, a contiguous block once the lines are sorted
        by their remainder modulo the stride.
        """
        (kh, kw), (step, _), (gap, _) = self._geometry()
        padded = self._padded(inputs)
        batch, out, high, wide = grad.shape
        g = grad.permute(0, 2, 3, 1).reshape(batch, high * wide, out)
        rows = g.new_empty(kh, batch, out, kw * padded.shape[3])
        line_bytes = wide * kw * padded.shape[3] * g.element_size()
        block = BLOCK_BYTES if g.device.type == "cpu" else DEVICE_BLOCK_BYTES
        chunk = max(1, block // (line_bytes * padded.shape[1]))
        for start in range(0, batch, chunk):
            some = slice(start, start + chunk)
            gt = g[some].transpose(1, 2)
            for rest in range(min(step, 1 + (kh - 1) * gap)):
                mine = [r for r in range(kh) if r * gap % step == rest]
                if not mine:
                    continue
                columns = self._columns(padded[some, rest::step], wide)
                for r in mine:
                    first = r * gap // step * wide
                    seen = columns[:, first : first + high * wide]
                    torch.bmm(gt, seen, out=rows[r, some])
        return rows.view(kh, batch, out, kw, -1)

    def _gathered(self, rows: Tensor, part: Part) -> list[Gathered]:
        """What the support holds of each kernel row, and where in the part it belongs."""
        places = part.by_kernel_row(len(rows), rows.shape[3], self.module.out_channels)
        return [
            (part.span, row.flatten(1).index_select(1, there), where)
            for row, (there, where) in zip(rows, places, strict=True)
        ]

    def _columns(self, lines: Tensor, wide: int) -> Tensor:
        """(B, lines * wide, kw * in): what the kernel's columns see at each position."""
        (_, kw), (_, step), (_, gap) = self._geometry()
        batch, high, _, channels = lines.shape
        by_image, by_line, by_place, _ = lines.stride()
        seen = lines.as_strided(
            (batch, high, wide, kw, channels),
            (by_image, by_line, step * by_place, gap * by_place, 1),
        )
        return seen.reshape(batch, high * wide, kw * channels)

    def _padded(self, inputs: Tensor) -> Tensor:
        """(B, high, wide, in), contiguous."""
        m = self.module
        around = list(m._reversed_padding_repeated_twice)
        around += [0] * (4 - len(around))
        if not any(around):
            return inputs.permute(0, 2, 3, 1).contiguous()
        if m.padding_mode == "zeros":
            return functional.pad(inputs.permute(0, 2, 3, 1), (0, 0, *around)).contiguous()
        if isinstance(m, nn.Conv1d):
            inputs = functional.pad(inputs.squeeze(2), around[:2], m.padding_mode).unsqueeze(2)
        else:
            inputs = functional.pad(inputs, around, m.padding_mode)
        return inputs.permute(0, 2, 3, 1).contiguous()

    def _prefers_groups(self, inputs: Tensor) -> bool:
        """The fixed rule, from measurements on one core: see benchmarks/engine.py.

        Planes of few channels would have to be transposed for the products by kernel row.
        """
        m = self.module
        last = inputs.is_contiguous(memory_format=torch.channels_last)
        small = m.in_channels * m.out_channels <= 64 * 64 and m.in_channels > 4
        return m.groups > 1 or (small and not last and not inputs.is_cuda)

    def _grouped(self, inputs: Tensor, grad: Tensor) -> Tensor:
        """One convolution's weight gradient in which every record is a group of its own."""
        m = self.module
        size, stride, dilation = self._geometry()
        around = list(m._reversed_padding_repeated_twice) + [0, 0]
        padding = (around[2], around[0])
        if m.padding_mode != "zeros" or around[0] != around[1] or around[2] != around[3]:
            inputs, padding = self._padded(inputs).permute(0, 3, 1, 2), (0, 0)
        batch, channels = inputs.shape[:2]
        # Only the size of this weight is read: it is never written.
        weight = inputs.new_empty(batch * m.out_channels, channels // m.groups, *size)
        _, rows, _ = torch.ops.aten.convolution_backward(
            grad.reshape(1, -1, *grad.shape[2:]),
            inputs.reshape(1, batch * channels, *inputs.shape[2:]),
            weight, None, stride, padding, dilation, False, (0, 0), batch * m.groups,
            (False, True, False),
        )  # fmt: skip
        return rows.reshape(batch, -1)

    def _geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Kernel size, stride and dilation, a one-dimensional layer as one line."""
        m = self.module
        if isinstance(m, nn.Conv1d):
            return (1, m.kernel_size[0]), (1, m.stride[0]), (1, m.dilation[0])
        return m.kernel_size, m.stride, m.dilation


class KernelRows(Work):
    """Per-example gradients of a convolution, (kh, B, out, kw, in)."""

    def __init__(self, kernel: ConvKernel, rows: Tensor, bias: Tensor | None) -> None:
        """Hold the gradients and take their norms."""
        self.kernel, self.rows, self.bias = kernel, rows, bias
        high, batch = rows.shape[:2]
        squares = row_squares([rows.view(high * batch, -1)]).view(high, batch).sum(0)
        self.squares = squares if bias is None else squares.add_(row_squares([bias]))
        self.elements, self.size = rows.numel(), kernel.size

    def silence(self, good: Tensor) -> None:
        """Zero the rows of bad records."""
        self.rows = torch.where(good.view(1, -1, 1, 1, 1), self.rows, self.rows.new_zeros(()))
        if self.bias is not None:
            self.bias = zeroed(self.bias, good)

    def add(self, total: Tensor, factors: Tensor, fresh: bool = False) -> None:
        """One product for each kernel row, all at once, then moved to the parameter's own order."""
        high, batch, out, wide, channels = self.rows.shape
        sums = torch.bmm(factors.expand(high, 1, batch), self.rows.view(high, batch, -1))
        sums = sums.view(high, out, wide, channels).permute(1, 3, 0, 2)
        weight = total[self.kernel.weight].view(sums.shape)
        weight.copy_(sums) if fresh else weight.add_(sums)
        if self.bias is not None:
            total[self.kernel.bias].addmv_(self.bias.t(), factors, beta=int(not fresh))


def _planar(images: Tensor) -> Tensor:
    """A line of a Conv1d as an image of one line."""
    return images.unsqueeze(2) if images.ndim == 3 else images
