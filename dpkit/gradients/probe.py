"""A first look at a model with a few records: are its gradients right, and what do they need?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dpkit.gradients.checks import same_random_numbers
from dpkit.gradients.fallback import Vmapped
from dpkit.gradients.losses import PerExampleLoss
from dpkit.gradients.parameters import FlatParameters
from dpkit.gradients.tape import ElsewhereError, Taped

FEW = 3


def made_up(inputs: Tensor, targets: Tensor, count: int = 4) -> tuple[Tensor, Tensor]:
    """Invented records of the same shape and kind, also where the batch is empty.

    *Guarantee*: a look at them tells nothing of the records; a look at a private batch would
    decide by private values how a model is run and what is said of it.
    """
    here: dict[str, Any] = {"generator": torch.Generator().manual_seed(0), "device": "cpu"}

    def like(batch: Tensor, whole: int) -> Tensor:
        shape = (count, *batch.shape[1:])
        if batch.is_floating_point():
            return torch.rand(shape, **here, dtype=torch.float64).to(batch)
        return torch.randint(0, whole, shape, **here).to(batch)

    # Zero is a class, and zero and one are tokens, of every model that has any.
    return like(inputs, 2), like(targets, 1)


@torch.no_grad()
def of_two_classes(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Invented class indices 0 and 1 by turns, where the model's outputs have two classes.

    A loss that counts classes or weighs by them is seen only where they differ.
    """
    if targets.is_floating_point() or not len(targets):
        return targets
    with same_random_numbers(inputs):
        outputs = model(inputs)
    several = isinstance(outputs, Tensor) and outputs.ndim > 1
    if not several or min(outputs.shape[1], outputs.shape[-1]) < 2:
        return targets
    turns = torch.arange(len(targets), device=targets.device).to(targets.dtype) % 2
    return turns.view(-1, *[1] * (targets.ndim - 1)).expand_as(targets).contiguous()


def objection(
    source: Taped | Vmapped,
    model: nn.Module,
    loss: PerExampleLoss,
    flat: FlatParameters,
    inputs: Tensor,
    targets: Tensor,
) -> str:
    """Why a source's gradients, weighted differently for each record, are not autograd's own.

    Empty where they are. This finds what hooks cannot see: a parameter used outside its layer, a
    layer that is called with the records in another dimension, a layout that a view refuses.
    """
    x, y = inputs[:FEW], targets[:FEW]
    factors = flat.vector.new_tensor([1.0, 0.5, 0.25])[: len(x)]
    expected = _weighted_gradient(model, loss, flat, x, y, factors)
    if not bool(torch.isfinite(expected).all()):
        return ""  # nothing can be compared on such records
    total = torch.zeros_like(expected)
    try:
        with same_random_numbers(x):
            works, _ = source.works(x, y, None)
    except ElsewhereError as error:
        return f"a{str(error)[1:]}"
    for work in works:
        if work is not None:
            work.add(total, factors)
    limit = 1e-3 * float(expected.abs().max()) + 1e-12
    if bool((total - expected).abs().max() <= limit):
        return ""
    return "some parameter is used outside the layer that holds it"


@torch.enable_grad()
def _weighted_gradient(
    model: nn.Module,
    loss: PerExampleLoss,
    flat: FlatParameters,
    inputs: Tensor,
    targets: Tensor,
    factors: Tensor,
) -> Tensor:
    """The gradient of the weighted sum of losses by plain autograd, as one vector."""
    with same_random_numbers(inputs):
        weighted = (loss(model(inputs), targets) * factors).sum()
    grads = torch.autograd.grad(weighted, flat.leaves, allow_unused=True)
    pairs = zip(flat.leaves, grads, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs])


@torch.enable_grad()
def likes_channels_last(model: nn.Module, inputs: Tensor) -> bool:
    """Whether images are better laid out with the channels last: the fixed rule for one core.

    Convolutions and above all pooling are faster so, group normalisation is slower.
    """
    if inputs.ndim != 4 or inputs.device.type != "cpu":
        return False
    with same_random_numbers(inputs):
        outputs = model(inputs[:1])
    names = _graph(outputs) if isinstance(outputs, Tensor) else set()
    return any("Convolution" in name for name in names) and not any(
        "GroupNorm" in name or "BatchNorm" in name for name in names
    )


def _graph(outputs: Tensor) -> set[str]:
    """The names of all operations that lead to a result."""
    names, seen, waiting = set(), set(), [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            waiting += [parent for parent, _ in node.next_functions]
    return names
