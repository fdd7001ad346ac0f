"""Schedules: a number, or a function of the step, wherever a parameter may change in a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

from dpkit.knobs import check_knobs, knob, knobs_of
from dpkit.shapes import (
    ConstantThenDecay,
    ExponentialDecay,
    Knots,
    PolynomialDecay,
    Shape,
    StepDecay,
    TimeDecay,
    Uniform,
    factor_knob,
    period_knob,
    start_knob,
)

__all__ = [
    "ConstantThenDecay", "ExponentialDecay", "Knots", "PolynomialDecay", "Scaled", "Schedule",
    "Shape", "StepDecay", "Tabulated", "TimeDecay", "Uniform", "ValidationDecay",
]  # fmt: skip

Schedule = float | Callable[[int], float]
"""A constant, or a function from the step's index (0, 1, 2, ...) to a value."""


@dataclass(frozen=True)
class ValidationDecay(Shape):
    """Noise that falls where validation accuracy no longer rises: it reacts, so it needs a budget.

    At the end of every period the mean of its last `window` validation accuracies is compared with
    the mean before; if it rose by less than `threshold`, the value is multiplied by `factor`.

    *Guarantee*
    - with `look_noise` None it looks at public records alone;
    - else each look counts the right answers among the private records, plus Gaussian noise of
      standard deviation `look_noise`, and is charged as the release that it is: with
      look_noise = N sigma_v a look costs rho = 1 / (2 N^2 sigma_v^2).

    *Source*: Yu et al. 2019, section 5 (validation-based decay).
    """

    start: float = start_knob()
    factor: float = factor_knob()
    period: int = period_knob("epochs between two comparisons")
    window: int = knob(
        5, "m", "validation accuracies in a mean", 1, 1_000_000, integer=True, slider=(1, 50)
    )
    threshold: float = knob(0.01, "τ", "rise that is enough", -1, 1, slider=(0.0, 0.1))
    look_noise: float | None = knob(
        None, "Nσ_v", "noise on the number of right answers", 0, 1e9, open_low=True,
        optional=True, log=True, slider=(1.0, 1000.0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check every parameter, and that a window fits into its period."""
        super().__post_init__()
        if self.window > self.period:
            raise ValueError(
                f"window (m, validation accuracies in a mean) must be a whole number in [1, "
                f"{self.period}], the period, got {self.window}; look at fewer or wait longer."
            )

    def looks_before(self, step: int) -> bool:
        """Whether validation accuracy must be seen once more before a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return step > 0 and within == 0 and (epoch - 1) % self.period >= self.period - self.window

    def at_epoch(self, epoch: int) -> float:
        """The start, while nothing was seen."""
        return self.reacted(epoch, ())

    def __call__(self, step: int, history: Sequence[float] = ()) -> float:
        """The value at a step, after all accuracies that were seen before it."""
        return self.reacted(step // self.steps_per_epoch, history)

    def reacted(self, epoch: int, history: Sequence[float]) -> float:
        """The value in an epoch, given the accuracies that were looked at, oldest first."""
        periods, m = epoch // self.period, self.window
        if len(history) < periods * m:
            raise ValueError(
                f"ValidationDecay reacts to validation accuracy and needs {periods * m} of them "
                f"in epoch {epoch}, got {len(history)}; let `train` run it under a budget."
            )
        means = [math.fsum(history[i * m : (i + 1) * m]) / m for i in range(periods)]
        falls = sum(b - a < self.threshold for a, b in zip(means, means[1:], strict=False))
        return self.start * self.factor**falls


@dataclass(frozen=True, repr=False)
class Tabulated:
    """One value for each step, in order: the stored form of any function of the step."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Hold plain numbers."""
        wrong = [v for v in self.values if isinstance(v, str) or not hasattr(v, "__float__")]
        if isinstance(self.values, str) or wrong:
            told = repr(self.values if isinstance(self.values, str) else wrong[0])
            raise TypeError(f"values must hold one number for each step, got {told}.")
        object.__setattr__(self, "values", tuple(float(value) for value in self.values))

    def __call__(self, step: int) -> float:
        """The value at a step; IndexError beyond the table, since a schedule has no default."""
        if not 0 <= step < len(self.values):
            raise IndexError(f"This schedule has {len(self.values)} steps, asked for step {step}.")
        return self.values[step]

    def __repr__(self) -> str:
        """Short tables in full, long ones by their ends."""
        if len(self.values) <= 12:
            return f"Tabulated(values={self.values!r})"
        ends = f"{self.values[0]:g}, ..., {self.values[-1]:g}"
        return f"<Tabulated: {len(self.values):,} values, {ends}>"


@dataclass(frozen=True)
class Scaled:
    """A schedule times a factor: the shape is kept, as calibration needs."""

    schedule: Callable[[int], float]
    factor: float = knob(MISSING, "f", "what every value is multiplied by", 0, math.inf,
                         open_high=True, log=True, slider=(0.1, 10.0))  # fmt: skip

    def __post_init__(self) -> None:
        """Check both."""
        check_knobs(self)
        if not callable(self.schedule):
            raise TypeError(f"schedule must be a function of the step, got {self.schedule!r}.")

    def __call__(self, step: int) -> float:
        """The scaled value at a step."""
        return self.factor * self.schedule(step)


STORED = (
    Uniform,
    TimeDecay,
    ExponentialDecay,
    StepDecay,
    PolynomialDecay,
    ConstantThenDecay,
    Knots,
    ValidationDecay,
    Tabulated,
    Scaled,
)
"""Every schedule that a stored plan may name."""


def at(schedule: Schedule, step: int, history: Sequence[float] = ()) -> float:
    """The value of a schedule at a step; `history` is for one that reacts."""
    if not callable(schedule):
        return float(schedule)
    if history and isinstance(schedule, ValidationDecay):
        return float(schedule(step, history))
    return float(schedule(step))


def scaled(schedule: Schedule, factor: float) -> Schedule:
    """A schedule of the same shape, multiplied by a factor."""
    if not callable(schedule):
        return schedule * factor
    if isinstance(schedule, Shape):
        return schedule.scaled(factor)
    if isinstance(schedule, Scaled):
        return Scaled(schedule.schedule, schedule.factor * factor)
    return Scaled(schedule, factor)


def fixed(schedule: Any) -> bool:
    """Whether a schedule is a value that cannot change: a number, or one of dpkit's own.

    A subclass may say anything, and something else later: it is a function like any other.
    """
    while type(schedule) is Scaled:
        schedule = schedule.schedule
    return not callable(schedule) or type(schedule) in STORED


def tabulated(schedule: Schedule, steps: int) -> Schedule:
    """What is fixed as it is, another function as one value for each of `steps` steps."""
    if fixed(schedule):
        return schedule
    return Tabulated(tuple(_number(schedule, step) for step in range(steps)))


def _number(schedule: Schedule, step: int) -> float:
    try:
        return at(schedule, step)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"a schedule must give one number for each step, but gives none for step {step}: "
            f"{error}"
        ) from None


@lru_cache(maxsize=256)
def extremes(schedule: Schedule, steps: int) -> tuple[float, float]:
    """The smallest and the largest value of a fixed schedule over its steps; NaN if there is one.

    IndexError where a table is too short.
    """
    if isinstance(schedule, ValidationDecay) or not callable(schedule):
        return at(schedule, 0), at(schedule, 0)
    stride = schedule.steps_per_epoch if isinstance(schedule, Shape) else 1
    values: Sequence[float]
    if isinstance(schedule, Tabulated) and steps <= len(schedule.values):
        values = schedule.values[:steps]
    else:
        values = [at(schedule, step) for step in range(0, steps, stride)]
    bad = any(value != value for value in values)
    return (math.nan, math.nan) if bad else (min(values), max(values))


def read_once(owner: Any, steps: int) -> Any:
    """A dataclass with every function of the step as a table, and every value checked.

    A function that says something else later, since it saw something, can then change nothing.
    """
    for name, declared in knobs_of(owner).items():
        schedule: Any = getattr(owner, name)
        if not (declared.schedule and callable(schedule)):
            continue
        _check_reaction(schedule)
        try:
            held = tabulated(schedule, steps)
            ends = extremes(held, steps)
        except IndexError as error:
            raise ValueError(
                f"{declared.describe(name)} must have a value for each of the {steps:,} steps: "
                f"{error}"
            ) from None
        for value in ends:
            declared.check(name, value)
        if held is not schedule:
            owner = replace(owner, **{name: held})
    for part in fields(owner):
        inner: Any = getattr(owner, part.name)
        if is_dataclass(inner) and not callable(inner):
            read = read_once(inner, steps)
            owner = owner if read is inner else replace(owner, **{part.name: read})
    return owner


def _check_reaction(schedule: Any) -> None:
    """Noise that reacts must be ValidationDecay as it is, whose looks are public or paid for."""
    inner = schedule.schedule if isinstance(schedule, Scaled) else schedule
    if isinstance(inner, ValidationDecay) and type(schedule) is not ValidationDecay:
        raise TypeError(
            f"Noise that reacts to validation is offered as ValidationDecay alone, got "
            f"{type(schedule).__name__}: set its own parameters; `scaled` multiplies its start."
        )
