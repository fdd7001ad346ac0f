"""The panel of the budget lesson: a curve of noise, what it spends, where it ends, its price."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from dpkit import schedules
from dpkit.accountants import PLD, RDP, ZCDP, Moments, YuRandomSampling
from dpkit.accountants.base import printed
from dpkit.budgets import RhoBudget
from dpkit.figures import schedules as figures
from dpkit.figures.schedules import Price
from dpkit.knobs import Knob, every_knob, turned
from dpkit.mechanisms import Gaussian, Ledger, Neighbours, PoissonSampling, Refused
from dpkit.methods import DPSGD
from dpkit.plan import Plan, round_up
from dpkit.samplers import Shuffle
from dpkit.widgets.controls import Choice, Control, Slider, guarded
from dpkit.widgets.lesson import Lesson, Table
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.told import retold
from dpkit.words import marked, say

ZERO = Neighbours.ZERO_OUT
RHO, DELTA, LOTS = 0.78125, 1e-5, 100
MOST = 400
"""Epochs that are looked at."""
SHAPES: dict[str, tuple[str, schedules.Shape]] = marked(
    {
        "Uniform": ("Uniform", schedules.Uniform(8.0)),
        "TimeDecay": ("Time decay", schedules.TimeDecay(10.0, 0.05)),
        "ExponentialDecay": ("Exponential decay", schedules.ExponentialDecay(10.0, 0.01)),
        "StepDecay": ("Step decay", schedules.StepDecay(10.0, 0.6, 10)),
        "PolynomialDecay": ("Polynomial decay", schedules.PolynomialDecay(10.0, 2.0, 3.0, 100)),
        "ConstantThenDecay": ("Constant, then decay", schedules.ConstantThenDecay(10.0, 30, 0.05)),
        "Knots": ("Drawn by hand", schedules.Knots((10.0, 8.0, 7.0, 5.0, 4.0), 60)),
    }
)
"""Each shape's name, and where its sliders stand at first: as in Yu et al. 2019 where they do."""
_LABELS = marked({
    "start": "Noise σ at the start", "decay": "Fall k", "factor": "Factor k of a step",
    "period": "Period in epochs", "end": "Noise σ at the end", "power": "Power k",
    "hold": "Epochs to hold",
})  # fmt: skip
_VIEWS = (40, 60, 80, 120, 160, 240, MOST)


def slider(name: str, declared: Knob, value: float) -> Slider:
    """A schedule's own parameter as a slider: the knob is declared once."""
    low, high = declared.slider or (declared.low, declared.high)
    return Slider(label=say(_LABELS[name]), value=value, low=low, high=high, log=declared.log,
                  integer=declared.integer, help=say(declared.meaning))  # fmt: skip


