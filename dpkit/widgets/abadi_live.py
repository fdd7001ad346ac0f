"""The founding experiment live: three noise levels side by side, at reduced length."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit import abadi, datasets
from dpkit.datasets import known
from dpkit.figures import abadi as pictures
from dpkit.figures.basics import short
from dpkit.plan import Curve, Plan, round_up
from dpkit.widgets.abadi_stored import stored
from dpkit.widgets.controls import Buttons, Choice, Progress, Slider, Table, guarded
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.told import retold
from dpkit.widgets.worker import Worker
from dpkit.words import marked, say

if TYPE_CHECKING:
    from torch import nn

    from dpkit.datasets import Dataset
    from dpkit.training import Step

LOOKS, EYED, SHARES = 25, 5_000, (2.0, 1.0, 0.5)
"""Looks at the accuracy, training records that are looked at, and the three noises over yours."""
DEFAULTS = {"mnist": (600, 5, 4.0), "digits": (60, 20, 2.0)}
"""Lot, epochs and noise by data set: well under a minute on one core."""
PCA_NOISE = 7.0


@dataclass
class Trained:
    """One noise level: its plan, what it will cost, and what has been seen of it."""

    experiment: abadi.Experiment
    plan: Plan
    planned: Curve
    rate: float
    epochs: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    paid: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The noise, as the legend says it."""
        return f"σ = {self.experiment.noise_multiplier:.3g}"

    @property
    def level(self) -> pictures.Level:
        """As it is drawn."""
        return pictures.Level(
            self.name, self.epochs, self.test, self.train, self.epochs, self.paid,
            self.planned.steps * self.rate, self.planned.epsilon,
        )  # fmt: skip


