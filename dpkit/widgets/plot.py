"""A live plot for notebooks: hand it a plain Plotly dict, the page shows its present state."""

from __future__ import annotations

import gzip
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import ipywidgets
import numpy as np
import traitlets

from dpkit.widgets.board import Part
from dpkit.words import marked, say

_BINARY_FROM = 32
_PLAIN = (str, int, bool)
_lock = threading.Lock()

WORDS = marked(
    {
        "drawing": "Drawing…",
        "failed": "The plot could not be drawn: {reason}",
        "tools": "{title}: view and save",
        "zoom_in": "Zoom in",
        "zoom_out": "Zoom out",
        "reset": "Reset view",
        "table": "Show the numbers",
        "png": "Save as PNG",
        "svg": "Save as SVG",
        "legend": "Show or hide",
        "plot": "Plot",
    }
)


class PlotlyBundle(ipywidgets.Widget):
    """plotly.js, gzipped, sent to a page once and shared by all its plots.

    *Guarantee*: a plain model of the widget base, so the page has no script of it to initialise.
    """

    gz = traitlets.Bytes().tag(sync=True)
    version = traitlets.Unicode().tag(sync=True)

    @staticmethod
    def shared() -> PlotlyBundle:
        """The one bundle of this kernel, made anew only if somebody closed it."""
        with _lock:
            if _shared and _shared[0].comm is not None:
                return _shared[0]
            code, version = _plotly_js()
            _shared[:] = [PlotlyBundle(gz=code, version=version)]
            return _shared[0]


_shared: list[PlotlyBundle] = []


class LivePlot(Part):
    """One Plotly figure that follows `show`, is themed by the page and survives a reload.

    *Guarantee*
    - the synced state is the present figure, so a page that comes (back) draws the present data;
    - an update that a page missed is sent again when that page reports what it drew;
    - a page draws only the latest figure, however fast they come.

    A trace whose `meta` is "handles" has dots that are dragged up and down, one of "choices" has
    dots that are clicked; `on_point` tells. The dots of one of "marks" are rings over all others,
    which move without these being drawn again.

    `figure` is `{"data": [...], "layout": {...}}` in Plotly's JSON; numpy arrays may stand for
    lists, NaN leaves a gap. `summary` says in words what the plot shows, for screen readers.
    """

    title = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int(280, min=80).tag(sync=True)
    bundle = traitlets.Instance(PlotlyBundle).tag(sync=True, **ipywidgets.widget_serialization)
    words = traitlets.Dict().tag(sync=True)
    _state = traitlets.Dict().tag(sync=True)

    def __init__(self, height: int = 280, title: str = "", summary: str = "") -> None:
        """Make an empty plot of a fixed height (px) that fills the width it is given."""
        self._guard = threading.RLock()
        self._listeners: list[Callable[[int, float | None], object]] = []
        self._figure: dict[str, Any] = {"data": [], "layout": {}}
        self.drawn, self._said = 0, summary
        self.error: str | None = None
        state = {"revision": 0, "summary": summary, "data": [], "layout": {}}
        bundle, words = PlotlyBundle.shared(), {key: say(text) for key, text in WORDS.items()}
        super().__init__(
            part="plot", height=height, title=title, bundle=bundle, words=words, _state=state
        )
        self.on_msg(self._heard)

    @classmethod
    def of(
        cls, figure: Mapping[str, Any], title: str, summary: str = "", *, height: int = 280
    ) -> LivePlot:
        """A plot that shows this figure."""
        plot = cls(height=height, title=title)
        plot.show(figure, summary)
        return plot

    @property
    def figure(self) -> dict[str, Any]:
        """The figure that was shown last, as it was given."""
        return self._figure

    @property
    def summary(self) -> str:
        """What the plot shows, in words."""
        return str(self._state["summary"])

    @property
    def revision(self) -> int:
        """How many different figures were shown; `drawn` is the last that a page reported."""
        return int(self._state["revision"])

    def show(self, figure: Mapping[str, Any], summary: str | None = None) -> bool:
        """Replace the figure from any thread; returns whether anything was new and sent."""
        data = _wire(figure.get("data", []), binary=True)
        layout = _wire(figure.get("layout", {}), binary=False)
        with self._guard:
            self._said = self._said if summary is None else summary
            words = self._said or _told(figure)
            new = {"summary": words, "layout": layout, "data": data}
            self._figure = dict(figure)
            if all(self._state[key] == value for key, value in new.items()):
                return False
            self._state = {"revision": self.revision + 1, **new}
            return True

    def on_point(self, callback: Callable[[int, float | None], object]) -> None:
        """Call `callback(place, y)` while a handle is dragged, `callback(place, None)` at a choice.

        `place` counts the dots of the trace; `y` is a height in axis units, which may lie beyond
        what the axis shows.
        """
        self._listeners.append(callback)

    def check(self) -> None:
        """Raise if a page reported that it could not draw this plot."""
        if self.error is not None:
            raise RuntimeError(f"The page could not draw {self.title or 'a plot'}: {self.error}")

    def close(self) -> None:
        """Remove the plot from every page; twice is harmless."""
        self._listeners = []
        if self.comm is not None:
            self.on_msg(self._heard, remove=True)
        super().close()

    def _heard(self, _: Any, content: Any, buffers: Any) -> None:
        """A page says what it drew: remember it, and send again what that page cannot have."""
        if not isinstance(content, dict):
            return
        if "failed" in content:
            self.error = str(content["failed"])
        moved = content.get("moved", [content.get("chosen"), None])
        if isinstance(moved, list) and len(moved) == 2 and isinstance(moved[0], int):
            place, height = moved[0], moved[1]
            for callback in self._listeners:
                callback(place, None if height is None else float(height))
        if "drawn" in content:
            with self._guard:
                self.drawn = int(content["drawn"])
                if content.get("settled") and self.drawn != self.revision:
                    self.send_state("_state")


