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
_SWEEP = (
    f"import sys; sys.path.insert(0, {str(NOTEBOOKS.parent)!r})\n"
    "import dpkit as dp, pathlib, tempfile\n"
    "from dataclasses import replace\n"
    "from tests.sweeps import GRID, PLAN, SEEDS, Here, linear, published\n"
    "store = pathlib.Path(tempfile.mkdtemp()) / 'runs.sqlite'\n"
    "runs = dp.sweep({}, published, linear, seeds=SEEDS, store=store, executor=Here())\n"
    "panel = dp.widgets.Explorer(runs)\npanel.start(); panel.join(60); panel.check()"
)
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
    "Explorer": _SWEEP.format("GRID"),
    "Explorer-endless": _SWEEP.format("replace(PLAN, method=dp.DPSGD(0.0, 1.0, 0.5))"),
    "PainterPanel-worked": (
        "from dpkit.widgets.painter import PainterPanel\npanel = PainterPanel()\n"
        "panel.turn(steps=20)\npanel.start(); panel.join(120); panel.check()"
    ),
    "RacePanel-worked": (
        "import time\nfrom dpkit.widgets.race import RacePanel\n"
        "panel = RacePanel()\npanel.turn(seeds=1)\npanel.train()\n"
        "while sum(len(run.accuracy) for run in panel.runs) < 12:\n    time.sleep(0.05)\n"
        "panel.controls['race'].click('stop'); panel.join(60); panel.check()"
    ),
}
FIGURES = {
    "07-live": ("07", ("live = {", "against_ratio(live)")),
    "07-across": ("07", ("runs = stored()", "against_ratio(lines)")),
    "07-gains": ("07", ("runs = stored()", "gains = LivePlot")),
    "07-pairs": ("07", ("runs = stored()", "pairs = LivePlot")),
    "07-close": ("07", ("runs = stored()", "close = LivePlot")),
    "09-bare": ("09", ("bare = auditing.invert",)),
    "09-four": ("09", ("bare = auditing.invert", "clipped = auditing", 'DP-SGD": private')),
    "09-roc": ("09", ("bare = auditing.invert", "without = auditing", "attacks.roc(")),
}
"""Figures outside of a panel: their notebook, and words by which their cells are found."""
_BEFORE = "from dpkit.figures import pruning as pictures\nfrom dpkit.widgets import LivePlot"
_QUICK = {"ratios, how = (0.0, 0.5, 0.9)": "ratios, how = (0.0, 0.9)", "models=12": "models=4"}
"""What makes no other picture, only a slower one."""


def cells() -> dict[str, str]:
    """Name of a panel or figure to the code that shows it."""
    plain = {
        name: f"from dpkit.widgets.{module} import {name}\npanel = {name}()"
        for module, names in _MODULES.items()
        for name in names
    }
    panels = {name: f"{code}\npanel" for name, code in {**_SEVERAL, **plain}.items()}
    return panels | {
        name: _quick("\n".join([_BEFORE, *figure(*of)])) for name, of in FIGURES.items()
    }


def figure(number: str, marks: tuple[str, ...]) -> list[str]:
    """The cells of a notebook in which these words stand, one for each."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    sources = code_of(path)
    return [next(source for source in sources if mark in source) for mark in marks]


def drawn_by_notebooks() -> set[str]:
    """Every cell of the notebooks that shows a figure outside of a panel."""
    sources = (source for path in NOTEBOOKS.glob("*.ipynb") for source in code_of(path))
    makers = ("LivePlot(", "LivePlot.of(", "as_plotly(")
    return {source for source in sources if any(maker in source for maker in makers)}


def code_of(path: Path) -> list[str]:
    """The code cells of a notebook."""
    found = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def _quick(source: str) -> str:
    for slow, quick in _QUICK.items():
        source = source.replace(slow, quick)
    return source


def shown_by_notebooks() -> set[str]:
    """Classes of `dpkit.widgets` that the notebooks call: what the gallery must have."""
    found: set[str] = set()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        found = found.union(*map(_called, code_of(path)))
    return found


def _called(source: str) -> set[str]:
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {getattr(call, "id", getattr(call, "attr", "")) for call in calls}
    return {name for name in names if name.endswith("Panel")} | (
        names & {"Playground", "Explorer", "FindTheBug"}
    )
