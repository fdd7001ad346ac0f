"""A sweep file: a few lines of TOML that say what is to be made; errors name line and key."""

from __future__ import annotations

import difflib
import itertools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpkit import datasets, zoo
from dpkit.settings import Settings, check_name, choose
from dpkit.sweeping.grid import Point

if TYPE_CHECKING:
    import os

    from dpkit.datasets import Dataset

EXAMPLE = """\
# dpkit sweep this.toml: every combination of the lists, with every seed, in one store
data = "digits"
model = "mlp"
seeds = [0, 1, 2]
store = "sweep.sqlite"

[settings]        # as the playground writes them
epochs = 5
rate = 0.5

[grid]            # a list each; "epsilon" asks for noise that is calibrated to a price
noise = [0.8, 1.1, 2.0, 4.0]
clip = [0.3, 1.0, 3.0]
"""
_KINDS = {
    "data": str, "model": str, "seeds": list, "store": str, "workers": int, "settings": dict,
    "grid": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What a sweep file asks for."""

    data: Dataset
    name: str
    model: str
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
    settings = content.get("settings", {})
    base = page.settings(Settings(), settings)
    for name in ("data", "model"):
        if name in content:
            base = page.told(name, base.turned, name, content[name])
    page.told("model", choose, base.model, zoo.MODELS, "model")
    data = page.told("data", lambda: datasets.load(base.data, num_examples=base.num_examples))
    store = file.parent / content.get("store", f"{file.stem}.sqlite")
    seeds = content.get("seeds", [0])
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        page.complain("seeds", f"must list whole numbers from 0, such as [0, 1, 2], got {seeds}")
    grid = page.grid(base, content.get("grid", {}))
    points = list(_points(base, grid, data.num_examples))
    return Asked(data, base.data, base.model, seeds, store, points, content.get("workers"))


def _points(base: Settings, grid: dict[str, list[Any]], size: int) -> Iterator[Point]:
    """Every combination as a plan; one that cannot be accounted keeps the reason."""
    for values in itertools.product(*grid.values()):
        turns = tuple(zip(grid, values, strict=True))
        try:
            settings = base
            for name, value in turns:
                settings = settings.told(name, value)
            yield Point(turns, settings.plan(size))
        except (ValueError, TypeError) as error:
            yield Point(turns, None, str(error))


class _Page:
    """A file's text, to find the line of a key."""

    def __init__(self, file: Path, text: str) -> None:
        self.file, self.lines = file, text.splitlines()

    def complain(self, key: str, why: str) -> None:
        """One sentence with file, line and key."""
        name = re.escape(key)
        found = (n for n, line in enumerate(self.lines, 1)
                 if re.match(rf"\s*\[?\s*[\"']?{name}[\"']?\s*[=\]]", line))  # fmt: skip
        line = next(found, None)
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
                self.complain(key, f"must be {kind[kinds[key]]}, got {value!r}")

    def told(self, key: str, function: Any, *arguments: Any) -> Any:
        """What a function gives; its complaint with the key's line."""
        try:
            return function(*arguments)
        except (ValueError, TypeError, OSError) as error:
            self.complain(key, f"is refused: {error}")

    def settings(self, base: Settings, table: dict[str, Any]) -> Settings:
        """The settings with those of a table."""
        for name, value in table.items():
            base = self.told(name, base.told, name, value)
        return base

    def grid(self, base: Settings, table: dict[str, Any]) -> dict[str, list[Any]]:
        """The lists of a grid, whose names are settings."""
        for name, values in table.items():
            if not isinstance(values, list) or not values:
                self.complain(name, f"must list at least one value, such as [1, 2], got {values!r}")
            if name in ("data", "model", "examples", "seed"):
                self.complain(name, "belongs to the whole sweep and cannot be turned in its grid")
            self.told(name, check_name, name)
        return table
