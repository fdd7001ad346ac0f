"""The comparison on MNIST, as it was run once: what `benchmarks/pruning.py` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

COMMAND = "python benchmarks/pruning.py"
"""What makes the file again, from a clone of the project."""
HELP, PARITY, CLOSE = (
    "fewer updated parameters can help",
    "random is on par with magnitude",
    "closeness of public data matters",
)
"""The paper's three claims."""
Line = list[tuple[float, list[float]]]


@dataclass(frozen=True)
class Stored:
    """The setting, one accuracy for each seed of each condition, and the claims."""

    setting: Mapping[str, Any]
    cells: Sequence[Mapping[str, Any]]
    claims: Mapping[str, Any]

    def accuracies(self, **condition: Any) -> list[float]:
        """The test accuracy of each seed under one condition."""
        for cell in self.cells:
            if all(cell[name] == value for name, value in condition.items()):
                return list(cell["accuracy"])
        raise KeyError(f"no runs of {condition} are stored; {COMMAND} makes them.")

    def line(self, mode: str, criterion: str, epsilon: float, start: str = "near") -> Line:
        """(ratio, accuracies) in rising order, from no pruning on."""
        whole = self.accuracies(start=start, epsilon=epsilon, ratio=0.0)
        kind = {"start": start, "epsilon": epsilon, "mode": mode, "criterion": criterion}
        found = {c["ratio"]: list(c["accuracy"]) for c in self.cells
                 if all(c[name] == value for name, value in kind.items())}  # fmt: skip
        return [(0.0, whole), *sorted(found.items())]

    def differences(self, claim: str, *words: str) -> dict[str, Mapping[str, Any]]:
        """The paired differences of a claim, those whose names hold all these words."""
        found = self.claims[claim]["differences"]
        return {name: row for name, row in found.items() if all(word in name for word in words)}

    def verdict(self, claim: str) -> str:
        """Whether the claim was reproduced, and by which rule."""
        told = self.claims[claim]
        return f"{'reproduced' if told['reproduced'] else 'not reproduced'}: {told['rule']}"


@cache
def stored() -> Stored:
    """The file that is shipped with the package."""
    file = resources.files("dpkit.widgets").joinpath("pruning.json")
    return Stored(**json.loads(file.read_text("utf-8")))
