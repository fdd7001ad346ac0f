"""A run of votes: teachers vote on images, noise is added, and the generator follows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dpkit.datasets import Dataset
from dpkit.knobs import Knob
from dpkit.methods import Peek
from dpkit.noise import Noise
from dpkit.spending import Spend, Step
from dpkit.votes.ballot import direction, votes
from dpkit.votes.generator import Generator, Painter
from dpkit.votes.plan import RELATION, VotePlan
from dpkit.votes.shards import Shards
from dpkit.votes.teachers import Discriminator

if TYPE_CHECKING:
    from dpkit.datasets.components import Projection

FAKES = 50
"""Generated images of each class that the teachers tell their records from, in a step."""
_SEED = Knob("s", "start of a teaching run's streams", 0, 2**63 - 1, integer=True, optional=True)
_SIZE = Knob("N", "public number of examples", 1, 1e12, integer=True)


@dataclass(frozen=True)
class VotePeek(Peek):
    """What a learner may look at and nobody may keep: not private.

    *Shapes*: gradient and vote (d,) of the first teacher for the first image, `sums` (B, d) of
    all votes before the noise.
    """

    gradient: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)
    vote: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)
    sums: Tensor = field(default_factory=lambda: torch.zeros(0, 0), repr=False)


@dataclass(frozen=True)
class VoteStep(Step):
    """One generator step: what was released, and what followed from it. `peek` is not private.

    *Shapes*: labels (B,); images, noisy, direction (B, d), in the coordinates that are voted on.
    """

    labels: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False)
    images: Tensor = field(default_factory=lambda: torch.zeros(0, 0), repr=False)
    noisy: Tensor = field(default_factory=lambda: torch.zeros(0, 0), repr=False)
    direction: Tensor = field(default_factory=lambda: torch.zeros(0, 0), repr=False)
    painter: Painter | None = field(default=None, repr=False, compare=False)


def generate(
    data: Dataset,
    plan: VotePlan,
    *,
    basis: Projection | None = None,
    discriminator: Discriminator = Discriminator(),  # noqa: B008 - a frozen value
    generator: Generator = Generator(),  # noqa: B008 - a frozen value
    ids: Iterable[int] | None = None,
    seed: int | None = None,
    secure: bool = False,
    num_examples: int | None = None,
) -> Iterator[VoteStep]:
    """Train a generator by the votes of teachers on `data`, yielding a `VoteStep` a step.

    Images are voted on in the coordinates of a public `basis`, or pixel by pixel. `ids` names the
    records: a record that comes, goes or changes leaves all others theirs (by default the row).
    `seed` and `num_examples` are as in `train`; everything is checked before anything is drawn.
    """
    _SEED.check("seed", seed)
    size = data.num_examples if num_examples is None else num_examples
    _SIZE.check("num_examples", size)
    rows = data.inputs.flatten(1).float() if basis is None else basis.features(data.inputs)
    named = np.arange(len(rows)) if ids is None else np.fromiter(ids, dtype=np.int64)
    _check(plan, rows, named, size)
    run = _Run(plan, data, rows, named, size, seed, secure)
    return run.steps(discriminator, generator)


def _check(plan: VotePlan, rows: Tensor, ids: np.ndarray, size: int) -> None:
    """Refuse what does not fit together, and warn of what promises little."""
    width = rows.shape[1]
    if plan.top_k > width:
        raise ValueError(
            f"top_k (k, coordinates that a teacher votes on) must be a whole number in "
            f"[1, {width}], the coordinates of an image, got {plan.top_k}; choose fewer."
        )
    if len(ids) != len(rows) or len(np.unique(ids)) != len(ids):
        raise ValueError(
            f"ids must name each of the {len(rows):,} records once, got {len(ids):,} names, "
            f"{len(np.unique(ids)):,} of them different."
        )
    if plan.delta >= 1 / size:
        warnings.warn(
            f"delta {plan.delta:g} is not below 1/N = {1 / size:.2g}: publishing one record "
            f"outright would be allowed; choose a smaller delta.",
            stacklevel=3,
        )


class _Run:
    """One run: its streams, its shards and its spend."""

    def __init__(
        self,
        plan: VotePlan,
        data: Dataset,
        rows: Tensor,
        ids: np.ndarray,
        size: int,
        seed: int | None,
        secure: bool,
    ) -> None:
        dealing, public, noise = np.random.SeedSequence(seed).spawn(3)
        key = None if seed is None else int(noise.generate_state(1, np.uint64)[0])
        self.noise = Noise(key if not secure else seed, secure)
        start = int(public.generate_state(1, np.uint64)[0] >> np.uint64(1))
        self.stream = torch.Generator().manual_seed(start)
        shards = Shards(plan.teachers, plan.copies, dealing.generate_state(4, np.uint32).tobytes())
        self.places = torch.from_numpy(shards.filled(ids.tolist(), size))
        self.plan, self.rows, self.targets = plan, rows, data.targets
        self.classes = data.num_classes
        self.spend = Spend(RELATION)

    def steps(self, discriminator: Discriminator, generator: Generator) -> Iterator[VoteStep]:
        """Charge a step, then vote, then move: in this order."""
        teachers = discriminator.start(
            self.rows, self.targets, self.places, self.classes, self.stream
        )
        painter = generator.start(self.classes, self.rows.shape[1], self.stream)
        fakes = torch.arange(self.classes).repeat_interleave(FAKES)
        for step in range(self.plan.steps):
            self.spend.charge(self.plan.entries())
            first = step * self.plan.images
            labels = torch.arange(first, first + self.plan.images) % self.classes
            units, images = painter.drawn(labels)
            told = painter.drawn(fakes)[1].unflatten(0, (self.classes, FAKES))
            gradients = teachers.gradients(images, labels, told)
            sums, peek = self._counted(gradients)
            noisy = torch.stack([self._released(votes) for votes in sums])
            ways = direction(noisy, self.plan.threshold * self.plan.teachers)
            painter.fit(units, labels, images + generator.distance(step, self.plan.steps) * ways)
            yield self._event(step, peek, labels, images, noisy, ways, painter)

    def _counted(self, gradients: Tensor) -> tuple[Tensor, VotePeek]:
        """The sums of all teachers' votes (B, d), and a look at the first teacher's."""
        plan, chance = self.plan, None
        if plan.stochastic is not None:
            chance = torch.rand(gradients.shape, generator=self.stream)
        cast = votes(gradients, plan.top_k, plan.stochastic, chance)
        sums = cast.sum(0)
        norms = cast[:, 0].norm(dim=1).double().numpy()
        peek = VotePeek(
            float("nan"), norms, plan.bound, len(cast),
            gradient=gradients[0, 0].clone(), vote=cast[0, 0].clone(), sums=sums.clone(),
        )  # fmt: skip
        return sums, peek

    def _released(self, total: Tensor) -> Tensor:
        """One image's sum with noise on every coordinate."""
        return self.plan.release.mechanism.draw(total, self.plan.bound, self.noise)

    def _event(
        self, step: int, peek: VotePeek, labels: Tensor, images: Tensor, noisy: Tensor,
        ways: Tensor, painter: Painter,
    ) -> VoteStep:  # fmt: skip
        plan = self.plan
        return VoteStep(
            step + 1, plan.steps, peek, plan.delta, plan.accountant, self.spend, self.spend.mark,
            labels=labels, images=images, noisy=noisy, direction=ways, painter=painter,
        )  # fmt: skip
