"""Attacks in pictures: what an audit proves, what an attacker guesses right, what he reads off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpkit.figures.base import COLOURS, DASHES, Figure, layout_of, note_in_middle, numbers


def proven(observations: Sequence[int], lower: Sequence[float], claimed: float) -> Figure:
    """What an audit has proven so far, against the claim: a bound that crosses it refutes it."""
    if not observations:
        return {"data": [], "layout": layout_of("observations", "epsilon")
                | {"annotations": [note_in_middle("Press Audit.")]}}  # fmt: skip
    broken = max(lower) > claimed
    lines = [
        _line(observations, lower, "proven: epsilon is at least this", COLOURS[1 if broken else 0],
              DASHES[0], "lines+markers"),
        _line([0, observations[-1]], [claimed, claimed], "claimed", COLOURS[6], DASHES[1]),
    ]  # fmt: skip
    top = 1.15 * max(max(lower), claimed if np.isfinite(claimed) else 0.0, 1e-3)
    layout = layout_of("coin tosses observed", "epsilon", y={"range": [0, top]})
    return {"data": lines, "layout": layout | _LEGEND}


def roc(
    attacks: Mapping[str, tuple[ArrayLike, ArrayLike]],
    allowed: tuple[ArrayLike, ArrayLike] | None = None,
    *,
    lowest: float = 1e-3,
) -> Figure:
    """True against false positives, both logarithmic: the left end is what hurts.

    `attacks` gives (fpr, tpr) by name; `allowed` is the most that a plan lets any attacker reach.
    """
    lines = []
    if allowed is not None:
        area = _line(*allowed, "allowed by (epsilon, delta)", COLOURS[6], DASHES[2])
        lines.append(area | {"fill": "tozeroy", "fillcolor": "rgba(153,153,153,0.15)"})
    for i, (name, (fpr, tpr)) in enumerate(attacks.items()):
        x, y = np.maximum(np.asarray(fpr), lowest), np.maximum(np.asarray(tpr), lowest)
        lines.append(_line(x, y, name, COLOURS[i % 6], DASHES[i % 6]) | {"line": _steps(i)})
    ends = [lowest, 1.0]
    lines.append(_line(ends, ends, "guessing", COLOURS[6], DASHES[1]))
    axis = {"type": "log", "range": [float(np.log10(lowest)), 0.0]}
    layout = layout_of("false positive rate", "true positive rate", x=axis, y=dict(axis))
    return {"data": lines, "layout": layout | _LEGEND}


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
    return {"data": data, "layout": layout}


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
