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
from dpkit.words import marked, say

ZERO = Neighbours.ZERO_OUT
SCHEMES = marked(
    {
        "Poisson": ("Poisson", "each record tosses a coin at every step"),
        "Shuffle": ("Shuffle", "a fresh order of all records every epoch"),
        "BallsInBins": ("Balls in bins", "each record throws a die for its batch, every epoch"),
        "FixedSize": ("Fixed size", "a random subset of fixed size at every step"),
        "Partition": ("Shuffled once", "one order, kept for all epochs"),
    }
)
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
        again = Buttons(actions=[("again", say("Draw again"), "")], label=say("Draw"))
        again.on_click(self._again)
        options = [(say(title), key) for key, (title, _) in SCHEMES.items()]
        super().__init__(
            {
                "scheme": Choice(label=say("Batching"), options=options, value=name),
                "batches": Slider(label=say("Batches an epoch t"), value=12, low=2, high=20,
                                  integer=True, ends=(say("large"), say("small"))),
                "record": Slider(label=say("Record to follow"), value=7, low=1, high=self.RECORDS,
                                 integer=True),
                "again": again,
            },
            {
                "raster": LivePlot(height=400, title=say("Who is in which batch")),
                "sizes": LivePlot(height=230, title=say("Batch sizes")),
                "often": LivePlot(height=230, title=say("How often a record is seen in an epoch")),
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
            say(
                "record {record} is in {times} of {batches} batches", record=who + 1,
                times=int(seen[who].sum()), batches=seen.shape[1],
            ),
        )  # fmt: skip
        low, high = int(counts.min()), int(counts.max())
        told = (
            say("batches of {low} to {high} records", low=low, high=high)
            if low < high
            else say("batches of {size} records", size=low)
        )
        self.plots["sizes"].show(batching.sizes(seen, epoch), told)
        missed = say("{share:.0%} of the records are not seen in an epoch", share=shares[0])
        self.plots["often"].show(batching.participations(shares), missed)
        times = ", ".join(str(n) for n in often[who])
        title, words = (say(text) for text in SCHEMES[self.value("scheme")])
        self.said.show(
            say(
                "**{name}**: {doing}. {told}. Record {record} is seen {times} times in the "
                "{epochs} epochs; on average over all, {missed}.", name=title,
                doing=words, told=told[0].upper() + told[1:], record=who + 1, times=times,
                epochs=self.EPOCHS, missed=missed,
            )
        )  # fmt: skip

    def _again(self, _: str) -> None:
        self._seed += 1
        self._turned(None)


class BandsPanel(Lesson):
    """One run, four ways of batching, and what is known of each one's epsilon under ZERO_OUT."""

    NAMES: ClassVar = ("Poisson", "BallsInBins", "Shuffle", "FixedSize")
    LABELS: ClassVar = marked(("Poisson", "balls in bins", "shuffle", "fixed size"))
    _SIZE = 100  # records in a batch: of no consequence but for the fixed size's whole numbers

    def __init__(self) -> None:
        """Make the panel."""
        self.table = Table()
        self.rows: list[batching.Band] = []
        super().__init__(
            {
                "noise": Slider(label=say("Noise multiplier σ"), value=2.0, low=0.4, high=10.0,
                                log=True, ends=(say("more accurate"), say("more private"))),
                "batches": Slider(label=say("Batches an epoch t"), value=50, low=2, high=1000,
                                  log=True, integer=True),
                "epochs": Slider(label=say("Epochs E"), value=20, low=1, high=200, log=True,
                                 integer=True, ends=(say("short"), say("long"))),
                "delta": Slider(label="δ", value=1e-5, low=1e-8, high=1e-1, log=True,
                                ends=(say("stricter"), say("looser"))),
            },
            {"bands": LivePlot(height=300,
                               title=say("ε of one run, by how its batches are drawn"))},
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
            batching.Band(say(label), *ends, claimed)
            for label, ends, claimed in zip(self.LABELS, found, claims, strict=True)
        ]
        said = ", ".join(
            say(
                "{name} {low} to {high}", name=row.name,
                low=round_down(row.low), high=round_up(row.high),
            )
            for row in self.rows
        )  # fmt: skip
        self.plots["bands"].show(batching.bands(self.rows, (0.02, 400.0)), said)
        low, high = round_down(self.rows[2].low), round_up(self.rows[2].high)
        self.said.show(
            say(
                "Crosses mark the Poisson ε of **{poisson}**, which many libraries print for "
                "shuffled batches too. The shuffled run costs at least **{low}**, and dpkit can "
                "prove nothing below **{high}** for it.", poisson=round_up(poisson),
                low=low, high=high,
            )
        )  # fmt: skip

    def _tell(self, plans: list[Plan], found: list[tuple[float, float]]) -> None:
        how = (
            say("bracketed from both sides"), say("bracketed from both sides"),
            say("below: the largest coordinate; above: as if the order were known"),
            say("below: a worst case; above: the pair of Zhu, Dong, Wang 2022, for replacing"),
        )  # fmt: skip
        first = plans[0]
        self.table.show(
            say(
                "{steps:,} steps, σ = {sigma:.3g}, δ = {delta}, neighbours: {relation}",
                steps=first.steps, sigma=float(self.value("noise")), delta=short(first.delta),
                relation=say(ZERO.value),
            ),
            (say("batching"), say("at least"), say("at most"), say("how it is known")),
            [
                (say(label), printed(low, 4, -1), printed(high, 4, 1), words)
                for label, (low, high), words in zip(self.LABELS, found, how, strict=True)
            ],
        )  # fmt: skip


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
        again = Buttons(actions=[("again", say("Audit again"), "")], label=say("Audit"))
        again.on_click(self._again)
        super().__init__(
            {
                "scheme": Choice(label=say("Drawn by"),
                                 options=[(say(SCHEMES[key][0]), key) for key in self.KINDS]),
                "noise": Slider(label=say("Noise multiplier σ"), value=0.6, low=0.4, high=1.5,
                                log=True, ends=(say("leaks"), say("hides"))),
                "delta": Slider(label="δ", value=0.01, low=1e-3, high=0.1, log=True,
                                ends=(say("stricter"), say("looser"))),
                "epochs": Slider(label=say("Epochs to watch"), value=4000, low=500, high=16_000,
                                 log=True, integer=True, ends=(say("quick"), say("sure"))),
                "again": again,
            },
            {
                "leak": LivePlot(height=320, title=say("Audited ε against what is claimed")),
                "maxima": LivePlot(height=320, title=say("What the attacker looks at")),
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
        claims = {say("Poisson claim"): poisson}
        if self.value("scheme") != "Poisson":
            claims[say("dpkit's claim")] = own
        figure = batching.leak(epochs, found, claims, int(self.value("epochs")))
        last = found[-1] if found else 0.0
        self.plots["leak"].show(
            figure, say("audited epsilon at least {epsilon}", epsilon=round_down(last))
        )
        if seen:
            one = seen[-1]
            self.plots["maxima"].show(
                batching.maxima(one.present, one.absent, one.threshold),
                say("threshold {threshold:.2f}", threshold=one.threshold),
            )
        self.said.show(self._words(seen, poisson, own))

    def _words(self, seen: list[Watched], poisson: float, own: float) -> str:
        if not seen:
            return say("Watching the first epochs…")
        last = seen[-1]
        text = say(
            "{epochs:,} epochs with you and as many without, at δ = {delta}: **ε is at least "
            "{epsilon}** with 99.9% confidence.", epochs=len(last.present),
            delta=short(last.delta), epsilon=round_down(last.epsilon),
        )  # fmt: skip
        shown = round_up(poisson)
        if last.epsilon > float(shown):
            return say(
                "{text} The Poisson claim of **{claim} is false** for this run.", text=text,
                claim=shown,
            )  # fmt: skip
        return say(
            "{text} That is below the claim of {claim}, as it must be where that is true.",
            text=text, claim=round_up(own),
        )  # fmt: skip

    def _again(self, _: str) -> None:
        self._seed += 1_000_003
        self._turned(None)
