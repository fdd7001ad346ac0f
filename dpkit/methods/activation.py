"""Where a model's activation is released: rows of bounded norm, one for each record."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PrivateActivation(nn.Module):
    """The place in a model at which `NeuralDP` adds noise: `nn.Sequential(public, this, head)`.

    The activation of each record is flattened, moved by a public `centre`, and brought to norm
    `max_norm` (C), or clipped to it; one that is not finite becomes zero. In training `NeuralDP`
    sets C and the way, and adds its noise to these rows; used alone this layer adds none.

    *Guarantee*
    - a record's row has norm at most C, whatever the record and whoever is beside it.

    *Shapes*: `(B, ...)` in, `(B, d)` out; centre `(d,)`.
    """

    centre: Tensor | None
    max_norm: Tensor
    normalises: Tensor

    def __init__(self, centre: Tensor | None = None) -> None:
        """Centre at a public point, such as the mean activation of public records; None is 0."""
        super().__init__()
        if centre is not None and (centre.ndim != 1 or not bool(torch.isfinite(centre).all())):
            raise ValueError(
                f"centre (the public point that an activation is measured from) must be a vector "
                f"of d finite numbers, got the shape {tuple(centre.shape)}: take the mean of "
                f"public activations over the records."
            )
        self.register_buffer("centre", None if centre is None else centre.detach().clone())
        self.register_buffer("max_norm", torch.tensor(1.0))
        self.register_buffer("normalises", torch.tensor(True))

    def forward(self, activation: Tensor) -> Tensor:
        """The bounded rows."""
        return self.bounded(activation)[0]

    def bounded(self, activation: Tensor) -> tuple[Tensor, Tensor]:
        """The bounded rows (B, d), and the norms (B,) that they had, which are not private."""
        rows = activation.flatten(1)
        if rows.dtype != torch.float64:
            rows = rows.float()  # halves would round a row beyond C, whole numbers to zero
        if self.centre is not None:
            rows = rows - self.centre
        return bounded(rows, float(self.max_norm), bool(self.normalises))


def bounded(rows: Tensor, max_norm: float, normalises: bool) -> tuple[Tensor, Tensor]:
    """Rows of norm C, or of C at most, and the norms that they had.

    Rows are divided by their largest entry first: the square of a large number overflows.
    """
    finite = torch.isfinite(rows).all(1, keepdim=True)
    clean = torch.where(finite, rows, 0.0)
    largest = clean.abs().amax(1, keepdim=True) if rows.shape[1] else clean.sum(1, keepdim=True)
    unit = clean / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(unit, dim=1, keepdim=True, dtype=torch.float64)
    norms = largest.double() * length
    onto_sphere = unit * (max_norm / length.clamp_min(1.0)).to(rows.dtype)
    within = torch.zeros_like(finite) if normalises else norms <= max_norm
    norms = torch.where(finite, norms, torch.nan)
    return torch.where(within, clean, onto_sphere), norms.squeeze(1)
