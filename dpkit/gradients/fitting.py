"""Whether a model, its loss and the data fit together: seen on invented records, told in a word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpkit.gradients.losses import PerExampleLoss

_FAILURES = (RuntimeError, TypeError, IndexError, AttributeError)
_OF_CLASSES = (functional.cross_entropy, functional.nll_loss)


def check_no_autocast(device: torch.device) -> None:
    """Refuse to compute while torch rounds products to half precision behind our back."""
    if torch.is_autocast_enabled(device.type):
        raise ValueError(
            "Norms of gradients must be computed in float32 or float64, but torch.autocast is on, "
            "which rounds them and lets records exceed their bound: leave the autocast block."
        )


@torch.no_grad()
def check_fits(
    model: nn.Module,
    loss: PerExampleLoss,
    inputs: Tensor,
    targets: Tensor,
    parameters: Tensor,
    classes: int | None,
) -> None:
    """Run model and loss on invented records, and tell what fails in one sentence.

    `classes` is the public number of classes, where it is known: no target is looked at.
    """
    with _one_precision(model, parameters.dtype):
        try:
            outputs = model(inputs)
        except _FAILURES as error:
            raise ValueError(_does_not_compute(inputs, parameters, error)) from error
    if classes is not None:
        _check_classes(loss, outputs, targets, classes)
    try:
        loss(outputs, targets)
    except _FAILURES as error:
        raise ValueError(
            f"The loss fails on outputs of {_kind(outputs)} and targets of {_kind(targets)} "
            f"({_first_line(error)}): give targets of the kind that it takes, class indices as "
            "targets.long() of shape (N,), or another loss."
        ) from error


def check_tokens(model: nn.Module, inputs: Tensor) -> None:
    """Refuse tokens beyond the model's table: a record's own fault, told before any release."""

    def hook(module: Any, args: Any) -> None:
        highest = int(args[0].max())
        if highest >= module.num_embeddings:
            raise ValueError(
                f"The data hold the token {highest}, but an Embedding of the model has rows for 0 "
                f"to {module.num_embeddings - 1} alone: give it num_embeddings={highest + 1} or "
                "more, or give features that are no tokens as inputs.float()."
            )

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                stack.callback(module.register_forward_pre_hook(hook).remove)
        model(inputs.amax(0, keepdim=True))


def _does_not_compute(inputs: Tensor, parameters: Tensor, error: Exception) -> str:
    told = f"The model fails on records of {_kind(inputs)} ({_first_line(error)}): "
    if not inputs.is_floating_point():
        return told + "whole numbers are for Embedding layers alone; give others inputs.float()."
    if inputs.dtype != parameters.dtype:
        return told + (
            f"its parameters are {_name(parameters.dtype)}; use one precision, by "
            f"model.to({inputs.dtype}) or inputs.to({parameters.dtype})."
        )
    if "indices" in str(error):
        return told + "an Embedding takes whole numbers; call it on inputs.long()."
    return told + "let its first layer take such records, or reshape them."


def _check_classes(loss: PerExampleLoss, outputs: Any, targets: Tensor, classes: int) -> None:
    """Each class needs an output: beyond them cross entropy reads what is not there."""
    of_classes = getattr(loss.loss, "func", loss.loss) in _OF_CLASSES
    if not (of_classes and isinstance(outputs, Tensor) and outputs.ndim > 1):
        return
    if not targets.is_floating_point() and outputs.shape[1] < classes:
        raise ValueError(
            f"The model has {outputs.shape[1]} outputs for the {classes} classes of the data: give "
            f"its last layer {classes} outputs."
        )


@contextmanager
def _one_precision(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Refuse layers that compute in another precision than that of their parameters."""

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        rounded = isinstance(output, Tensor) and output.is_floating_point()
        if rounded and output.dtype != dtype:
            raise ValueError(
                f"A {type(module).__name__} layer computes in {_name(output.dtype)} while the "
                f"parameters are {_name(dtype)}, so norms cannot be trusted: take torch.autocast "
                "out of the model."
            )

    with ExitStack() as stack:
        for module in model.modules():
            if any(p.requires_grad for p in module.parameters(recurse=False)):
                stack.callback(module.register_forward_hook(hook).remove)
        yield


def _kind(values: Any) -> str:
    if not isinstance(values, Tensor):
        return f"the type {type(values).__name__}"
    return f"shape ({', '.join(['N', *map(str, values.shape[1:])])}) and {_name(values.dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
