"""The trainable parameters of a model as one flat vector that they are views of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FlatParameters:
    """One vector of all trainable parameters; the model's own are views into it.

    *Guarantee*: writing to `vector` changes the model and the reverse; the order is that of
    `model.named_parameters()`, each flattened row by row; shared parameters appear once.
    """

    def __init__(self, model: nn.Module) -> None:
        """Move the trainable parameters into one vector, unless they lie in one already."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError(
                "This model has no trainable parameter: set requires_grad on those to be trained."
            )
        _check_uniform(named)
        self.names = tuple(name for name, _ in named)
        self.leaves = tuple(p for _, p in named)
        self.shapes = tuple(p.shape for p in self.leaves)
        self.slices = _consecutive(self.names, self.leaves)
        earlier = _already_flat(self.leaves)
        self.vector = self._flatten() if earlier is None else earlier
        own = {id(p) for p in self.leaves}
        self._held = [
            (module._parameters, name, p, p.data_ptr())
            for module in model.modules()
            for name, p in module._parameters.items()
            if p is not None and id(p) in own
        ]

    def place(self, parameter: Tensor | None) -> slice | None:
        """Where a parameter lies in the vector; None for a frozen or missing one."""
        for name, own in zip(self.names, self.leaves, strict=True):
            if own is parameter:
                return self.slices[name]
        return None

    def check(self) -> None:
        """Raise one sentence if the model's parameters have left the vector since."""
        if any(
            held.get(name) is not p or p.data_ptr() != address
            for held, name, p, address in self._held
        ):
            raise RuntimeError(
                "The model's parameters have been moved or replaced since the Engine was made: "
                "move the model to its device and load its weights first, then make the Engine."
            )

    def _flatten(self) -> Tensor:
        vector = torch.cat([p.detach().reshape(-1) for p in self.leaves])
        for parameter, place in zip(self.leaves, self.slices.values(), strict=True):
            parameter.data = vector[place].view(parameter.shape)
        return vector


def _check_uniform(named: list[tuple[str, nn.Parameter]]) -> None:
    first = named[0][1]
    for name, p in named:
        if (p.dtype, p.device) != (first.dtype, first.device):
            raise ValueError(
                "All trainable parameters must have one dtype and one device, got "
                f"{first.dtype} on {first.device} and {p.dtype} on {p.device} ({name}): "
                "use model.to(device, dtype) first."
            )
    if first.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "The engine computes norms in float32 or float64, the model's parameters are "
            f"{first.dtype}: use model.float() first."
        )


def _consecutive(names: tuple[str, ...], parameters: tuple[nn.Parameter, ...]) -> dict[str, slice]:
    slices, start = {}, 0
    for name, p in zip(names, parameters, strict=True):
        slices[name] = slice(start, start + p.numel())
        start += p.numel()
    return slices


def _already_flat(parameters: tuple[nn.Parameter, ...]) -> Tensor | None:
    """The vector of an earlier engine over the same model, so that both stay valid."""
    first, offset = parameters[0], parameters[0].storage_offset()
    for p in parameters:
        same = p.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (same and p.storage_offset() == offset and p.is_contiguous()):
            return None
        offset += p.numel()
    size = offset - first.storage_offset()
    if first.untyped_storage().nbytes() != size * first.element_size():
        return None
    return first.detach().as_strided((size,), (1,), first.storage_offset())
