"""Fixed size: every step sees a uniform subset of the same number of records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import FixedSizeSampling, Neighbours, Release
from dpkit.samplers.base import Blocks, Entries, Sampler
from dpkit.samplers.disjoint import refuse_add_remove, unsampled
from dpkit.samplers.poisson import sampled, together


@dataclass(frozen=True)
class FixedSize(Sampler):
    """Each step draws `batch_size` of `num_examples` records without replacement.

    *Guarantee*
    - a record that comes in displaces another, so a sum moves by up to 2C: charged by an upper
      bound for that, never by the Poisson pair, which forgets the one displaced;
    - the number of records is part of the sampler, and of the promise: it is public.

    *Source*: Zhu, Dong, Wang 2022, theorem 11.
    """

    batch_size: int = knob(
        MISSING, "L", "records in each batch", 1, 1_000_000_000, integer=True, log=True
    )
    num_examples: int = knob(
        MISSING, "N", "public number of records", 1, 1_000_000_000, integer=True, log=True
    )
    steps: int = knob(MISSING, "T", "number of steps", 1, 10_000_000, integer=True)

    relations: ClassVar[tuple[Neighbours, ...]] = (Neighbours.REPLACE_ONE, Neighbours.ZERO_OUT)

    def __post_init__(self) -> None:
        """Check the knobs, and that a batch fits the data."""
        check_knobs(self)
        if self.batch_size > self.num_examples:
            raise ValueError(
                f"batch_size (L, records in each batch) must be a whole number in [1, "
                f"{self.num_examples}], the records of the data, got {self.batch_size}; ask for "
                "fewer."
            )

    @property
    def sample_rate(self) -> float:
        """The share of the records that a step sees."""
        return self.batch_size / self.num_examples

    @property
    def describe(self) -> str:
        """The sampler in a few words."""
        return f"batches of exactly {self.batch_size:,} of {self.num_examples:,} records"

    def batches(self, num_examples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Indices of each step's records, ascending."""
        if num_examples != self.num_examples:
            raise ValueError(
                f"num_examples (N, public number of records) must be that of the data, "
                f"{num_examples}, got {self.num_examples}: the price depends on it."
            )
        return (self._subset(rng) for _ in range(self.steps))

    def _subset(self, rng: np.random.Generator) -> NDArray[np.int64]:
        chosen = rng.choice(self.num_examples, self.batch_size, replace=False, shuffle=False)
        return np.sort(chosen)

    def expected_batch(self, num_examples: int) -> float:
        """The batch size."""
        return float(self.batch_size)

    def groups(self) -> Blocks:
        """Every step is charged by itself."""
        return Blocks(self.steps)

    def charge(self, group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
        """Sampled releases of a step amplified together, releases to all records as they are."""
        refuse_add_remove(self, relation)
        sampling = FixedSizeSampling(self.sample_rate)
        entries = unsampled(group, relation)
        for releases in group:
            looks = sampled(releases)
            if looks:
                entries.append((together(looks).pair(relation, sampling), 1))
        return entries
