"""Principal components: of the data, learnt once and paid for, or of public records, free."""

from __future__ import annotations

import math
import weakref
from dataclasses import MISSING, dataclass, replace
from typing import TYPE_CHECKING

from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import Access, Gaussian, Refused, Release
from dpkit.noise import Noise

if TYPE_CHECKING:
    from torch import Tensor

    from dpkit.datasets.dataset import Dataset

CHUNK = 1_000
"""Records that are projected at a time, always as many, so that none depends on how many others."""


@dataclass(frozen=True)
class PrivatePCA:
    """Records projected onto the first principal components of a noisy covariance (DP-PCA).

    `plan = Plan(method, sampler, delta, before=(pca.release,))` pays for it.

    *Guarantee*
    - each record, at length 1, adds x x^T to the covariance; its upper triangle moves by at most
      1 when a record comes or goes, and Gaussian noise of `noise_multiplier` is added to it;
    - the projection of a record depends on that record and the noisy covariance alone.

    *Source*: Dwork et al. 2014, "Analyze Gauss", Algorithm 1; Abadi et al. 2016, section 4.
    """

    components: int = knob(MISSING, "k", "principal components kept", 1, 100_000, integer=True)
    noise_multiplier: float = knob(
        MISSING, "σ_p", "noise standard deviation on the covariance", 0, 1e6, log=True
    )

    def __post_init__(self) -> None:
        """Check both knobs."""
        check_knobs(self)

    @property
    def release(self) -> Release:
        """What it costs: one Gaussian that reads all records."""
        return Release(Gaussian(self.noise_multiplier), access=Access.ALL)

    def of(self, data: Dataset, *, seed: int | None = None) -> Dataset:
        """The data with `components` numbers a record; one release each time it is called.

        *Shapes*: inputs `(N, ...)` to `(N, k)`; test and public records likewise.
        """
        vectors = self._directions(data.inputs.flatten(1).double(), Noise(seed))

        def projected(inputs: Tensor) -> Tensor:
            return inputs.flatten(1).double().matmul(vectors).float()

        return replace(
            data,
            inputs=projected(data.inputs),
            test_inputs=projected(data.test_inputs),
            public_inputs=projected(data.public_inputs),
            published=False,
            note=f"{self.components} private principal components",
        )

    def _directions(self, rows: Tensor, noise: Noise) -> Tensor:
        """Eigenvectors (d, k) of the noisy covariance, largest eigenvalue first."""
        import torch

        width = rows.shape[1]
        if self.components > width:
            raise ValueError(
                f"components (k, principal components kept) must be a whole number in [1, "
                f"{width}], the numbers in a record, got {self.components}; ask for fewer."
            )
        rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-300)
        upper = torch.triu_indices(width, width)
        covariance = rows.T @ rows
        triangle = covariance[upper[0], upper[1]]
        noisy = self.release.mechanism.draw(triangle, 1.0, noise)
        covariance[upper[0], upper[1]] = noisy
        covariance[upper[1], upper[0]] = noisy
        return torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : self.components]


@dataclass(frozen=True)
class PrivateMean:
    """The mean of all records, each cut to norm `max_norm`, with noise on their sum.

    `plan = Plan(method, sampler, delta, before=(mean.release,))` pays for it. A centre that fits
    the data lets an activation of fixed norm say more: see `dp.zoo.released(data, centre=...)`.

    *Guarantee*
    - a record adds at most `max_norm` to the sum; the divisor, the number of records, is public.
    """

    noise_multiplier: float = knob(
        MISSING, "σ_m", "noise standard deviation on the sum / norm of a record", 0, 1e6, log=True
    )
    max_norm: float = knob(1.0, "C_m", "norm that a record is cut to", 0, 1e6, open_low=True)

    def __post_init__(self) -> None:
        """Check both knobs."""
        check_knobs(self)

    @property
    def release(self) -> Release:
        """What it costs: one Gaussian that reads all records."""
        return Release(Gaussian(self.noise_multiplier), access=Access.ALL)

    def of(self, inputs: Tensor, *, seed: int | None = None) -> Tensor:
        """The noisy mean (d,) of records (N, ...); one release each time it is called."""
        import torch

        rows = inputs.flatten(1).double()
        rows = torch.where(torch.isfinite(rows).all(1, keepdim=True), rows, 0.0)
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        total = (rows * (self.max_norm / norms.clamp_min(self.max_norm))).sum(0)
        noisy = self.release.mechanism.draw(total, self.max_norm, Noise(seed))
        return (noisy / max(1, len(inputs))).float()


