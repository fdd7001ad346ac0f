"""The panels of the accountants' lesson: all of them at once, and five answers for one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants import PLD, Bounds
from dpkit.accountants.distribution import LossDistribution
from dpkit.figures import privacy
from dpkit.figures.basics import short
from dpkit.mechanisms import Neighbours
from dpkit.plan import round_up
from dpkit.widgets.controls import Choice, Note, Slider
from dpkit.widgets.lesson import Lesson, Table
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.pricing import ACCOUNTANTS, RUN, Prices, Setting, published_answers
from dpkit.widgets.told import retold
from dpkit.words import marked, say

Values = NDArray[np.float64]
_MOST_STEPS = 1_000_000
_SOON, _LATER = 0.03, 1.0  # seconds for the curves' points before, and after, all else is shown


class AccountantsPanel(Lesson):
    """Every accountant's epsilon at once, the loss behind it, and what an attacker can do.

    *Guarantee*
    - an accountant that cannot account the setting is listed with its reason, and not drawn;
    - an estimate is named so wherever it appears, and has no upper side in the table.
    """

    RELATIONS: ClassVar = [
        (marked("add or remove one"), "ADD_REMOVE"), (marked("zero out one"), "ZERO_OUT"),
        (marked("replace one"), "REPLACE_ONE"),
    ]  # fmt: skip

    def __init__(self, setting: Setting = RUN) -> None:
        """Make the panel, standing on a setting."""
        self.bounds: Bounds | None = None
        self.prices = Prices(setting)
        self.table, self.note = Table(), Note(kind="info")
        super().__init__(
            _controls(setting),
            {
                "epsilon": LivePlot(height=380, title=say("ε over the steps, by every accountant")),
                "losses": LivePlot(height=300, title=say("Privacy loss of the whole run")),
                "tradeoff": LivePlot(height=300, title=say("What an attacker can do")),
            },
            self.note,
            table=self.table,
            wide=("epsilon",),
        )  # fmt: skip

    @property
    def setting(self) -> Setting:
        """The run as the controls stand."""
        return Setting(
            float(self.value("sample_rate")), float(self.value("noise_multiplier")),
            int(self.value("steps")), float(self.value("delta")),
            Neighbours[self.value("relation")],
        )  # fmt: skip

    def redraw(self) -> None:
        """The curves, since they are what the eye follows."""
        self.prices = Prices(self.setting)
        self.prices.grow(_SOON)
        self._show_curves(self.prices)

    def afterwards(self) -> Iterator[Callable[[], None]]:
        """What lies behind the curves, and those of their points that take long."""
        prices, pld = self.prices, PLD()
        setting, ledger = prices.setting, prices.setting.ledger
        fpr = np.linspace(0.0, 1.0, 101)
        fnr, best = pld.tradeoff(ledger, fpr), pld.advantage(ledger)
        yield lambda: self._show_attack(prices, fpr, fnr, best)
        bounds = pld.bounds(ledger, setting.delta)
        yield lambda: self._explain(prices, bounds)
        found = pld.loss_distribution(ledger, bins=80)
        yield lambda: self._show_losses(prices, found)
        if prices.grow(0.0):
            prices.grow(_LATER)
            yield lambda: self._show_curves(prices)

    def _show_curves(self, prices: Prices) -> None:
        lines, ends = prices.lines, prices.ends
        said = ", ".join(f"{say(name)} {_number(end)}" for name, end in ends.items())
        self.plots["epsilon"].show(
            _over_steps(lines, ends),
            say("after {steps:,} steps: {said}", steps=prices.setting.steps, said=said),
        )

    def _explain(self, prices: Prices, bounds: Bounds) -> None:
        """Words and numbers, with the lower side that only PLD has."""
        setting, ends = prices.setting, prices.ends
        self.bounds = bounds
        self.table.show(
            say(
                "ε of {steps:,} steps ({epochs:,.3g} epochs) at δ = {delta}, neighbours: "
                "{relation}",
                steps=setting.steps,
                epochs=setting.sample_rate * setting.steps,
                delta=short(setting.delta),
                relation=say(setting.relation.value),
            ),
            (say("accountant"), say("at least"), say("estimate"), say("at most"), say("how")),
            [_row(place, ends, bounds) for place in range(len(ACCOUNTANTS))],
        )
        unable = (
            say("**{name}** is not drawn. {reason}", name=say(name), reason=why)
            for name, why in prices.refused.items()
        )
        self.note.show("\n\n".join(unable), "info")
        self.said.show(_verdict(ends, bounds))

    def _show_attack(self, prices: Prices, fpr: Values, fnr: Values, best: float) -> None:
        """What the best attacker can do."""
        figure = privacy.tradeoff(fpr, fnr, prices.ends["PLD"], prices.setting.delta, best)
        self.plots["tradeoff"].show(
            figure, say("largest advantage of an attacker {share:.1%}", share=best)
        )

    def _show_losses(self, prices: Prices, found: LossDistribution) -> None:
        """The loss distribution from both sides."""
        epsilon = prices.ends["PLD"]
        self.plots["losses"].show(
            privacy.losses(found.edges, found.upper, found.lower, epsilon),
            say(
                "losses from {low:.3g} to {high:.3g}, epsilon {epsilon}",
                low=found.edges[0],
                high=found.edges[-1],
                epsilon=round_up(epsilon),
            ),
        )


def _controls(setting: Setting) -> dict[str, Slider | Choice]:
    return {
        "sample_rate": Slider(label=say("Sample rate q"), value=float(f"{setting.sample_rate:.4g}"),
                              low=1e-4, high=1.0, log=True, ends=(say("rare"), say("every step")),
                              help=say("chance that a step sees a record")),
        "noise_multiplier": Slider(label=say("Noise multiplier σ"), value=setting.noise_multiplier,
                                   low=0.4, high=20.0, log=True,
                                   ends=(say("more accurate"), say("more private"))),
        "steps": Slider(label=say("Steps T"), value=setting.steps, low=1, high=_MOST_STEPS,
                        log=True, integer=True, ends=(say("short"), say("long"))),
        "delta": Slider(label="δ", value=setting.delta, low=1e-12, high=1e-2, log=True,
                        ends=(say("stricter"), say("looser")),
                        help=say("added probability that e^epsilon does not cover")),
        "relation": Choice(label=say("Neighbours"),
                           options=[(say(n), k) for n, k in AccountantsPanel.RELATIONS],
                           value=setting.relation.name,
                           help=say("which pairs of data sets must look alike")),
    }  # fmt: skip


def _over_steps(lines: list[privacy.Priced], ends: dict[str, float]) -> privacy.Figure:
    """Two or three decades about the tight epsilon, whole ones: the axis moves seldom."""
    tight, loose = ends["PLD"], ends.get("moments (2016)", ends["PLD"])
    good = tight if 0 < tight < math.inf else 1.0
    top = 10.0 ** math.ceil(math.log10(1.3 * (loose if math.isfinite(loose) else good)))
    bottom = min(10.0 ** math.floor(math.log10(good / 3)), top / 100)
    return privacy.accountants(lines, x_range=(0.9, 1.6 * _MOST_STEPS), y_range=(bottom, top))


def _row(place: int, ends: dict[str, float], bounds: Bounds) -> tuple[str, ...]:
    """One accountant's numbers; an estimate has no side that holds."""
    accountant, name, *_ = ACCOUNTANTS[place]
    if name not in ends:
        return (say(name), say("cannot account this setting: see above"))
    value = _number(ends[name])
    if isinstance(accountant, PLD):
        return (say(name), _number(bounds.lower, -1), _number(bounds.estimate),
                _number(bounds.upper, 1), retold(bounds.method))  # fmt: skip
    if not accountant.is_bound:
        return (say(name), "–", value, "∞", say("limit theorem: nothing is proven"))
    return (say(name), "–", "–", value, say("upper bound"))