class BudgetPanel(Lesson):
    """A curve of noise over the epochs; what it spends, where it must stop, what it costs.

    *Guarantee*: the epoch at which it stops is found by the very meter that ends a training.
    """

    def __init__(self, shape: str = "TimeDecay") -> None:
        """Make the panel; every shape brings the sliders of its own parameters."""
        self.table = Table()
        self.rows: list[Price] = []
        options = [(say(title), key) for key, (title, _) in SHAPES.items()]
        controls: dict[str, Control] = {
            "shape": Choice(label=say("Noise over the epochs"), options=options, value=shape),
            "rho": Slider(label=say("Budget ρ"), value=RHO, low=0.02, high=5.0, log=True,
                          ends=(say("small"), say("large"))),
        }  # fmt: skip
        for key, (_, made) in SHAPES.items():
            for name, declared, value in every_knob(made):
                if name != "steps_per_epoch":
                    controls[f"{key}.{name}"] = slider(name, declared, value)
        for place, value in enumerate(SHAPES["Knots"][1].values):  # type: ignore[attr-defined]
            controls[f"Knots.{place}"] = Slider(
                label=say("Knot {place}: noise σ", place=place + 1), value=value, low=0.5,
                high=20.0, log=True, help=say("Arrow keys move it, or drag the knot in the plot"),
            )  # fmt: skip
        super().__init__(
            controls,
            {
                "noise": LivePlot(height=260, title=say("Noise in each epoch")),
                "prices": LivePlot(height=290, title=say("ε of this run, by accountant")),
                "spending": LivePlot(height=230, title=say("What an epoch costs")),
                "budget": LivePlot(height=230, title=say("The budget: spent and left")),
            },
            table=self.table,
            wide=("noise", "prices"),
        )
        self.plots["noise"].on_point(guarded(self.trouble)(self._dragged))

    def _dragged(self, place: int, height: float | None) -> None:
        """A knot was taken hold of: its slider goes along."""
        knot = self.controls[f"Knots.{place}"]
        assert isinstance(knot, Slider) and height is not None
        knot.value = round(min(max(height, knot.low), knot.high), 2)

    @property
    def schedule(self) -> schedules.Shape:
        """The noise over the epochs as the controls stand."""
        key = self.value("shape")
        made = SHAPES[key][1]
        if key == "Knots":
            made = replace(made, values=tuple(self.value(f"Knots.{i}") for i in range(5)))  # type: ignore[call-arg]
        for name in self._own(key):
            made = turned(made, name, self.value(f"{key}.{name}"))
        return made

    @property
    def plan(self) -> Plan:
        """One step an epoch: shuffled lots of an epoch cost together what its noisiest does."""
        budget = RhoBudget(float(self.value("rho")))
        return Plan(DPSGD(self.schedule), Shuffle(1, MOST), DELTA, ZERO, budget=budget)

    @property
    def epochs(self) -> int:
        """How many epochs the budget admits; 0 where it does not reach for the first."""
        try:
            return self.plan.steps
        except Refused:
            return 0

    def redraw(self) -> None:
        """The curve, its cost and the budget."""
        key, shape, stop = self.value("shape"), self.schedule, self.epochs
        for name, control in self.controls.items():
            control.shown = "." not in name or name.startswith(f"{key}.")
        view = next((n for n in _VIEWS if n >= min(1.25 * stop, MOST)), MOST)
        sigma = np.array([shape(epoch) for epoch in range(view)])
        rho, total = 0.5 / sigma**2, float(self.value("rho"))
        knots = []
        if isinstance(shape, schedules.Knots):
            gap = shape.period / (len(shape.values) - 1)
            knots = [(i * gap, v) for i, v in enumerate(shape.values) if i * gap <= view]
        spent = math.fsum(rho[:stop])
        words = (
            say("{epochs} epochs, then the budget ends", epochs=stop)
            if stop < MOST
            else say("{epochs} epochs and more", epochs=MOST)
        )
        self.plots["noise"].show(figures.noise(sigma, stop, knots), words)
        self.plots["spending"].show(
            figures.spending(rho, stop), say("from ρ = {rho:.3g} in the first epoch", rho=rho[0])
        )
        self.plots["budget"].show(
            figures.budget(rho, stop, total),
            say("{spent:.6g} of {total:.6g} spent", spent=spent, total=total),
        )
        self.said.show(self._words(stop, spent, total, rho))

    def afterwards(self) -> Iterator[Callable[[], None]]:
        """The run's epsilon under each accountant."""
        stop, shape = self.epochs, self.schedule
        if not stop:
            yield lambda: self._show([], stop)
            return
        noises = [shape(epoch) for epoch in range(stop)]
        rows = priced(noises)
        yield lambda: self._show(rows, stop)

    def _own(self, key: str) -> list[str]:
        names = [name.partition(".") for name in self.controls]
        return [name for owner, dot, name in names if dot and owner == key and not name.isdigit()]

    def _show(self, rows: list[Price], stop: int) -> None:
        self.rows = rows
        said = ", ".join(f"{say(row.name)} {round_up(row.epsilon)}" for row in rows)
        self.plots["prices"].show(figures.prices(rows, (0.02, 200.0)), said or say("no epoch"))
        self.table.show(
            say(
                "{epochs} epochs of {lots} lots, δ = 1e-5, neighbours: {relation}",
                epochs=stop,
                lots=LOTS,
                relation=say(ZERO.value),
            ),
            (say("accountant"), "ε", say("what it is")),
            [
                (say(row.name), printed(row.epsilon, 4, 1), retold(row.fault) or _kind(row))
                for row in rows
            ],
        )

    def _words(self, stop: int, spent: float, total: float, rho: np.ndarray) -> str:
        if not stop:
            return say(
                "**No epoch fits**: the first alone would cost ρ = {cost:.3g}, more than the "
                "budget of {budget:.3g}. Add noise, or allow more.",
                cost=rho[0],
                budget=total,
            )
        claim = round_up(RhoBudget(total).epsilon(DELTA))
        if stop >= MOST:
            return say(
                "After {epochs} epochs only **{share:.0%}** of ρ = {rho:.6g} is spent.",
                epochs=MOST,
                share=spent / total,
                rho=total,
            )
        return say(
            "**{epochs} epochs** fit: they spend ρ = {spent:.6g} of {total:.6g}; one more "
            "would be too much. Fixed beforehand, this run costs **ε = {epsilon}** "
            "(shuffled); if the noise reacted to what was seen, only the whole budget could "
            "be promised, ε = {claim}.",
            epochs=stop,
            spent=spent,
            total=total,
            epsilon=round_up(self.plan.epsilon()),
            claim=claim,
        )


def priced(noises: list[float]) -> list[Price]:
    """Epsilon of epochs of shuffled lots, and of as many sampled ones, by all that say one."""
    shuffled = Plan(
        DPSGD(schedules.Tabulated(tuple(noises))), Shuffle(1, len(noises)), DELTA, ZERO
    ).ledger()
    rho = ZCDP().rho(shuffled)
    sampling = PoissonSampling(1 / LOTS)
    sampled = Ledger.of([(Gaussian(s).pair(ZERO, sampling), LOTS) for s in noises], ZERO)
    rule = YuRandomSampling().claim(sampled, DELTA)
    return [
        Price(
            marked("reshuffled: zCDP, as in 2019"), rho + 2 * math.sqrt(rho * math.log(1 / DELTA))
        ),
        Price(marked("reshuffled: zCDP, best conversion"), ZCDP().epsilon(shuffled, DELTA)),
        Price(marked("reshuffled: PLD, order known"), PLD().epsilon(shuffled, DELTA)),
        Price(marked("sampled: the rule of 2019"), rule.epsilon, rule.fault, bound=False),
        Price(marked("sampled: moments of 2016"), Moments().epsilon(sampled, DELTA)),
        Price(marked("sampled: RDP"), RDP().epsilon(sampled, DELTA)),
        Price(marked("sampled: PLD, exact"), PLD().epsilon(sampled, DELTA)),
    ]


def _kind(row: Price) -> str:
    return say("an upper bound") if row.bound else say("a heuristic, and no bound")
