"""Pictures of votes: from a gradient to a direction, the histogram, the budget, the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.figures.base import COLOURS, Figure, layout_of, note_at, numbers, rounded_up
from dpkit.figures.basics import INK, curve, rgba, upright
from dpkit.words import say

_DIVERGING = [[0.0, COLOURS[1]], [0.5, "#FFFFFF"], [1.0, COLOURS[0]]]
_INKED = [[0.0, "#FFFFFF"], [1.0, "#000000"]]
_LEVELS = 15


def _sheet(images: Sequence[NDArray], columns: int) -> tuple[NDArray, list[tuple[float, float]]]:
    """Square images on one sheet with gaps between, and the middle of each one's upper edge."""
    side = images[0].shape[0]
    step, rows = side + max(1, side // 6), -(-len(images) // columns)
    sheet = np.full((rows * step - step + side, columns * step - step + side), np.nan)
    places = []
    for number, image in enumerate(images):
        top, left = step * (number // columns), step * (number % columns)
        sheet[top : top + side, left : left + side] = image
        places.append((left + side / 2 - 0.5, float(top)))
    return sheet, places


def _bare(shape: tuple[int, ...], title: str = "", above: float = 0.0) -> Figure:
    """A layout without ticks, whose pixels are squares and whose first row is on top."""
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False, "ticks": ""}
    x = hidden | {"range": [-0.5, shape[1] - 0.5], "constrain": "domain"}
    y = hidden | {"range": [shape[0] - 0.5, -0.5 - above], "scaleanchor": "x",
                  "constrain": "domain"}  # fmt: skip
    return layout_of(title, "", x=x, y=y)


def chain(parts: Sequence[tuple[str, ArrayLike]], side: int) -> Figure:
    """What becomes of a gradient, step by step: images of one sign (blue) or the other (orange).

    *Shapes*: each part `(side * side,)`, shown relative to its own largest size.
    """
    images = [np.asarray(values, float).reshape(side, side) for _, values in parts]
    scaled = [image / max(np.abs(image).max(), 1e-12) for image in images]
    sheet, places = _sheet(scaled, len(parts))
    picture = {
        "type": "heatmap", "z": sheet, "zmin": -1, "zmax": 1, "colorscale": _DIVERGING,
        "showscale": False, "hoverinfo": "skip",
    }  # fmt: skip
    layout = _bare(sheet.shape, above=0.35 * side)
    notes = [
        note_at(x, y - 0.6, title, "center", "bottom")
        for (title, _), (x, y) in zip(parts, places, strict=True)
    ]
    frames = [_frame(x, y, side) for x, y in places]
    return {"data": [picture], "layout": layout | {"annotations": notes, "shapes": frames}}


def _frame(x: float, y: float, side: int) -> Figure:
    half = side / 2
    return {
        "type": "rect", "xref": "x", "yref": "y", "x0": x - half, "x1": x + half, "y0": y - 0.5,
        "y1": y + side - 0.5, "line": {"color": COLOURS[6], "width": 1},
    }  # fmt: skip


def histogram(noisy: ArrayLike, level: float, std: float, teachers: int) -> Figure:
    """Noisy sums of votes over all coordinates, the noise's own law, and the threshold."""
    values = np.asarray(noisy, float).ravel()
    reach = float(max(np.abs(values).max(initial=1.0), 1.15 * level, 3 * std))
    counts, edges = np.histogram(values, np.linspace(-reach, reach, 42))
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    colours = np.where(np.abs(middle) >= level, COLOURS[0], COLOURS[6])
    bars = {
        "type": "bar", "x": numbers(middle), "y": counts.tolist(), "width": float(width),
        "marker": {"color": colours.tolist()}, "showlegend": False,
        "hovertemplate": say("%{x:.3g} votes: %{y} coordinates<extra></extra>"),
    }  # fmt: skip
    x = np.linspace(-reach, reach, 121)
    density = len(values) * width * np.exp(-0.5 * (x / std) ** 2) / (std * np.sqrt(2 * np.pi))
    alone = curve(x, density, say("the noise alone"), COLOURS[1], dash="dash", hover="%{y:.1f}")
    most = 1.25 * max(float(counts.max(initial=1)), float(density.max()))
    layout = layout_of(
        say("noisy sum of votes on a coordinate"), say("coordinates"), y={"range": [0, most]}
    )
    lines = [upright(level), upright(-level)] if level else []
    words = say(" threshold: {level:.3g} of {teachers:,} teachers", level=level, teachers=teachers)
    notes = [note_at(level, most, words, "left" if level < reach / 3 else "right", "top")]
    layout |= {"shapes": lines, "annotations": notes if level else [], "showlegend": True}
    return {"data": [bars, alone], "layout": layout}


def spending(
    lines: Sequence[tuple[str, ArrayLike]], budget: float, done: int, affordable: int
) -> Figure:
    """Epsilon after each generator step: of disjoint shards, and of shards that overlap."""
    drawn = []
    for place, (name, values) in enumerate(lines):
        found = np.asarray(values, float)
        steps = np.arange(1, len(found) + 1)
        dash = ("solid", "dash", "dot")[place % 3]
        hover = say("%{x} steps: ε = %{customdata}")
        line = curve(steps, found, name, COLOURS[place], dash=dash, hover=hover)
        drawn.append(line | {"customdata": rounded_up(found)})
    top = 1.1 * max(budget, *(float(np.max(v, initial=0.0)) for _, v in lines))
    most = max(len(np.asarray(values)) for _, values in lines)
    layout = layout_of(
        say("generator steps"), "ε", x={"range": [0, 1.02 * most + 1]}, y={"range": [0, top]}
    )
    bar = {
        "type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": budget, "y1": budget,
        "line": {"color": INK, "width": 1.5, "dash": "dot"},
    }  # fmt: skip
    here = {
        "type": "rect", "xref": "x", "yref": "paper", "x0": 0, "x1": done, "y0": 0, "y1": 1,
        "fillcolor": rgba(COLOURS[0], 0.12), "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    words = say(" budget ε = {budget:.3g}: {steps:,} steps ", budget=budget, steps=affordable)
    notes = [note_at(0, budget, words, "left", "bottom")]
    return {
        "data": drawn,
        "layout": layout | {"shapes": [bar, here], "annotations": notes, "showlegend": True},
    }


def grid(images: Sequence[ArrayLike], side: int, columns: int = 10) -> Figure:
    """Generated images, a column for each class: 0 is paper, 1 is ink.

    *Shapes*: each image `(side * side,)`.
    """
    squares = [np.asarray(image, float).reshape(side, side).clip(0, 1) for image in images]
    sheet, _ = _sheet(squares, columns)
    picture = {
        "type": "heatmap", "z": sheet, "zmin": 0, "zmax": 1, "colorscale": _INKED,
        "showscale": False, "hoverinfo": "skip",
    }  # fmt: skip
    return {"data": [picture], "layout": _bare(sheet.shape, say("a column for each class"))}


def stored(images: Sequence[str]) -> Figure:
    """Images that are stored with one hexadecimal digit a pixel."""
    side = round(len(images[0]) ** 0.5)
    return grid([[int(digit, 16) / _LEVELS for digit in image] for image in images], side)


def worth(
    rows: Sequence[tuple[str, Sequence[float]]], marks: Sequence[tuple[str, float]]
) -> Figure:
    """Test accuracies of classifiers: a dot for each seed, and what others published as lines."""
    drawn, names = [], [name for name, _ in rows]
    for place, (name, values) in enumerate(rows):
        shares = [100 * value for value in values]
        y = len(rows) - place
        drawn.append({
            "type": "scatter", "mode": "markers", "x": numbers(shares), "y": [y] * len(shares),
            "marker": {"color": rgba(COLOURS[place % 6], 0.7), "size": 12},
            "hovertemplate": f"{name}: %{{x:.1f}}%<extra></extra>",
        })  # fmt: skip
    ends = [100 * v for _, values in rows for v in values] + [100 * v for _, v in marks]
    layout = layout_of(
        say("accuracy on real test records (%)"), "",
        x={"range": [min(ends) - 4, min(100, max(ends) + 3)]},
        y={"range": [0.3, len(rows) + 0.9], "tickvals": list(range(len(rows), 0, -1)),
           "ticktext": names, "zeroline": False},
    )  # fmt: skip
    lines = [upright(100 * value) for _, value in marks]
    notes = [note_at(100 * v, 1, f" {name} ", "left", "top", yref="paper") for name, v in marks]
    return {"data": drawn, "layout": layout | {"shapes": lines, "annotations": notes}}
