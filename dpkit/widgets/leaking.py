"""The panel of NeuralDP's end-to-end reading under attack, which promises nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpkit.auditing import leaky
from dpkit.figures import activations as figures
from dpkit.widgets.controls import Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.neuraldp import digits
from dpkit.widgets.plot import LivePlot

if TYPE_CHECKING:
    from dpkit.datasets import Dataset


class UpdatePanel(Lesson):
    """The end-to-end reading under attack: a record is spotted, and read off one update.

    *Guarantee*: every guess is made from the weights of a real step; no epsilon is stated.
    """

    def __init__(self, data: Dataset | None = None) -> None:
        """Make the panel; `data` None is the digits."""
        self.data = data or digits()
        super().__init__(
            {
                "sigma": Slider(label="Noise σ on activations", value=10.0, low=0.1, high=10_000,
                                log=True, ends=("little", "absurd")),
                "batch": Slider(label="Records in the batch", value=1, low=1, high=32,
                                integer=True, ends=("alone", "in company")),
                "record": Slider(label="Which record", value=3, low=0,
                                 high=min(200, self.data.num_examples - 1), integer=True),
                "trials": Slider(label="Guesses", value=40, low=20, high=400, log=True,
                                 integer=True),
            },
            {
                "picture": LivePlot(height=240, title="What one update shows"),
                "guesses": LivePlot(height=240, title="Is the record in the batch?"),
            },
        )  # fmt: skip

    def redraw(self) -> None:
        """The record as one update shows it, and a row of guesses."""
        sigma, batch = float(self.value("sigma")), int(self.value("batch"))
        record, trials = int(self.value("record")), int(self.value("trials"))
        found = leaky.recovered(self.data, record, noise_multiplier=sigma, batch_size=batch, seed=0)
        shape = self.data.shape[-2:]
        original, copy = (x.reshape(shape).double().numpy() for x in (found.original, found.found))
        self.plots["picture"].show(
            figures.beside(original, copy), f"cosine {found.similarity:.3f} between the two"
        )
        self.found = leaky.spotted(
            self.data, record, noise_multiplier=sigma, batch_size=batch, trials=trials, seed=1
        )
        self.plots["guesses"].show(figures.guesses(self.found.errors), str(self.found))
        self.said.show(
            f"{self.found}\n\nThe picture has cosine **{found.similarity:.3f}** with the record: "
            f"noise on activations scales the update of the layer before, and never hides it."
        )
