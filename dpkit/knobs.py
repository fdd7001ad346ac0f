"""A knob: one declaration of a parameter that feeds check, error message, slider and docs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any

_META = "dpkit.knob"
_HUGE = 1e300  # what is beyond is looked at closely: an int may be more than a float can hold


@dataclass(frozen=True)
class Knob:
    """What a parameter is called, what it means and where it may lie."""

    symbol: str
    meaning: str
    low: float
    high: float
    open_low: bool = False
    open_high: bool = False
    integer: bool = False
    schedule: bool = False
    optional: bool = False
    log: bool = False
    slider: tuple[float, float] | None = None

    @property
    def interval(self) -> str:
        """The allowed range as a reader writes it, such as (0, 1]."""
        opening = "(" if self.open_low or math.isinf(self.low) else "["
        closing = ")" if self.open_high or math.isinf(self.high) else "]"
        return f"{opening}{_text(self.low)}, {_text(self.high)}{closing}"

    def admits(self, value: float) -> bool:
        """Whether a number lies in the range; NaN never does."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return bool(above and below and (not self.integer or value == int(value)))

    def check(self, name: str, value: Any) -> None:
        """Raise one clear sentence if `value` may not stand for the parameter `name`."""
        if (self.optional and value is None) or (self.schedule and callable(value)):
            return
        if isinstance(value, bool) or not _is_number(value):
            kind = "a whole number" if self.integer else "a number"
            also = " or a function of the step" if self.schedule else ""
            rest = "; it cannot follow a schedule" if callable(value) else ""
            if isinstance(value, int) and not isinstance(value, bool):
                rest = ", too large a number"
            told = repr(value) if len(repr(value)) < 200 else f"{repr(value)[:20]}..."
            raise TypeError(f"{self.describe(name)} must be {kind}{also}, got {told}{rest}.")
        if not self.admits(value):
            kind = "a whole number in" if self.integer else "in"
            verb = "be" if self.integer else "lie"
            raise ValueError(
                f"{self.describe(name)} must {verb} {kind} {self.interval}, got {_text(value)}."
            )

    def plain(self, value: Any) -> Any:
        """A number as Python's own int or float, which cannot change as an array can."""
        if value is None or callable(value):
            return value
        if self.integer:
            return value if type(value) is int else int(value)
        return value if type(value) in (int, float) else float(value)

    def describe(self, name: str) -> str:
        """Name, symbol and meaning, for messages: `sample_rate (q, chance that ...)`."""
        return f"{name} ({self.symbol}, {self.meaning})"


def knob(default: Any, symbol: str, meaning: str, low: float, high: float, **options: Any) -> Any:
    """Declare a dataclass field with its symbol, meaning and range (see `Knob` for options).

    Pass `dataclasses.MISSING` as the default of a parameter that must be given.
    """
    meta = {_META: Knob(symbol, meaning, low, high, **options)}
    return field(metadata=meta) if default is MISSING else field(default=default, metadata=meta)


def knobs_of(owner: Any) -> dict[str, Knob]:
    """The knobs of a dataclass or of one of its instances, by field name."""
    return dict(_declared(_kind(owner)))


def _kind(owner: Any) -> Any:
    return owner if isinstance(owner, type) else type(owner)


@cache
def _declared(kind: Any) -> dict[str, Knob]:
    return {f.name: f.metadata[_META] for f in fields(kind) if _META in f.metadata}


@cache
def _ranges(kind: Any) -> list[tuple[str, Knob, float, float, tuple[type, ...]]]:
    """What `check_knobs` asks, ready to hand."""
    return [
        (
            name,
            declared,
            max(declared.low, -_HUGE),
            min(declared.high, _HUGE),
            (int,) if declared.integer else (float, int),
        )
        for name, declared in _declared(kind).items()
    ]


def check_knobs(instance: Any) -> None:
    """Check every knob of a dataclass instance, and hold plain numbers; for `__post_init__`."""
    for name, declared, low, high, kinds in _ranges(_kind(instance)):
        value = getattr(instance, name)
        if type(value) in kinds and low < value < high:  # nearly always: a schedule makes thousands
            continue
        declared.check(name, value)
        if (plain := declared.plain(value)) is not value:
            object.__setattr__(instance, name, plain)


def every_knob(value: Any, prefix: str = "") -> Iterator[tuple[str, Knob, Any]]:
    """All knobs of nested dataclasses as (dotted path, knob, present value)."""
    for f in fields(value):
        present, path = getattr(value, f.name), f"{prefix}{f.name}"
        if _META in f.metadata:
            yield path, f.metadata[_META], present
        elif is_dataclass(present) and not isinstance(present, type):
            yield from every_knob(present, path + ".")


def turned(value: Any, path: str, setting: Any) -> Any:
    """A checked copy of a nested dataclass with the field at a dotted path changed.

    `turned(plan, "method.noise_multiplier", 1.3)`; raises AttributeError for an unknown path.
    """
    name, _, rest = path.partition(".")
    if not is_dataclass(value) or name not in {f.name for f in dataclasses.fields(value)}:
        raise AttributeError(f"{type(value).__name__} has no field {name!r} to turn.")
    copied: Any = replace
    return copied(value, **{name: turned(getattr(value, name), rest, setting) if rest else setting})


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):  # a whole number may be more than a float holds
        return False
    return not isinstance(value, str | bytes) and not isinstance(value, Callable)  # type: ignore[arg-type]


def _text(value: float) -> str:
    """A number as people write it: 1.5, 60000, infinity."""
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    if abs(value) < 1e6 and value == float(f"{value:g}"):
        return f"{value:g}"
    return f"{value:.0f}" if abs(value) < 1e15 and value == int(value) else repr(value)
