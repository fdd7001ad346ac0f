"""Refusals made once, before any noise is drawn: what cannot be private is said in a sentence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_INSTANCE_NORM = nn.modules.instancenorm._InstanceNorm


class CrossRecordError(ValueError):
    """A model or a loss in which one record's result depends on the others of its batch."""


def check_modules(model: nn.Module) -> None:
    """Refuse layers that are known to mix the records of a batch."""
    for name, module in model.named_modules():
        where = f"The layer {name or type(module).__name__!r} ({type(module).__name__})"
        if isinstance(module, _INSTANCE_NORM):
            if module.track_running_stats:
                raise CrossRecordError(
                    f"{where} keeps running statistics of the private batches: "
                    "make it with track_running_stats=False."
                )
        elif isinstance(module, _BATCH_NORM):
            raise CrossRecordError(
                f"{where} normalises each record by the others of its batch, so no gradient "
                "belongs to one record: use torch.nn.GroupNorm instead."
            )
        elif isinstance(module, nn.Embedding) and module.max_norm is not None:
            raise CrossRecordError(
                f"{where} rescales rows of its table as records look them up, outside the private "
                "release: make it with max_norm=None."
            )


def check_records_apart(
    forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], inputs: Tensor, targets: Tensor
) -> None:
    """Refuse a model or loss whose result for a record changes with the record beside it.

    `forward` returns (outputs, losses). The first record is computed beside two different
    neighbours, with the same random numbers, so that dropout does not count as mixing.
    """
    for x, y in _neighbours(inputs, targets):
        pairs = []
        for beside in (0, 1):
            with torch.random.fork_rng(devices=_devices(inputs)), torch.no_grad():
                torch.manual_seed(0)
                pairs.append(forward(x[[0, beside]], y[[0, beside]]))
        (out_alone, loss_alone), (out_beside, loss_beside) = pairs
        if not _same(out_alone[0], out_beside[0]):
            raise CrossRecordError(
                "The model's output for one record changes with the record beside it in the batch, "
                "so no gradient belongs to one record: remove what averages or compares records "
                "(batch normalisation, means over dimension 0)."
            )
        if not _same(loss_alone[0], loss_beside[0]):
            raise CrossRecordError(
                "The loss of one record changes with the record beside it in the batch: give a "
                "loss in which each record counts by itself."
            )


def _neighbours(inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs (first record, another): a real other one, and for numbers one made up."""
    pairs = []
    if len(inputs) > 1:
        pairs.append((inputs[:2], targets[:2]))
    if inputs.is_floating_point():
        made = torch.stack([inputs[0], 1.0 - 3.0 * inputs[0]])
        pairs.append((made, targets[[0, -1]]))
    return pairs


def _devices(inputs: Tensor) -> list[int]:
    return [inputs.device.index or 0] if inputs.is_cuda else []


def _same(left: Tensor, right: Tensor) -> bool:
    return bool(torch.allclose(left, right, rtol=1e-4, atol=1e-6, equal_nan=True))
