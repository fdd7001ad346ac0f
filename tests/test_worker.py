"""The worker of a panel: one task at a time, each with its own stop, whoever presses what."""

import os
import signal
import threading
import time

import pytest

from dpkit.widgets import pace, worker
from dpkit.widgets.controls import Buttons, Note
from dpkit.widgets.runner import Runner, State
from dpkit.widgets.worker import Worker

SECONDS = 10.0


class Bench:
    """A worker whose task notes who is at work, and goes on until it is let go or stopped."""

    def __init__(self):
        self.go, self.stops, self.most, self._on = threading.Event(), [], 0, 0
        self.begun = threading.Semaphore(0)
        self.buttons = Buttons(actions=[("run", "Run", ""), ("stop", "Stop", "")],
                               disabled=["stop"])  # fmt: skip
        self.trouble, self.answer = Note(), lambda stop: self.go.wait(SECONDS) and None
        self.worker = Worker(self._task, self.buttons, self.trouble)

    def _task(self, stop):
        self.stops.append(stop)
        self._on += 1
        self.most = max(self.most, self._on)
        self.begun.release()
        try:
            return self.answer(stop)
        finally:
            self._on -= 1


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.go.set()
    assert made.worker.close()


def test_the_buttons_begin_and_end_it_and_say_which_can_be_pressed(bench):
    bench.answer = lambda stop: stop.wait(SECONDS) and None
    assert bench.buttons.click("run") and bench.begun.acquire(timeout=SECONDS)
    assert bench.worker.is_alive() and bench.buttons.off == ["run"]
    assert not bench.buttons.click("run"), "one is on"
    assert not bench.worker.join(0.01)
    assert bench.buttons.click("stop") and bench.worker.join(SECONDS)
    assert not bench.worker.is_alive() and bench.buttons.off == ["stop"]


def test_of_many_callers_at_the_same_moment_one_begins(bench):
    callers, answers = threading.Barrier(8), []

    def call():
        callers.wait(SECONDS)
        answers.append(bench.worker.start())

    for _ in range(20):
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert answers.count(True) == 1 and len(answers) == 8
        bench.go.set()
        assert bench.worker.join(SECONDS) and bench.buttons.off == ["stop"]
        bench.go.clear()
        answers.clear()
    assert bench.most == 1 and len(bench.stops) == 20


def test_a_start_after_a_stop_waits_and_takes_no_stop_back(bench, monkeypatch):
    monkeypatch.setattr(worker, "_PATIENCE", 0.05)
    assert bench.worker.start() and bench.begun.acquire(timeout=SECONDS)
    bench.worker.stop()
    assert not bench.worker.start(), "it has not asked yet"
    assert bench.stops[0].is_set() and len(bench.stops) == 1
    monkeypatch.setattr(worker, "_PATIENCE", SECONDS)
    threading.Timer(0.05, bench.go.set).start()
    assert bench.worker.start() and bench.begun.acquire(timeout=SECONDS)
    assert bench.stops[0].is_set() and not bench.stops[1].is_set() and bench.most == 1


