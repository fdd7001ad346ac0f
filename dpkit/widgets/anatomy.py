"""One step of DP-SGD under the microscope: two weights, so that every gradient is an arrow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpkit import datasets, figures
from dpkit.figures import anatomy
from dpkit.mechanisms import Gaussian
from dpkit.methods import DPSGD
from dpkit.noise import Noise
from dpkit.plan import Plan, round_up
from dpkit.samplers import Poisson
from dpkit.widgets.controls import Buttons, Choice, Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.words import marked, say

if TYPE_CHECKING:
    import torch

    from dpkit.gradients import Engine

Values = NDArray[np.float64]

RECORDS, STEPS, DELTA = 400, 100, 1e-4
TRAINED = {marked("at the start"): 0, marked("half trained"): 12, marked("trained"): 400}
"""Plain gradient steps that the model has made before it is looked at."""
_CLOUD, _POINTS = 400, 30
_CLIPS = np.geomspace(0.02, 5.0, 60)
_BATCHES = np.geomspace(4, RECORDS, 40)


@dataclass(frozen=True)
class World:
    """Logistic regression with two weights on 400 moons, and the gradient of each record.

    *Shapes*: rows (N, 2).
    """

    engine: Engine
    inputs: torch.Tensor
    targets: torch.Tensor
    rows: Values

    @property
    def norms(self) -> Values:
        """The gradient norm of each record, (N,)."""
        return np.linalg.norm(self.rows, axis=1)

    def clipped(self, max_grad_norm: float) -> Values:
        """Each record's gradient at norm at most C, (N, 2)."""
        return self.rows * np.minimum(1, max_grad_norm / np.maximum(self.norms, 1e-300))[:, None]


@dataclass(frozen=True)
class Errors:
    """What keeps a step from the true gradient: three lengths, in units of the gradient.

    `bias` is what clipping takes away on average, `noise` and `sampling` are root mean squares.
    """

    bias: float
    noise: float
    sampling: float
    signal: float

    @property
    def total(self) -> float:
        """Root mean square distance of the step from the true gradient."""
        return math.sqrt(self.bias**2 + self.noise**2 + self.sampling**2)

    @property
    def ratio(self) -> float:
        """Signal to noise: the clipped mean over all that is random."""
        return self.signal / math.hypot(self.noise, self.sampling)


def errors(world: World, max_grad_norm: float, noise_multiplier: float, batch: float) -> Errors:
    """The expected errors of a step on a Poisson batch, divided by its expected size.

    E|step - g|^2 = |mean of clipped - g|^2 + 2 (sigma C / L)^2 + (1 - q) sum |clipped|^2 / (N L).
    """
    clipped, true = world.clipped(max_grad_norm), world.rows.mean(0)
    mean, rate = clipped.mean(0), batch / len(clipped)
    spread = (1 - rate) * float((clipped**2).sum()) / (len(clipped) * batch)
    return Errors(
        bias=float(np.linalg.norm(mean - true)),
        noise=math.sqrt(2) * noise_multiplier * max_grad_norm / batch,
        sampling=math.sqrt(max(spread, 0.0)),
        signal=float(np.linalg.norm(mean)),
    )


