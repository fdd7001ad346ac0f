"""Pictures of the first ideas: a survey, what an answer tells, noise on a count, a test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.accountants.base import printed
from dpkit.figures.base import COLOURS, Figure, layout_of, note_at, note_in_middle, numbers
from dpkit.plan import round_up
from dpkit.words import say

WITHOUT, WITH = COLOURS[0], COLOURS[1]
"""The two worlds, in every picture: your record is not in the data, or it is."""
INK = "#000000"
_SHOWN = 100


def rgba(colour: str, share: float) -> str:
    """A `#rrggbb` colour that lets a part of what is behind it through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share:g})"


def short(number: float) -> str:
    """Two digits without padding: 1e-5, 0.012."""
    return f"{number:.2g}".replace("e-0", "e-")


def short_up(delta: float) -> str:
    """The same, rounded up: a δ that is said to hold does hold."""
    return printed(delta, 2, 1).replace("e-0", "e-")


def upright(x: float, colour: str = INK, dash: str = "dash") -> Figure:
    """A vertical line over the whole height of a plot."""
    return {
        "type": "line", "xref": "x", "yref": "paper", "x0": float(x), "x1": float(x), "y0": 0,
        "y1": 1, "line": {"color": colour, "width": 1.5, "dash": dash},
    }  # fmt: skip


def curve(
    x: ArrayLike, y: ArrayLike, name: str, colour: str, *, dash: str = "solid", hover: str = ""
) -> Figure:
    """A named line; `hover` is Plotly's template of what the mouse reads."""
    said = {"hovertemplate": f"{hover}<extra>{name}</extra>"} if hover else {"hoverinfo": "skip"}
    line = {"color": colour, "width": 2, "dash": dash, "simplify": False}
    return {
        "type": "scatter", "mode": "lines", "name": name, "x": numbers(x), "y": numbers(y),
        "line": line,
    } | said  # fmt: skip


def band(x: ArrayLike, low: ArrayLike, high: ArrayLike, name: str, colour: str) -> list[Figure]:
    """The area between two lines over the same `x`; `name` stands in the legend, "" is in none.

    What follows a colon in the name may change without the page taking it for another area.
    """
    floor: Figure = {
        "type": "scatter", "mode": "lines", "x": numbers(x), "y": numbers(low),
        "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
        "legendgroup": name.partition(":")[0],
    }  # fmt: skip
    area = floor | {
        "mode": "none", "y": numbers(high), "fill": "tonexty", "fillcolor": colour, "name": name,
        "showlegend": bool(name),
    }  # fmt: skip
    return [floor, area]


def crowd(truth: ArrayLike, said: ArrayLike) -> Figure:
    """The first hundred people of a survey: colour is what they said, a cross is a lie.

    *Shapes* `truth` and `said` are boolean `(n,)`.
    """
    true, told = np.asarray(truth, bool)[:_SHOWN], np.asarray(said, bool)[:_SHOWN]
    order = np.argsort(~true, kind="stable")
    place = np.empty(len(true), int)
    place[order] = np.arange(len(true))
    dots = [
        _people(place[told & true], say("said yes"), say("which is true"), WITH, "circle"),
        _people(place[told & ~true], say("said yes"), say("since the coin lied"), WITH, "x-thin"),
        _people(place[~told & ~true], say("said no"), say("which is true"), WITHOUT, "circle"),
        _people(place[~told & true], say("said no"), say("since the coin lied"), WITHOUT, "x-thin"),
    ]
    layout = layout_of("", "")
    hidden = {"visible": False, "fixedrange": True}
    layout["xaxis"] = hidden | {"range": [-1, 20]}
    layout["yaxis"] = hidden | {"range": [4.7, -0.7]}
    layout |= {"margin": {"l": 4, "r": 4, "t": 4, "b": 4}, "showlegend": True}
    return {"data": dots, "layout": layout}


