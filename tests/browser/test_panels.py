"""Every panel of the course, looked at: light, dark, narrow, projected; and heard: axe-core."""

from __future__ import annotations

import os
from pathlib import Path

import gallery
import layout
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from test_components import ALL, DRAWN, START

pytestmark = pytest.mark.browser
LOOKS = {
    "light": ("light", None),
    "dark": ("dark", None),
    "narrow": ("light", 400),
    "projected": ("dark", 560),  # 1280 px at 175 %, less what JupyterLab takes
}
"""Theme, and the width of the output in CSS pixels; None is what a page of 1280 leaves."""
PAGE = 1280, 2600
_DRESSED = """dark => {
    const seen = [...document.querySelectorAll('.dpk-plot')].filter(p => p.offsetParent);
    return seen.length > 0
        && (document.body.dataset.jpThemeLight === 'false') === dark
        && seen.every(p => p.dataset.ink
                === getComputedStyle(p).getPropertyValue('--dpk-ink').trim()
            && Number(p.dataset.width) === p.querySelector('.dpk-canvas').clientWidth) }"""
_UNDRESSED = """() => [...document.querySelectorAll('.dpk-plot')].map(p =>
    [p.dataset.title, p.dataset.ink, getComputedStyle(p).getPropertyValue('--dpk-ink'),
     p.dataset.width, p.querySelector('.dpk-canvas').clientWidth, Boolean(p.offsetParent)])
    .filter(([, ink, now, wide, width]) => ink !== now.trim() || Number(wide) !== width)"""
_SHOWN = """name => {
    const place = document.querySelector(`[data-panel="${name}"]`);
    const plots = [...place.querySelectorAll('.dpk-plot')].filter(p => p.offsetParent);
    return /Error/.test(place.innerText) || plots.length && plots.every(p => p.dataset.ink)
        || Boolean(place.querySelector('.jp-OutputArea .main-svg')) && !plots.length }"""
_NAMED = """names => jupyterapp.shell.currentWidget.content.widgets.forEach(
    (cell, i) => { cell.outputArea.node.dataset.panel = names[i] })"""


def test_the_gallery_has_every_panel_that_a_notebook_shows():
    have = {name.partition("-")[0] for name in gallery.cells()}
    assert gallery.shown_by_notebooks() <= have
    figures = {gallery.figure(*of)[-1] for of in gallery.FIGURES.values()}
    assert gallery.drawn_by_notebooks() == figures


@pytest.fixture(scope="module")
def names():
    asked = os.environ.get("DPKIT_PANELS", "").split()
    return [name for name in gallery.cells() if not asked or name in asked]


@pytest.fixture(scope="module")
def page(lab, browser, names):
    """One notebook with a cell for each panel, run."""
    cells = [gallery.cells()[name] for name in names]
    with lab.open(browser, cells, width=PAGE[0], height=PAGE[1]) as notebook:
        notebook.page.evaluate(_NAMED, names)
        for place, name in enumerate(names):
            show(notebook, place, name)
        notebook.assert_clean()
        yield notebook.page
    lab.use_theme("light")  # JupyterLab remembers what was chosen last


def show(notebook, place, name, tries=6):
    """Run one cell; again where a busy machine made anywidget miss its own time limit."""
    before = len(notebook.errors)
    notebook.run_cell(place)
    notebook.page.wait_for_function(_SHOWN, arg=name, timeout=120_000)
    late = [e for e in notebook.errors[before:] if "Failed to initialize model" in e]
    if late and tries > 1:
        del notebook.errors[before:]
        show(notebook, place, name, tries - 1)


def dress(page, look):
    """Theme and width of the page; waits until every plot has followed, without the kernel."""
    theme, width = LOOKS[look]
    title = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}[theme]
    page.set_viewport_size({"width": PAGE[0], "height": PAGE[1]})
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", title)
    across, now = PAGE[0], "() => document.querySelector('[data-panel]').clientWidth"
    while width and (over := page.evaluate(now) - width):
        across -= over
        page.set_viewport_size({"width": across, "height": PAGE[1]})
        page.wait_for_timeout(300)
    try:
        page.wait_for_function(_DRESSED, arg=theme == "dark", timeout=120_000)
    except PlaywrightTimeout as error:
        error.add_note(str(page.evaluate(_UNDRESSED)))
        raise


