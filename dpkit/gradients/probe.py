"""A first look at a model with a few records: are they kept apart, and are its gradients right?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dpkit.gradients.checks import check_records_apart
from dpkit.gradients.fallback import Vmapped
from dpkit.gradients.losses import PerExampleLoss
from dpkit.gradients.parameters import FlatParameters
from dpkit.gradients.tape import Taped


def check_apart(model: nn.Module, loss: PerExampleLoss, inputs: Tensor, targets: Tensor) -> None:
    """Refuse a model or a loss that mixes records."""

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        outputs = model(x)
        return outputs, loss(outputs, y)

    check_records_apart(forward, inputs, targets)


def agrees(
    source: Taped | Vmapped,
    model: nn.Module,
    loss: PerExampleLoss,
    flat: FlatParameters,
    inputs: Tensor,
    targets: Tensor,
) -> bool:
    """Whether a source's gradients, weighted differently for each record, are autograd's own.

    This finds what hooks cannot see: a parameter used outside its layer, a layer that is called
    with the records in another dimension, an operation in place.
    """
    x, y = inputs[:3], targets[:3]
    factors = torch.tensor([1.0, 0.5, 0.25], dtype=flat.vector.dtype, device=x.device)[: len(x)]
    with same_random_numbers(x), torch.enable_grad():
        weighted = (loss(model(x), y) * factors).sum()
        expected = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).reshape(-1)
                for p, g in zip(
                    flat.leaves, torch.autograd.grad(weighted, flat.leaves, allow_unused=True)
                )
            ]
        )
    total = torch.zeros_like(expected)
    with same_random_numbers(x), torch.no_grad():
        works, _ = source.works(x, y, None)
        for work in works:
            if work is not None:
                work.add(total, factors)
    if not bool(torch.isfinite(expected).all()):
        return True  # nothing can be compared on such records
    scale = float(expected.abs().max())
    return bool((total - expected).abs().max() <= 1e-3 * scale + 1e-12)


@contextmanager
def same_random_numbers(inputs: Tensor) -> Iterator[None]:
    """Two blocks under this draw the same dropout, and leave the caller's stream alone."""
    devices = [inputs.device.index or 0] if inputs.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        yield
