"""What batches that share no record cost together: parallel composition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.knobs import check_knobs
from dpkit.mechanisms import Access, Gaussian, Mechanism, Neighbours, Refused, Release
from dpkit.samplers.base import Blocks, Entries, Sampler
from dpkit.samplers.poisson import sampled, together


class Epochwise(Sampler):
    """A sampler whose batches share no record within an epoch, which is charged as a whole."""

    batches_per_epoch: int
    epochs: int
    named: ClassVar[str] = "batches_per_epoch (t, batches in an epoch)"
    """The number of batches as messages name it."""

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    @property
    def steps(self) -> int:  # type: ignore[override]
        """All steps of all epochs."""
        return self.batches_per_epoch * self.epochs

    def expected_batch(self, num_examples: int) -> float:
        """N / t records, whether or not that is whole."""
        check_batches(self.batches_per_epoch, num_examples, self.named)
        return num_examples / self.batches_per_epoch

    def groups(self) -> Blocks:
        """Each epoch is charged by itself."""
        return Blocks(self.steps, self.batches_per_epoch)


def worst(group: Sequence[tuple[Release, ...]], sampler: str) -> Mechanism | None:
    """The release that bounds all steps of a group whose batches share no record.

    A record is in one of them alone, so it costs what the least noisy one does.
    """
    mechanisms = [together(looks) for looks in map(sampled, group) if looks]
    if all(isinstance(m, Gaussian) for m in mechanisms):
        least = [m.noise_multiplier for m in mechanisms]  # type: ignore[attr-defined]
        return Gaussian(min(least)) if least else None
    if len(set(mechanisms)) == 1:
        return mechanisms[0]
    names = ", ".join(sorted({type(m).__name__ for m in mechanisms}))
    raise Refused(
        f"{sampler} can be charged for one mechanism throughout an epoch, or for Gaussians, got "
        f"{names}; use the same mechanism in every step, or Poisson."
    )


def loudest(group: Sequence[tuple[Release, ...]], steps: int) -> float:
    """The largest sigma of an epoch of Gaussians; infinite if a step releases no sampled sum."""
    looks = [sampled(step) for step in group]
    if len(looks) < steps or not all(looks):
        return math.inf
    return max(together(step).noise_multiplier for step in looks)  # type: ignore[attr-defined]


def unsampled(group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
    """What releases that read all records cost, whatever the batches are."""
    every = [release for releases in group for release in releases]
    return [(r.mechanism.pair(relation), r.count) for r in every if r.access is Access.ALL]


def parts(order: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """An order of the records cut into so many parts; their sizes differ by one at most."""
    cuts = np.linspace(0, len(order), count + 1).astype(np.int64)
    return [np.sort(order[low:high]) for low, high in pairwise(cuts)]


def check_batches(batches: int, num_examples: int, meaning: str) -> None:
    """Refuse more batches than records."""
    if batches > num_examples:
        raise ValueError(
            f"{meaning} must be a whole number in [1, {num_examples}], the records of the data, "
            f"got {batches}; ask for fewer."
        )


def remainder(batches: int, num_examples: int, what: str) -> str:
    """How records that do not divide evenly are dealt out, or nothing."""
    check_batches(batches, num_examples, what)
    size, left = divmod(num_examples, batches)
    if not left:
        return ""
    return (
        f"{batches:,} {what} do not divide {num_examples:,} records: {left:,} of them hold "
        f"{size + 1:,} records, the others {size:,}; none is dropped, and every sum is divided by "
        f"{num_examples / batches:g}."
    )


def refuse_add_remove(sampler: Sampler, relation: Neighbours) -> None:
    """Refuse the relation under which the number of records moves every batch."""
    if relation not in sampler.relations:
        allowed = " or ".join(r.name for r in sampler.relations)
        raise Refused(
            f"{type(sampler).__name__} cannot be accounted under {relation.name}, where one record "
            f"more or less moves all others; use {allowed}, or Poisson."
        )
