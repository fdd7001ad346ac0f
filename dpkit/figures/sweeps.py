"""Many runs at once: the privacy-utility plane, its frontier, bands over seeds, every knob."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from scipy import special

from dpkit.figures.base import COLOURS, DASHES, Figure, layout_of, note_in_middle, numbers
from dpkit.plan import round_up
from dpkit.words import say

CONFIDENCE = 0.95
_MOST_TICKS = 10
_MOST_DRAWN = 500  # more dots than these are quicker by WebGL
PROMISE = ("data", "records", "relation", "unit", "delta")
"""What an epsilon is worth depends on these."""
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
    """One plan on the plane: the mean over its seeds and half of its confidence interval.

    `best` is the place of its best run in the cloud.
    """

    epsilon: float
    accuracy: float
    half: float
    runs: int
    best: int


class Cloud:
    """Runs on the plane, those of infinite epsilon left out; computed once however often drawn."""

    def __init__(self, points: Sequence[Point]) -> None:
        """Hold the points in their order."""
        self.points = [point for point in points if math.isfinite(point.epsilon)]
        self.epsilon = np.array([point.epsilon for point in self.points])
        self.accuracy = np.array([point.accuracy for point in self.points])
        self._values: dict[str, list[Any]] = {}
        self._parts: dict[tuple[str, Any], Cloud] = {}

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self.points)

    @cached_property
    def means(self) -> list[Mean]:
        """Mean accuracy of each plan over its seeds, in rising order of epsilon.

        `half` is half the 95% interval by Student's t; infinite where there is one seed only.
        """
        places: dict[str, int] = {}
        group = np.array([places.setdefault(p.group, len(places)) for p in self.points], dtype=int)
        if not places:
            return []
        runs = np.bincount(group)
        mean = np.bincount(group, self.accuracy) / runs
        squares = np.bincount(group, (self.accuracy - mean[group]) ** 2)
        order = np.lexsort((-self.accuracy, group))
        best = order[np.unique(group[order], return_index=True)[1]]
        found = [
            Mean(float(self.epsilon[best[i]]), float(mean[i]), _half(squares[i], int(runs[i])),
                 int(runs[i]), int(best[i])) for i in range(len(places))
        ]  # fmt: skip
        return sorted(found, key=lambda m: (m.epsilon, -m.accuracy))

    @cached_property
    def frontier(self) -> list[Mean]:
        """The plans that no other beats: no cheaper one reached as much, mean over its seeds."""
        best, found = -math.inf, []
        for mean in self.means:
            if mean.accuracy > best:
                found.append(mean)
                best = mean.accuracy
        return found

    @cached_property
    def varying(self) -> list[str]:
        """The knobs in which the runs differ, in the order of their plan."""
        seen: dict[str, set[Any]] = {}
        for point in self.points:
            for name, value in point.knobs.items():
                seen.setdefault(name, set()).add(value)
        some = {name for name in seen if any(name not in p.knobs for p in self.points)}
        return [name for name, values in seen.items() if len(values) > 1 or name in some]

    @cached_property
    def promises(self) -> dict[str, list[str]]:
        """In what the promises differ beside epsilon: then no axis can hold them all."""
        found = {name: [_said(value) for value in self.values(name)] for name in PROMISE}
        return {name: values for name, values in found.items() if len(values) > 1}

    def unlike(self, labels: Mapping[str, str] | None = None) -> str:
        """What to know before runs are compared that promise different things, if they do."""
        kinds = "; ".join(
            f"{(labels or {}).get(name, name)}: {', '.join(values)}"
            for name, values in self.promises.items()
        )
        return kinds and say(
            "These promises are not of one kind ({kinds}): an ε of the one is not an ε of the "
            "other.",
            kinds=kinds,
        )

    def values(self, name: str) -> list[Any]:
        """The different values of a knob, in rising order, what has none last."""
        if name not in self._values:
            found = {point.knobs.get(name) for point in self.points}
            self._values[name] = sorted(found, key=_order)
        return self._values[name]

    def where(self, name: str, value: Any) -> Cloud:
        """The runs of which a knob has a value."""
        if (name, value) not in self._parts:
            some = [point for point in self.points if point.knobs.get(name) == value]
            self._parts[name, value] = Cloud(some)
        return self._parts[name, value]

    @cached_property
    def priced(self) -> list[str]:
        """Each run's epsilon as it is printed: rounded up."""
        shown = {epsilon: round_up(epsilon) for epsilon in {p.epsilon for p in self.points}}
        return [shown[point.epsilon] for point in self.points]

    @property
    def in_words(self) -> str:
        """The frontier for readers who cannot see it."""
        edge = self.frontier
        if not edge:
            return say("no finished run yet")
        few = [edge[i] for i in np.unique(np.linspace(0, len(edge) - 1, 4).astype(int))]
        said = "; ".join(
            say(
                "{accuracy:.1f}% at ε {epsilon}",
                accuracy=100 * m.accuracy,
                epsilon=round_up(m.epsilon),
            )
            for m in few
        )
        return say("{runs:,} runs; frontier: {frontier}", runs=len(self), frontier=said)


