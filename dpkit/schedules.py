"""Schedules: a number, or a function of the step, wherever a parameter may change in a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Schedule = float | Callable[[int], float]
"""A constant, or a function from the step's index (0, 1, 2, ...) to a value."""


@dataclass(frozen=True)
class Tabulated:
    """One value for each step, in order: the stored form of any function of the step."""

    values: tuple[float, ...]

    def __call__(self, step: int) -> float:
        """The value at a step; IndexError beyond the table, since a schedule has no default."""
        if not 0 <= step < len(self.values):
            raise IndexError(f"This schedule has {len(self.values)} steps, asked for step {step}.")
        return self.values[step]


@dataclass(frozen=True)
class Scaled:
    """A schedule times a factor: the shape is kept, as calibration needs."""

    schedule: Callable[[int], float]
    factor: float

    def __call__(self, step: int) -> float:
        """The scaled value at a step."""
        return self.factor * self.schedule(step)


def at(schedule: Schedule, step: int) -> float:
    """The value of a schedule at a step."""
    return float(schedule(step)) if callable(schedule) else float(schedule)


def scaled(schedule: Schedule, factor: float) -> Schedule:
    """A schedule of the same shape, multiplied by a factor."""
    if not callable(schedule):
        return schedule * factor
    if isinstance(schedule, Scaled):
        return Scaled(schedule.schedule, schedule.factor * factor)
    return Scaled(schedule, factor)


def tabulated(schedule: Schedule, steps: int) -> Schedule:
    """A stored form: a number as it is, a function as one value for each of `steps` steps."""
    if not callable(schedule) or isinstance(schedule, Tabulated):
        return schedule
    return Tabulated(tuple(at(schedule, step) for step in range(steps)))
