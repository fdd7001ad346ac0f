"""The canary audit: a lower bound on the epsilon that a run really has, beside the one it claims.

A linear model has one weight for each canary, and canary i's gradient points along weight i only,
far beyond the clip. A fair coin decides which canaries are in the data. Whoever sees the weights
move sees, for every canary, the noise alone or the noise plus one clipped gradient: one run gives
thousands of independent trials of the same attack.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpkit.auditing.bounds import (
    Errors,
    any_epsilon,
    best_threshold,
    gaussian_epsilon,
    gaussian_mu,
)
from dpkit.auditing.readable import check_readable
from dpkit.knobs import Knob
from dpkit.mechanisms import Gaussian
from dpkit.methods import DPSGD
from dpkit.plan import Plan, round_down, round_up
from dpkit.samplers import Poisson
from dpkit.schedules import at

if TYPE_CHECKING:
    import torch

REACH = 50.0
"""A canary's gradient over the clip norm."""

_SIMULATED = 2_000_000
"""Releases that are made up to find a threshold, if so many are of use."""

_KNOBS = {
    "canaries": Knob("m", "canaries in one run", 10, 100_000, integer=True),
    "observations": Knob("n", "coin tosses to observe", 100, 1e9, integer=True),
    "confidence": Knob("1 - a", "chance that the bound holds", 0.5, 1, open_high=True),
    "delta": Knob(
        "δ", "added probability that e^epsilon does not cover", 0, 1, True, True, optional=True
    ),
}


@dataclass(frozen=True)
class Audit:
    """What an audit found: `lower` <= the true epsilon, with the stated confidence.

    `claimed` is what the plan promises at the same delta. `errors` counts wrong guesses. The
    confidence counts trials as independent, as they are under the plan: whoever draws one noise
    for many of them breaks the claim and this count with it.
    """

    lower: float
    claimed: float
    delta: float
    confidence: float
    errors: Errors
    how: str

    @property
    def observations(self) -> int:
        """How many coin tosses were guessed."""
        return self.errors.absent + self.errors.present

    @property
    def broken(self) -> bool:
        """Whether the claim is refuted: the run leaks more than it promised."""
        return self.lower > self.claimed

    def __str__(self) -> str:
        """The finding in one sentence."""
        verdict = "The claim is FALSE" if self.broken else "Nothing speaks against the claim"
        return (
            f"{verdict}: epsilon is at least {round_down(self.lower)} (confidence "
            f"{self.confidence:.4g}, {self.observations:,} observations, {self.how}), claimed "
            f"{round_up(self.claimed)} at delta {self.delta:g}."
        )


def audit(
    plan: Plan,
    *,
    canaries: int = 2000,
    observations: int = 20_000,
    confidence: float = 0.999,
    delta: float | None = None,
    seed: int | None = None,
) -> Audit:
    """Attack the plan as it really runs; the result's `lower` bounds the true epsilon from below.

    If every step sees every record, each step of each run is a trial of its own, and the bound is
    the exact Gaussian one, composed over the steps: it refutes the claim whatever the release, and
    its figure is the true release's as long as that is some Gaussian. Under Poisson sampling the
    whole transcript of a run is one trial for each canary, judged by its likelihood ratio, at a
    delta of at least .01 (smaller ones need more runs than anybody makes).

    *Guarantee*
    - if the plan's claim is true, `lower` exceeds `claimed` with a chance of at most
      1 - confidence.
    """
    (result,) = auditing(
        plan, canaries=canaries, observations=observations, confidence=confidence, delta=delta,
        seed=seed, looks=1,
    )  # fmt: skip
    return result


