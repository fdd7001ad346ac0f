"""Pictures of budgets: noise over the epochs, what it spends, what it costs, what it buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from dpkit.accountants.yu import FALSE_BELOW
from dpkit.figures.base import COLOURS, Figure, layout_of, log_axis, note_at, numbers
from dpkit.figures.basics import INK, curve, rgba, upright
from dpkit.plan import round_up
from dpkit.words import say

SPENT, LEFT, OVER = COLOURS[0], "#999999", COLOURS[1]
GREY = COLOURS[6]


def _stairs(values: ArrayLike) -> tuple[list[float], list[float]]:
    """A value for each epoch as a line of stairs: `(2 n,)` epochs and values."""
    y = np.repeat(np.asarray(values, float), 2)
    edges = np.arange(len(y) // 2 + 1, dtype=float)
    return numbers(np.repeat(edges, 2)[1:-1]), numbers(y)


def noise(sigma: ArrayLike, stop: int, knots: Sequence[tuple[float, float]] = ()) -> Figure:
    """The noise multiplier in each epoch; dotted where the budget no longer reaches."""
    values = np.asarray(sigma, float)
    hover = say("epoch %{x:.0f}: σ = %{y:.3f}")
    drawn = [
        curve(*_stairs(values[:stop]), say("trained"), SPENT, hover=hover),
        curve(*_later(values, stop), say("never reached"), GREY, dash="dot", hover=hover),
    ]
    if knots:
        drawn.append({
            "type": "scatter", "mode": "markers", "name": say("knots"), "meta": "handles",
            "x": numbers([x for x, _ in knots]), "y": numbers([y for _, y in knots]),
            "marker": {"size": 13, "color": COLOURS[4], "line": {"color": INK, "width": 1}},
            "hovertemplate": say("drag me: epoch %{x:.0f}, σ = %{y:.2f}<extra></extra>"),
        })  # fmt: skip
    top = 1.12 * float(values.max())
    layout = layout_of(
        say("epoch"), say("noise multiplier σ"), x={"range": [0, len(values)], "zeroline": False},
        y={"range": [0, top]},
    )  # fmt: skip
    ends = _end(stop, len(values))
    notes = [*ends.get("annotations", [])]
    if FALSE_BELOW > 0.04 * top:
        words = say(" the rule of 2019 for sampled batches is false below 0.892")
        notes.append(note_at(0, FALSE_BELOW, words, "left", "bottom"))
    layout |= {"shapes": [_below(FALSE_BELOW), *ends.get("shapes", [])], "annotations": notes}
    return {"data": drawn, "layout": layout}


def _below(y: float) -> Figure:
    """The region in which a published rule is false."""
    return {
        "type": "rect", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": 0, "y1": float(y),
        "fillcolor": rgba(OVER, 0.18), "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def _later(values: np.ndarray, stop: int) -> tuple[list[float], list[float]]:
    x, y = _stairs(values[stop:])
    return [place + stop for place in x], y


def _end(stop: int, epochs: int) -> Figure:
    if stop >= epochs:
        return {}
    left = stop > 0.7 * epochs
    words = say(" the budget ends after {epochs} epochs ", epochs=stop)
    note = note_at(stop, 1, words, "right" if left else "left", "top", yref="paper")
    return {"shapes": [upright(stop)], "annotations": [note]}


def spending(rho: ArrayLike, stop: int) -> Figure:
    """What each epoch costs, as an area; the epoch that would be too much stands beside it."""
    values = np.asarray(rho, float)
    x, y = _stairs(values[:stop])
    area = _area(x, y, say("spent"), SPENT) | {
        "hovertemplate": say("epoch %{x:.0f}: ρ = %{y:.4f}<extra></extra>")
    }
    drawn, shown = [area], values[: stop + 1]
    if stop < len(values):
        drawn.append(
            _area([stop, stop, stop + 1, stop + 1], numbers([0, *[values[stop]] * 2, 0]),
                  say("refused: too much"), OVER)
        )  # fmt: skip
    layout = layout_of(
        say("epoch"), say("ρ of the epoch"), x={"range": [0, len(values)], "zeroline": False},
        y={"range": [0, 1.25 * float(shown[np.isfinite(shown)].max(initial=1e-9))]},
    )  # fmt: skip
    return {"data": drawn, "layout": layout | {"showlegend": True}}


def budget(rho: ArrayLike, stop: int, total: float) -> Figure:
    """What is spent and what is left, stacked: together they are the budget."""
    spent = np.concatenate([[0.0], np.cumsum(np.asarray(rho, float)[:stop])])
    x = np.arange(stop + 1, dtype=float)
    below = _area(x, spent, say("spent"), SPENT) | {"stackgroup": "one"}
    left = _area(x, np.maximum(total - spent, 0.0), say("left"), LEFT) | {"stackgroup": "one"}
    below["hovertemplate"] = say("after %{x} epochs: ρ = %{y:.4f} spent<extra></extra>")
    left["hovertemplate"] = say("after %{x} epochs: ρ = %{y:.4f} left<extra></extra>")
    layout = layout_of(
        say("epoch"), "ρ", x={"range": [0, len(np.asarray(rho))], "zeroline": False},
        y={"range": [0, 1.15 * total]},
    )  # fmt: skip
    layout |= {"shapes": [_across(total), upright(stop)], "showlegend": True}
    return {"data": [below, left], "layout": layout}


def _across(y: float) -> Figure:
    return {
        "type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": y, "y1": y,
        "line": {"color": INK, "width": 1.5, "dash": "dot"},
    }  # fmt: skip


def _area(x: ArrayLike, y: ArrayLike, name: str, colour: str) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": numbers(x), "y": numbers(y),
        "fill": "tozeroy", "fillcolor": rgba(colour, 0.35), "line": {"color": colour, "width": 1.5},
        "hoverinfo": "skip",
    }  # fmt: skip


@dataclass(frozen=True)
class Price:
    """One accountant's epsilon for the run; `fault` says why it is none."""

    name: str
    epsilon: float
    fault: str = ""
    bound: bool = True


