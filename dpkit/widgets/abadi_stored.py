"""The founding experiment at full length, as it was run once: what `benchmarks/abadi.py` wrote."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpkit.abadi import VARIANTS

Values = NDArray[np.float64]

COMMAND = "python benchmarks/abadi.py"
"""What makes the file again, from a clone of the project."""


@dataclass(frozen=True)
class Result:
    """One cell of the table: a test accuracy, mean over runs that differ in the seed alone."""

    accuracies: tuple[float, ...]
    steps: int

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.accuracies)

    def __str__(self) -> str:
        """In percent, with the standard deviation where there are several runs."""
        if len(self.accuracies) == 1:
            return f"{100 * self.mean:.1f}"
        return f"{100 * self.mean:.1f} ± {100 * statistics.stdev(self.accuracies):.1f}"


@dataclass(frozen=True)
class Swept:
    """Accuracies against one setting, in rising order; `noise` is what epsilon 2 asked for."""

    values: Values
    test: Values
    train: Values

    def at(self, value: float) -> float:
        """Test accuracy read off the line, straight in the logarithm of the setting."""
        return float(np.interp(np.log(value), np.log(self.values), self.test))


class Stored:
    """What is on file: runs of the table with their curves, sweeps, the conditions."""

    def __init__(self, found: dict[str, Any]) -> None:
        """Take what was read."""
        self.found = found

    @property
    def conditions(self) -> dict[str, Any]:
        """What the runs were made with."""
        return self.found["conditions"]

    @property
    def variants(self) -> tuple[str, ...]:
        """The ways of clipping that were run, in the order in which they are told."""
        ran = {one["variant"] for one in self.found["runs"]}
        return tuple(variant for variant in VARIANTS if variant in ran)

    def runs(self, epsilon: float, variant: str) -> list[dict[str, Any]]:
        """All seeds of a row."""
        wanted = (epsilon, variant)
        return [one for one in self.found["runs"] if (one["epsilon"], one["variant"]) == wanted]

    def result(self, epsilon: float, variant: str) -> Result | None:
        """The accuracy when epsilon was spent; None if that was not run."""
        runs = self.runs(epsilon, variant)
        return Result(tuple(one["accuracy"] for one in runs), runs[0]["steps"]) if runs else None

    def published(self, epsilon: float, variant: str) -> Result | None:
        """The accuracy where the moments accountant, at one release a step, would have stopped."""
        runs = [run for run in self.runs(epsilon, variant) if run["published accuracy"] is not None]
        if not runs:
            return None
        return Result(tuple(one["published accuracy"] for one in runs), runs[0]["published steps"])

    def curve(self, epsilon: float, variant: str) -> tuple[Values, Values, Values]:
        """Epochs, test and training accuracy along the way, `(points,)`, mean over the seeds."""
        curves = np.array([one["curve"] for one in self.runs(epsilon, variant)], float)
        if not len(curves):
            return np.array([]), np.array([]), np.array([])
        steps, test, train = curves.mean(axis=0)
        return steps * self.conditions["lot"] / self.conditions["examples"], test, train

    def sweep(self, name: str) -> Swept:
        """One setting of the sweeps; a run without components is none of its line."""
        points = [point for point in self.found["sweeps"][name] if point["value"] > 0]
        return Swept(*(np.array([p[key] for p in points]) for key in ("value", "test", "train")))

    def without_components(self) -> float | None:
        """The accuracy of the sweep's run on the pixels themselves."""
        points = [p["test"] for p in self.found["sweeps"]["components"] if p["value"] == 0]
        return points[0] if points else None


@cache
def stored() -> Stored:
    """The file that is shipped with the package."""
    file = resources.files("dpkit.widgets").joinpath("abadi.json")
    return Stored(json.loads(file.read_text("utf-8")))
