"""Modules of SciPy that are imported at first use: accounting imports in half the time."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Later:
    """Stands for a module; imports it when a name of it is first asked for.

    `scipy.special` takes a third of a second, most of it for array libraries that dpkit never
    hands it.
    """

    def __init__(self, module: str) -> None:
        """Name the module."""
        self._module = module

    def __getattr__(self, name: str) -> Any:
        """A name of the module, kept for the next time."""
        value = getattr(import_module(self._module), name)
        setattr(self, name, value)
        return value


special = Later("scipy.special")
fft = Later("scipy.fft")
