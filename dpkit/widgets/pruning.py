"""The panel of the pruning lesson: a mask on the weights, what it keeps, its noise, its overlap."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpkit.figures import pruning as figures
from dpkit.methods import (
    DPSGD,
    Freeze,
    Magnitude,
    Mask,
    PublicGradient,
    Random,
    Select,
)
from dpkit.methods.masks import Criterion
from dpkit.plan import Plan, round_up
from dpkit.samplers import Poisson
from dpkit.widgets.controls import Check, Choice, Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.words import marked, say

if TYPE_CHECKING:
    import torch

    from dpkit.datasets import Dataset
    from dpkit.methods.masking import Masking

BATCH, STEPS, SHOWN, UNITS = 128, 225, 24, 40
"""The run that is priced (20 epochs), steps of which the overlap is shown, hidden units drawn."""
MODES: dict[str, type[Mask]] = {"freeze": Freeze, "select": Select}
CRITERIA: dict[str, Criterion] = {
    "random": Random(), "magnitude": Magnitude(), "gradient": PublicGradient(),
}  # fmt: skip
TITLES = marked({
    "random": "by lot", "magnitude": "largest weights", "gradient": "largest public gradients",
})  # fmt: skip
STARTS = marked({
    "near": "other digits (near)", "far": "toy shapes (far)", "none": "nothing: random weights",
})  # fmt: skip


@cache
def records(start: str) -> Dataset:
    """The built-in digits with a fifth of them public; or with toy shapes as what is public."""
    from dataclasses import replace

    from dpkit import datasets
    from dpkit.pretraining import shapes

    data = datasets.load("digits", public=0.2)
    if start != "far":
        return data
    inputs, targets = shapes(data, len(data.public_inputs))
    return replace(data, public_inputs=inputs, public_targets=targets)


@cache
def _trained(start: str, seed: int) -> torch.nn.Module:
    from dpkit import zoo
    from dpkit.pretraining import pretrained

    data = records(start)
    model = zoo.mlp(data, seed)
    if start == "none":
        return model
    return pretrained(model, data.public_inputs, data.public_targets, epochs=20, seed=seed)


def started(start: str, seed: int = 0) -> torch.nn.Module:
    """A network of one's own, trained on the public records unless it begins at random."""
    return copy.deepcopy(_trained(start, seed))


def masking(mask: Mask, model: torch.nn.Module, data: Dataset) -> Masking:
    """A mask at work on a network, for the eye: it takes the public records only."""
    import torch

    from dpkit.gradients import SGD, Engine
    from dpkit.methods.masking import Masking

    made = Masking(mask, Engine(model, torch.nn.functional.cross_entropy), SGD())
    made.learn(data.public_inputs, data.public_targets)
    return made


def kept_energy(start: str, by: Criterion) -> tuple[NDArray[Any], NDArray[Any]]:
    """|S| / D, and the share of the public gradient's energy that so many best coordinates keep."""
    data = records(start)
    made = masking(Freeze(0.5, by), started(start), data)
    weights = made.engine.parameters
    gradient = made.gradient(len(data.public_inputs), 0).double()
    scores = by.scores(0, weights, made.gradient)
    energies = gradient.square()[scores.argsort(descending=True)].cumsum(0)
    share = np.arange(1, len(weights) + 1) / len(weights)
    return share, (energies / energies[-1]).numpy()


