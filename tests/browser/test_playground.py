"""The playground as a person meets it: JupyterLab, a real browser, real training."""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_playground.ipynb"
PANEL = "import dpkit as dp\npanel = dp.widgets.Playground({})\npanel"
FAST = 'settings="data=moons examples=1000 noise=1.0 rate=1.0 batch=100 epochs=40"'
LONG = 'settings="data=moons examples=1000 noise=1.0 rate=0.5 batch=100 epochs=20000"'
WORDS = ".dpkit-playground .dpk-progress-part .dpk-unit"
READOUT = ".dpk-note-plain strong"


def press(notebook, name):
    """Click as a hand does, also on a button that is switched off."""
    button = notebook.page.locator(".dpkit-playground button", has_text=re.compile(f"^{name}$"))
    button.first.dispatch_event("click")


def progress(notebook):
    return notebook.page.locator(
        ".dpkit-playground .dpk-progress-part .dpk-unit"
    ).first.inner_text()


def until(notebook, pattern, seconds=30.0):
    """Wait for words of the progress line; milliseconds it took."""
    started = time.perf_counter()
    notebook.page.wait_for_function(
        f"rx => new RegExp(rx).test(document.querySelector('{WORDS}')?.innerText || '')",
        arg=pattern,
        timeout=1000 * seconds,
    )
    return 1000 * (time.perf_counter() - started)


def drawn_points(notebook, title):
    """Points of the longest line that the page itself has drawn in the plot of this title."""
    return notebook.page.evaluate(
        """title => Math.max(0, ...[...document.querySelectorAll('.js-plotly-plot')]
            .filter(g => (g.closest('[aria-label]')?.getAttribute('aria-label') || '')
                .includes(title) || g.parentElement.innerText.includes(title))
            .flatMap(g => (g._fullData || []).map(d => (d.y || []).length)))""",
        title,
    )


def plots_drawn(notebook):
    return notebook.page.evaluate(
        """() => [...document.querySelectorAll('.dpkit-playground .js-plotly-plot')]
            .filter(g => g.querySelector('.main-svg')).length"""
    )


def test_the_notebook_as_it_is_shipped(lab, browser):
    with lab.open(browser, NOTEBOOK, height=1700) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(
            "() => document.querySelectorAll('.dpkit-playground .main-svg').length >= 10"
        )
        notebook.shot("playground-first-look")
        press(notebook, "Train")
        until(notebook, "Done")
        accuracy = float(re.search(r"accuracy ([\d.]+)%", progress(notebook))[1])
        assert accuracy > 80
        assert notebook.kernel("print(panel.runs[-1].spent[-1] == panel.plan.epsilon())") == "True"
        notebook.shot("playground-digits-done")
        notebook.kernel("panel.check(); flat.check()")
        notebook.assert_clean()


