"""How the parameters move by a private gradient: plain values that start an updater."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpkit.knobs import check_knobs, knob

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dpkit.gradients.engine import Engine


class Updater(ABC):
    """An optimiser at work on one model."""

    @abstractmethod
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Move the parameters by a flat private gradient (D,), which may be overwritten."""

    def move(self, total: Tensor, divisor: float, learning_rate: float) -> None:
        """A step by a noisy sum (D,), which may be overwritten, over its public divisor."""
        self.step(total.div_(divisor), learning_rate)

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on: tensors and plain values."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""


class Optimiser(ABC):
    """A rule of descent. It sees the private gradient only, so all it does is post-processing."""

    @abstractmethod
    def start(self, engine: Engine) -> Updater:
        """Take hold of an engine's parameters, with fresh state."""


@dataclass(frozen=True)
class SGD(Optimiser):
    """Stochastic gradient descent, with momentum if wished: the rule of torch.optim.SGD."""

    momentum: float = knob(
        0.0, "m", "share of the last move that is kept", 0.0, 1.0, open_high=True
    )
    weight_decay: float = knob(0.0, "lambda", "pull of the parameters to zero", 0.0, math.inf)
    nesterov: bool = False

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                "nesterov needs momentum (m, share of the last move that is kept) in (0, 1), got 0."
            )

    @property
    def plain(self) -> bool:
        """Whether a step is a multiple of the gradient, and nothing is remembered."""
        return not (self.momentum or self.weight_decay)

    def start(self, engine: Engine) -> Updater:
        """Begin without a velocity."""
        return _SGDUpdater(self, engine.parameters)


class _SGDUpdater(Updater):
    def __init__(self, rule: SGD, parameters: Tensor) -> None:
        self._rule, self._parameters = rule, parameters
        self._velocity: Tensor | None = None

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        rule = self._rule
        if rule.weight_decay:
            gradient.add_(self._parameters, alpha=rule.weight_decay)
        if rule.momentum:
            if self._velocity is None:
                self._velocity = gradient.clone()
            else:
                self._velocity.mul_(rule.momentum).add_(gradient)
            if rule.nesterov:
                gradient.add_(self._velocity, alpha=rule.momentum)
            else:
                gradient = self._velocity
        self._parameters.add_(gradient, alpha=-learning_rate)

    def move(self, total: Tensor, divisor: float, learning_rate: float) -> None:
        if self._rule.plain:  # one pass over the parameters, not two
            self._parameters.add_(total, alpha=-learning_rate / divisor)
        else:
            super().move(total, divisor, learning_rate)

    def state(self) -> dict[str, Any]:
        return {} if self._velocity is None else {"velocity": self._velocity}

    def restore(self, state: dict[str, Any]) -> None:
        velocity = state.get("velocity")
        self._velocity = None if velocity is None else velocity.to(self._parameters)


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam with bias correction: the rule of torch.optim.Adam.

    *Source*: Kingma and Ba 2015, Algorithm 1.
    """

    beta1: float = knob(0.9, "beta1", "share of the mean that is kept", 0.0, 1.0, open_high=True)
    beta2: float = knob(
        0.999, "beta2", "share of the square that is kept", 0.0, 1.0, open_high=True
    )
    stability: float = knob(
        1e-8, "eps", "constant added to the root of the square", 0.0, math.inf, open_low=True
    )
    weight_decay: float = knob(0.0, "lambda", "pull of the parameters to zero", 0.0, math.inf)

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    def start(self, engine: Engine) -> Updater:
        """Begin with zero moments."""
        return _AdamUpdater(self, engine.parameters)


class _AdamUpdater(Updater):
    def __init__(self, rule: Adam, parameters: Tensor) -> None:
        self._rule, self._parameters = rule, parameters
        self._mean, self._square = parameters.new_zeros(2, parameters.numel())
        self._steps = 0

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        rule = self._rule
        self._steps += 1
        if rule.weight_decay:
            gradient.add_(self._parameters, alpha=rule.weight_decay)
        self._mean.lerp_(gradient, 1 - rule.beta1)
        self._square.mul_(rule.beta2).addcmul_(gradient, gradient, value=1 - rule.beta2)
        root = math.sqrt(1 - rule.beta2**self._steps)
        scale = (self._square.sqrt() / root).add_(rule.stability)
        pace = learning_rate / (1 - rule.beta1**self._steps)
        self._parameters.addcdiv_(self._mean, scale, value=-pace)

    def state(self) -> dict[str, Any]:
        return {"mean": self._mean, "square": self._square, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        self._mean, self._square = (state[key].to(self._parameters) for key in ("mean", "square"))
        self._steps = state["steps"]


@dataclass(frozen=True)
class TorchOptimiser(Optimiser):
    """Any optimiser of torch.optim, or one written like them.

    `make` is its class, or a function of the parameters: `functools.partial(torch.optim.RMSprop,
    alpha=0.9)`. The learning rate is set before each step. Making one imports torch's compiler,
    some 70 MB and a second, which `SGD` and `Adam` do without.
    """

    make: Callable[[list[Tensor]], torch.optim.Optimizer]

    def start(self, engine: Engine) -> Updater:
        """Make the optimiser over the model's own parameters, so that it sees their shapes."""
        optimiser = self.make(list(engine.leaves))
        closure = inspect.signature(optimiser.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise ValueError(
                f"{type(optimiser).__name__} evaluates the loss several times a step, which is no "
                "private release: use one whose step needs no closure, such as SGD or Adam."
            )
        return _TorchUpdater(optimiser, engine)


class _TorchUpdater(Updater):
    def __init__(self, optimiser: Any, engine: Engine) -> None:
        self._optimiser, self._engine = optimiser, engine

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        engine = self._engine
        for leaf, place in zip(engine.leaves, engine.slices.values(), strict=True):
            leaf.grad = gradient[place].view(leaf.shape)
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self._optimiser.step()
        for leaf in engine.leaves:
            leaf.grad = None

    def state(self) -> dict[str, Any]:
        return {"optimiser": self._optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self._optimiser.load_state_dict(state["optimiser"])
