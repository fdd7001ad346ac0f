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
from dpkit.widgets.controls import Choice, Note, Slider
from dpkit.widgets.lesson import Lesson, Table
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.pricing import ACCOUNTANTS, RUN, Prices, Setting, published_answers

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
        ("add or remove one", "ADD_REMOVE"), ("zero out one", "ZERO_OUT"),
        ("replace one", "REPLACE_ONE"),
    ]  # fmt: skip

    def __init__(self, setting: Setting = RUN) -> None:
        """Make the panel, standing on a setting."""
        self.bounds: Bounds | None = None
        self.prices = Prices(setting)
        self.table, self.note = Table(), Note(kind="info")
        super().__init__(
            _controls(setting),
            {
                "epsilon": LivePlot(height=380, title="ε over the steps, by every accountant"),
                "losses": LivePlot(height=300, title="Privacy loss of the whole run"),
                "tradeoff": LivePlot(height=300, title="What an attacker can do"),
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
        said = ", ".join(f"{name} {_number(end)}" for name, end in ends.items())
        self.plots["epsilon"].show(
            _over_steps(lines, ends), f"after {prices.setting.steps:,} steps: {said}"
        )

    def _explain(self, prices: Prices, bounds: Bounds) -> None:
        """Words and numbers, with the lower side that only PLD has."""
        setting, ends = prices.setting, prices.ends
        self.bounds = bounds
        self.table.show(
            f"ε of {setting.steps:,} steps ({setting.sample_rate * setting.steps:,.3g} epochs) at "
            f"δ = {short(setting.delta)}, neighbours: {setting.relation.value}",
            ("accountant", "at least", "estimate", "at most", "how"),
            [_row(place, ends, bounds) for place in range(len(ACCOUNTANTS))],
        )
        unable = (f"**{name}** is not drawn. {why}" for name, why in prices.refused.items())
        self.note.show("\n\n".join(unable), "info")
        self.said.show(_verdict(ends, bounds))

    def _show_attack(self, prices: Prices, fpr: Values, fnr: Values, best: float) -> None:
        """What the best attacker can do."""
        figure = privacy.tradeoff(fpr, fnr, prices.ends["PLD"], prices.setting.delta, best)
        self.plots["tradeoff"].show(figure, f"largest advantage of an attacker {best:.1%}")

    def _show_losses(self, prices: Prices, found: LossDistribution) -> None:
        """The loss distribution from both sides."""
        epsilon = prices.ends["PLD"]
        self.plots["losses"].show(
            privacy.losses(found.edges, found.upper, found.lower, epsilon),
            f"losses from {found.edges[0]:.3g} to {found.edges[-1]:.3g}, epsilon {epsilon:.3g}",
        )


def _controls(setting: Setting) -> dict[str, Slider | Choice]:
    return {
        "sample_rate": Slider(label="Sample rate q", value=float(f"{setting.sample_rate:.4g}"),
                              low=1e-4, high=1.0, log=True, ends=("rare", "every step"),
                              help="chance that a step sees a record"),
        "noise_multiplier": Slider(label="Noise multiplier σ", value=setting.noise_multiplier,
                                   low=0.4, high=20.0, log=True,
                                   ends=("more accurate", "more private")),
        "steps": Slider(label="Steps T", value=setting.steps, low=1, high=_MOST_STEPS, log=True,
                        integer=True, ends=("short", "long")),
        "delta": Slider(label="δ", value=setting.delta, low=1e-12, high=1e-2, log=True,
                        ends=("stricter", "looser"),
                        help="chance that the epsilon bound may fail"),
        "relation": Choice(label="Neighbours", options=AccountantsPanel.RELATIONS,
                           value=setting.relation.name,
                           help="which pairs of data sets must look alike"),
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
        return (name, "cannot account this setting: see above")
    value = _number(ends[name])
    if isinstance(accountant, PLD):
        return (name, _number(bounds.lower, -1), _number(bounds.estimate),
                _number(bounds.upper, 1), bounds.method)  # fmt: skip
    if not accountant.is_bound:
        return (name, "–", value, "∞", "limit theorem: nothing is proven")
    return (name, "–", "–", value, "upper bound")


def _verdict(ends: dict[str, float], bounds: Bounds) -> str:
    """What the numbers mean, in two sentences."""
    words = f"**ε = {_number(bounds.estimate)}**, proven to lie between "
    words += f"{_number(bounds.lower, -1)} and {_number(bounds.upper, 1)}."
    estimate, rdp = ends.get("GDP: an estimate"), ends.get("RDP")
    if rdp is not None and 0 < bounds.estimate < math.inf:
        words += f" RDP says {rdp / bounds.estimate - 1:.0%} more."
    if estimate is not None and estimate < bounds.lower * (1 - 1e-9):
        low = 1 - estimate / bounds.estimate
        words += (
            f" The GDP estimate lies **{low:.1%} below the proven minimum**: it says too little."
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
        plots = {"answers": LivePlot(height=300, title="One run, five published answers")}
        super().__init__({}, plots, table=self.table, wide=("answers",))

    def redraw(self) -> None:
        """The figure and a sentence each."""
        words = ", ".join(f"{a.name} {a.epsilon:.2f}" for a in self.answers)
        self.plots["answers"].show(privacy.answers(self.answers), words)
        self.said.show(
            "**Which one would you print?** Nobody has lied: they answer with different "
            "means, and one of them answers a different question."
        )
        self.table.show(
            f"q = {self.setting.sample_rate:.4g}, σ = {self.setting.noise_multiplier:g}, "
            f"{self.setting.steps:,} steps, δ = {short(self.setting.delta)}",
            ("answer", "ε", "kind", "why"),
            [(a.name, f"{a.epsilon:.4f}", a.kind, a.why) for a in self.answers],
        )