def _told(figure: Mapping[str, Any]) -> str:
    """What can be said of a figure that came without words: where its lines begin and end."""
    said = []
    for trace in figure.get("data", []):
        y = trace.get("y") if trace.get("name") else None
        if y is not None and len(y) and all(isinstance(v, int | float | np.number) for v in y):
            said.append(
                say("{name} from {first:.4g} to {last:.4g}", name=trace["name"],
                    first=float(y[0]), last=float(y[-1]))
            )  # fmt: skip
    notes = [str(note.get("text", "")) for note in figure.get("layout", {}).get("annotations", [])]
    return "; ".join(said or notes)


@cache
def _plotly_js() -> tuple[bytes, str]:
    """plotly's JavaScript, gzipped, and its version; half a second, once for each kernel."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    return gzip.compress(get_plotlyjs().encode(), compresslevel=6, mtime=0), get_plotlyjs_version()


def _wire(value: Any, *, binary: bool) -> Any:
    """A snapshot that the widget protocol can carry: arrays as bytes, NaN and infinity as null."""
    if value is None or type(value) in _PLAIN:  # most values by far
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _wire(item, binary=binary) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _array(value) if binary else _wire(value.tolist(), binary=False)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        packed = _array_of_list(value) if binary and len(value) >= _BINARY_FROM else None
        return packed or [_wire(item, binary=binary) for item in value]
    if isinstance(value, np.generic):
        return _wire(value.item(), binary=binary)
    return value


def _array_of_list(values: Sequence[Any]) -> dict[str, Any] | None:
    """The packed form of a long list of plain numbers, None for any other list."""
    kinds = {*map(type, values)}
    if bool in kinds or not all(issubclass(kind, int | float) for kind in kinds):
        return None
    return _array(np.asarray(values, dtype=float))


def _array(array: np.ndarray) -> dict[str, Any]:
    """Bytes, dtype and shape of an array; images and surfaces travel in single precision."""
    if array.dtype.kind not in "fiu" or array.ndim == 0:
        return {"list": _wire(array.tolist(), binary=False)}
    if array.ndim > 1 or array.dtype == np.float16:
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        small = array.size == 0 or (abs(array.min()) < 2**31 and abs(array.max()) < 2**31)
        array = array.astype(np.int32 if small else np.float64)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    name = f"{array.dtype.kind}{array.dtype.itemsize}"
    return {"dtype": name, "shape": list(array.shape), "bytes": array.tobytes()}
