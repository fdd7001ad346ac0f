"""Widgets: turn a plan's knobs, watch the events; a panel loads when it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dpkit.words import speak

_HOMES = {
    "accounting": ("AccountantsPanel", "FiveAnswersPanel"),
    "anatomy": ("AnatomyPanel",),
    "attack": ("FindTheBug",),
    "batching": ("BandsPanel", "BatchesPanel", "LeakPanel"),
    "board": ("Board", "Box"),
    "controls": ("Buttons", "Check", "Choice", "Code", "Entry", "Note", "Progress", "Slider"),
    "explorer": ("Explorer",),
    "leaking": ("UpdatePanel",),
    "lesson": ("Lesson",),
    "lessons": (
        "CompositionPanel", "HypothesisPanel", "NoisePanel", "RandomisedResponsePanel",
    ),
    "neuraldp": ("ActivationPanel",),
    "neuraldp_stored": ("ComparisonPanel",),
    "painter": ("PainterPanel",),
    "playground": ("Playground",),
    "plot": ("LivePlot",),
    "pruning": ("PruningPanel",),
    "race": ("RacePanel",),
    "schedules": ("BudgetPanel",),
    "votes": ("VotesPanel",),
    "votes_stored": ("WorthPanel",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [*_HOME_OF, "speak"]  # noqa: PLE0604

if TYPE_CHECKING:
    from dpkit.widgets.accounting import AccountantsPanel, FiveAnswersPanel  # noqa: F401
    from dpkit.widgets.anatomy import AnatomyPanel  # noqa: F401
    from dpkit.widgets.attack import FindTheBug  # noqa: F401
    from dpkit.widgets.batching import BandsPanel, BatchesPanel, LeakPanel  # noqa: F401
    from dpkit.widgets.board import Board, Box  # noqa: F401
    from dpkit.widgets.controls import (  # noqa: F401
        Buttons,
        Check,
        Choice,
        Code,
        Entry,
        Note,
        Progress,
        Slider,
    )
    from dpkit.widgets.explorer import Explorer  # noqa: F401
    from dpkit.widgets.leaking import UpdatePanel  # noqa: F401
    from dpkit.widgets.lesson import Lesson  # noqa: F401
    from dpkit.widgets.lessons import (  # noqa: F401
        CompositionPanel,
        HypothesisPanel,
        NoisePanel,
        RandomisedResponsePanel,
    )
    from dpkit.widgets.neuraldp import ActivationPanel  # noqa: F401
    from dpkit.widgets.neuraldp_stored import ComparisonPanel  # noqa: F401
    from dpkit.widgets.painter import PainterPanel  # noqa: F401
    from dpkit.widgets.playground import Playground  # noqa: F401
    from dpkit.widgets.plot import LivePlot  # noqa: F401
    from dpkit.widgets.pruning import PruningPanel  # noqa: F401
    from dpkit.widgets.race import RacePanel  # noqa: F401
    from dpkit.widgets.schedules import BudgetPanel  # noqa: F401
    from dpkit.widgets.votes import VotesPanel  # noqa: F401
    from dpkit.widgets.votes_stored import WorthPanel  # noqa: F401


def __getattr__(name: str) -> Any:
    """Import a public name from its module at first use (PEP 562): lessons need no torch."""
    if name not in _HOME_OF:
        raise AttributeError(f"dpkit.widgets has no name {name!r}; it has {', '.join(__all__)}.")
    value = getattr(importlib.import_module(f"dpkit.widgets.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
