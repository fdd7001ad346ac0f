"""A generator at work: images appear while teachers vote and the budget is spent."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from dpkit.figures import votes as figures
from dpkit.plan import round_up
from dpkit.votes.plan import VotePlan
from dpkit.widgets.controls import Buttons, Progress, Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.worker import Worker
from dpkit.words import marked, say

if TYPE_CHECKING:
    from dpkit.datasets import Dataset
    from dpkit.datasets.components import Projection
    from dpkit.votes.running import VoteStep

COORDINATES, IMAGES, DELTA, MADE, JITTER, CLIP = 20, 10, 1e-5, 2_000, 1.5, 15.0
ROWS = 6
"""Images of each class that are shown."""


class PainterPanel(Lesson):
    """8x8 digits that nobody wrote: teachers vote live, the generator follows.

    *Guarantee*
    - a real run of `generate`: the noise is solved for the budget and the number of steps, and
      every step is charged before its votes are drawn;
    - a run goes by the controls as they stood at Start: whoever turns one ends it;
    - the classifier that is told at the end learnt from generated images alone.
    """

    PAUSE: ClassVar = 0.2  # seconds between two pictures

    def __init__(self, seed: int = 0) -> None:
        """Make the panel; nothing runs until Start is pressed."""
        self.seed = seed
        self.last: VoteStep | None = None
        self.worth: dict[str, float] = {}
        self._of: tuple[Any, ...] = ()
        self.progress = Progress(label=say("Progress"))
        buttons = Buttons(actions=[("start", say("Start"), "primary"), ("stop", say("Stop"), "")],
                          disabled=["stop"], label=say("Generator"))  # fmt: skip
        self._painter = Worker(self._paint, buttons, self.trouble)
        super().__init__(
            {
                "budget": Slider(label=say("Budget ε"), value=10.0, low=0.5, high=50.0, log=True,
                                 ends=(say("private"), say("sharp"))),
                "teachers": Slider(label=say("Teachers N"), value=100, low=20, high=1000, log=True,
                                   integer=True, ends=(say("wise"), say("many"))),
                "top_k": Slider(label=say("Coordinates voted on k"), value=COORDINATES, low=1,
                                high=COORDINATES, integer=True),
                "steps": Slider(label=say("Generator steps T"), value=100, low=10, high=400,
                                log=True,
                                integer=True, ends=(say("less noise"), say("more votes"))),
                "threshold": Slider(label=say("Threshold β"), value=0.0, low=0.0, high=0.6,
                                    ends=(say("all move"), say("few move"))),
                "copies": Slider(label=say("Teachers that hold one record r"), value=1, low=1,
                                 high=4, integer=True, ends=(say("disjoint"), say("overlapping"))),
                "run": buttons,
                "progress": self.progress,
            },
            {
                "images": LivePlot(height=330, title=say("Generated digits")),
                "spending": LivePlot(height=330, title=say("What the steps cost")),
            },
            worker=self._painter,
        )  # fmt: skip

    @property
    def plan(self) -> VotePlan:
        """The plan as the controls stand: the least noise that affords all the steps."""
        names = ("teachers", "top_k", "threshold", "budget", "copies")
        values = {name: self.value(name) for name in names}
        plan = VotePlan(noise=1e6, images=IMAGES, delta=DELTA, **values)
        return plan.calibrated(int(self.value("steps")))

    def redraw(self) -> None:
        """Show the run; other settings begin anew."""
        now = tuple(c.value for c in self.controls.values() if isinstance(c, Slider))
        if now != self._of:
            self._painter.stop()
            self._of, self.last, self.worth = now, None, {}
        self._show()

    def start(self) -> bool:
        """Begin a run; False if one is on."""
        return self._painter.start()

    def _paint(self, stop: threading.Event) -> None:
        from dpkit.votes import Discriminator, Generator, generate

        with self._drawing:
            if stop.is_set():
                return
            self.last, self.worth, plan = None, {}, self.plan
            self._show()
        data, basis = _digits()
        moves, critic = Generator(2, 16, spread=0.5, start_spread=0.5), Discriminator(width=40.0)
        try:
            for step in generate(data, plan, basis=basis, discriminator=critic, generator=moves,
                                 seed=self.seed):  # fmt: skip
                with self._drawing:
                    if stop.is_set():
                        break
                    self.last = step
                    if self._painter.pace.due(self.PAUSE):
                        self._show()
        finally:
            stop.set()  # no time is left
            with self._drawing:
                self._show()
                last = self.last
        if last is not None:  # also where it was stopped: what are its images good for?
            self.progress.show(self.progress.value, say("classifiers learn from the images"))
            worth = _worth(last, plan.budget)
            with self._drawing:
                if self.last is last:
                    self.worth = worth
                    self._show()

    def _show(self) -> None:
        plan, last = self.plan, self.last
        done = 0 if last is None else last.step
        spent = round_up(plan.epsilon(done)) if done else "0"
        self.plots["images"].show(figures.grid(self._images(), 8), self._told(plan, done))
        lines = [(say("disjoint shards") if plan.copies == 1 else
                  say("{number} teachers hold a record", number=plan.copies),
                  plan.curve())]  # fmt: skip
        figure = figures.spending(lines, plan.budget, done, plan.steps)
        self.plots["spending"].show(
            figure, say("epsilon {epsilon} after {steps} steps", epsilon=spent, steps=done)
        )
        told = say("{done} of {steps}, ε spent {epsilon}", done=done, steps=plan.steps,
                   epsilon=spent)  # fmt: skip
        share = done / plan.steps
        self.progress.show(share, told + self._painter.left(share))
        self.said.show(self._told(plan, done))

    def _images(self) -> list[Any]:
        import torch

        data, basis = _digits()
        labels = torch.arange(10 * ROWS) % 10
        if self.last is None or self.last.painter is None:
            return [basis.centre] * len(labels)
        stream = torch.Generator().manual_seed(1)
        return list(basis.images(self.last.painter.drawn(labels, stream)[1]))

    def _told(self, plan: VotePlan, done: int) -> str:
        left = plan.steps - done
        text = say(
            "σ = {sigma:.4g} votes buys {steps} steps of {images} images within ε = "
            "{budget:g}; {left} steps are left. Teaching run: whoever knows the seed can "
            "remove the noise.",
            sigma=plan.noise,
            steps=plan.steps,
            images=IMAGES,
            budget=plan.budget,
            left=left,
        )
        if not self.worth:
            return text
        found = ", ".join(f"{say(name)} **{value:.1%}**" for name, value in self.worth.items())
        return say(
            "{text}\n\nAccuracy on real test digits of a classifier that learnt from {found}.",
            text=text,
            found=found,
        )


@cache
def _digits() -> tuple[Dataset, Projection]:
    from dpkit import datasets
    from dpkit.votes import stroke_basis

    data = datasets.load("digits")
    return data, stroke_basis(data, COORDINATES)


def _worth(last: VoteStep, budget: float) -> dict[str, float]:
    """Accuracies on real test digits: generated images, noisy class means, the real images."""
    import torch

    from dpkit.votes import ClassMeans, Judge

    (data, basis), judge = _digits(), Judge(jitter=JITTER)
    test = basis.features(data.test_inputs), data.test_targets
    rows = basis.features(data.inputs)
    labels = torch.arange(MADE) % 10
    assert last.painter is not None
    made = last.painter.drawn(labels, torch.Generator().manual_seed(2))[1]
    plain = ClassMeans(1.0, CLIP).calibrated(budget, DELTA)
    means = plain.means(rows, data.targets, 10, data.num_examples, seed=last.steps)
    sets = {
        marked("the generated images"): (made, labels),
        marked("class means with noise at the same ε"):
        (means[labels], labels), marked("the real images"): (rows, data.targets),
    }  # fmt: skip
    return {name: judge.worth(some, test, 10).accuracy for name, some in sets.items()}
