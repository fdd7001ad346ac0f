"""Private activations at full length, as they were run once by `benchmarks/neuraldp.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from dpkit.figures import activations as figures
from dpkit.widgets.controls import Choice
from dpkit.widgets.lesson import Lesson, Table
from dpkit.widgets.plot import LivePlot
from dpkit.words import marked, say

COMMAND = "python benchmarks/neuraldp.py"
"""What makes the file again, from a clone of the project."""
UNSOUND = "leaky"
MODES = marked(("DP-SGD", "once", "once, labels too", "each epoch", "DP-SGD below", "leaky"))
TITLES = marked({"mnist": "MNIST", "pneumonia": "PneumoniaMNIST (balanced subset)"})


@dataclass(frozen=True)
class Cell:
    """One cell of the table: test accuracy in percent over runs that differ in the seed alone."""

    mean: float
    deviation: float
    seeds: int

    def __str__(self) -> str:
        """Mean and standard deviation."""
        return f"{self.mean:.1f} ± {self.deviation:.1f}"


class Stored:
    """The table of a comparison at equal prices, with its conditions."""

    def __init__(self, found: dict[str, Any]) -> None:
        """Take what was read."""
        self.found = found
        self.conditions: dict[str, Any] = found["conditions"]
        self.modes: tuple[str, ...] = tuple(found["modes"])
        self.epsilons: tuple[float, ...] = tuple(found["epsilons"])

    def cell(self, data: str, mode: str, epsilon: float) -> Cell:
        """One cell."""
        return Cell(*self.found["cells"][f"{data}/{mode}/{epsilon:g}"])

    def row(self, data: str, mode: str) -> list[Cell]:
        """A mode's cells, one for each epsilon."""
        return [self.cell(data, mode, epsilon) for epsilon in self.epsilons]


@cache
def stored() -> Stored:
    """The file that comes with dpkit."""
    text = resources.files("dpkit.widgets").joinpath("neuraldp.json").read_text()
    return Stored(json.loads(text))


class ComparisonPanel(Lesson):
    """Accuracy against epsilon of every mode, on either data set, as stored.

    *Guarantee*: the mode that promises nothing has no epsilon in figure or table.
    """

    def __init__(self) -> None:
        """Make the panel from what is stored."""
        self.stored, self.table = stored(), Table()
        options = [(say(title), key) for key, title in TITLES.items()]
        super().__init__(
            {"data": Choice(label=say("Data"), options=options)},
            {
                "bought": LivePlot(
                    height=420, title=say("Accuracy at one price: mean and deviation over seeds")
                )
            },
            table=self.table,
            wide=("bought",),
        )

    def redraw(self) -> None:
        """The curves and the table of one data set."""
        data, modes = self.value("data"), self.stored.modes
        rows = {mode: self.stored.row(data, mode) for mode in modes}
        lines = {mode: [(c.mean, c.deviation) for c in cells] for mode, cells in rows.items()}
        best = rows["once"][-1]
        self.plots["bought"].show(
            figures.bought(self.stored.epsilons, lines, UNSOUND),
            say(
                "{title}: one release reaches {accuracy:.1f}% at ε = 8",
                title=say(TITLES[data]),
                accuracy=best.mean,
            ),
        )
        heads = [
            "ε",
            *(say(m) for m in modes if m != UNSOUND),
            say("{mode} (ε: none)", mode=say(UNSOUND)),
        ]
        order = [*(m for m in modes if m != UNSOUND), UNSOUND]
        body = [
            [f"{epsilon:g}", *(str(rows[mode][place]) for mode in order)]
            for place, epsilon in enumerate(self.stored.epsilons)
        ]
        delta = self.stored.conditions["deltas"][data]
        self.table.show(
            say(
                "{title}: test accuracy in percent, δ = {delta:g}, replacing one record",
                title=say(TITLES[data]), delta=delta
            ),
            heads, body,
        )  # fmt: skip
        self.said.show(
            say(
                "All modes see the same public features and were tuned on held-out training "
                "records. DP-SGD and “once, labels too” protect inputs and labels, the others "
                "inputs alone. The crossed line is trained end to end: it stands at the ε that "
                "it would claim, and has **none**."
            )
        )
