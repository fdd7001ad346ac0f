"""Lesson 00 from the keyboard alone, and what a screen reader is told on the way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from harness import Lab

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
        place: [...document.querySelectorAll('.dpk :is(input, select, button, [tabindex])')]
            .indexOf(at),
        told: at.getAttribute('aria-valuetext'), off: at.getAttribute('aria-disabled')} }"""
_STOPS = """cell => [...document.querySelectorAll('.jp-Notebook .jp-Cell')[cell]
    .querySelectorAll('.dpk :is(input, select, button, [tabindex="0"])')]
    .filter(e => e.offsetParent && !e.disabled && e.tabIndex >= 0).length"""
_BEFORE = """([cell, name]) => {
    const named = e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent;
    const found = [...document.querySelectorAll('.jp-Notebook .jp-Cell')[cell].querySelectorAll(
        '.dpk :is(input, select, button)')].find(e => e.offsetParent && named(e).trim() === name);
    return found && [document.activeElement.compareDocumentPosition(found)
        & Node.DOCUMENT_POSITION_PRECEDING] }"""
_ACTIVE = "() => jupyterapp.shell.currentWidget.content.activeCellIndex"
_LINE = """() => { const cell = jupyterapp.shell.currentWidget.content.activeCell;
    const at = cell.editor.getCursorPosition();
    return cell.editor.getLine(at.line) }"""
_SAID = """cell => [...document.querySelectorAll('.jp-Notebook .jp-Cell')][cell]
    .querySelector('.jp-OutputArea')?.innerText || ''"""
PROGRESS = ".dpk-progress-part .dpk-unit"
STEPS = 60
"""Presses of Tab after which a person would have given up."""


def focus(page):
    """What has the keyboard."""
    return page.evaluate(_FOCUS)


def tab_to(page, name, kind=""):
    """Press Tab, or Shift and Tab, until the element of this name has the focus."""
    here = focus(page)
    assert here["inside"], f"the focus is lost: it is on {here['name'][:40]!r}"
    there = page.wait_for_function(_BEFORE, arg=[here["cell"], name])  # a choice may bring it
    key = "Shift+Tab" if there.json_value()[0] else "Tab"
    for _ in range(STEPS):
        if here["name"].strip() == name and kind in here["kind"]:
            return here
        page.keyboard.press(key)
        here = focus(page)
    raise AssertionError(f"{key} never reaches {name!r}")


def typed(page, name, text):
    """Go to the field of a slider and type a number."""
    tab_to(page, f"{name}, value")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_timeout(50)


def walked(page, cell):
    """In command mode: go to a cell with the arrow keys."""
    for _ in range(40):
        here = page.evaluate(_ACTIVE)
        if here == cell:
            return
        page.keyboard.press("ArrowDown" if here < cell else "ArrowUp")
    raise AssertionError(f"the arrow keys stay on cell {page.evaluate(_ACTIVE)}, want {cell}")


def into(page, cell):
    """Walk to a cell, and by Tab into what it shows."""
    walked(page, cell)
    for _ in range(6):  # JupyterLab's own buttons on the cell come first
        page.keyboard.press("Tab")
        if focus(page)["inside"]:
            return
    raise AssertionError(f"Tab never enters cell {cell}")


def left(page):
    """Out of the panel by Escape, from a field after a step back; the arrow keys walk on."""
    while focus(page)["kind"] not in ("button", "range"):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Escape")
    assert not focus(page)["inside"]


def answered(page, cell, name, text):
    """Walk to an exercise, write the answer where its name stands, run it; what it says."""
    walked(page, cell)
    before = page.evaluate(_SAID, cell)
    for key in ("Enter", "Control+Home"):
        page.keyboard.press(key)
    while name not in page.evaluate(_LINE):
        page.keyboard.press("ArrowDown")
    for key in ("Home", "Shift+End"):
        page.keyboard.press(key)
    page.keyboard.type(f"{name} = {text}")
    page.keyboard.press("Shift+Enter")
    return told(page, cell, before)


def told(page, cell, before=""):
    """What a cell has printed, once that is new."""
    page.wait_for_function(
        f"([cell, before]) => {{ const now = ({_SAID})(cell); return now && now !== before }}",
        arg=[cell, before],
    )
    return page.evaluate(_SAID, cell)


def run_below(page, code):
    """A new cell below this one with a line of code, run; what it shows."""
    for key in ("b", "Enter"):
        page.keyboard.press(key)
    cell = page.evaluate(_ACTIVE)
    page.keyboard.type(code)
    page.keyboard.press("Shift+Enter")
    return told(page, cell)


@pytest.fixture
def progress(tmp_path):
    return tmp_path / "progress.json"


@pytest.fixture
def lesson(browser, progress):
    with (
        Lab(environment={"DPKIT_PROGRESS": str(progress)}) as lab,
        lab.open(browser, LESSON, height=900) as notebook,
    ):
        yield notebook


def test_lesson_00_is_done_without_leaving_the_keyboard(lesson, progress):
    page = lesson.page
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for _ in range(cells - 1):
        page.keyboard.press("Shift+Enter")
    page.wait_for_function("() => document.querySelectorAll('[data-drawn]').length >= 10")
    page.wait_for_function(
        "() => document.body.innerText.split('Not answered yet').length === 5", timeout=60_000
    )
    for cell in (4, 1):
        stops(page, cell)
    into(page, 1)
    sliders(page, lesson)
    buttons(page, lesson)
    choices(page, lesson)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    exercises(page, read_off(page, lesson), progress)
    lesson.kernel("panel.check()")
    lesson.assert_clean()


