"""A reader of the explorer in JupyterLab: each gesture, and the time until its picture is there."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

PLANE = "[data-title^='Accuracy against']"
_STOPWATCH = """([css, kind]) => {
    const plot = document.querySelector(css), hovers = kind === 'mousemove';
    const state = () => hovers ? plot.querySelector('.hoverlayer')?.innerHTML : plot.dataset.drawn;
    const old = state();
    let start = null;
    window.__took = null;
    document.addEventListener(kind, () => { start ??= performance.now() }, {capture: true});
    const eye = new MutationObserver(() => {
        if (start === null || !state() || state() === old) return;
        eye.disconnect();
        // the next frame shows it, and what follows that frame comes after the picture
        requestAnimationFrame(() => setTimeout(() => { window.__took = performance.now() - start }))
    });
    eye.observe(plot, {subtree: true, childList: true, attributes: true, characterData: true}) }"""
_DOT = """([css, place]) => {
    const plot = document.querySelector(`${css} .js-plotly-plot`), {x, y} = plot.data[0];
    const box = plot.querySelector('.nsewdrag').getBoundingClientRect();
    const {xaxis, yaxis} = plot._fullLayout;
    return [box.left + xaxis.d2p(x[place]), box.top + yaxis.d2p(y[place])] }"""


@contextlib.contextmanager
def opened(cell: str) -> Iterator[Any]:
    """A notebook with this cell, run, its plane drawn and everything come to rest."""
    from harness import Lab, launch
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play, Lab() as lab:
        chromium = launch(play)
        with lab.open(chromium, [cell], height=1500) as notebook:
            notebook.run_all()
            notebook.page.wait_for_selector(f"{PLANE}[data-drawn]")
            notebook.page.wait_for_timeout(3000)
            yield notebook
            notebook.assert_clean()
        chromium.close()


def hand(notebook: Any) -> Iterator[tuple[str, str, Callable[[int], object]]]:
    """What a reader does: its name, the kind of event that begins it, and how it is made."""
    page = notebook.page
    select = {label: notebook.control(label, "select")
              for label in ("Colour by", "Show only where", "it is")}  # fmt: skip
    walk = notebook.control("Run on the frontier", "input[type=range]")

    def dot(number: int) -> list[float]:
        return page.evaluate(_DOT, [PLANE, number * 997 % 5000])

    yield "colour by a knob", "change", lambda n: select["Colour by"].select_option(index=1 + n % 3)
    yield "move along the frontier", "keydown", lambda n: walk.press(
        "ArrowRight" if n % 20 < 10 else "ArrowLeft")  # fmt: skip
    yield "select a dot", "pointerdown", lambda n: page.mouse.click(*dot(n))
    yield "hover over a dot", "mousemove", lambda n: page.mouse.move(*dot(n))
    select["Show only where"].select_option(index=2)
    notebook.until_kernel("len(panel.controls['value'].options) == 6")
    page.wait_for_timeout(1000)
    yield "filter by a value", "change", lambda n: select["it is"].select_option(index=1 + n % 5)


def seen(page: Any, kind: str, act: Callable[[int], object], rounds: int) -> dict[str, float]:
    """Median and 95th percentile; every time, the picture has to be another one."""
    found, before = [], b""
    for number in range(rounds + 2):
        page.evaluate(_STOPWATCH, [PLANE, kind])
        act(number)
        page.wait_for_function("() => window.__took > 0")
        found.append(page.evaluate("() => window.__took"))
        page.wait_for_timeout(700)
        picture = page.locator(PLANE).screenshot()
        assert picture != before, f"{kind}: the same picture"
        before = picture
    return percentiles(found)


def percentiles(found: list[float]) -> dict[str, float]:
    """Median and 95th percentile of all but the first two."""
    half, most = map(float, np.percentile(found[2:], (50, 95)))
    return {"median": round(half, 1), "95th percentile": round(most, 1), "count": len(found) - 2}
