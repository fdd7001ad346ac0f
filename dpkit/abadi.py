"""The founding experiment: MNIST as Abadi et al. trained on it in 2016, as one value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants import PLD, Accountant, Advanced, Moments
from dpkit.gradients.clipping import Flat, PerLayer
from dpkit.knobs import Knob, check_knobs, knob
from dpkit.mechanisms import Access, Gaussian, Ledger, Neighbours, PoissonSampling, Release
from dpkit.methods import DPSGD
from dpkit.plan import Plan
from dpkit.samplers import Poisson
from dpkit.schedules import PolynomialDecay
from dpkit.words import marked

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dpkit.datasets import Dataset
    from dpkit.training import Step

LAYERS = 2
"""Two weight matrices without biases, as in the code that the authors published."""
DELTA = 1e-5
"""The paper's delta."""


@dataclass(frozen=True)
class Row:
    """A line of the paper's table: what it set, and the accuracy that it reached."""

    epsilon: float
    noise_multiplier: float
    pca_noise: float
    accuracy: float


ROWS = (Row(0.5, 8.0, 16.0, 0.90), Row(2.0, 4.0, 7.0, 0.95), Row(8.0, 2.0, 4.0, 0.97))
"""*Source*: Abadi et al. 2016, section 5.2 and figure 3."""

VARIANTS = marked(
    {
        "layers": "each layer, as in the paper",
        "together": "both layers together",
        "tuned": "together, and tuned",
    }
)
"""Ways to run the paper's network at the same price."""
_SHORT = {
    "max_grad_norm": 0.25, "averaging": 0.998, "learning_rate": 3.2, "last_rate": 1.664,
    "fall": 10.0,
}  # fmt: skip
_WHOLE = {
    "max_grad_norm": 1.0,
    "averaging": 0.998,
    "learning_rate": 0.4,
    "last_rate": 0.005,
    "fall": 0.0,
}
TUNED: dict[float, dict[str, float]] = {0.5: _WHOLE, 2.0: _WHOLE, 8.0: _WHOLE}
"""What `benchmarks/abadi.py choice` chose for each epsilon, on training records held out for it."""


