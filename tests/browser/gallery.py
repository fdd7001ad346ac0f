"""Every panel that the course shows, on one page: a cell for each, in the state it opens in."""

from __future__ import annotations

import ast
import json
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_MODULES = {
    "accounting": ("FiveAnswersPanel", "AccountantsPanel"),
    "lessons": ("RandomisedResponsePanel", "NoisePanel", "HypothesisPanel", "CompositionPanel"),
    "anatomy": ("AnatomyPanel",),
    "batching": ("BatchesPanel", "BandsPanel", "LeakPanel"),
    "abadi": ("TablePanel", "SweepsPanel"),
    "abadi_prices": ("PricesPanel",),
    "abadi_live": ("LivePanel",),
    "schedules": ("BudgetPanel",),
    "race": ("RacePanel",),
    "pruning": ("PruningPanel",),
    "neuraldp": ("ActivationPanel",),
    "neuraldp_stored": ("ComparisonPanel",),
    "leaking": ("UpdatePanel",),
    "attack": ("FindTheBug",),
    "votes": ("VotesPanel",),
    "painter": ("PainterPanel",),
    "votes_stored": ("WorthPanel",),
}
_SHORT = "data=moons examples=1000 noise=1.0 clip=1.0 rate=1.0 batch=100 epochs=2"
_SEVERAL = {
    "Playground": "import dpkit as dp\npanel = dp.widgets.Playground()",
    "Playground-kept": (
        "import dpkit as dp\npanel = dp.widgets.Playground(settings='kept=200 noise=1.0 epochs=20')"
    ),
    "Playground-epsilon": (
        "import dpkit as dp\n"
        "panel = dp.widgets.Playground(settings='data=moons examples=1000 epsilon=3 epochs=20')"
    ),
    "Playground-trained": (
        f"import dpkit as dp\npanel = dp.widgets.Playground(settings={_SHORT!r})\n"
        "panel.start(); panel.join(60); panel.check()"
    ),
    "BudgetPanel-knots": (
        "from dpkit.widgets.schedules import BudgetPanel\n"
        "panel = BudgetPanel()\npanel.turn(shape='Knots')"
    ),
    "Explorer": (
        f"import sys; sys.path.insert(0, {str(NOTEBOOKS.parent)!r})\n"
        "import dpkit as dp, pathlib, tempfile\n"
        "from tests.sweeps import GRID, SEEDS, Here, linear, published\n"
        "store = pathlib.Path(tempfile.mkdtemp()) / 'runs.sqlite'\n"
        "runs = dp.sweep(GRID, published, linear, seeds=SEEDS, store=store, executor=Here())\n"
        "panel = dp.widgets.Explorer(runs)\npanel.start(); panel.join(60); panel.check()"
    ),
}


def cells() -> dict[str, str]:
    """Name of a panel to the code that shows it."""
    plain = {
        name: f"from dpkit.widgets.{module} import {name}\npanel = {name}()"
        for module, names in _MODULES.items()
        for name in names
    }
    return {name: f"{code}\npanel" for name, code in {**_SEVERAL, **plain}.items()}


def shown_by_notebooks() -> set[str]:
    """Classes of `dpkit.widgets` that the notebooks call: what the gallery must have."""
    found: set[str] = set()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                found |= _called("".join(cell["source"]))
    return found


def _called(source: str) -> set[str]:
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {getattr(call, "id", getattr(call, "attr", "")) for call in calls}
    return {name for name in names if name.endswith("Panel")} | (
        names & {"Playground", "Explorer", "FindTheBug"}
    )
