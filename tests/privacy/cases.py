"""All that the privacy tests hold to account: whatever is new joins by one line in a list."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import dpkit as dp
from dpkit import runs
from dpkit.gradients import SGD, Adam, Augmentation, Automatic, Flat, PerLayer, Views
from dpkit.methods import Freeze, Magnitude, PublicGradient, Random, Select

LONG = bool(os.environ.get("DPKIT_LONG"))
"""Set DPKIT_LONG=1 for the long forms: 10,000 replayed pairs, 200 kills, 2,000 audits."""


def rising(step: int) -> float:
    return 1.0 + 0.25 * step


def falling(step: int) -> float:
    return 2.6 - 0.1 * step


def widening(step: int) -> float:
    return 0.5 + 0.5 * step


def growing(step: int) -> float:
    return 0.1 + 0.1 * step


@dataclass(frozen=True)
class Rolled(Augmentation):
    """Views of records of any shape: the last dimension rolled, token ids as well as numbers."""

    views: int = 3

    def check(self, shape: tuple[int, ...]) -> None:
        """Every shape will do."""

    def drawn(self, device: torch.device) -> Views:
        return _Rolls(torch.randperm(6, device=device)[: self.views].tolist())


class _Rolls(Views):
    def __init__(self, places: list[int]) -> None:
        self.places, self.count = places, len(places)

    def of(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([inputs.roll(n, -1) for n in self.places], 1).flatten(0, 1)


runs.EXPORTS = (*runs.EXPORTS, Rolled)

METHODS = [
    dp.DPSGD(1.3, 0.7, 0.2),
    dp.DPSGD(0.8, 2.0, 0.1, 0.9),
    dp.DPSGD(rising, 0.7, 0.2),
    dp.DPSGD(falling, 0.7, 0.2),
    dp.DPSGD(1.1, widening, 0.2),
    dp.DPSGD(1.2, 0.7, 0.2, clipping=PerLayer()),
    dp.DPSGD(1.2, 0.7, 0.05, optimiser=Adam()),
    dp.DPSGD(1.2, 0.7, 0.2, augmentation=Rolled()),
    dp.DPSGD(1.2, 0.7, 0.2, 0.9, averaging=0.9),
    dp.TopAgg(1.3, 0.7, 0.2, 0.9, top_k=5),
    dp.TopAgg(0.9, 0.7, 0.2, top_k=4, signs=True),
    dp.TopAgg(1.1, widening, 0.2, top_k=4, threshold=1.0),
    dp.DPSGD(1.2, 0.7, 0.2, 0.9, mask=Freeze(0.9, exempt=("*bias",))),
    dp.DPSGD(1.2, 0.7, 0.2, mask=Select(0.6, Magnitude(), scaled_norm=True)),
    dp.DPSGD(1.2, 0.7, 0.05, optimiser=SGD(0.9, 0.1, True), mask=Select(0.3, PublicGradient(5))),
    dp.DPSGD(1.2, widening, 0.05, optimiser=Adam(), averaging=0.9, clipping=PerLayer(),
             mask=Freeze(0.5, Magnitude())),
    dp.DPSGD(1.2, 0.7, 0.2, augmentation=Rolled(), mask=Select(0.5, Random(3))),
]  # fmt: skip
"""Every method, with every kind of schedule that it takes, and every way of descending."""

READABLE = [
    method
    for method in METHODS
    if not (method.optimiser or method.averaging or getattr(method, "threshold", 0) or method.mask)
]
"""Methods whose releases can be read off the weights' movement."""

MASKED = [method for method in METHODS if method.mask]
"""Methods whose noise goes on a support alone; see `test_b_noise` for its moments there."""

AUDITED = [m for m in READABLE if m.augmentation is None and not getattr(m, "signs", False)]
"""Methods that the canary audit takes: a view of a canary lies in another's direction.

One coordinate of k votes is C / sqrt(k) only: such a canary would tell less than the claim.
"""

ACTIVATIONS = [
    dp.NeuralDP(1.3, 0.7, 0.2),
    dp.NeuralDP(0.8, 2.0, 0.1, 0.9, release="each epoch", steps_per_epoch=2, normalise=False),
    dp.NeuralDP(1.1, 0.7, 0.2, labels=dp.RandomisedResponse(1.0, 3)),
    dp.NeuralDP(1.2, 0.5, 0.05, release="each epoch", steps_per_epoch=3, averaging=0.9,
                labels=dp.RandomisedResponse(1.5, 3), optimiser=Adam()),
]  # fmt: skip
"""Methods that release activations, in every way that they do; see `test_n_activations`."""

