"""Worker processes: each its own pool of one, so that a death costs no run but its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import connection
from typing import Any

from dpkit.knobs import Knob
from dpkit.sweeping.tasks import Outcome, Task, Work, perform

_COUNT = Knob("w", "worker processes", 1, 4096, integer=True)
_held: Work | None = None


def cores() -> int:
    """How many cores are ours."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


class Workers:
    """Spawned processes that hold the work once; a run is given to one that has nothing to do.

    *Guarantee*
    - when this process ends, however it ends, its workers end as well.
    """

    def __init__(self, work: Work, count: int | None = None) -> None:
        """Nothing is started before the first run is given out."""
        count = cores() if count is None else count
        _COUNT.check("workers", count)
        self.work, self.places = work, int(count)
        self._pools: list[ProcessPoolExecutor | None] = [None] * self.places
        self._of: dict[Future[Outcome], int] = {}

    def submit(self, task: Task) -> Future[Outcome]:
        """Give a run to an idle worker; there must be one."""
        place = next(n for n in range(self.places) if n not in self._of.values())
        pool = self._pools[place]
        if pool is None:
            pool = self._pools[place] = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), _begin, (self.work,)
            )
        future = pool.submit(_perform, task)
        self._of[future] = place
        return future

    def done(self, future: Future[Outcome]) -> None:
        """Take a worker back; one that has died is replaced when it is next needed."""
        place = self._of.pop(future)
        pool = self._pools[place]
        if pool is not None and getattr(pool, "_broken", False):
            pool.shutdown(wait=False)
            self._pools[place] = None

    def close(self) -> None:
        """End all workers now, in the middle of their runs if they have any."""
        for pool in self._pools:
            if pool is not None:
                living = list((getattr(pool, "_processes", None) or {}).values())
                pool.shutdown(wait=False, cancel_futures=True)
                for process in living:
                    process.kill()
        self._pools = [None] * self.places


class Borrowed:
    """Somebody's own executor, which is not shut down; a run takes the work along."""

    def __init__(self, work: Work, executor: Executor) -> None:
        """Use the executor, so many runs ahead that its workers have something to do."""
        if not (callable(getattr(executor, "submit", None))):
            raise TypeError(
                f"executor must be a concurrent.futures.Executor, such as "
                f"ProcessPoolExecutor() or dask.distributed.Client().get_executor(), got "
                f"{executor!r}."
            )
        self.work, self._executor = work, executor
        self.places = 2 * (getattr(executor, "_max_workers", None) or 32)
        self._given: set[Future[Outcome]] = set()

    def submit(self, task: Task) -> Future[Outcome]:
        """Hand a run over."""
        future = self._executor.submit(perform, task, self.work)
        self._given.add(future)
        return future

    def done(self, future: Future[Outcome]) -> None:
        """A run has come back."""
        self._given.discard(future)

    def close(self) -> None:
        """Take back what was not begun."""
        for future in self._given:
            future.cancel()


def _begin(work: Work) -> None:
    """Hold the work, and watch the process that this one serves."""
    global _held
    _held = work
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _perform(task: Task, _: Any = None) -> Outcome:
    assert _held is not None
    return perform(task, _held)