def prices(rows: Sequence[Price], reach: tuple[float, float]) -> Figure:
    """Each accountant's epsilon as a dot on a logarithmic axis; what is false is a red cross."""
    drawn: list[Figure] = []
    notes: list[Figure] = []
    for place, row in enumerate(rows):
        y = len(rows) - place
        at = float(np.clip(row.epsilon, *reach))
        colour = OVER if row.fault else SPENT if row.bound else COLOURS[4]
        symbol = "x" if row.fault else "circle" if row.bound else "circle-open"
        drawn.append({
            "type": "scatter", "mode": "markers", "x": numbers([at]), "y": [y],
            "marker": {"color": colour, "size": 12, "symbol": symbol},
            "hovertemplate": f"{say(row.name)}: ε {round_up(row.epsilon)}<extra></extra>",
        })  # fmt: skip
        said = "   " + (
            say("{epsilon:.3g}: false here", epsilon=row.epsilon)
            if row.fault
            else round_up(row.epsilon)
        )
        said += "" if row.bound or row.fault else say(" (a heuristic)")
        side = np.log10(at) > np.mean(np.log10(reach)) + 0.2
        words = f"{said.strip()}   " if side else said
        notes.append(note_at(np.log10(at), y, words, "right" if side else "left", "middle"))
    layout = layout_of(
        say("ε of the run (logarithmic)"), "",
        x=log_axis(*reach),
        y={"range": [0.4, len(rows) + 0.6], "tickvals": list(range(len(rows), 0, -1)),
           "ticktext": [say(row.name) for row in rows], "zeroline": False},
    )  # fmt: skip
    return {"data": drawn, "layout": layout | {"annotations": notes}}


@dataclass
class Trained:
    """One run of a comparison: after each epoch the share spent and the test accuracy."""

    name: str
    seed: int
    epochs: int
    share: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether the whole budget was used."""
        return len(self.accuracy) >= self.epochs


def race(runs: Sequence[Trained], across: str) -> Figure:
    """Test accuracy of several runs against epochs or against the share of the budget."""
    drawn = []
    names = list(dict.fromkeys(run.name for run in runs))
    first = {run.name: run for run in reversed(runs)}
    for run in runs:
        place = names.index(run.name)
        x = run.share if across == "share" else 1 + np.arange(len(run.accuracy))
        line = curve(
            x, 100 * np.asarray(run.accuracy, float), say(run.name), COLOURS[place],
            dash=("solid", "dash")[place % 2], hover="%{y:.1f}%",
        )  # fmt: skip
        drawn.append(line | {"legendgroup": run.name, "showlegend": first[run.name] is run})
    title = say("share of the budget spent (%)") if across == "share" else say("epoch")
    most = 100 if across == "share" else max([run.epochs for run in runs], default=100)
    layout = layout_of(
        title, say("test accuracy (%)"), x={"range": [0, most], "zeroline": False},
        y={"range": [0, 100]},
    )  # fmt: skip
    return {"data": drawn, "layout": layout | {"showlegend": True}}


def finals(runs: Sequence[Trained]) -> Figure:
    """Accuracy at the end of the budget: a dot for each seed, a bar for the mean."""
    names = list(dict.fromkeys(run.name for run in runs))
    drawn: list[Figure] = []
    ends = [100 * run.accuracy[-1] for run in runs if run.done]
    for place, name in enumerate(names):
        values = [100 * run.accuracy[-1] for run in runs if run.done and run.name == name]
        colour, y = COLOURS[place], len(names) - place
        drawn.append({
            "type": "scatter", "mode": "markers", "x": numbers(values), "y": [y] * len(values),
            "marker": {"color": rgba(colour, 0.6), "size": 12, "line": {"width": 0}},
            "hovertemplate": f"{say(name)}: %{{x:.1f}}%<extra></extra>",
        })  # fmt: skip
        if values:
            mean = float(np.mean(values))
            drawn.append({
                "type": "scatter", "mode": "markers", "x": numbers([mean]), "y": [y],
                "marker": {"color": colour, "size": 26, "symbol": "line-ns-open",
                           "line": {"width": 3}},
                "hovertemplate": say(
                    "mean of {number}: %{{x:.1f}}%<extra></extra>", number=len(values)
                ),
            })  # fmt: skip
    low, high = (min(ends) - 2, max(ends) + 2) if ends else (60, 100)
    layout = layout_of(
        say("test accuracy at the end of the budget (%)"), "", x={"range": [low, high]},
        y={"range": [0.4, len(names) + 0.6], "tickvals": list(range(len(names), 0, -1)),
           "ticktext": [say(name) for name in names], "zeroline": False},
    )  # fmt: skip
    return {"data": drawn, "layout": layout}