@dataclass(frozen=True)
class Experiment:
    """Private components, one hidden layer of ReLU, Poisson lots, a clip norm for each layer.

    `noise_multiplier` is the paper's: the noise on each layer, over that layer's clip norm. With
    `together` one clip norm bounds both layers at once instead, with the same noise over it.

    *Guarantee*
    - the plan charges what is released: both layers of every step, and the components;
    - `reading` is no guarantee: like the paper's example of 1.26 it takes a step for one release of
      that noise, however many layers are clipped by themselves. (The code that the authors
      published charges each layer.)

    *Source*: Abadi et al. 2016, sections 4 and 5.2.
    """

    noise_multiplier: float = knob(
        4.0, "σ", "noise on a layer over its clip norm", 0, 10_000, open_low=True, log=True
    )
    pca_noise: float = knob(
        7.0, "σ_p", "noise on the covariance, before the run", 0, 1e6, open_low=True, log=True
    )
    max_grad_norm: float = knob(
        4.0, "C", "clip norm of each layer", 0, 1e6, open_low=True, log=True
    )
    lot: int = knob(600, "L", "expected records in a lot", 1, 10_000_000, integer=True, log=True)
    learning_rate: float = knob(0.1, "η", "learning rate of the start", 0, 1e4, open_low=True)
    last_rate: float = knob(0.052, "η₁", "learning rate after its fall", 0, 1e4, open_low=True)
    fall: float = knob(10, "E₁", "epochs over which the rate falls, 0: all", 0, 1e6)
    components: int = knob(60, "k", "private components, 0: none", 0, 100_000, integer=True)
    hidden: int = knob(1000, "h", "hidden units", 1, 1_000_000, integer=True)
    averaging: float = knob(0.0, "a", "share of the average weights kept", 0, 1, open_high=True)
    together: bool = False

    def __post_init__(self) -> None:
        """Check every knob."""
        check_knobs(self)

    @classmethod
    def of(cls, row: Row, variant: str = "layers") -> Self:
        """A row of the table as the paper ran it, or by another of `VARIANTS` at its price."""
        made = cls(noise_multiplier=row.noise_multiplier, pca_noise=row.pca_noise)
        if variant == "layers":
            return made
        one = replace(made, noise_multiplier=made.joint_noise, together=True)
        return replace(one, **cast(Any, TUNED[row.epsilon])) if variant == "tuned" else one

    @property
    def joint_noise(self) -> float:
        """The noise over the bound of a record's whole gradient: what a step is charged for."""
        return self.noise_multiplier / (1 if self.together else math.sqrt(LAYERS))

    @property
    def before(self) -> tuple[Release, ...]:
        """The components' release, if there are any."""
        return (Release(Gaussian(self.pca_noise), access=Access.ALL),) if self.components else ()

    def rate(self, num_examples: int) -> float:
        """The chance q that a lot has a record."""
        Knob("L", "expected records in a lot", 1, num_examples, integer=True).check("lot", self.lot)
        return self.lot / num_examples

    def steps(self, num_examples: int, epochs: float) -> int:
        """As many steps as so many epochs have, one at least."""
        return max(1, round(epochs / self.rate(num_examples)))

    def plan(self, num_examples: int, steps: int) -> Plan:
        """The run as it is charged, and as it draws: Poisson lots, noise on all layers at once."""
        falls = self.steps(num_examples, self.fall) if self.fall else steps
        rate = PolynomialDecay(self.learning_rate, self.last_rate, 1.0, falls)
        bound = self.max_grad_norm * (1 if self.together else math.sqrt(LAYERS))
        clipping = Flat() if self.together else PerLayer()
        method = DPSGD(
            self.joint_noise, bound, rate, clipping=clipping, averaging=self.averaging
        )  # fmt: skip
        return Plan(method, Poisson(self.rate(num_examples), steps), DELTA, before=self.before)

    def calibrated(self, epsilon: float, num_examples: int, steps: int) -> Self:
        """The same with the noise at which so many steps cost that epsilon."""
        method = self.plan(num_examples, steps).calibrated(epsilon).method
        assert isinstance(method, DPSGD) and isinstance(method.noise_multiplier, float)
        return replace(
            self, noise_multiplier=self.noise_multiplier * method.noise_multiplier
            / self.joint_noise,
        )  # fmt: skip

    def length(self, epsilon: float, num_examples: int) -> int:
        """The most steps that this epsilon pays for."""
        return longest(epsilon, lambda steps: self.plan(num_examples, steps).epsilon())

    def spending(self, num_examples: int, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """The exact price after each of so many steps, in rising order: `(points,)` both."""
        ledger = self.plan(num_examples, int(steps[-1])).ledger()
        paid = {release.mechanism.pair(ledger.relation) for release in self.before}
        once = [mechanism in paid for mechanism in ledger.mechanisms]
        counts = np.where(once, 1, np.asarray(steps)[:, None])
        return PLD().curve(ledger.mechanisms, counts, DELTA)

    def reading(self, num_examples: int, steps: int) -> Ledger:
        """The run as if a step were one Gaussian of that noise, not one a layer."""
        add = Neighbours.ADD_REMOVE
        pair = Gaussian(self.noise_multiplier).pair(add, PoissonSampling(self.rate(num_examples)))
        paid = [(release.mechanism.pair(add), release.count) for release in self.before]
        return Ledger.of([*paid, (pair, steps)], add)

    def projected(self, data: Dataset, seed: int | None) -> Dataset:
        """The data, pixels in [0, 1], on private components: the release that `before` pays for."""
        data = as_pixels(data)
        if not self.components:
            return replace(
                data, inputs=data.inputs.flatten(1), test_inputs=data.test_inputs.flatten(1),
                public_inputs=data.public_inputs.flatten(1),
            )  # fmt: skip
        from dpkit.datasets import PrivatePCA

        return PrivatePCA(self.components, self.pca_noise).of(data, seed=seed)

    def model(self, data: Dataset, seed: int | None) -> nn.Module:
        """The paper's network for projected data: Glorot's start, no biases."""
        import torch
        from torch import nn

        generator = torch.Generator()
        generator.manual_seed(seed) if seed is not None else generator.seed()
        layers = []
        for wide, narrow in ((math.prod(data.shape), self.hidden), (self.hidden, data.num_classes)):
            layer = nn.utils.skip_init(nn.Linear, wide, narrow, bias=False)
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            layers.append(layer)
        return nn.Sequential(layers[0], nn.ReLU(), layers[1])

    def run(
        self, model: nn.Module, projected: Dataset, steps: int, seed: int | None
    ) -> Iterator[Step]:
        """Train on projected data; whoever wants an accuracy measures it himself."""
        from dpkit.training import train

        plan = self.plan(projected.num_examples, steps)
        return train(model, projected, plan, seed=seed, device="cpu", evaluate_every=0)


def as_pixels(data: Dataset) -> Dataset:
    """The data with inputs in [0, 1], as the paper's code has them: a fixed map, for all records.

    Smaller inputs matter: what noise has done to the weights is multiplied by them.
    """
    scaling = data.scaling
    if scaling.centre == 0 and scaling.spread == 1:
        return data
    shown = {
        f"{part}inputs": getattr(data, f"{part}inputs") * scaling.spread + scaling.centre
        for part in ("", "test_", "public_")
    }
    return replace(data, scaling=replace(scaling, centre=0.0, spread=1.0), **shown)


def longest(epsilon: float, price: Callable[[int], float]) -> int:
    """The most steps whose price is at most epsilon, for a price that grows with the steps."""
    low, high = 1, 2
    if price(low) > epsilon:
        raise ValueError(
            f"epsilon (ε, price to stay below) must be at least {price(low):.4g}, what the first "
            f"step and the components cost, got {epsilon:g}; allow more, or add noise."
        )
    while price(high) <= epsilon:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if price(middle) <= epsilon else (low, middle)
    return low


def hits(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """The share of right answers: not private where records are, for the reader's eye."""
    import torch

    with torch.no_grad():
        right = [
            int((model(x).argmax(1) == y).sum())
            for x, y in zip(inputs.split(1000), targets.split(1000), strict=True)
        ]
    return sum(right) / len(inputs)


@dataclass(frozen=True)
class Prices:
    """One run, priced by the means of 2016 and as it is."""

    strong: float
    moments: float
    layers: float
    exact: float


def prices(experiment: Experiment, num_examples: int, steps: int) -> Prices:
    """Strong composition and the moments accountant for one release a step; then the moments
    accountant and the exact price with every layer charged: the last is the promise.
    """
    read, charged = (
        experiment.reading(num_examples, steps), experiment.plan(num_examples, steps).ledger()
    )  # fmt: skip

    def price(accountant: Accountant, ledger: Ledger) -> float:
        return accountant.epsilon(ledger, DELTA)

    return Prices(
        price(Advanced(), read), price(Moments(), read), price(Moments(), charged),
        price(PLD(), charged),
    )  # fmt: skip