@cache
def _student(freedom: int) -> float:
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _half(squares: float, runs: int) -> float:
    return _student(runs - 1) * math.sqrt(squares / (runs - 1) / runs) if runs > 1 else math.inf


def plane(
    cloud: Cloud, colour: str = "", chosen: str = "", labels: Mapping[str, str] | None = None,
    *, why: str = "",
) -> Figure:  # fmt: skip
    """Test accuracy (%) against planned epsilon, a dot a run; the frontier of means as steps.

    `why` is what stands there instead if no run can be shown.
    """
    if not len(cloud):
        return {"data": [], "layout": _axes(cloud.epsilon) | _empty(why)}
    edge = cloud.frontier
    data = [_dots(cloud, colour, (labels or {}).get(colour, colour)), {
        "type": "scatter", "mode": "lines", "name": say("frontier"), "hoverinfo": "skip",
        "x": numbers([*(m.epsilon for m in edge), cloud.epsilon.max()]),
        "y": numbers([100 * m.accuracy for m in (*edge, edge[-1])]),
        "line": {"color": COLOURS[1], "width": 2.5, "shape": "hv"},
    }]  # fmt: skip
    for point in cloud.points:
        if point.key == chosen:
            data.append({
                "type": "scatter", "mode": "markers", "name": say("selected"), "hoverinfo": "skip",
                "meta": "marks",
                "x": [point.epsilon], "y": [100 * point.accuracy],
                "marker": {"size": 17, "symbol": "circle-open", "color": COLOURS[1],
                           "line": {"width": 3}},
            })  # fmt: skip
    return {"data": data, "layout": _axes(cloud.epsilon)}


def compared(clouds: Mapping[str, Cloud]) -> Figure:
    """For each named cloud: its frontier of means over seeds with 95% confidence intervals."""
    data: list[Figure] = []
    for number, (name, cloud) in enumerate(clouds.items()):
        edge, colour = cloud.frontier, COLOURS[number % len(COLOURS)]
        x, y = [m.epsilon for m in edge], [100 * m.accuracy for m in edge]
        half = [100 * m.half if math.isfinite(m.half) else 0.0 for m in edge]
        data.append({
            "type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False,
            "x": numbers([*x, *x[::-1]]), "fill": "toself", "fillcolor": f"{colour}2e",
            "y": numbers([*np.add(y, half), *np.subtract(y, half)[::-1]]), "line": {"width": 0},
        })  # fmt: skip
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": name, "x": numbers(x),
            "y": numbers(y), "text": [_interval(mean) for mean in edge],
            "customdata": [round_up(value) for value in x],
            "line": {"color": colour, "width": 2.5, "dash": DASHES[number % len(DASHES)]},
            "hovertemplate": say(
                "{name}: %{{y:.1f}}%%{{text}} at ε %{{customdata}}<extra></extra>", name=name
            ),
        })  # fmt: skip
    layout = _axes(np.concatenate([cloud.epsilon for cloud in clouds.values()]))
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return {"data": data, "layout": layout | {"showlegend": len(clouds) > 1, "legend": legend}}