class AnatomyPanel(Lesson):
    """Arrows, the clip circle, the cloud of noise, and the step that comes out.

    *Guarantee*: gradients, clipping, noise and price are the library's own, not a drawing of them.
    """

    def __init__(self, seed: int = 0) -> None:
        """Make the panel; `seed` draws the batches and the noise."""
        self._seed = seed
        again = Buttons(
            actions=[("again", say("Draw another batch and noise"), "")], label=say("Step")
        )
        again.on_click(self._again)
        super().__init__(
            {
                "clip": Slider(label=say("Clip norm C"), value=0.5, low=0.05, high=3.0, log=True,
                               ends=(say("bias"), say("noise"))),
                "noise": Slider(label=say("Noise multiplier σ"), value=3.0, low=0.1, high=10.0,
                                log=True, ends=(say("accurate"), say("private"))),
                "batch": Slider(label=say("Expected batch L"), value=64, low=8, high=RECORDS,
                                log=True,
                                integer=True, ends=(say("few records"), say("all records"))),
                "model": Choice(label=say("Model"), options=[(say(name), name) for name in TRAINED],
                                value="at the start"),
                "again": again,
            },
            {
                "records": LivePlot(height=330, title=say("1  Clip: each record's gradient")),
                "step": LivePlot(height=330, title=say("2  Add noise: the step")),
                "price": LivePlot(height=330, title=say("3  Pay: {steps} such steps", steps=STEPS)),
                "norms": LivePlot(height=250, title=say("How long the gradients are")),
                "errors": LivePlot(height=250, title=say("Which C? Bias against noise")),
                "ratio": LivePlot(height=250, title=say("Which L? Signal to noise")),
            },
        )  # fmt: skip

    @property
    def world(self) -> World:
        """The model as far as it is trained, and all gradients there."""
        return _world(TRAINED[self.value("model")])

    def redraw(self) -> None:
        """One step on the batch that the seed draws, and what steps are like on average."""
        world, bound = self.world, float(self.value("clip"))
        sigma, batch = float(self.value("noise")), int(self.value("batch"))
        plan = Plan(DPSGD(sigma, bound), Poisson(batch / RECORDS, STEPS), DELTA)
        chosen = next(plan.sampler.batches(RECORDS, np.random.default_rng(self._seed)))
        clipped, noisy = self._step(plan, chosen)
        found = errors(world, bound, sigma, batch)
        raw, true = world.rows[chosen], world.rows.mean(0)
        share = float((world.norms > bound).mean())
        self.plots["records"].show(
            anatomy.arrows(raw, world.clipped(bound)[chosen], bound),
            say(
                "{drawn} gradients as arrows; {share:.0%} of all are longer than {bound:g}",
                drawn=len(chosen),
                share=share,
                bound=bound,
            ),
        )
        cloud = clipped + self._cloud(sigma, bound) / batch
        self.plots["step"].show(
            anatomy.step(true, clipped, noisy, cloud, sigma * bound / batch),
            say(
                "the step misses the true gradient by {distance:.3g}",
                distance=np.linalg.norm(noisy - true),
            ),
        )
        curve = plan.curve(_POINTS)
        self.plots["price"].show(
            anatomy.price(curve.steps, curve.epsilon),
            say("epsilon {epsilon}", epsilon=round_up(curve.epsilon[-1])),
        )
        self.plots["norms"].show(
            figures.norms(world.norms, bound), say("{share:.0%} are clipped", share=share)
        )
        self._trades(world, bound, sigma, batch, found)
        self.said.show(self._words(plan, len(chosen), found))

    def _trades(self, world: World, bound: float, sigma: float, batch: int, found: Errors) -> None:
        by_clip = [errors(world, c, sigma, batch) for c in _CLIPS]
        self.plots["errors"].show(
            anatomy.trade(_CLIPS, by_clip, bound, found),
            say(
                "at C = {clip:g} bias {bias:.3g}, noise {noise:.3g}",
                clip=bound,
                bias=found.bias,
                noise=found.noise,
            ),
        )
        by_batch = [errors(world, bound, sigma, size) for size in _BATCHES]
        self.plots["ratio"].show(
            anatomy.ratio(_BATCHES, [e.ratio for e in by_batch], batch, found.ratio),
            say(
                "signal to noise {ratio:.3g} at a batch of {batch}", ratio=found.ratio, batch=batch
            ),
        )

    def _step(self, plan: Plan, chosen: NDArray[np.int64]) -> tuple[Values, Values]:
        """The clipped sum and the noisy sum of a batch, both divided by the expected batch."""
        import torch

        world, index = self.world, torch.from_numpy(chosen)
        (release,) = plan.method.releases(0)
        bound, size = float(self.value("clip")), plan.sampler.expected_batch(RECORDS)
        total = world.engine.clipped_sum(world.inputs[index], world.targets[index], bound).total
        exact = total.double().numpy() / size
        noisy = release.mechanism.draw(total, bound, Noise(self._seed))
        return exact, noisy.double().numpy() / size

    def _cloud(self, sigma: float, bound: float) -> Values:
        import torch

        zeros = torch.zeros(_CLOUD, 2, dtype=torch.float64)
        return Gaussian(sigma).draw(zeros, bound, Noise(self._seed + 1)).numpy()

    def _words(self, plan: Plan, drawn: int, found: Errors) -> str:
        worst = max(("bias", "noise", "sampling"), key=lambda name: getattr(found, name))
        named = {"bias": say("the bias of clipping"), "noise": say("the noise"),
                 "sampling": say("the luck of the batch")}[worst]  # fmt: skip
        return say(
            "{drawn} records were drawn (expected {expected:.0f}). On average a step misses "
            "the true gradient by **{total:.2g}**, mostly by {culprit} (bias {bias:.2g}, "
            "noise {noise:.2g}, batch {sampling:.2g}). {steps} such steps cost **ε = "
            "{epsilon}** at δ = {delta:g}, whatever C is.",
            drawn=drawn,
            expected=plan.sampler.expected_batch(RECORDS),
            total=found.total,
            culprit=named,
            bias=found.bias,
            noise=found.noise,
            sampling=found.sampling,
            steps=STEPS,
            epsilon=round_up(plan.epsilon()),
            delta=DELTA,
        )

    def _again(self, _: str) -> None:
        self._seed += 2
        self._turned(None)


@cache
def _world(steps: int) -> World:
    """The records, the model after some plain gradient steps, and the gradients there."""
    import torch
    from torch.nn import functional

    from dpkit.gradients import Engine

    def loss(outputs: Any, targets: Any, reduction: str = "none") -> Any:
        return functional.binary_cross_entropy_with_logits(
            outputs[:, 0], targets, reduction=reduction
        )

    data = datasets.load("moons", num_examples=RECORDS)
    inputs, targets = data.inputs[:RECORDS].double(), data.targets[:RECORDS].double()
    model = torch.nn.Linear(2, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    engine, held = Engine(model, loss), list[Any]()
    for _ in range(steps):
        total = engine.clipped_sum(inputs, targets, math.inf).total
        engine.parameters.add_(total, alpha=-0.5 / len(inputs))

    def kept(rows: Any) -> Any:
        held.append(rows.clone())
        return rows

    engine.transformed_sum(inputs, targets, kept, math.inf)
    return World(engine, inputs, targets, torch.cat(held).numpy())