def test_the_planned_epsilon_follows_the_slider_also_while_training(lab, browser):
    with lab.open(browser, [PANEL.format(LONG)]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector(READOUT)
        quiet = notebook.latencies("Noise multiplier σ", READOUT, 30)
        press(notebook, "Train")
        until(notebook, r"step [\d,]+ of")
        busy = notebook.latencies("Noise multiplier σ", READOUT, 30)
        for name, times in (("quiet", quiet), ("training", busy)):
            median, late = statistics.median(times), times[int(0.95 * len(times))]
            print(f"slider to epsilon, {name}: median {median:.0f} ms, p95 {late:.0f} ms")
        # The bar is 100 and 200 ms; the test leaves room for a busy machine.
        assert statistics.median(quiet) < 400 and statistics.median(busy) < 600
        notebook.kernel("panel.check()")
        notebook.assert_clean()


def test_train_pause_stop_and_twenty_clicks(lab, browser):
    with lab.open(browser, [PANEL.format(LONG)]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector(READOUT)
        for _ in range(20):
            press(notebook, "Train")
        first = until(notebook, r"step [\d,]+ of")
        assert notebook.kernel("print(len(panel.session.budget.plans), len(panel.runs))") == "1 1"
        press(notebook, "Pause")
        until(notebook, "Paused")
        done = notebook.kernel("print(panel.session.last.step)")
        notebook.page.wait_for_timeout(500)
        assert notebook.kernel("print(panel.session.last.step)") == done
        press(notebook, "Resume")
        until(notebook, r"step [\d,]+ of")
        press(notebook, "Stop")
        stopped = until(notebook, "Stopped")
        print(f"first point {first:.0f} ms after Train, stopped {stopped:.0f} ms after Stop")
        assert first < 10_000 and stopped < 3_000
        stage = notebook.page.locator(".dpkit-playground").inner_text()
        assert "if this length had been fixed beforehand" in stage and "Running total" in stage
        notebook.shot("playground-stopped")
        notebook.kernel("panel.check()")
        notebook.assert_clean()


def test_all_plots_come_back_after_a_reload_in_mid_training(lab, browser):
    with lab.open(browser, [PANEL.format(LONG)]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector(READOUT)
        press(notebook, "Train")
        until(notebook, r"step [\d,]+ of")
        notebook.page.wait_for_timeout(1500)
        before = int(notebook.kernel("print(len(panel.runs[-1].spent))"))
        assert before >= 3
        notebook.reload()
        notebook.page.wait_for_function(
            "() => document.querySelectorAll('.dpkit-playground .js-plotly-plot .main-svg').length",
            timeout=20_000,
        )
        notebook.page.wait_for_timeout(2500)
        assert plots_drawn(notebook) == 5
        now = progress(notebook)
        notebook.page.wait_for_timeout(1000)
        assert progress(notebook) != now, "the page does not follow the run after a reload"
        press(notebook, "Stop")
        until(notebook, "Stopped")
        notebook.kernel("panel.check()")
        notebook.assert_clean()


def test_running_the_cell_again_stops_the_old_run(lab, browser):
    with lab.open(browser, [PANEL.format(LONG)]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector(READOUT)
        press(notebook, "Train")
        until(notebook, r"step [\d,]+ of")
        notebook.kernel("old = panel")
        notebook.run_cell(0)
        notebook.page.wait_for_function(
            f"() => /Ready/.test(document.querySelector('{WORDS}')?.innerText || '')"
        )
        assert notebook.kernel("print(panel is old, old.session.runner.busy)") == "False False"
        notebook.assert_clean()


def test_an_error_in_training_is_seen_and_the_panel_stays_usable(lab, browser):
    broken = (
        "import dpkit as dp, torch\n"
        "net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4),"
        " torch.nn.Linear(4, 2))\n"
        f"panel = dp.widgets.Playground(model=net, {FAST})\n"
        "panel"
    )
    with lab.open(browser, [broken]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector(READOUT)
        press(notebook, "Train")
        until(notebook, "Failed")
        assert "BatchNorm" in notebook.page.locator(".dpk-note-error").inner_text()
        with pytest.raises(AssertionError, match="BatchNorm"):
            notebook.kernel("panel.check()")
        notebook.latencies("Noise multiplier σ", READOUT, 3)


def test_typing_too_large_a_batch_is_told_in_a_sentence(lab, browser):
    with lab.open(browser, [PANEL.format(FAST)]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector(READOUT)
        before = notebook.page.locator(READOUT).first.inner_text()
        box = notebook.control("Settings as text", "input")
        box.fill("data=moons examples=50 batch=20 noise=-3")
        box.press("Enter")
        notebook.page.wait_for_function(
            "() => /noise_multiplier/.test(document.querySelector('.dpk-note-error')?.innerText)"
        )
        assert notebook.page.locator(READOUT).first.inner_text() == before
        box.fill("data=moons examples=50 batch=20 noise=3")
        box.press("Enter")
        notebook.page.wait_for_function(
            "b => document.querySelector('.dpk-note-plain strong').innerText !== b",
            arg=before,
        )
        assert notebook.kernel("print(panel.plan.method.noise_multiplier)") == "3.0"
        notebook.kernel("panel.check()")
        notebook.assert_clean()
