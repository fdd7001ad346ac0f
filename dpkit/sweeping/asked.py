"""A sweep file: a few lines of TOML that say what is to be made; errors name line and key."""

from __future__ import annotations

import difflib
import itertools
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpkit import datasets, runs, zoo
from dpkit.mechanisms import Neighbours
from dpkit.methods import Method
from dpkit.plan import Plan
from dpkit.settings import Settings, check_name, choose
from dpkit.sweeping.grid import Point

if TYPE_CHECKING:
    import os

    from dpkit.datasets import Dataset

_KINDS = {
    "data": str, "model": str, "relation": str, "seeds": list, "store": str, "workers": int,
    "settings": dict, "grid": dict, "methods": list,
}  # fmt: skip
_MODELS = zoo.MODELS | {"released": zoo.released}
_PARTS = {kind.__name__: kind for kind in runs.EXPORTS if is_dataclass(kind)}


@dataclass(frozen=True)
class Asked:
    """What a sweep file asks for."""

    data: Dataset
    name: str
    model: zoo.Factory
    seeds: list[int]
    store: Path
    points: list[Point]
    workers: int | None


def read(path: str | os.PathLike[str]) -> Asked:
    """Read a sweep file; ValueError in one sentence with line and key for a malformed one."""
    file = Path(path)
    try:
        text = file.read_text()
        content = tomllib.loads(text)
    except OSError as error:
        raise OSError(f"The sweep file {file} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: this is not TOML, {error}.") from None
    page = _Page(file, text)
    page.check(content, _KINDS)
    with page.inside("settings"):
        base = page.settings(Settings(), content.get("settings", {}))
    for name in ("data", "model"):
        if name in content:
            base = page.told(name, base.turned, name, content[name])
    model = page.told("model", choose, base.model, _MODELS, "model")
    data = page.told("data", lambda: datasets.load(base.data, num_examples=base.num_examples))
    store = file.parent / content.get("store", f"{file.stem}.sqlite")
    points = list(_points(page, base, content, data.num_examples))
    workers = content.get("workers")
    return Asked(data, base.data, model, page.seeds(content), store, points, workers)


def _points(page: _Page, base: Settings, content: dict[str, Any], size: int) -> Iterator[Point]:
    relation = content.get("relation")
    if relation is not None:
        relation = page.told("relation", choose, relation, dict(Neighbours.__members__), "relation")
    with page.inside("grid"):
        grid = page.grid(content.get("grid", {}))
    table = content.get("settings", {})
    for kind in page.methods(base, table, grid, content.get("methods")):
        yield from kind.points(size, relation)


@dataclass(frozen=True)
class _Kind:
    """One method of a sweep: its settings, what is turned in them, and a model of its own."""

    settings: Settings
    grid: dict[str, list[Any]]
    name: str | None = None
    model: zoo.Factory | None = None

    def points(self, size: int, relation: Neighbours | None) -> Iterator[Point]:
        """Every combination as a plan; one that cannot be accounted keeps the reason."""
        named = (("name", self.name),) if self.name else ()
        for values in itertools.product(*self.grid.values()):
            turns = tuple(zip(self.grid, values, strict=True))
            plan, error = None, None
            try:
                settings = self.settings
                for name, value in sorted(turns, key=lambda turn: turn[0] != "method"):
                    settings = _told(settings, name, value)
                plan = _planned(settings, size, relation)
            except (ValueError, TypeError, AttributeError) as reason:
                error = str(reason)
            yield Point((*named, *turns), plan, error, self.model)


def _planned(settings: Settings, size: int, relation: Neighbours | None) -> Plan:
    if relation is None:
        return settings.plan(size)
    plan = replace(replace(settings, epsilon=None).plan(size), relation=relation)
    return plan if settings.epsilon is None else plan.calibrated(settings.epsilon)


def _told(settings: Settings, name: str, value: Any) -> Settings:
    """The settings with one changed; a table with a `type` is a value of that class."""
    value = _value(value)
    if name != "method":
        return settings.told(name, value)
    if not isinstance(value, Method):
        raise TypeError(
            f'method must be a table such as {{ type = "NeuralDP" }}, with the type DPSGD, TopAgg '
            f"or NeuralDP and fields of it, got {value!r}."
        )
    return settings.turned(name, value)


def _value(written: Any) -> Any:
    if isinstance(written, list):
        return tuple(map(_value, written))
    if not isinstance(written, dict):
        return written
    kind = choose(str(written.get("type", "without a type")), _PARTS, "type")
    known = {f.name: f for f in fields(kind) if f.init}
    content = {name: _value(value) for name, value in written.items() if name != "type"}
    for name in content:
        choose(name, known, f"field of {kind.__name__}")
    missing = [name for name, f in known.items() if name not in content
               and f.default is MISSING and f.default_factory is MISSING]  # fmt: skip
    if missing:
        raise TypeError(f"{kind.__name__} needs {' and '.join(missing)} as well.")
    return kind(**content)


