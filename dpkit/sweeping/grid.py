"""A grid: one plan turned in many ways, each either priced or refused in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpkit.knobs import turned
from dpkit.plan import Plan

EPSILON = "epsilon"
"""The name under which a grid asks for noise that is calibrated to a price."""


@dataclass(frozen=True)
class Point:
    """A plan of a sweep with what was turned to make it; without a plan, why there is none.

    `model` is what this plan trains, where it is not the model of the whole sweep.
    """

    settings: tuple[tuple[str, Any], ...]
    plan: Plan | None
    error: str | None = None
    model: Any = None


@dataclass(frozen=True)
class Grid:
    """Every combination of the values given for some fields of a plan.

    `Grid(plan, {"method.noise_multiplier": (1, 2), "method.max_grad_norm": (.1, 1)})` has four
    points; a name is a dotted path as `turned` takes it, and "epsilon" calibrates the noise at the
    end. A value may be a whole part, such as a sampler. `model` is for a method that needs another
    model than the rest of a sweep does, such as `zoo.released` for NeuralDP.

    *Guarantee*
    - a combination that cannot be accounted, or that is out of range, is kept with the reason.
    """

    plan: Plan
    over: Mapping[str, Sequence[Any]]
    model: Any = None

    def __post_init__(self) -> None:
        """Refuse names that are no field of the plan, and empty rows, before anything runs."""
        if not isinstance(self.plan, Plan):
            raise TypeError(f"plan must be a Plan, got {self.plan!r}.")
        for path, values in self.over.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(
                    f"over[{path!r}] must list at least one value, such as (0.5, 1, 2), got "
                    f"{values!r}."
                )
            if path == "method.noise_multiplier" and EPSILON in self.over:
                if not all(callable(value) for value in values):
                    raise ValueError(
                        "over turns method.noise_multiplier and asks for epsilon, which solves for "
                        "that very number: leave one of them out, or give schedules, whose shape "
                        "is kept."
                    )
            if path != EPSILON:
                present: Any = self.plan
                for name in path.split("."):
                    if not hasattr(present, name):
                        raise ValueError(
                            f"over names {path!r}, but {type(present).__name__} has no {name!r}; "
                            f"write a dotted path such as 'method.max_grad_norm', or 'epsilon'."
                        )
                    present = getattr(present, name)

    def __len__(self) -> int:
        """How many combinations there are."""
        found = 1
        for values in self.over.values():
            found *= len(values)
        return found

    def __iter__(self) -> Iterator[Point]:
        """The combinations, the last name changing fastest."""
        for values in itertools.product(*self.over.values()):
            settings = tuple(zip(self.over, values, strict=True))
            try:
                yield Point(settings, self._turned(dict(settings)), model=self.model)
            except (ValueError, TypeError) as error:
                yield Point(settings, None, str(error), self.model)

    def _turned(self, settings: dict[str, Any]) -> Plan:
        plan, epsilon = self.plan, settings.pop(EPSILON, None)
        for path, value in settings.items():
            plan = turned(plan, path, value)
        return plan if epsilon is None else plan.calibrated(epsilon)


def points(plans: Plan | Grid | Iterable[Plan | Grid | Point]) -> Iterator[Point]:
    """What `sweep` was given, as points; grids of different methods stand side by side."""
    for plan in (plans,) if isinstance(plans, Plan | Grid) else plans:
        if isinstance(plan, Grid):
            yield from plan
        elif isinstance(plan, Plan | Point):
            yield Point((), plan) if isinstance(plan, Plan) else plan
        else:
            raise TypeError(
                f"plans must be a Grid or hold Plans and Grids of what `train` trains (DPSGD, "
                f"TopAgg, NeuralDP), got {plan!r}."
            )
