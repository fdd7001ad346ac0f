"""Pictures of a step and of a model: gradient norms, decision regions, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.figures.base import COLOURS, Figure, layout_of, note_at, note_in_middle, numbers
from dpkit.words import say


def norms(values: ArrayLike, max_grad_norm: float) -> Figure:
    """Histogram of per-example gradient norms with the clip line; not private."""
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found) & (found > 0)]
    if not len(found):
        hidden = {"showticklabels": False, "range": [0, 1]}
        empty = layout_of(say("gradient norm of a record"), say("records"), x=hidden, y=hidden)
        return {
            "data": [],
            "layout": empty | {"annotations": [note_in_middle(say("no records yet"))]},
        }
    low = min(found.min(), max_grad_norm) / 1.5
    high = max(found.max(), max_grad_norm) * 1.5
    edges = np.geomspace(low, high, 33)
    # An edge on the clip norm, so that no bar holds clipped and unclipped records.
    edges[np.abs(np.log(edges / max_grad_norm)).argmin()] = max_grad_norm
    counts, edges = np.histogram(found, np.unique(edges))
    middle = np.sqrt(edges[1:] * edges[:-1])
    share = float((found > max_grad_norm).mean())
    colours = np.where(middle > max_grad_norm, COLOURS[1], COLOURS[0])
    bars = {
        "type": "bar", "x": numbers(middle), "y": counts.tolist(), "width": numbers(np.diff(edges)),
        "marker": {"color": colours.tolist()},
        "hovertemplate": say("norm %{x:.3g}: %{y} records<extra></extra>"),
    }  # fmt: skip
    line = {
        "type": "line", "xref": "x", "yref": "paper", "x0": max_grad_norm, "x1": max_grad_norm,
        "y0": 0, "y1": 1, "line": {"color": "#000000", "width": 2, "dash": "dash"},
    }  # fmt: skip
    words = say(" C = {clip:.3g}: {share:.0%} clipped ", clip=max_grad_norm, share=share)
    side = "left" if max_grad_norm**2 < low * high else "right"
    note = note_at(np.log10(max_grad_norm), 1.0, words, side, "top", yref="paper")
    x = {"type": "log", "dtick": 1, "range": [float(np.log10(low)), float(np.log10(high))]}
    y = {"range": [0, 1.2 * max(counts.max(), 4)], "rangemode": "tozero"}
    layout = layout_of(say("gradient norm of a record"), say("records"), x=x, y=y)
    return {"data": [bars], "layout": layout | {"shapes": [line], "annotations": [note]}}


def boundary(
    inputs: ArrayLike, targets: ArrayLike, grid: NDArray[Any], extent: tuple[float, ...]
) -> Figure:
    """A 2-D data set's test points over the class that the model gives to each place.

    *Shapes* inputs `(N, 2)`, targets `(N,)`, grid `(rows, columns)` of class indices over
    `extent` = (x low, x high, y low, y high).
    """
    points, labels = np.asarray(inputs)[:600], np.asarray(targets)[:600]
    classes = int(max(labels.max(initial=0), grid.max(initial=0))) + 1
    bands = [[[i / classes, COLOURS[i % 7]], [(i + 1) / classes, COLOURS[i % 7]]]
             for i in range(classes)]  # fmt: skip
    x, y = (np.linspace(extent[i], extent[i + 1], grid.shape[1 - i // 2]) for i in (0, 2))
    area = {
        "type": "heatmap", "x": numbers(x), "y": numbers(y), "z": grid.astype(np.int8),
        "zmin": -0.5, "zmax": classes - 0.5, "showscale": False, "hoverinfo": "skip",
        "opacity": 0.3, "colorscale": [stop for band in bands for stop in band],
    }  # fmt: skip
    symbols = ("circle", "diamond", "square", "cross", "triangle-up", "x", "star")
    dots = [
        {
            "type": "scatter", "mode": "markers", "name": say("class {number}", number=k),
            "x": numbers(points[labels == k, 0]), "y": numbers(points[labels == k, 1]),
            "marker": {"color": COLOURS[k % 7], "symbol": symbols[k % 7], "size": 5,
                       "line": {"width": 0.5, "color": "white"}},
            "hovertemplate": say("class {number}<extra></extra>", number=k),
        }
        for k in range(classes)
    ]  # fmt: skip
    layout = layout_of(say("first feature"), say("second feature"), y={"zeroline": False})
    layout["xaxis"] |= {"range": list(extent[:2]), "zeroline": False}
    layout["yaxis"] |= {"range": list(extent[2:])}
    return {"data": [area, *dots], "layout": layout}


def predictions(
    images: NDArray[Any], labels: Sequence[str], guesses: Sequence[str], sure: Sequence[float]
) -> Figure:
    """Test images with what the model says of each; a wrong guess carries a cross and the truth.

    *Shapes* images `(n, height, width)`, dark where the value is high.
    """
    count, height, width = images.shape
    columns = min(count, 4)
    rows = -(-count // columns)
    gap_x, gap_y = max(2, width // 2), max(4, height // 2)
    sheet = np.full((rows * (height + gap_y), columns * (width + gap_x)), np.nan)
    notes = []
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap_y), (i % columns) * (width + gap_x)
        sheet[top : top + height, left : left + width] = image / max(image.max(), 1e-9)
        right = guesses[i] == labels[i]
        text = (
            f"{guesses[i]} {sure[i]:.0%}"
            if right
            else say("✗ {guess}, is {truth}", guess=guesses[i], truth=labels[i])
        )
        note = note_at(left + width / 2, top + height, text, "center", "top")
        note["font"] = {"size": 11, "color": COLOURS[2] if right else COLOURS[1]}
        notes.append(note)
    picture = {
        "type": "heatmap", "z": sheet.astype(np.float32), "showscale": False, "hoverinfo": "skip",
        "colorscale": [[0, "#f2f2f2"], [1, "#222222"]], "zmin": 0, "zmax": 1,
    }  # fmt: skip
    layout = layout_of("", "")
    hidden = {"visible": False, "fixedrange": True}
    layout["xaxis"] = hidden | {"constrain": "domain"}
    layout["yaxis"] = hidden | {"autorange": "reversed", "scaleanchor": "x", "constrain": "domain"}
    layout["margin"] = {"l": 4, "r": 4, "t": 4, "b": 4}
    return {"data": [picture], "layout": layout | {"annotations": notes}}
