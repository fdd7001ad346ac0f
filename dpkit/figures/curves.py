"""Curves of runs against the step: accuracy, loss, planned and spent epsilon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpkit.figures.base import (
    COLOURS,
    DASHES,
    Figure,
    layout_of,
    note_at,
    note_in_middle,
    numbers,
    rounded_up,
    thinned,
)
from dpkit.plan import Curve, round_up
from dpkit.runs import Run
from dpkit.words import say


def accuracy(runs: Sequence[Run], planned: Curve | None = None) -> Figure:
    """Test accuracy in percent against the step; the last run is the present one."""
    lines = [_line(run, run.tested_steps, [100 * a for a in run.accuracy], i, "%{y:.1f}%")
             for i, run in enumerate(runs)]  # fmt: skip
    x, y = _reach(runs, planned), {"range": [0, 101]}
    return {"data": lines, "layout": layout_of(say("step"), say("test accuracy (%)"), x=x, y=y)}


def loss(runs: Sequence[Run], planned: Curve | None = None) -> Figure:
    """Mean test loss (nats) against the step."""
    lines = [_line(run, run.tested_steps, run.test_loss, i, say("loss %{y:.3g}"))
             for i, run in enumerate(runs)]  # fmt: skip
    highest = [max((x for x in run.test_loss if np.isfinite(x)), default=0.0) for run in runs]
    y: Figure = {"rangemode": "tozero"} if 0 < max(highest, default=0) < 50 else {"type": "log"}
    y = y if any(highest) else {"range": [0, 3]}
    x = _reach(runs, planned)
    return {"data": lines, "layout": layout_of(say("step"), say("test loss (nats)"), x=x, y=y)}


def epsilon(planned: Curve | None, runs: Sequence[Run], promise: str = "") -> Figure:
    """Planned epsilon over the steps, and what each run has spent so far growing along it."""
    lines: list[Any] = []
    shapes = {}
    if planned is not None and np.isfinite(planned.epsilon).all():
        lines.append({
            "type": "scatter", "mode": "lines", "name": say("planned"), "x": numbers(planned.steps),
            "y": numbers(planned.epsilon), "line": {"color": "#888888", "width": 2, "dash": "dot"},
            "hovertemplate": say("planned: ε %{customdata} at step %{x}<extra></extra>"),
            "customdata": rounded_up(planned.epsilon),
        })  # fmt: skip
        end = float(planned.epsilon[-1])
        said = say("planned ε = {epsilon}", epsilon=round_up(end))
        shapes["annotations"] = [note_at(float(planned.steps[-1]), end, said, "right", "bottom")]
    elif planned is not None:
        shapes["annotations"] = [note_in_middle(say("ε = ∞: without noise nothing is promised"))]
    lines += [_line(run, run.spent_steps, run.spent, i, say("spent ε %{customdata}"))
              for i, run in enumerate(runs)]  # fmt: skip
    x = _reach(runs, planned)
    layout = layout_of(say("step"), f"ε{promise}", y={"rangemode": "tozero"}, x=x)
    return {"data": lines, "layout": layout | shapes}


def _line(run: Run, x: Sequence[float], y: Sequence[float], index: int, hover: str) -> Figure:
    xs, ys = thinned(x, y)
    colour = COLOURS[index % len(COLOURS)]
    return {
        "type": "scatter", "mode": "lines+markers" if len(xs) < 3 else "lines",
        "name": say("run {number}", number=index + 1), "x": [float(v) for v in xs],
        **({"customdata": rounded_up(ys)} if "customdata" in hover else {}),
        "y": [float(v) for v in ys],
        "line": {"color": colour, "width": 2.5, "dash": DASHES[index % len(DASHES)]},
        "hovertemplate": say("{hover} at step %{{x}}", hover=hover)
        + f"<br>{_wrapped(run.settings)}<extra></extra>",
    }  # fmt: skip


def _reach(runs: Sequence[Run], planned: Curve | None = None) -> Figure:
    """A step axis that spans the longest plan from the start: nothing moves while a run grows."""
    last = max([run.plan.steps for run in runs] + ([int(planned.steps[-1])] if planned else [1]))
    return {"range": [0, last * 1.02 if last > 1 else 2]}


def _wrapped(text: str) -> str:
    words = text.split()
    return "<br>".join(" ".join(words[i : i + 4]) for i in range(0, len(words), 4))
