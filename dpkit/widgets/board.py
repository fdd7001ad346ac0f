"""A board: parts in their places, shown in a page by one script, however many they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Union

import anywidget
import ipywidgets
import traitlets

from dpkit.words import marked, say

_HERE = Path(__file__).parent


def _script() -> str:
    """One module of all scripts: each keeps its names to itself and hands out its renderer."""

    def closed(name: str, *files: str) -> str:
        text = "\n".join((_HERE / file).read_text("utf-8") for file in files)
        return f"const {name} = (() => {{\n{text.replace('export default', 'return')}\n}})();"

    parts = [(_HERE / "page.js").read_text("utf-8")]
    parts += [closed("CONTROLS", "numbers.js", "controls.js")]
    parts += [closed("PLOT", "arrays.js", "figure.js", "drawing.js", "tools.js", "plot.js")]
    return "\n".join([*parts, (_HERE / "board.js").read_text("utf-8")])


class Part(ipywidgets.Widget):
    """Something that a board can show; by itself it is displayed on a board of its own.

    A part is a plain model of the widget base. anywidget gives a model with a script two seconds
    to start, and one that misses them makes every widget of the notebook fail: thirty of them on
    a busy machine do. So there is one script for a whole panel.
    """

    part = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Bool(True).tag(sync=True)

    def close(self) -> None:
        """Remove the part from every page and free what it held; twice is harmless."""
        if self.comm is not None:
            self.unobserve_all()
            super().close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return Board([self])._repr_mimebundle_(**options)


WORDS = marked(
    {
        "number": "{label} needs a number; “{value}” was not used.",
        "whole": "{label} needs a whole number; {value} was not used.",
        "range": "{label} must lie between {low} and {high}; {value} was not used.",
        "value_of": "{label}, value",
        "done": "{percent} %",
        "info": "",
        "warning": "Warning:",
        "error": "Error:",
    }
)


class Control(Part):
    """What all controls share: a label, help, a sentence of trouble, and a state that arrives.

    *Guarantee*: a page that (re)appears reports the state it has, and is sent what differs.
    """

    _live: ClassVar[tuple[str, ...]] = ("value", "disabled", "problem", "shown")

    label = traitlets.Unicode().tag(sync=True)
    help = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    disabled = traitlets.Bool().tag(sync=True)
    words = traitlets.Dict().tag(sync=True)
    live = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        """Set the traits in one go and listen to the page."""
        self._guard = threading.RLock()
        words = {key: say(text) for key, text in WORDS.items()}
        part = type(self).__name__.lower()
        super().__init__(part=part, live=list(self._live), words=words, **traits)
        self.on_msg(self._heard)

    def close(self) -> None:
        """Remove the control from every page; twice is harmless."""
        if self.comm is not None:
            self.on_msg(self._heard, remove=True)
        super().close()

    def _heard(self, _: Any, content: Any, buffers: Any) -> None:
        """Compare what the page has with what it should have; updates may have been lost."""
        have = content.get("have") if isinstance(content, dict) else None
        if isinstance(have, dict):
            now = json.loads(json.dumps(self.get_state(list(self._live))))
            missed = [key for key in self._live if have.get(key) != now[key]]
            if missed:
                self.send_state(missed)


class Box:
    """Parts or boxes side by side, one below the other or on a grid, by its CSS class."""

    def __init__(self, children: Sequence[Piece], name: str = "dpk-column") -> None:
        """Name the class; theme.css has dpk-row-box, dpk-column and dpk-grid."""
        self.children, self.name = list(children), name


Piece = Union[Part, Box]  # noqa: UP007 - Part | Box is not known yet where Box is defined


class Board(anywidget.AnyWidget):
    """A panel: a tree of boxes with parts as leaves, styled by `theme.css`.

    *Guarantee*
    - a part that the page cannot show is told in its place, and the others are shown.
    """

    _esm = _script()
    _css = _HERE / "theme.css"
    parts = traitlets.List(traitlets.Instance(ipywidgets.Widget)).tag(
        sync=True, **ipywidgets.widget_serialization
    )
    tree = traitlets.Dict().tag(sync=True)

    def __init__(self, children: Sequence[Piece], name: str = "dpk-column") -> None:
        """Lay out the children in a box of the given CSS class."""
        found: list[Part] = []
        tree = _planted(Box(children, name), found)
        super().__init__(parts=found, tree=tree)

    def close(self) -> None:
        """Remove the board and every part on it; twice is harmless."""
        if self.comm is not None:
            for part in self.parts:
                part.close()
            layout = self.layout
            super().close()
            layout.close()


def _planted(piece: Piece, found: list[Part]) -> Any:
    """The tree as JSON: boxes by class and children, parts by their place in `found`."""
    if isinstance(piece, Box):
        return {"name": piece.name, "children": [_planted(c, found) for c in piece.children]}
    found.append(piece)
    return len(found) - 1
