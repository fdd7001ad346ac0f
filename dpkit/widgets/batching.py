"""The panels of the batching lesson: batches drawn, four prices of one run, a shuffled leak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants import PLD
from dpkit.accountants.base import printed
from dpkit.auditing.batching import BatchAttack, Watched
from dpkit.figures import batching
from dpkit.figures.basics import short
from dpkit.mechanisms import Neighbours
from dpkit.methods import DPSGD
from dpkit.plan import Plan, round_down, round_up
from dpkit.samplers import BallsInBins, FixedSize, Partition, Poisson, Sampler, Shuffle
from dpkit.widgets.controls import Buttons, Choice, Slider
from dpkit.widgets.lesson import Lesson, Table
from dpkit.widgets.plot import LivePlot

ZERO = Neighbours.ZERO_OUT
SCHEMES = {
    "Poisson": ("Poisson", "each record tosses a coin at every step"),
    "Shuffle": ("Shuffle", "a fresh order of all records every epoch"),
    "BallsInBins": ("Balls in bins", "each record throws a die for its batch, every epoch"),
    "FixedSize": ("Fixed size", "a random subset of fixed size at every step"),
    "Partition": ("Shuffled once", "one order, kept for all epochs"),
}
"""Each scheme's name, and what it does."""


def scheme(name: str, records: int, batches: int, epochs: int) -> Sampler:
    """A sampler whose batches hold `records / batches` records, on average or always."""
    if name == "Poisson":
        return Poisson(1 / batches, batches * epochs)
    if name == "FixedSize":
        return FixedSize(max(round(records / batches), 1), records, batches * epochs)
    if name == "Partition":
        return Partition(batches, epochs)
    return (Shuffle if name == "Shuffle" else BallsInBins)(batches, epochs)


class BatchesPanel(Lesson):
    """A raster of records against steps: watch the same data being batched in five ways.

    *Guarantee*: what is shown was drawn by the very sampler that a run would use.
    """

    RECORDS, EPOCHS = 60, 4

    def __init__(self, name: str = "Poisson", seed: int = 0) -> None:
        """Make the panel; `seed` draws the batches."""
        self._seed = seed
        again = Buttons(actions=[("again", "Draw again", "")], label="Draw")
        again.on_click(self._again)
        options = [(title, key) for key, (title, _) in SCHEMES.items()]
        super().__init__(
            {
                "scheme": Choice(label="Batching", options=options, value=name),
                "batches": Slider(label="Batches an epoch t", value=12, low=2, high=20,
                                  integer=True, ends=("large", "small")),
                "record": Slider(label="Record to follow", value=7, low=1, high=self.RECORDS,
                                 integer=True),
                "again": again,
            },
            {
                "raster": LivePlot(height=400, title="Who is in which batch"),
                "sizes": LivePlot(height=230, title="Batch sizes"),
                "often": LivePlot(height=230, title="How often a record is seen in an epoch"),
            },
            wide=("raster",),
        )  # fmt: skip

    @property
    def sampler(self) -> Sampler:
        """The sampler as the controls stand."""
        batches = int(self.value("batches"))
        return scheme(self.value("scheme"), self.RECORDS, batches, self.EPOCHS)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Whether a record is in a step's batch, `(records, steps)`."""
        sampler = self.sampler
        seen = np.zeros((self.RECORDS, sampler.steps), bool)
        rng = np.random.default_rng(self._seed)
        for step, batch in enumerate(sampler.batches(self.RECORDS, rng)):
            seen[batch, step] = True
        return seen

    def redraw(self) -> None:
        """The raster and what can be counted in it."""
        seen, epoch = self.seen, int(self.value("batches"))
        who = int(self.value("record")) - 1
        often = seen.reshape(self.RECORDS, self.EPOCHS, epoch).sum(axis=2)
        shares = np.bincount(often.ravel(), minlength=5) / often.size
        counts = seen.sum(axis=0)
        self.plots["raster"].show(
            batching.raster(seen, epoch, who),
            f"record {who + 1} is in {int(seen[who].sum())} of {seen.shape[1]} batches",
        )
        low, high = int(counts.min()), int(counts.max())
        told = f"batches of {low} to {high} records" if low < high else f"batches of {low} records"
        self.plots["sizes"].show(batching.sizes(seen, epoch), told)
        missed = f"{shares[0]:.0%} of the records are not seen in an epoch"
        self.plots["often"].show(batching.participations(shares), missed)
        times = ", ".join(str(n) for n in often[who])
        title, words = SCHEMES[self.value("scheme")]
        self.said.show(
            f"**{title}**: {words}. {told[0].upper()}{told[1:]}. Record {who + 1} is seen {times} "
            f"times in the {self.EPOCHS} epochs; on average over all, {missed}."
        )

    def _again(self, _: str) -> None:
        self._seed += 1
        self._turned(None)


