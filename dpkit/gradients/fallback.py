"""Per-example gradients of any model by torch.func.vmap(grad), where no kernel knows a layer."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from dpkit.gradients.kernel import Rows, Work
from dpkit.gradients.losses import PerExampleLoss
from dpkit.gradients.parameters import FlatParameters
from dpkit.gradients.sizes import Footprint
from dpkit.gradients.support import Support


class Vmapped:
    """The whole model differentiated record by record, all records at once."""

    def __init__(self, model: nn.Module, loss: PerExampleLoss, flat: FlatParameters) -> None:
        """Make a function of all parameters out of the model."""
        self.model, self.flat = model, flat
        self.blocks = _by_module(flat)
        frozen = {
            **{name: p for name, p in model.named_parameters() if not p.requires_grad},
            **dict(model.named_buffers()),
        }

        def one(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            outputs = functional_call(model, {**parameters, **frozen}, (x.unsqueeze(0),))
            return loss(outputs, y.unsqueeze(0))[0]

        self._gradients = vmap(grad_and_value(one), in_dims=(None, 0, 0), randomness="different")

    def works(
        self, inputs: Tensor, targets: Tensor, mask: Support | None
    ) -> tuple[list[Work | None], Tensor]:
        """One Work for each layer, and the losses (B,)."""
        rows, losses = self.examples(inputs, targets)
        return split_rows(rows, self.blocks, mask), losses

    def examples(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Per-example gradients (B, D) and losses (B,)."""
        parameters = {
            name: self.flat.vector[place].view(shape)
            for (name, place), shape in zip(self.flat.slices.items(), self.flat.shapes, strict=True)
        }
        gradients, losses = self._gradients(parameters, inputs, targets)
        rows = torch.cat([gradients[name].flatten(1) for name in self.flat.names], dim=1)
        return rows, losses.detach()

    def check(self, inputs: Tensor, targets: Tensor) -> None:
        """Refuse, in one sentence, a model that vmap fails on."""
        try:
            self.examples(inputs, targets)
        except RuntimeError as error:
            fused = [type(m).__name__ for m in self.model.modules() if isinstance(m, nn.RNNBase)]
            remedy = "Build it of Linear, Conv, Embedding and normalisation layers"
            if fused:
                remedy = (
                    f"torch runs all time steps of its {fused[0]} at once: loop over them with a "
                    f"torch.nn.{fused[0]}Cell, or use attention"
                )
            raise ValueError(
                "This model cannot be clipped record by record: it has a layer that the engine "
                f"does not know, and torch.func.vmap fails on it. {remedy}, or freeze what cannot "
                "be clipped."
            ) from error

    def footprint(self, inputs: Tensor, targets: Tensor) -> Footprint:
        """What one record needs: its gradients, and as much again for what leads to them."""
        size = self.flat.vector.numel() * self.flat.vector.element_size()
        return Footprint(largest=0, activations=inputs[0].numel() + size, gradients=size)


def split_rows(
    rows: Tensor, blocks: dict[str, tuple[slice, ...]], mask: Support | None
) -> list[Work | None]:
    """Per-example gradients (B, D) as one Work for each block."""
    return [
        Rows([(place, rows[:, place]) for place in places], mask)
        if mask is None or mask.touches(places)
        else None
        for places in blocks.values()
    ]


def _by_module(flat: FlatParameters) -> dict[str, tuple[slice, ...]]:
    blocks: dict[str, tuple[slice, ...]] = {}
    for name, place in flat.slices.items():
        module = name.rpartition(".")[0] or name
        blocks[module] = (*blocks.get(module, ()), place)
    return blocks


def frames_inside() -> int:
    """Frames from the caller of this function up to the first that is the user's own."""
    inside = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, depth = frame.f_back, depth + 1
    return depth
