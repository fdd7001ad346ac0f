"""Pictures of pruning: the mask on the weights, kept energy, noise, overlap, what it buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.figures.base import COLOURS, DASHES, Figure, layout_of, note_at, numbers
from dpkit.figures.basics import INK, band, curve, rgba, upright
from dpkit.words import say

FROZEN = "#b5b5b5"
SCALE = [[0.0, COLOURS[1]], [0.5, "#ffffff"], [1.0, COLOURS[0]]]
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}
WHOLE = {"range": [0, 100], "zeroline": False, "ticksuffix": "%"}


def mask(weights: ArrayLike, kept: ArrayLike, side: int, columns: int = 8) -> Figure:
    """Weights of hidden units as small pictures, one for each; what is frozen is grey.

    *Shapes*: weights and kept (units, side * side).
    """
    values, inside = np.asarray(weights, float), np.asarray(kept, bool)
    top = float(np.abs(values).max()) or 1.0
    drawn = [_tiles(np.where(inside, np.nan, 0.0), side, columns),
             _tiles(np.where(inside, values, np.nan), side, columns)]  # fmt: skip
    grey: Figure = {
        "type": "heatmap", "z": drawn[0], "showscale": False, "hoverinfo": "skip",
        "colorscale": [[0, FROZEN], [1, FROZEN]],
    }  # fmt: skip
    colours: Figure = {
        "type": "heatmap", "z": drawn[1], "zmin": -top, "zmax": top, "colorscale": SCALE,
        "colorbar": {"title": {"text": say("weight")}, "thickness": 10},
        "hovertemplate": say("weight %{z:.3f}: may move<extra></extra>"),
    }  # fmt: skip
    layout = layout_of("", "")
    hidden = {"visible": False, "fixedrange": True}
    layout["xaxis"] = hidden | {"constrain": "domain"}
    layout["yaxis"] = hidden | {"autorange": "reversed", "scaleanchor": "x"}
    layout |= {"margin": {"l": 4, "r": 4, "t": 4, "b": 4}}
    return {"data": [grey, colours], "layout": layout}


def _tiles(values: NDArray[Any], side: int, columns: int) -> list[list[float | None]]:
    """Pictures in a grid, a line of nothing between two of them."""
    rows = -(-len(values) // columns)
    room = np.full((rows * (side + 1) - 1, columns * (side + 1) - 1), np.nan)
    for place, one in enumerate(values):
        y, x = (n * (side + 1) for n in divmod(place, columns))
        room[y : y + side, x : x + side] = one.reshape(side, side)
    return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in room]


def energy(lines: Mapping[str, tuple[ArrayLike, ArrayLike]], at: tuple[float, float]) -> Figure:
    """The share of a public gradient's energy that a support keeps, against the support's size."""
    drawn = [
        curve(100 * np.asarray(share), 100 * np.asarray(kept), name, COLOURS[place],
              dash=DASHES[place], hover=say("%{x:.0f}% of the weights keep %{y:.1f}%"))
        for place, (name, (share, kept)) in enumerate(lines.items())
    ]  # fmt: skip
    drawn.insert(0, curve([0, 100], [0, 100], say("no better than by lot"), COLOURS[6], dash="dot"))
    drawn.append(_marker(100 * at[0], 100 * at[1], say("the mask above")))
    layout = layout_of(say("kept weights |S| / D"), say("kept energy f"), x=WHOLE, y=WHOLE)
    return {"data": drawn, "layout": layout | {"showlegend": True, "legend": LEGEND}}


def noise(sigma: float, clip: float, size: int, share: float, scaled: bool) -> Figure:
    """The energy of a step's noise, sigma^2 C^2 |S|, against the support's size."""
    shares = np.linspace(0, 1, 41)
    plain = (sigma * clip) ** 2 * size * shares
    now = (sigma * clip) ** 2 * size * share * (share if scaled else 1.0)
    drawn = [
        curve(100 * shares, plain, say("C as it is"), COLOURS[0], hover="%{x:.0f}%: %{y:.4g}"),
        curve(100 * shares, plain * shares, "C √(|S|/D)", COLOURS[2], dash="dash",
              hover="%{x:.0f}%: %{y:.4g}"),
        _marker(100 * share, now, say("the mask above")),
    ]  # fmt: skip
    top = (sigma * clip) ** 2 * size * 1.05 or 1.0
    layout = layout_of(say("kept weights |S| / D"), say("noise energy σ²C²|S|"), x=WHOLE,
                       y={"range": [0, top], "zeroline": False})  # fmt: skip
    return {"data": drawn, "layout": layout | {"showlegend": True, "legend": LEGEND}}


def overlap(shares: ArrayLike, expected: float) -> Figure:
    """How much of a step's support was in the one before; dotted is what two lots share."""
    values = 100 * np.asarray(shares, float)
    steps = np.arange(2, len(values) + 2)
    line = curve(steps, values, say("kept from the step before"), COLOURS[0],
                 hover=say("step %{x}: %{y:.1f}%"))  # fmt: skip
    layout = layout_of(say("step"), say("of a step's support"),
                       x={"range": [1.5, len(values) + 1.5]},
                       y=WHOLE | {"range": [0, 104]})  # fmt: skip
    chance = curve([1.5, len(values) + 1.5], [100 * expected] * 2, say("two lots"), COLOURS[6],
                   dash="dot")  # fmt: skip
    layout |= {"showlegend": True, "legend": LEGEND}
    return {"data": [chance, line | {"mode": "lines+markers"}], "layout": layout}


