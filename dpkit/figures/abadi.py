"""Pictures of the founding experiment: accuracy and epsilon over epochs, sweeps of one setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

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
from dpkit.figures.basics import INK, curve, dot, rgba, upright
from dpkit.words import say

LEVELS = (COLOURS[1], COLOURS[2], COLOURS[0])
"""Much noise, some, little."""
SIGNS = ("dash", "dashdot", "solid")
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}


@dataclass(frozen=True)
class Level:
    """One noise level over the epochs: accuracies as shares; `paper` is what the paper reached.

    *Shapes*: epochs, test and train `(points,)`; `paid` and `epsilon` `(prices,)`, likewise
    `planned_at` and `planned`, the price to come.
    """

    name: str
    epochs: ArrayLike
    test: ArrayLike
    train: ArrayLike
    paid: ArrayLike = ()
    epsilon: ArrayLike = ()
    planned_at: ArrayLike = ()
    planned: ArrayLike = ()
    paper: float | None = None


def accuracies(
    levels: Sequence[Level], reach: float, *, log: bool = False, at: float | None = None,
    before: Sequence[Level] = (), bottom: float = 0.0,
) -> Figure:  # fmt: skip
    """Test accuracy as lines, training accuracy as dots; a star is what the paper reached.

    `before` are lines to compare with, in grey; `at` is where they are being read.
    """
    drawn: list[Figure] = []
    for level in before:
        said = say("{name}: %{{y:.2f}}% after %{{x:.3g}} epochs", name=level.name)
        line = curve(level.epochs, _percent(level.test), level.name, COLOURS[6], hover=said)
        drawn.append(line | {"showlegend": False})
    for place, level in enumerate(levels):
        drawn += _level(level, LEVELS[place % 3], SIGNS[place % 3])
    y = {"range": [100 * bottom, 101]}
    layout = layout_of(say("epochs"), say("accuracy (%)"), x=_epochs(reach, log), y=y)
    layout |= {"showlegend": bool(levels), "legend": LEGEND, "shapes": _reading(at)}
    if not levels and not before:
        layout["annotations"] = [note_in_middle(say("press Train"))]
    return {"data": drawn, "layout": layout}


def spent(
    levels: Sequence[Level], reach: float, *, log: bool = False, at: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:  # fmt: skip
    """Epsilon over the epochs: what is planned as thin lines, what is spent as thick ones."""
    drawn: list[Figure] = []
    for place, level in enumerate(levels):
        colour, dash = LEVELS[place % 3], SIGNS[place % 3]
        said = say("ε %{customdata} after %{x:.3g} epochs")
        thin = curve(level.planned_at, level.planned, level.name, rgba(colour, 0.7), dash=dash,
                     hover=say("planned {said}", said=said))  # fmt: skip
        thin["line"]["width"], thin["customdata"] = 1.5, rounded_up(level.planned)
        thick = curve(level.paid, level.epsilon, level.name, colour, dash=dash, hover=said)
        thick["line"]["width"], thick["customdata"] = 2.5, rounded_up(level.epsilon)
        thin["showlegend"], thick["showlegend"] = not len(numbers(level.paid)), True
        drawn += [line for line in (thin, thick) if line["x"]]
    known = [v for level in levels for v in numbers(level.planned) if np.isfinite(v)]
    low, high = limits or (0.9 * min(known, default=0.1), 1.1 * max(known, default=1.0))
    y = log_axis(_round(low, -1), _round(high, 1))
    layout = layout_of(say("epochs"), say("ε (logarithmic)"), x=_epochs(reach, log), y=y)
    return {
        "data": drawn,
        "layout": layout | {"showlegend": True, "legend": LEGEND, "shapes": _reading(at)},
    }


def sweep(
    values: ArrayLike, test: ArrayLike, train: ArrayLike, at: tuple[float, float], title: str
) -> Figure:
    """Accuracy against one setting on a logarithmic axis, and the place that a slider marks.

    *Shapes*: values, test and train `(points,)`; accuracies as shares.
    """
    x, tested, trained = (np.asarray(v, float) for v in (values, test, train))
    hover = f"{title} %{{x:.4g}}: %{{y:.2f}}%"
    first = curve(x, _percent(tested), say("test"), COLOURS[0], hover=hover)
    first |= {"mode": "lines+markers", "marker": {"size": 7}}
    second = curve(x, _percent(trained), say("training"), COLOURS[2], dash="dot", hover=hover)
    here = dot(at[0], 100 * at[1], say("your {title}, read off the line", title=title), COLOURS[1])
    here["marker"] |= {"size": 13, "symbol": "diamond"}
    low = 100 * float(min(tested.min(), trained.min()))
    high = 100 * float(max(tested.max(), trained.max()))
    room = max(0.12 * (high - low), 0.2)
    ends = np.log10([min(x[0], at[0]), max(x[-1], at[0])])
    side = 0.04 * float(ends[1] - ends[0])
    layout = layout_of(
        say("{title} (logarithmic)", title=title), say("accuracy after the sweep's run (%)"),
        x={"type": "log", "range": [float(ends[0]) - side, float(ends[1]) + side],
           "tickvals": numbers(x), "ticktext": [f"{value:g}" for value in x]},
        y={"range": [low - room, high + room]},
    )  # fmt: skip
    layout |= {"showlegend": True, "legend": LEGEND, "shapes": [upright(at[0], INK, "dot")]}
    said = say("yours: about {accuracy:.1f}% ", accuracy=100 * at[1])
    note = note_at(1, 0.02, said, "right", "bottom", yref="paper")
    layout["annotations"] = [note | {"xref": "paper"}]
    return {"data": [first, second, here], "layout": layout}


def _level(level: Level, colour: str, dash: str) -> list[Figure]:
    """Training accuracy, test accuracy, and the paper's star."""
    name, hover = level.name, say("%{y:.2f}% after %{x:.3g} epochs")
    tested, trained = say("test {hover}", hover=hover), say("training {hover}", hover=hover)
    test = curve(level.epochs, _percent(level.test), name, colour, dash=dash, hover=tested)
    train = curve(level.epochs, _percent(level.train), say("{name}, training", name=name), colour,
                  dash="dot", hover=trained)  # fmt: skip
    test["line"]["width"], train["line"]["width"] = 2.5, 1.2
    drawn = [train | {"showlegend": False}, test]
    if level.paper is not None and test["x"]:
        said = say("the paper: {accuracy:.0%}", accuracy=level.paper)
        star = dot(test["x"][-1], 100 * level.paper, said, colour)
        star["marker"] |= {"symbol": "star-open", "size": 12}
        drawn.append(star | {"showlegend": False})
    return drawn


def _round(value: float, towards: int) -> float:
    """The next of 1, 2, 5, 10, ... below or above: an axis that moves seldom."""
    steps = 10.0 ** np.floor(np.log10(value)) * np.array([1.0, 2.0, 5.0, 10.0])
    return float(steps[steps <= value][-1] if towards < 0 else steps[steps >= value][0])


def _percent(shares: ArrayLike) -> ArrayLike:
    return 100 * np.asarray(shares, float)


def _epochs(reach: float, log: bool) -> Figure:
    if not log:
        return {"range": [0, 1.02 * reach], "zeroline": False}
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 400]
    return {
        "type": "log", "range": [float(np.log10(0.9)), float(np.log10(1.1 * reach))],
        "tickvals": ticks, "ticktext": [str(tick) for tick in ticks],
    }  # fmt: skip


def _reading(at: float | None) -> list[Figure]:
    return [] if at is None else [upright(at, INK, "dot")]