def auditing(
    plan: Plan,
    *,
    canaries: int = 2000,
    observations: int = 20_000,
    confidence: float = 0.999,
    delta: float | None = None,
    seed: int | None = None,
    looks: int = 10,
) -> Iterator[Audit]:
    """The same attack, told after each of `looks` parts of the observations.

    *Guarantee*: all looks hold together at the stated confidence, as each is given its share.
    """
    given = {"canaries": canaries, "observations": observations, "confidence": confidence}
    for name, value in (given | {"delta": delta}).items():
        _KNOBS[name].check(name, value)
    attack = _attack(plan, canaries, delta, observations)
    runs = max(looks, math.ceil(observations / (canaries * attack.trials)))
    tail = (1 - confidence) / (2 * looks)
    return _looked_at(attack, runs, looks, tail, confidence, np.random.SeedSequence(seed))


def _looked_at(
    attack: _Attack, runs: int, looks: int, tail: float, confidence: float,
    entropy: np.random.SeedSequence,
) -> Iterator[Audit]:  # fmt: skip
    errors = Errors(0, 0, 0, 0)
    ends = {round(runs * (look + 1) / looks) for look in range(looks)}
    for run, seeds in enumerate(entropy.spawn(runs), start=1):
        errors += attack.once(seeds)
        if run in ends:
            lower = attack.bound(errors, tail)
            yield Audit(lower, attack.claimed, attack.delta, confidence, errors, attack.how)


