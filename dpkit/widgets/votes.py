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
                "digit": Slider(label="Image of the digit", value=0, low=0, high=9, integer=True),
                "teachers": Slider(label="Teachers N", value=200, low=10, high=1000, log=True,
                                   integer=True, ends=("few records lost", "many votes")),
                "top_k": Slider(label="Coordinates voted on k", value=20, low=1, high=SIDE**2,
                                integer=True, ends=("cheap", "all pixels")),
                "noise": Slider(label="Noise σ on a sum", value=60.0, low=1.0, high=1000.0,
                                log=True, unit="votes", ends=("dear", "noisy")),
                "threshold": Slider(label="Threshold β", value=0.15, low=0.0, high=1.0,
                                    ends=("all move", "none move")),
                "budget": Slider(label="Budget ε", value=10.0, low=0.5, high=50.0, log=True),
                "copies": Slider(label="Teachers that hold one record r", value=1, low=1, high=4,
                                 integer=True, ends=("disjoint", "overlapping")),
                "draw": Slider(label="Draw of the noise", value=1, low=1, high=30, integer=True),
            },
            {
                "chain": LivePlot(height=230, title="From a gradient to a direction"),
                "histogram": LivePlot(height=300, title="Noisy votes and the threshold"),
                "spending": LivePlot(height=300, title="What the generator steps cost"),
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
            ("one teacher’s gradient*", gradient), (f"its {k} votes*", vote),
            (f"sum over {teachers:,}*", sums), ("sum with noise", noisy), ("direction", way),
        ]  # fmt: skip
        level = float(self.value("threshold")) * int(teachers)
        right = int(((way != 0) & (way == sums.sign())).sum())
        wrong = int((way != 0).sum()) - right
        ends = f"{right} pixels move as the votes had it, {wrong} do not, the others stay."
        self.plots["chain"].show(figures.chain(parts, SIDE), ends)
        drawn = figures.histogram(noisy, level, float(sigma), int(teachers))
        self.plots["histogram"].show(drawn, ends)
        self.said.show(f"{ends} (* not private: for your eye only.)\n\n{self._priced()}")

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
        rule = (
            f"A record moves a sum by at most {reach} √{k}, so a step on {IMAGES} images costs "
            f"ρ = {IMAGES} × ({reach})² × {k} / (2 × {sigma:.4g}²)."
        )
        try:
            plan = self.plan
        except Refused as refusal:
            self.plots["spending"].show({"data": [], "layout": {}}, "No step is affordable.")
            return f"{rule} **No step fits.** {refusal}"
        shown = replace(plan, most_steps=min(plan.steps, MOST))
        told = round_up(plan.epsilon())
        names = "disjoint shards" if r == 1 else f"{r} teachers hold a record"
        lines = [(names, shown.curve())]
        if r > 1:
            alone = replace(plan, copies=1, most_steps=shown.steps)
            lines.append(("what disjoint shards would cost", alone.curve()))
        figure = figures.spending(lines, plan.budget, shown.steps, plan.steps)
        self.plots["spending"].show(figure, f"{plan.steps} steps cost epsilon {told}.")
        text = f"{rule} **{plan.steps:,} generator steps** fit into ε = {plan.budget:g} "
        text += f"(they cost {told} at δ = 1e-05)."
        if r > 1:
            free = replace(plan, copies=1, budget=1e4, most_steps=plan.steps).epsilon()
            text += f" Were the shards disjoint, the same steps would cost ε = {round_up(free)}."
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
