"""Poisson sampling: every record joins every step by its own coin toss."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import (
    Access,
    Gaussian,
    Mechanism,
    Neighbours,
    PoissonSampling,
    Refused,
    Release,
)
from dpkit.samplers.base import Blocks, Entries, Sampler
from dpkit.schedules import Schedule, ValidationDecay, at, extremes


@dataclass(frozen=True)
class Poisson(Sampler):
    """Each step sees each record with probability `sample_rate`, independently of all else.

    The rate may follow a schedule that is fixed beforehand, so that batches grow or shrink.

    *Guarantee*
    - every step is drawn at the rate at which it is charged, and divided by the mean of its own;
    - batch sizes are Binomial(num_examples, sample_rate), empty batches included;
    - all sampled releases of one step look at the same batch, so they are charged as one.

    *Source*: Abadi et al. 2016, section 3; Mironov, Talwar, Zhang 2019.
    """

    sample_rate: Schedule = knob(
        dataclasses.MISSING, "q", "chance that a step sees a record", 0, 1, open_low=True, log=True,
        schedule=True,
    )  # fmt: skip
    steps: int = knob(dataclasses.MISSING, "T", "number of steps", 1, 10_000_000, integer=True)

    relations: ClassVar[tuple[Neighbours, ...]] = (
        Neighbours.ADD_REMOVE,
        Neighbours.ZERO_OUT,
        Neighbours.REPLACE_ONE,
    )

    def __post_init__(self) -> None:
        """Check both knobs, and that the rate is known beforehand."""
        check_knobs(self)
        if isinstance(self.sample_rate, ValidationDecay):
            raise ValueError(
                "sample_rate (q, chance that a step sees a record) cannot follow ValidationDecay, "
                "which sets the noise alone; give it a schedule that is fixed beforehand."
            )

    @property
    def varies(self) -> bool:
        """Whether the rate is a function of the step."""
        return callable(self.sample_rate)

    def at_step(self, step: int) -> Self:
        """Poisson sampling at the rate of a step."""
        if not callable(self.sample_rate):
            return self
        return dataclasses.replace(self, sample_rate=at(self.sample_rate, step))

    @property
    def rate(self) -> float:
        """The rate of every step; one that changes has none, and is told by `at_step`."""
        if callable(self.sample_rate):
            raise Refused(
                "sample_rate (q, chance that a step sees a record) must be a number here, got "
                f"{self.sample_rate!r}: take the sampler of one step, by at_step(step)."
            )
        return self.sample_rate

    @property
    def describe(self) -> str:
        """The sampler in a few words."""
        if not callable(self.sample_rate):
            return f"Poisson sampling at rate {self.rate:.4g}"
        least, most = extremes(self.sample_rate, self.steps)
        return f"Poisson sampling at rates from {least:.4g} to {most:.4g}, fixed beforehand"

    def batches(self, num_examples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Indices of the records in each step's batch, ascending; a batch may be empty."""
        for step in range(self.steps):
            yield _included(num_examples, self.at_step(step).rate, rng)

    def expected_batch(self, num_examples: int) -> float:
        """The mean batch size q N, in records."""
        return self.rate * num_examples

    def groups(self) -> Blocks:
        """Every step is charged by itself."""
        return Blocks(self.steps)

    def charge(self, group: Sequence[tuple[Release, ...]], relation: Neighbours) -> Entries:
        """Sampled releases of a step amplified together, releases to all records as they are."""
        sampling = _sampling(self.rate)
        entries: Entries = []
        for releases in group:
            looks = sampled(releases)
            if looks:
                entries.append((together(looks).pair(relation, sampling), 1))
            if len(looks) < len(releases):
                entries += [
                    (r.mechanism.pair(relation), r.count)
                    for r in releases
                    if r.access is Access.ALL
                ]
        return entries


@functools.lru_cache(maxsize=1024)
def _sampling(rate: float) -> PoissonSampling:
    """One value for all steps of a rate."""
    return PoissonSampling(rate)


def sampled(releases: Sequence[Release]) -> list[Release]:
    """The releases of a step that look at its batch; what is released no times is none."""
    return [r for r in releases if r.access is Access.SAMPLED and r.count]


def together(releases: Sequence[Release]) -> Mechanism:
    """One mechanism for releases that look at the same sampled batch.

    They share one coin toss for each record, so amplifying each alone and composing is wrong;
    Gaussians join exactly: 1/s^2 = sum of count_i/s_i^2. At least one count is above 0.
    """
    if len(releases) == 1 and releases[0].count == 1:
        return releases[0].mechanism
    releases = [r for r in releases if r.count]
    if len(releases) == 1 and releases[0].count == 1:
        return releases[0].mechanism
    mechanisms = [r.mechanism for r in releases]
    if not all(isinstance(m, Gaussian) for m in mechanisms):
        names = ", ".join(sorted({type(m).__name__ for m in mechanisms}))
        raise Refused(
            f"Several releases on one sampled batch can be charged together only if all are "
            f"Gaussian, got {names}; release once a step, or use Access.ALL."
        )
    if any(m.noise_multiplier == 0 for m in mechanisms):  # type: ignore[attr-defined]
        return Gaussian(0.0)
    precision = sum(r.count / r.mechanism.noise_multiplier**2 for r in releases)  # type: ignore[attr-defined]
    return Gaussian(1 / math.sqrt(precision))


def _included(num_examples: int, rate: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices kept by independent coins of bias `rate`, ascending."""
    if rate > 0.1:
        return np.flatnonzero(rng.random(num_examples) < rate)
    # The gaps between successes are geometric: the cost follows the batch, not the data set.
    mean = rate * num_examples
    chunk = int(mean + 6 * math.sqrt(mean) + 16)
    ends = np.cumsum(_gaps(rng, rate, chunk)) - 1
    while ends[-1] < num_examples:
        more = np.cumsum(_gaps(rng, rate, chunk)) + ends[-1]
        ends = np.concatenate([ends, more])
    return ends[: np.searchsorted(ends, num_examples)]


def _gaps(rng: np.random.Generator, rate: float, count: int) -> NDArray[np.int64]:
    """Geometric gaps, cut at 2^40 so that their sums cannot overflow at the smallest rates."""
    return np.minimum(rng.geometric(rate, count), 1 << 40)