SAMPLERS = [
    dp.Poisson(0.4, 6),
    dp.Poisson(1.0, 4),
    dp.Poisson(growing, 6),
    dp.Shuffle(3, 2),
    dp.FixedSize(4, 10, 6),
    dp.BallsInBins(3, 2),
    dp.TruncatedPoisson(0.2, 6, 26, 40),
    dp.Partition(3, 2),
]
"""Every sampler."""

ACCOUNTANTS = [dp.PLD(), dp.RDP(), dp.Moments(), dp.ZCDP(), dp.GDP(), dp.Basic(), dp.Advanced(),
               dp.accountants.YuRandomSampling()]  # fmt: skip
"""Every accountant."""

CLIPPINGS = [Flat(), PerLayer(), Automatic(0.01), Automatic(1e-8)]
"""Every way of clipping."""


@dataclass(frozen=True)
class Layer:
    """A model that exercises one kind of layer, the inputs it takes and its loss."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (6,)
    tokens: int = 0
    regression: bool = False
    slow: bool = False

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The same weights at every call."""
        return copy.deepcopy(_built(self, dtype))

    def records(
        self, num: int, seed: int, dtype: torch.dtype = torch.float64
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random inputs and targets."""
        rng = np.random.default_rng(seed)
        if self.tokens:
            inputs = torch.from_numpy(rng.integers(0, self.tokens, (num, *self.shape)))
        else:
            inputs = torch.from_numpy(rng.standard_normal((num, *self.shape))).to(dtype)
        if self.regression:
            return inputs, torch.from_numpy(rng.standard_normal((num, 3))).to(dtype)
        return inputs, torch.from_numpy(rng.integers(0, 3, num))

    @property
    def loss(self) -> Callable[..., torch.Tensor] | None:
        """None for cross entropy, else the squared error of each record."""
        return squared_error if self.regression else None


@functools.cache
def _built(layer: Layer, dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return layer.build().to(dtype)


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).square().sum(1)


class Tied(nn.Module):
    """One Linear used twice: its gradient is the sum of two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.same(torch.tanh(self.same(x)))))


class Borrowed(nn.Module):
    """A weight used outside its layer, which a forward hook cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        return self.head(torch.tanh(nn.functional.linear(hidden, self.first.weight)))


class TiedTokens(nn.Module):
    """An embedding whose table is the output layer as well, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(3, 4), nn.Linear(4, 3, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(x).mean(1))


class Bare(nn.Module):
    """A parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.scale = nn.Linear(6, 3), nn.Parameter(torch.full((6,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * self.scale)


class Attention(nn.Module):
    """Attention through its linears, with residuals and LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.table(x)
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) / 2, dim=-1) @ v)
        return self.head(x.mean(1))


class Cancelling(nn.Module):
    """Two positions that nearly cancel if they hold the same token, beyond float32's digits."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4, dtype=torch.float64)
        turn = torch.randn(3, 4, dtype=torch.float64)
        self.register_buffer("turn", torch.cat([turn, -turn * (1 + 1e-9)], dim=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(x).flatten(1) @ self.turn.T


class MultiHead(nn.Module):
    """torch's own attention, which multiplies out of the sight of hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.table(x)
        return self.head(self.attend(x, x, x, need_weights=False)[0].mean(1))


