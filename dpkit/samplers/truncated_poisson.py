"""Truncated Poisson: Poisson batches, cut at a largest size so that memory and shapes are fixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.knobs import check_knobs, knob
from dpkit.later import special
from dpkit.mechanisms import EpsilonDelta, Neighbours, Refused, Release, UpperSide
from dpkit.samplers.base import Blocks, Entries, Sampler
from dpkit.samplers.poisson import Poisson, sampled

_MOST = 1e-3  # chance of a truncation in the whole run from which on it is refused
SMALLER = "truncation is a band: lower side of smaller data, which no batch of theirs overflows"
"""Why the chance of truncation is charged as an upper side alone."""
_SAFE = 1e-12  # chance in the whole run of the size that is named instead


@dataclass(frozen=True)
class TruncatedPoisson(Sampler):
    """A Poisson batch; of one larger than `max_batch` a uniform subset of that size is kept.

    *Guarantee*
    - costs what Poisson costs, and the chance that the other records alone fill a batch is added
      to delta: with those records' coins given, all else is a Poisson step;
    - `num_examples` is public and no smaller than the data; a size that is likely to be reached is
      refused.
    """

    sample_rate: float = knob(
        MISSING, "q", "chance that a step sees a record", 0, 1, open_low=True, log=True
    )
    steps: int = knob(MISSING, "T", "number of steps", 1, 10_000_000, integer=True)
    max_batch: int = knob(
        MISSING, "B", "most records in a batch", 1, 1_000_000_000, integer=True, log=True
    )
    num_examples: int = knob(
        MISSING, "N", "public number of records, or more", 1, 1_000_000_000, integer=True, log=True
    )

    relations: ClassVar[tuple[Neighbours, ...]] = Poisson.relations

    def __post_init__(self) -> None:
        """Check the knobs, and that truncation is not to be expected."""
        check_knobs(self)
        if self.steps * self.overflow > _MOST:
            count, rate = self.num_examples, self.sample_rate
            chance = min(self.steps * self.overflow, 1.0)
            safe = _safe(_SAFE / self.steps, count, rate)
            raise Refused(
                f"max_batch (B, most records in a batch) must make truncation unlikely, got "
                f"{self.max_batch} for {count * rate:g} records on average: over {self.steps:,} "
                f"steps it would be added to delta with {chance:.2g}; take {safe}, or Poisson."
            )

    @cached_property
    def overflow(self) -> float:
        """The chance that a step's other records alone reach `max_batch`."""
        if self.max_batch >= self.num_examples:
            return 0.0
        return _at_least(self.max_batch, self.num_examples, self.sample_rate)

    @property
    def _poisson(self) -> Poisson:
        return Poisson(self.sample_rate, self.steps)

    @property
    def describe(self) -> str:
        """The sampler in a few words."""
        return (
            f"{self._poisson.describe}, cut at {self.max_batch:,} records (chance "
            f"{self.steps * self.overflow:.1g} in the run, counted within delta)"
        )

    def batches(self, num_examples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Indices of the records in each step's batch, ascending; a batch may be empty."""
        self._check(num_examples)
        return (self._cut(b, rng) for b in self._poisson.batches(num_examples, rng))

    def _cut(self, batch: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        if len(batch) <= self.max_batch:
            return batch
        return np.sort(rng.choice(batch, self.max_batch, replace=False))

    def expected_batch(self, num_examples: int) -> float:
        """The mean batch size q N before it is cut, in records."""
        self._check(num_examples)
        return self._poisson.expected_batch(num_examples)

    def _check(self, num_examples: int) -> None:
        if num_examples > self.num_examples:
            raise ValueError(
                f"num_examples (N, public number of records, or more) must be at least the "
                f"{num_examples} records of the data, got {self.num_examples}."
            )

    def groups(self) -> Blocks:
        """Every step is charged by itself."""
        return Blocks(self.steps)

    def charge(self, group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
        """What Poisson charges, and for each step that samples the chance of truncation."""
        entries = self._poisson.charge(group, relation)
        sampling = sum(bool(sampled(step)) for step in group)
        if self.overflow and sampling:
            chance = EpsilonDelta(0.0, self.overflow)
            entries.append((UpperSide(chance, SMALLER), sampling))
        return entries


def _at_least(size: int, num_examples: int, rate: float) -> float:
    """The chance that so many of all records join a step."""
    return float(special.betainc(size, num_examples - size + 1, rate))


def _safe(chance: float, num_examples: int, rate: float) -> int:
    """The least size that is reached with at most this chance."""
    low, high = 0, num_examples
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _at_least(middle, num_examples, rate) <= chance else (
            middle, high)  # fmt: skip
    return high
