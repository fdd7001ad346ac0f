"""The generator: a public network from a class and a few random numbers to an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpkit.knobs import check_knobs, knob


@dataclass(frozen=True)
class Generator:
    """One hidden layer of random units, and an output layer for each class.

    The output layers alone are fitted, to the moved images, by the smallest change that fits them
    (a ridge keeps it from following one image's noise). All of it is public: it sees noisy votes.
    """

    latent: int = knob(6, "z", "random numbers behind an image", 1, 1000, integer=True)
    hidden: int = knob(
        48, "h_g", "hidden units of the generator", 1, 100_000, integer=True, log=True,
        slider=(4, 512),
    )  # fmt: skip
    spread: float = knob(
        1.0, "s", "share of an update that depends on the random numbers", 0, 100, slider=(0, 4)
    )
    start_spread: float = knob(
        1.0, "s0", "spread of the images at the start", 0, 1e6, slider=(0, 10)
    )
    ridge: float = knob(0.1, "λ", "ridge of the fit", 0, 1e6, slider=(0, 2))
    move: float = knob(
        1.0, "γ", "distance that a vote moves an image at first", 0, 1e6, open_low=True, log=True,
        slider=(0.001, 10.0),
    )  # fmt: skip
    last_move: float = knob(
        0.1, "γ_T", "distance that a vote moves an image at last", 0, 1e6, open_low=True, log=True,
        slider=(0.001, 10.0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    def start(self, classes: int, width: int, stream: torch.Generator) -> Painter:
        """A generator of images of `width` numbers, drawn from a public stream."""
        return Painter(self, classes, width, stream)

    def distance(self, step: int, steps: int) -> float:
        """How far the votes of a step move an image: falling geometrically."""
        share = step / max(1, steps - 1)
        return self.move * (self.last_move / self.move) ** share


class Painter:
    """A generator at work."""

    def __init__(
        self, settings: Generator, classes: int, width: int, stream: torch.Generator
    ) -> None:
        """Draw the hidden layer, and output layers of the spread that images start with."""
        self.settings, self.classes, self.width, self._stream = settings, classes, width, stream
        hidden = settings.hidden
        self.weights = torch.randn(settings.latent, hidden, generator=stream)
        self.shifts = torch.randn(hidden, generator=stream)
        self.output = torch.zeros(classes, hidden + 1, width)
        drawn = torch.randn(classes, hidden, width, generator=stream)
        if settings.spread:
            self.output[:, :-1] = drawn * settings.start_spread / settings.spread

    def drawn(self, labels: Tensor, stream: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Hidden units (B, h + 1) for fresh random numbers, and the images (B, d) they make."""
        latent = torch.randn(len(labels), self.settings.latent, generator=stream or self._stream)
        units = torch.tanh(latent @ self.weights + self.shifts)
        units *= self.settings.spread / math.sqrt(self.settings.hidden)
        units = torch.cat([units, units.new_ones(len(units), 1)], 1)
        return units, self.images(units, labels)

    def images(self, units: Tensor, labels: Tensor) -> Tensor:
        """The images (B, d) of hidden units and classes."""
        return torch.einsum("bh,bhd->bd", units, self.output[labels])

    def fit(self, units: Tensor, labels: Tensor, moved: Tensor) -> None:
        """Change the output layers as little as fits the moved images: dual ridge regression."""
        missing = moved - self.images(units, labels)
        alike = (labels[:, None] == labels).to(units.dtype) * (units @ units.T)
        alike.diagonal().add_(self.settings.ridge + 1e-6)
        weights = torch.linalg.solve(alike, missing)
        self.output.index_add_(0, labels, units[:, :, None] * weights[:, None, :])

    def state(self) -> dict[str, Any]:
        """All that it is: public."""
        return {"weights": self.weights, "shifts": self.shifts, "output": self.output}
