"""The lessons as a person meets them: both notebooks, sliders that move plots, a reload."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from harness import summary

pytestmark = pytest.mark.browser
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FIRST, SECOND = NOTEBOOKS / "01_what_is_dp.ipynb", NOTEBOOKS / "03_accountants.ipynb"
BATCHING, BUDGETS = NOTEBOOKS / "04_batching.ipynb", NOTEBOOKS / "06_budget_schedules.ipynb"
FOUNDING = NOTEBOOKS / "05_abadi_reproduced.ipynb"
PANEL = "from dpkit.widgets.{} import {}\npanel = {}()\npanel"
ALL = PANEL.format("accounting", "AccountantsPanel", "AccountantsPanel")
LINE, POINT = ".scatterlayer .trace path.js-line", ".scatterlayer .trace .point"
LEGEND = "[data-title^='ε over'] .dpk-legend"
ROOM = 1000  # ms; the bar is 100 on a quiet machine, and this one may run other tests


def drawn(notebook, plots):
    """Wait until this many plots stand in the page."""
    notebook.page.wait_for_function(
        "n => document.querySelectorAll('.dpkit-lesson .dpk-plot[data-drawn]').length >= n",
        arg=plots,
        timeout=60_000,
    )


def dragged(notebook, dot, up):
    """Take hold of a dot, and let it go some pixels further."""
    place = notebook.page.locator(dot)
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = notebook.page.mouse
    mouse.move(x, y)
    mouse.down()
    for part in range(1, 6):
        mouse.move(x, y + up * part / 5)
        notebook.page.wait_for_timeout(60)
    mouse.up()


def in_step(notebook):
    """Wait until the page shows what the kernel shows: words and every plot's revision."""
    assert notebook.kernel("print(panel.join(60))") == "True"
    said = notebook.kernel("print(panel.said.text.replace('**', ''))")
    revisions = notebook.kernel(
        "import json; print(json.dumps({p.title: str(p.revision) for p in panel.plots.values()}))"
    )
    notebook.page.wait_for_function(
        """([said, revisions]) => {
            const note = document.querySelector('.dpkit-lesson .dpk-note');
            const plots = [...document.querySelectorAll('.dpkit-lesson .dpk-plot')];
            return note?.innerText === said && plots.every(
                p => p.dataset.drawn === revisions[p.dataset.title]) }""",
        arg=[said, json.loads(revisions)],
        timeout=15_000,
    )


@pytest.mark.parametrize(
    ("path", "panels", "plots"),
    [(FIRST, 4, 8), (SECOND, 2, 4), (BATCHING, 3, 6), (FOUNDING, 4, 6), (BUDGETS, 2, 6)],
)
def test_the_notebooks_as_they_are_shipped(lab, browser, path, panels, plots):
    """Twice if need be: a machine that is busy for two seconds fails anywidget's own time limit."""
    try:
        _shipped(lab, browser, path, panels, plots)
    except AssertionError as failure:
        if "Failed to initialize model" not in str(failure):
            raise
        _shipped(lab, browser, path, panels, plots)


def _shipped(lab, browser, path, panels, plots):
    with lab.open(browser, path, height=2400) as notebook:
        notebook.run_all()
        drawn(notebook, plots)
        assert notebook.page.locator(".dpkit-lesson").count() == panels
        assert notebook.page.locator("text=Not answered yet").count() == (
            path.read_text().count("course.check(")
        )
        notebook.shot(f"lesson-{path.stem}")
        notebook.assert_clean()


@pytest.mark.parametrize(
    ("module", "panel", "label", "plot", "mark"),
    [
        ("lessons", "RandomisedResponsePanel", "Chance of a true answer", "What one answer", LINE),
        ("lessons", "NoisePanel", "Claimed ε", "The δ", POINT),
        ("lessons", "HypothesisPanel", "Say “in” above", "All tests", POINT),
        ("lessons", "CompositionPanel", "Noise scale", "What k releases", LINE),
        ("accounting", "AccountantsPanel", "Noise multiplier σ", "ε over the steps", LINE),
        ("accounting", "AccountantsPanel", "Steps T", "ε over the steps", LINE),
    ],
)
def test_a_slider_moves_its_plot_at_once(lab, browser, module, panel, label, plot, mark):
    with lab.open(browser, [PANEL.format(module, panel, panel)]) as notebook:
        notebook.run_all()
        drawn(notebook, 1)
        times = notebook.latencies(label, f"[data-title^='{plot}'] {mark}", 24)
        print(f"{panel}, {label} to changed plot: {summary(times)}")
        assert statistics.median(times) < ROOM
        in_step(notebook)
        notebook.kernel("panel.check()")
        notebook.assert_clean()


