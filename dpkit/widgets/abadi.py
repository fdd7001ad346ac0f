"""The panels of the founding experiment that read what is stored: the table and the sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit import abadi
from dpkit.accountants.base import printed
from dpkit.figures import abadi as pictures
from dpkit.figures.basics import short
from dpkit.mechanisms import Neighbours
from dpkit.plan import round_up
from dpkit.widgets.abadi_stored import Result, stored
from dpkit.widgets.controls import Choice, Slider
from dpkit.widgets.lesson import Lesson, Table
from dpkit.widgets.plot import LivePlot
from dpkit.words import marked, say

Values = NDArray[np.float64]
MNIST = 60_000
_POINTS = 40


class TablePanel(Lesson):
    """The paper's table beside ours, and the curves behind it.

    *Guarantee*: accuracies are stored results of whole runs; every epsilon is computed when it is
    shown.
    """

    def __init__(self) -> None:
        """Make the panel."""
        self.table, self.stored = Table(), stored()
        self.prices: dict[float, abadi.Prices] = {}
        self.variants = self.stored.variants
        options = [(say(abadi.VARIANTS[variant]), variant) for variant in self.variants]
        super().__init__(
            {
                "variant": Choice(label=say("Clipped"), options=options),
                "epochs": Slider(label=say("Read off after"), value=50, low=1, high=410, log=True,
                                 integer=True, unit=say("epochs"), ends=(say("start"), say("end"))),
            },
            {
                "accuracy": LivePlot(height=340, title=say("Accuracy over the epochs")),
                "epsilon": LivePlot(height=340, title=say("Exact ε over the epochs")),
            },
            table=self.table,
        )  # fmt: skip

    def redraw(self) -> None:
        """Both curves, and what is read off them."""
        levels, at = [self._level(row) for row in abadi.ROWS], float(self.value("epochs"))
        reach = max(float(np.asarray(level.epochs).max(initial=1.0)) for level in levels)
        said = [self._read(*pair, at) for pair in zip(abadi.ROWS, levels, strict=True)]
        words = "; ".join(said)
        figure = pictures.accuracies(levels, reach, log=True, at=at, bottom=0.8)
        self.plots["accuracy"].show(figure, words)
        figure = pictures.spent(levels, reach, log=True, at=at, limits=(0.2, 10.0))
        self.plots["epsilon"].show(figure, words)
        self.said.show(
            say("Test accuracy after **{epochs:g} epochs**: {told}.", epochs=at, told=words)
        )

    def afterwards(self) -> Iterator[Callable[[], None]]:
        """The table, with prices of the whole runs."""
        if not self.prices:
            found = {row.epsilon: self._prices(row) for row in abadi.ROWS}
            self.prices.update(found)
        yield self._tell

    def experiment(self, row: abadi.Row) -> abadi.Experiment:
        """A row, clipped as the choice says."""
        return abadi.Experiment.of(row, self.value("variant"))

    def _level(self, row: abadi.Row) -> pictures.Level:
        epochs, test, train = self.stored.curve(row.epsilon, self.value("variant"))
        experiment = self.experiment(row)
        last = experiment.length(row.epsilon, MNIST)
        steps = np.unique(np.geomspace(50, last, _POINTS).round().astype(int))
        name = f"σ = {row.noise_multiplier:g}"
        return pictures.Level(
            name, epochs, test, train, steps * experiment.rate(MNIST),
            experiment.spending(MNIST, steps), paper=row.accuracy,
        )  # fmt: skip

    def _read(self, row: abadi.Row, level: pictures.Level, at: float) -> str:
        """Accuracy on the line between two looks; the price of that very length."""
        epochs, paid = (np.asarray(v, float) for v in (level.epochs, level.paid))
        if at > paid[-1]:
            return say(
                "{name} has ended at ε = {epsilon}",
                name=level.name,
                epsilon=round_up(float(np.asarray(level.epsilon)[-1])),
            )
        experiment = self.experiment(row)
        steps = np.array([experiment.steps(MNIST, at)])
        epsilon = round_up(float(experiment.spending(MNIST, steps)[0]))
        if not len(epochs):
            return f"{level.name}: ε = {epsilon}"
        tested = float(np.interp(at, epochs, np.asarray(level.test, float)))
        return f"{level.name}: **{100 * tested:.1f}%** (ε = {epsilon})"

    def _prices(self, row: abadi.Row) -> abadi.Prices:
        paper = abadi.Experiment.of(row)
        return abadi.prices(paper, MNIST, paper.length(row.epsilon, MNIST))

    def _tell(self) -> None:
        heads = (
            say("noise σ, σ_p"), say("exact ε"), say("epochs"), say("paper"),
            *(say(_HEADS[variant]) for variant in self.variants),
            say("moments, layers charged"), say("moments, one release a step"),
            say("strong composition"),
        )  # fmt: skip
        self.table.show(
            say(
                "MNIST, test accuracy in % when ε is spent; δ = {delta}, {relation}, Poisson "
                "lots of 600; accuracies stored (± standard deviation over seeds; one run where "
                "there is none), every ε computed now",
                delta=short(abadi.DELTA),
                relation=say(Neighbours.ADD_REMOVE.value),
            ),
            heads,
            [self._row(row) for row in abadi.ROWS],
        )

    def _row(self, row: abadi.Row) -> tuple[str, ...]:
        price = self.prices[row.epsilon]
        found = [self.stored.result(row.epsilon, variant) for variant in self.variants]
        epochs = abadi.Experiment.of(row).length(row.epsilon, MNIST) * 600 / MNIST
        return (
            f"{row.noise_multiplier:g}, {row.pca_noise:g}", printed(price.exact, 4, 1),
            f"{epochs:.0f}", f"{100 * row.accuracy:.0f}", *(_cell(one) for one in found),
            *(printed(value, 4, 1) for value in (price.layers, price.moments, price.strong)),
        )  # fmt: skip


_HEADS = marked({"layers": "each layer", "together": "together", "tuned": "tuned"})


def _cell(result: Result | None) -> str:
    return "–" if result is None else str(result)


class SweepsPanel(Lesson):
    """One setting moves, epsilon stays at 2: stored runs, and the place of your slider."""

    SETTINGS: ClassVar = marked(
        {
            "lot": ("Lot L", "lot", True),
            "max_grad_norm": ("Clip norm C", "clip norm C", False),
            "learning_rate": ("Learning rate η", "learning rate η", False),
            "hidden": ("Hidden units h", "hidden units h", True),
            "noise_multiplier": ("Noise σ", "noise σ", False),
            "components": ("Private components k", "components k", True),
        }
    )
    """Each setting's label, its name in a sentence, and whether it is a whole number."""

    def __init__(self) -> None:
        """Make the panel, standing on the paper's settings."""
        self.stored, self.table = stored(), Table()
        at = self.stored.conditions["sweeps at"]
        title = say(
            "{epochs} epochs at ε = {epsilon:g}", epochs=at["epochs"], epsilon=at["epsilon"]
        )
        options = [(say(words[0]), name) for name, words in self.SETTINGS.items()]
        sliders = {name: self._slider(name) for name in self.SETTINGS}
        super().__init__(
            {"setting": Choice(label=say("What moves"), options=options, value="max_grad_norm")}
            | sliders,
            {"sweep": LivePlot(height=360, title=title)},
            table=self.table,
            wide=("sweep",),
        )  # fmt: skip

    def _slider(self, name: str) -> Slider:
        label, whole = say(self.SETTINGS[name][0]), self.SETTINGS[name][2]
        values = self.stored.sweep(name).values
        base = abadi.Experiment(learning_rate=0.05, noise_multiplier=2.0)
        value = min(max(float(getattr(base, name)), values[0]), values[-1])
        return Slider(
            label=say("Your {name}", name=label[0].lower() + label[1:]), value=value,
            low=float(values[0]),
            high=float(values[-1]), log=True, integer=whole,
        )  # fmt: skip

    @property
    def experiment(self) -> abadi.Experiment:
        """The sweep's run with the setting where the slider is."""
        name = self.value("setting")
        rate = self.stored.conditions["sweeps at"]["learning rate"]
        base = abadi.Experiment(learning_rate=rate, last_rate=rate)
        setting = {name: self.value(name)}
        if name == "learning_rate":
            setting["last_rate"] = self.value(name)
        return replace(base, **setting)

    def redraw(self) -> None:
        """The line and the marked place."""
        name = self.value("setting")
        for other in self.SETTINGS:
            self.controls[other].shown = other == name
        swept, value = self.stored.sweep(name), float(self.value(name))
        words = say(self.SETTINGS[name][1])
        found = swept.at(value)
        figure = pictures.sweep(swept.values, swept.test, swept.train, (value, found), words)
        self.plots["sweep"].show(
            figure,
            say(
                "at {name} {value:g} about {accuracy:.1f}%",
                name=words,
                value=value,
                accuracy=100 * found,
            ),
        )
        best = float(swept.values[int(swept.test.argmax())])
        text = say(
            "At {name} = {value:g}: **about {accuracy:.1f}%**, read off the line. The best "
            "of the stored runs is {best:.1f}%, at {where:g}. ",
            name=words,
            value=value,
            accuracy=100 * found,
            best=100 * swept.test.max(),
            where=best,
        )
        without = self.stored.without_components()
        if name == "components" and without is not None:
            text += say(
                "On all pixels, without components: {accuracy:.1f}%. ", accuracy=100 * without
            )
        self.said.show(text + self._price())
        self._tell(name)

    def _price(self) -> str:
        """What epsilon 2 asks for at this place, computed now."""
        at, experiment = self.stored.conditions["sweeps at"], self.experiment
        epsilon = float(at["epsilon"])
        if self.value("setting") == "noise_multiplier":
            steps = experiment.length(epsilon, MNIST)
            epochs = steps * experiment.rate(MNIST)
            return say(
                "With this noise ε = {epsilon:g} pays for {steps:,} steps ({epochs:.1f} epochs).",
                epsilon=epsilon,
                steps=steps,
                epochs=epochs,
            )
        steps = experiment.steps(MNIST, at["epochs"])
        sigma = experiment.calibrated(epsilon, MNIST, steps).noise_multiplier
        return say(
            "Here {epochs} epochs at ε = {epsilon:g} ask for σ = {sigma:.3g} on a layer.",
            epochs=at["epochs"],
            epsilon=epsilon,
            sigma=sigma,
        )

    def _tell(self, name: str) -> None:
        points = sorted(self.stored.found["sweeps"][name], key=lambda point: point["value"])
        self.table.show(
            say("The stored runs: one seed each, MNIST, a clip norm for each layer, constant rate"),
            (say(self.SETTINGS[name][1]), say("test (%)"), say("training (%)"), say("σ on a layer"),
             say("steps")),
            [
                (
                    f"{point['value']:g}" if point["value"] else say("none: all pixels"),
                    f"{100 * point['test']:.2f}", f"{100 * point['train']:.2f}",
                    f"{point['noise']:.3g}", f"{point['steps']:,}",
                )
                for point in points
            ],
        )  # fmt: skip
