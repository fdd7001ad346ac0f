"""Per-example gradients from one forward and one backward pass to the layers' outputs only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpkit.gradients.attention import InProjection
from dpkit.gradients.conv import ConvKernel
from dpkit.gradients.embedding import EmbeddingKernel
from dpkit.gradients.kernel import Kept, Kernel, Piece, Rows, Work
from dpkit.gradients.linear import LinearKernel
from dpkit.gradients.losses import PerExampleLoss
from dpkit.gradients.norms import GroupNormKernel, LayerNormKernel
from dpkit.gradients.parameters import FlatParameters
from dpkit.gradients.sizes import Footprint
from dpkit.gradients.support import Support

KINDS: tuple[type[Kernel], ...] = (
    LinearKernel,
    ConvKernel,
    GroupNormKernel,
    LayerNormKernel,
    EmbeddingKernel,
    InProjection,
)
_PLAIN = "weight", "bias"


class ElsewhereError(RuntimeError):
    """A layer was called with something else than the records in its first dimension."""


@dataclass(frozen=True)
class Unit:
    """Layers that share parameters, usually just one: a block of the gradient on its own."""

    name: str
    kernels: tuple[Kernel, ...]

    @property
    def size(self) -> int:
        """How many parameters the unit has."""
        return sum(place.stop - place.start for place in self.places)

    @property
    def places(self) -> tuple[slice, ...]:
        """Where the unit's parameters lie in the flat vector, each once."""
        both = [place for k in self.kernels for place in (k.weight, k.bias) if place is not None]
        return tuple({place.start: place for place in both}.values())


@dataclass(frozen=True)
class Call:
    """What one call of one layer left behind in the forward pass."""

    kernel: Kernel
    kept: Kept
    versions: tuple[int, ...]
    size: int
    edge: torch.autograd.graph.GradientEdge


