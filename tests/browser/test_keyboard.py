"""Lesson 00 from the keyboard alone, and what a screen reader is told on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Lab
from test_components import ALL, DRAWN, START

pytestmark = pytest.mark.browser
LESSON = Path(__file__).parents[2] / "notebooks" / "00_playground.ipynb"
_FOCUS = """() => {
    const at = document.activeElement, css = getComputedStyle(at), box = at.getBoundingClientRect();
    const cell = [...document.querySelectorAll('.jp-Notebook .jp-Cell')]
        .findIndex(cell => cell.contains(at));
    return {cell, inside: Boolean(at.closest('.dpk')), kind: at.type || at.tagName.toLowerCase(),
        name: at.getAttribute('aria-label') || at.labels?.[0]?.textContent || at.textContent,
        x: box.left, y: box.top - (at.closest('.dpk-board')?.getBoundingClientRect().top ?? 0),
        ring: css.outlineStyle !== 'none' && parseFloat(css.outlineWidth),
        seen: box.bottom > 0 && box.top < innerHeight, value: at.value,
        place: [...document.querySelectorAll('.dpk *')].indexOf(at),
        told: at.getAttribute('aria-valuetext'), off: at.getAttribute('aria-disabled')} }"""
_STOPS = """cell => [...document.querySelectorAll('.jp-Notebook .jp-Cell')[cell]
    .querySelectorAll('.dpk :is(input, select, button, [tabindex="0"])')]
    .filter(e => e.offsetParent && !e.disabled).length"""
WORDS = ".dpk-progress-part .dpk-unit"


def focus(page):
    """What has the keyboard."""
    return page.evaluate(_FOCUS)


def tab_to(page, name, kind="", *, key="Tab", most=80):
    """Press Tab until the element of this name has the focus."""
    for _ in range(most):
        page.keyboard.press(key)
        now = focus(page)
        if now["inside"] and now["name"].strip() == name and kind in now["kind"]:
            return now
    raise AssertionError(f"{key} never reaches {name!r}")


def into(page, cell):
    """In command mode: walk to a cell with the arrow keys, and by Tab into what it shows."""
    for _ in range(40):
        here = page.evaluate("() => jupyterapp.shell.currentWidget.content.activeCellIndex")
        if here == cell:
            break
        page.keyboard.press("ArrowDown" if here < cell else "ArrowUp")
    for _ in range(4):  # JupyterLab's own buttons on the cell come first
        page.keyboard.press("Tab")
        if focus(page)["inside"]:
            break


def answered(page, cell, text):
    """Walk to a cell, put a number where it says None, run it."""
    into_cell = "i => jupyterapp.shell.currentWidget.content.activeCellIndex === i"
    for _ in range(40):
        if page.evaluate(into_cell, cell):
            break
        page.keyboard.press("ArrowDown")
    for key in ("Enter", "Control+Home"):
        page.keyboard.press(key)
    while "None" not in page.evaluate(_LINE):
        page.keyboard.press("ArrowDown")
    for key in ("End", "Control+Backspace"):
        page.keyboard.press(key)
    page.keyboard.type(text)
    page.keyboard.press("Shift+Enter")


_LINE = """() => { const cell = jupyterapp.shell.currentWidget.content.activeCell;
    const at = cell.editor.getCursorPosition();
    return cell.editor.getLine(at.line) }"""


@pytest.fixture
def lesson(browser, tmp_path):
    with (
        Lab(environment={"DPKIT_PROGRESS": str(tmp_path / "progress.json")}) as lab,
        lab.open(browser, LESSON, height=900) as notebook,
    ):
        yield notebook


def test_lesson_00_is_done_without_leaving_the_keyboard(lesson):
    page, press = lesson.page, lesson.page.keyboard.press
    for _ in range(2):  # the words, then the panel
        press("Shift+Enter")
    page.wait_for_function("() => document.querySelectorAll('[data-drawn]').length >= 5")
    into(page, 1)
    walk = [focus(page)]
    while walk[-1]["inside"] and len(walk) < 120:
        press("Tab")
        walk.append(focus(page))
    *walk, left = walk
    assert not left["inside"], "Tab never leaves the panel"
    assert len(walk) == page.evaluate(_STOPS, 1), "Tab passes by some of the controls"
    for before, now in zip(walk, walk[1:], strict=False):
        assert now["place"] > before["place"], f"{now['name']} comes before {before['name']}"
        assert now["y"] >= before["y"] - 60 or now["x"] > before["x"], "against the eye's order"
    hidden = [at["name"] for at in walk if not at["ring"] or not at["seen"] or not at["name"]]
    assert not hidden, f"focus without a ring, a place or a name: {hidden}"
    sliders(page, lesson)
    buttons(page, lesson)
    choices(page, lesson)
    exercises(page, lesson)
    lesson.kernel("panel.check()")
    lesson.assert_clean()


def sliders(page, lesson):
    """Arrows, pages and both ends move a slider, and its value is told with its meaning."""
    slider = tab_to(page, "Noise multiplier σ", "range", key="Shift+Tab")
    for key, grows in {"ArrowRight": 1, "PageUp": 1, "ArrowLeft": -1, "PageDown": -1, "End": 1,
                       "Home": -1}.items():  # fmt: skip
        page.keyboard.press(key)
        now = focus(page)
        assert (int(now["value"]) - int(slider["value"])) * grows > 0, key
        slider = now
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    number = focus(page)["told"]
    lesson.until_kernel(f"panel.plan.method.noise_multiplier == {number}")
    tab_to(page, "Noise multiplier σ, value", key="Shift+Tab")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    lesson.until_kernel("panel.plan.method.noise_multiplier == 1")


def buttons(page, lesson):
    """Train by Space, Stop by Enter; then a run to its end."""
    tab_to(page, "Epochs E, value")
    page.keyboard.type("50")
    page.keyboard.press("Enter")
    lesson.until_kernel("panel.settings.epochs == 50")
    tab_to(page, "Train")
    page.keyboard.press(" ")
    lesson.until_kernel("panel.session.runner.busy")
    assert focus(page)["name"] == "Train", "the focus is lost when a run begins"
    tab_to(page, "Stop")
    page.keyboard.press("Enter")
    lesson.until_kernel("not panel.session.runner.busy", 60)
    assert focus(page)["name"] == "Stop"
    tab_to(page, "Epochs E, value", key="Shift+Tab")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    lesson.until_kernel("panel.settings.epochs == 2")
    tab_to(page, "Train")
    page.keyboard.press("Enter")
    page.wait_for_function(
        f"() => /Done/.test(document.querySelector('{WORDS}').innerText)", timeout=60_000
    )


def choices(page, lesson):
    """Letters and arrows choose; neither they nor Escape reach the notebook."""
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    tab_to(page, "Set", key="Shift+Tab")
    page.keyboard.press("ArrowDown")
    lesson.until_kernel("panel.settings.epsilon is not None")
    for key in ("Escape", "d", "d", "a", "b", "m", "y"):
        page.keyboard.press(key)
    page.keyboard.press("Home")
    lesson.until_kernel("panel.settings.epsilon is None")
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert focus(page)["name"] == "Set"
    page.keyboard.press("Shift+Enter")  # stays the notebook's: run, and go on


def exercises(page, lesson):
    """Answers are typed into their cells, as `.ipynb` has them, and checked."""
    lesson.page.wait_for_timeout(500)
    cells = lesson.page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.widgets.map(c => c.model.sharedModel.source)"
    )
    for name, answer in {"00.2": "1", "00.4": "3"}.items():
        place = next(i for i, source in enumerate(cells) if f'check("{name}"' in source)
        if name == "00.2":  # the first exercise's cell brings the import
            answered(page, place - 2, "1")
        answered(page, place, answer)
        solved = f'__import__("dpkit.course.record").course.record.load()["{name}"].solved'
        lesson.until_kernel(solved, 30)


HEARD = """() => { window.heard = [];
    const listen = region => new MutationObserver(() => heard.push(region.textContent))
        .observe(region, {childList: true, subtree: true, characterData: true});
    const look = new MutationObserver(() => { const region = document.querySelector('.dpk-voice');
        if (region) { look.disconnect(); heard.push(region.textContent); listen(region) } });
    look.observe(document.body, {childList: true}) }"""


def test_a_screen_reader_hears_what_rests_and_nothing_twice(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        notebook.page.evaluate(HEARD)
        # a stream of a training run: forty lines in four seconds, then the end
        notebook.kernel(
            "for i in range(40):\n"
            "    progress.show(i / 40, f'step {i} of 40'); time.sleep(0.1)\n"
            "progress.show(1.0, 'done: 40 steps'); heard.show('epsilon is 3')"
        )
        notebook.page.wait_for_function("() => /epsilon is 3/.test(heard.at(-1))")
        spoken = notebook.page.evaluate("() => heard")
        assert len(spoken) <= 2 and "done: 40 steps" in spoken[-1], spoken
        notebook.kernel("heard.show('x'); heard.show('epsilon is 3')")
        notebook.page.wait_for_timeout(1500)
        assert notebook.page.evaluate("() => heard") == spoken, "the same words, said again"
        notebook.kernel("heard.show('Nothing runs.', 'error')")
        notebook.page.wait_for_selector("[role=alert]:has-text('Nothing runs.')")
        notebook.assert_clean()


def test_the_numbers_of_a_plot_can_be_read_as_a_table(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        notebook.page.get_by_role("button", name="Show the numbers").focus()
        notebook.page.keyboard.press("Enter")
        rows = notebook.page.locator(".dpk-numbers tbody tr")
        assert rows.count() == 400 and rows.first.inner_text().split() == ["sine", "0", "0"]
        notebook.kernel("plot.show({'data': [{'x': [1, 2], 'y': [3, 4.5]}], 'layout': {}}, 'two')")
        notebook.page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2")
        assert rows.nth(1).inner_text().split() == ["2", "4.5"]
        notebook.page.keyboard.press("Enter")
        assert notebook.page.locator(".dpk-numbers").count() == 0
        notebook.assert_clean()
