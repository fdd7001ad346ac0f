"""A worker: one long task at a time on a thread of its own, begun and ended by two buttons."""

from __future__ import annotations

import threading
from collections.abc import Callable
from threading import Event

from dpkit.widgets.controls import Buttons, Note, guarded
from dpkit.widgets.pace import Pace
from dpkit.words import marked, say

_PATIENCE = 10.0  # seconds that a task which was stopped is waited for
_ENDING = marked("What was stopped is still ending; start again in a moment.")


class Worker:
    """Does `task(stop)`, which asks `stop` whether to end; the first of the buttons begins it.

    *Guarantee*
    - one task at a time: `start` answers False while one is on, also to two callers at once; a
      task that was told to stop is waited for;
    - each task has a stop of its own, which stays set: no later start takes it back, and it never
      reaches a later task;
    - after an error, shown in `trouble`, another can begin; one that returns True was the last;
    - `join` waits for the task that is on, never for itself; an interrupt of it ends nothing.
    """

    def __init__(self, task: Callable[[Event], object], buttons: Buttons, trouble: Note) -> None:
        """Listen to the buttons, one of which is "stop"; nothing runs until the first is used."""
        self._task, self._buttons, self._first = guarded(trouble)(task), buttons, buttons.actions[0]
        self._trouble, self._told = trouble, ""
        self._lock, self._stop, self._ended, self.pace = threading.Lock(), Event(), Event(), Pace()
        self._ended.set()  # asked instead of the thread, which an interrupted join takes for dead
        self._thread: threading.Thread | None = None
        buttons.on_click(guarded(trouble)(lambda n: self.stop() if n == "stop" else self.start()))

    def is_alive(self) -> bool:
        """Whether a task is on."""
        return not self._ended.is_set()

    def start(self) -> bool:
        """Begin the task; False if one is on."""
        if self._stop.is_set():
            self.join(_PATIENCE)
        with self._lock:
            if self.is_alive():
                if self._stop.is_set() and self._thread is not threading.current_thread():
                    self._told = say(_ENDING)
                    self._trouble.show(self._told, "warning")
                return False
            if self._told and self._trouble.text == self._told:
                self._trouble.clear()
            stop, ended = Event(), Event()
            thread = threading.Thread(target=self._do, args=(stop, ended), daemon=True)
            thread.start()
            self._stop, self._ended, self.pace, self._thread = stop, ended, Pace(), thread
            self._buttons.disable(self._first[0])
        return True

    def stop(self) -> None:
        """Tell the task to end, also one that is just beginning; it does so when it next asks."""
        with self._lock:
            self._stop.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the task has ended; False if the time ran out."""
        return self._thread is threading.current_thread() or self._ended.wait(timeout)

    def close(self, timeout: float = _PATIENCE) -> bool:
        """Stop and wait; False if the task goes on all the same."""
        self.stop()
        return self.join(timeout)

    def left(self, share: float) -> str:
        """The time left in words; "" while it is unknown or nothing goes on."""
        return "" if self._stop.is_set() or not self.is_alive() else self.pace.left(share)

    def _do(self, stop: Event, ended: Event) -> None:
        with self._lock:  # `start` has written down that this task is on
            if self._stop is not stop:
                return
        last = False
        try:
            last = self._task(stop) is True
        finally:
            with self._lock:
                try:
                    self._buttons.disable("stop", *self._first[:last])
                finally:
                    ended.set()
