"""A race at equal budgets: uniform noise against a falling one, trained live."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dpkit.accountants import ZCDP
from dpkit.budgets import RhoBudget
from dpkit.figures import schedules as figures
from dpkit.figures.schedules import Trained
from dpkit.methods import DPSGD
from dpkit.plan import Plan, round_up
from dpkit.samplers import Shuffle
from dpkit.widgets.controls import Buttons, Choice, Progress, Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.schedules import DELTA, MOST, RHO, SHAPES, ZERO
from dpkit.widgets.worker import Worker
from dpkit.words import say

if TYPE_CHECKING:
    from dpkit.datasets import Dataset


class RacePanel(Lesson):
    """Uniform noise against a falling one, trained live at the same budget.

    *Guarantee*
    - both are real runs of `train` under the same budget, from the same weights and seed;
    - accuracy is measured on public test records after every epoch.
    """

    PAUSE: ClassVar = 0.2  # seconds between two pictures

    def __init__(self, data: Dataset | None = None, *, lots: int = 12) -> None:
        """Make the panel; nothing is trained until Train is pressed. `data` None is the digits."""
        self.data, self.lots = data, lots
        self.runs: list[Trained] = []
        self.progress = Progress(label=say("Training"))
        self._of: tuple[Any, ...] = ()
        buttons = Buttons(
            actions=[("train", say("Train"), "primary"), ("stop", say("Stop"), "")],
            disabled=["stop"],
            label=say("Race"),
        )  # fmt: skip
        self._trainer = Worker(self._race, buttons, self.trouble)
        falls = [(say(title), key) for key, (title, _) in SHAPES.items() if key != "Uniform"]
        super().__init__(
            {
                "shape": Choice(label=say("Against uniform noise"), options=falls,
                                value="TimeDecay"),
                "rate": Slider(label=say("Learning rate η"), value=0.3, low=0.02, high=2.0,
                               log=True, ends=(say("small steps"), say("large steps"))),
                "rho": Slider(label=say("Budget ρ of either"), value=RHO, low=0.1, high=3.0,
                              log=True),
                "seeds": Slider(label=say("Runs of either"), value=2, low=1, high=5, integer=True),
                "across": Choice(label=say("Across"),
                                 options=[(say("share of the budget"), "share"),
                                                          (say("epochs"), "epochs")]),
                "race": buttons,
                "progress": self.progress,
            },
            {
                "race": LivePlot(height=320, title=say("Test accuracy while the budget is spent")),
                "finals": LivePlot(height=320, title=say("At the end of the budget")),
            },
            worker=self._trainer,
        )  # fmt: skip

    @property
    def plans(self) -> dict[str, Plan]:
        """The two plans as the controls stand: one budget, two ways to spend it."""
        made = {}
        for key in ("Uniform", self.value("shape")):
            title, shape = SHAPES[key]
            noise = replace(shape, steps_per_epoch=self.lots)
            method = DPSGD(noise, 1.0, float(self.value("rate")))
            budget = RhoBudget(float(self.value("rho")))
            made[title] = Plan(method, Shuffle(self.lots, MOST), DELTA, ZERO, budget=budget)
        return made

    def redraw(self) -> None:
        """Show the runs; other settings begin anew."""
        now = tuple(self.value(name) for name in ("shape", "rate", "rho"))
        if now != self._of:
            self._trainer.stop()
            self._of, self.runs = now, []
        self._show()

    def train(self) -> bool:
        """Begin the race on a thread of its own; False if one is on."""
        return self._trainer.start()

    def _race(self, stop: threading.Event) -> None:
        from dpkit import datasets

        data = self.data or datasets.load("digits")
        with self._drawing:
            if stop.is_set():
                return
            self.runs, plans, seeds = [], self.plans, int(self.value("seeds"))
            self._show()
        try:
            for seed in range(seeds):
                self._both(data, plans, seed, stop)
        finally:
            stop.set()  # no time is left
            with self._drawing:
                self._show()

    def _both(
        self, data: Dataset, plans: dict[str, Plan], seed: int, stop: threading.Event
    ) -> None:
        """One run of each plan; the one that has spent less goes on: they grow side by side."""
        from dpkit import zoo
        from dpkit.training import train

        going: list[tuple[Trained, Iterator[Any]]] = []
        for name, plan in plans.items():
            options: dict[str, Any] = {"seed": seed, "evaluate_every": self.lots}
            steps = train(zoo.mlp(data, seed=seed), data, plan, **options)
            going.append((Trained(name, seed, plan.steps // self.lots), steps))
        with self._drawing:
            self.runs = [*self.runs, *(run for run, _ in going if not stop.is_set())]
        while on := [(run, steps) for run, steps in going if not run.done]:
            run, ahead = min(on, key=lambda one: one[0].share[-1:])
            last = next(step for step in ahead if stop.is_set() or step.step % self.lots == 0)
            with self._drawing:
                if stop.is_set():
                    return
                run.share.append(100 * ZCDP().rho(last.ledger) / float(self.value("rho")))
                run.accuracy.append(last.peek.accuracy)
                if self._trainer.pace.due(self.PAUSE):
                    self._show()

    def _show(self) -> None:
        runs = [run for run in self.runs if run.accuracy]
        names = [title for title, _ in (SHAPES["Uniform"], SHAPES[self.value("shape")])]
        shown = runs or [Trained(name, 0, 100) for name in names]
        now, ends = (
            ", ".join(f"{say(run.name)} {run.accuracy[-1]:.1%}" for run in some)
            for some in (runs, [run for run in runs if run.done])
        )
        self.plots["race"].show(
            figures.race(shown, self.value("across")), now or say("not trained yet")
        )
        self.plots["finals"].show(figures.finals(shown), ends or say("no run has ended yet"))
        wanted = 2 * int(self.value("seeds"))
        part = min(sum(min(len(run.accuracy) / run.epochs, 1) for run in runs) / wanted, 1.0)
        told = say("{done} of {wanted} runs", done=sum(r.done for r in runs), wanted=wanted)
        self.progress.show(part, told + self._trainer.left(part))
        self.said.show(self._words(names))

    def _words(self, names: list[str]) -> str:
        price = round_up(RhoBudget(float(self.value("rho"))).epsilon(DELTA))
        lengths = ", ".join(
            say("{name} for {epochs} epochs", name=say(name), epochs=plan.steps // self.lots)
            for name, plan in self.plans.items()
        )
        text = say(
            "The same budget ρ = {rho:.6g} (ε at most {price}): {lengths}.",
            rho=float(self.value("rho")),
            price=price,
            lengths=lengths,
        )
        done = {n: [r.accuracy[-1] for r in self.runs if r.done and r.name == n] for n in names}
        if not all(done.values()):
            return say(
                "{text} Teaching runs: whoever knows the seed can remove the noise.", text=text
            )
        means = {name: float(np.mean(found)) for name, found in done.items()}
        told = "; ".join(f"**{say(name)} {mean:.1%}**" for name, mean in means.items())
        gap = 100 * (means[names[1]] - means[names[0]])
        few = min(len(found) for found in done.values())
        return say(
            "{text} At its end, mean of {runs}: {told}, a difference of {gap:+.1f} points.",
            text=text,
            runs=few,
            told=told,
            gap=gap,
        )