def _attack(plan: Plan, canaries: int, delta: float | None, observations: int) -> _Attack:
    check_readable(plan)
    assert isinstance(plan.sampler, Poisson)
    if plan.sampler.rate == 1.0:
        return _Each(plan, canaries, plan.delta if delta is None else delta)
    least = max(plan.delta, 0.01) if delta is None else delta
    return _Transcript(plan, canaries, least, observations // 2)


class _Attack(ABC):
    """One way to guess the coins of a run from its weights."""

    how: str
    trials: int

    def __init__(self, plan: Plan, canaries: int, delta: float) -> None:
        self.plan, self.canaries, self.delta = plan, canaries, delta
        self.claimed = plan.accountant.epsilon(plan.ledger(), delta)

    @abstractmethod
    def once(self, seeds: np.random.SeedSequence) -> Errors:
        """Train once on canaries whose coins fell, and count the wrong guesses."""

    @abstractmethod
    def bound(self, errors: Errors, tail: float) -> float:
        """The lower bound on epsilon."""

    def sigma(self, step: int) -> float:
        """The noise multiplier that a step claims."""
        (release,) = self.plan.method.releases(step)
        assert isinstance(release.mechanism, Gaussian)
        return max(release.mechanism.noise_multiplier, 1e-9)


class _Each(_Attack):
    """Every step sees every record: each release is a trial, guessed at C/2."""

    def __init__(self, plan: Plan, canaries: int, delta: float) -> None:
        super().__init__(plan, canaries, delta)
        self.trials = plan.steps
        self.how = "each release guessed at half the clip norm"
        if callable(plan.method.noise_multiplier):  # type: ignore[attr-defined]
            # Releases of different noise are not one law: the whole run is one trial then.
            self.trials, self.how = 1, "the run's weighted sum guessed at its middle"

    def once(self, seeds: np.random.SeedSequence) -> Errors:
        coins, sums = watched(self.plan, self.canaries, seeds)
        if self.trials > 1 or self.plan.steps == 1:
            return sum((_guessed(coins, seen > 0.5) for seen in sums), Errors(0, 0, 0, 0))
        weights = [1 / self.sigma(step) ** 2 for step in range(self.plan.steps)]
        score = np.zeros(self.canaries)
        for weight, seen in zip(weights, sums, strict=True):
            score += weight * seen
        return _guessed(coins, score > 0.5 * sum(weights))

    def bound(self, errors: Errors, tail: float) -> float:
        return gaussian_epsilon(gaussian_mu(errors, tail) * math.sqrt(self.trials), self.delta)


class _Transcript(_Attack):
    """Poisson batches: the likelihood ratio of all that a canary's weight did in a run."""

    trials = 1
    how = "likelihood ratio of the whole transcript"

    def __init__(self, plan: Plan, canaries: int, delta: float, tries: int) -> None:
        super().__init__(plan, canaries, delta)
        self.tries = tries
        self.rate = plan.sampler.rate  # type: ignore[attr-defined]
        self._threshold: float | None = None

    def once(self, seeds: np.random.SeedSequence) -> Errors:
        coins, sums = watched(self.plan, self.canaries, seeds)
        score = np.zeros(self.canaries)
        for step, seen in enumerate(sums):
            score += self._ratio(step, seen)
        return _guessed(coins, score > self.threshold)

    def bound(self, errors: Errors, tail: float) -> float:
        return any_epsilon(errors, self.delta, tail)

    @property
    def threshold(self) -> float:
        """Fixed from the plan alone, on transcripts made up by its law."""
        if self._threshold is None:
            most = min(_SIMULATED // self.plan.steps, 20 * self.tries, 200_000)
            rng, size = np.random.default_rng(0), max(most, 20_000)
            scores = np.zeros((2, size))
            for step in range(self.plan.steps):
                sigma = self.sigma(step)
                seen = rng.random(size) < self.rate
                scores[0] += self._ratio(step, seen + sigma * rng.standard_normal(size))
                scores[1] += self._ratio(step, sigma * rng.standard_normal(size))
            self._threshold = best_threshold(scores[0], scores[1], self.delta, self.tries)
        return self._threshold

    def _ratio(self, step: int, seen: np.ndarray) -> np.ndarray:
        exponent = (2 * seen - 1) / (2 * self.sigma(step) ** 2)
        return np.logaddexp(math.log1p(-self.rate), math.log(self.rate) + exponent)


def watched(
    plan: Plan, canaries: int, seeds: np.random.SeedSequence
) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The coins, and what each step adds to the canaries' weights, in units of the clip norm.

    The second is read off the weights that the public `train` leaves behind after each step,
    through the known learning rate, momentum and public divisor: it holds no more than an
    attacker sees.

    *Shapes*: coins (m,), then (m,) a step.
    """
    import torch

    numbers = seeds.generate_state(2, np.uint64) >> np.uint64(1)
    coins = np.random.default_rng(int(numbers[0])).random(canaries) < 0.5
    coins[:2] = True, False  # never an empty data set, and always both sides
    clip = max(at(plan.method.max_grad_norm, t) for t in range(plan.steps))  # type: ignore[attr-defined]
    inputs = torch.zeros(int(coins.sum()), canaries)
    inputs[torch.arange(len(inputs)), torch.from_numpy(np.flatnonzero(coins))] = REACH * clip
    model = torch.nn.Linear(canaries, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    return coins, _movements(plan, model, inputs, canaries, int(numbers[1]))


def _movements(
    plan: Plan, model: torch.nn.Module, inputs: torch.Tensor, canaries: int, seed: int
) -> Iterator[np.ndarray]:
    import torch

    from dpkit.training import train

    def outputs_alone(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0]

    method = plan.method
    assert isinstance(method, DPSGD)
    targets = torch.zeros(len(inputs), dtype=torch.int64)
    divisor = plan.sampler.expected_batch(canaries)
    (weight,) = model.parameters()
    before = weight.detach().clone().double()
    velocity = torch.zeros_like(before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # canaries are nobody's data: no caution is due
        steps = train(
            model, (inputs, targets), plan, loss=outputs_alone, seed=seed, device="cpu",
            num_examples=canaries, evaluate_every=0,
        )  # fmt: skip
    for step in steps:
        t = step.step - 1
        now = weight.detach().clone().double()
        moved = (before - now) / at(method.learning_rate, t)
        gradient = (moved - method.momentum * velocity) * divisor
        before, velocity = now, moved
        yield (gradient / at(method.max_grad_norm, t)).numpy().ravel()


def _guessed(coins: np.ndarray, guess: np.ndarray) -> Errors:
    present = int(coins.sum())
    return Errors(
        int((guess & ~coins).sum()), len(coins) - present, int((~guess & coins).sum()), present
    )
