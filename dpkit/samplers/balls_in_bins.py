"""Balls in bins: every epoch, each record falls into one of t batches by a die of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.knobs import knob
from dpkit.mechanisms import AllocatedGaussian, Gaussian, Neighbours, Refused, Release
from dpkit.samplers.base import Entries
from dpkit.samplers.disjoint import Epochwise, unsampled
from dpkit.samplers.poisson import sampled, together


@dataclass(frozen=True)
class BallsInBins(Epochwise):
    """Each record is in exactly one batch an epoch, as when shuffling, but for itself alone.

    *Guarantee*
    - batch sizes are Binomial(N, 1/t), empty batches included;
    - an epoch of equal noise is amplified as a whole: the pair of the mean of N(e_i) and N(0).

    *Source*: Chua et al. 2025 (balls-and-bins sampling for DP-SGD).
    """

    batches_per_epoch: int = knob(
        MISSING, "t", "batches in an epoch", 1, 1_000_000, integer=True, log=True
    )
    epochs: int = knob(1, "E", "passes over the data", 1, 1_000_000, integer=True)

    relations: ClassVar[tuple[Neighbours, ...]] = (Neighbours.ZERO_OUT, Neighbours.ADD_REMOVE)

    @property
    def describe(self) -> str:
        """The sampler in a few words."""
        return f"one of {self.batches_per_epoch:,} batches an epoch for each record (balls in bins)"

    def batches(self, num_examples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Indices of the records in each step's batch, ascending; a batch may be empty.

        More batches than records are lawful: how many records there are may be private.
        """
        return (batch for _ in range(self.epochs) for batch in _thrown(self, num_examples, rng))

    def charge(self, group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
        """The epoch as a whole, and releases to all records as they are."""
        if relation not in self.relations:
            raise Refused(
                "BallsInBins is not accounted for neighbours that replace one record by another; "
                "use ZERO_OUT or ADD_REMOVE, or Poisson or Shuffle."
            )
        entries = unsampled(group, relation)
        looks = [sampled(step) for step in group]
        if not any(looks):
            return entries
        release = _equal([together(step) if step else None for step in looks])
        if self.batches_per_epoch == 1:
            return [*entries, (release.pair(relation), 1)]
        pair = AllocatedGaussian(self.batches_per_epoch, release.noise_multiplier)
        return [*entries, (pair, 1)]


def _equal(mechanisms: list[object]) -> Gaussian:
    """The one Gaussian of an epoch, or a refusal."""
    first, others = mechanisms[0], set(mechanisms)
    if len(others) > 1:
        raise Refused(
            "BallsInBins can be accounted only if the noise is the same in all steps of an epoch; "
            "let the schedule change between epochs, or use Poisson or Shuffle."
        )
    if not isinstance(first, Gaussian):
        raise Refused(
            f"BallsInBins can be accounted for Gaussian noise alone, got {type(first).__name__}; "
            "use Gaussian, or Poisson sampling."
        )
    return first


def _thrown(
    sampler: BallsInBins, num_examples: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """One epoch: each record's batch, gathered into batches."""
    bins = rng.integers(0, sampler.batches_per_epoch, num_examples)
    order = np.argsort(bins, kind="stable")
    ends = np.cumsum(np.bincount(bins, minlength=sampler.batches_per_epoch))
    return np.split(order, ends[:-1])
