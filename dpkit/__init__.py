"""dpkit: differentially private deep learning that you can watch; names load when they are used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "mechanisms": (
        "Access",
        "EpsilonDelta",
        "Gaussian",
        "Laplace",
        "Ledger",
        "Mechanism",
        "Neighbours",
        "RandomisedResponse",
        "Refused",
        "Release",
    ),
    "samplers": (
        "BallsInBins",
        "FixedSize",
        "Partition",
        "Poisson",
        "Sampler",
        "Shuffle",
        "TruncatedPoisson",
    ),
    "accountants": ("GDP", "PLD", "RDP", "ZCDP", "Accountant", "Advanced", "Basic", "Moments"),
    "methods": ("DPSGD", "Freeze", "Method", "NeuralDP", "Select", "TopAgg"),
    "knobs": ("Knob", "knob", "turned"),
    "plan": ("Plan", "round_down", "round_up"),
    "budgets": ("RDPBudget", "RhoBudget"),
    "training": ("Step", "train"),
    "auditing": ("Audit", "audit"),
    "sweeping": ("Grid", "Store", "Sweep", "sweep"),
}
_MODULES = (
    "accountants",
    "auditing",
    "course",
    "datasets",
    "figures",
    "gradients",
    "mechanisms",
    "methods",
    "samplers",
    "schedules",
    "votes",
    "widgets",
    "zoo",
)
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [*_HOME_OF, *_MODULES]  # noqa: PLE0604

if TYPE_CHECKING:
    from dpkit import (  # noqa: F401
        auditing,
        course,
        datasets,
        figures,
        gradients,
        schedules,
        votes,
        widgets,
        zoo,
    )
    from dpkit.accountants import (  # noqa: F401
        GDP,
        PLD,
        RDP,
        ZCDP,
        Accountant,
        Advanced,
        Basic,
        Moments,
    )
    from dpkit.auditing import Audit, audit  # noqa: F401
    from dpkit.budgets import RDPBudget, RhoBudget  # noqa: F401
    from dpkit.knobs import Knob, knob, turned  # noqa: F401
    from dpkit.mechanisms import (  # noqa: F401
        Access,
        EpsilonDelta,
        Gaussian,
        Laplace,
        Ledger,
        Mechanism,
        Neighbours,
        RandomisedResponse,
        Refused,
        Release,
    )
    from dpkit.methods import DPSGD, Freeze, Method, NeuralDP, Select, TopAgg  # noqa: F401
    from dpkit.plan import Plan, round_down, round_up  # noqa: F401
    from dpkit.samplers import (  # noqa: F401
        BallsInBins,
        FixedSize,
        Partition,
        Poisson,
        Sampler,
        Shuffle,
        TruncatedPoisson,
    )
    from dpkit.sweeping import Grid, Store, Sweep, sweep  # noqa: F401
    from dpkit.training import Step, train  # noqa: F401


def __getattr__(name: str) -> Any:
    """Import a public name from its module at first use (PEP 562)."""
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"dpkit.{_HOME_OF[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"dpkit.{name}")
    else:
        raise AttributeError(f"dpkit has no name {name!r}; dir(dpkit) lists what there is.")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