def parallel(
    cloud: Cloud, names: Sequence[str], labels: Mapping[str, str], *, why: str = ""
) -> Figure:
    """Every run as a line through its knobs, its epsilon and its accuracy, which colours it."""
    if not len(cloud):
        return {"data": [], "layout": _empty(why)}
    columns = [
        _column(labels.get(name, name), [p.knobs.get(name) for p in cloud.points]) for name in names
    ]
    columns.append(_column("log₁₀ ε", np.log10(np.maximum(cloud.epsilon, 1e-12)).tolist()))
    columns.append(_column(say("accuracy (%)"), (100 * cloud.accuracy).tolist()))
    line = {"color": 100 * cloud.accuracy, "colorscale": SCALE}
    data = [{"type": "parcoords", "dimensions": columns, "line": line, "labelangle": 0}]
    return {"data": data, "layout": {"margin": {"l": 56, "r": 44, "t": 44, "b": 30}}}


def _empty(why: str) -> Figure:
    return {"annotations": [note_in_middle(why or say("No finished run yet"))]}


def _dots(cloud: Cloud, colour: str, label: str) -> Figure:
    marker: Figure = {"size": 7, "opacity": 0.75, "color": COLOURS[0]}
    text: list[str] = []
    seen = "%{marker.color:.4g}"
    if colour:
        values = [point.knobs.get(colour) for point in cloud.points]
        column = _column(label, values)
        if "ticktext" in column:
            text, seen = [_said(value) for value in values], "%{text}"
        bar = {"title": {"text": label, "side": "right"}, "thickness": 12}
        bar |= {name: column[name] for name in ("tickvals", "ticktext") if name in column}
        marker |= {
            "color": column["values"], "colorscale": SCALE, "showscale": True, "opacity": 0.9,
            "colorbar": bar,
        }  # fmt: skip
    return {
        "type": "scattergl" if len(cloud) > _MOST_DRAWN else "scatter", "mode": "markers",
        "name": say("runs"), "meta": "choices",
        "x": cloud.epsilon, "y": 100 * cloud.accuracy, "marker": marker, "text": text,
        "customdata": cloud.priced, "hovertemplate": say("%{y:.1f}% at ε %{customdata}")
        + (f"<br>{label}: {seen}" if colour else "") + "<extra></extra>",
    }  # fmt: skip


def _column(label: str, values: Sequence[Any]) -> Figure:
    """An axis of numbers, or of names in their order."""
    if all(isinstance(value, int | float) for value in values):
        return {"label": label, "values": np.array(values, dtype=float)}
    names = list(dict.fromkeys(_said(value) for value in sorted(set(values), key=_order)))
    place = {name: number for number, name in enumerate(names)}
    few = range(0, len(names), -(-len(names) // _MOST_TICKS))
    return {
        "label": label, "values": np.array([place[_said(value)] for value in values], dtype=float),
        "tickvals": list(few), "ticktext": [names[n] for n in few],
    }  # fmt: skip


def _order(value: Any) -> tuple[bool, bool, Any]:
    """Numbers first, then text, what is missing last."""
    return value is None, isinstance(value, str), 0 if value is None else value


def _axes(epsilon: np.ndarray) -> Figure:
    """Log epsilon, accuracy in percent; room around the dots."""
    x: Figure = {"type": "log"}
    if len(epsilon):
        logs = np.log10(np.maximum(epsilon, 1e-12))
        low, high = float(logs.min()) - 0.08, float(logs.max()) + 0.08
        tens = range(math.floor(low), math.ceil(high) + 1)
        ticks = [m * 10.0**t for t in tens for m in ((1, 2, 5) if high - low < 3 else (1,))]
        x |= {"range": [low, high], "tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]}
    return layout_of(say("planned ε"), say("test accuracy (%)"), x=x)


def _interval(mean: Mean) -> str:
    if not math.isfinite(mean.half):
        return say(" (one seed)")
    return say(" ± {half:.1f} ({seeds} seeds)", half=100 * mean.half, seeds=mean.runs)


def _said(value: Any) -> str:
    return (
        say("none")
        if value is None
        else f"{value:g}"
        if isinstance(value, int | float)
        else str(value)
    )
