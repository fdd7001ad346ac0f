"""What a method is: the releases of each step, and a stepper that makes exactly those."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from dpkit.mechanisms import Access, Neighbours, Refused, Release

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from dpkit.noise import Noise
    from dpkit.schedules import Schedule, ValidationDecay

Loss = Callable[..., Any]


@dataclass(frozen=True)
class Peek:
    """What a learner may look at and a release may not contain: not private.

    Only `accuracy` and `test_loss` concern public test data; the rest looks at private records.
    """

    loss: float
    norms: NDArray[np.float64] = field(repr=False)
    max_grad_norm: float
    batch_size: int
    skipped: int = 0
    accuracy: float | None = None
    test_loss: float | None = None

    @property
    def clipped(self) -> float:
        """The share of the batch whose gradient norm exceeds the clip norm; 0 for no records."""
        return float((self.norms > self.max_grad_norm).mean()) if len(self.norms) else 0.0


class Batch:
    """The inputs and targets of a step's records, gathered only if somebody looks at them.

    `everyone` holds those of all records, for releases that read them all; `who` says which of
    them are in the batch.
    """

    def __init__(self, everyone: tuple[torch.Tensor, torch.Tensor], who: torch.Tensor) -> None:
        """Nothing is gathered yet."""
        self.everyone, self.who = everyone, who

    @cached_property
    def _pair(self) -> tuple[torch.Tensor, ...]:
        return tuple(values.index_select(0, self.who) for values in self.everyone)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Inputs `(B, ...)`, targets `(B, ...)`."""
        return iter(self._pair)

    def __getitem__(self, place: int) -> torch.Tensor:
        """Inputs at 0, targets at 1."""
        return self._pair[place]


class Stepper(Protocol):
    """A method at work on one model."""

    def step(
        self,
        step: int,
        batch: Any,
        releases: tuple[Release, ...],
        generator: Noise,
    ) -> Peek:
        """Make exactly these releases on the `Batch` and move the model by them."""

    def limit(self, microbatch: int | None, memory_budget: int | None) -> None:
        """Work on so many records at a time, within so many bytes; None is what suits."""

    def prepare(self, inputs: torch.Tensor, targets: torch.Tensor, classes: int | None) -> None:
        """Refuse, before the first batch, what cannot be trained on records of this kind."""

    def evaluate(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, float | None]:
        """Mean loss and accuracy (None without classes) of the present model on public data."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the model, such as a momentum."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state` gave."""


class Method(ABC):
    """A training method as a value: what it releases is known before it runs."""

    relations: ClassVar[tuple[Neighbours, ...]]
    """The neighbouring relations under which its releases have the stated sensitivity."""

    @property
    @abstractmethod
    def varies(self) -> bool:
        """Whether the releases change with the step; pricing is instant where they do not."""

    @property
    def reacting(self) -> ValidationDecay | None:
        """The noise schedule if it reacts to validation accuracy: such a run needs a budget."""
        return None

    @property
    def unit(self) -> str:
        """What of one record the promise covers, in words."""
        return "one example"

    def terms(self, steps: int) -> str:
        """What else the promise of so many steps says, as a sentence; empty for nothing."""
        return ""

    @abstractmethod
    def releases(self, step: int, history: tuple[float, ...] = ()) -> tuple[Release, ...]:
        """What the step releases: a pure function; `()` means post-processing only.

        `history` holds the validation accuracies that a reacting schedule has seen before.
        """

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """The same method with its noise multiplied by a factor, for calibration."""

    def check_records(self, shape: tuple[int, ...]) -> None:  # noqa: B027 - most take any
        """Refuse records of a shape that the method cannot work on, in one sentence."""

    @abstractmethod
    def start(self, model: torch.nn.Module, loss: Loss, expected_batch: Schedule) -> Stepper:
        """Take hold of a model; refuses one that cannot be trained so, in one sentence.

        `expected_batch` divides the sum of a step, all of them or each by a number of its own.
        """


def check_once(releases: Sequence[Release], *allowed: Access) -> None:
    """Refuse what a stepper would not make as it was charged: it draws each once, and so."""
    for release in releases:
        if release.count != 1 or release.access not in allowed:
            raise Refused(
                f"A step of this method draws each release once and {allowed[0].value}, got "
                f"count {release.count} and access {release.access.name}: what would be charged is "
                f"not what is drawn; give releases of count 1 and Access.{allowed[0].name}."
            )
