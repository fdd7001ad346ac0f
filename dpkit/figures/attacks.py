"""Attacks in pictures: what an audit proves, what an attacker guesses right, what he reads off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpkit.figures.base import COLOURS, DASHES, Figure, layout_of, note_in_middle, numbers
from dpkit.words import say


def proven(
    observations: Sequence[int], lower: Sequence[float], claimed: float, total: int
) -> Figure:
    """What an audit has proven so far, against the claim: a bound that crosses it refutes it.

    `total` is how many observations there will be: the axis stands still while the bound climbs.
    """
    best = max(lower, default=0.0)
    colour = COLOURS[1 if best > claimed else 0]
    x, y = [0, *observations], [0.0, *lower]
    lines = [
        _line(x, y, say("proven: epsilon is at least this"), colour, DASHES[0], "lines+markers"),
        _line([0, total], [claimed, claimed], say("claimed"), COLOURS[6], DASHES[1]),
    ]
    top = 1.15 * max(best, claimed if np.isfinite(claimed) else 0.0, 1e-3)
    layout = layout_of(say("coin tosses observed"), say("epsilon"), x={"range": [0, 1.02 * total]},
                       y={"range": [0, top]})  # fmt: skip
    notes = [] if observations else [note_in_middle(say("Press Audit."))]
    return {"data": lines, "layout": layout | _LEGEND | {"annotations": notes}}


def roc(
    attacks: Mapping[str, tuple[ArrayLike, ArrayLike]],
    allowed: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    lowest: float = 1e-2,
) -> Figure:
    """True against false positives, both logarithmic: the left end is what hurts.

    `attacks` gives (fpr, tpr) by name; `allowed` is the most that a plan lets any attacker reach.
    `lowest` is where both axes begin: rates that count only a few records mean little.
    """
    lines = []
    if allowed is not None:
        area = _line(*allowed, say("the most that privacy allows"), COLOURS[6], DASHES[2])
        lines.append(area | {"fill": "tozeroy", "fillcolor": "rgba(153,153,153,0.15)"})
    for i, (name, (fpr, tpr)) in enumerate(attacks.items()):
        x, y = np.maximum(np.asarray(fpr), lowest), np.maximum(np.asarray(tpr), lowest)
        first = max(int(np.searchsorted(x, lowest, side="right")) - 1, 0)
        x, y = x[first:], y[first:]
        lines.append(_line(x, y, name, COLOURS[i % 6], DASHES[i % 6]) | {"line": _steps(i)})
    ends = [lowest, 1.0]
    lines.append(_line(ends, ends, say("guessing"), COLOURS[6], DASHES[1]))
    layout = layout_of(say("others accused (false positive rate)"),
                       say("members found (true positive rate)"),
                       x=_percent(lowest), y=_percent(lowest))  # fmt: skip
    room = {"margin": layout["margin"] | {"r": 36}}
    return {"data": lines, "layout": layout | _LEGEND | _CLEAR | room}


def _percent(lowest: float) -> Figure:
    """A logarithmic axis from `lowest` to 1, marked in percent at 1, 2 and 5 of each decade."""
    decades = range(math.floor(math.log10(lowest)), 1)
    marks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    marks = [mark for mark in marks if 0.999 * lowest <= mark <= 1]
    return {
        "type": "log", "range": [math.log10(lowest), 0.0], "tickvals": numbers(marks),
        "ticktext": [f"{100 * mark:g}%" for mark in marks], "gridcolor": _GRID,
    }  # fmt: skip


def side_by_side(images: Mapping[str, ArrayLike]) -> Figure:
    """Grey images beside each other, each scaled to its own range, with their names above."""
    data, layout = [], layout_of("", "") | {"annotations": []}
    count = max(len(images), 1)
    for i, (name, image) in enumerate(images.items()):
        pixels = np.squeeze(np.asarray(image, dtype=float))
        if pixels.ndim != 2:
            raise ValueError(f"{name!r} must be one grey image, got the shape {pixels.shape}.")
        end = "" if i == 0 else str(i + 1)
        left, right = i / count, (i + 0.9) / count
        hidden = {"visible": False, "domain": [left, right], "anchor": f"y{end}"}
        layout[f"xaxis{end}"] = hidden
        layout[f"yaxis{end}"] = {"visible": False, "autorange": "reversed", "anchor": f"x{end}",
                                 "scaleanchor": f"x{end}", "domain": [0, 0.9]}  # fmt: skip
        data.append({"type": "heatmap", "z": pixels.tolist(), "showscale": False,
                     "colorscale": "Greys", "xaxis": f"x{end}", "yaxis": f"y{end}",
                     "hoverinfo": "z"})  # fmt: skip
        layout["annotations"].append(
            {"x": (left + right) / 2, "y": 1, "xref": "paper", "yref": "paper", "text": name,
             "showarrow": False, "xanchor": "center", "yanchor": "top"}
        )  # fmt: skip
    return {"data": data, "layout": layout | _CLEAR}


_GRID = "rgba(128,128,128,0.25)"
_CLEAR: Figure = {"plot_bgcolor": "rgba(0,0,0,0)", "paper_bgcolor": "rgba(0,0,0,0)"}
_LEGEND: Figure = {
    "showlegend": True,
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
}


def _line(x: Any, y: Any, name: str, colour: str, dash: str, mode: str = "lines") -> Figure:
    return {
        "type": "scatter", "mode": mode, "x": numbers(x), "y": numbers(y), "name": name,
        "line": {"color": colour, "dash": dash},
    }  # fmt: skip


def _steps(index: int) -> Figure:
    return {"color": COLOURS[index % 6], "dash": DASHES[index % 6], "shape": "hv"}