def _people(place: NDArray[Any], said: str, why: str, colour: str, symbol: str) -> Figure:
    # Filled from the left, five to a column: people who truly say yes stand together.
    marker = {"color": colour, "symbol": symbol, "size": 11}
    return {
        "type": "scatter", "mode": "markers", "name": said, "x": (place // 5).tolist(),
        "y": (place % 5).tolist(), "marker": marker | {"line": {"color": colour, "width": 2.5}},
        "hovertemplate": f"{said}, {why}<extra></extra>", "legendgroup": said,
    }  # fmt: skip


def estimates(found: ArrayLike, true_share: float, present: float | None) -> Figure:
    """Histogram of what many surveys of the same people would estimate, this one marked."""
    layout = layout_of(say("estimated share of yes (%)"), say("surveys in 1,000"))
    layout["xaxis"] |= {"range": [-25, 125], "dtick": 25, "zeroline": False}
    values = np.asarray(found, float)
    if present is None or not len(values):
        words = say("every answer is a fair coin:<br>there is nothing to estimate from")
        return {"data": [], "layout": layout | {"annotations": [note_in_middle(words)]}}
    edges = np.arange(-25.5, 126.5)
    counts, _ = np.histogram(np.clip(100 * values, -25, 125), edges)
    bars = {
        "type": "bar", "x": numbers(edges[:-1] + 0.5), "y": counts.tolist(), "width": 1.0,
        "marker": {"color": rgba(COLOURS[2], 0.7), "line": {"width": 0}},
        "hovertemplate": say("estimate %{x}%: %{y} surveys in 1,000<extra></extra>"),
    }  # fmt: skip
    lines = [upright(100 * true_share), upright(100 * present, COLOURS[2], "solid")]
    left = present < true_share
    notes = [
        note_at(100 * true_share, 1, say(" true share "), *_side(not left), yref="paper"),
        note_at(100 * present, 0.88, say(" this survey "), *_side(left), yref="paper"),
    ]
    layout["yaxis"] |= {"range": [0, 1.3 * float(counts.max())]}
    return {"data": [bars], "layout": layout | {"shapes": lines, "annotations": notes}}


def _side(left: bool) -> tuple[str, str]:
    return ("right" if left else "left"), "top"


def belief(epsilon: float) -> Figure:
    """What an answer teaches about one person: posterior against prior belief, in percent."""
    prior = np.concatenate([[0, 0.002, 0.005, 0.01], np.linspace(0.02, 0.98, 49), [0.99, 0.998, 1]])
    grown = float(np.exp(min(epsilon, 700.0)))
    after_yes = prior * grown / (prior * grown + 1 - prior)
    after_no = prior / (prior + (1 - prior) * grown)
    hover = say("believed %{x:.0f}% before, %{y:.1f}% after")
    lines = [
        *band(100 * prior, 100 * after_no, 100 * after_yes, "", "rgba(128,128,128,0.15)"),
        curve(100 * prior, 100 * after_yes, say("after a yes"), WITH, hover=hover),
        curve(100 * prior, 100 * after_no, say("after a no"), WITHOUT, dash="dash", hover=hover),
        curve([0, 100], [0, 100], "", "#888888", dash="dot"),
    ]
    words = f"e<sup>ε</sup> = {grown:.3g}"
    layout = layout_of(
        say("belief in a true yes before (%)"), say("belief after the answer (%)"),
        x={"range": [0, 100]}, y={"range": [0, 100]},
    )  # fmt: skip
    layout |= {"annotations": [note_at(98, 3, words, "right", "bottom")], "showlegend": True}
    return {"data": lines, "layout": layout}


def outputs(
    x: ArrayLike, without: ArrayLike, with_record: ArrayLike, factor: float, delta: float
) -> Figure:
    """The densities of a published number in the two worlds, and what e^epsilon cannot cover.

    *Shapes* all `(n,)`; the dark area is where the density with the record exceeds `factor`
    times the one without; its size is delta.
    """
    q, p = np.asarray(without, float), np.asarray(with_record, float)
    reach = factor * q
    hover = say("published %{x:.1f}: density %{y:.3f}")
    name = say("not covered: δ = {delta}", delta=short_up(delta))
    lines = [
        *band(x, np.minimum(reach, p), p, name, rgba(COLOURS[3], 0.75)),
        curve(x, q, say("without you"), WITHOUT, hover=hover),
        curve(x, p, say("with you"), WITH, dash="dash", hover=hover),
        curve(x, np.minimum(reach, 1.5 * p.max()), say("e^ε × without you"), WITHOUT, dash="dot"),
    ]
    values = np.asarray(x, float)
    layout = layout_of(
        say("published count"), say("probability density"),
        x={"range": [float(values[0]), float(values[-1])], "zeroline": False},
        y={"range": [0, 1.25 * float(p.max())]},
    )  # fmt: skip
    return {"data": lines, "layout": layout | {"showlegend": True}}


def test_of(x: ArrayLike, without: ArrayLike, with_record: ArrayLike, threshold: float) -> Figure:
    """A test that says "you are in" above a threshold, with its two errors shaded."""
    grid, q, p = (np.asarray(v, float) for v in (x, without, with_record))
    wrong_in, wrong_out = np.where(grid >= threshold, q, 0.0), np.where(grid < threshold, p, 0.0)
    zero, hover = np.zeros(len(grid)), say("published %{x:.1f}: density %{y:.3f}")
    lines = [
        *band(grid, zero, wrong_in, say("false alarm"), rgba(WITHOUT, 0.45)),
        *band(grid, zero, wrong_out, say("miss"), rgba(WITH, 0.45)),
        curve(grid, q, say("without you"), WITHOUT, hover=hover),
        curve(grid, p, say("with you"), WITH, dash="dash", hover=hover),
    ]
    top = 1.3 * float(p.max())
    notes = [
        note_at(threshold, 1, say("says “out” ← "), "right", "top", yref="paper"),
        note_at(threshold, 1, say(" → says “in”"), "left", "top", yref="paper"),
    ]
    layout = layout_of(
        say("published count"), say("probability density"),
        x={"range": [float(grid[0]), float(grid[-1])], "zeroline": False}, y={"range": [0, top]},
    )  # fmt: skip
    layout |= {"shapes": [upright(threshold)], "annotations": notes, "showlegend": True}
    return {"data": lines, "layout": layout}


def profiles(
    epsilon: ArrayLike, deltas: dict[str, NDArray[Any]], present: str, at: tuple[float, float]
) -> Figure:
    """delta against epsilon for several mechanisms; `at` is the present one's point.

    *Shapes* each of `deltas` as `epsilon`, `(n,)`; where delta is 0 the line ends.
    """
    lines = []
    for i, (name, values) in enumerate(deltas.items()):
        shown = np.where(np.asarray(values) > 1e-12, values, np.nan)
        colour, dash = (COLOURS[2], "solid") if i == 0 else (COLOURS[4], "dash")
        line = curve(epsilon, shown, say(name), colour, dash=dash, hover="ε %{x:.2f}: δ %{y:.2g}")
        line["line"]["width"] = 3 if name == present else 1.5
        lines.append(line)
    x, y = at
    notes = []
    if y > 1e-12:
        said = say("claimed ε {epsilon:.3g}: δ {delta}", epsilon=x, delta=short_up(y))
        lines.append(dot(x, y, said))
    else:
        said = say("δ = 0 at ε = {epsilon}", epsilon=round_up(x))
        notes = [note_at(x, 0.03, said, "center", "bottom", yref="paper")]
    layout = layout_of(
        say("claimed ε"), say("δ that it needs"),
        x={"range": [0, 5]},
        y={"type": "log", "range": [-8, 0.2], "exponentformat": "e", "dtick": 2},
    )  # fmt: skip
    layout |= {"shapes": [upright(x)], "annotations": notes, "showlegend": True}
    return {"data": lines, "layout": layout}


def dot(x: float, y: float, hover: str, colour: str = INK) -> Figure:
    """The point that moves."""
    return {
        "type": "scatter", "mode": "markers", "x": [float(x)], "y": [float(y)],
        "marker": {"color": colour, "size": 11, "line": {"color": "white", "width": 1.5}},
        "hovertemplate": f"{hover}<extra></extra>",
    }  # fmt: skip