class Masked(MultiHead):
    """The same in causal order, blind to token 0 behind the first place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        rows = self.table(x)
        blind = (x == 0) & (torch.arange(x.shape[1]) > 0)
        out, weights = self.attend(rows, rows, rows, key_padding_mask=blind, attn_mask=later)
        return self.head(out.mean(1)) + weights[:, :, :1].mean(1)


def _conv(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


def _image(first: nn.Module) -> nn.Module:
    body = nn.Sequential(first, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    channels = 4
    return nn.Sequential(body, nn.Linear(channels * 4, 3))


LAYERS = [
    Layer("linear", lambda: nn.Linear(6, 3)),
    Layer("linear without bias", lambda: nn.Linear(6, 3, bias=False)),
    Layer("mlp", lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))),
    Layer("regression", lambda: nn.Linear(6, 3), regression=True),
    Layer("sequence", lambda: nn.Sequential(nn.Linear(4, 5), nn.Flatten(), nn.Linear(15, 3)),
          (3, 4)),
    Layer("conv2d", lambda: _image(nn.Conv2d(2, 4, 3, padding=1)), (2, 5, 5)),
    Layer("conv2d strided", lambda: _image(nn.Conv2d(2, 4, 3, stride=2, bias=False)), (2, 7, 7)),
    Layer("conv2d grouped", lambda: _image(nn.Conv2d(2, 4, 3, groups=2)), (2, 5, 5)),
    Layer("conv1d", lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(9, 3)),
          (2, 5)),
    Layer("group norm", lambda: _image(nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4))),
          (2, 5, 5)),
    Layer("instance norm", lambda: _image(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True))), (2, 5, 5)),
    Layer("layer norm", lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))),
    Layer("embedding", lambda: nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 3)),
          (3,), tokens=5),
    Layer("attention", Attention, (3,), tokens=5),
    Layer("multi-head attention", MultiHead, (3,), tokens=5),
    Layer("masked attention", Masked, (3,), tokens=5),
    Layer("cancelling tokens", Cancelling, (2,), tokens=5, regression=True),
    Layer("tied", Tied),
    Layer("tied tokens", TiedTokens, (3,), tokens=3),
    Layer("borrowed weight", Borrowed, slow=True),
    Layer("bare parameter", Bare, slow=True),
]  # fmt: skip
"""Every kind of layer; `slow` marks those that the engine is right to fall back on, with a word."""


@dataclass(frozen=True)
class Neighbour:
    """How one record is changed: removed, or its input or target replaced."""

    name: str
    change: Callable[[torch.Tensor, torch.Tensor, int], None] | None = None

    @property
    def removes(self) -> bool:
        return self.change is None


def _filled(value: float) -> Callable[[torch.Tensor, torch.Tensor, int], None]:
    def change(inputs: torch.Tensor, targets: torch.Tensor, record: int) -> None:
        if inputs.is_floating_point():
            limit = torch.finfo(inputs.dtype).max
            inputs[record] = max(-limit, min(limit, value)) if np.isfinite(value) else value
        else:
            inputs[record] = int(abs(value)) % 2 if np.isfinite(value) else 0
            targets[record] = (targets[record] + 1) % 3

    return change


def _one_coordinate(inputs: torch.Tensor, targets: torch.Tensor, record: int) -> None:
    """NaN in one place only: the rest of the record looks innocent."""
    if inputs.is_floating_point():
        inputs[record].view(-1)[0] = float("nan")


def _far_target(inputs: torch.Tensor, targets: torch.Tensor, record: int) -> None:
    """A tiny input and a giant target: squares overflow on one side, underflow on the other."""
    if targets.is_floating_point():
        inputs[record], targets[record] = 1e-12, 1e12
    else:
        targets[record] = (targets[record] + 1) % 3


def _duplicate(inputs: torch.Tensor, targets: torch.Tensor, record: int) -> None:
    other = (record + 1) % len(inputs)
    inputs[record], targets[record] = inputs[other].clone(), targets[other].clone()


NEIGHBOURS = [
    Neighbour("removed"),
    Neighbour("1e6", _filled(1e6)),
    Neighbour("-1e6", _filled(-1e6)),
    Neighbour("NaN", _filled(float("nan"))),
    Neighbour("one NaN", _one_coordinate),
    Neighbour("+Inf", _filled(float("inf"))),
    Neighbour("-Inf", _filled(float("-inf"))),
    Neighbour("1e38", _filled(1e38)),
    Neighbour("1e300", _filled(1e300)),
    Neighbour("0", _filled(0.0)),
    Neighbour("far target", _far_target),
    Neighbour("duplicate", _duplicate),
]
"""Every way of changing one record."""


def relations(method: dp.Method, sampler: dp.Sampler) -> list[dp.Neighbours]:
    """The relations under which a method and a sampler can be accounted together."""
    return [r for r in sampler.relations if r in method.relations]


def combinations() -> list[tuple[Any, Any, dp.Neighbours]]:
    """Every method with every sampler under every relation that all three allow."""
    every = [(m, s, r) for m in METHODS for s in SAMPLERS for r in relations(m, s)]
    return [c for c in every if not (isinstance(c[1], dp.BallsInBins) and c[0].varies)]


def named(value: Any) -> str:
    """A short id for a parametrised test."""
    if isinstance(value, tuple):
        return "-".join(named(part) for part in value)
    if isinstance(value, dp.Neighbours):
        return value.name
    name = getattr(value, "name", None)
    if isinstance(name, str) and not isinstance(value, dp.Accountant):
        return name
    kind = type(value).__name__
    lists = next((x for x in (METHODS, SAMPLERS, CLIPPINGS) if value in x), [value])
    return f"{kind}{lists.index(value)}" if len(lists) > 1 else kind
