"""Private principal components: directions of the data, learnt once and paid for."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from typing import TYPE_CHECKING

from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import Access, Gaussian, Release
from dpkit.noise import Noise

if TYPE_CHECKING:
    from torch import Tensor

    from dpkit.datasets.dataset import Dataset


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
