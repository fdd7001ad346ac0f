"""Pictures of batches: who is in which step, what each scheme costs, how much an epoch leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.figures.base import COLOURS, Figure, layout_of, log_axis, note_at, numbers
from dpkit.figures.basics import INK, WITH, WITHOUT, curve, rgba, upright
from dpkit.plan import round_down, round_up
from dpkit.words import say


def raster(seen: NDArray[np.bool_], epoch: int, followed: int) -> Figure:
    """Records against steps: a dark cell is a record in a batch; one record in another colour.

    *Shapes* `seen` is `(records, steps)`; a line stands after every `epoch` steps.
    """
    cells = seen.astype(int)
    cells[followed] *= 2
    scale = [[0, "rgba(128,128,128,0.08)"], [0.5, COLOURS[0]], [1, COLOURS[1]]]
    grid: Figure = {
        "type": "heatmap", "z": cells.tolist(), "zmin": 0, "zmax": 2, "colorscale": scale,
        "showscale": False, "xgap": 1, "ygap": 1, "hoverinfo": "x+y",
        "x0": 1, "dx": 1, "y0": 1, "dy": 1,
    }  # fmt: skip
    steps = seen.shape[1]
    layout = layout_of(
        say("step"), say("record"),
        x={"range": [0.5, steps + 0.5], "zeroline": False, "showgrid": False},
        y={"range": [len(seen) + 0.5, 0.5], "zeroline": False, "showgrid": False},
    )  # fmt: skip
    lines = [upright(end + 0.5) for end in range(epoch, steps, epoch)]
    return {"data": [grid], "layout": layout | {"shapes": lines}}


def sizes(seen: NDArray[np.bool_], epoch: int) -> Figure:
    """How many records each batch holds."""
    counts = seen.sum(axis=0)
    bars = _bars(1 + np.arange(len(counts)), counts, say("step %{x}: %{y} records"), COLOURS[0])
    layout = layout_of(say("step"), say("records in the batch"))
    layout["yaxis"] |= {"range": [0, max(1.25 * float(counts.max()), 4)]}
    lines = [upright(end + 0.5) for end in range(epoch, len(counts), epoch)]
    return {"data": [bars], "layout": layout | {"shapes": lines}}


def participations(shares: ArrayLike) -> Figure:
    """How often a record is seen in an epoch: the share that is seen 0, 1, 2, ... times."""
    values = 100 * np.asarray(shares, float)
    bars = _bars(np.arange(len(values)), values, say("seen %{x} times: %{y:.1f}%"), COLOURS[2])
    layout = layout_of(say("times a record is seen in an epoch"), say("share of records (%)"))
    layout["xaxis"] |= {"dtick": 1}
    layout["yaxis"] |= {"range": [0, 105]}
    return {"data": [bars], "layout": layout}


def _bars(x: ArrayLike, y: ArrayLike, hover: str, colour: str) -> Figure:
    marker: dict[str, Any] = {"color": rgba(colour, 0.75), "line": {"width": 0}}
    return {
        "type": "bar", "x": numbers(x), "y": numbers(y), "marker": marker,
        "hovertemplate": f"{hover}<extra></extra>",
    }  # fmt: skip


@dataclass(frozen=True)
class Band:
    """What is known of one scheme's epsilon; `claimed` is a number that others print for it."""

    name: str
    low: float
    high: float
    claimed: float | None = None


