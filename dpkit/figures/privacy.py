"""Pictures of a price: epsilon by several accountants, the privacy loss, an attacker's errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.figures.base import (
    COLOURS,
    Figure,
    layout_of,
    log_axis,
    note_at,
    note_in_middle,
    numbers,
    rounded_up,
)
from dpkit.figures.basics import INK, band, curve, dot, rgba, short, upright
from dpkit.plan import round_up
from dpkit.words import marked, say

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """How one accountant is drawn wherever it appears."""

    colour: str
    dash: str
    width: float = 2.0


LOOKS = (
    Look(COLOURS[0], "solid", 3.5),
    Look(COLOURS[2], "solid"),
    Look(COLOURS[3], "longdashdot"),
    Look(COLOURS[5], "dashdot", 2.5),
    Look(COLOURS[1], "dash", 2.5),
    Look(COLOURS[4], "longdash"),
    Look(COLOURS[6], "dot", 2.5),
)
"""By an accountant's place in its list; short dashes stand for the one that is no bound."""


@dataclass(frozen=True)
class Priced:
    """One accountant's epsilon against the number of releases; `look` is its place in LOOKS."""

    name: str
    look: int
    steps: ArrayLike
    epsilon: ArrayLike


def accountants(
    lines: Sequence[Priced], *, x_range: tuple[float, float], y_range: tuple[float, float],
    log: bool = True, x_title: str = marked("steps"),
) -> Figure:  # fmt: skip
    """Epsilon against releases, a line for each accountant and a dot at its end.

    What leaves the range is named at the top edge with the value that it ends at.
    """
    drawn: list[Figure] = []
    beyond = []
    for line in lines:
        look = LOOKS[line.look]
        steps, values = (np.asarray(v, float) for v in (line.steps, line.epsilon))
        shown = np.where(np.isfinite(values) & (values > 0), values, np.nan) if log else values
        name = say(line.name)
        said = say("ε %{{customdata}} after %{{x}} {what}", what=say(x_title))
        trace = curve(steps, shown, name, look.colour, dash=look.dash, hover=said)
        trace["customdata"] = rounded_up(values)
        trace["line"]["width"] = look.width
        drawn.append(trace)
        end = float(values[-1])
        if y_range[0] <= end <= y_range[1]:
            point = dot(steps[-1], end, f"{name}: ε {round_up(end)}", look.colour)
            point["marker"]["size"] = 8
            drawn.append(point | {"legendgroup": line.name, "showlegend": False})
        elif end > y_range[1]:
            beyond.append(f"{name} {_short(end)}")
    layout = layout_of(say(x_title), "ε", x=_axis(x_range, log), y=_axis(y_range, log))
    layout |= {"showlegend": True, "margin": {"l": 48, "r": 12, "t": 24, "b": 36}}
    if beyond:
        words = say("↑ above the plot: ") + ", ".join(beyond)
        note = note_at(1, 1.01, words, "right", "bottom", yref="paper") | {"xref": "paper"}
        layout["annotations"] = [note]
    return {"data": drawn, "layout": layout}


def _axis(limits: tuple[float, float], log: bool) -> Figure:
    if not log:
        return {"range": list(limits), "zeroline": False}
    return log_axis(*limits)


def _short(epsilon: float) -> str:
    return f"{epsilon:,.0f}" if math.isfinite(epsilon) else "∞"


def losses(
    edges: ArrayLike, upper: ArrayLike, lower: ArrayLike, epsilon: float, least: float = 1e-8
) -> Figure:
    """Histogram of the privacy loss from above (bars) and from below (line), epsilon marked.

    *Shapes* edges `(B + 1,)`, the two sides `(B,)`: chances of a bin, under the data with you.
    """
    ends, high, low = (np.asarray(v, float) for v in (edges, upper, lower))
    middle, width = (ends[1:] + ends[:-1]) / 2, np.diff(ends)
    reach = nice(1.05 * max(abs(ends[0]), abs(ends[-1]), epsilon if epsilon < 1e6 else 0.0))
    layout = layout_of(
        say("privacy loss of an outcome"), say("chance of a bin"),
        x={"range": [-reach, reach], "zeroline": True},
        y={"type": "log", "range": [math.log10(least), 0.3], "dtick": 2, "exponentformat": "e"},
    )  # fmt: skip
    if not high.sum() > 0:
        words = say("no finite privacy loss to show")
        return {"data": [], "layout": layout | {"annotations": [note_in_middle(words)]}}
    past = middle > epsilon
    bars = [
        _bars(middle[~past], high[~past], width[~past], say("up to ε, from above"), COLOURS[5]),
        _bars(middle[past], high[past], width[past], say("beyond ε, from above"), COLOURS[1]),
    ]
    steps_x, steps_y = np.repeat(ends, 2)[1:-1], np.repeat(np.where(low > 0, low, np.nan), 2)
    under = curve(steps_x, steps_y, say("from below"), INK, dash="solid")
    under["line"]["width"] = 1.2
    words = f"ε = {round_up(epsilon)} " if math.isfinite(epsilon) else "ε = ∞ "
    notes = [note_at(epsilon, 1, words, "right", "top", yref="paper")] if epsilon <= reach else []
    shapes = [upright(epsilon)] if epsilon <= reach else []
    layout |= {"shapes": shapes, "annotations": notes, "showlegend": True}
    return {"data": [*bars, under], "layout": layout}