class BandsPanel(Lesson):
    """One run, four ways of batching, and what is known of each one's epsilon under ZERO_OUT."""

    NAMES: ClassVar = ("Poisson", "BallsInBins", "Shuffle", "FixedSize")
    LABELS: ClassVar = ("Poisson", "balls in bins", "shuffle", "fixed size")
    _SIZE = 100  # records in a batch: of no consequence but for the fixed size's whole numbers

    def __init__(self) -> None:
        """Make the panel."""
        self.table = Table()
        self.rows: list[batching.Band] = []
        super().__init__(
            {
                "noise": Slider(label="Noise multiplier σ", value=2.0, low=0.4, high=10.0, log=True,
                                ends=("more accurate", "more private")),
                "batches": Slider(label="Batches an epoch t", value=50, low=2, high=1000, log=True,
                                  integer=True),
                "epochs": Slider(label="Epochs E", value=20, low=1, high=200, log=True,
                                 integer=True, ends=("short", "long")),
                "delta": Slider(label="δ", value=1e-5, low=1e-8, high=1e-1, log=True,
                                ends=("stricter", "looser")),
            },
            {"bands": LivePlot(height=300, title="ε of one run, by how its batches are drawn")},
            table=self.table,
            wide=("bands",),
        )  # fmt: skip

    @property
    def plans(self) -> list[Plan]:
        """The four plans as the controls stand."""
        t, epochs = int(self.value("batches")), int(self.value("epochs"))
        method, delta = DPSGD(float(self.value("noise"))), float(self.value("delta"))
        samplers = [scheme(name, self._SIZE * t, t, epochs) for name in self.NAMES]
        return [Plan(method, sampler, delta, relation=ZERO) for sampler in samplers]

    def redraw(self) -> None:
        """The upper sides, which are the prices."""
        self._show([(plan.epsilon(), plan.epsilon()) for plan in self.plans])

    def afterwards(self) -> Iterator[Callable[[], None]]:
        """The lower sides, and the table."""
        plans, pld = self.plans, PLD()
        found = []
        for plan in plans:
            high = plan.epsilon()
            found.append((min(pld.below(plan.ledger(), plan.delta), high), high))
        yield lambda: self._show(found)
        yield lambda: self._tell(plans, found)

    def _show(self, found: list[tuple[float, float]]) -> None:
        poisson = found[0][1]
        claims = (None, None, poisson, poisson)
        self.rows = [
            batching.Band(label, *ends, claimed)
            for label, ends, claimed in zip(self.LABELS, found, claims, strict=True)
        ]
        said = ", ".join(
            f"{row.name} {round_down(row.low)} to {round_up(row.high)}" for row in self.rows
        )
        self.plots["bands"].show(batching.bands(self.rows, (0.02, 400.0)), said)
        low, high = round_down(self.rows[2].low), round_up(self.rows[2].high)
        self.said.show(
            f"Crosses mark the Poisson ε of **{round_up(poisson)}**, which many libraries print "
            f"for shuffled batches too. The shuffled run costs at least **{low}**, and "
            f"dpkit can prove nothing below **{high}** for it."
        )

    def _tell(self, plans: list[Plan], found: list[tuple[float, float]]) -> None:
        how = (
            "bracketed from both sides", "bracketed from both sides",
            "below: the largest coordinate; above: as if the order were known",
            "below: a worst case; above: the pair of Zhu, Dong, Wang 2022, for replacing",
        )  # fmt: skip
        first = plans[0]
        self.table.show(
            f"{first.steps:,} steps, σ = {float(self.value('noise')):.3g}, δ = "
            f"{short(first.delta)}, neighbours: {ZERO.value}",
            ("batching", "at least", "at most", "how it is known"),
            [
                (label, printed(low, 4, -1), printed(high, 4, 1), words)
                for label, (low, high), words in zip(self.LABELS, found, how, strict=True)
            ],
        )


