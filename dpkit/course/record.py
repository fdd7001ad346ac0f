"""A learner's progress in one small local file; nothing is sent anywhere."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
_left: set[Path] = set()
"""Files that are left as they are, since they cannot be read here."""
_PATIENCE = 2.0
"""Seconds to wait for another kernel that is writing."""


class Newer(ValueError):
    """A file of progress that a later version of dpkit wrote."""


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
        if path.exists() and not path.is_file():
            return _leave(path, say("it is a folder or a device, and no file"))
        return _read(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        return _leave(path, say("it cannot be read ({reason})", reason=error.strerror or error))
    except Newer:
        return _leave(path, say("a newer dpkit has written it"))
    except (ValueError, RecursionError):
        _set_aside(path)
        return {}


def save(record: Record) -> None:
    """Write the progress in one go; where that cannot be done it is told once, and kept in mind."""
    path = place()
    if path in _left:
        _kept[path] = dict(record)
        return
    try:
        _write(path, record)
        _kept.pop(path, None)
    except OSError as error:
        if path not in _kept:
            print(say("Your progress cannot be saved in {path} ({reason}); it lasts until this "
                      "kernel ends.", path=path, reason=error.strerror or error))  # fmt: skip
        _kept[path] = dict(record)


def note(exercise: str, *, solved: bool = False, wrong: bool = False, hinted: bool = False) -> None:
    """Add one event of an exercise to the progress; what was solved stays solved.

    *Guarantee*: of two kernels that write at once neither undoes what the other has noted.
    """
    with _alone(place().parent):
        record = _joined(load(), _stored())
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
    if path in _left:
        print(say("Your progress of this kernel is cleared; the file {path} is left as it is.",
                  path=path))  # fmt: skip
        _kept[path] = {}
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(say("Your progress cannot be cleared ({reason}).", reason=error))
        return
    print(say("Your progress is cleared."))


def _read(text: bytes) -> Record:
    """The record in a file's bytes; ValueError if they hold none."""
    found = json.loads(text.decode("utf-8"))
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ValueError("not a file of progress")
    version = found.get("version")
    if type(version) is int and version > _VERSION:
        raise Newer
    if version != _VERSION:
        raise ValueError("not a file of progress")
    entries = found.get("exercises")
    if not isinstance(entries, dict) or not all(map(_lawful, entries.values())):
        raise ValueError("damaged")
    return {name: Tried(**entry) for name, entry in entries.items()}


def _stored() -> Record:
    """What the file holds at present, where it can be read."""
    path = place()
    if path in _left:
        return {}
    try:
        return _read(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}


def _joined(one: Record, other: Record) -> Record:
    """Two records of one learner: what either knows."""
    names = one.keys() | other.keys()
    pairs = {name: (one.get(name, Tried()), other.get(name, Tried())) for name in names}
    return {
        name: Tried(max(a.attempts, b.attempts), max(a.hints, b.hints), a.solved or b.solved)
        for name, (a, b) in pairs.items()
    }


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against other kernels, where the system can do that, and not for long."""
    handle = None
    with suppress(ImportError, OSError):
        import fcntl  # not on Windows

        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(0.01)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


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


def _leave(path: Path, why: str) -> Record:
    """Leave a file as it is: what is solved from now on lasts as long as this kernel."""
    print(say("The progress in {path} is left as it is: {why}. What you solve now lasts until this "
              "kernel ends; {variable} may name another file.",
              path=path, why=why, variable=VARIABLE))  # fmt: skip
    _left.add(path)
    _kept[path] = {}
    return {}


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