@pytest.mark.parametrize("look", LOOKS)
def test_every_panel_is_well_laid_out_and_accessible(page, names, look):
    dress(page, look)
    found = [fault for name in names for fault in faults(page, name, look)]
    found += layout.severe(page)
    assert not found, "\n".join(["", *map(str, found)])


def faults(page, name, look):
    """All that is wrong with a panel as it stands; its picture goes where DPKIT_SHOTS says."""
    css = f"[data-panel='{name}']"
    picture = page.locator(css).screenshot(animations="disabled")
    folder = os.environ.get("DPKIT_SHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.{look}.png").write_bytes(picture)
    return [*layout.measured(page, css, name), *layout.blank(page, css, name, picture)]


PLANTED = {
    "faint": "document.querySelector('.dpk-progress-part .dpk-label').style.color = '#bbb'",
    "overlap": "document.querySelector('.dpk-choice-part').style.marginTop = '-30px'",
    "clipped": "Object.assign(document.querySelector('.dpk-label').style, "
    "{overflow: 'hidden', width: '20px', whiteSpace: 'nowrap', flex: 'none'})",
    "cut off": "Object.assign(document.querySelector('.dpk-check-part').style, "
    "{overflow: 'hidden', width: '60px', whiteSpace: 'nowrap'});"
    "document.querySelector('.dpk-check-part .dpk-label').style.flex = 'none'",
    "broken word": "Object.assign(document.querySelector('.dpk-progress-part .dpk-label').style, "
    "{width: '30px', overflowWrap: 'anywhere', flex: 'none'})",
    "ragged": "document.querySelector('.dpk-entry').style.translate = '-20px'",
    "axe critical": "document.querySelector('.dpk-button').textContent = ''",
}
DRAWINGS = {
    "blank plot": "{'data': [], 'layout': {}}, ''",
    "blank": "{'data': [{'type': 'scatter', 'mode': 'lines', 'x': [1, 2], 'y': [1, 2], "
    "'line': {'color': 'rgba(0,0,0,0)'}}], 'layout': {}}, 'two'",
    "faint": "wave(2, xaxis={'tickfont': {'color': '#cccccc'}}), 'grey'",
    "untold": "{'data': [{'type': 'scatter', 'y': [1, 3, 2]}], 'layout': {}}, ''",
    "stray line": "wave(3, xaxis={'showticklabels': False, 'showline': True}), 'three'",
    "unlike": "{'data': [{'type': 'scatter', 'mode': 'markers', 'name': 'odd', 'x': [1, 2], "
    "'y': [1, 2], 'marker': {'symbol': 'hourglass'}}], 'layout': {'showlegend': True}}, 'odd'",
}


def test_the_checks_see_what_is_planted(lab, browser):
    lab.use_theme("light")
    with lab.open(browser, [START, ALL], width=PAGE[0], height=PAGE[1]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        notebook.page.evaluate(_NAMED, ["start", "planted"])
        assert not faults(notebook.page, "planted", "planted")
        for number, (kind, arguments) in enumerate(DRAWINGS.items(), start=2):
            notebook.kernel(f"plot.show({arguments})")
            notebook.page.wait_for_selector(f"[data-drawn='{number}']")
            found = [str(f) for f in faults(notebook.page, "planted", "planted")]
            assert any(kind in f for f in found), (kind, found)
        notebook.kernel("plot.show(wave(), 'two waves')")
        notebook.page.wait_for_selector(f"[data-drawn='{number + 1}']")
        for kind, script in PLANTED.items():
            assert kind not in {f.kind for f in everything(notebook.page)}
            notebook.page.evaluate(f"() => {{ {script} }}")
            found = everything(notebook.page)
            assert kind in {f.kind for f in found}, (kind, [str(f) for f in found])


def everything(page):
    return [*faults(page, "planted", "planted"), *layout.severe(page)]
