"""What every panel with a long task keeps: its buttons, its errors, its stop, its time left."""

import time
from dataclasses import dataclass

import pytest

import dpkit as dp
from dpkit import votes
from dpkit.sweeping import Sweep, sweep
from dpkit.widgets import abadi_live, attack, neuraldp, painter, race
from dpkit.widgets.controls import Buttons
from dpkit.widgets.explorer import Explorer
from dpkit.widgets.playground import Playground
from tests.sweeps import GRID, Here, linear, published

SECONDS = 60.0


@dataclass(frozen=True)
class Case:
    """How a panel is made with much to do, what fails in its task, a knob that ends the task."""

    make: object
    fails: tuple[object, str]
    turn: dict[str, object]


def live():
    panel = abadi_live.LivePanel("digits")
    panel.turn(epochs=40, hidden=20)
    return panel


def exploring(file):
    runs = sweep(GRID, published, linear, seeds=range(40), store=file, executor=Here())
    return Explorer(runs)


def painting():
    panel = painter.PainterPanel()
    panel.turn(steps=400)
    return panel


def racing():
    panel = race.RacePanel(lots=4)
    panel.turn(seeds=5)
    return panel


CASES = {
    "live": Case(live, (abadi_live, "projected"), {"clip": 1.0}),
    "activations": Case(neuraldp.ActivationPanel, (neuraldp, "rival_of"), {"sigma": 2.0}),
    "painter": Case(painting, (votes, "generate"), {"budget": 5.0}),
    "audit": Case(attack.FindTheBug, (attack, "auditing"), {"fault": attack.FAULTS[0].name}),
    "explorer": Case(exploring, (Sweep, "__next__"), {}),
    "race": Case(racing, (dp.zoo, "mlp"), {"rate": 0.1}),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def panel(case, tmp_path):
    made = case.make(tmp_path / "runs.sqlite") if case.make is exploring else case.make()
    assert made.join(SECONDS)
    yield made
    made.close()


def buttons(panel):
    return next(c for c in panel.controls.values() if isinstance(c, Buttons))


def first(panel):
    return buttons(panel).actions[0][0]


def under_way(panel):
    """Wait until the progress has moved."""
    end = time.monotonic() + SECONDS
    while not panel.progress.value:
        panel.check()
        assert time.monotonic() < end and panel._worker.is_alive()
        time.sleep(0.005)


def test_a_double_click_begins_one_task(panel):
    row = buttons(panel)
    assert row.off == ["stop"] and row.click(first(panel)) and row.off == [first(panel)]
    assert not row.click(first(panel)) and not panel._worker.start()
    under_way(panel)
    row.click("stop")
    assert panel.join(SECONDS) and row.off == ["stop"] and panel.progress.value < 1
    panel.check()


def test_after_a_stop_it_begins_anew_and_tells_the_time_left(panel):
    row, told = buttons(panel), []
    panel.progress.observe(lambda change: told.append(change["new"]), "text")
    for _ in range(2):
        row.click(first(panel))
        under_way(panel)
        row.click("stop")
        if not panel._worker.start():  # a click that comes at once waits for the old task's end
            pytest.fail("the click was lost")
        told.clear()
        end = time.monotonic() + SECONDS
        while not any("left" in text for text in told):
            panel.check()
            assert time.monotonic() < end and panel._worker.is_alive(), told
            time.sleep(0.005)
        panel._worker.stop()
        assert panel.join(SECONDS)
    assert "left" not in panel.progress.text, "nothing goes on"
    panel.check()


def test_closing_ends_the_task(panel):
    buttons(panel).click(first(panel))
    under_way(panel)
    panel.close()
    assert not panel._worker.is_alive()
    panel.trouble.check()


def test_an_error_is_shown_and_the_buttons_can_be_used_again(panel, case, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise RuntimeError("The lamp is out.")

    with monkeypatch.context() as here:
        here.setattr(*case.fails, broken)
        buttons(panel).click(first(panel))
        assert panel.join(SECONDS)
    assert panel.trouble.text == "The lamp is out." and "lamp" in capsys.readouterr().err
    assert buttons(panel).off == ["stop"]
    with pytest.raises(RuntimeError, match="lamp"):
        panel.check()
    panel.trouble.error = None
    buttons(panel).click(first(panel))
    under_way(panel)
    buttons(panel).click("stop")
    assert panel.join(SECONDS) and not panel.trouble.text
    panel.check()


def test_a_knob_that_is_turned_ends_the_run_which_shows_no_more(panel, case):
    if not case.turn:
        pytest.skip("its knobs choose what is shown of the runs")
    buttons(panel).click(first(panel))
    under_way(panel)
    panel.turn(**case.turn)
    shown = [plot.revision for plot in panel.plots.values()]
    assert panel.join(SECONDS)
    assert [plot.revision for plot in panel.plots.values()] == shown, "it showed a run of before"
    assert buttons(panel).off == ["stop"]
    panel.check()


def test_a_run_that_begins_while_an_end_is_told_takes_nothing_of_it(monkeypatch):
    """What the stopped run has spent since it was last drawn is priced, and written to that run."""
    panel = Playground(settings="data=moons examples=200 noise=1.0 batch=50 epochs=3000 seed=0")
    session, spent = panel.session, panel.session._spent

    def slowly():
        if not session.runner.busy:
            time.sleep(0.2)
        spent()

    monkeypatch.setattr(session, "_spent", slowly)
    assert panel.start()
    while session.last is None or session.last.step < 30:
        time.sleep(0.001)
    panel.stop()
    while session.runner.busy:
        time.sleep(0.001)
    assert panel.start()
    panel.stop()
    assert panel.join(SECONDS)
    panel.check()
    for run in panel.runs:
        assert run.status == "stopped" and run.spent_steps[-1] == run.done
        assert run.spent_steps == sorted(set(run.spent_steps))
    panel.close()
