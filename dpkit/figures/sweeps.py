"""Many runs at once: the privacy-utility plane, its frontier, bands over seeds, every knob."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from dpkit.figures.base import COLOURS, DASHES, Figure, layout_of, note_in_middle, numbers
from dpkit.plan import round_up

CONFIDENCE = 0.95
SCALE = [[0.0, "#440154"], [0.25, "#3b528b"], [0.5, "#21918c"], [0.75, "#5ec962"], [1.0, "#fde725"]]
"""Viridis: even in lightness, and read by colour-blind eyes."""


@dataclass(frozen=True)
class Point:
    """One finished run on the plane, with the knobs by which it may be chosen and coloured.

    `group` is the same for runs that differ in their seed alone; `accuracy` is a share.
    """

    key: str
    epsilon: float
    accuracy: float
    group: str
    seed: int | None
    knobs: dict[str, Any]


@dataclass(frozen=True)
class Mean:
    """One plan on the plane: the mean over its seeds and half of its confidence interval."""

    epsilon: float
    accuracy: float
    half: float
    runs: int
    points: tuple[Point, ...]


def means(points: Sequence[Point]) -> list[Mean]:
    """Mean accuracy of each plan over its seeds, in rising order of epsilon.

    `half` is half the 95% interval by Student's t; infinite where there is one seed only.
    """
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.group, []).append(point)
    found = []
    for members in groups.values():
        values = np.array([point.accuracy for point in members])
        n, half = len(values), math.inf
        if n > 1:
            half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std(ddof=1) / n**0.5)
        found.append(Mean(members[0].epsilon, float(values.mean()), half, n, tuple(members)))
    return sorted(found, key=lambda mean: (mean.epsilon, -mean.accuracy))


def frontier(of: Sequence[Mean]) -> list[Mean]:
    """The plans that no other beats: no cheaper one reaches as much, on average over its seeds."""
    best, found = -math.inf, []
    for mean in sorted(of, key=lambda m: (m.epsilon, -m.accuracy)):
        if math.isfinite(mean.epsilon) and mean.accuracy > best:
            found.append(mean)
            best = mean.accuracy
    return found


def plane(
    points: Sequence[Point],
    colour: str = "",
    chosen: str = "",
    labels: dict[str, str] | None = None,
) -> Figure:
    """Test accuracy (%) against planned epsilon, a dot a run; the frontier of means as steps."""
    shown = [point for point in points if math.isfinite(point.epsilon)]
    if not shown:
        return {"data": [], "layout": _axes([]) | {
            "annotations": [note_in_middle("No finished run yet")]}}  # fmt: skip
    data = [_dots(shown, colour, (labels or {}).get(colour, colour))]
    edge = frontier(means(shown))
    data.append({
        "type": "scatter", "mode": "lines", "name": "frontier", "hoverinfo": "skip",
        "x": numbers([m.epsilon for m in edge]), "y": numbers([100 * m.accuracy for m in edge]),
        "line": {"color": COLOURS[1], "width": 2.5, "shape": "hv"},
    })  # fmt: skip
    for point in shown:
        if point.key == chosen:
            data.append({
                "type": "scatter", "mode": "markers", "name": "selected", "hoverinfo": "skip",
                "x": [point.epsilon], "y": [100 * point.accuracy],
                "marker": {"size": 17, "symbol": "circle-open", "color": COLOURS[1],
                           "line": {"width": 3}},
            })  # fmt: skip
    return {"data": data, "layout": _axes(shown)}


def compared(points: Sequence[Point], by: Callable[[Point], str]) -> Figure:
    """For each kind of run: its frontier of means over seeds with 95% confidence intervals."""
    kinds: dict[str, list[Point]] = {}
    for point in points:
        if math.isfinite(point.epsilon):
            kinds.setdefault(by(point), []).append(point)
    data: list[Figure] = []
    for number, (kind, members) in enumerate(sorted(kinds.items())):
        edge = frontier(means(members))
        colour = COLOURS[number % len(COLOURS)]
        x, y = [m.epsilon for m in edge], [100 * m.accuracy for m in edge]
        half = [100 * m.half if math.isfinite(m.half) else 0.0 for m in edge]
        data.append({
            "type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False,
            "x": numbers([*x, *x[::-1]]), "fill": "toself", "fillcolor": f"{colour}2e",
            "y": numbers([*np.add(y, half), *np.subtract(y, half)[::-1]]), "line": {"width": 0},
        })  # fmt: skip
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": kind, "x": numbers(x),
            "y": numbers(y), "line": {"color": colour, "width": 2.5,
                                      "dash": DASHES[number % len(DASHES)]},
            "text": [_interval(mean) for mean in edge],
            "hovertemplate": f"{kind}: %{{y:.1f}}%%{{text}} at ε %{{x:.3g}}<extra></extra>",
        })  # fmt: skip
    layout = _axes([p for members in kinds.values() for p in members])
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return {"data": data, "layout": layout | {"showlegend": True, "legend": legend}}


def parallel(points: Sequence[Point], names: Sequence[str], labels: dict[str, str]) -> Figure:
    """Every run as a line through its knobs, its epsilon and its accuracy, which colours it."""
    shown = [point for point in points if math.isfinite(point.epsilon)]
    if not shown:
        return {"data": [], "layout": {"annotations": [note_in_middle("No finished run yet")]}}
    columns = [
        _column(labels.get(name, name), [p.knobs.get(name) for p in shown]) for name in names
    ]
    accuracy = np.array([100 * p.accuracy for p in shown])
    columns.append(_column("log₁₀ ε", [math.log10(max(p.epsilon, 1e-12)) for p in shown]))
    columns.append(_column("accuracy (%)", accuracy.tolist()))
    line = {"color": accuracy, "colorscale": SCALE}
    data = [{"type": "parcoords", "dimensions": columns, "line": line, "labelangle": 0}]
    return {"data": data, "layout": {"margin": {"l": 56, "r": 40, "t": 44, "b": 16}}}


def varying(points: Sequence[Point]) -> list[str]:
    """The knobs in which the runs differ, in the order of their plan."""
    names = dict.fromkeys(name for point in points for name in point.knobs)
    return [name for name in names if len({repr(p.knobs.get(name)) for p in points}) > 1]


def _dots(shown: Sequence[Point], colour: str, label: str) -> Figure:
    values = [point.knobs.get(colour) if colour else None for point in shown]
    marker: Figure = {"size": 7, "opacity": 0.75, "color": COLOURS[0]}
    if any(value is not None for value in values):
        column = _column(label, values)
        bar = {"title": {"text": label, "side": "right"}, "thickness": 12}
        marker |= {
            "color": np.asarray(column["values"], dtype=float), "colorscale": SCALE,
            "showscale": True, "opacity": 0.9, "colorbar": bar,
        }  # fmt: skip
        if "ticktext" in column:
            marker["colorbar"] |= {"tickvals": column["tickvals"], "ticktext": column["ticktext"]}
    return {
        "type": "scattergl" if len(shown) > 1000 else "scatter", "mode": "markers", "name": "runs",
        "x": np.array([point.epsilon for point in shown]),
        "y": np.array([100 * point.accuracy for point in shown]), "marker": marker,
        "customdata": list(range(len(shown))),
        "text": [f"{values[i] if colour else ''}" for i in range(len(shown))],
        "hovertemplate": "%{y:.1f}% at ε %{x:.3g}"
        + (f"<br>{label}: %{{text}}" if colour else "") + "<extra></extra>",
    }  # fmt: skip


def _column(label: str, values: Sequence[Any]) -> Figure:
    """An axis of numbers, or of names in their order."""
    if all(isinstance(value, int | float) for value in values):
        return {"label": label, "values": np.array(values, dtype=float)}
    names = sorted({str(value) for value in values})
    place = {name: number for number, name in enumerate(names)}
    return {
        "label": label, "values": np.array([place[str(value)] for value in values], dtype=float),
        "tickvals": list(range(len(names))), "ticktext": names,
    }  # fmt: skip


def _axes(shown: Sequence[Point]) -> Figure:
    """Log epsilon, accuracy in percent; room around the dots."""
    x: Figure = {"type": "log", "dtick": "D2" if shown else 1}
    if shown:
        logs = np.log10([point.epsilon for point in shown])
        x["range"] = [float(logs.min()) - 0.08, float(logs.max()) + 0.08]
        x["dtick"] = "D2" if logs.max() - logs.min() < 2.2 else 1
        tens = np.arange(math.floor(logs.min()), math.ceil(logs.max()) + 1)
        ticks = [m * 10.0**t for t in tens for m in ((1, 2, 5) if len(tens) < 5 else (1,))]
        x |= {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
        x.pop("dtick")
    return layout_of("planned ε", "test accuracy (%)", x=x, y={"rangemode": "normal"})


def _interval(mean: Mean) -> str:
    if not math.isfinite(mean.half):
        return " (one seed)"
    return f" ± {100 * mean.half:.1f} ({mean.runs} seeds)"


def in_words(points: Sequence[Point]) -> str:
    """The frontier for readers who cannot see it."""
    edge = frontier(means(points))
    if not edge:
        return "no finished run yet"
    shown = (
        edge if len(edge) <= 4 else [edge[i] for i in np.linspace(0, len(edge) - 1, 4).astype(int)]
    )
    said = "; ".join(f"{100 * m.accuracy:.1f}% at ε {round_up(m.epsilon)}" for m in shown)
    return f"{len(points):,} runs; frontier: {said}"
