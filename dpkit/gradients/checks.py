"""Refusals made once, before any noise is drawn: what cannot be private is said in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dpkit.gradients.losses import PerExampleLoss

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_INSTANCE_NORM = nn.modules.instancenorm._InstanceNorm


class CrossRecordError(ValueError):
    """A model or a loss in which one record's result depends on the others of its batch."""


def check_modules(model: nn.Module) -> None:
    """Refuse layers that are known to mix the records of a batch."""
    for name, module in model.named_modules():
        where = f"The layer {name or 'itself'} ({type(module).__name__})"
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
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise CrossRecordError(
                f"{where} rescales rows of its table as records look them up, outside the private "
                "release: make it with max_norm=None."
            )


@torch.no_grad()
def check_records_apart(
    model: nn.Module, loss: PerExampleLoss, inputs: Tensor, targets: Tensor
) -> None:
    """Refuse a model or loss whose result for a record changes with the records beside it.

    The first record is computed beside itself, beside others and alone, with the same random
    numbers where there is dropout.
    """
    x, y = inputs[:1], targets[:1]
    together, losses = _beside(model, loss, (x, y), (x, y))
    for other in _others(inputs, targets):
        outputs, values = _beside(model, loss, (x, y), other)
        if not _same(outputs, together):
            raise CrossRecordError(_MIXES)
        if not _same(values, losses):
            raise CrossRecordError(_LOSS_MIXES)
    with in_evaluation(model):
        pair, single = model(torch.cat([x, x])), model(x)
        if not _same(pair, single):
            raise CrossRecordError(_MIXES)
        if not _same(loss(pair, torch.cat([y, y])), loss(single, y)):
            raise CrossRecordError(_LOSS_MIXES)


@torch.no_grad()
def check_nothing_remembered(model: nn.Module, inputs: Tensor) -> None:
    """Refuse a model that writes what it sees into a buffer: a release that nobody pays for."""
    after = []
    for x in (inputs, inputs.flip(0) + 1 if inputs.is_floating_point() else 1 - inputs):
        with buffers_kept(model), same_random_numbers(x):
            model(x)
            after.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    for name in after[0].keys() | after[1].keys():
        first, second = after[0].get(name), after[1].get(name)
        if first is None or second is None or not torch.equal(first, second):
            raise CrossRecordError(
                f"The buffer {name} changes with the records that the model sees, which would "
                "reach evaluations and checkpoints without noise: compute such statistics on "
                "public data, or remove them."
            )


_MIXES = (
    "The model's output for one record changes with the records beside it in the batch, so no "
    "gradient belongs to one record: remove what averages, counts or compares records (batch "
    "normalisation, means over dimension 0)."
)
_LOSS_MIXES = (
    "The loss of one record changes with the records beside it in the batch: give a loss in "
    "which each record counts by itself, and which does not divide by the batch."
)


def _beside(
    model: nn.Module,
    loss: PerExampleLoss,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Outputs and losses of the first record with the second beside it."""
    x, y = (torch.cat(pair) for pair in zip(first, second, strict=True))
    with same_random_numbers(x):
        outputs = model(x)
        return outputs, loss(outputs, y)


def _others(inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Neighbours for the first record: a real one of another target, and a made one."""
    differs = (targets != targets[0]).reshape(len(targets), -1).any(1)
    place = max(int(differs.int().argmax()), min(1, len(inputs) - 1))
    beside = slice(place, place + 1)
    first = inputs[:1]
    if not inputs.is_floating_point():
        return [(inputs[beside], targets[beside]), (torch.zeros_like(first), targets[beside])]
    # Small and large ones, since what mixes records may show only beyond some size.
    made = (inputs[beside], 1.0 - 3.0 * first, 1e3 * first, -1e3 * first)
    return [(x, targets[beside]) for x in made]


def _same(left: Tensor, right: Tensor) -> bool:
    """Whether the first record's values agree; results that are no tensors are not compared."""
    if not isinstance(left, Tensor):
        return True
    return bool(torch.allclose(left[0], right[0], rtol=1e-4, atol=1e-6, equal_nan=True))


@contextmanager
def same_random_numbers(inputs: Tensor) -> Iterator[None]:
    """Two blocks under this draw the same dropout, and leave the caller's stream alone."""
    devices = [inputs.device.index or 0] if inputs.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed, which keeps a stack trace for every kind of device that is absent.
        torch.default_generator.manual_seed(0)
        if devices:
            torch.cuda.manual_seed(0)
        yield


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Give a model's buffers their values back afterwards."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in model.named_buffers():
            if name in before and before[name].shape == buffer.shape:
                with torch.no_grad():
                    buffer.copy_(before[name])


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and every part's own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
