"""The playground's face: every part of the panel in its place, and the state told in words."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets

from dpkit.runs import Run
from dpkit.training import Step
from dpkit.widgets import words
from dpkit.widgets.controls import Buttons, Choice, Entry, Note, Progress
from dpkit.widgets.panel import Controls
from dpkit.widgets.runner import State
from dpkit.widgets.views import Views


NO_SCENE = "none"


class Face:
    """Lays out controls, plots and notes; knows nothing of privacy or training."""

    def __init__(self, controls: Controls) -> None:
        """Make all parts around the given controls."""
        self.controls, self.views = controls, Views()
        scenes = [(words.CHOOSE, NO_SCENE), *((v[0], k) for k, v in words.SCENES.items())]
        self.scene = Choice(label=words.LABELS["scene"], options=scenes)
        self.actions = Buttons(
            actions=[(k, t, "primary" if k == "train" else "") for k, t in words.ACTIONS.items()],
            disabled=("pause", "stop"),
            label=words.ACTIONS_LABEL,
        )
        self.exports = Buttons(
            actions=[(k, t, "") for k, t in words.EXPORTS.items()], label=words.EXPORTS_LABEL
        )
        self.progress = Progress(label=words.PROGRESS, value=0.0, text=words.READY)
        self.readout, self.advice, self.trouble = Note(), Note(kind="warning"), Note(kind="error")
        self.promise, self.total, self.saved = Note(kind="info"), Note(), Note()
        self.code = ipywidgets.HTML()
        self.text = Entry(label=words.LABELS["settings"], value=controls.settings.to_string())
        self._boxes: list[ipywidgets.Widget] = []
        self.children = self._placed()

    def show_step(self, run: Run, step: Step, seconds_left: float, rate: float) -> None:
        """Progress with time left while a run is on."""
        said = words.ACCURACY.format(accuracy=run.accuracy[-1]) if run.accuracy else ""
        text = words.STEP.format(
            step=step.step, steps=step.steps, left=duration(seconds_left), rate=rate,
            accuracy=said, epsilon=step.epsilon,
        )  # fmt: skip
        self.progress.show(step.step / step.steps, text)

    def show_state(self, state: State, run: Run | None) -> None:
        """Which buttons can be pressed, and how the latest run stands."""
        busy = state in (State.RUNNING, State.PAUSED)
        self.actions.disable(*(("train",) if busy else ("pause", "stop")))
        pause = words.RESUME if state is State.PAUSED else words.ACTIONS["pause"]
        self.actions.actions = [
            [k, pause if k == "pause" else t, style] for k, t, style in self.actions.actions
        ]
        if run is None:
            self.progress.show(0.0, words.READY)
        elif state is not State.RUNNING:
            said = words.ACCURACY.format(accuracy=run.accuracy[-1]) if run.accuracy else ""
            spent = run.spent[-1] if run.spent else 0.0
            text = words.ENDED.format(
                state=state.value.capitalize(), done=run.done, steps=run.plan.steps,
                seconds=duration(run.seconds), accuracy=said, epsilon=spent,
            )  # fmt: skip
            self.progress.show(run.done / run.plan.steps, text)

    def show_code(self, code: str) -> None:
        """Lines of Python, to be selected and copied."""
        text = f"<pre class='dpkit-code' tabindex='0'>{escape(code)}</pre>" if code else ""
        self.code.value = text

    def close(self) -> None:
        """Close every part."""
        self.views.close()
        self.controls.close()
        parts = [
            self.scene, self.actions, self.exports, self.progress, self.readout, self.advice,
            self.trouble, self.promise, self.total, self.saved, self.code, self.text,
        ]  # fmt: skip
        for widget in [*parts, *self._boxes]:
            widget.close()

    def _placed(self) -> list[ipywidgets.Widget]:
        plots = self.views.plots
        left = self._box(
            "dpkit-settings", self.scene, *self.controls.data_side, *self.controls.training_side
        )
        upper = self._box("dpkit-plots", plots["accuracy"], plots["epsilon"])
        lower = self._box("dpkit-plots", plots["picture"], plots["loss"], plots["norms"])
        head = self._box("dpkit-head", self.actions, self.progress)
        right = self._box(
            "dpkit-stage", head, self.readout, self.advice, self.trouble, upper, lower,
            self.promise, self.total,
        )  # fmt: skip
        body = self._box("dpkit-body", left, right)
        foot = self._box("dpkit-foot", self.text, self.exports, self.saved, self.code)
        style = ipywidgets.HTML(f"<style>{_STYLE}</style>")
        style.layout.display = "none"
        self._boxes.append(style)
        return [style, body, foot]

    def _box(self, name: str, *children: Any) -> ipywidgets.Box:
        box = ipywidgets.Box(list(children))
        box.add_class(name)
        self._boxes.append(box)
        return box


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


_STYLE = """
.dpkit-body { display: flex; flex-flow: row wrap; gap: 20px; align-items: flex-start; }
.dpkit-settings { display: flex; flex-flow: column; gap: 6px; flex: 0 1 280px; min-width: 240px; }
.dpkit-stage { display: flex; flex-flow: column; gap: 8px; flex: 1 1 520px; min-width: 0; }
.dpkit-head { display: flex; flex-flow: row wrap; gap: 12px; align-items: center; }
.dpkit-head > :last-child { flex: 1 1 260px; }
.dpkit-plots { display: grid; gap: 10px;
  grid-template-columns: repeat(auto-fit, minmax(min(260px, 100%), 1fr)); width: 100%; }
.dpkit-plots > * { min-width: 0; }
.dpkit-foot { display: flex; flex-flow: column; gap: 6px; margin-top: 8px; }
.dpkit-code { padding: 8px 12px; margin: 0; overflow-x: auto; font-size: 12px; line-height: 1.5;
  background: var(--jp-layout-color2, #eee); border-radius: 4px; user-select: all; }
@media (max-width: 700px) { .dpkit-settings { flex: 1 1 100%; } }
"""