class PruningPanel(Lesson):
    """A mask drawn on the weights, the energy that it keeps, its noise, and how much it changes.

    *Guarantee*
    - nothing private is looked at but by the short private run whose released weights it reads:
      energies are of public records.
    """

    def __init__(self) -> None:
        """Make the panel on the built-in digits."""
        options = {name: [(say(title), key) for key, title in table.items()] for name, table in {
            "mode": marked({"freeze": "freeze: chosen once", "select": "select: anew each step"}),
            "by": TITLES, "start": STARTS}.items()}  # fmt: skip
        super().__init__(
            {
                "mode": Choice(label=say("Mode"), options=options["mode"]),
                "by": Choice(label=say("Kept"), options=options["by"], value="magnitude"),
                "start": Choice(label=say("Public pretraining on"), options=options["start"]),
                "ratio": Slider(label=say("Pruning ratio p"), value=0.7, low=0.0, high=0.99,
                                help=say("share of the weights that is frozen"),
                                ends=(say("all move"), say("few move"))),
                "clip": Slider(label=say("Clip norm C"), value=1.0, low=0.1, high=10.0, log=True),
                "sigma": Slider(label=say("Noise multiplier σ"), value=1.0, low=0.4, high=10.0,
                                log=True, ends=(say("more accurate"), say("more private"))),
                "scaled": Check(label=say("Clip to C √(|S|/D)")),
            },
            {
                "mask": LivePlot(height=330,
                                 title=say("First-layer weights: grey ones are frozen")),
                "energy": LivePlot(height=300,
                                   title=say("What the mask keeps of a public gradient")),
                "noise": LivePlot(height=300, title=say("Energy of the noise of a step")),
                "overlap": LivePlot(height=260,
                                    title=say("Overlap of one step's mask with the next")),
            },
            wide=("mask",),
        )  # fmt: skip

    @property
    def mask(self) -> Mask:
        """The mask as the controls stand."""
        made = MODES[self.value("mode")]
        return made(float(self.value("ratio")), CRITERIA[self.value("by")],
                    scaled_norm=bool(self.value("scaled")))  # fmt: skip

    @property
    def plan(self) -> Plan:
        """Twenty epochs on the digits with this mask."""
        method = DPSGD(float(self.value("sigma")), float(self.value("clip")), 0.5, mask=self.mask)
        return Plan(method, Poisson(BATCH / records("near").num_examples, STEPS))

    def redraw(self) -> None:
        """The mask of the first step, what it keeps, and its noise."""
        start, mask = self.value("start"), self.mask
        made = masking(mask, started(start), records(start))
        support = made.support(0, made.engine.parameters)
        first = next(iter(made.engine.slices.values()))
        rows = made.engine.leaves[0].shape[0]
        drawn = made.engine.parameters[first].view(rows, -1)[:UNITS]
        inside = support.mask[first].view(rows, -1)[:UNITS]
        side = round(drawn.shape[1] ** 0.5)
        words = say(
            "{kept:,} of {size:,} weights may move", kept=len(support.index), size=support.size
        )
        self.plots["mask"].show(figures.mask(drawn.numpy(), inside.numpy(), side), words)
        lines = {say(TITLES[key]): _thin(*_energies(start, key)) for key in CRITERIA}
        share, energy = _energies(start, self.value("by"))
        kept = float(energy[max(len(support.index), 1) - 1])
        self.plots["energy"].show(
            figures.energy(lines, (support.share, kept)),
            say("{share:.0%} of the energy", share=kept),
        )
        sigma, clip = float(self.value("sigma")), float(self.value("clip"))
        self.plots["noise"].show(
            figures.noise(sigma, clip, support.size, support.share, mask.scaled_norm), words
        )
        self.said.show(self._words(len(support.index), support.size, kept))

    def afterwards(self) -> Iterator[Callable[[], None]]:
        """The overlaps of a short private run."""
        found, share = overlaps(self.plan, self.value("start"))
        words = say(
            "{share:.0%} of the last step's support were in the one before", share=found[-1]
        )

        def show() -> None:
            self.plots["overlap"].show(figures.overlap(found, share), words)

        yield show

    def _words(self, kept: int, size: int, energy: float) -> str:
        share = kept / size
        better = say("more than") if energy > share + 0.02 else say("about")
        bound = float(self.value("clip")) * (share**0.5 if self.value("scaled") else 1.0)
        noise = float(self.value("sigma")) * bound * kept**0.5
        return say(
            "**{kept:,} of {size:,}** weights move. They hold {energy:.0%} of a public "
            "gradient's energy, {better} their share of {share:.0%}. The noise of a step has "
            "norm σC√|S| ≈ **{noise:.3g}** against records of at most {bound:.3g}. The price "
            "of 20 epochs is ε = **{epsilon}** (δ = 1e-5), whatever the mask.",
            kept=kept,
            size=size,
            energy=energy,
            better=better,
            share=share,
            noise=noise,
            bound=bound,
            epsilon=round_up(_price(float(self.value("sigma")))),
        )


@cache
def _energies(start: str, key: str) -> tuple[NDArray[Any], NDArray[Any]]:
    return kept_energy(start, CRITERIA[key])


def _thin(share: NDArray[Any], kept: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    places = np.unique(np.linspace(0, len(share) - 1, 120).astype(int))
    return share[places], kept[places]


@cache
def _price(sigma: float) -> float:
    return Plan(DPSGD(sigma), Poisson(BATCH / records("near").num_examples, STEPS)).epsilon()


def overlaps(plan: Plan, start: str, seed: int = 0) -> tuple[list[float], float]:
    """How much of each step's support was in the one before, and |S| / D: of a real private run.

    The supports are read off the weights that it released.
    """
    import torch

    from dpkit.training import train

    data, model = records(start), started(start)
    method: Any = plan.method
    made = masking(method.mask, model, data)
    found, before = [], made.support(0, made.engine.parameters)
    for step in train(model, data, plan, seed=seed, evaluate_every=0):
        now = made.support(step.step, made.engine.parameters)
        both = torch.isin(now.index, before.index, assume_unique=True).sum()
        found.append(float(both) / len(now.index))
        before = now
        if step.step == SHOWN:
            break
    return found, before.share


def accuracies(
    mode: str, by: str, ratios: tuple[float, ...], epsilon: float, *, start: str = "near",
    seeds: int = 3, rate: float = 0.5,
) -> list[tuple[float, list[float]]]:  # fmt: skip
    """Live on the digits: (ratio, test accuracy of each seed) at one price, paired by seed."""
    from dpkit.training import train

    data = records(start)
    plan = Plan(DPSGD(1.0, 1.0, rate), Poisson(BATCH / data.num_examples, STEPS))
    sigma = float(plan.calibrated(epsilon).method.noise_multiplier)  # type: ignore[attr-defined]
    found = []
    for ratio in ratios:
        mask = MODES[mode](ratio, CRITERIA[by])
        plan = Plan(DPSGD(sigma, 1.0, rate, mask=mask), plan.sampler)
        values = []
        for seed in range(seeds):
            *_, last = train(started(start, seed), data, plan, seed=seed, evaluate_every=STEPS)
            values.append(float(last.peek.accuracy or 0.0))
        found.append((ratio, values))
    return found
