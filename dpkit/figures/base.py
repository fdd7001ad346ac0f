"""What all figures share: colours, axes, notes and thinning; Plotly JSON as plain dicts."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dpkit.plan import round_up

Figure = dict[str, Any]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
"""Okabe-Ito, in the order in which runs take them; told apart by dashes as well."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")


def layout_of(
    x_title: str, y_title: str, *, x: Figure | None = None, y: Figure | None = None
) -> Figure:
    """Axes with titles in words, narrow margins; zooms survive updates."""
    return {
        "xaxis": {"title": {"text": x_title}, "automargin": True} | (x or {}),
        "yaxis": {"title": {"text": y_title}, "automargin": True} | (y or {}),
        "margin": {"l": 48, "r": 12, "t": 8, "b": 36},
        "showlegend": False,
        "uirevision": "keep",
    }


def log_axis(low: float, high: float) -> Figure:
    """A logarithmic axis between two numbers, with every mark written out: 0.5, 1, 2, 5, 10, 20.

    Plotly would write the marks inside a decade as 2 and 5, whatever the decade is.
    """
    ends = [math.log10(low), math.log10(high)]
    wide = ends[1] - ends[0]
    heads = range(1, 10) if wide < 0.7 else (1, 2, 5) if wide < 3.5 else (1,)
    stride = max(1, math.ceil(wide / 10))
    decades = range(math.floor(ends[0]), math.ceil(ends[1]) + 1)
    marks = [head * 10.0**power for power in decades if power % stride == 0 for head in heads]
    marks = [mark for mark in marks if low * (1 - 1e-9) <= mark <= high * (1 + 1e-9)]
    return {
        "type": "log", "range": ends, "tickvals": marks, "ticktext": [_written(m) for m in marks],
    }  # fmt: skip


def _written(value: float) -> str:
    """0.002, 5, 20,000; 10 to a power where the zeros would have to be counted."""
    power = round(math.log10(value), 6)
    if -3 <= power < 6 or power != int(power):
        return f"{value:,.10g}"
    return f"10<sup>{int(power)}</sup>".replace("-", "−")


def note_at(x: float, y: float, text: str, xanchor: str, yanchor: str, yref: str = "y") -> Figure:
    """An annotation at a place in axis units."""
    return {
        "x": float(x), "y": float(y), "text": text, "showarrow": False, "xanchor": xanchor,
        "yanchor": yanchor, "yref": yref, "font": {"size": 12},
    }  # fmt: skip


def note_in_middle(text: str) -> Figure:
    """An annotation in the middle of an empty plot."""
    return {
        "x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "text": text, "showarrow": False,
    }  # fmt: skip


def numbers(values: ArrayLike) -> list[float]:
    """Numbers as a short list: six digits are more than a screen shows."""
    return [float(f"{v:.6g}") for v in np.asarray(values, dtype=float).ravel()]


def rounded_up(values: ArrayLike) -> list[str]:
    """Promised epsilons as they are printed under the mouse: none below what was computed."""
    return [_round_up(value) for value in np.asarray(values, dtype=float).ravel().tolist()]


_round_up = functools.lru_cache(1 << 13)(round_up)  # a live curve repeats most of its points


def thinned(
    x: Sequence[float], y: Sequence[float], points: int = 400
) -> tuple[list[float], list[float]]:
    """At most about `points` of a line, keeping each stretch's lowest and highest and both ends."""
    if len(x) <= points:
        return list(x), list(y)
    values = np.asarray(y, dtype=float)
    finite = np.where(np.isfinite(values), values, 0.0)
    size = math.ceil(len(values) / max(1, points // 2))
    parts = math.ceil(len(values) / size)
    rows = np.pad(finite, (0, parts * size - len(values)), mode="edge").reshape(parts, size)
    starts = size * np.arange(parts)
    ends = [0, len(values) - 1]
    chosen = np.unique(np.concatenate([ends, starts + rows.argmin(1), starts + rows.argmax(1)]))
    return [x[i] for i in chosen], [y[i] for i in chosen]
