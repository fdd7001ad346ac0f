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
    - `on_end` is called once for each run, also after an error, and `join` waits for it as well;
    - an interrupted `join` leaves the run as it is.
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
        self._stop, self._go, self._ended = (threading.Event() for _ in range(3))
        self._ended.set()  # asked instead of the thread, which an interrupted join takes for dead
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
            stop, ended = threading.Event(), threading.Event()
            args = make_steps, stop, ended
            drive = threading.Thread(target=self._drive, args=args, daemon=True)
            drive.start()
            self._go.set()
            self._stop, self._ended, self._thread = stop, ended, drive
            self.state = State.RUNNING
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
        """Wait until the present run has ended and that is told; False if the time ran out."""
        return self._thread is threading.current_thread() or self._ended.wait(timeout)

    def _drive(
        self,
        make_steps: Callable[[], Iterator[Step]],
        stop: threading.Event,
        ended: threading.Event,
    ) -> None:
        with self._lock:  # `start` has written down that this run is on
            if self._stop is not stop:
                return
        end, failure = State.DONE, None
        try:
            for step in make_steps():
                self._on_step(step)
                if not self._go.is_set():
                    self._on_hold()
                    self._go.wait()
                if stop.is_set():
                    end = State.STOPPED if step.step < step.steps else State.DONE
                    break
        except BaseException as error:  # SystemExit of a model ends its run, not the panel
            told = RuntimeError(f"{type(error).__name__}: {error}")
            end, failure = State.FAILED, error if isinstance(error, Exception) else told
        with self._lock:
            self.state = end
        try:
            self._on_end(end, failure)
        finally:
            ended.set()
