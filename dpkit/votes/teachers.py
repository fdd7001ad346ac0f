"""Teachers: thousands of tiny discriminators, each on a private shard, worked on all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dpkit.knobs import check_knobs, knob

CHUNK = 512
"""Teachers whose records' hidden units are held at a time: always as many, whatever the data."""


@dataclass(frozen=True)
class Discriminator:
    """One hidden layer of public random units, and an output layer for each class.

    The hidden layer is drawn once for all teachers and knows no record. A teacher fits the output
    layers afresh in every step, in closed form: the mean of its own records' units less the mean
    of the generated images' units, the critic that tells the two apart best among those of one
    norm (Gretton et al. 2012, lemma 6). A teacher without a record of a class abstains there.
    """

    hidden: int = knob(
        128, "h", "hidden units of a discriminator", 1, 100_000, integer=True, log=True,
        slider=(8, 512),
    )  # fmt: skip
    width: float = knob(
        20.0, "w", "distance over which a hidden unit turns", 0, 1e9, open_low=True, log=True,
        slider=(0.1, 100.0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    def start(self, inputs: Tensor, targets: Tensor, places: Tensor, classes: int,
              stream: torch.Generator) -> Teachers:  # fmt: skip
        """Teachers on shards: `places` (N, room) are rows of `inputs` (n, d), -1 for none."""
        weights = torch.randn(inputs.shape[1], self.hidden, generator=stream) / self.width
        shifts = 2 * math.pi * torch.rand(self.hidden, generator=stream)
        return Teachers(weights, shifts, inputs, targets, places, classes)


class Teachers:
    """All teachers: of each, the mean hidden units of its records, class by class.

    *Guarantee*
    - what a teacher thinks of an image depends on its own shard and on public values alone;
    - nothing of it leaves but through `gradients`, whose votes are summed and noised.
    """

    def __init__(
        self,
        weights: Tensor,
        shifts: Tensor,
        inputs: Tensor,
        targets: Tensor,
        places: Tensor,
        classes: int,
    ) -> None:
        """Let each teacher look at its records, once."""
        self.weights, self.shifts, self.classes = weights, shifts, classes
        means, counts = [], []
        for some in places.split(CHUNK):
            held = torch.nn.functional.one_hot(targets[some.clamp_min(0)], classes)
            held = (held * (some >= 0)[..., None]).to(inputs.dtype)
            rows = inputs[some.clamp_min(0)].masked_fill((some < 0)[..., None], 0.0)
            count = held.sum(1)
            sums = held.transpose(1, 2) @ self._units(rows)
            means.append(sums / count.clamp_min(1)[..., None])
            counts.append(count)
        self._means, self._counts = torch.cat(means), torch.cat(counts)

    def gradients(self, images: Tensor, labels: Tensor, fakes: Tensor) -> Tensor:
        """How each teacher would move each image to look more like its records.

        *Shapes*: images (B, d), labels (B,), fakes (classes, F, d), generated ones to tell the
        records from; the result is (N, B, d), zero where a teacher abstains.
        """
        critics = self._means - self._units(fakes).mean(1)
        turned = -torch.sin(images @ self.weights + self.shifts)
        found = images.new_empty(len(self._means), *images.shape)
        for b, label in enumerate(labels.tolist()):
            slopes = turned[b, :, None] * self.weights.T
            moved = critics[:, label] @ slopes
            found[:, b] = moved.masked_fill((self._counts[:, label] == 0)[:, None], 0.0)
        return found

    def _units(self, rows: Tensor) -> Tensor:
        """Hidden units cos(w x + b), which stand for a Gaussian kernel (Rahimi, Recht 2007)."""
        return torch.cos(rows @ self.weights + self.shifts)
