"""The ledger: which releases a run has made, each with its cost after sampling, and how often."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dpkit.mechanisms.allocated import AllocatedGaussian
from dpkit.mechanisms.base import Access, Mechanism, Neighbours, Refused, Release, Reversed
from dpkit.mechanisms.charged import Charged
from dpkit.mechanisms.gaussian import Gaussian
from dpkit.mechanisms.others import EpsilonDelta, Laplace, RandomisedResponse, UpperSide
from dpkit.mechanisms.shuffled import ShuffledGaussian
from dpkit.mechanisms.subsampled import (
    FixedSizeGaussian,
    ReplacedGaussian,
    Subsampled,
    SubsampledGaussian,
)

STORED = (
    Gaussian,
    SubsampledGaussian,
    ReplacedGaussian,
    FixedSizeGaussian,
    AllocatedGaussian,
    ShuffledGaussian,
    Subsampled,
    Laplace,
    RandomisedResponse,
    EpsilonDelta,
    UpperSide,
    Reversed,
)
"""Mechanisms that a stored ledger may name; the tag is the class name."""

_VERSION = 1
MOST_RELEASES = 2**53
"""More than this no array counts exactly."""


@dataclass(frozen=True)
class Ledger:
    """Charged mechanisms and their counts, for one relation; empty means nothing released.

    Guarantee:
    - equal mechanisms are merged, in the order in which they first appeared;
    - counts are applied here and nowhere else.
    """

    entries: tuple[tuple[Mechanism, int], ...] = ()
    relation: Neighbours = Neighbours.ADD_REMOVE

    def __post_init__(self) -> None:
        """Check, merge and drop what was never released."""
        merged: dict[Mechanism, int] = {}
        kind: type[Mechanism] = Gaussian
        for mechanism, count in self.entries:
            if type(mechanism) is not kind:
                if not isinstance(mechanism, Mechanism):
                    raise TypeError(f"A ledger holds mechanisms, got {mechanism!r}.")
                kind = type(mechanism)
                _check_told_apart(mechanism)
            if not (type(count) is int and count >= 0 or _whole(count)):
                raise ValueError(
                    f"count (n, how often a mechanism was released) must be a whole number in "
                    f"[0, infinity), got {count!r}."
                )
            merged[mechanism] = merged.get(mechanism, 0) + int(count)
        if (total := sum(merged.values())) > MOST_RELEASES:
            raise ValueError(
                f"count (n, how often a mechanism was released) must add up to at most 2^53 in a "
                f"ledger, beyond which numbers are not exact, got {min(total, 10**300):.3g}; "
                f"release less often."
            )
        kept = self.entries
        if type(kept) is not tuple or len(merged) < len(kept) or not all(map(_plain, kept)):
            kept = tuple((mechanism, count) for mechanism, count in merged.items() if count)
        object.__setattr__(self, "entries", kept)

    @classmethod
    def of(
        cls,
        pairs: Iterable[tuple[Mechanism, int]],
        relation: Neighbours = Neighbours.ADD_REMOVE,
    ) -> Ledger:
        """A ledger of (charged mechanism, count) pairs."""
        return cls(tuple(pairs), relation)

    def __add__(self, other: Ledger) -> Ledger:
        """Both, one after the other."""
        if not isinstance(other, Ledger):
            return NotImplemented
        if other.relation is not self.relation and self.entries and other.entries:
            raise Refused(
                f"Ledgers of different relations ({self.relation.value}; {other.relation.value}) "
                "do not add up; charge both for the same relation."
            )
        relation = self.relation if self.entries or not other.entries else other.relation
        return Ledger(self.entries + other.entries, relation)

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """The distinct charged mechanisms."""
        return tuple(mechanism for mechanism, _ in self.entries)

    @property
    def counts(self) -> tuple[int, ...]:
        """How often each of them was released."""
        return tuple(count for _, count in self.entries)

    @property
    def steps(self) -> int:
        """The total count of releases."""
        return sum(self.counts)

    @property
    def releases(self) -> tuple[Release, ...]:
        """All of it, for the `before` of a plan that goes on with the same records."""
        return tuple(
            Release(Charged(mechanism, self.relation), count, Access.ALL)
            for mechanism, count in self.entries
        )

    def to_json(self) -> str:
        """The stored form, which `from_json` loads again."""
        entries = [{"count": count, **_stored(mechanism)} for mechanism, count in self.entries]
        return json.dumps({"dpkit": "ledger", "version": _VERSION, "relation": self.relation.name,
                           "entries": entries})  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Load a stored ledger; ValueError in one sentence for anything it does not know."""
        try:
            return cls._read(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"A stored ledger must be JSON: {error}.") from None
        except RecursionError:
            raise ValueError("A stored ledger must not be nested so deeply.") from None

    @classmethod
    def _read(cls, data: Any) -> Ledger:
        if not isinstance(data, dict) or data.get("dpkit") != "ledger":
            raise ValueError("This is not a stored ledger: it lacks the mark 'dpkit: ledger'.")
        version, relation = data.get("version"), data.get("relation")
        if type(version) is not int or version != _VERSION:
            raise ValueError(
                f"This ledger has version {version!r}; this dpkit reads version {_VERSION}."
            )
        if unknown := sorted(set(data) - {"dpkit", "version", "relation", "entries"}):
            raise ValueError(
                f"A stored ledger has dpkit, version, relation and entries, got also {unknown}."
            )
        if not isinstance(relation, str) or relation not in Neighbours.__members__:
            raise ValueError(f"Unknown relation {relation!r} in a stored ledger.")
        entries = data.get("entries")
        if not isinstance(entries, list):
            raise ValueError("A stored ledger must hold a list of entries.")
        return cls(tuple(_entry(item) for item in entries), Neighbours[relation])


