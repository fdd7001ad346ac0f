"""The store of a sweep: one SQLite file, in which a finished run is never lost nor made again."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from dpkit.plan import Plan
from dpkit.runs import Run, plan_from_json

VERSION = 1
_MARK = 0x64706B74  # "dpkt": what tells our files from others
_KEY, _BUSY = 32, 60.0
"""Bytes of a key; seconds to wait for another process that writes to the same store."""
_TABLES = """
CREATE TABLE runs (
    key TEXT PRIMARY KEY, place INTEGER NOT NULL, state TEXT NOT NULL, plan TEXT, settings TEXT,
    seed INTEGER, data TEXT, fingerprint TEXT, model TEXT, versions TEXT, epsilon REAL,
    accuracy REAL, failures INTEGER NOT NULL DEFAULT 0, error TEXT, run TEXT, seconds REAL
) STRICT;
CREATE TABLE spends (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, at REAL NOT NULL, epsilon REAL NOT NULL
) STRICT;
"""

FINISHED, WAITING, SET_ASIDE, REFUSED = "finished", "waiting", "set aside", "refused"
"""States of a run; what is refused has no plan, because none could be accounted."""


@dataclass(frozen=True)
class Record:
    """One run of a sweep as it lies in the store.

    `settings` is what the grid turned; `epsilon` the planned price; `seconds` the training's time.
    """

    key: str
    place: int
    state: str
    settings: dict[str, Any]
    seed: int | None
    data: str
    fingerprint: str
    model: str
    versions: dict[str, str]
    epsilon: float | None
    accuracy: float | None
    failures: int
    error: str | None
    seconds: float | None
    plan_json: str | None
    run_json: str | None

    @cached_property
    def plan(self) -> Plan:
        """The plan; a refused one has none."""
        if self.plan_json is None:
            raise ValueError(f"This run has no plan, for it was refused: {self.error}")
        return plan_from_json(self.plan_json)

    @cached_property
    def run(self) -> Run:
        """The finished run with its curves and its guarantee."""
        if self.run_json is None:
            raise ValueError(f"This run is not finished, it is {self.state}: {self.error or ''}")
        return Run.from_json(self.run_json)


class Store:
    """A file of runs that several processes may read while one or more write.

    *Guarantee*
    - what was written is on disk when a call returns: a process may be killed at any moment;
    - a run's price is written, by `pay`, before the run can begin;
    - a finished run is never changed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a store, or make one where there is no file; refuses any other file."""
        self.path = Path(path)
        if not self.path.resolve().parent.is_dir():
            raise FileNotFoundError(
                f"store {self.path}: there is no folder {self.path.resolve().parent}; make it "
                f"first."
            )
        with self._told():
            self._base = sqlite3.connect(
                self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._base.row_factory = sqlite3.Row
            self._prepare()

    def __enter__(self) -> Self:
        """The store, closed at the end of a `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._base.close()

    @cached_property
    def secret(self) -> bytes:
        """A key for the fingerprints of unpublished records, in a file of its own beside the store.

        Whoever has store and key can test a guess of the records: share the store without it.
        """
        file = self.path.with_name(self.path.name + ".key")
        if not file.exists():
            part = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as opened:
                opened.write(secrets.token_bytes(_KEY))
                opened.flush()
                os.fsync(opened.fileno())
            with suppress(FileExistsError):
                os.link(part, file)  # whole or not at all, and the first one stays
            part.unlink()
        if len(key := file.read_bytes()) != _KEY:
            raise ValueError(f"{file} is no key of a store: it must hold {_KEY} bytes.")
        return key

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Write down runs to be made, or that were refused; known ones stay as they are."""
        names = ("key", "place", "state", "plan", "settings", "seed", "data", "fingerprint",
                 "model", "versions", "epsilon", "error")  # fmt: skip
        marks = ", ".join("?" * len(names))
        rows = [tuple(entry.get(name) for name in names) for entry in entries]
        with self._writing():
            self._base.executemany(
                f"INSERT OR IGNORE INTO runs ({', '.join(names)}) VALUES ({marks})", rows
            )

    def pay(self, key: str, epsilon: float) -> None:
        """Write the price of one attempt down, before it begins."""
        with self._writing():
            self._base.execute(
                "INSERT INTO spends (key, at, epsilon) VALUES (?, ?, ?)",
                (key, time.time(), min(epsilon, 1e308)),
            )

    def finish(self, key: str, run: str, accuracy: float | None, seconds: float) -> None:
        """Write a finished run down; one that is finished already is left alone."""
        with self._writing():
            self._base.execute(
                "UPDATE runs SET state = ?, run = ?, accuracy = ?, seconds = ?, error = NULL "
                "WHERE key = ? AND state != ?",
                (FINISHED, run, accuracy, seconds, key, FINISHED),
            )

    def fail(self, key: str, error: str, retries: int) -> bool:
        """Write a failure down; whether the run may be tried again."""
        with self._writing():
            self._base.execute(
                "UPDATE runs SET failures = failures + 1, error = ?, state = "
                "CASE WHEN failures + 1 > ? THEN ? ELSE ? END WHERE key = ? AND state != ?",
                (error, retries, SET_ASIDE, WAITING, key, FINISHED),
            )
        return self.state(key) == WAITING

    def revive(self) -> None:
        """Let the runs that were set aside be tried again, as if they had never failed."""
        with self._writing():
            self._base.execute(
                "UPDATE runs SET state = ?, failures = 0 WHERE state = ?", (WAITING, SET_ASIDE)
            )

    def state(self, key: str) -> str | None:
        """The state of a run, None if it is not known."""
        with self._told():
            row = self._base.execute("SELECT state FROM runs WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row["state"])

    def states(self) -> dict[str, str]:
        """The state of every run by its key."""
        with self._told():
            return {
                row["key"]: row["state"]
                for row in self._base.execute("SELECT key, state FROM runs")
            }

    def record(self, key: str) -> Record:
        """One run; KeyError if there is none of that key."""
        for found in self._records("WHERE key = ?", key):
            return found
        raise KeyError(f"There is no run {key!r} in {self.path}.")

    def records(self, state: str | None = None) -> Iterator[Record]:
        """All runs, or those in one state, in the order in which they were asked for."""
        yield from self._records("WHERE ? IS NULL OR state = ?", state, state)

    @property
    def attempts(self) -> int:
        """How many attempts have been paid for, those that failed or were killed included."""
        with self._told():
            return int(self._base.execute("SELECT count(*) FROM spends").fetchone()[0])

    def paid(self) -> dict[str, int]:
        """How many attempts of each run have been paid for, by its key."""
        with self._told():
            rows = self._base.execute("SELECT key, count(*) AS n FROM spends GROUP BY key")
            return {row["key"]: row["n"] for row in rows}

    def _records(self, where: str, *values: Any) -> Iterator[Record]:
        with self._told():
            rows = self._base.execute(
                f"SELECT * FROM runs {where} ORDER BY rowid", values
            ).fetchall()
        for row in rows:
            held = dict(row)
            held["plan_json"], held["run_json"] = held.pop("plan"), held.pop("run")
            for name in ("settings", "versions"):
                held[name] = json.loads(held[name] or "{}")
            yield Record(**held)

    def _prepare(self) -> None:
        """Check that the file is a store of this version, or make an empty file one."""
        with self._base:
            self._base.execute("BEGIN IMMEDIATE")
            known = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            mark = self._base.execute("PRAGMA application_id").fetchone()[0]
            version = self._base.execute("PRAGMA user_version").fetchone()[0]
            if not known and not mark:
                for statement in _TABLES.split(";"):
                    self._base.execute(statement)
                self._base.execute(f"PRAGMA application_id = {_MARK}")
                self._base.execute(f"PRAGMA user_version = {VERSION}")
                mark, version = _MARK, VERSION
        if mark != _MARK:
            raise ValueError(
                f"{self.path} is a database of another program, not a store of runs; choose "
                f"another file."
            )
        if version != VERSION:
            raise ValueError(
                f"{self.path} is a store in version {version}; this dpkit reads version {VERSION}: "
                f"choose another file, or the dpkit that wrote it."
            )
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: wholly on disk afterwards, or not at all."""
        with self._told():
            self._base.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._base.execute("COMMIT")
            except BaseException:
                if self._base.in_transaction:
                    self._base.execute("ROLLBACK")
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite has to say, in one sentence with a remedy."""
        try:
            yield
        except sqlite3.OperationalError as error:
            remedy = {
                sqlite3.SQLITE_FULL: "the disk is full; free some space and call again",
                sqlite3.SQLITE_BUSY: "another process holds it; wait for it and call again",
                sqlite3.SQLITE_READONLY: "it may not be written to; choose another file",
                sqlite3.SQLITE_CANTOPEN: "it cannot be opened; is it a file, and yours?",
            }.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error))
            raise OSError(f"store {self.path}: {remedy}. What was finished is safe.") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path} is not a store of runs, or it is damaged ({error}); choose another "
                f"file."
            ) from error
