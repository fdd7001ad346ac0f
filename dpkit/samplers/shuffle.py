"""Shuffling: every epoch a fresh order of all records, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.knobs import knob
from dpkit.mechanisms import Gaussian, Neighbours, Release, ShuffledGaussian, UpperSide
from dpkit.samplers.base import Entries
from dpkit.samplers.disjoint import (
    Epochwise,
    check_batches,
    loudest,
    parts,
    refuse_add_remove,
    remainder,
    unsampled,
    worst,
)

KNOWN = "shuffling is a band: upper side as if the order were known, no lower side"
"""Why a shuffled release that is not Gaussian is charged as an upper side alone."""


@dataclass(frozen=True)
class Shuffle(Epochwise):
    """A true permutation each epoch, cut into batches; each record is in exactly one of them.

    *Guarantee*
    - an epoch costs its least noisy step, once, and is not amplified: never the Poisson epsilon;
    - replacing a record moves a sum by 2C, four times the cost in rho or mu^2;
    - batches that do not divide the records differ in size by one; none is dropped.

    *Source*: Yu et al. 2019, section 4 (random reshuffling); Chua et al. 2024.
    """

    batches_per_epoch: int = knob(
        MISSING, "t", "batches in an epoch", 1, 1_000_000, integer=True, log=True
    )
    epochs: int = knob(1, "E", "passes over the data", 1, 1_000_000, integer=True)

    relations: ClassVar[tuple[Neighbours, ...]] = (Neighbours.ZERO_OUT, Neighbours.REPLACE_ONE)

    @property
    def describe(self) -> str:
        """The sampler in a few words."""
        return f"{self.batches_per_epoch:,} batches of freshly shuffled records an epoch"

    def batches(self, num_examples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Indices of each step's records, ascending; a new permutation every epoch."""
        check_batches(self.batches_per_epoch, num_examples, self.named)
        orders = (rng.permutation(num_examples) for _ in range(self.epochs))
        return (batch for order in orders for batch in parts(order, self.batches_per_epoch))

    def remainder(self, num_examples: int) -> str:
        """How the records are dealt out where the batches do not divide them."""
        return remainder(self.batches_per_epoch, num_examples, "batches")

    def charge(self, group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
        """The least noisy step of the epoch, once, and releases to all records as they are."""
        refuse_add_remove(self, relation)
        entries, release = unsampled(group, relation), worst(group, "Shuffle")
        if isinstance(release, Gaussian):
            replaced = relation is Neighbours.REPLACE_ONE
            sigma, most = release.noise_multiplier, loudest(group, self.batches_per_epoch)
            varied = most if most > sigma else None
            entries.append((ShuffledGaussian(self.batches_per_epoch, sigma, replaced, varied), 1))
        elif release is not None:
            pair = release.pair(relation)
            alone = self.batches_per_epoch == 1
            entries.append((pair if alone else UpperSide(pair, KNOWN), 1))
        return entries
