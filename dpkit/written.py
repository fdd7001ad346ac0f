"""Values as the Python that makes them again."""

from __future__ import annotations

import enum
import sys
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import dpkit as dp

_HOMES = ("schedules", "gradients", "accountants", "methods", "samplers", "mechanisms", "budgets")


def written(value: Any) -> str:
    """An expression that gives the value again, after `import dpkit as dp`; defaults are left out.

    ValueError for what no public name makes, such as a function of the step.
    """
    if isinstance(value, enum.Enum):
        return f"{_public(type(value))}.{value.name}"
    if is_dataclass(value) and not isinstance(value, type):
        parts = [f"{f.name}={written(getattr(value, f.name))}" for f in fields(value)
                 if f.init and getattr(value, f.name) != _default(f)]  # fmt: skip
        return f"{_public(type(value))}({', '.join(parts)})"
    if isinstance(value, tuple):
        inner = ", ".join(map(written, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and abs(value) == float("inf"):
        return f'float("{value}")'
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    raise ValueError(f"{value!r} has no short form in Python; store the plan as JSON instead.")


def _default(declared: Field[Any]) -> Any:
    if declared.default is not MISSING:
        return declared.default
    return declared.default_factory() if declared.default_factory is not MISSING else MISSING


def _public(kind: type) -> str:
    """The public name of a class."""
    if getattr(dp, kind.__name__, None) is kind:
        return f"dp.{kind.__name__}"
    for home in _HOMES:
        if getattr(sys.modules.get(f"dpkit.{home}"), kind.__name__, None) is kind:
            return f"dp.{home}.{kind.__name__}"
    raise ValueError(f"{kind.__name__} has no public name; store the plan as JSON instead.")
