"""The playground: turn the knobs, press Train, watch accuracy and epsilon move."""

from __future__ import annotations

import functools
import itertools
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpkit import datasets, figures
from dpkit.plan import Plan
from dpkit.runs import Run
from dpkit.settings import Settings, fitting
from dpkit.training import Step
from dpkit.widgets import words
from dpkit.widgets.board import Board
from dpkit.widgets.cells import replace_in_cell
from dpkit.widgets.face import NO_SCENE, Face
from dpkit.widgets.panel import TOYS, Controls
from dpkit.widgets.runner import State
from dpkit.widgets.session import Session, rate_for_cores
from dpkit.widgets.told import retold
from dpkit.words import say

if TYPE_CHECKING:
    import torch

    from dpkit.datasets import Dataset

_EXPECTED = (ValueError, TypeError, OSError, ImportError)


class Playground(Board):
    """An interactive panel: real private training with a planned and a spent epsilon.

    `Playground()` starts on the built-in digits. `data` takes a `Dataset` or a pair of tensors,
    `model` a factory `(data, seed) -> Module` or a Module, which is copied for each run.
    `settings` is a short string as the panel shows it.

    *Guarantee*
    - the planned epsilon follows every control before any data are touched;
    - one run at a time; `stop` takes effect after the present step;
    - an error of a callback or of the training is shown in the panel and raised by `check`.
    """

    def __init__(
        self,
        data: Dataset | tuple[Any, Any] | None = None,
        model: Callable[..., torch.nn.Module] | torch.nn.Module | None = None,
        settings: str | Settings = "",
        *,
        device: str | None = None,
        updates_per_second: float | None = None,
    ) -> None:
        """Build the panel; `updates_per_second` defaults to 8, to 4 where cores are scarce."""
        asked = Settings.from_string(settings) if isinstance(settings, str) else settings
        found = _dataset(data, asked)
        if data is not None:
            asked = asked.turned("data", found.name)
        asked = fitting(asked, found)
        pause = 1 / (updates_per_second or rate_for_cores())
        self.error: Exception | None = None
        self._first, self._loaded = asked, (asked.data, asked.num_examples)
        self._loader: threading.Thread | None = None
        self.session = Session(
            found, model, device, pause, self._on_drawn, self._tell, self._on_ended
        )
        self.session.replan(asked)
        self.controls = Controls(
            asked, self._turned, self._refused, own_data=data is not None, own_model=bool(model)
        )
        self.face = Face(self.controls)
        super().__init__(self.face.children, "dpkit-playground")
        self._listen()
        self._show_plan()
        self._redraw()
        self._tell()
        replace_in_cell(self)

    @property
    def settings(self) -> Settings:
        """The settings as they stand on the controls."""
        return self.controls.settings

    @property
    def plan(self) -> Plan:
        """The plan in force: what the next run is going to cost."""
        return self.session.plan

    @property
    def runs(self) -> list[Run]:
        """The runs kept for comparison, the latest last."""
        return self.session.runs

    def load(self, text: str) -> None:
        """Put the settings of a short string on the controls."""
        self.controls.show(Settings.from_string(text))
        self._turned(self.controls.settings)

    def start(self) -> bool:
        """Begin a run with the present settings; False if one is on or data are loading."""
        if self._loading():
            return False
        if self.error is not None:
            # Never train another plan than the one that the controls show.
            self.session.replan(self.settings)
        started = self.session.start(self.settings)
        self._tell()
        return started

    def pause(self) -> None:
        """Pause the run, or go on with a paused one."""
        self.session.runner.pause()
        self._tell()

    def stop(self) -> None:
        """Stop the run after the present step."""
        self.session.runner.stop()

    def reset(self) -> None:
        """Stop, forget the kept runs, go back to the first settings; what is spent stays."""
        self.session.forget()
        self.controls.show(self._first)
        self._turned(self._first)
        self._redraw()
        self._tell()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for loading data and for the present run; False if the time ran out."""
        if self._loader is not None and self._loader is not threading.current_thread():
            self._loader.join(timeout)
        return self.session.runner.join(timeout)

    def check(self) -> None:
        """Raise the latest error that the panel showed, if there was one."""
        if self.error is not None:
            raise self.error
        self.face.views.check()

    def python(self) -> str:
        """The lines of Python that repeat the run that the controls describe."""
        return self.settings.to_python(self.plan)

    def save_run(self, path: str | Path) -> Path:
        """Write the latest run as JSON."""
        if self.session.run is None:
            raise ValueError(say("There is no run to save yet; press Train first."))
        return self.session.run.save(path)

    def save_weights(self, path: str | Path) -> Path:
        """Write the trained weights alone: nothing that is not private goes with them."""
        return self.session.save_weights(path)

    def save_html(self, path: str | Path) -> Path:
        """Write the plots and the guarantee as one page that needs no network."""
        text = f"{self._promise()} {say(words.SETTINGS, text=self.settings.to_string())}"
        page = figures.as_html(self.face.views.named(), "dpkit playground", text)
        Path(path).write_text(page, "utf-8")
        return Path(path)

    def close(self) -> None:
        """Stop the run and remove the panel with all it holds."""
        if hasattr(self, "session"):  # not where the panel was refused: nothing has begun
            self.session.runner.stop()
            self.session.runner.join(5)
        super().close()

    def _listen(self) -> None:
        face = self.face
        face.scene.observe(self._safe(self._on_scene), "value")
        face.text.observe(self._safe(self._on_text), "value")
        face.actions.on_click(self._safe(self._on_action))
        face.exports.on_click(self._safe(self._on_export))

    def _safe(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """An exception of a callback is shown and kept, never lost."""

        @functools.wraps(callback)
        def safe(change: Any) -> None:
            try:
                callback(change)
            except Exception as error:
                self._refused(error)

        return safe

    def _refused(self, error: Exception) -> None:
        self.error = error
        self.face.trouble.show(str(error) or type(error).__name__, "error")
        if not isinstance(error, _EXPECTED):
            traceback.print_exception(error)

    def _turned(self, settings: Settings) -> None:
        """Follow the controls: other data if need be, then the new plan at once."""
        try:
            if (settings.data, settings.num_examples) != self._loaded:
                self._load_data(settings)
            if not self._loading():
                self.session.replan(self.settings)
                self._show_plan()
            self.face.text.value = self.settings.to_string()
        except Exception as error:
            self._refused(error)

    def _on_scene(self, change: Any) -> None:
        if change["new"] != NO_SCENE:
            _, text, advice = words.SCENES[change["new"]]
            self.load(text)
            self.face.advice.show(say(advice), "info")

    def _on_text(self, change: Any) -> None:
        if change["new"] != self.settings.to_string():
            self.load(change["new"])

    def _on_action(self, name: str) -> None:
        getattr(self, {"train": "start"}.get(name, name))()

    def _on_export(self, name: str) -> None:
        if name == "python":
            self.face.code.text = self.python()
            return
        save, ending = {
            "html": (self.save_html, "html"),
            "json": (self.save_run, "json"),
            "weights": (self.save_weights, "pt"),
        }[name]
        stem = f"dpkit-{self.session.data.name}-{len(self.session.budget.plans)}"
        saved = save(_unused(Path(f"{stem}.{ending}")))
        self.face.saved.show(say(words.SAVED, name=saved.name))

    def _loading(self) -> bool:
        loader = self._loader
        return bool(loader and loader.is_alive() and loader is not threading.current_thread())

    def _load_data(self, settings: Settings) -> None:
        if self._loading():
            return
        self._loaded = settings.data, settings.num_examples
        if settings.data in (*TOYS, "digits"):
            self._take(_dataset(None, settings))
            return
        # Big sets are read, or downloaded, off the main thread: the controls stay alive.
        self.face.progress.show(None, say(words.LOADING, name=settings.data))
        self._loader = threading.Thread(target=self._load_slowly, args=(settings,), daemon=True)
        self._loader.start()

    def _load_slowly(self, settings: Settings) -> None:
        try:
            self._take(_dataset(None, settings))
        except Exception as error:
            # Nothing is lost: the panel goes back to the data that it has.
            back = self.settings.turned("data", self.session.data.name)
            self._loaded = back.data, back.num_examples
            self.controls.show(back)
            self._turned(back)
            self._refused(error)
        else:
            self._turned(self.settings)
        self._tell()

    def _take(self, data: Dataset) -> None:
        self.session.take(data)
        settings = fitting(self.settings, data)
        if settings != self.settings:
            self.controls.show(settings)
        self._redraw()
        self._tell()

    def _show_plan(self) -> None:
        session, face = self.session, self.face
        plan = session.plan
        face.views.price(session.planned, session.runs, plan.delta)
        face.readout.show(session.told())
        cautions = plan.cautions(session.data.num_examples)
        face.advice.show(" ".join(retold(caution) for caution in cautions), "warning")
        self.error = None
        face.trouble.clear()
        if not session.runner.busy:
            face.promise.show(self._promise(), "info")

    def _redraw(self) -> None:
        session = self.session
        self.face.views.draw(
            session.runs, session.planned, session.plan.delta, session.last, session.model,
            session.data, moving=session.runner.busy,
        )  # fmt: skip
        self.face.show_runs(session.runs)

    def _on_drawn(self, step: Step) -> None:
        self._redraw()
        left, rate = self.session.seconds_left(step)
        self.face.show_step(self.runs[-1], step, left, rate)

    def _on_ended(self, state: State, failure: Exception | None) -> None:
        try:
            self._redraw()
        except Exception as error:
            failure = failure or error
        if failure is not None:
            self._refused(failure)
        self._tell()

    def _tell(self) -> None:
        session = self.session
        if not self._loading():
            self.face.show_state(session.runner.state, session.run)
        self.face.promise.show(self._promise(), "info")
        self.face.total.show(session.budget.text(session.data))

    def _promise(self) -> str:
        run = self.session.run
        if run is not None and self.session.runner.state is not State.IDLE:
            return retold(run.guarantee)
        return retold(self.plan.guarantee(seeded=self.settings.seed is not None))


def _dataset(data: Any, settings: Settings) -> Dataset:
    if data is None:
        return datasets.load(settings.data, num_examples=settings.num_examples)
    return data if isinstance(data, datasets.Dataset) else datasets.Dataset.of(*data)


def _unused(path: Path) -> Path:
    """The path, or the same with a number: a saved file never replaces another."""
    others = (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2))
    return next(p for p in itertools.chain([path], others) if not p.exists())
