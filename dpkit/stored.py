"""Stored forms: frozen values as versioned JSON, which refuses what it cannot know."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from dpkit.schedules import tabulated

VERSION = 1


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Where to write what then takes the place of a file, all at once: never half a file.

    A device or a folder, which no file may replace, is given as it is.
    """
    target = Path(path).resolve()  # where a link leads, which stays a link
    if target.exists() and not target.is_file():
        yield target
        return
    part = target.with_name(target.name + ".part")
    yield part
    part.replace(target)


def dumps(value: Any, classes: Sequence[type], *, kind: str, steps: int = 0) -> str:
    """A value of dataclasses, enums, numbers and text as JSON text headed by `kind` and version.

    A callable schedule is tabulated for `steps` steps.
    """
    head = {"dpkit": kind, "version": VERSION, "value": _encode(value, tuple(classes), steps)}
    return json.dumps(head, allow_nan=False)


def loads(text: str, classes: Sequence[type], *, kind: str) -> Any:
    """The value that `dumps` stored; ValueError in one sentence for anything else."""
    try:
        head = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"A stored {kind} must be JSON, but {error}.") from None
    if not isinstance(head, dict) or head.get("dpkit") != kind:
        found = head.get("dpkit") if isinstance(head, dict) else None
        raise ValueError(f"This is not a stored {kind} of dpkit (its kind is {found!r}).")
    if head.get("version") != VERSION:
        raise ValueError(
            f"This {kind} was stored in version {head.get('version')!r}; this dpkit reads version "
            f"{VERSION}."
        )
    return _decode(head.get("value"), {c.__name__: c for c in classes})


def _encode(value: Any, classes: tuple[type, ...], steps: int) -> Any:
    if isinstance(value, enum.Enum):
        return {"type": type(value).__name__, "name": value.name}
    if is_dataclass(value) and type(value) in classes:
        content = {f.name: _encode(getattr(value, f.name), classes, steps) for f in fields(value)}
        return {"type": type(value).__name__, **content}
    if callable(value):
        return _encode(tabulated(value, steps), classes, steps)
    if isinstance(value, tuple | list):
        return [_encode(item, classes, steps) for item in value]
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        # JSON has no infinity; text keeps it and every digit.
        return value if abs(value) < float("inf") else {"type": "float", "name": str(value)}
    raise ValueError(f"{type(value).__name__} has no stored form; add it to the list of exports.")


def _decode(value: Any, known: dict[str, type]) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item, known) for item in value)
    if not isinstance(value, dict):
        return value
    tag = value.get("type")
    if tag == "float" and value.get("name") in ("inf", "-inf", "nan"):
        return float(value["name"])
    if tag not in known:
        raise ValueError(f"Unknown type {tag!r} in a stored value; known: {', '.join(known)}.")
    cls, content = known[tag], {k: v for k, v in value.items() if k != "type"}
    if issubclass(cls, enum.Enum):
        if content.get("name") not in cls.__members__:
            raise ValueError(f"{tag} has no member {content.get('name')!r}.")
        return cls[content["name"]]
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if set(content) != names:
        wrong = ", ".join(sorted(set(content) ^ names))
        raise ValueError(f"A stored {tag} must have exactly its fields; differing: {wrong}.")
    return cls(**{name: _decode(item, known) for name, item in content.items()})
