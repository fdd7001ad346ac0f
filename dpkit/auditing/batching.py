"""An attack on how batches are drawn: one record, one epoch, the largest noisy sum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dpkit.auditing.bounds import Errors, any_epsilon, best_threshold
from dpkit.mechanisms import Gaussian, Neighbours
from dpkit.methods import DPSGD
from dpkit.plan import Plan
from dpkit.samplers import BallsInBins, Poisson, Sampler, Shuffle

CONFIDENCE = 0.999
_TAIL = (1 - CONFIDENCE) / 2  # for each of the two error rates
_FIRST = 250  # epochs before the first look


@dataclass(frozen=True)
class BatchAttack:
    """As many records as batches; all pull by -C, one by +C or, in the other world, not at all.

    The attacker sees every noisy sum of an epoch, and says "present" if the largest is large.

    *Guarantee*
    - batches are drawn by the sampler itself, and noise by the mechanism that is released;
    - the threshold comes from public simulations, before any epoch is watched.

    *Source*: the worst case of Chua et al. 2024; the limits of Clopper and Pearson 1934.
    """

    scheme: Literal["Shuffle", "BallsInBins", "Poisson"] = "Shuffle"
    noise_multiplier: float = 0.6
    batches: int = 20

    def drawn(self, epochs: int) -> Sampler:
        """The sampler of so many epochs."""
        if self.scheme == "Poisson":
            return Poisson(1 / self.batches, self.batches * epochs)
        return (Shuffle if self.scheme == "Shuffle" else BallsInBins)(self.batches, epochs)

    def claim(self, delta: float, sampler: Sampler | None = None) -> float:
        """The epsilon of one epoch under ZERO_OUT, by this sampler or by another."""
        sampler = sampler or self.drawn(1)
        method = DPSGD(self.noise_multiplier)
        return Plan(method, sampler, delta, relation=Neighbours.ZERO_OUT).epsilon()

    def poisson_claim(self, delta: float) -> float:
        """What a library prints that shuffles and accounts for Poisson batches."""
        return self.claim(delta, Poisson(1 / self.batches, self.batches))

    @cached_property
    def _rehearsed(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Largest sums of simulated shuffled epochs in both worlds: a public law."""
        rng = np.random.default_rng(0)
        others = rng.normal(0.0, self.noise_multiplier, (20_000, self.batches))
        most = others[:, 1:].max(axis=1, initial=-np.inf)
        found = [np.maximum(most, others[:, 0] + shift) for shift in (2.0, 1.0)]
        return found[0], found[1]

    def threshold(self, delta: float, epochs: int) -> float:
        """The size from which on the attacker says "present"."""
        return best_threshold(*self._rehearsed, delta, epochs)

    def largest(self, present: bool, epochs: int, seed: int) -> NDArray[np.float64]:
        """The largest noisy sum of each epoch, counted from that of one of the others."""
        import torch

        rng = np.random.default_rng(seed)
        pull = np.full(self.batches, -1.0)
        pull[0] = 1.0 if present else 0.0
        batches = list(self.drawn(epochs).batches(self.batches, rng))
        step = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
        sums = np.bincount(step, pull[np.concatenate(batches)], len(batches))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        total = torch.from_numpy(sums)
        noisy = Gaussian(self.noise_multiplier).draw(total, 1.0, generator).numpy()
        return noisy.reshape(epochs, self.batches).max(axis=1) + 1.0

    def watched(self, delta: float, epochs: int, seed: int) -> Iterator[Watched]:
        """Watch epochs of both worlds, told whenever their number has doubled.

        All looks share the chance of an error among them.
        """
        looks = 1 + max(0, math.ceil(math.log2(epochs / _FIRST)))
        threshold = self.threshold(delta, epochs)
        worlds: list[NDArray[np.float64]] = [np.empty(0), np.empty(0)]
        size = min(_FIRST, epochs)
        while True:
            more = size - len(worlds[0])
            worlds = [
                np.append(seen, self.largest(bool(world), more, seed + 2 * size + world))
                for world, seen in enumerate(worlds)
            ]
            yield Watched(worlds[1], worlds[0], threshold, delta, _TAIL / looks)
            if size == epochs:
                return
            size = min(2 * size, epochs)


@dataclass(frozen=True)
class Watched:
    """What an attacker has seen so far; `present` and `absent` are largest sums `(epochs,)`."""

    present: NDArray[np.float64]
    absent: NDArray[np.float64]
    threshold: float
    delta: float
    tail: float = _TAIL

    @property
    def errors(self) -> Errors:
        """How often the attacker was wrong."""
        false = int((self.absent >= self.threshold).sum())
        missed = int((self.present < self.threshold).sum())
        return Errors(false, len(self.absent), missed, len(self.present))

    @property
    def epsilon(self) -> float:
        """An epsilon that the run cannot be below, with 99.9% confidence for all looks at once."""
        return any_epsilon(self.errors, self.delta, self.tail)
