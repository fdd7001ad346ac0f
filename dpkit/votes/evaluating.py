"""What generated records are worth: a classifier that learns from them meets real test records."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dpkit.accountants import PLD, Accountant, solve_scale
from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import Access, Gaussian, Ledger, Release
from dpkit.noise import Noise
from dpkit.votes.plan import RELATION

HELD_OUT = 0.2
"""The share of the generated records on which a classifier is chosen."""
RATE, BATCH = 2e-3, 256
DEFORMED = (0.17, 0.4, 0.3, 0.3, 0.04, 0.04)
"""Turn (radians), slant, stretches and shifts of an image at most, in shares of half its side."""


class Worth(NamedTuple):
    """Accuracy on real test records, and on the generated ones that chose the classifier."""

    accuracy: float
    generated: float
    epochs: int
    classifier: nn.Sequential


@dataclass(frozen=True)
class Judge:
    """A classifier with one hidden layer that sees generated records only.

    *Guarantee*
    - its epoch is chosen on generated records that it did not learn from;
    - real test records are looked at once, when all is chosen.
    """

    hidden: int = knob(128, "h", "hidden units of the classifier", 1, 10_000, integer=True)
    epochs: int = knob(15, "E", "passes over the generated records", 1, 10_000, integer=True)
    jitter: float = knob(
        0.0, "j", "normal noise on each coordinate of a generated record", 0, 1e6, slider=(0, 10)
    )

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    def worth(
        self,
        generated: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        classes: int,
        seed: int = 0,
    ) -> Worth:
        """Learn, choose, and meet the test records.

        *Shapes*: records (n, d) and classes (n,) in either pair.
        """
        stream = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(generated[0]), generator=stream)
        records, labels = generated[0][order], generated[1][order]
        cut = math.ceil(len(records) * HELD_OUT)
        model = self._started(records.shape[1], classes, stream)
        best, kept, at = -1.0, model.state_dict(), 0
        moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters()]
        for epoch in range(self.epochs):
            self._epoch(model, records[cut:], labels[cut:], stream, epoch, moments)
            found = _accuracy(model, records[:cut], labels[:cut])
            if found >= best:
                best, at = found, epoch + 1
                kept = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(kept)
        return Worth(_accuracy(model, *test), best, at, model)

    def _started(self, width: int, classes: int, stream: torch.Generator) -> nn.Sequential:
        model = nn.Sequential(nn.Linear(width, self.hidden), nn.ReLU(),
                              nn.Linear(self.hidden, classes))  # fmt: skip
        for parameter in model.parameters():
            fan = parameter.shape[-1] if parameter.dim() > 1 else math.inf
            drawn = torch.randn(parameter.shape, generator=stream)
            parameter.data = drawn * (1 / math.sqrt(fan) if fan < math.inf else 0.0)
        return model

    def _epoch(
        self, model: nn.Sequential, records: Tensor, labels: Tensor, stream: torch.Generator,
        epoch: int, moments: list[tuple[Tensor, Tensor]],
    ) -> None:  # fmt: skip
        """One pass of Adam (Kingma, Ba 2015) on the generated records, at a rate that falls."""
        rate, batches = RATE * (1 - epoch / self.epochs), -(-len(records) // BATCH)
        order = torch.randperm(len(records), generator=stream)
        for number, some in enumerate(order.split(BATCH), start=1 + epoch * batches):
            jitter = torch.randn(len(some), records.shape[1], generator=stream)
            loss = nn.functional.cross_entropy(
                model(records[some] + self.jitter * jitter), labels[some]
            )
            slopes = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for p, (m, v), g in zip(model.parameters(), moments, slopes, strict=True):
                    m.lerp_(g, 0.1)
                    v.lerp_(g * g, 0.001)
                    size = (v / (1 - 0.999**number)).sqrt_().add_(1e-8)
                    p.addcdiv_(m, size, value=-rate / (1 - 0.9**number))


def deformed(images: Tensor, seed: int = 0) -> Tensor:
    """Images slanted, turned, stretched and shifted a little at random, as handwriting varies.

    What is known of handwriting is public: no record is asked.

    *Shapes*: (n, 1, side, side), the result likewise.
    """
    stream = torch.Generator().manual_seed(seed)
    turn, slant, wide, high, across, down = (
        size * (2 * torch.rand(len(images), generator=stream) - 1) for size in DEFORMED
    )
    rows = torch.stack([
        torch.stack([turn.cos() * (1 + wide), slant - turn.sin(), across], 1),
        torch.stack([turn.sin(), turn.cos() * (1 + high), down], 1),
    ], 1)  # fmt: skip
    places = nn.functional.affine_grid(rows, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(
        images, places, align_corners=False, padding_mode="border"
    )  # fmt: skip


@torch.no_grad()
def _accuracy(model: nn.Sequential, records: Tensor, labels: Tensor) -> float:
    return float((model(records).argmax(1) == labels).double().mean())


@torch.no_grad()
def frechet(classifier: nn.Sequential, left: Tensor, right: Tensor) -> float:
    """The Frechet distance of two sets of records in the hidden units of a classifier.

    What FID is with Inception's units. *Source*: Heusel et al. 2017.
    """
    means, covariances = [], []
    for records in (left, right):
        units = classifier[:2](records).double()
        means.append(units.mean(0))
        covariances.append(torch.cov(units.T))
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    middle = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp_min(0).sqrt().sum()
    apart = (means[0] - means[1]).square().sum()
    return float(apart + covariances[0].trace() + covariances[1].trace() - 2 * middle)


@dataclass(frozen=True)
class ClassMeans:
    """The plainest private generator: one noisy sum of records for each class, and a spread.

    *Guarantee*
    - a record adds a vector of norm at most C to one class's sum, so a change of the record moves
      all sums together by at most 2 C; that is charged, once;
    - sums are divided by the public number of records over the number of classes.
    """

    noise_multiplier: float = knob(
        MISSING, "σ", "noise standard deviation / clip norm", 0, 1e9, log=True
    )
    max_norm: float = knob(10.0, "C", "clip norm of a record", 0, 1e9, open_low=True, log=True)

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    @property
    def release(self) -> Release:
        """One Gaussian that reads all records."""
        return Release(Gaussian(self.noise_multiplier), access=Access.ALL)

    @property
    def ledger(self) -> Ledger:
        """What it costs."""
        return Ledger.of([(self.release.mechanism.pair(RELATION), 1)], RELATION)

    def calibrated(
        self, epsilon: float, delta: float, accountant: Accountant = PLD()  # noqa: B008
    ) -> ClassMeans:  # fmt: skip
        """The least noise for a price."""

        def price(scale: float) -> float:
            return accountant.epsilon(replace(self, noise_multiplier=scale).ledger, delta)

        return replace(self, noise_multiplier=solve_scale(price, epsilon, start=5.0))

    def means(
        self, records: Tensor, labels: Tensor, classes: int, num_examples: int,
        seed: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Noisy class means (classes, d): one release each time it is called."""
        finite = torch.isfinite(records).all(1, keepdim=True)
        rows = torch.where(finite, records, 0.0)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float64)
        shrunk = (self.max_norm / norms.clamp_min(1e-300)).clamp_max(1.0)
        rows = (rows.double() * shrunk).to(rows.dtype)
        rows = torch.where(torch.isfinite(rows).all(1, keepdim=True), rows, 0.0)
        sums = torch.zeros(classes, records.shape[1]).index_add_(0, labels, rows)
        noisy = self.release.mechanism.draw(sums, self.max_norm, Noise(seed))
        return noisy * (classes / num_examples)
