"""Stacks of Linear layers and activations, run by hand in kept memory: no graph, no allocation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpkit.gradients.kernel import Kernel, Work
from dpkit.gradients.losses import PerExampleLoss
from dpkit.gradients.sizes import Footprint
from dpkit.gradients.support import Support
from dpkit.gradients.tape import Taped, Unit

_aten = torch.ops.aten

SMALL_BYTES = 2**20
"""Parameters that a core's own cache holds beside the activations."""


@dataclass(frozen=True)
class Activation:
    """A function and its derivative by the function's own output, both in place."""

    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor, Tensor], Tensor]
    """From the gradient at the output and the output to the gradient at the input."""


def _undo_relu(grad: Tensor, out: Tensor) -> Tensor:
    return _aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad)


def _undo_tanh(grad: Tensor, out: Tensor) -> Tensor:
    return _aten.tanh_backward.grad_input(grad, out, grad_input=grad)


def _undo_sigmoid(grad: Tensor, out: Tensor) -> Tensor:
    return _aten.sigmoid_backward.grad_input(grad, out, grad_input=grad)


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(torch.relu_, _undo_relu),
    nn.Tanh: Activation(torch.tanh_, _undo_tanh),
    nn.Sigmoid: Activation(torch.sigmoid_, _undo_sigmoid),
}


class Dense(Taped):
    """A Sequential of Linear layers with or without activations, on (B, d).

    On small networks autograd's bookkeeping and fresh memory cost as much as the arithmetic. Where
    a batch does not have this form, or someone listens to a layer, the tape is used.
    """

    def __init__(self, model: nn.Module, loss: PerExampleLoss, units: tuple[Unit, ...]) -> None:
        """Find the layers of the stack and the activations between them."""
        super().__init__(model, loss, units)
        kernels = {id(kernel.module): kernel for unit in units for kernel in unit.kernels}
        self._modules = _leaves(model)
        self._flattens = _flattens(self._modules[0])
        self._layers: list[_Layer] = []
        for module in self._modules[self._flattens :]:
            if isinstance(module, nn.Linear):
                self._layers.append(_Layer(module, kernels.get(id(module))))
            else:
                self._layers[-1].activation = ACTIVATIONS[type(module)]

    @staticmethod
    def handles(model: nn.Module, units: tuple[Unit, ...]) -> bool:
        """Whether the model is such a stack, in which every layer is used once."""
        leaves = _leaves(model)
        stack = leaves[bool(leaves) and _flattens(leaves[0]) :]
        linear = [type(leaf) is nn.Linear for leaf in stack]
        known = all(
            fits or type(leaf) in ACTIVATIONS for fits, leaf in zip(linear, stack, strict=True)
        )
        after = all(fits or linear[n - 1] for n, fits in enumerate(linear) if n)
        once = len(set(map(id, stack))) == len(stack) == len(set(stack))
        single = all(len(unit.kernels) == 1 for unit in units)
        return bool(stack) and linear[0] and known and after and once and single

    def works(
        self, inputs: Tensor, targets: Tensor, mask: Support | None
    ) -> tuple[list[Work | None], Tensor]:
        """One Work for each layer (None for one wholly frozen), valid until the next call, and the
        losses (B,).
        """
        if not (inputs.ndim == 2 or self._flattens) or any(map(_heard, self._modules)):
            return super().works(inputs, targets, mask)
        values = inputs.flatten(1) if self._flattens else inputs
        for layer in self._layers:
            values = layer.forward(values)
        losses, grad = self._loss_and_gradient(values, targets)
        works: dict[int, Work] = {}
        units = [u for u in self.units if mask is None or mask.touches(u.places)]
        wanted = {id(unit.kernels[0]) for unit in units}
        for layer in reversed(self._layers):
            grad = layer.at_linear(grad)
            if layer.kernel is not None and id(layer.kernel) in wanted:
                works[id(layer.kernel)] = layer.kernel.work((layer.seen,), grad, mask)
            if len(works) == len(units):  # frozen layers below need no backward pass
                break
            grad = layer.at_input(grad)
        return [works.get(id(unit.kernels[0])) for unit in self.units], losses

    def footprint(self, inputs: Tensor, targets: Tensor) -> Footprint:
        """A small stack runs fastest where activations stay in a core's own cache, by this rule.

        Each is read some three times; where the parameters outgrow the cache it does not matter.
        """
        need = super().footprint(inputs, targets)
        size = sum(unit.size for unit in self.units) * inputs.element_size()
        return replace(need, largest=3 * need.largest) if size < SMALL_BYTES else need

    def _loss_and_gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The losses and the gradient of their sum with respect to the outputs."""
        if self.loss.loss is functional.cross_entropy and targets.ndim == 1 and outputs.ndim == 2:
            logs = torch.log_softmax(outputs, 1)
            losses, weight = _aten.nll_loss_forward(logs, targets, None, 0, -100)
            ones = torch.ones_like(losses)
            grad = _aten.nll_loss_backward(ones, logs, targets, None, 0, -100, weight)
            return losses, _aten._log_softmax_backward_data(grad, logs, 1, logs.dtype)
        with torch.enable_grad():
            leaf = outputs.detach().clone().requires_grad_()
            losses = self.loss(leaf, targets)
            (grad,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), grad.contiguous()


class _Layer:
    """One Linear layer at work, with the activation after it."""

    seen: Tensor
    """The layer's input in the last forward pass."""

    def __init__(self, module: nn.Linear, kernel: Kernel | None) -> None:
        self.kernel = kernel
        self.activation: Activation | None = None
        self._module = module
        self._above, self._below = _Room(module.weight.detach()), _Room(module.weight.detach())

    def forward(self, values: Tensor) -> Tensor:
        """The activated output."""
        m, self.seen = self._module, values
        self._out = out = self._above.matrix(values.shape[0], m.out_features)
        torch.mm(values, m.weight.t(), out=out)
        if m.bias is not None:
            out.add_(m.bias)  # cheaper than a product that begins with a matrix of biases
        return out if self.activation is None else self.activation.apply(out)

    def at_linear(self, grad: Tensor) -> Tensor:
        """The gradient before the activation from that after it, which is overwritten."""
        return grad if self.activation is None else self.activation.undo(grad, self._out)

    def at_input(self, grad: Tensor) -> Tensor:
        """The gradient at the layer's input."""
        below = self._below.matrix(grad.shape[0], self._module.in_features)
        return torch.mm(grad, self._module.weight, out=below)


class _Room:
    """Memory that is kept from step to step, since fresh pages cost more than arithmetic."""

    def __init__(self, like: Tensor) -> None:
        self._memory = self._last = like.new_empty(0, 0)

    def matrix(self, rows: int, columns: int) -> Tensor:
        """An uninitialised matrix in this memory, which grows where it must."""
        if self._last.shape != (rows, columns):
            if self._memory.numel() < rows * columns:
                self._memory = self._memory.new_empty(rows * columns)
            self._last = self._memory.view(-1)[: rows * columns].view(rows, columns)
        return self._last


def _leaves(model: nn.Module) -> list[nn.Module]:
    """The layers of nested Sequentials in order."""
    if type(model) is not nn.Sequential:
        return [model]
    return [leaf for child in model for leaf in _leaves(child)]


def _flattens(module: nn.Module) -> bool:
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def _heard(module: nn.Module) -> bool:
    """Whether a hook or another forward stands between the module and its plain result."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
