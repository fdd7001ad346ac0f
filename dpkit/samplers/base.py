"""What a sampler is: it draws the batches and states what a step on them costs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, overload

import numpy as np
from numpy.typing import NDArray

from dpkit.mechanisms import Mechanism, Neighbours, Release
from dpkit.schedules import Schedule

Entries = list[tuple[Mechanism, int]]


@dataclass(frozen=True)
class Blocks(Sequence[range]):
    """The steps 0 .. steps-1 cut into consecutive ranges of `size`; the last may be shorter."""

    steps: int
    size: int = 1

    def __len__(self) -> int:
        """How many ranges there are."""
        return -(-self.steps // self.size)

    def __iter__(self) -> Iterator[range]:
        """The ranges in order."""
        for start in range(0, self.steps, self.size):
            yield range(start, min(start + self.size, self.steps))

    @overload
    def __getitem__(self, index: int) -> range: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[range]: ...
    def __getitem__(self, index: int | slice) -> range | Sequence[range]:
        """The range at an index."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = index + len(self) if index < 0 else index
        if not 0 <= index < len(self):
            raise IndexError(index)
        return range(index * self.size, min((index + 1) * self.size, self.steps))


class Sampler(ABC):
    """A way of forming batches, with the privacy that it earns.

    *Guarantee*
    - `batches` draws exactly what `charge` charges: no other sampler's amplification is claimed.
    - `charge` is called before the first batch of its group is drawn, on `at_step` of its first.
    """

    relations: ClassVar[tuple[Neighbours, ...]]
    """The neighbouring relations that it can be proven under; the first is the default."""

    steps: int

    @property
    @abstractmethod
    def describe(self) -> str:
        """A few words for the guarantee, such as `Poisson sampling at rate 0.01`."""

    @abstractmethod
    def batches(self, num_examples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Record indices of each step's batch, in order; a batch may be empty."""

    @property
    def varies(self) -> bool:
        """Whether steps are drawn, and charged, each by a law of its own: see `at_step`."""
        return False

    def at_step(self, step: int) -> Self:
        """The sampler whose law a step follows, which draws it and is charged for it."""
        return self

    @abstractmethod
    def expected_batch(self, num_examples: int) -> float:
        """The public divisor of a step's noisy sum: its expected batch size, in records."""

    def expected_batches(self, num_examples: int) -> Schedule:
        """The divisor of every step: a number, or a function of the step where it varies."""
        if not self.varies:
            return self.expected_batch(num_examples)
        return lambda step: self.at_step(step).expected_batch(num_examples)

    def mean_batch(self, num_examples: int, steps: int) -> float:
        """The expected batch size on average over the first steps, in records."""
        sizes = self.expected_batches(num_examples)
        if not callable(sizes):
            return sizes
        return math.fsum(sizes(step) for step in range(steps)) / steps

    def remainder(self, num_examples: int) -> str:
        """How records that do not divide into batches are dealt out; empty where all is even."""
        return ""

    @abstractmethod
    def groups(self) -> Sequence[range]:
        """Ranges of steps that are charged together, covering 0 .. steps-1 in order."""

    @abstractmethod
    def charge(self, group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
        """What the releases of one group's steps cost together, as (charged mechanism, count)."""
