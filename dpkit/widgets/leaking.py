"""The panel of NeuralDP's end-to-end reading under attack, which promises nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpkit.auditing import leaky
from dpkit.figures import activations as figures
from dpkit.widgets.controls import Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.neuraldp import digits
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.told import retold
from dpkit.words import say

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
                "sigma": Slider(label=say("Noise σ on activations"), value=10.0, low=0.1,
                                high=10_000, log=True, ends=(say("little"), say("absurd"))),
                "batch": Slider(label=say("Records in the batch"), value=1, low=1, high=32,
                                integer=True, ends=(say("alone"), say("in company"))),
                "record": Slider(label=say("Which record"), value=3, low=0,
                                 high=min(200, self.data.num_examples - 1), integer=True),
                "trials": Slider(label=say("Guesses"), value=40, low=20, high=400, log=True,
                                 integer=True),
            },
            {
                "picture": LivePlot(height=240, title=say("What one update shows")),
                "guesses": LivePlot(height=240, title=say("Is the record in the batch?")),
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
            figures.beside(original, copy),
            say("cosine {cosine:.3f} between the two", cosine=found.similarity),
        )
        self.found = leaky.spotted(
            self.data, record, noise_multiplier=sigma, batch_size=batch, trials=trials, seed=1
        )
        self.plots["guesses"].show(figures.guesses(self.found.errors), retold(str(self.found)))
        self.said.show(
            say(
                "{found}\n\nThe picture has cosine **{cosine:.3f}** with the record: noise on "
                "activations scales the update of the layer before, and never hides it.",
                found=retold(str(self.found)),
                cosine=found.similarity,
            )
        )
