"""The prices of the founding experiment: one run, by the means of 2016 and as it is."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants import PLD, Accountant, Advanced, Moments
from dpkit.figures import privacy
from dpkit.mechanisms import Gaussian, Ledger, Mechanism, Neighbours, PoissonSampling
from dpkit.plan import round_up
from dpkit.widgets.controls import Choice, Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.words import marked, say

Values = NDArray[np.float64]
MNIST, _POINTS, _FEW = 60_000, 40, 6


class PricesPanel(Lesson):
    """One run, five prices: what a better proof buys, and what a layer costs."""

    LINES: ClassVar = marked(
        (
            "strong composition, one release a step",
            "moments accountant, every layer charged",
            "moments accountant, one release a step",
            "exact, every layer charged",
            "exact, one clip norm for all layers",
        )
    )

    def __init__(self) -> None:
        """Make the panel, standing on the paper's run of 1.26."""
        self.ends: dict[str, float] = {}
        super().__init__(
            {
                "noise": Slider(label=say("Noise σ on each layer"), value=4.0, low=0.7, high=16.0,
                                log=True, ends=(say("more accurate"), say("more private"))),
                "lot": Slider(label=say("Lot L"), value=600, low=30, high=6000, log=True,
                              integer=True,
                              unit=say("of 60,000")),
                "epochs": Slider(label=say("Epochs E"), value=100, low=1, high=400, log=True,
                                 integer=True, ends=(say("short"), say("long"))),
                "layers": Slider(label=say("Layers clipped apart"), value=2, low=1, high=16,
                                 integer=True),
                "pca": Choice(label=say("Private components"),
                              options=[(say("none"), "0"), ("σ_p = 16", "16"), ("σ_p = 7", "7"),
                                       ("σ_p = 4", "4")]),
                "delta": Slider(label="δ", value=1e-5, low=1e-9, high=1e-2, log=True,
                                ends=(say("stricter"), say("looser"))),
            },
            {"epsilon": LivePlot(height=380, title=say("One run, five prices"))},
            wide=("epsilon",),
        )  # fmt: skip

    def ledgers(self) -> tuple[Ledger, Ledger]:
        """The whole run as one release a step, and with each layer of a step charged."""
        add, steps = Neighbours.ADD_REMOVE, self.steps
        sigma, layers = float(self.value("noise")), int(self.value("layers"))
        sampling = PoissonSampling(int(self.value("lot")) / MNIST)
        before = self._before()

        def ledger(noise: float) -> Ledger:
            return Ledger.of([*before, (Gaussian(noise).pair(add, sampling), steps)], add)

        return ledger(sigma), ledger(sigma / math.sqrt(layers))

    @property
    def steps(self) -> int:
        """Steps T of the run."""
        return max(1, round(int(self.value("epochs")) * MNIST / int(self.value("lot"))))

    def redraw(self) -> None:
        """Five lines and their ends."""
        read, charged = self.ledgers()
        steps, few = (
            np.unique(np.geomspace(1, self.steps, n).round().astype(int)) for n in (_POINTS, _FEW)
        )
        cases: list[tuple[Accountant, Ledger, Values, int]] = [
            (Advanced(), read, few, 6), (Moments(), charged, steps, 2),
            (Moments(), read, steps, 4), (PLD(), charged, steps, 0), (PLD(), read, steps, 1),
        ]  # fmt: skip
        lines = [
            privacy.Priced(name, look, some, self._curve(accountant, ledger, some))
            for name, (accountant, ledger, some, look) in zip(self.LINES, cases, strict=True)
        ]
        self.ends = {line.name: float(np.asarray(line.epsilon)[-1]) for line in lines}
        exact = self.ends[self.LINES[3]]
        top = 10.0 ** math.ceil(math.log10(1.5 * self.ends[self.LINES[1]]))
        bottom = min(10.0 ** math.floor(math.log10(exact / 4)), top / 100)
        figure = privacy.accountants(
            lines, x_range=(0.9, 1.25 * max(self.steps, 10)), y_range=(bottom, top)
        )  # fmt: skip
        said = ", ".join(f"{say(name)} {round_up(end)}" for name, end in self.ends.items())
        self.plots["epsilon"].show(
            figure, say("after {steps:,} steps: {said}", steps=self.steps, said=said)
        )
        self.said.show(self._words())

    def _before(self) -> list[tuple[Mechanism, int]]:
        noise = float(self.value("pca"))
        return [(Gaussian(noise).pair(Neighbours.ADD_REMOVE), 1)] if noise else []

    def _curve(self, accountant: Accountant, ledger: Ledger, steps: Values) -> Values:
        """Epsilon after so many steps; what comes before the run is paid first."""
        pair = ledger.mechanisms[-1]
        counts = np.ones((len(steps), len(ledger.mechanisms)), dtype=np.int64)
        counts[:, ledger.mechanisms.index(pair)] = steps
        return accountant.curve(ledger.mechanisms, counts, float(self.value("delta")))

    def _words(self) -> str:
        strong, layered, moments, exact, whole = (round_up(self.ends[n]) for n in self.LINES)
        layers = int(self.value("layers"))
        text = say(
            "After {steps:,} steps of one release each the moments accountant reads "
            "**{moments}** and strong composition {strong}. ",
            steps=self.steps,
            moments=moments,
            strong=strong,
        )
        if layers == 1:
            return text + say("The exact price is **{exact}**.", exact=exact)
        return text + (
            say(
                "But {layers} layers are clipped and noised apart: a record moves all of them, "
                "and the run costs **{exact}** (the moments accountant would say {layered}). "
                "With one clip norm for all layers the same noise would cost {whole}.",
                layers=layers,
                exact=exact,
                layered=layered,
                whole=whole,
            )
        )
