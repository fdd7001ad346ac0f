"""Pictures of one private step in the plane: arrows, the clip circle, the cloud, the trades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.figures.base import COLOURS, Figure, layout_of, note_at, numbers, rounded_up
from dpkit.figures.basics import INK, curve, rgba, upright
from dpkit.words import say

RAW, CLIPPED, NOISY = COLOURS[6], COLOURS[0], COLOURS[1]
_TURN = np.linspace(0, 2 * np.pi, 91)


class Parts(Protocol):
    """The errors of a step, as lengths."""

    @property
    def bias(self) -> float: ...  # noqa: D102
    @property
    def noise(self) -> float: ...  # noqa: D102
    @property
    def sampling(self) -> float: ...  # noqa: D102
    @property
    def total(self) -> float: ...  # noqa: D102


def arrows(raw: ArrayLike, clipped: ArrayLike, max_grad_norm: float) -> Figure:
    """Each record's gradient before (grey) and after (blue) clipping, and the clip circle.

    *Shapes* raw and clipped `(B, 2)`.
    """
    before, after = np.asarray(raw, float), np.asarray(clipped, float)
    cut = np.linalg.norm(before - after, axis=1) > 1e-12
    ring = max_grad_norm * np.stack([np.cos(_TURN), np.sin(_TURN)])
    circle = curve(ring[0], ring[1], f"C = {max_grad_norm:.3g}", INK, dash="dash")
    shown = np.concatenate([before, np.minimum(1, _reach(before) / max_grad_norm) * ring.T])
    traces = [
        _spokes(after[cut], before[cut], say("cut off"), RAW),
        _spokes(np.zeros_like(after), after, say("kept"), CLIPPED),
        _tips(after, CLIPPED),
        circle,
    ]
    return {"data": traces, "layout": _plane(shown)}


def step(
    true: ArrayLike, clipped: ArrayLike, noisy: ArrayLike, cloud: ArrayLike, std: float
) -> Figure:
    """Where the noise may carry the clipped mean, where it has, and the true gradient.

    *Shapes* true, clipped and noisy `(2,)`, cloud `(n, 2)`; `std` of each coordinate of the noise.
    """
    points, middle = np.asarray(cloud, float), np.asarray(clipped, float)
    ring = middle[:, None] + 2.4477 * std * np.stack([np.cos(_TURN), np.sin(_TURN)])
    ends = np.array([[0, 0], true, clipped, noisy, middle + 2.6 * std, middle - 2.6 * std], float)
    dots: Figure = {
        "type": "scatter", "mode": "markers", "name": say("other noise"), "showlegend": False,
        "x": numbers(points[:, 0]), "y": numbers(points[:, 1]), "hoverinfo": "skip",
        "marker": {"size": 4, "color": rgba(NOISY, 0.35)},
    }  # fmt: skip
    traces = [
        dots,
        curve(ring[0], ring[1], say("95% of draws"), NOISY, dash="dot"),
        _arrow(true, say("true gradient"), INK, "dash"),
        _arrow(clipped, say("clipped"), CLIPPED, "solid"),
        _arrow(noisy, say("with noise"), NOISY, "solid"),
    ]
    return {"data": traces, "layout": _plane(ends)}


def trade(clips: ArrayLike, found: Sequence[Parts], present: float, here: Parts) -> Figure:
    """The errors of a step against the clip norm, on two logarithmic axes.

    *Shapes* clips `(K,)`, one entry of `found` for each.
    """
    lines = [
        curve(clips, [max(part.bias, 1e-6) for part in found], say("bias of clipping"), COLOURS[0],
              dash="dash", hover="C %{x:.3g}: %{y:.3g}"),
        curve(clips, [part.noise for part in found], say("noise"), COLOURS[1], dash="dot",
              hover="C %{x:.3g}: %{y:.3g}"),
        curve(clips, [part.sampling for part in found], say("luck of the batch"), COLOURS[2],
              dash="dashdot", hover="C %{x:.3g}: %{y:.3g}"),
        curve(clips, [part.total for part in found], say("together"), INK,
              hover="C %{x:.3g}: %{y:.3g}"),
    ]  # fmt: skip
    best = int(np.argmin([part.total for part in found]))
    totals = [part.total for part in found]
    low, high = np.log10(min(totals) / 12), np.log10(max(totals) * 1.5)
    log = {"type": "log", "dtick": 1}
    y = log | {"range": [float(low), float(high)]}
    layout = layout_of(say("clip norm C"), say("error of a step"), x=log, y=y)
    layout["shapes"] = [upright(present)]
    layout["showlegend"] = True
    layout["legend"] = _legend()
    lines.append(_dot(float(np.asarray(clips)[best]), totals[best], say("best C"), COLOURS[2]))
    lines.append(_dot(present, here.total, say("here"), INK))
    return {"data": lines, "layout": layout}


def price(steps: ArrayLike, epsilon: ArrayLike) -> Figure:
    """Epsilon after each number of steps, with its end marked."""
    k, found = np.asarray(steps, float), np.asarray(epsilon, float)
    line = curve(k, found, say("epsilon"), NOISY, hover=say("%{x:.0f} steps: ε = %{customdata}"))
    line["customdata"] = rounded_up(found)
    layout = layout_of(say("steps"), say("epsilon"), y={"rangemode": "tozero"})
    return {"data": [line, _dot(k[-1], found[-1], say("all steps"), INK)], "layout": layout}


def ratio(batches: ArrayLike, values: Sequence[float], present: float, here: float) -> Figure:
    """Signal to noise against the expected batch, on two logarithmic axes."""
    line = curve(batches, values, say("signal to noise"), COLOURS[0], hover="L %{x:.0f}: %{y:.3g}")
    log = {"type": "log", "dtick": 1}
    layout = layout_of(say("expected batch L (records)"), say("signal / noise"), x=log, y=log)
    layout["shapes"] = [
        upright(present),
        {"type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": 1, "y1": 1,
         "line": {"color": COLOURS[6], "width": 1.5, "dash": "dot"}},
    ]  # fmt: skip
    layout["annotations"] = [note_at(1, 0, say(" as much noise as signal "), "right", "bottom")]
    layout["annotations"][0] |= {"xref": "paper"}
    return {"data": [line, _dot(present, here, say("here"), INK)], "layout": layout}


def _reach(points: NDArray[Any]) -> float:
    """The length of the longest row."""
    return max(float(np.linalg.norm(points, axis=1).max(initial=0)), 1e-6)


def _plane(shown: NDArray[Any]) -> Figure:
    """A square piece of the plane around some points and zero, in which a circle is round."""
    low, high = np.minimum(shown.min(0), 0), np.maximum(shown.max(0), 0)
    half, middle = 0.58 * max(float((high - low).max()), 1e-6), (low + high) / 2
    x, y = ({"range": [float(m - half), float(m + half)], "nticks": 6} for m in middle)
    layout = layout_of(say("first weight"), say("second weight"), x=x, y=y)
    layout["yaxis"] |= {"scaleanchor": "x", "scaleratio": 1}
    layout |= {"showlegend": True, "legend": _legend()}
    return layout


def _legend() -> Figure:
    return {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}


def _spokes(start: NDArray[Any], end: NDArray[Any], name: str, colour: str) -> Figure:
    gap = np.full(len(start), np.nan)
    x, y = (np.stack([start[:, i], end[:, i], gap], 1).ravel() for i in (0, 1))
    return {
        "type": "scatter", "mode": "lines", "name": name, "hoverinfo": "skip",
        "x": [None if v != v else v for v in numbers(x)],
        "y": [None if v != v else v for v in numbers(y)],
        "line": {"color": colour, "width": 1.2},
    }  # fmt: skip


def _tips(ends: NDArray[Any], colour: str) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": say("records"), "x": numbers(ends[:, 0]),
        "y": numbers(ends[:, 1]), "marker": {"size": 5, "color": colour}, "showlegend": False,
        "hovertemplate": say("gradient (%{x:.3g}, %{y:.3g})<extra></extra>"),
    }  # fmt: skip


def _arrow(end: ArrayLike, name: str, colour: str, dash: str) -> Figure:
    x, y = np.asarray(end, float)
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": [0.0, float(x)],
        "y": [0.0, float(y)], "line": {"color": colour, "width": 3, "dash": dash},
        "marker": {"symbol": "arrow", "size": [0, 14], "angleref": "previous", "color": colour},
        "hovertemplate": f"{name}: (%{{x:.3g}}, %{{y:.3g}})<extra></extra>",
    }  # fmt: skip


def _dot(x: float, y: float, name: str, colour: str) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": [float(x)], "y": [float(y)],
        "marker": {"size": 9, "color": colour}, "showlegend": False,
        "hovertemplate": f"{name}: %{{x:.3g}}, %{{y:.3g}}<extra></extra>",
    }  # fmt: skip
