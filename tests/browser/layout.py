"""What a designer would not sign, by measuring: overlap, clipping, blank plots, faint text."""

from __future__ import annotations

import importlib.resources
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).with_name("layout.js").read_text()
BLANK = 0.0008
"""A plot whose marks cover a smaller share of its box shows nothing: a thin line covers 0.004."""
SEVERE = ("serious", "critical")
_FIGURES = """css => {
    const root = document.querySelector(css), rim = root.getBoundingClientRect();
    const drawn = p => p.offsetParent && p.querySelector('.dpk-wait').hidden;
    return [...root.querySelectorAll('.dpk-plot')].filter(drawn).map(p => {
        const areas = [...p.querySelectorAll('.nsewdrag')];
        const boxes = (areas.length ? areas : [p.querySelector('.dpk-figure')])
            .map(area => area.getBoundingClientRect());
        const least = key => Math.min(...boxes.map(box => box[key])) + 2;
        const most = key => Math.max(...boxes.map(box => box[key])) - 2;
        return [p.dataset.title, [least('left') - rim.left, least('top') - rim.top,
                                  most('right') - rim.left, most('bottom') - rim.top]] }) }"""


@dataclass(frozen=True)
class Fault:
    """Something on the page that must not be: where, what."""

    panel: str
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.panel}: {self.kind}: {self.what}"


def measured(page: Any, css: str, panel: str) -> list[Fault]:
    """Faults of boxes and text inside the element at `css`."""
    page.evaluate(f"{SCRIPT}\nvoid 0")  # else Playwright would call the function
    found = page.evaluate("css => dpkitLayout(document.querySelector(css))", css)
    return [Fault(panel, kind, what) for kind, what in found]


def blank(page: Any, css: str, panel: str, picture: bytes) -> list[Fault]:
    """Plots in the element at `css`, pictured here, with next to nothing inside the axes."""
    boxes = page.evaluate(_FIGURES, css)
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    shares = {title: inked(whole.crop([round(side) for side in box])) for title, box in boxes}
    return [
        Fault(panel, "blank plot", f"{title}: {share:.2%} of it is inked")
        for title, share in shares.items()
        if share < BLANK
    ]


def inked(picture: Image.Image) -> float:
    """The share of a picture that stands out from its commonest colours, paper and grid."""
    pixels = np.asarray(picture).astype(int)
    rows = pixels.reshape(-1, 3)
    keys, counts = np.unique(rows @ (1, 256, 65536), return_counts=True)
    paper = keys[counts.argmax()]
    distance = np.abs(rows - [paper % 256, paper // 256 % 256, paper // 65536]).max(axis=1)
    return float((distance > 48).mean())


def severe(page: Any) -> list[Fault]:
    """What axe-core calls serious or critical in any panel; one run, as it reads the whole page."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(axe())
    found = page.evaluate(
        """async () => {
            const include = [...document.querySelectorAll('[data-panel]')];
            const run = await axe.run({include}, {resultTypes: ['violations'], elementRef: true});
            return run.violations.flatMap(v => v.nodes.map(n =>
                [n.element.closest('[data-panel]').dataset.panel, v.impact, v.id,
                 n.html.slice(0, 140), n.any[0]?.message ?? ''])) }"""
    )
    return [
        Fault(panel, f"axe {impact}", f"{rule}: {html} {message}")
        for panel, impact, rule, html, message in found
        if impact in SEVERE
    ]


def axe() -> str:
    """The script of axe-core, as its package carries it."""
    return (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
