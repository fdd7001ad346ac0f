"""Private gradients: per-example clipping near the speed of plain training.

Names load when they are used, so that the ways of clipping and of descending, which are plain
values, can be named without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpkit.gradients.augmentation import Augmentation, Shifts, Views
    from dpkit.gradients.checks import CrossRecordError
    from dpkit.gradients.clipping import Automatic, Clipping, Flat, PerLayer
    from dpkit.gradients.engine import Clipped, Engine
    from dpkit.gradients.optimisers import SGD, Adam, Optimiser, TorchOptimiser

_HOMES = {
    "augmentation": ("Augmentation", "Shifts", "Views"),
    "checks": ("CrossRecordError",),
    "clipping": ("Automatic", "Clipping", "Flat", "PerLayer"),
    "engine": ("Clipped", "Engine"),
    "optimisers": ("SGD", "Adam", "Optimiser", "TorchOptimiser"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "SGD",
    "Adam",
    "Augmentation",
    "Automatic",
    "Clipped",
    "Clipping",
    "CrossRecordError",
    "Engine",
    "Flat",
    "Optimiser",
    "PerLayer",
    "Shifts",
    "TorchOptimiser",
    "Views",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
