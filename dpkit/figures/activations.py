"""Private activations in pictures: a cloud with and without noise, three prices, what they buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpkit.figures.base import COLOURS, Figure, layout_of, note_at, note_in_middle, numbers
from dpkit.figures.basics import INK, rgba
from dpkit.plan import round_up
from dpkit.words import say

_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon",
            "hexagon", "bowtie")  # fmt: skip
_DASHES = ("solid", "solid", "dot", "dash", "dashdot", "longdash")
SOUND, FALSE = COLOURS[0], COLOURS[1]


def cloud(points: ArrayLike, targets: ArrayLike, names: Sequence[str], reach: float) -> Figure:
    """Activations in a plane, a colour and a symbol for each class.

    *Shapes*: points (n, 2), targets (n,).
    """
    places, of = np.asarray(points, float), np.asarray(targets)
    drawn: list[Figure] = []
    for k, name in enumerate(names):
        here = places[of == k]
        drawn.append({
            "type": "scatter", "mode": "markers", "name": name,
            "x": numbers(here[:, 0]), "y": numbers(here[:, 1]),
            "marker": {"color": rgba(COLOURS[k % 6], 0.75), "size": 6,
                       "symbol": _SYMBOLS[k % len(_SYMBOLS)]},
            "hovertemplate": f"{name}<extra></extra>",
        })  # fmt: skip
    layout = layout_of(
        say("first direction (in C)"), say("second direction (in C)"),
        x={"range": [-reach, reach], "zeroline": False, "constrain": "domain"},
        y={"range": [-reach, reach], "zeroline": False, "scaleanchor": "x", "constrain": "domain"},
    )  # fmt: skip
    circle = {
        "type": "circle", "xref": "x", "yref": "y", "x0": -1, "x1": 1, "y0": -1, "y1": 1,
        "line": {"color": INK, "width": 1, "dash": "dot"},
    }  # fmt: skip
    return {"data": drawn, "layout": layout | {"shapes": [circle], "showlegend": True}}


def readouts(claimed: float, true: float) -> Figure:
    """The claim that tempts, the true price, and the place where no epsilon stands."""
    ends = [min(claimed, true, 0.1), max(claimed, true, 100.0)]
    low, high = (float(np.log10(end)) for end in (0.8 * ends[0], 2.5 * ends[1]))
    rows = [
        (3, claimed, FALSE, "x", say("   {epsilon}: false", epsilon=round_up(claimed))),
        (2, true, SOUND, "circle", say("   {epsilon}: true", epsilon=round_up(true))),
    ]
    drawn: list[Figure] = []
    notes = [note_at(low, 1, say("  none: no ε holds, whatever the noise"), "left", "middle")]
    for y, value, colour, symbol, words in rows:
        drawn.append({
            "type": "scatter", "mode": "markers", "x": numbers([value]), "y": [y],
            "marker": {"color": colour, "size": 13, "symbol": symbol}, "hoverinfo": "skip",
        })  # fmt: skip
        late = np.log10(value) > low + 0.6 * (high - low)
        text, side = (f"{words.strip()}   ", "right") if late else (words, "left")
        notes.append(note_at(float(np.log10(value)), y, text, side, "middle"))
    layout = layout_of(
        say("ε of the run (logarithmic)"), "",
        x={"type": "log", "range": [low, high], "tickvals": [0.01, 0.1, 1, 10, 100, 1000],
           "ticktext": ["0.01", "0.1", "1", "10", "100", "1000"]},
        y={"range": [0.5, 3.5], "tickvals": [3, 2, 1], "zeroline": False,
           "ticktext": [say("claimed: like DP-SGD"), say("true: each record's release"),
                        say("end to end")]},
    )  # fmt: skip
    return {"data": drawn, "layout": layout | {"annotations": notes}}


def bought(
    epsilons: Sequence[float], modes: Mapping[str, Sequence[tuple[float, float]]], unsound: str
) -> Figure:
    """Accuracy against epsilon: mean and deviation for each mode; the unsound one has no epsilon.

    `modes` gives (mean, deviation) in percent by name, one for each of `epsilons`.
    """
    drawn: list[Figure] = []
    for place, (name, cells) in enumerate(modes.items()):
        broken = name == unsound
        said = say("{mode} (ε: none)", mode=say(name)) if broken else say(name)
        drawn.append({
            "type": "scatter", "mode": "lines+markers", "name": said,
            "x": numbers(epsilons), "y": numbers([mean for mean, _ in cells]),
            "error_y": {"type": "data", "array": numbers([sd for _, sd in cells]),
                        "thickness": 1, "width": 3},
            "line": {"color": COLOURS[1] if broken else (COLOURS[0], *COLOURS[2:])[place % 6],
                     "width": 2, "dash": "dot" if broken else _DASHES[place % 6]},
            "marker": {"symbol": "x" if broken else _SYMBOLS[place], "size": 8},
            "hovertemplate": f"{said}: %{{y:.1f}}%<extra></extra>",
        })  # fmt: skip
    layout = layout_of(
        say("ε (logarithmic); of the crossed line the ε that is wrongly claimed"),
        say("test accuracy (%)"),
        x={"type": "log", "tickvals": numbers(epsilons),
           "ticktext": [f"{e:g}" for e in epsilons]},
        y={"range": [0, 100]},
    )  # fmt: skip
    legend = {"orientation": "h", "y": -0.25}
    return {"data": drawn, "layout": layout | {"showlegend": True, "legend": legend}}


def beside(original: NDArray[np.float64], found: NDArray[np.float64]) -> Figure:
    """A record and what an attacker took for it, side by side; the range of each is its own.

    *Shapes*: both (height, width).
    """
    height, width = original.shape
    sheet = np.full((height, 2 * width + 2), np.nan)
    for left, picture in ((0, original), (width + 2, found)):
        low, high = float(picture.min()), float(picture.max())
        sheet[:, left : left + width] = (picture - low) / max(high - low, 1e-12)
    drawn = {
        "type": "heatmap", "z": sheet.astype(np.float32), "showscale": False, "hoverinfo": "skip",
        "colorscale": [[0, "#f2f2f2"], [1, "#222222"]], "zmin": 0, "zmax": 1,
    }  # fmt: skip
    hidden = {"visible": False, "fixedrange": True, "constrain": "domain"}
    layout = layout_of("", "") | {"margin": {"l": 4, "r": 4, "t": 4, "b": 22}}
    layout["xaxis"] = hidden
    layout["yaxis"] = hidden | {"autorange": "reversed", "scaleanchor": "x"}
    notes = [
        note_at(width / 2, height, say("the record"), "center", "top"),
        note_at(1.5 * width + 2, height, say("out of the update"), "center", "top"),
    ]
    return {"data": [drawn], "layout": layout | {"annotations": notes}}


def finals(runs: Sequence[tuple[str, float]]) -> Figure:
    """Test accuracy of runs at one price: a dot for each, by name."""
    names = list(dict.fromkeys(name for name, _ in runs))
    drawn: list[Figure] = []
    for place, name in enumerate(names):
        values = [100 * accuracy for who, accuracy in runs if who == name]
        drawn.append({
            "type": "scatter", "mode": "markers", "x": numbers(values),
            "y": [len(names) - place] * len(values),
            "marker": {"color": rgba(COLOURS[place % 6], 0.7), "size": 13,
                       "symbol": _SYMBOLS[place]},
            "hovertemplate": f"{say(name)}: %{{x:.1f}}%<extra></extra>",
        })  # fmt: skip
    layout = layout_of(
        say("test accuracy (%)"), "", x={"range": [0, 100]},
        y={"range": [0.4, max(len(names), 1) + 0.6], "zeroline": False,
           "tickvals": list(range(len(names), 0, -1)), "ticktext": [say(name) for name in names]},
    )  # fmt: skip
    layout["annotations"] = [] if runs else [note_in_middle(say("Press Train."))]
    return {"data": drawn, "layout": layout}


def guesses(errors: Sequence[int]) -> Figure:
    """How many guesses were right and wrong, where the record was absent and where present.

    `errors` are false positives, absent, false negatives, present.
    """
    wrong, absent, missed, present = errors
    heads = [say("not in the batch"), say("in the batch")]
    drawn: list[Figure] = []
    for name, values, colour in (
        (say("right"), [absent - wrong, present - missed], COLOURS[0]),
        (say("wrong"), [wrong, missed], COLOURS[1]),
    ):
        drawn.append({
            "type": "bar", "name": name, "x": heads, "y": numbers(values),
            "marker": {"color": colour}, "text": [str(int(v)) for v in values],
            "hovertemplate": f"%{{x}}: %{{y}} {name}<extra></extra>",
        })  # fmt: skip
    layout = layout_of(say("the record was"), say("guesses"), y={"rangemode": "tozero"})
    return {"data": drawn, "layout": layout | {"barmode": "group", "showlegend": True}}