def test_starts_and_stops_in_a_whirl_leave_one_task_and_the_right_buttons(bench):
    """Every start that is answered by True is one task; none goes on without a Stop to press."""
    end, started, off, disable = time.monotonic() + 1.0, [], set(), bench.buttons.disable
    bench.buttons.disable = lambda *names: (time.sleep(0.002), disable(*names))
    bench.answer = lambda stop: stop.wait(0.001) and off.add(*bench.buttons.off)

    def turn(act):
        while time.monotonic() < end:
            answer = act()
            started.append(act == bench.worker.start and answer)

    acts = [bench.worker.start, bench.worker.start, bench.worker.stop, bench.worker.close]
    threads = [threading.Thread(target=turn, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert bench.worker.join(SECONDS)
    assert bench.most == 1 and len(bench.stops) == sum(started) > 10
    assert off == {"run"} and bench.buttons.off == ["stop"]


def test_an_error_is_told_and_the_next_task_can_begin(bench, capsys):
    def fail(stop):
        raise ValueError("The lot is empty.")

    bench.answer = fail
    assert bench.buttons.click("run") and bench.worker.join(SECONDS)
    assert bench.trouble.text == "The lot is empty." and bench.trouble.kind == "error"
    assert bench.buttons.off == ["stop"] and "ValueError" in capsys.readouterr().err
    with pytest.raises(ValueError):
        bench.trouble.check()
    bench.answer = lambda stop: None
    assert bench.buttons.click("run") and bench.worker.join(SECONDS)
    assert bench.trouble.text == "", "the sentence leaves at the next success"


def test_a_task_waits_for_itself_never_and_begins_no_second(bench):
    found = []
    bench.answer = lambda stop: found.extend(
        [bench.worker.join(), bench.worker.start(), bench.worker.close(), bench.worker.start()]
    )
    assert bench.worker.start() and bench.worker.join(SECONDS)
    assert found == [True, False, True, False] and len(bench.stops) == 1


@pytest.fixture
def interruptible():
    """Python's own answer to Ctrl-C, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_wait_does_not_take_the_task_for_ended(bench, interruptible):
    assert bench.worker.start() and bench.begun.acquire(timeout=SECONDS)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        bench.worker.join(SECONDS)
    assert bench.worker.is_alive() and not bench.worker.join(0.01)
    assert not bench.worker.start() and not bench.stops[0].is_set()
    bench.go.set()
    assert bench.worker.join(SECONDS) and bench.worker.start()


def test_a_task_that_was_the_last_leaves_its_button_off(bench):
    bench.answer = lambda stop: True
    bench.worker.start()
    assert bench.worker.join(SECONDS) and bench.buttons.off == ["run", "stop"]


def test_where_no_thread_can_start_nothing_is_on(bench, monkeypatch, capsys):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as here:
        here.setattr(threading.Thread, "start", refused)
        bench.buttons.click("run")
    assert (
        "can't start new thread" in bench.trouble.text and "RuntimeError" in capsys.readouterr().err
    )
    assert not bench.worker.is_alive() and bench.buttons.off == ["stop"]
    assert bench.worker.start()


def test_a_picture_is_due_at_once_and_then_after_every_pause(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    clock, drawn = pace.Pace(), []
    for _ in range(40):
        drawn += [now[0]] * clock.due(0.25)
        now[0] += 0.0625
    assert drawn == [100.0 + 0.25 * n for n in range(10)]


def test_the_time_left_is_by_the_pace_since_the_first_step(bench, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    assert bench.worker.left(0.5) == "", "nothing is on"
    assert bench.worker.start() and bench.begun.acquire(timeout=SECONDS)
    assert bench.worker.left(0.0) == ""
    now[0] = 130.0  # half a minute for the data, which is no part of the pace
    assert bench.worker.left(0.2) == ""
    now[0] = 140.0
    assert bench.worker.left(0.4) == ", about 30 s left"
    assert bench.worker.left(0.95) == ", about 0.7 s left" and bench.worker.left(1.0) == ""
    now[0] = 430.0
    assert bench.worker.left(0.4) == ", about 15 min left"
    bench.worker.stop()
    assert bench.worker.left(0.9) == ""
    assert [pace.duration(s) for s in (0.04, 9.96, 119.0, 150.0)] == [
        "0.0 s", "10 s", "119 s", "2 min"
    ]  # fmt: skip


def test_closing_reaches_a_task_that_is_just_beginning(bench, monkeypatch):
    inside, start = threading.Event(), threading.Thread.start
    bench.answer = lambda stop: stop.wait(SECONDS) and None

    def slowly(thread):
        start(thread)
        if thread._target == bench.worker._do:
            inside.set()
            time.sleep(0.2)

    caller = threading.Thread(target=bench.worker.start)
    monkeypatch.setattr(threading.Thread, "start", slowly)
    caller.start()
    assert inside.wait(SECONDS) and bench.worker.close()
    caller.join(SECONDS)
    assert not bench.worker.is_alive() and all(stop.is_set() for stop in bench.stops)


def test_a_task_has_ended_also_where_its_buttons_cannot_be_told(bench, monkeypatch):
    disable, told = bench.buttons.disable, []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(str(args.exc_value)))

    def broken(*names):
        disable(*names)
        if names == ("stop",):
            raise RuntimeError("No connection.")

    bench.buttons.disable = broken
    bench.go.set()
    assert bench.worker.start() and bench.worker.join(1) and not bench.worker.is_alive()
    bench.worker._thread.join(SECONDS)
    assert told == ["No connection."]


def test_a_runner_where_no_thread_can_start_has_nothing_on(monkeypatch):
    runner = Runner(lambda step: None, lambda: None, lambda state, failure: None)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", lambda thread: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.start(lambda: iter(()))
    assert not runner.busy and runner.join(1)
    assert runner.start(lambda: iter(())) and runner.join(SECONDS) and runner.state == State.DONE


def test_a_start_that_gives_up_says_so_until_one_begins(bench, monkeypatch):
    monkeypatch.setattr(worker, "_PATIENCE", 0.05)
    assert bench.worker.start() and bench.begun.acquire(timeout=SECONDS)
    bench.buttons.click("stop")
    assert not bench.worker.start()
    assert bench.trouble.kind == "warning" and "still ending" in bench.trouble.text
    bench.go.set()
    assert bench.worker.join(SECONDS) and bench.worker.start() and bench.trouble.text == ""


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("now")])
def test_what_would_end_python_ends_a_run_and_is_told(error):
    def steps():
        raise error
        yield

    ends = []
    runner = Runner(lambda step: None, lambda: None, lambda *end: ends.append(end))
    assert runner.start(steps) and runner.join(SECONDS) and not runner.busy
    (state, told), = ends  # fmt: skip
    assert state is State.FAILED and isinstance(told, RuntimeError)
    assert type(error).__name__ in str(told)
    assert runner.start(lambda: iter(())) and runner.join(SECONDS) and runner.state is State.DONE