def _check_told_apart(mechanism: Mechanism) -> None:
    """Refuse one made from numbers that it does not compare: one of others would be taken for it.

    What merely follows from its fields may stand beside them.
    """
    kind = type(mechanism)
    if kind.__eq__ is object.__eq__ or kind.__module__.startswith("dpkit."):
        return
    known = {field.name for field in dataclasses.fields(mechanism)}
    given = inspect.signature(kind).parameters.keys() - known
    for name in getattr(mechanism, "__dict__", {}).keys() - known if given else ():
        other = copy.copy(mechanism)
        object.__setattr__(other, name, float("nan"))
        if other == mechanism and not isinstance(getattr(kind, name, None), cached_property):
            raise TypeError(
                f"{kind.__name__} has {name}, which is not compared, so that one of another {name} "
                f"would be charged as this one: make {kind.__name__} a frozen dataclass, and "
                f"{name} a field of it."
            )


def _plain(entry: Any) -> bool:
    """Whether an entry is as a ledger holds it."""
    return type(entry) is tuple and type(entry[1]) is int and entry[1] > 0


def _whole(count: Any) -> bool:
    """Whether something is a whole number >= 0; True and False are none."""
    try:
        return not isinstance(count, bool) and bool(count == int(count) and count >= 0)
    except (TypeError, ValueError, OverflowError):  # None, a list, NaN, infinity
        return False


def _stored(mechanism: Mechanism) -> dict[str, Any]:
    if type(mechanism) not in STORED:
        known = ", ".join(kind.__name__ for kind in STORED)
        raise Refused(f"{type(mechanism).__name__} has no stored form; those with one: {known}.")
    values = {f.name: getattr(mechanism, f.name) for f in dataclasses.fields(mechanism)}
    return {
        "kind": type(mechanism).__name__,
        "values": {k: _stored(v) if isinstance(v, Mechanism) else v for k, v in values.items()},
    }


def _entry(item: Any) -> tuple[Mechanism, int]:
    if not isinstance(item, dict) or set(item) != {"kind", "values", "count"}:
        raise ValueError(f"An entry of a stored ledger has kind, values and count, got {item!r}.")
    return _loaded(item), item["count"]


def _loaded(item: Any) -> Mechanism:
    kinds = {kind.__name__: kind for kind in STORED}
    kind = kinds.get(str(item.get("kind"))) if isinstance(item, dict) else None
    if kind is None:
        raise ValueError(f"Unknown mechanism in a stored ledger: {item!r}.")
    values = item.get("values")
    types = {f.name: f.type for f in dataclasses.fields(kind)}
    names = set(types)
    new = {"loudest"}  # what older ledgers lack
    if not isinstance(values, dict) or not names - new <= set(values) <= names:
        raise ValueError(
            f"A stored {kind.__name__} has the values {sorted(names)}, got {values!r}."
        )
    given = {k: _value(f"{k} of {kind.__name__}", types[k], v) for k, v in values.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _value(name: str, kind: Any, value: Any) -> Any:
    """A stored value for a field of this type, spelt as in the source; knobs check themselves."""
    if kind == "Mechanism" and isinstance(value, dict) and set(value) == {"kind", "values"}:
        return _loaded(value)
    fits, words = {
        "Mechanism": (False, "a mechanism with kind and values"),
        "bool": (isinstance(value, bool), "true or false"),
        "str": (isinstance(value, str), "a text"),
        "float | None": (value is None or type(value) in (int, float), "a number or null"),
    }.get(kind, (True, ""))
    if not fits:
        raise ValueError(f"{name} in a stored ledger must be {words}, got {value!r}.")
    return value