def stops(page, cell):
    """Tab passes every control of a panel once, in the eye's order, with a ring, and leaves."""
    into(page, cell)
    walk = [focus(page)]
    while walk[-1]["inside"] and walk[-1]["cell"] == cell and len(walk) <= STEPS:
        page.keyboard.press("Tab")
        walk.append(focus(page))
    *walk, end = walk
    assert not end["inside"] or end["cell"] != cell, "Tab never leaves the panel"
    assert len(walk) == page.evaluate(_STOPS, cell), "Tab passes by some of the controls"
    for before, now in zip(walk, walk[1:], strict=False):
        assert now["place"] > before["place"], f"{now['name']} comes before {before['name']}"
        assert now["y"] >= before["y"] - 60 or now["x"] > before["x"], "against the eye's order"
    hidden = [at["name"] for at in walk if not at["ring"] or not at["seen"] or not at["name"]]
    assert not hidden, f"focus without a ring, a place or a name: {hidden}"
    if end["inside"]:  # of the next panel
        left(page)
    into(page, cell)
    assert focus(page)["place"] == walk[0]["place"], "a walk has changed where the panel begins"
    page.keyboard.press("Shift+Tab")
    assert not focus(page)["inside"], "Shift and Tab never leave the panel"


def sliders(page, lesson):
    """Arrows, pages and both ends move a slider, and its value is told with its meaning."""
    slider = tab_to(page, "Noise multiplier σ", "range")
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
    typed(page, "Noise multiplier σ", "1")
    lesson.until_kernel("panel.plan.method.noise_multiplier == 1")


def buttons(page, lesson):
    """Train by Space, Stop by Enter; a run to its end; the lines that repeat it."""
    typed(page, "Epochs E", "50")
    lesson.until_kernel("panel.settings.epochs == 50")
    tab_to(page, "Train")
    page.keyboard.press(" ")
    lesson.until_kernel("panel.session.runner.busy")
    now = focus(page)
    assert (now["name"], now["off"]) == ("Train", "true"), "the focus is lost when a run begins"
    tab_to(page, "Stop")
    page.keyboard.press("Enter")
    lesson.until_kernel("not panel.session.runner.busy", 60)
    assert focus(page)["name"] == "Stop"
    typed(page, "Epochs E", "2")
    lesson.until_kernel("panel.settings.epochs == 2")
    tab_to(page, "Train")
    page.keyboard.press("Enter")
    page.wait_for_function(
        f"() => /Done/.test(document.querySelector('{PROGRESS}').innerText)", timeout=60_000
    )
    assert focus(page)["name"] == "Train"
    tab_to(page, "Show Python")
    page.keyboard.press("Enter")
    page.wait_for_function("() => /dp.train/.test(document.querySelector('.dpk-code').innerText)")
    assert focus(page)["name"] == "Show Python"


def choices(page, lesson):
    """Letters and arrows choose; neither they nor Escape reach the notebook."""
    tab_to(page, "Set")
    page.keyboard.press("ArrowDown")
    lesson.until_kernel("panel.settings.epsilon is not None")
    for key in ("Escape", "d", "d", "a", "b", "m", "y"):
        page.keyboard.press(key)
    page.keyboard.press("Home")
    lesson.until_kernel("panel.settings.epsilon is None")
    assert focus(page)["name"] == "Set"
    page.keyboard.press("Shift+Enter")  # stays the notebook's: run, and go on


def read_off(page, lesson):
    """The answers to the exercises as the panel tells them, found by its controls alone."""
    page.wait_for_function(
        "() => document.querySelectorAll('[data-drawn]').length >= 10"
        " && /Ready/.test(document.querySelector('.dpk-progress-part .dpk-unit').innerText)"
    )

    def planned(pattern):
        page.wait_for_timeout(400)
        return float(re.search(pattern, page.locator(".dpk-note-plain").first.inner_text())[1])

    price = r"Planned ε = ([\d.]+)"
    into(page, 1)
    before = planned(price)
    typed(page, "Clip norm C", "10")
    factor = planned(price) / before
    typed(page, "Clip norm C", "1")
    tab_to(page, "Set")
    page.keyboard.press("ArrowDown")
    typed(page, "Target epsilon ε", "3")
    noise = planned(r"σ = ([\d.]+)")
    tab_to(page, "Set")
    page.keyboard.press("ArrowUp")
    typed(page, "Noise multiplier σ", "2")
    few, many = 1, 64
    while many - few > 1:
        typed(page, "Epochs E", str((few + many) // 2))
        lesson.until_kernel(f"panel.settings.epochs == {(few + many) // 2}")
        few, many = ((few + many) // 2, many) if planned(price) <= 3 else (few, (few + many) // 2)
    left(page)
    return {"my_noise": noise, "my_factor": f"{factor:g}", "my_epochs": few, "my_choice": 3}


def exercises(page, answers, progress):
    """A hint, a wrong answer with what is wrong in it, four right ones, and their count."""
    cells = page.evaluate(
        "() => jupyterapp.shell.currentWidget.content.widgets.map(c => c.model.sharedModel.source)"
    )
    places = {name: next(i for i, source in enumerate(cells) if f"{name} =" in source)
              for name in answers}  # fmt: skip
    walked(page, places["my_choice"])
    assert "less ε" in run_below(page, 'course.hint("00.1")')
    wrong = answered(page, places["my_noise"], "my_noise", "3")
    assert "That is the ε that you want. Which noise buys it?" in wrong
    for name, answer in answers.items():
        assert "Right" in answered(page, places[name], name, answer), name
    shown = run_below(page, "course.progress()")
    assert re.search(r"progress: 4 of \d+ exercises", shown) and "4 of 4" in shown
    tried = json.loads(progress.read_text())["exercises"]
    assert all(tried[f"00.{number}"]["solved"] for number in (1, 2, 3, 4))
    assert (tried["00.1"]["attempts"], tried["00.1"]["hints"]) == (2, 1)