def _verdict(ends: dict[str, float], bounds: Bounds) -> str:
    """What the numbers mean, in two sentences."""
    words = say(
        "**ε = {epsilon}**, proven to lie between {low} and {high}.",
        epsilon=_number(bounds.estimate),
        low=_number(bounds.lower, -1),
        high=_number(bounds.upper, 1),
    )
    estimate, rdp = ends.get("GDP: an estimate"), ends.get("RDP")
    if rdp is not None and 0 < bounds.estimate < math.inf:
        words += say(" RDP says {share:.0%} more.", share=rdp / bounds.estimate - 1)
    if estimate is not None and estimate < bounds.lower * (1 - 1e-9):
        low = 1 - estimate / bounds.estimate
        words += say(
            " The GDP estimate lies **{share:.1%} below the proven minimum**: it says too little.",
            share=low,
        )
    return words


def _number(epsilon: float, towards: float = 0.0) -> str:
    """Five digits, as a reader writes them; rounded outward if `towards` is -1 or 1."""
    if not math.isfinite(epsilon):
        return "∞"
    if epsilon <= 0:
        return "0"
    digits = min(max(4 - math.floor(math.log10(epsilon)), 0), 9)
    whole = epsilon * 10.0**digits
    rounded = (
        math.floor(whole) if towards < 0 else math.ceil(whole) if towards > 0 else round(whole)
    )
    return f"{rounded / 10.0**digits:,.{digits}f}"


class FiveAnswersPanel(Lesson):
    """One run, five published answers: the figure, and why they differ."""

    def __init__(self, setting: Setting = RUN) -> None:
        """Compute and show them."""
        self.setting, self.answers = setting, published_answers(setting)
        self.table = Table()
        plots = {"answers": LivePlot(height=300, title=say("One run, five published answers"))}
        super().__init__({}, plots, table=self.table, wide=("answers",))

    def redraw(self) -> None:
        """The figure and a sentence each."""
        words = ", ".join(f"{say(a.name)} {privacy.told(a)}" for a in self.answers)
        self.plots["answers"].show(privacy.answers(self.answers), words)
        self.said.show(
            say(
                "**Which one would you print?** Nobody has lied: they answer with different "
                "means, and one of them answers a different question."
            )
        )
        self.table.show(
            say(
                "q = {rate:.4g}, σ = {sigma:g}, {steps:,} steps, δ = {delta}",
                rate=self.setting.sample_rate,
                sigma=self.setting.noise_multiplier,
                steps=self.setting.steps,
                delta=short(self.setting.delta),
            ),
            (say("answer"), "ε", say("kind"), say("why")),
            [
                (say(a.name), _number(a.epsilon, a.kind != "estimate"), say(a.kind), say(a.why))
                for a in self.answers
            ],
        )
