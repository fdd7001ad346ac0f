"""The explorer: many runs on the privacy-utility plane, filled while a sweep goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from dpkit.figures import curves
from dpkit.figures import sweeps as figures
from dpkit.figures.sweeps import Cloud, Point
from dpkit.plan import round_up
from dpkit.sweeping import Record, Store, Sweep, export
from dpkit.widgets.controls import Buttons, Choice, Code, Note, Progress, Slider, guarded
from dpkit.widgets.explorer_prices import attempts, cost, spent
from dpkit.widgets.explorer_stored import file_of, finished
from dpkit.widgets.explorer_words import label, labels, named, text_of, unlike, unshown
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.pace import remaining
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.told import retold
from dpkit.widgets.worker import Worker
from dpkit.words import say

ALL, NONE = "all", "none"
_MOST_AXES = 6


class Explorer(Lesson):
    """Runs as dots on the plane of epsilon and accuracy; choose one and see all of it.

    `source` is a `Sweep`, whose runs are made when Start is pressed, a `Store`, the path of one or
    of a file of `sweeping.export.to_json`, or finished records.

    *Guarantee*
    - a dot is a run that was trained and tested; its epsilon is its plan's price;
    - what all runs cost together is composed over every attempt, shown or not.
    """

    PAUSE: ClassVar = 0.3  # seconds between two pictures while runs come in

    def __init__(self, source: Sweep | Store | Iterable[Record] | str | Path) -> None:
        """Make the panel; runs that are finished already are on it at once."""
        self.sweep = source if isinstance(source, Sweep) else None
        self._records: dict[str, Record] = {}
        self._points: dict[str, Point] = {}
        self._all, self._gathered, self._unshown = Cloud([]), 0, ""
        self._chosen, self._shown, self._priced = "", "", 0
        self._adding = threading.RLock()
        self._file = file_of(source)
        for record in finished(source):
            self._add(record)
        self.progress = Progress(label=say("Runs"))
        self.progress.shown = self.sweep is not None
        self.code, self.promise = Code(label=say("Python that repeats it")), Note()
        self.cost = Note(kind="info")
        buttons = Buttons(
            actions=[("start", say("Start"), "primary"), ("stop", say("Stop"), "")],
            disabled=["stop"], label=say("Sweep"),
        )  # fmt: skip
        buttons.shown = self.sweep is not None
        self._maker = Worker(self._make, buttons, self.trouble)
        super().__init__(
            {
                "sweep": buttons,
                "progress": self.progress,
                "colour": Choice(label=say("Colour by"), options=[(say("nothing"), NONE)]),
                "by": Choice(label=say("Compare by"), options=[(say("nothing"), NONE)]),
                "knob": Choice(label=say("Show only where"), options=[(say("everything"), NONE)]),
                "value": Choice(label=say("it is"), options=[(say("all"), ALL)]),
                "run": Slider(label=say("Run on the frontier"), value=1, low=1, high=2,
                              integer=True,
                              help=say("Arrow keys walk along the frontier from cheap to dear")),
            },
            {
                "plane": LivePlot(height=360, title=say("Accuracy against privacy")),
                "knobs": LivePlot(height=260, title=say("Every run through its knobs")),
                "compared": LivePlot(height=280, title=say("Frontiers, mean over seeds ± 95%")),
                "accuracy": LivePlot(height=280, title=say("The selected run: accuracy")),
                "epsilon": LivePlot(height=280, title=say("The selected run: ε spent")),
            },
            self.promise, self.cost, self.code,
            wide=("plane", "knobs", "compared"), worker=self._maker,
        )  # fmt: skip
        self.plots["plane"].on_point(guarded(self.trouble)(self._chosen_dot))

    @property
    def cloud(self) -> Cloud:
        """The runs that the filter lets through."""
        knob, value = self.value("knob"), self.value("value")
        if knob == NONE or value == ALL:
            return self._all
        there = (v for v in self._all.values(knob) if repr(v) == value)
        return next((self._all.where(knob, v) for v in there), self._all)

    @property
    def selected(self) -> Record | None:
        """The run whose curves and code are shown."""
        return self._records.get(self._chosen)

    def select(self, key: str) -> None:
        """Show one run by its key."""
        if key not in self._points:
            raise KeyError(f"There is no finished run {key!r} here.")
        with self._drawing:
            self._chosen = key
            self._show_all(self.cloud)

    def redraw(self) -> None:
        """Follow the controls; the slider walks the frontier of what is shown."""
        with self._adding:
            if self._gathered != len(self._records):
                self._gathered = len(self._records)
                self._all = Cloud(list(self._points.values()))
                self._unshown = unshown(self._held(), len(self._all))
        self._offer()
        cloud = self.cloud
        walk = self.controls["run"]
        assert isinstance(walk, Slider)
        walk.high = max(2, len(cloud.frontier))
        if cloud.frontier:
            place = min(int(walk.value), len(cloud.frontier)) - 1
            self._chosen = cloud.points[cloud.frontier[place].best].key
        self._show_all(cloud)

    def afterwards(self) -> Iterator[Callable[[], None]]:
        """The parallel axes and the total cost, which take longer."""
        cloud = self.cloud
        names = cloud.varying[:_MOST_AXES]
        drawn = figures.parallel(cloud, names, labels(), why=self._unshown)
        yield lambda: self._show_knobs(drawn, names)
        held = self._held()
        if (known := attempts(held, self._file)) != self._priced:
            said = cost(held, self._file)
            yield lambda: self._show_cost(said, known)

    def start(self) -> bool:
        """Make the sweep's runs on a thread of their own; False if that is going on."""
        return self.sweep is not None and self._maker.start()

    def stop(self) -> None:
        """Stop after the next finished run; what is finished stays in the store."""
        self._maker.stop()

    def close(self) -> None:
        """Stop the sweep and remove the panel."""
        if "_maker" not in self.__dict__:  # refused before it was made
            return
        if self.sweep is not None:
            self._maker.close(30)
            self.sweep.close()
        super().close()

    def save_csv(self, path: str | Path) -> Path:
        """Write the finished runs as a table."""
        return export.to_csv(self._held(), path)

    def _chosen_dot(self, place: int, _: float | None) -> None:
        self.select(self.cloud.points[place].key)

    def _make(self, stop: threading.Event) -> bool:
        """Make the runs; True if none is left."""
        sweep = self.sweep
        assert sweep is not None
        try:
            for record in sweep:
                self._add(record)
                if self._maker.pace.due(self.PAUSE):
                    self._turned(None)
                    self._tell(sweep, sweep.seconds_left)
                if stop.is_set():
                    break
        finally:
            self._turned(None)
            self._tell(sweep)
        return sweep.finished + sweep.set_aside >= sweep.total

    def _tell(self, sweep: Sweep, left: float | None = None) -> None:
        text = say("{finished} of {total} runs", finished=sweep.finished, total=sweep.total)
        text += say(", {number} set aside", number=sweep.set_aside) if sweep.set_aside else ""
        text += remaining(left) if left else ""
        self.progress.show((sweep.finished + sweep.set_aside) / max(1, sweep.total), text)

    def _add(self, record: Record) -> None:
        with self._adding:
            self._records[record.key] = record
            if record.state == "finished" and record.accuracy is not None:
                self._points[record.key] = export.point(record)

    def _held(self) -> list[Record]:
        with self._adding:
            return list(self._records.values())

    def _offer(self) -> None:
        """Offer the knobs in which the runs differ."""
        cloud = self._all
        pairs = [(label(name), name) for name in cloud.varying]
        self._choice("colour").offer([(say("nothing"), NONE), *pairs])
        self._choice("knob").offer([(say("everything"), NONE), *pairs])
        few = [pair for pair in pairs if len(cloud.values(pair[1])) <= len(figures.COLOURS)]
        self._choice("by").offer([(say("nothing"), NONE), *few])
        knob = self.value("knob")
        values = cloud.values(knob) if knob != NONE else []
        self._choice("value").offer([(say("all"), ALL), *((text_of(v), repr(v)) for v in values)])

    def _choice(self, name: str) -> Choice:
        control = self.controls[name]
        assert isinstance(control, Choice)
        return control

    def _show_all(self, cloud: Cloud) -> None:
        by, colour = self.value("by"), self.value("colour")
        drawn = figures.plane(
            cloud, "" if colour == NONE else colour, self._chosen, labels(), why=self._unshown
        )
        edge = cloud.in_words if len(cloud) else self._unshown or cloud.in_words
        self.plots["plane"].show(drawn, edge)
        parts = {say("all runs"): cloud}
        if by != NONE:
            parts = {named(by, v): cloud.where(by, v) for v in cloud.values(by)}
        self.plots["compared"].show(figures.compared(parts), edge)
        words = (self._words(cloud), self._unshown, unlike(cloud))
        self.said.show(" ".join(filter(None, words)))
        for name in ("accuracy", "epsilon"):
            self.plots[name].shown = self.selected is not None
        if (record := self.selected) is not None and self._shown != record.key:
            self._shown = record.key
            self._show_run(record)

    def _show_run(self, record: Record) -> None:
        run = record.run
        assert record.epsilon is not None
        ends = say(
            "{accuracy:.1%} at ε {epsilon}",
            accuracy=record.accuracy,
            epsilon=round_up(record.epsilon),
        )
        self.plots["accuracy"].show(
            curves.accuracy([run]), say("{ends} after {steps:,} steps", ends=ends, steps=run.done)
        )
        self.plots["epsilon"].show(spent(record), ends)
        self.promise.show(
            say(
                "**The selected run** (seed {seed}): {guarantee}",
                seed=record.seed,
                guarantee=retold(run.guarantee),
            )
        )
        self.code.text = export.python(record)

    def _show_cost(self, said: str, priced: int) -> None:
        self._priced = priced
        self.cost.show(said, "info")

    def _show_knobs(self, drawn: dict[str, Any], names: list[str]) -> None:
        said = ", ".join(label(name) for name in names) or say("no knob differs yet")
        self.plots["knobs"].show(drawn, say("axes: {names}, epsilon, accuracy", names=said))

    def _words(self, cloud: Cloud) -> str:
        if not len(cloud) and self._unshown:
            return ""
        if not len(cloud):
            begin = (
                say("Press **Start**: every dot will be a real training run.") if self.sweep else ""
            )
            return say("No finished run yet. {begin}", begin=begin)
        return say(
            "**{runs:,} runs** of {plans:,} plans. The line is the frontier of the mean over "
            "seeds: no cheaper plan reached as much. Choosing from it by test accuracy is a "
            "look at the test records, and every dot was paid for.",
            runs=len(cloud),
            plans=len(cloud.means),
        )
