"""Votes taken apart: one image, its teachers' gradients, their votes, the noise, the direction."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from dpkit.figures import votes as figures
from dpkit.mechanisms import Gaussian, Refused
from dpkit.plan import round_up
from dpkit.votes.plan import VotePlan
from dpkit.widgets.controls import Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.words import say

if TYPE_CHECKING:
    from torch import Tensor

SIDE, DELTA, IMAGES, SEED = 8, 1e-5, 10, 0
MOST = 400
"""Generator steps that are drawn at most."""


class VotesPanel(Lesson):
    """One image of 8x8 pixels: what becomes of a teacher's gradient, and what a step costs.

    *Guarantee*
    - gradients, votes and noise are those of a run: the same functions, seeded, on the digits;
    - the gradient and the votes before the noise are for the eye: the panel says so.
    """

    def __init__(self) -> None:
        """Make the panel; the teachers look at their records when it is first drawn."""
        super().__init__(
            {
                "digit": Slider(label=say("Image of the digit"), value=0, low=0, high=9,
                                integer=True),
                "teachers": Slider(label=say("Teachers N"), value=200, low=10, high=1000, log=True,
                                   integer=True, ends=(say("few records lost"), say("many votes"))),
                "top_k": Slider(label=say("Coordinates voted on k"), value=20, low=1, high=SIDE**2,
                                integer=True, ends=(say("cheap"), say("all pixels"))),
                "noise": Slider(label=say("Noise σ on a sum"), value=60.0, low=1.0, high=1000.0,
                                log=True, unit=say("votes"), ends=(say("dear"), say("noisy"))),
                "threshold": Slider(label=say("Threshold β"), value=0.15, low=0.0, high=1.0,
                                    ends=(say("all move"), say("none move"))),
                "budget": Slider(label=say("Budget ε"), value=10.0, low=0.5, high=50.0, log=True),
                "copies": Slider(label=say("Teachers that hold one record r"), value=1, low=1,
                                 high=4, integer=True, ends=(say("disjoint"), say("overlapping"))),
                "draw": Slider(label=say("Draw of the noise"), value=1, low=1, high=30,
                               integer=True),
            },
            {
                "chain": LivePlot(height=230, title=say("From a gradient to a direction")),
                "histogram": LivePlot(height=300, title=say("Noisy votes and the threshold")),
                "spending": LivePlot(height=300, title=say("What the generator steps cost")),
            },
            wide=("chain",),
        )  # fmt: skip

    @property
    def plan(self) -> VotePlan:
        """The plan as the controls stand; refuses a budget that affords no step."""
        names = ("teachers", "top_k", "noise", "threshold", "budget", "copies")
        values = {name: self.value(name) for name in names}
        return VotePlan(images=IMAGES, delta=DELTA, **values)

    def redraw(self) -> None:
        """One image's votes, and the price of the steps."""
        k, sigma, teachers = (self.value(name) for name in ("top_k", "noise", "teachers"))
        gradient, vote, sums, noisy, way = self.votes()
        parts = [
            (say("one teacher’s gradient*"), gradient),
            (say("its {number} votes*", number=k), vote),
            (say("sum over {number:,}*", number=teachers), sums),
            (say("sum with noise"), noisy), (say("direction"), way),
        ]  # fmt: skip
        level = float(self.value("threshold")) * int(teachers)
        right = int(((way != 0) & (way == sums.sign())).sum())
        wrong = int((way != 0).sum()) - right
        ends = say(
            "{right} pixels move as the votes had it, {wrong} do not, the others stay.",
            right=right,
            wrong=wrong,
        )
        self.plots["chain"].show(figures.chain(parts, SIDE), ends)
        drawn = figures.histogram(noisy, level, float(sigma), int(teachers))
        self.plots["histogram"].show(drawn, ends)
        self.said.show(
            say(
                "{ends} (* not private: for your eye only.)\n\n{price}",
                ends=ends,
                price=self._priced(),
            )
        )

    def votes(self) -> tuple[Tensor, ...]:
        """A gradient, its votes, the sum of all, the noisy sum, the direction: `(64,)` each."""
        from dpkit.noise import Noise
        from dpkit.votes.ballot import direction, votes

        teachers, digit = int(self.value("teachers")), int(self.value("digit"))
        gradients = _gradients(teachers, int(self.value("copies")), digit)
        cast = votes(gradients, int(self.value("top_k")))
        sums = cast.sum(0)
        noise = Noise(1000 * int(self.value("draw")) + digit)
        noisy = Gaussian(float(self.value("noise"))).draw(sums.clone(), 1.0, noise)
        first = int((cast != 0).any(1).nonzero()[0]) if cast.any() else 0
        way = direction(noisy, float(self.value("threshold")) * teachers)
        return gradients[first], cast[first], sums, noisy, way

    def _priced(self) -> str:
        k, sigma, r = (self.value(name) for name in ("top_k", "noise", "copies"))
        reach = "2" if r == 1 else f"2 × {r}"
        rule = say(
            "A record moves a sum by at most {reach} √{k}, so a step on {images} images "
            "costs ρ = {images} × ({reach})² × {k} / (2 × {sigma:.4g}²).",
            reach=reach,
            k=k,
            images=IMAGES,
            sigma=sigma,
        )
        try:
            plan = self.plan
        except Refused as refusal:
            self.plots["spending"].show({"data": [], "layout": {}}, say("No step is affordable."))
            return say("{rule} **No step fits.** {refusal}", rule=rule, refusal=refusal)
        shown = replace(plan, most_steps=min(plan.steps, MOST))
        told = round_up(plan.epsilon())
        names = (
            say("disjoint shards") if r == 1 else say("{number} teachers hold a record", number=r)
        )
        lines = [(names, shown.curve())]
        if r > 1:
            alone = replace(plan, copies=1, most_steps=shown.steps)
            lines.append((say("what disjoint shards would cost"), alone.curve()))
        figure = figures.spending(lines, plan.budget, shown.steps, plan.steps)
        self.plots["spending"].show(
            figure, say("{steps} steps cost epsilon {epsilon}.", steps=plan.steps, epsilon=told)
        )
        text = say(
            "{rule} **{steps:,} generator steps** fit into ε = {budget:g} (they cost {epsilon} "
            "at δ = 1e-05).",
            rule=rule,
            steps=plan.steps,
            budget=plan.budget,
            epsilon=told,
        )
        if r > 1:
            free = replace(plan, copies=1, budget=1e4, most_steps=plan.steps).epsilon()
            text += say(
                " Were the shards disjoint, the same steps would cost ε = {epsilon}.",
                epsilon=round_up(free),
            )
        return text


@cache
def _gradients(teachers: int, copies: int, label: int) -> Tensor:
    """What each teacher would do to a grey image of a class: (N, 64)."""
    import torch

    from dpkit import datasets
    from dpkit.votes.generator import Generator
    from dpkit.votes.shards import Shards
    from dpkit.votes.teachers import Discriminator

    data = datasets.load("digits")
    stream = torch.Generator().manual_seed(SEED)
    shards = Shards(teachers, copies, key=bytes(16))
    places = torch.from_numpy(shards.filled(range(data.num_examples), data.num_examples))
    rows = data.inputs.flatten(1)
    seen = Discriminator(width=6.0).start(rows, data.targets, places, data.num_classes, stream)
    painter = Generator(start_spread=0.1).start(data.num_classes, rows.shape[1], stream)
    labels = torch.arange(data.num_classes).repeat_interleave(20)
    fakes = painter.drawn(labels)[1].unflatten(0, (data.num_classes, 20))
    one = torch.tensor([label])
    return seen.gradients(painter.drawn(one)[1], one, fakes)[:, 0]
