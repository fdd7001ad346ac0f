"""A mask at work on one model: the support of each step, and an optimiser that sees it alone."""

from __future__ import annotations

from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dpkit.gradients import Engine
from dpkit.gradients.optimisers import SGD, Optimiser, Updater
from dpkit.gradients.support import Support
from dpkit.methods.masks import Mask
from dpkit.ranks import Ranks
from dpkit.schedules import at


class Masking:
    """The supports of a run, from what is public or released.

    *Guarantee*
    - it is handed the weights, public records and the step: no private record.
    """

    def __init__(self, mask: Mask, engine: Engine, rule: Optimiser) -> None:
        """Find what may be frozen; refuses names and weights that leave nothing to choose by."""
        self.mask, self.engine = mask, engine
        self.updater = MaskedUpdater(rule, engine.parameters)
        self._free = _free(mask, engine)
        self._scores: Tensor | None = None
        self._last: tuple[float, Support] | None = None
        self._public: tuple[Tensor, Tensor] | None = None
        weights = engine.parameters[self._free]
        if mask.by.reads_weights and len(weights) and bool((weights == weights[0]).all()):
            raise ValueError(
                f"{type(mask.by).__name__} has nothing to rank by: all weights of this model are "
                f"equal; start from a trained model, or choose by Random()."
            )

    def learn(self, inputs: Tensor, targets: Tensor) -> None:
        """Take the public records; refuses to do without where they are needed."""
        kind = type(self.mask.by)
        if kind.public and not len(inputs):
            raise ValueError(
                f"{kind.__name__} needs public records, and this data set has none: load it with "
                f"public=0.1, or give Dataset.of(..., public=(inputs, targets)); private records "
                f"cannot stand in for them."
            )
        self._public = inputs, targets

    def support(self, step: int, weights: Tensor) -> Support:
        """The coordinates that a step may touch, the same on every rank; the updater is told."""
        self.updater.support = found = self._support(step, weights)
        return found

    def _support(self, step: int, weights: Tensor) -> Support:
        if not self.mask.chosen_once:
            return self._best(step, self._ranked(step, weights))
        if self._scores is None:
            self._scores = self._ranked(0, weights)
        ratio = at(self.mask.ratio, step)
        if self._last is None or self._last[0] != ratio:
            self._last = ratio, self._best(step, self._scores)
        return self._last[1]

    def _ranked(self, step: int, weights: Tensor) -> Tensor:
        """The scores of what may be frozen, by rank 0: two processors may round apart."""
        scores = self.mask.by.scores(step, weights, self.gradient)
        if len(self._free) < len(scores):
            scores = scores[self._free]
        Ranks.current().alike([scores])
        return scores

    def _best(self, step: int, scores: Tensor) -> Support:
        """What is exempt and, of what may be frozen, the largest scores."""
        best = _largest(scores, self.mask.kept(step, len(scores)))
        if len(scores) == self.engine.size:
            return Support.of(best)
        marked = torch.ones(self.engine.size, dtype=torch.bool, device=scores.device)
        return Support.of(marked.index_copy_(0, self._free, best))

    def gradient(self, count: int, seed: int) -> Tensor:
        """The gradient (D,) of the summed loss on a batch of public records."""
        assert self._public is not None
        lots = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(self._public[0]), generator=lots)[:count]
        x, y = (values[chosen.to(values.device)] for values in self._public)
        with torch.enable_grad():
            losses = self.engine.loss(self.engine.model(x), y)
            found = torch.autograd.grad(losses.sum(), self.engine.leaves, materialize_grads=True)
        return torch.cat([gradient.flatten() for gradient in found])

    def state(self) -> dict[str, Any]:
        """A ranking that is made once must outlive an interruption."""
        return {} if self._scores is None else {"scores": self._scores}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with that ranking."""
        if "scores" in state:
            self._scores, self._last = state["scores"].to(self.engine.parameters), None


class MaskedUpdater(Updater):
    """An optimiser that is shown the support alone: all it does and holds elsewhere stays.

    The parameters of the support, and what the optimiser remembers of them, are taken out, moved,
    and put back: momentum, weight decay and Adam's means are masked without knowing it.
    """

    support: Support
    """That of the present step."""

    def __init__(self, rule: Optimiser, parameters: Tensor) -> None:
        """Begin with nothing remembered."""
        self._rule, self._parameters = rule, parameters
        self._memory: dict[str, Any] = {}

    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Move the support by its gradient (k,)."""
        self.move(gradient, 1.0, learning_rate)

    def move(self, total: Tensor, divisor: float, learning_rate: float) -> None:
        """A step by a noisy sum (k,) on the support, over its public divisor."""
        index = self.support.index
        if isinstance(self._rule, SGD) and self._rule.plain:
            self._parameters.index_add_(0, index, total, alpha=-learning_rate / divisor)
            return
        part = SimpleNamespace(parameters=self._parameters[index])
        updater = self._rule.start(cast(Engine, part))
        if self._memory:
            updater.restore({name: _taken(held, index) for name, held in self._memory.items()})
        updater.move(total, divisor, learning_rate)
        self._parameters[index] = part.parameters
        for name, held in updater.state().items():
            if isinstance(held, Tensor):
                whole = self._memory.setdefault(name, torch.zeros_like(self._parameters))
                whole[index] = held
            else:
                self._memory[name] = held

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: the memory of all coordinates."""
        return dict(self._memory)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._memory = {
            name: held.to(self._parameters) if isinstance(held, Tensor) else held
            for name, held in state.items()
        }


def _largest(scores: Tensor, count: int) -> Tensor:
    """Truth values of the `count` largest scores: the first of those that tie for the last place.

    numpy finds where they begin several times faster than torch ranks them.
    """
    if not count:
        return torch.zeros_like(scores, dtype=torch.bool)
    if scores.device.type == "cpu":
        least = float(np.partition(scores.numpy(), len(scores) - count)[len(scores) - count])
    else:
        least = float(scores.topk(count, sorted=False).values.min())
    chosen = scores >= least
    if (over := int(chosen.sum()) - count) > 0:
        chosen[(scores == least).nonzero().flatten()[-over:]] = False
    return chosen


def _taken(held: Any, index: Tensor) -> Any:
    return held[index] if isinstance(held, Tensor) else held


def _free(mask: Mask, engine: Engine) -> Tensor:
    """The places that may be frozen: all but those of exempt layers and parameters."""
    held = dict.fromkeys(mask.exempt, False)
    free = torch.ones(engine.size, dtype=torch.bool, device=engine.parameters.device)
    for name, place in engine.slices.items():
        for told in mask.exempt:
            if fnmatchcase(name, told) or name.startswith(f"{told}."):
                free[place], held[told] = False, True
    for told, found in held.items():
        if not found:
            raise ValueError(
                f"exempt names {told!r}, which no layer or parameter of this model has; there "
                f"are: {', '.join(engine.names)}."
            )
    return free.nonzero().flatten()