class Taped:
    """A model whose every trainable layer has a kernel, listened to by forward hooks.

    The gradient edge of an output is taken when the layer returns, so that in-place operations on
    the output are right, and autograd skips every parameter gradient.
    """

    def __init__(self, model: nn.Module, loss: PerExampleLoss, units: tuple[Unit, ...]) -> None:
        """A model, its loss, and its layers by the parameters that they share."""
        self.model = model
        self.loss = loss
        self.units = units
        self.blocks = {unit.name: unit.places for unit in units}
        self._unit_of = {id(k): n for n, unit in enumerate(units) for k in unit.kernels}

    def works(
        self, inputs: Tensor, targets: Tensor, mask: Support | None
    ) -> tuple[list[Work | None], Tensor]:
        """One Work for each unit (None where the loss or the support does not reach it), and the
        losses (B,). Layers that are wholly frozen are not listened to.
        """
        found, losses = self._backward(inputs, targets, mask)
        found.reverse()  # each layer's activations are freed once its work is made
        return [_merged(found.pop(), mask) for _ in self.units], losses

    def examples(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Per-example gradients (B, D) and the losses (B,)."""
        found, losses = self._backward(inputs, targets)
        size = max(place.stop for unit in self.units for place in unit.places)
        rows = losses.new_zeros(len(losses), size)
        for calls in found:
            for place, part in _pieces(calls):
                rows[:, place] = part
        return rows, losses

    def footprint(self, inputs: Tensor, targets: Tensor) -> Footprint:
        """What one record needs, measured on a few."""
        found, losses = self._backward(inputs, targets)
        calls = [call for unit in found for call, _ in unit]
        held = [work.elements for work in (_merged(unit, None) for unit in found) if work]
        sizes = [max(call.size, call.kept[0].numel()) for call in calls]
        bytes_of = losses.element_size() / len(losses)
        return Footprint(
            largest=math.ceil(max(sizes, default=0) * bytes_of),
            activations=math.ceil(sum(call.size for call in calls) * bytes_of),
            gradients=math.ceil(sum(held) * bytes_of),
        )

    def _backward(
        self, inputs: Tensor, targets: Tensor, mask: Support | None = None
    ) -> tuple[list[list[tuple[Call, Tensor]]], Tensor]:
        """The calls of each unit with the gradients at their outputs, and the losses."""
        calls: list[Call] = []
        with torch.enable_grad(), self._listening(calls, mask):
            losses = self.loss(self.model(inputs), targets)
            edges = [call.edge for call in calls]
            asked = (losses.sum(), edges)
            grads = torch.autograd.grad(*asked, allow_unused=True) if edges else ()
        found: list[list[tuple[Call, Tensor]]] = [[] for _ in self.units]
        for call, grad in zip(calls, grads, strict=True):
            if grad is not None:
                _check_untouched(call)
                _check_records_first(call, len(losses))
                found[self._unit_of[id(call.kernel)]].append((call, grad))
        return found, losses.detach()

    @contextmanager
    def _listening(self, calls: list[Call], mask: Support | None) -> Iterator[None]:
        units = [u for u in self.units if mask is None or mask.touches(u.places)]
        kernels = [kernel for unit in units for kernel in unit.kernels]
        handles = [k.module.register_forward_hook(_listener(k, calls)) for k in kernels]
        every = [kernel for unit in self.units for kernel in unit.kernels]
        replaced = [k for k in every if isinstance(k, InProjection)]  # or out_proj is not heard
        for kernel in replaced:
            kernel.host.forward = kernel.forward
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for kernel in replaced:
                del kernel.host.forward


def find_units(model: nn.Module, flat: FlatParameters) -> tuple[tuple[Unit, ...], list[str]]:
    """The model's trainable layers as units, and the names of layers that no kernel knows."""
    unknown, found = [], []
    for name, module in model.named_modules():
        own = {key: p for key, p in module._parameters.items() if p is not None and p.requires_grad}
        if not own:
            continue
        kind = next((kind for kind in KINDS if kind.handles(module)), None)
        weight, bias = ("in_proj_weight", "in_proj_bias") if kind is InProjection else _PLAIN
        if kind is None or not own.keys() <= {weight, bias}:
            unknown.append(f"{name or 'the model itself'} ({type(module).__name__})")
            continue
        kernel = kind(module, flat.place(own.get(weight)), flat.place(own.get(bias)))
        found.append((name or type(module).__name__, kernel))
    return _grouped(found), unknown


def _grouped(found: list[tuple[str, Kernel]]) -> tuple[Unit, ...]:
    """Kernels that share a place in the vector belong to one unit."""
    groups: list[tuple[str, list[Kernel], set[int]]] = []
    for name, kernel in found:
        starts = {place.start for place in (kernel.weight, kernel.bias) if place is not None}
        joined = [group for group in groups if group[2] & starts]
        groups = [group for group in groups if not group[2] & starts]
        name = joined[0][0] if joined else name
        kernels = [k for group in joined for k in group[1]] + [kernel]
        groups.append((name, kernels, starts.union(*(group[2] for group in joined))))
    return tuple(Unit(name, tuple(kernels)) for name, kernels, _ in groups)


def _listener(kernel: Kernel, calls: list[Call]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            kept = kernel.keep(args[0], output)
            versions = tuple(part._version for part in kept)
            edge = torch.autograd.graph.get_gradient_edge(output)
            calls.append(Call(kernel, kept, versions, output.numel(), edge))

    return hook


def _check_untouched(call: Call) -> None:
    if tuple(part._version for part in call.kept) != call.versions:
        raise RuntimeError(
            f"The input of a {type(call.kernel.module).__name__} layer was changed in place after "
            "the layer had used it: write that operation out of place."
        )


def _check_records_first(call: Call, records: int) -> None:
    rows = call.kept[0].shape[0]
    if rows != records:
        raise ElsewhereError(
            f"A {type(call.kernel.module).__name__} layer is called on {rows} rows for {records} "
            "records (keep the records in the first dimension: x.flatten(2), not x.reshape(-1, k))"
        )


def _merged(calls: list[tuple[Call, Tensor]], mask: Support | None) -> Work | None:
    if not calls:
        return None
    if len(calls) == 1:
        call, grad = calls[0]
        return call.kernel.work(call.kept, grad, mask)
    return Rows(_pieces(calls), mask)


def _pieces(calls: list[tuple[Call, Tensor]]) -> list[Piece]:
    """Per-example gradients, with the parts that several calls have in one place added."""
    rows: dict[int, Piece] = {}
    for call, grad in calls:
        for place, part in call.kernel.examples(call.kept, grad):
            before = rows.get(place.start)
            rows[place.start] = (place, part if before is None else before[1] + part)
    return list(rows.values())