def against_ratio(
    lines: Mapping[str, Sequence[tuple[float, Sequence[float]]]], ratio: float | None = None
) -> Figure:
    """Test accuracy against the share that is frozen: mean over seeds, with its own spread.

    Each line holds (ratio, one accuracy for each seed).
    """
    drawn: list[Figure] = []
    for place, (name, points) in enumerate(lines.items()):
        x = [100 * p for p, _ in points]
        means = [100 * float(np.mean(values)) for _, values in points]
        spread = [100 * float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for _, v in points]
        low, high = (np.array(means) + sign * np.array(spread) for sign in (-1, 1))
        drawn += band(x, low, high, "", rgba(COLOURS[place], 0.15))
        line = curve(
            x, means, name, COLOURS[place], dash=DASHES[place], hover="%{x:.0f}%: %{y:.2f}%"
        )
        drawn.append(line | {"mode": "lines+markers"})
    layout = layout_of(say("frozen weights (%)"), say("test accuracy (%)"), x={"range": [-3, 97]},
                       y={"zeroline": False})  # fmt: skip
    shapes = [] if ratio is None else [upright(100 * ratio)]
    layout |= {"showlegend": True, "legend": LEGEND, "shapes": shapes}
    return {"data": drawn, "layout": layout}


def differences(rows: Mapping[str, Mapping[str, Any]], what: str) -> Figure:
    """Paired differences in points: a dot for the mean, a bar for the 95% interval."""
    drawn: list[Figure] = []
    for place, row in enumerate(rows.values()):
        y, (low, high) = len(rows) - place, (100 * end for end in row["interval"])
        clear = low > 0 or high < 0
        drawn.append({
            "type": "scatter", "mode": "lines", "x": numbers([low, high]), "y": [y, y],
            "line": {"color": COLOURS[0] if clear else COLOURS[6], "width": 3}, "hoverinfo": "skip",
        })  # fmt: skip
        drawn.append({
            "type": "scatter", "mode": "markers", "x": numbers([100 * row["mean"]]), "y": [y],
            "marker": {"color": COLOURS[0] if clear else COLOURS[6], "size": 9},
            "hovertemplate": say(
                "%{{x:+.2f}} points, 95% within {low:+.2f} to {high:+.2f}<extra></extra>", low=low,
                high=high
            ),
        })  # fmt: skip
    ends = [100 * end for row in rows.values() for end in row["interval"]] + [0.0]
    room = 0.05 * (max(ends) - min(ends))
    reach = {"range": numbers([min(ends) - room, max(ends) + room]), "zeroline": False}
    layout = layout_of(what, "", x=reach, y={
        "range": [0.4, len(rows) + 0.6], "tickvals": list(range(len(rows), 0, -1)),
        "ticktext": list(rows), "zeroline": False,
    })  # fmt: skip
    layout["shapes"] = [upright(0.0)]
    layout["annotations"] = [note_at(0, 1, say(" no difference"), "left", "bottom", yref="paper")]
    layout["margin"] = layout["margin"] | {"t": 22}
    return {"data": drawn, "layout": layout}


def _marker(x: float, y: float, name: str) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": numbers([x]), "y": numbers([y]),
        "marker": {"size": 12, "color": COLOURS[4], "line": {"color": INK, "width": 1}},
        "hovertemplate": f"{name}: %{{y:.4g}}<extra></extra>",
    }  # fmt: skip
