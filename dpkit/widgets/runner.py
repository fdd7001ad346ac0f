"""A runner: drives a generator of steps on a thread of its own, one run at a time."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator

from dpkit.training import Step


class State(enum.Enum):
    """Where a runner is."""

    IDLE = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"


class Runner:
    """Runs a generator of steps; start, pause, resume and stop may come from any thread.

    *Guarantee*
    - one run at a time: `start` answers False while one is on;
    - a stop takes effect after the present step, a pause too;
    - `on_end` is called once for each run, also after an error.
    """

    def __init__(
        self,
        on_step: Callable[[Step], None],
        on_hold: Callable[[], None],
        on_end: Callable[[State, Exception | None], None],
    ) -> None:
        """Give the callbacks: after each step, when a pause has begun, and at the end.

        All are called on the runner's thread.
        """
        self._on_step, self._on_hold, self._on_end = on_step, on_hold, on_end
        self._lock = threading.RLock()
        self._stop, self._go = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.state = State.IDLE

    @property
    def busy(self) -> bool:
        """Whether a run is on, paused or not."""
        return self.state in (State.RUNNING, State.PAUSED)

    def start(self, make_steps: Callable[[], Iterator[Step]]) -> bool:
        """Begin a run unless one is on; the generator is made on the runner's thread."""
        with self._lock:
            if self.busy:
                return False
            self._stop.clear()
            self._go.set()
            self.state = State.RUNNING
            self._thread = threading.Thread(target=self._drive, args=(make_steps,), daemon=True)
            self._thread.start()
            return True

    def pause(self) -> None:
        """Wait after the present step; press again, or `resume`, to go on."""
        with self._lock:
            if self.state is State.PAUSED:
                self.resume()
            elif self.state is State.RUNNING:
                self._go.clear()
                self.state = State.PAUSED

    def resume(self) -> None:
        """Go on after a pause."""
        with self._lock:
            if self.state is State.PAUSED:
                self.state = State.RUNNING
                self._go.set()

    def stop(self) -> None:
        """End the run after the present step."""
        with self._lock:
            self._stop.set()
            self._go.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the present run has ended; False if the time ran out."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            return not thread.is_alive()
        return True

    def _drive(self, make_steps: Callable[[], Iterator[Step]]) -> None:
        end, failure = State.DONE, None
        try:
            for step in make_steps():
                self._on_step(step)
                if not self._go.is_set():
                    self._on_hold()
                    self._go.wait()
                if self._stop.is_set():
                    end = State.STOPPED if step.step < step.steps else State.DONE
                    break
        except Exception as error:
            end, failure = State.FAILED, error
        with self._lock:
            self.state = end
        self._on_end(end, failure)
