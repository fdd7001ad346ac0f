"""A learner's progress in one small local file; nothing is sent anywhere."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dpkit.words import say

VARIABLE = "DPKIT_PROGRESS"
"""The environment variable that names the file; by default it lies in the home directory."""
_NAME = ".dpkit-progress.json"
_FORMAT, _VERSION = "dpkit course progress", 1


@dataclass(frozen=True)
class Tried:
    """What happened to an exercise: answers, hints asked for, and whether it is solved."""

    attempts: int = 0
    hints: int = 0
    solved: bool = False


Record = dict[str, Tried]
_kept: dict[Path, Record] = {}
"""The progress of this kernel where the file cannot be written."""


def place() -> Path:
    """Where the progress is kept: the named file, else one at home; without a home, here."""
    try:
        named = os.environ.get(VARIABLE)
        return Path(named).expanduser() if named else Path.home() / _NAME
    except RuntimeError:
        return Path(_NAME).absolute()


def load() -> Record:
    """The progress so far; a file that is damaged or not ours is set aside, and that is told."""
    path = place()
    if path in _kept:
        return dict(_kept[path])
    try:
        text = path.read_bytes()
    except OSError:
        return {}
    try:
        return _read(text)
    except (ValueError, RecursionError):
        _set_aside(path)
        return {}


def save(record: Record) -> None:
    """Write the progress in one go; where that cannot be done it is told once, and kept in mind."""
    path = place()
    try:
        _write(path, record)
        _kept.pop(path, None)
    except OSError as error:
        if path not in _kept:
            print(say("Your progress cannot be saved in {path} ({reason}); it lasts until this "
                      "kernel ends.", path=path, reason=error.strerror or error))  # fmt: skip
        _kept[path] = dict(record)


def note(exercise: str, *, solved: bool = False, wrong: bool = False, hinted: bool = False) -> None:
    """Add one event of an exercise to the progress; what was solved stays solved."""
    record = load()
    old = record.get(exercise, Tried())
    if solved and old.solved:
        return
    record[exercise] = Tried(
        old.attempts + (wrong or solved), old.hints + hinted, old.solved or solved
    )
    save(record)


def forget() -> None:
    """Clear your progress: delete its file."""
    load()  # what is not ours is set aside, not deleted
    path = place()
    _kept.pop(path, None)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(say("Your progress cannot be cleared ({reason}).", reason=error))
        return
    print(say("Your progress is cleared."))


def _read(text: bytes) -> Record:
    """The record in a file's bytes; ValueError if they hold none."""
    found = json.loads(text.decode("utf-8"))
    if not isinstance(found, dict) or (found.get("format"), found.get("version")) != (
        _FORMAT,
        _VERSION,
    ):
        raise ValueError("not a file of progress")
    entries = found.get("exercises")
    if not isinstance(entries, dict) or not all(map(_lawful, entries.values())):
        raise ValueError("damaged")
    return {name: Tried(**entry) for name, entry in entries.items()}


def _lawful(entry: Any) -> bool:
    """Whether a stored entry is one of `Tried`."""
    if not isinstance(entry, dict) or set(entry) != {field.name for field in fields(Tried)}:
        return False
    counts = (entry["attempts"], entry["hints"])
    return type(entry["solved"]) is bool and all(type(n) is int and n >= 0 for n in counts)


def _write(path: Path, record: Record) -> None:
    """Write beside the file, then put it in its place: a reader sees the old one or the new."""
    exercises = {name: asdict(record[name]) for name in sorted(record)}
    stored = {"format": _FORMAT, "version": _VERSION, "exercises": exercises}
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(stored, file, indent=1)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def _set_aside(path: Path) -> None:
    """Rename a file that cannot be read as progress, never over another one."""
    number = 1
    while (aside := path.with_name(f"{path.name}.set-aside-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        reason = error.strerror or error
        print(say("{path} holds no progress and cannot be set aside ({reason}).",
                  path=path, reason=reason))  # fmt: skip
        _kept[path] = {}
        return
    print(say("The file of your progress was damaged or not ours; it is now {name}, and a new one "
              "begins.", name=aside.name))  # fmt: skip
