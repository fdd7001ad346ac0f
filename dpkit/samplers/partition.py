"""A fixed partition: the records are dealt out once into disjoint shards, as for teachers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.knobs import knob
from dpkit.mechanisms import Neighbours, Release, UpperSide
from dpkit.samplers.base import Entries
from dpkit.samplers.disjoint import (
    Epochwise,
    check_batches,
    parts,
    refuse_add_remove,
    remainder,
    unsampled,
    worst,
)

KNOWN = "a partition is a band: upper side as if the record's shard were known, no lower side"
"""Why an epoch over several shards is charged as an upper side alone."""


@dataclass(frozen=True)
class Partition(Epochwise):
    """The records are dealt into `shards` once; step i of every epoch sees shard i, all of it.

    *Guarantee*
    - shards share no record, so an epoch costs its least noisy step, once; exact for whoever knows
      the record's shard, as its teacher does, and for all others an upper side alone;
    - shards that do not divide the records differ in size by one; none is dropped.

    *Source*: McSherry 2009 (parallel composition); Papernot et al. 2017 (teachers).
    """

    shards: int = knob(MISSING, "k", "disjoint shards", 1, 1_000_000, integer=True, log=True)
    epochs: int = knob(1, "E", "passes over the data", 1, 1_000_000, integer=True)

    relations: ClassVar[tuple[Neighbours, ...]] = (Neighbours.ZERO_OUT, Neighbours.REPLACE_ONE)

    named: ClassVar[str] = "shards (k, disjoint shards)"

    @property
    def batches_per_epoch(self) -> int:  # type: ignore[override]
        """One batch for each shard."""
        return self.shards

    @property
    def describe(self) -> str:
        """The sampler in a few words."""
        return f"a fixed partition into {self.shards:,} disjoint shards"

    def batches(self, num_examples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Indices of each shard's records, ascending; the same shards every epoch."""
        check_batches(self.shards, num_examples, self.named)
        shards = parts(rng.permutation(num_examples), self.shards)
        return (shard for _ in range(self.epochs) for shard in shards)

    def remainder(self, num_examples: int) -> str:
        """How the records are dealt out where the shards do not divide them."""
        return remainder(self.shards, num_examples, "shards")

    def charge(self, group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
        """The least noisy step of the epoch, once, and releases to all records as they are."""
        refuse_add_remove(self, relation)
        entries, release = unsampled(group, relation), worst(group, "Partition")
        if release is None:
            return entries
        pair = release.pair(relation)
        return [*entries, (pair if self.shards == 1 else UpperSide(pair, KNOWN), 1)]