def test_a_curve_of_noise_is_drawn_by_keys_and_survives_a_reload(lab, browser):
    with lab.open(browser, [PANEL.format("schedules", "BudgetPanel", "BudgetPanel")]) as notebook:
        notebook.run_all()
        drawn(notebook, 4)
        notebook.control("Noise over the epochs", "select").select_option("Knots")
        notebook.until_kernel("panel.value('shape') == 'Knots'")
        in_step(notebook)
        knots = "[data-title^='Noise in'] .scatterlayer .trace .point"
        assert notebook.page.locator(knots).count() == 5
        times = notebook.latencies("Knot 3: noise σ", f"{knots}:nth-child(3)", 24)
        print(f"a knot to the changed curve: {summary(times)}")
        assert statistics.median(times) < ROOM
        in_step(notebook)
        before = float(notebook.kernel("print(panel.value('Knots.1'))"))
        dragged(notebook, f"{knots}:nth-child(2)", -45)
        notebook.until_kernel(f"panel.value('Knots.1') > {before} + 0.5")
        in_step(notebook)
        assert notebook.page.locator(".dpkit-lesson input[type=range]:visible").count() == 7
        notebook.shot("lesson-knots")
        notebook.save()
        notebook.reload()
        drawn(notebook, 4)
        in_step(notebook)
        assert notebook.page.locator(knots).count() == 5
        notebook.kernel("panel.check()")
        notebook.assert_clean()


EXPLORER = f"""
import sys; sys.path.insert(0, {str(NOTEBOOKS.parent)!r})
import dpkit as dp, pathlib, tempfile
from tests.sweeps import GRID, SEEDS, Here, linear, published
from dpkit.widgets import Explorer
store = pathlib.Path(tempfile.mkdtemp()) / "runs.sqlite"
panel = Explorer(dp.sweep(GRID, published, linear, seeds=SEEDS, store=store, executor=Here()))
panel
"""


def test_the_explorer_fills_by_its_button_and_a_dot_is_chosen_by_a_click(lab, browser):
    with lab.open(browser, [EXPLORER]) as notebook:
        notebook.run_all()
        drawn(notebook, 3)
        notebook.page.locator(".dpkit-lesson").get_by_role(
            "button", name="Start", exact=True
        ).click()
        notebook.until_kernel("len(panel.cloud) == 12", seconds=60)
        dots = "[data-title^='Accuracy against'] .scatterlayer .trace:first-child .point"
        notebook.page.wait_for_function(f'document.querySelectorAll("{dots}").length == 12')
        before = notebook.kernel("print(panel.selected.epsilon)")
        other = notebook.kernel(
            "print(next(i for i, p in enumerate(panel.cloud.points) "
            "if p.epsilon != panel.selected.epsilon))"
        )
        place = notebook.page.locator(dots).nth(int(other))
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        notebook.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        notebook.until_kernel(f"panel.selected.epsilon != {before}")
        notebook.shot("explorer")
        notebook.kernel("panel.check()")
        notebook.assert_clean()


def test_a_race_is_started_and_stopped_by_its_buttons(lab, browser):
    with lab.open(browser, [PANEL.format("race", "RacePanel", "RacePanel")]) as notebook:
        notebook.run_all()
        drawn(notebook, 2)
        notebook.page.get_by_role("button", name="Train").click()
        notebook.until_kernel("any(len(r.accuracy) > 3 for r in panel.runs)", 60)
        notebook.page.get_by_role("button", name="Stop").click()
        notebook.until_kernel("not panel._trainer.is_alive()", 20)
        in_step(notebook)
        notebook.shot("lesson-race")
        notebook.kernel("panel.check()")
        notebook.assert_clean()