class LeakPanel(Lesson):
    """A live audit of one epoch: what a shuffled run gives away beyond its Poisson claim.

    *Guarantee*: real batches, real noise, a threshold fixed beforehand; the bound holds with 99.9%
    confidence, and is compared at the same delta as the claims.
    """

    KINDS: ClassVar = ("Shuffle", "Poisson", "BallsInBins")

    def __init__(self, seed: int = 0) -> None:
        """Make the panel; `seed` draws batches and noise."""
        self._seed = seed
        self.watched: list[Watched] = []
        again = Buttons(actions=[("again", "Audit again", "")], label="Audit")
        again.on_click(self._again)
        super().__init__(
            {
                "scheme": Choice(label="Drawn by",
                                 options=[(SCHEMES[key][0], key) for key in self.KINDS]),
                "noise": Slider(label="Noise multiplier σ", value=0.6, low=0.4, high=1.5, log=True,
                                ends=("leaks", "hides")),
                "delta": Slider(label="δ", value=0.01, low=1e-3, high=0.1, log=True,
                                ends=("stricter", "looser")),
                "epochs": Slider(label="Epochs to watch", value=4000, low=500, high=16_000,
                                 log=True, integer=True, ends=("quick", "sure")),
                "again": again,
            },
            {
                "leak": LivePlot(height=320, title="Audited ε against what is claimed"),
                "maxima": LivePlot(height=320, title="What the attacker looks at"),
            },
        )  # fmt: skip

    @property
    def attack(self) -> BatchAttack:
        """The attack as the controls stand."""
        return BatchAttack(self.value("scheme"), float(self.value("noise")))

    def redraw(self) -> None:
        """The claims alone, until epochs have been watched."""
        self.watched = []
        self._show([], *self._claims())

    def afterwards(self) -> Iterator[Callable[[], None]]:
        """Watch epochs in both worlds, shown whenever their number has doubled."""
        delta, epochs = float(self.value("delta")), int(self.value("epochs"))
        claims = self._claims()
        seen: list[Watched] = []
        for found in self.attack.watched(delta, epochs, self._seed):
            seen = [*seen, found]
            yield lambda seen=seen: self._show(seen, *claims)  # type: ignore[misc]

    def _claims(self) -> tuple[float, float]:
        delta, attack = float(self.value("delta")), self.attack
        return attack.poisson_claim(delta), attack.claim(delta)

    def _show(self, seen: list[Watched], poisson: float, own: float) -> None:
        self.watched = seen
        epochs = [len(one.present) for one in seen]
        found = [one.epsilon for one in seen]
        claims = {"Poisson claim": poisson}
        if self.value("scheme") != "Poisson":
            claims["dpkit's claim"] = own
        figure = batching.leak(epochs, found, claims, int(self.value("epochs")))
        last = found[-1] if found else 0.0
        self.plots["leak"].show(figure, f"audited epsilon at least {round_down(last)}")
        if seen:
            one = seen[-1]
            self.plots["maxima"].show(
                batching.maxima(one.present, one.absent, one.threshold),
                f"threshold {one.threshold:.2f}",
            )
        self.said.show(self._words(seen, poisson, own))

    def _words(self, seen: list[Watched], poisson: float, own: float) -> str:
        if not seen:
            return "Watching the first epochs…"
        last = seen[-1]
        text = (
            f"{len(last.present):,} epochs with you and as many without, at δ = "
            f"{short(last.delta)}: **ε is at least {round_down(last.epsilon)}** "
            "with 99.9% confidence."
        )
        shown = round_up(poisson)
        if last.epsilon > float(shown):
            return f"{text} The Poisson claim of **{shown} is false** for this run."
        return (
            f"{text} That is below the claim of {round_up(own)}, as it must be where that is true."
        )

    def _again(self, _: str) -> None:
        self._seed += 1_000_003
        self._turned(None)