def _bars(x: Values, y: Values, width: Values, name: str, colour: str) -> Figure:
    return {
        "type": "bar", "name": name, "x": numbers(x), "y": numbers(y), "width": numbers(width),
        "marker": {"color": colour, "line": {"color": colour, "width": 0.5}},
        "hovertemplate": say("loss %{x:.3g}: at most about %{y:.2g}<extra></extra>"),
    }  # fmt: skip


def nice(value: float) -> float:
    """The next of a few round numbers at or above a number: an axis that moves seldom."""
    if not (math.isfinite(value) and value > 0):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if m * power >= value * (1 - 1e-12)
    )


def tradeoff(
    fpr: ArrayLike, fnr: ArrayLike, epsilon: float, delta: float, advantage: float | None = None,
    at: tuple[float, float] | None = None,
) -> Figure:  # fmt: skip
    """What a test can reach: misses against false alarms, in percent, and what is promised.

    `fnr` is the least of any attacker at each `fpr`; (epsilon, delta) alone forbids only the
    shaded corner; `advantage` marks where the attacker's errors add up to least, `at` one test.
    """
    x, y = np.asarray(fpr, float), np.asarray(fnr, float)
    grown = math.exp(min(epsilon, 700.0))
    grid = np.unique(np.concatenate([np.linspace(0, 1, 101), x]))
    corner = np.maximum(np.maximum(1 - delta - grown * grid, (1 - delta - grid) / grown), 0.0)
    name = say(
        "ruled out: (ε, δ) = ({epsilon}, {delta})", epsilon=round_up(epsilon), delta=short(delta)
    )
    hover = say("%{x:.1f}% false alarms: at least %{y:.1f}% misses")
    lines = [
        *band(100 * grid, 0 * grid, 100 * corner, name, rgba(COLOURS[3], 0.35)),
        curve([0, 100], [100, 0], say("guessing"), "#888888", dash="dot"),
        curve(100 * x, 100 * y, say("best attacker"), COLOURS[0], hover=hover),
    ]
    lines[-1]["line"]["width"] = 3
    notes: list[Figure] = []
    if advantage is not None:
        marks, notes = _advantage(x, y, advantage)
        lines += marks
    if at is not None:
        lines.append(dot(100 * at[0], 100 * at[1], say("this test"), COLOURS[1]))
    layout = layout_of(
        say("false alarms (%)"), say("misses (%)"),
        x={"range": [0, 100], "zeroline": False}, y={"range": [0, 101], "zeroline": False},
    )  # fmt: skip
    return {"data": lines, "layout": layout | {"annotations": notes, "showlegend": True}}


def _advantage(x: np.ndarray, y: np.ndarray, advantage: float) -> tuple[list[Figure], list[Figure]]:
    """A line from guessing down to the attacker's best point, and its size in words."""
    best = int(np.argmin(x + y))
    there = 100 * float(x[best])
    line = curve([there, there], [100 - there, 100 * float(y[best])], "", INK, dash="dash")
    words = say(" advantage {share:.3g}%", share=100 * advantage)
    note = note_at(there, 100 - there, words, "left", "bottom")
    return [line, dot(there, 100 * float(y[best]), say("largest advantage"))], [note]


@dataclass(frozen=True)
class Answer:
    """One published answer: what it says, of which kind it is, and why it differs."""

    name: str
    epsilon: float
    kind: str
    why: str


KINDS = {
    "upper bound": (COLOURS[4], "triangle-left"),
    "exact": (COLOURS[0], "diamond"),
    "estimate": (COLOURS[1], "circle-open"),
    "another promise": (COLOURS[3], "square"),
}
"""Kinds of answers with colour and mark."""


def told(answer: Answer, decimals: int = 2) -> str:
    """An answer's epsilon, rounded up unless it is an estimate, which promises nothing."""
    if answer.kind == "estimate":
        return f"{answer.epsilon:.{decimals}f}"
    return f"{math.ceil(answer.epsilon * 10**decimals) / 10**decimals:.{decimals}f}"


def answers(found: Sequence[Answer]) -> Figure:
    """Answers as marks on one line each, the exact one as a line through all."""
    marks = []
    for kind, (colour, symbol) in KINDS.items():
        some = [(i, a) for i, a in enumerate(found) if a.kind == kind]
        marks.append({
            "type": "scatter", "mode": "markers", "name": say(kind),
            "x": numbers([a.epsilon for _, a in some]), "y": [i for i, _ in some],
            "marker": {"color": colour, "symbol": symbol, "size": 15,
                       "line": {"color": colour, "width": 2}},
            "customdata": [f"{say(a.name)}: ε = {told(a, 4)}" for _, a in some],
            "hovertemplate": "%{customdata}<extra></extra>",
        })  # fmt: skip
    exact = next(a.epsilon for a in found if a.kind == "exact")
    # The label stands on the side that is turned away from the exact line.
    notes = [
        note_at(a.epsilon, i, told(a), "right" if a.epsilon < exact else "left", "middle")
        | {"font": {"size": 14}, "xshift": -14 if a.epsilon < exact else 14}
        for i, a in enumerate(found)
    ]
    layout = layout_of(say("ε of one and the same run"), "")
    # Room on the right for the label of the largest, 50 px of the 210 that a narrow page leaves.
    layout["xaxis"] |= {"range": [0, 1.3 * max(a.epsilon for a in found)]}
    layout["yaxis"] |= {
        "range": [len(found) - 0.4, -0.6], "tickvals": list(range(len(found))),
        "ticktext": [say(a.name) for a in found], "zeroline": False,
    }  # fmt: skip
    layout |= {"annotations": notes, "shapes": [upright(exact)], "showlegend": True}
    return {"data": marks, "layout": layout}