def test_three_noise_levels_train_and_stop_by_their_buttons(lab, browser):
    cell = "from dpkit.widgets.abadi_live import LivePanel\npanel = LivePanel('digits')\npanel"
    with lab.open(browser, [cell]) as notebook:
        notebook.run_all()
        drawn(notebook, 2)
        notebook.page.get_by_role("button", name="Train").click()
        notebook.until_kernel("len(panel.runs[0].epochs) > 2", 60)
        notebook.page.get_by_role("button", name="Stop").click()
        notebook.until_kernel("not panel._trainer.is_alive()", 20)
        in_step(notebook)
        assert "The claim stays at the planned price" in notebook.kernel("print(panel.said.text)")
        lines = "[data-title^='Test accuracy'] .scatterlayer .trace path.js-line"
        assert notebook.page.locator(lines).count() == 6
        notebook.control("Clip norm C", "input[type=range]").press("ArrowRight")
        notebook.until_kernel("len(panel.before) == 3 and not panel.runs[0].epochs")
        in_step(notebook)
        assert notebook.page.locator(lines).count() == 3, "what was seen stays, in grey"
        notebook.shot("lesson-founding")
        notebook.kernel("panel.check()")
        notebook.assert_clean()


def test_a_burst_of_keys_ends_where_the_kernel_ends(lab, browser):
    with lab.open(browser, [ALL]) as notebook:
        notebook.run_all()
        drawn(notebook, 3)
        track = notebook.control("Noise multiplier σ", "input[type=range]")
        track.focus()
        for _ in range(25):
            notebook.page.keyboard.press("ArrowRight")
        in_step(notebook)
        shown = notebook.control("Noise multiplier σ", "input.dpk-number").input_value()
        assert float(shown) > 2
        assert notebook.kernel("print(panel.prices.setting.noise_multiplier)") == str(float(shown))
        notebook.kernel("panel.check()")
        notebook.assert_clean()


def test_a_refused_accountant_says_why_and_comes_back(lab, browser):
    with lab.open(browser, [ALL]) as notebook:
        notebook.run_all()
        drawn(notebook, 3)
        legend = notebook.page.locator(LEGEND)
        assert "GDP: an estimate" in legend.inner_text()
        choice = notebook.control("Neighbours", "select")
        choice.select_option("REPLACE_ONE")
        notebook.page.wait_for_selector(".dpkit-lesson .dpk-note-info >> text=GDP knows Gaussian")
        assert "GDP" not in legend.inner_text()
        notebook.shot("lesson-refused")
        choice.select_option("ADD_REMOVE")
        notebook.page.wait_for_function(
            "css => /GDP/.test(document.querySelector(css).innerText)", arg=LEGEND
        )
        in_step(notebook)
        notebook.assert_clean()


def test_what_cannot_be_is_refused_in_words_and_changes_nothing(lab, browser):
    with lab.open(browser, [ALL]) as notebook:
        notebook.run_all()
        drawn(notebook, 3)
        before = notebook.kernel("print(panel.setting)")
        box = notebook.control("Sample rate q", "input.dpk-number")
        box.fill("1.5")
        box.press("Enter")
        trouble = notebook.page.locator(".dpk-slider-part .dpk-trouble").first
        assert "must lie between" in trouble.inner_text()
        assert notebook.kernel("print(panel.setting)") == before
        notebook.assert_clean()


def test_a_reload_shows_the_present_state(lab, browser):
    with lab.open(browser, [ALL]) as notebook:
        notebook.run_all()
        drawn(notebook, 3)
        notebook.kernel("panel.turn(noise_multiplier=3.3, steps=500); panel.join()")
        notebook.reload()
        drawn(notebook, 3)
        in_step(notebook)
        value = notebook.control("Noise multiplier σ", "input.dpk-number").input_value()
        assert value == "3.3"
        caption = notebook.page.locator(".dpkit-table caption").inner_text()
        assert "500 steps" in caption
        assert notebook.page.locator(".dpkit-table th[scope=row]").count() == 7
        assert notebook.page.locator(".dpkit-table th[scope=col]").count() == 5
        notebook.assert_clean()


def test_running_the_cell_again_closes_the_old_panel(lab, browser):
    count = "import ipywidgets.widgets.widget as w; print(len(w._instances))"
    with lab.open(browser, [ALL]) as notebook:
        notebook.run_all()
        drawn(notebook, 3)
        before = notebook.kernel(count)
        notebook.run_cell(0)
        drawn(notebook, 3)
        assert notebook.kernel(count) == before
        in_step(notebook)
        notebook.assert_clean()
