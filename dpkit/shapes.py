"""Shapes: schedules with parameters, which fall as one formula says."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, replace
from typing import Any, ClassVar, Self

from dpkit.knobs import Knob, check_knobs, knob
from dpkit.words import marked


def start_knob(meaning: str = marked("value of the first epoch")) -> Any:
    """The knob of a first value."""
    return knob(MISSING, "v₀", meaning, 0, 1e6, open_low=True, log=True, slider=(0.5, 50.0))


def decay_knob() -> Any:
    """The knob of a rate of fall."""
    return knob(MISSING, "k", "how fast the value falls", 0, 100, slider=(0.0, 0.2))


def factor_knob() -> Any:
    """The knob of a step down."""
    return knob(MISSING, "k", "what a step down multiplies the value by", 0, 1, open_low=True,
                slider=(0.1, 1.0))  # fmt: skip


def period_knob(meaning: str) -> Any:
    """The knob of a number of epochs."""
    return knob(MISSING, "period", meaning, 1, 1_000_000, integer=True, log=True, slider=(1, 400))


@dataclass(frozen=True, kw_only=True)
class Shape(ABC):
    """A schedule with parameters: one value for each epoch of `steps_per_epoch` steps.

    With the default of 1 a step is an epoch: the value changes at every step.

    *Guarantee*
    - its parameters are checked when it is made, and it is stored by name with all of them;
    - `scaled` keeps the shape: every value is multiplied by the same factor.
    """

    steps_per_epoch: int = knob(
        1, "t", "steps for which a value holds", 1, 10_000_000, integer=True, log=True,
        slider=(1, 1000),
    )  # fmt: skip

    levels: ClassVar[tuple[str, ...]] = ("start",)
    """The parameters that are values themselves, and so scale with them."""

    def __post_init__(self) -> None:
        """Check every parameter."""
        check_knobs(self)

    @abstractmethod
    def at_epoch(self, epoch: int) -> float:
        """The value in an epoch; epochs count from 0."""

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.at_epoch(step // self.steps_per_epoch)

    def scaled(self, factor: float) -> Self:
        """The same shape with every value times a factor."""
        copied: Any = replace
        return copied(self, **{name: factor * getattr(self, name) for name in self.levels})


@dataclass(frozen=True)
class Uniform(Shape):
    """The same value throughout."""

    start: float = start_knob("value of every epoch")

    def at_epoch(self, epoch: int) -> float:
        """The start."""
        return self.start


@dataclass(frozen=True)
class TimeDecay(Shape):
    """start / (1 + k e). *Source*: Yu et al. 2019, section 5 (time-based decay)."""

    start: float = start_knob()
    decay: float = decay_knob()

    def at_epoch(self, epoch: int) -> float:
        """Falls as one over the epochs."""
        return self.start / (1 + self.decay * epoch)


@dataclass(frozen=True)
class ExponentialDecay(Shape):
    """start e^(-k e). *Source*: Yu et al. 2019, section 5 (exponential decay)."""

    start: float = start_knob()
    decay: float = decay_knob()

    def at_epoch(self, epoch: int) -> float:
        """Falls by the same share in every epoch."""
        return self.start * math.exp(-self.decay * epoch)


@dataclass(frozen=True)
class StepDecay(Shape):
    """start k^floor(e / period). *Source*: Yu et al. 2019, section 5 (step-based decay)."""

    start: float = start_knob()
    factor: float = factor_knob()
    period: int = period_knob("epochs between two steps down")

    def at_epoch(self, epoch: int) -> float:
        """Falls at the end of every period."""
        return self.start * self.factor ** (epoch // self.period)


@dataclass(frozen=True)
class PolynomialDecay(Shape):
    """(start - end) (1 - e / period)^k + end, and end from then on.

    *Source*: Yu et al. 2019, section 5 (polynomial decay).
    """

    start: float = start_knob()
    end: float = knob(
        MISSING, "v_end", "value after the period", 0, 1e6, open_low=True, log=True,
        slider=(0.5, 50.0),
    )  # fmt: skip
    power: float = knob(
        MISSING, "k", "power of the fall", 0, 100, open_low=True, log=True, slider=(0.2, 10.0)
    )
    period: int = period_knob("epochs until the end is reached")

    levels: ClassVar[tuple[str, ...]] = ("start", "end")

    def at_epoch(self, epoch: int) -> float:
        """Falls quickly at first where the power is above 1."""
        left = max(1 - epoch / self.period, 0.0)
        return (self.start - self.end) * left**self.power + self.end


@dataclass(frozen=True)
class ConstantThenDecay(Shape):
    """The start for `hold` epochs, then start e^(-k (e - hold))."""

    start: float = start_knob()
    hold: int = knob(
        MISSING, "hold", "epochs before the fall", 0, 1_000_000, integer=True, slider=(0, 200)
    )
    decay: float = decay_knob()

    def at_epoch(self, epoch: int) -> float:
        """Falls once the hold is over."""
        return self.start * math.exp(-self.decay * max(epoch - self.hold, 0))


_VALUE = Knob("v", "value at a knot", 0, 1e6, open_low=True)


@dataclass(frozen=True)
class Knots(Shape):
    """Straight lines through values that are spread evenly over a period; the last one stays."""

    values: tuple[float, ...]
    period: int = period_knob("epochs from the first knot to the last")

    def __post_init__(self) -> None:
        """Check the period and every value; there must be two at least."""
        super().__post_init__()
        object.__setattr__(self, "values", tuple(self.values))
        if len(self.values) < 2:
            raise ValueError(f"values must hold two knots at least, got {len(self.values)}.")
        for place, value in enumerate(self.values):
            _VALUE.check(f"values[{place}]", value)

    def at_epoch(self, epoch: int) -> float:
        """On the line between the two knots beside it."""
        last = len(self.values) - 1
        place = min(epoch / self.period, 1.0) * last
        left = min(int(place), last - 1)
        share = place - left
        return (1 - share) * self.values[left] + share * self.values[left + 1]

    def scaled(self, factor: float) -> Self:
        """Every knot times a factor."""
        return replace(self, values=tuple(factor * value for value in self.values))
