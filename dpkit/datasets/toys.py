"""Two-dimensional toy sets, drawn from laws that are public: any size, any noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpkit.datasets.raw import Array, Raw
from dpkit.knobs import Knob

TEST_EXAMPLES = 1_000
DEFAULT_EXAMPLES = 1_000
MOST_EXAMPLES = 10_000_000
NOISE = Knob("noise", "standard deviation of the scatter about the shape", 0.0, 10.0)

Points = NDArray[np.float64]


def _turn(angle: Array) -> Points:
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _moons(labels: Array, along: Array) -> Points:
    """Two half circles that reach into each other."""
    upper = _turn(np.pi * along)
    return np.where(labels[:, None] == 0, upper, np.array([1.0, 0.5]) - upper)


def _circles(labels: Array, along: Array) -> Points:
    """A small ring inside a larger one."""
    return _turn(2 * np.pi * along) * np.where(labels == 0, 1.0, 0.5)[:, None]


def _spiral(labels: Array, along: Array) -> Points:
    """Two arms of one and a half turns; the square root spreads the points evenly along them."""
    radius = np.sqrt(along)
    return _turn(3 * np.pi * radius + np.pi * labels) * radius[:, None]


def _blobs(labels: Array, along: Array) -> Points:
    """Four corners of a square; the scatter is all in the noise."""
    return np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])[labels]


@dataclass(frozen=True)
class Toy:
    """A law of labelled points, and the public constants that bring it to about unit size.

    The constants are mean and standard deviation of the law without noise, rounded: a fact about
    the formula, not about the points that were drawn.
    """

    name: str
    classes: tuple[str, ...]
    shape: Callable[[Array, Array], Points]
    noise: float
    centre: tuple[float, float]
    spread: tuple[float, float]

    def load(self, num_examples: int | None, noise: float | None, seed: int) -> Raw:
        """Training and test points from separate streams of the seed; classes of equal size."""
        total = DEFAULT_EXAMPLES if num_examples is None else num_examples
        scatter = self.noise if noise is None else noise
        NOISE.check("noise", scatter)
        size = Knob(
            "N", "how many training records", len(self.classes), MOST_EXAMPLES, integer=True
        )
        size.check("num_examples", total)
        train = self._drawn(int(total), scatter, np.random.default_rng([seed, 0]))
        test = self._drawn(TEST_EXAMPLES, scatter, np.random.default_rng([seed, 1]))
        return Raw(self.name, *train, *test, classes=self.classes)

    def _drawn(self, total: int, noise: float, rng: np.random.Generator) -> tuple[Array, Array]:
        labels = rng.permutation(np.arange(total) % len(self.classes))
        points = self.shape(labels, rng.random(total)) + noise * rng.standard_normal((total, 2))
        return ((points - self.centre) / self.spread).astype(np.float32), labels


_TOYS = (
    Toy("moons", ("upper", "lower"), _moons, 0.15, (0.5, 0.25), (0.87, 0.49)),
    Toy("circles", ("outer", "inner"), _circles, 0.08, (0.0, 0.0), (0.56, 0.56)),
    Toy("spiral", ("first arm", "second arm"), _spiral, 0.04, (0.0, 0.0), (0.5, 0.5)),
    Toy("blobs", ("south-west", "north-west", "south-east", "north-east"), _blobs, 0.35,
        (0.0, 0.0), (1.0, 1.0)),
)  # fmt: skip
TOYS = {toy.name: toy for toy in _TOYS}
