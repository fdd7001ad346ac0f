"""What a sampler is: it draws the batches and states what a step on them costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, overload

import numpy as np
from numpy.typing import NDArray

from dpkit.mechanisms import Mechanism, Neighbours, Release

Entries = list[tuple[Mechanism, int]]


@dataclass(frozen=True)
class Blocks(Sequence[range]):
    """The steps 0 .. steps-1 cut into consecutive ranges of `size`; the last may be shorter."""

    steps: int
    size: int = 1

    def __len__(self) -> int:
        """How many ranges there are."""
        return -(-self.steps // self.size)

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
    - `charge` is called before the first batch of its group is drawn.
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

    @abstractmethod
    def expected_batch(self, num_examples: int) -> float:
        """The public divisor of a step's noisy sum: its expected batch size, in records."""

    def remainder(self, num_examples: int) -> str:
        """How records that do not divide into batches are dealt out; empty where all is even."""
        return ""

    @abstractmethod
    def groups(self) -> Sequence[range]:
        """Ranges of steps that are charged together, covering 0 .. steps-1 in order."""

    @abstractmethod
    def charge(self, group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
        """What the releases of one group's steps cost together, as (charged mechanism, count)."""
