"""The sweep itself: pay, give out, take in, write down; one run after the other as they come."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import warnings
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, Self

from dpkit import __version__
from dpkit.accountants import PLD
from dpkit.knobs import Knob
from dpkit.plan import Plan
from dpkit.runs import plan_to_json
from dpkit.sweeping.grid import Grid, Point, points
from dpkit.sweeping.store import FINISHED, REFUSED, WAITING, Record, Store
from dpkit.sweeping.tasks import (
    Data,
    Model,
    Outcome,
    Task,
    Work,
    check_travels,
    dataset_of,
    digest,
    name_of,
)
from dpkit.sweeping.workers import Borrowed, Workers

RETRIES = 3
"""How often a failed run is tried again before it is set aside."""
_SEED = Knob("s", "start of a teaching run's streams", 0, 2**63 - 1, integer=True, optional=True)
_PATIENCE = 3
"""Workers that die one after the other before any run was finished: then none can be started."""


def sweep(
    plans: Plan | Grid | Iterable[Plan | Grid | Point],
    data: Data,
    model: Model,
    *,
    seeds: Sequence[int | None] = (0,),
    store: str | os.PathLike[str] | Store = "sweep.sqlite",
    executor: Executor | None = None,
    workers: int | None = None,
    device: str | None = None,
    evaluate_every: int | None = None,
) -> Sweep:
    """Train every plan with every seed; an iterator of finished runs as they come.

    `data` is a Dataset, a pair of tensors, a name such as "digits", or a function that gives one
    (which travels better than records). `model` is a factory `(data, seed) -> Module` that can be
    imported, or a Module; a Grid or a Point may have its own, so that methods which need different
    models are compared in one sweep. `seeds` may hold None: a run with secret noise, made anew for
    each None. Runs are made by `workers` spawned processes (one a core) or by any `executor` of
    concurrent.futures, such as that of a Dask client. What is in the `store` is not made again:
    the same call goes on where it stopped. Failed runs are tried again three times, then set
    aside, and so is, at once, what cannot be accounted; both are told by a warning.

    *Guarantee*
    - the price of a run is on disk before the run begins;
    - what is stored, times aside, depends on plan, data, model and seed alone: not on the number
      of workers, on their order or on interruptions.
    """
    return Sweep(
        plans, data, model, seeds, store, executor, workers, device, evaluate_every
    )  # fmt: skip


class Sweep(Iterator[Record]):
    """A sweep under way: ask for the next finished run; stop by `close` or by leaving the loop.

    `total` runs were asked for, `finished` of them are done, `set_aside` were given up or refused;
    `seconds_left` is a guess from those that were made here.
    """

    def __init__(
        self,
        plans: Plan | Grid | Iterable[Plan | Grid | Point],
        data: Data,
        model: Model,
        seeds: Sequence[int | None],
        store: str | os.PathLike[str] | Store,
        executor: Executor | None,
        workers: int | None,
        device: str | None,
        evaluate_every: int | None,
    ) -> None:
        """Check everything, and write down what is to be made; nothing is trained yet."""
        seeds = _checked(seeds)
        self._own = not isinstance(store, Store)
        self.store = store if isinstance(store, Store) else Store(store)
        records = dataset_of(data)
        fingerprint = records.fingerprint if records.published else records.keyed(self.store.secret)
        self._about = {"data": records.name, "fingerprint": fingerprint}
        self._splits = [
            digest(records.test_inputs, records.test_targets),
            digest(records.public_inputs, records.public_targets),
            str(records.num_classes),
        ]
        content = f"{fingerprint} {' '.join(self._splits)}"
        asked = [replace(p, model=model if p.model is None else p.model) for p in points(plans)]
        names = {id(one): name_of(one) for one in (model, *(p.model for p in asked))}
        models = {names[id(p.model)]: p.model for p in asked}
        work = Work(data, models, fingerprint, content, device, evaluate_every)
        check_travels("data", data)
        check_travels("model", models)
        self._workers = Borrowed(work, executor) if executor else Workers(work, workers)
        self._tasks = self._entered(asked, names, seeds, evaluate_every)
        states = self.store.states()
        self.total = len(self._tasks)
        self._ready = deque(key for key in self._tasks if states[key] == FINISHED)
        self._waiting = deque(key for key in self._tasks if states[key] == WAITING)
        self.finished = 0
        self.set_aside = self.total - len(self._ready) - len(self._waiting)
        self._on: dict[Future[Outcome], str] = {}
        self._made, self._deaths, self._first = 0, 0, 0.0

    def __iter__(self) -> Self:
        """The sweep itself."""
        return self

    def __next__(self) -> Record:
        """The next finished run: first those on file, then the others as they come."""
        try:
            while not self._ready:
                self._give_out()
                if not self._on:
                    self.close()
                    raise StopIteration
                for future in wait(self._on, return_when=FIRST_COMPLETED).done:
                    self._take_in(future)
        except BaseException:
            self.close()
            raise
        self.finished += 1
        return self.store.record(self._ready.popleft())

    def __enter__(self) -> Self:
        """The sweep, ended at the end of a `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def __del__(self) -> None:
        """A sweep that nobody holds any more is ended."""
        if hasattr(self, "_on"):
            self.close()

    @property
    def keys(self) -> Collection[str]:
        """The keys of the runs that were asked for."""
        return self._tasks.keys()

    @property
    def seconds_left(self) -> float | None:
        """Seconds to go, at the pace so far; None before two runs were made."""
        left = len(self._waiting) + len(self._on)
        if self._made < 2:
            return None if left else 0.0
        return left * (time.monotonic() - self._first) / (self._made - 1)

    def close(self) -> None:
        """Stop: runs under way are given up, and made again by the next call."""
        self._workers.close()
        self._on.clear()
        self._waiting.clear()
        if self._own and not self._ready:
            self.store.close()

    def _entered(
        self, asked: list[Point], names: dict[int, str], seeds: list[int | None], every: int | None
    ) -> dict[str, Task]:
        """The runs by their keys, all of them in the store."""
        tasks: dict[str, Task] = {}
        entries: list[dict[str, Any]] = []
        refused: list[str] = []
        for point in asked:
            text, epsilon, error = _priced(point)
            told = text or repr((point.settings, error))
            if error:  # grids of different plans may be refused alike
                refused.append(told)
                told += f" {refused.count(told)}"
            about = self._about | {"model": names[id(point.model)]}
            for number, seed in enumerate(seeds):
                again = seeds[:number].count(None) if seed is None else 0
                content = [told, seed, again, every, *about.values()]
                content += self._splits
                key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
                if key in tasks:
                    continue
                tasks[key] = Task(key, text or "", seed, about["data"], about["model"])
                entries.append(
                    {"key": key, "place": len(entries), "state": REFUSED if error else WAITING,
                     "plan": text, "settings": json.dumps(dict(point.settings), default=repr),
                     "seed": seed, "versions": _versions(), "epsilon": epsilon, "error": error}
                    | about
                )  # fmt: skip
            if error:
                warnings.warn(f"{_named(point)} is set aside: {error}", stacklevel=4)
        self.store.add(entries)
        return tasks

    def _give_out(self) -> None:
        """Pay for runs and hand them to workers that have nothing to do."""
        while self._waiting and len(self._on) < self._workers.places:
            key = self._waiting.popleft()
            record = self.store.record(key)
            if record.state != WAITING:  # made by another sweep on the same store meanwhile
                self._settled(key, record.state)
                continue
            self.store.pay(key, record.epsilon or 0.0)
            self._on[self._workers.submit(self._tasks[key])] = key

    def _take_in(self, future: Future[Outcome]) -> None:
        """Write down what a run came to; a failed one goes to the end of the queue."""
        key = self._on.pop(future)
        self._workers.done(future)
        try:
            outcome = future.result()
        except (Exception, CancelledError) as error:
            self._failed(key, error)
            return
        self.store.finish(key, outcome.run, outcome.accuracy, outcome.seconds)
        self._made, self._deaths = self._made + 1, 0
        self._first = self._first or time.monotonic()
        self._ready.append(key)

    def _failed(self, key: str, error: BaseException) -> None:
        died = isinstance(error, BrokenProcessPool)
        self._deaths = self._deaths + 1 if died else 0
        text = "its worker died" if died else f"{type(error).__name__}: {error}"
        if self.store.fail(key, text, RETRIES):
            self._waiting.append(key)
        else:
            self._settled(key, self.store.state(key))
            record = self.store.record(key)
            warnings.warn(
                f"Run {key[:8]} (seed {record.seed}, {record.settings}) is set aside after "
                f"{record.failures} failures: {record.error}",
                stacklevel=4,
            )
        if died and not self._made and self._deaths > _PATIENCE * RETRIES:
            raise RuntimeError(
                "No worker lives long enough to begin: call sweep from under "
                "`if __name__ == '__main__':` in a script, and see that memory suffices for "
                f"{self._workers.places} processes."
            )

    def _settled(self, key: str, state: str | None) -> None:
        if state == FINISHED:
            self._ready.append(key)
        else:
            self.set_aside += 1


def _checked(seeds: Sequence[int | None]) -> list[int | None]:
    if isinstance(seeds, int) or not len(seeds):
        raise ValueError(f"seeds must list at least one seed, such as (0, 1, 2), got {seeds!r}.")
    for seed in seeds:
        _SEED.check("seed", seed)
    return [None if seed is None else int(seed) for seed in seeds]


def _priced(point: Point) -> tuple[str | None, float | None, str | None]:
    """A plan's stored form and its price, or why it has none."""
    if point.plan is None:
        return None, None, point.error
    try:
        return plan_to_json(point.plan), promised(point.plan), None
    except (ValueError, TypeError) as error:
        return None, None, str(error)


def promised(plan: Plan) -> float:
    """The plan's price; PLD's where its own accountant gives but an estimate."""
    if plan.accountant.is_bound:
        return plan.epsilon()
    return PLD().epsilon(plan.ledger(), plan.delta)


def _named(point: Point) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in point.settings)
    return f"The plan with {settings}" if settings else "A plan"


def _versions() -> str:
    import numpy as np
    import torch

    found = {"dpkit": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return json.dumps(found | {"python": platform.python_version()})
