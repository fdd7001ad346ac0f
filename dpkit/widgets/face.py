"""The playground's face: every part of the panel in its place, and the state told in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpkit.figures import COLOURS, DASHES
from dpkit.knobs import every_knob
from dpkit.plan import round_up
from dpkit.runs import Run
from dpkit.training import Step
from dpkit.widgets import words
from dpkit.widgets.board import Box, Part
from dpkit.widgets.controls import Buttons, Choice, Code, Entry, Note, Progress, Table
from dpkit.widgets.pace import duration
from dpkit.widgets.panel import Controls
from dpkit.widgets.runner import State
from dpkit.widgets.views import Views
from dpkit.words import say

NO_SCENE = "none"


class Face:
    """Lays out controls, plots and notes; knows nothing of privacy or training."""

    def __init__(self, controls: Controls) -> None:
        """Make all parts around the given controls."""
        self.controls, self.views = controls, Views()
        scenes = [(say(v[0]), k) for k, v in words.SCENES.items()]
        self.scene = Choice(
            label=say(words.LABELS["scene"]), options=[(say(words.CHOOSE), NO_SCENE), *scenes]
        )
        self.actions = Buttons(
            actions=[
                (k, say(t), "primary" if k == "train" else "") for k, t in words.ACTIONS.items()
            ],
            disabled=("pause", "stop"),
            label=say(words.ACTIONS_LABEL),
        )
        self.exports = Buttons(
            actions=[(k, say(t), "") for k, t in words.EXPORTS.items()],
            label=say(words.EXPORTS_LABEL),
        )
        self.progress = Progress(label=say(words.PROGRESS), value=0.0, text=say(words.READY))
        self.readout, self.advice, self.trouble = Note(), Note(kind="warning"), Note(kind="error")
        self.promise, self.total, self.saved = Note(kind="info"), Note(), Note()
        self.runs = Table(label=say(words.RUNS), columns=[say(head) for head in words.RUN_COLUMNS])
        self.code = Code(label=say(words.EXPORTS["python"]))
        self.text = Entry(label=say(words.LABELS["settings"]), value=controls.settings.to_string())
        self.children = self._placed()

    def show_step(self, run: Run, step: Step, seconds_left: float, rate: float) -> None:
        """Progress with time left while a run is on."""
        said = say(words.ACCURACY, accuracy=run.accuracy[-1]) if run.accuracy else ""
        text = say(
            words.STEP, step=step.step, steps=step.steps, left=duration(seconds_left), rate=rate,
            accuracy=said, epsilon=round_up(step.epsilon),
        )  # fmt: skip
        self.progress.show(step.step / step.steps, text)

    def show_runs(self, runs: Sequence[Run]) -> None:
        """The kept runs as a table: what the eye compares in the plots."""
        rows = [_row(i, run) for i, run in enumerate(runs)]
        if rows != self.runs.rows:
            self.runs.rows = rows

    def show_state(self, state: State, run: Run | None) -> None:
        """Which buttons can be pressed, and how the latest run stands."""
        busy = state in (State.RUNNING, State.PAUSED)
        self.actions.disable(*(("train",) if busy else ("pause", "stop")))
        pause = say(words.RESUME if state is State.PAUSED else words.ACTIONS["pause"])
        self.actions.actions = [
            [k, pause if k == "pause" else t, style] for k, t, style in self.actions.actions
        ]
        if run is None:
            self.progress.show(0.0, say(words.READY))
        elif state is not State.RUNNING:
            said = say(words.ACCURACY, accuracy=run.accuracy[-1]) if run.accuracy else ""
            spent = run.spent[-1] if run.spent else 0.0
            text = say(
                words.ENDED, state=say(words.STATES[state.value]), done=run.done,
                steps=run.plan.steps,
                seconds=duration(run.seconds), accuracy=said, epsilon=round_up(spent),
            )  # fmt: skip
            self.progress.show(run.done / run.plan.steps, text)

    def _placed(self) -> list[Box | Part]:
        plots = self.views.plots
        left = Box([self.scene, *self.controls.data_side, *self.controls.training_side])
        pictures = Box([*plots.values(), self.runs], "dpk-grid")
        notes = [self.readout, self.advice, self.trouble]
        stage = Box([self.actions, self.progress, *notes, pictures, self.promise, self.total])
        foot = Box([self.text, self.exports, self.saved, self.code], "dpk-column dpk-card")
        return [Box([left, stage], "dpk-sided"), foot]


def _row(index: int, run: Run) -> list[Any]:
    """One run in the table, with the line by which the plots show it."""
    plan = run.plan
    values = {path: value for path, _, value in every_knob(plan.method)}
    batch = plan.sampler.mean_batch(run.num_examples, plan.steps)
    epochs = batch * plan.steps / run.num_examples
    accuracy = f"{run.accuracy[-1]:.1%}" if run.accuracy else "–"
    dash = DASHES[index % len(DASHES)]
    css = "dotted" if "dot" in dash else "dashed" if "dash" in dash else "solid"
    swatch = {"colour": COLOURS[index % len(COLOURS)], "dash": css, "text": f"{index + 1}"}
    return [
        swatch, accuracy, round_up(plan.epsilon()),
        *(_short(values.get(name)) for name in ("noise_multiplier", "max_grad_norm")),
        f"{batch:.0f}", f"{epochs:.3g}",
    ]  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else say("varies")