class LivePanel(Lesson):
    """Three runs that differ in the noise alone, trained together while you watch.

    *Guarantee*
    - every run is a real one by `train`, on true Poisson lots; its plan is priced before it begins;
    - a run goes by the controls as they stood at Train: whoever turns one stops it, and its lines
      stay for comparison, in grey.
    """

    def __init__(self, data: str | None = None, seed: int = 0) -> None:
        """Make the panel; MNIST if it is at hand, else the digits. Nothing runs until Train."""
        self.seed, self.runs, self.before = seed, list[Trained](), list[Trained]()
        name = data or ("mnist" if known.KNOWN["mnist"].at_hand() else "digits")
        self.buttons = Buttons(
            actions=[("train", say("Train"), "primary"), ("stop", say("Stop"), "")],
            disabled=["stop"],
            label=say("Training"),
        )  # fmt: skip
        self._trainer = Worker(self._train, self.buttons, self.trouble)
        self.progress = Progress(label=say("Progress"), text=say("ready"))
        self.numbers = Table(label=say("The three runs"), columns=[say(head) for head in _COLUMNS])
        sliders = self._sliders(name)
        # Heard before the panel draws: another data set has a lot and a length of its own.
        sliders["data"].observe(guarded(self.trouble)(self._other_data), "value")
        super().__init__(
            sliders | {"buttons": self.buttons, "progress": self.progress},
            {
                "accuracy": LivePlot(height=320, title=say("Test accuracy, and training as dots")),
                "epsilon": LivePlot(height=320, title=say("Planned ε, and what is spent")),
            },
            self.numbers, worker=self._trainer,
        )  # fmt: skip

    def _sliders(self, name: str) -> dict[str, Any]:
        lot, epochs, noise = DEFAULTS[name]
        return {
            "data": Choice(label=say("Data"), options=["mnist", "digits"], value=name),
            "noise": Slider(label=say("Noise σ in the middle"), value=noise, low=0.5, high=16.0,
                            log=True, ends=(say("accurate"), say("private")),
                            help=say("the others have 2σ and σ/2")),
            "clip": Slider(label=say("Clip norm C"), value=4.0, low=0.1, high=20.0, log=True,
                           ends=(say("bias"), say("noise"))),
            "together": Choice(label=say("Clipped"), value="layers",
                               options=[(say("each layer by itself"), "layers"),
                                        (say("both layers together"), "together")]),
            "lot": Slider(label=say("Lot L"), value=lot, low=10, high=min(6000, SIZES[name]),
                          log=True, integer=True, unit=say("records")),
            "rate": Slider(label=say("Learning rate η"), value=0.1, low=0.005, high=1.0, log=True,
                           ends=(say("slow"), say("wild"))),
            "hidden": Slider(label=say("Hidden units h"), value=1000, low=10, high=2000, log=True,
                             integer=True),
            "epochs": Slider(label=say("Epochs E"), value=epochs, low=1, high=40, log=True,
                             integer=True, ends=(say("quick"), say("long"))),
        }  # fmt: skip

    @property
    def size(self) -> int:
        """N, without loading anything."""
        return SIZES[self.value("data")]

    def experiment(self, share: float) -> abadi.Experiment:
        """The run as the controls stand, with a share of their noise."""
        rate = float(self.value("rate"))
        return abadi.Experiment(
            noise_multiplier=share * float(self.value("noise")), pca_noise=PCA_NOISE,
            max_grad_norm=float(self.value("clip")), lot=int(self.value("lot")),
            learning_rate=rate, last_rate=rate, hidden=int(self.value("hidden")),
            together=self.value("together") == "together",
        )  # fmt: skip

    def redraw(self) -> None:
        """Prices at once; lines of another setting turn grey."""
        self._trainer.stop()
        self._anew()
        prices = ", ".join(f"{run.name}: {round_up(run.plan.epsilon())}" for run in self.runs)
        self.said.show(
            say(
                "Planned **ε** for {prices} (δ = {delta}, {relation}). Press Train.",
                prices=prices,
                delta=short(abadi.DELTA),
                relation=say(self.runs[0].plan.neighbours.value),
            )
            + "".join(f" {text[0].upper()}{text[1:]}" for text in map(retold, self.cautions))
        )

    @property
    def cautions(self) -> tuple[str, ...]:
        """What must be said of the run with the least noise."""
        return self.runs[-1].plan.cautions(self.size)

    def _planned(self, share: float) -> Trained:
        experiment = self.experiment(share)
        rate = experiment.rate(self.size)
        plan = experiment.plan(self.size, experiment.steps(self.size, self.value("epochs")))
        return Trained(experiment, plan, plan.curve(30), rate)

    def _other_data(self, change: Any) -> None:
        """Bring lot, length and noise to what suits the data."""
        (lot, epochs, noise), slider = DEFAULTS[change["new"]], self.controls["lot"]
        self.before = []
        slider.low, slider.high = 10.0, 6000.0
        self.turn(lot=lot, epochs=epochs, noise=noise)
        slider.high = float(min(6000, self.size))

    def _anew(self) -> list[Trained]:
        """Runs as the controls stand, before their first step; the others turn grey."""
        self.before = [run for run in self.runs if run.epochs] or self.before
        self.runs = [self._planned(share) for share in SHARES]
        self._show()
        return self.runs

    def _train(self, stop: threading.Event) -> None:
        """All three a stretch at a time, so that their lines grow together."""
        with self._drawing:
            if stop.is_set():
                return
            runs = self._anew()
        self.progress.show(0.0, say("projecting the records"))
        try:
            data = projected(self.value("data"), self.seed)
            going = [Going.of(run, data, self.seed) for run in runs]
            ends = np.unique(np.linspace(0, runs[0].plan.steps, LOOKS + 1).round())[1:]
            for end in ends.astype(int):
                if not all(one.until(end, stop) for one in going):
                    break
                self._tell(runs, end / runs[0].plan.steps, stop)
            self._end(runs, stop)
        except Exception:
            self.progress.show(0.0, say("failed"))
            raise

    def _tell(self, runs: list[Trained], share: float, stop: threading.Event) -> None:
        with self._drawing:
            if stop.is_set():
                return
            self._show()
            best = "; ".join(
                say(
                    "{name}: **{accuracy:.1f}%** at ε = {epsilon}", name=run.name,
                    accuracy=100 * run.test[-1], epsilon=round_up(run.paid[-1]),
                )
                for run in runs
            )  # fmt: skip
            epochs = runs[0].epochs[-1]
            self.said.show(say("After {epochs:.2g} epochs: {best}.", epochs=epochs, best=best))
            told = say("{epochs:.2g} epochs", epochs=epochs) + self._trainer.left(share)
            self.progress.show(share, told)

    def _end(self, runs: list[Trained], stop: threading.Event) -> None:
        if not stop.is_set():
            self.progress.show(1.0, say("done"))
            return
        self.progress.show(self.progress.value, say("stopped"))
        with self._drawing:
            if runs is not self.runs or not runs[0].epochs:
                return
            self.said.show(
                say(
                    "Stopped after {epochs:.2g} epochs. The claim stays at the planned price, "
                    "since when to stop may have depended on the records: ",
                    epochs=runs[0].epochs[-1],
                )
                + ", ".join(f"{run.name}: ε = {round_up(run.plan.epsilon())}" for run in runs)
                + "."
            )

    def _show(self) -> None:
        levels, reach = [run.level for run in self.runs], float(self.value("epochs"))
        before = [run.level for run in self.before]
        seen = [run for run in self.runs if run.epochs]
        said = ", ".join(f"{run.name} {100 * run.test[-1]:.1f}%" for run in seen)
        shown = [run.level for run in seen]
        figure = pictures.accuracies(shown, reach, before=before, bottom=0.4)
        self.plots["accuracy"].show(figure, said or say("nothing trained yet"))
        ends = ", ".join(f"{run.name} {round_up(run.plan.epsilon())}" for run in self.runs)
        self.plots["epsilon"].show(pictures.spent(levels, reach), say("planned: {ends}", ends=ends))
        self.numbers.rows = [_numbers(run, self.size) for run in self.runs]