class _Page:
    """A file's text, to find the line of a key."""

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.lines, self._first = file, text.splitlines(), 0

    @contextmanager
    def inside(self, table: str, number: int = 0) -> Iterator[None]:
        """While a table is read, keys are looked for below its head."""
        heads = [
            n for n, line in enumerate(self.lines) if re.match(rf"\s*\[+\s*{table}\s*\]", line)
        ]
        self._first = heads[number] if number < len(heads) else 0
        yield
        self._first = 0

    def complain(self, key: str, why: str) -> None:
        """One sentence with file, line and key."""
        head = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=\].]")
        numbers = [*range(self._first, len(self.lines)), *range(self._first)]
        line = next((n + 1 for n in numbers if head.match(self.lines[n])), None)
        where = f"{self.file}, line {line}" if line else str(self.file)
        raise ValueError(f"{where}: {key} {why.rstrip('.')}.")

    def check(self, content: dict[str, Any], kinds: dict[str, type]) -> None:
        """Refuse keys that are not known and values of another kind."""
        for key, value in content.items():
            if key not in kinds:
                close = difflib.get_close_matches(key, kinds, 1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                self.complain(key, f"is no key of a sweep{hint}; there are: {', '.join(kinds)}")
            if not isinstance(value, kinds[key]) or isinstance(value, bool):
                kind = {str: "a text", list: "a list", int: "a whole number", dict: "a table"}
                also = ", each item under a head [[methods]]" if key == "methods" else ""
                self.complain(key, f"must be {kind[kinds[key]]}{also}, got {value!r}")
        if content.get("workers", 1) < 1:
            self.complain("workers", f"must be a whole number from 1, got {content['workers']}")

    def told(self, key: str, function: Any, *arguments: Any) -> Any:
        """What a function gives; its complaint with the key's line."""
        try:
            return function(*arguments)
        except (ValueError, TypeError, AttributeError, OSError) as error:
            self.complain(key, f"is refused: {error}")

    def settings(self, base: Settings, table: dict[str, Any]) -> Settings:
        """The settings with those of a table, its method first: the others turn that."""
        for name in sorted(table, key=lambda name: name != "method"):
            if isinstance(table[name], list):
                self.complain(name, f"must be one value here; a list belongs under [grid] or "
                              f"[[methods]], got {table[name]}")  # fmt: skip
            base = self.told(name, _told, base, name, table[name])
        return base

    def seeds(self, content: dict[str, Any]) -> list[int]:
        """The seeds of every plan."""
        seeds = content.get("seeds", [0])
        if not seeds or not all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds):
            why = "must list whole numbers from 0 to 2^63 - 1, such as [0, 1, 2]"
            self.complain("seeds", f"{why}, got {seeds}")
        return list(seeds)

    def grid(self, table: dict[str, Any]) -> dict[str, list[Any]]:
        """The lists of a grid, whose names are settings."""
        if {"noise", "epsilon"} <= table.keys():
            if not all(isinstance(value, dict) for value in table["noise"]):
                self.complain("noise", "is solved for where epsilon is asked for: leave one "
                              "of them out, or list schedules, whose shape is kept")  # fmt: skip
        for name, values in table.items():
            if not isinstance(values, list) or not values:
                self.complain(name, f"must list at least one value, such as [1, 2], got {values!r}")
            if name in ("data", "model", "examples", "seed"):
                self.complain(name, "belongs to the whole sweep and cannot be turned in its grid")
            if name != "method":
                self.told(name, check_name, name)
        return table

    def methods(
        self, base: Settings, table: dict[str, Any], grid: dict[str, Any], asked: list[Any] | None
    ) -> Iterator[_Kind]:
        """The methods that are compared, one a table; without such tables there is one."""
        if asked is None:
            yield _Kind(base, grid)
            return
        if not asked:
            self.complain("methods", "must hold at least one table [[methods]], or be left out")
        for number, own in enumerate(asked):
            with self.inside("methods", number):
                if not isinstance(own, dict):
                    self.complain("methods", f"must be tables, [[methods]], got {own!r}")
                model = own.get("model")
                if model is not None:
                    if not isinstance(model, str):
                        self.complain("model", f"must be a text, one a method, got {model!r}")
                    model = self.told("model", choose, model, _MODELS, "model")
                own = {name: value for name, value in own.items() if name != "model"}
                label = str(own.pop("name", f"method {number + 1}"))
                lists = self.grid({n: v for n, v in own.items() if isinstance(v, list)})
                fixed = {n: v for n, v in (table | own).items() if n not in lists}
                settings = self.settings(replace(base, method=Settings().method), fixed)
                rest = {name: values for name, values in grid.items() if name not in own}
                yield _Kind(settings, rest | lists, label, model)