def bands(rows: Sequence[Band], reach: tuple[float, float]) -> Figure:
    """Each scheme's epsilon as a bar from its lower to its upper side, on a logarithmic axis."""
    drawn: list[Figure] = []
    notes: list[Figure] = []
    for place, row in enumerate(rows):
        colour, y = COLOURS[place], len(rows) - place
        ends = [max(row.low, 1e-6), row.high]
        wide = {"color": colour, "width": 14}
        known = row.low > 0.98 * row.high
        sign = {"size": 14, "symbol": "diamond" if known else "line-ns-open", "color": colour}
        drawn.append({
            "type": "scatter", "mode": "lines+markers", "x": numbers(ends), "y": [y, y],
            "line": wide, "marker": sign,
            "hovertemplate": f"{row.name}: ε %{{customdata}}<extra></extra>",
            "customdata": [round_down(row.low), round_up(row.high)],
        })  # fmt: skip
        high = round_up(row.high)
        words = high if known else say("{low} to {high}", low=round_down(row.low), high=high)
        at = np.log10(np.clip(row.high, *reach))
        notes.append(note_at(at, y, f"   {words}", "left", "middle"))
        if row.claimed is not None:
            drawn.append({
                "type": "scatter", "mode": "markers", "x": numbers([row.claimed]), "y": [y],
                "marker": {"color": INK, "size": 12, "symbol": "x"},
                "hovertemplate": say("what many libraries print: ε %{customdata}<extra></extra>"),
                "customdata": [round_up(row.claimed)],
            })  # fmt: skip
    layout = layout_of(
        say("ε of the whole run (logarithmic)"), "",
        x=log_axis(*reach),
        y={"range": [0.4, len(rows) + 0.6], "tickvals": list(range(len(rows), 0, -1)),
           "ticktext": [row.name for row in rows], "zeroline": False},
    )  # fmt: skip
    return {"data": drawn, "layout": layout | {"annotations": notes}}


def leak(epochs: ArrayLike, found: ArrayLike, claims: dict[str, float], most: int) -> Figure:
    """An audit's lower bound against epochs watched, and the claims as lines across."""
    lines = [
        curve([200, most], [value, value], f"{name}: {round_up(value)}", colour, dash=dash)
        for (name, value), colour, dash in zip(
            claims.items(), (COLOURS[1], COLOURS[2]), ("dash", "dot"), strict=False
        )
    ]
    seen = curve(
        epochs, found, say("audited: at least"), COLOURS[0], hover=say("%{x} epochs: ε ≥ %{y:.3f}")
    )
    seen |= {"mode": "lines+markers", "marker": {"size": 8}}
    ticks = [250 * 2**i for i in range(8)]
    top = 1.15 * max(*claims.values(), *np.asarray(found, float).tolist(), 0.5)
    layout = layout_of(
        say("epochs watched in either world"), "ε",
        x={"type": "log", "range": [np.log10(200), np.log10(1.1 * most)], "tickvals": ticks,
           "ticktext": [f"{tick:,}" for tick in ticks]},
        y={"range": [0, top]},
    )  # fmt: skip
    return {"data": [*lines, seen], "layout": layout | {"showlegend": True}}


def maxima(present: ArrayLike, absent: ArrayLike, threshold: float) -> Figure:
    """Histograms of the largest noisy sum of an epoch in the two worlds, and the threshold."""
    edges = np.linspace(-0.5, 5.5, 49)
    middle = (edges[1:] + edges[:-1]) / 2
    drawn, tallest = [], 0.0
    for values, name, colour in (
        (absent, say("without you"), WITHOUT),
        (present, say("with you"), WITH),
    ):
        counts, _ = np.histogram(np.clip(np.asarray(values, float), -0.49, 5.49), edges)
        share = 100 * counts / max(int(counts.sum()), 1)
        bars = _bars(middle, share, say("{name}: %{{y:.2f}}% of epochs", name=name), colour)
        bars["marker"]["color"] = rgba(colour, 0.5)
        drawn.append(bars | {"name": name, "width": float(edges[1] - edges[0])})
        tallest = max(tallest, float(share.max()))
    layout = layout_of(
        say("largest noisy sum of an epoch (in C)"), say("epochs (%)"),
        x={"range": [-0.5, 5.5], "zeroline": False}, y={"range": [0, 1.2 * tallest + 0.1]},
    )  # fmt: skip
    note = note_at(threshold, 1, say(" → says “present”"), "left", "top", yref="paper")
    layout |= {"shapes": [upright(threshold)], "annotations": [note], "barmode": "overlay"}
    return {"data": drawn, "layout": layout | {"showlegend": True}}