_COLUMNS = marked(("noise σ on a layer", "ε of the whole run", "moments, one release a step",
            "ε spent", "test", "training", "stored run, same epoch"))  # fmt: skip
SIZES = {"mnist": 60_000, "digits": 1_437}
"""Training records of the two data sets, which are public."""


def _numbers(run: Trained, size: int) -> list[str]:
    price = abadi.prices(run.experiment, size, run.plan.steps)
    seen = [f"{100 * run.test[-1]:.1f}%", f"{100 * run.train[-1]:.1f}%"] if run.test else ["–"] * 2
    return [
        run.name, round_up(run.plan.epsilon()), round_up(price.moments),
        round_up(run.paid[-1]) if run.paid else "–", *seen, _beside(run, size),
    ]  # fmt: skip


def _beside(run: Trained, size: int) -> str:
    """What the stored run of the same noise had at the same epoch; its rate falls from 0.1."""
    noise, variant = run.experiment.noise_multiplier, "layers"
    row = next((row for row in abadi.ROWS if row.noise_multiplier == noise), None)
    if row is None or size != SIZES["mnist"] or run.experiment.together or not run.epochs:
        return "–"
    epochs, test, _ = stored().curve(row.epsilon, variant)
    return f"{100 * np.interp(run.epochs[-1], epochs, test):.1f}%" if len(epochs) else "–"


@cache
def projected(name: str, seed: int) -> Dataset:
    """The data on 60 private components; every plan pays for them."""
    return abadi.Experiment(pca_noise=PCA_NOISE).projected(datasets.load(name), seed)


@dataclass
class Going:
    """A run under way."""

    run: Trained
    model: nn.Module
    data: Dataset
    steps: Iterator[Step]
    done: int = 0

    @classmethod
    def of(cls, run: Trained, data: Dataset, seed: int) -> Going:
        """Begin a run; nothing is drawn before its first step."""
        model = run.experiment.model(data, seed)
        with warnings.catch_warnings(action="ignore"):  # the panel shows the cautions itself
            steps = run.experiment.run(model, data, run.plan.steps, seed)
        return cls(run, model, data, steps)

    def until(self, end: int, stop: threading.Event) -> bool:
        """Train up to a step and look; False if it was stopped."""
        last = None
        while self.done < end and not stop.is_set():
            last = next(self.steps)
            self.done += 1
        if last is None or stop.is_set():
            return False
        self.run.epochs.append(self.done * self.run.rate)
        self.run.paid.append(last.epsilon)
        self.run.test.append(abadi.hits(self.model, self.data.test_inputs, self.data.test_targets))
        eyed = self.data.inputs[:EYED], self.data.targets[:EYED]
        self.run.train.append(abadi.hits(self.model, *eyed))
        return True