@dataclass(frozen=True)
class PublicPCA:
    """Directions of public records, for projecting private ones: nothing to pay for.

    `PublicPCA(1000).learnt(public).of(data)` centres records at the public mean, keeps the first
    `components` directions, and divides each by its standard deviation to the power `evenness`:
    0 leaves them as they are, 1 makes them equal on public records.

    *Guarantee*
    - the projection of a record depends on that record and the public ones alone.
    """

    components: int = knob(MISSING, "k", "principal components kept", 1, 100_000, integer=True)
    evenness: float = knob(0.0, "p", "power of the spread that is divided away", 0, 1)

    def __post_init__(self) -> None:
        """Check both knobs."""
        check_knobs(self)

    def learnt(self, public: Tensor) -> Projection:
        """The projection, scaled so that public records have mean square `components`.

        *Shapes*: public `(n, ...)`, of the shape of the records to project.
        """
        import torch

        rows = public.flatten(1).double()
        most = min(rows.shape)
        if self.components > most:
            raise ValueError(
                f"components (k, principal components kept) must be a whole number in [1, {most}], "
                f"as many as the public records tell apart, got {self.components}; ask for fewer."
            )
        centre = rows.mean(0)
        rows = rows - centre
        if not (torch.isfinite(rows).all() and rows.any()):
            raise ValueError(
                "Public records must be finite numbers and not all the same, or they have no "
                "principal components; give others."
            )
        variances, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        kept = variances.flip(0)[: self.components].clamp_min(1e-12 * float(variances[-1]))
        matrix = vectors.flip(1)[:, : self.components] * kept.pow(-self.evenness / 2)
        size = (self.components / kept.pow(1 - self.evenness).sum()).sqrt()
        note = f"{self.components} principal components of public records"
        return Projection(centre.float(), (matrix * size).float(), note, weakref.ref(public))


@dataclass(frozen=True, eq=False)
class Projection:
    """A public centre (d,) and public directions (d, k)."""

    centre: Tensor
    directions: Tensor
    note: str
    source: weakref.ref[Tensor]
    """The records that it was learnt from, while anybody holds them."""

    def features(self, inputs: Tensor) -> Tensor:
        """Projected records: (N, ...) to (N, k), in chunks of one size."""
        import torch

        rows, width = inputs.flatten(1) if len(inputs) else inputs, len(self.centre)
        if math.prod(inputs.shape[1:]) != width:
            raise ValueError(
                f"Records to project must have {width} numbers, as the public ones had, got the "
                f"shape {tuple(inputs.shape[1:])}."
            )
        found = torch.empty(len(inputs), self.directions.shape[1])
        room = torch.zeros(CHUNK, width)
        for start in range(0, len(inputs), CHUNK):
            some = rows[start : start + CHUNK]
            room[: len(some)] = some
            found[start : start + CHUNK] = ((room - self.centre) @ self.directions)[: len(some)]
        return found

    def images(self, features: Tensor) -> Tensor:
        """The records (N, d) that lie in the span of the directions and have these features."""
        import torch

        return self.centre + features @ torch.linalg.pinv(self.directions)

    def of(self, data: Dataset) -> Dataset:
        """The data with `k` numbers a record, in all splits."""
        if self.source() is data.inputs:
            raise Refused(
                "PublicPCA was learnt from the private records themselves, which is a release "
                "that nobody pays for: learn it from public records, or use PrivatePCA."
            )
        return replace(
            data,
            inputs=self.features(data.inputs),
            test_inputs=self.features(data.test_inputs),
            public_inputs=self.features(data.public_inputs),
            note=", ".join(filter(None, (data.note, self.note))),
        )
