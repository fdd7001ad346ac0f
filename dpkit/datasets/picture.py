"""Pictures of records as plain Plotly JSON: image mosaic, points of the plane, class sizes."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpkit.datasets.raw import Array
from dpkit.words import say

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "x", "star")
MOST_POINTS = 1_000
_PRIVATE = "not private: these are the records themselves"
_GAP = 2

Figure = dict[str, Any]


def stretched(values: Array) -> Array:
    """Values in [0, 1]: as they are if they lie there, else their whole range mapped onto it."""
    low, high = values.min(initial=0.0), values.max(initial=1.0)
    # Undoing a scaling in float32 leaves 1.0000001: that is rounding, not a wider range.
    if low < -1e-3 or high > 1 + 1e-3:
        return (values - low) / (high - low)
    return np.clip(values, 0.0, 1.0)


def mosaic(rows: Sequence[Array], classes: Sequence[str], columns: int, title: str) -> Figure:
    """Images on a grid, one row for each class.

    *Shapes*: each row `(n, channels, height, width)` in [0, 1], n <= columns.
    """
    channels, height, width = rows[0].shape[1:]
    down, across = height + _GAP, width + _GAP
    sheet = np.ones((channels, len(rows) * down - _GAP, columns * across - _GAP), np.float32)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            sheet[:, i * down : i * down + height, j * across : j * across + width] = image
    trace = {"type": "image", "source": png(sheet), "hoverinfo": "skip"}
    layout = _layout(title, say("examples"), say("class"))
    layout["xaxis"] |= {"showticklabels": False, "showgrid": False, "constrain": "domain"}
    layout["yaxis"] |= {
        "tickvals": [i * down + height / 2 for i in range(len(rows))],
        "ticktext": list(classes[: len(rows)]),
        "showgrid": False,
        "constrain": "domain",
    }
    return {"data": [trace], "layout": layout}


def scatter(points: Array, targets: Array, classes: Sequence[str], title: str) -> Figure:
    """Points of the plane, told apart by colour and by symbol; at most `MOST_POINTS` are drawn."""
    traces = []
    for k, name in enumerate(classes):
        mine = points[targets == k]
        marker = {
            "color": OKABE_ITO[k % len(OKABE_ITO)],
            "symbol": SYMBOLS[k % len(SYMBOLS)],
            "size": 6,
            "line": {"width": 0.5, "color": "white"},
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": _list(mine[:, 0]),
                "y": _list(mine[:, 1]),
                "marker": marker,
                "hovertemplate": "%{x:.2f}, %{y:.2f}",
            }
        )
    layout = _layout(title, "first feature", "second feature")
    layout["yaxis"] |= {"scaleanchor": "x", "constrain": "domain"}
    return {"data": traces, "layout": layout}


def sizes(counts: Array, classes: Sequence[str], title: str) -> Figure:
    """How many records each class has, for records that are neither images nor points."""
    bars = {
        "type": "bar",
        "x": list(classes),
        "y": [int(count) for count in counts],
        "marker": {"color": OKABE_ITO[0]},
        "hovertemplate": say("%{x}: %{y} records<extra></extra>"),
    }
    layout = _layout(title, say("class"), say("training records"))
    layout["xaxis"] |= {"type": "category"}
    return {"data": [bars], "layout": layout}


def png(sheet: Array) -> str:
    """An image `(1 or 3, height, width)` in [0, 1] as a data address: compact in the page."""
    channels, height, width = sheet.shape
    levels = np.rint(255 * sheet).astype(np.uint8).transpose(1, 2, 0)
    # Each line begins with its filter, 0 for none.
    lines = np.zeros((height, 1 + width * channels), np.uint8)
    lines[:, 1:] = levels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    code = base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()
    return f"data:image/png;base64,{code}"


def _layout(title: str, x: str, y: str) -> Figure:
    return {
        "title": {"text": f"{title}<br><sub>{_PRIVATE}</sub>"},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}, "automargin": True},
        "margin": {"l": 60, "r": 20, "t": 70, "b": 50},
    }


def _list(values: Array) -> list[float]:
    return [round(float(value), 4) for value in values]
