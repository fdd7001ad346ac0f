"""Gradient inversion: read a record off the gradient of a step that nobody protected."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpkit.methods import DPSGD
from dpkit.plan import Plan
from dpkit.samplers import Poisson
from dpkit.schedules import at

if TYPE_CHECKING:
    import torch

    from dpkit.datasets import Dataset

UNPROTECTED = DPSGD(noise_multiplier=0.0, max_grad_norm=1e6)
"""Plain SGD: no noise, and a clip that nothing reaches."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """A record and what an attacker made of the step that it caused.

    *Shapes*: both of the record's own shape. `similarity` is their cosine, 1 for a perfect copy.
    """

    original: torch.Tensor
    found: torch.Tensor

    @property
    def similarity(self) -> float:
        """The cosine between the two."""
        a, b = self.original.double().ravel(), self.found.double().ravel()
        size = float(a.norm() * b.norm())
        return float(a @ b) / size if size > 0 else 0.0


def invert(
    model: torch.nn.Module,
    data: Dataset,
    record: int,
    *,
    method: DPSGD = UNPROTECTED,
    seed: int | None = None,
) -> Inversion:
    """Make one step of `method` on one record, and reconstruct it from the weights' movement.

    In a first layer g a^T + b the gradient of row i is g_i times the input and that of b_i is
    g_i, so their quotient *is* the input. Without noise that is exact, whatever the clip.
    The model is left as it was.

    *Source*: Phong and others 2018.
    """
    import torch

    from dpkit.training import train

    victim = copy.deepcopy(model).cpu()
    first = _first_linear(victim)
    before = first.weight.detach().clone(), first.bias.detach().clone()
    one = slice(record, record + 1)
    if not 0 <= record < data.num_examples:
        raise ValueError(
            f"record must be a whole number in [0, {data.num_examples}), got {record}."
        )
    plan = Plan(method, Poisson(1.0, 1), delta=0.01)
    true = data.targets[one]

    def loss(outputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        targets = true.expand(len(outputs))
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    alone = data.inputs[one], torch.zeros(1, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one record with any delta: the lesson is the leak
        steps = train(
            victim, alone, plan, loss=loss, seed=seed, device="cpu", num_examples=1,
            evaluate_every=0,
        )  # fmt: skip
        list(steps)
    rate = at(method.learning_rate, 0)
    after = first.weight.detach(), first.bias.detach()
    weight, bias = ((old - new) / rate for old, new in zip(before, after, strict=True))
    row = int(bias.abs().argmax())
    quotient = torch.nan_to_num(weight[row] / bias[row])
    return Inversion(data.inputs[record].cpu(), quotient.reshape(data.shape))


def _first_linear(model: torch.nn.Module) -> torch.nn.Linear:
    import torch

    for module in model.modules():
        if list(module.children()) or isinstance(module, torch.nn.Flatten):
            continue
        if isinstance(module, torch.nn.Linear) and module.bias is not None:
            return module
        break
    raise ValueError(
        "invert reads the record off a first layer that is Linear with a bias, such as that of "
        "dp.zoo.mlp; give a model that begins so."
    )
