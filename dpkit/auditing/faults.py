"""Planted faults: plans that claim what they do not keep, each after a bug that really happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpkit.mechanisms import Gaussian, Refused, Release
from dpkit.methods import DPSGD
from dpkit.noise import Noise
from dpkit.plan import Plan
from dpkit.samplers import Poisson
from dpkit.schedules import Schedule, at

if TYPE_CHECKING:
    import torch

    from dpkit.methods.base import Loss
    from dpkit.methods.dpsgd import DPSGDStepper


@dataclass(frozen=True)
class Fault:
    """A bug to find: what it does, where it happened, which other test finds it.

    `audited` says whether the canary audit can see it at all. `spoil` changes a stepper that a
    run has just made, `batches` stands in for the sampler's own.
    """

    name: str
    story: str
    found_by: str
    audited: bool
    spoil: Callable[[DPSGDStepper], None] | None = None
    batches: Callable[[Poisson, int, np.random.Generator], Iterator[NDArray[np.int64]]] | None = (
        None
    )

    def planted(self, plan: Plan) -> Plan:
        """A plan with the same claim, to the last digit, that does something else."""
        if not isinstance(plan.method, DPSGD) or not isinstance(plan.sampler, Poisson):
            raise Refused("Faults are planted in plans of DPSGD with Poisson sampling.")
        if plan.sampler.varies:
            raise Refused("Faults are planted in plans with one sample_rate; give it a number.")
        method, sampler = plan.method, plan.sampler
        if self.spoil is not None:
            values = {f.name: getattr(method, f.name) for f in fields(method)}
            method = _Spoilt(**values, fault=self)
        if self.batches is not None:
            sampler = _Misdrawn(sampler.rate, sampler.steps, fault=self)
        return replace(plan, method=method, sampler=sampler)


@dataclass(frozen=True)
class _Spoilt(DPSGD):
    """DP-SGD that states the right releases and makes others."""

    fault: Any = None

    def start(self, model: torch.nn.Module, loss: Loss, expected_batch: Schedule) -> DPSGDStepper:
        """An honest stepper, spoilt."""
        stepper = super().start(model, loss, expected_batch)
        self.fault.spoil(stepper)
        return stepper


@dataclass(frozen=True)
class _Misdrawn(Poisson):
    """A sampler that charges Poisson batches and draws others."""

    fault: Any = None

    def batches(self, num_examples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """The wrong batches."""
        yield from self.fault.batches(self, num_examples, rng)


def _before(stepper: DPSGDStepper, change: Callable[..., Any]) -> None:
    """Let `change(step, batch, releases, generator)` alter what a step is given."""
    honest = stepper.step

    def step(*given: Any) -> Any:
        return honest(*change(*given))

    stepper.step = step  # type: ignore[method-assign, assignment]


def _noise_times(factor: Callable[[DPSGDStepper, float], float]) -> Callable[..., None]:
    """A fault that multiplies the noise by a factor of (stepper, sigma)."""

    def spoil(stepper: DPSGDStepper) -> None:
        def change(step: int, batch: Any, releases: Any, generator: Any) -> Any:
            (release,) = releases
            sigma = release.mechanism.noise_multiplier
            weak = Release(Gaussian(sigma * factor(stepper, sigma)))
            return step, batch, (weak,), generator

        _before(stepper, change)

    return spoil


def _clip_norm(stepper: DPSGDStepper, sigma: float) -> float:
    from dpkit.schedules import at

    return 1 / max(at(stepper.method.max_grad_norm, 0), 1.0)


def _same_noise(stepper: DPSGDStepper) -> None:
    def change(step: int, batch: Any, releases: Any, generator: Any) -> Any:
        return step, batch, releases, Noise(20_140_827)

    _before(stepper, change)


def _clip_the_mean(stepper: DPSGDStepper) -> None:
    """Sum first, clip afterwards: the gradient of one record is not bounded at all."""
    honest = stepper.engine.clipped_sum

    def clipped_sum(inputs: Any, targets: Any, bound: float, *mask: Any) -> Any:
        found = honest(inputs, targets, 1e9, *mask)
        mean = found.total / max(len(inputs), 1)
        scale = min(1.0, bound / max(float(mean.norm()), 1e-30))
        return replace(found, total=mean * scale * max(len(inputs), 1))

    stepper.engine.clipped_sum = clipped_sum  # type: ignore[method-assign, assignment]


def _clip_each_number(stepper: DPSGDStepper) -> None:
    """Clamp every coordinate to [-C, C]: the norm may reach C times the root of the dimension."""

    def clipped_sum(inputs: Any, targets: Any, bound: float, *mask: Any) -> Any:
        engine = stepper.engine
        clamp = lambda rows: rows.clamp(-bound, bound)  # noqa: E731
        return engine.transformed_sum(inputs, targets, clamp, 1e9, None, *mask)

    stepper.engine.clipped_sum = clipped_sum  # type: ignore[method-assign, assignment]


def _drawn_divisor(stepper: DPSGDStepper) -> None:
    def change(step: int, batch: Any, releases: Any, generator: Any) -> Any:
        stepper.expected_batch = float(max(len(batch[0]), 1))
        return step, batch, releases, generator

    _before(stepper, change)


def _shuffled(
    sampler: Poisson, num_examples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """A permutation cut into batches, epoch after epoch."""
    parts = max(round(1 / sampler.rate), 1)
    for step in range(sampler.steps):
        if step % parts == 0:
            cut = np.array_split(rng.permutation(num_examples), parts)
        yield np.sort(cut[step % parts])


FAULTS = (
    Fault(
        "half the noise",
        "A factor of two was lost on the way. Whoever promises privacy for **replaced** records "
        "and draws the noise for **removed** ones does just this: the sum moves by 2C, not by C. "
        "Opacus's own test of its noise has a tolerance that lets a shortage of 7% pass.",
        "the moments of the noise, which show even a shortage of 2%",
        True, _noise_times(lambda stepper, sigma: 0.5),
    ),
    Fault(
        "noise divided by the batch",
        "The sum is noised as if it had been averaged already, so the noise is too small by the "
        "batch size. Tramer and others (2022) audited a published method with such a slip: it "
        "claimed 0.21, and 2.79 was proven.",
        "the moments of the noise",
        True, _noise_times(lambda stepper, sigma: 1 / at(stepper.expected_batch, 0)),
    ),
    Fault(
        "sigma without C",
        "The noise has standard deviation sigma, not sigma times the clip norm. Nobody notices "
        "while C is 1, as in most examples; here C is 4, and three quarters of the noise are gone.",
        "the moments of the noise, over schedules of C",
        True, _noise_times(_clip_norm),
    ),
    Fault(
        "the same noise again",
        "A generator seeded anew at each step, or a random key used twice, as is easily done in "
        "JAX: the difference of two steps holds no noise at all. The audit looks at each step "
        "alone and sees fresh-looking noise.",
        "the correlation of the noise between steps",
        False, _same_noise,
    ),
    Fault(
        "clip the mean",
        "`clip_grad_norm_` on the batch, as everybody does without privacy; TensorFlow Privacy "
        "does it when one microbatch is asked for. It bounds the batch, not the record.",
        "record and replay, which measures by how much one record moves the sum",
        True, _clip_the_mean,
    ),
    Fault(
        "clip each number",
        "`clip_grad_value_` in place of `clip_grad_norm_`: the norm may reach C times the root of "
        "the number of weights. A canary that points along one axis is clipped just right.",
        "record and replay, which measures the norm",
        False, _clip_each_number,
    ),
    Fault(
        "divide by the drawn batch",
        "The mean is taken over the batch that was drawn, whose size is private (Opacus issues "
        "571 and 819). The leak is real, and too small to guess by.",
        "record and replay, which compares every public number of two neighbouring runs",
        False, _drawn_divisor,
    ),
    Fault(
        "shuffle, account as Poisson",
        "The data are shuffled and cut, the epsilon is that of Poisson sampling, as in most "
        "libraries for years (Chua and others 2024). The gap opens at a delta far below what "
        "guessing can reach.",
        "the fingerprint of the batches: their sizes never vary",
        False, None, _shuffled,
    ),
)  # fmt: skip
"""The menu of "find the bug"."""
