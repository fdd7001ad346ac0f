"""Ballots: what a teacher sends for an image, and what is read off the noisy sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def votes(
    gradients: Tensor, top_k: int, stochastic: float | None = None, chance: Tensor | None = None
) -> Tensor:
    """Each row's k largest coordinates as +1 or -1, all others 0.

    With `stochastic` b the sign is +1 with probability clip(1/2 + g/(2b), 0, 1), decided by
    `chance`, uniform numbers of the same shape. A row that is not finite, or zero throughout,
    abstains, and so does a coordinate that is exactly zero under plain signs.

    *Guarantee*: at most k entries of a row differ from 0, and those are of size 1.

    *Shapes*: gradients (..., d), the result likewise.
    """
    import torch

    finite = torch.isfinite(gradients).all(-1, keepdim=True)
    clean = torch.where(finite, gradients, 0.0)
    places = clean.abs().topk(top_k, dim=-1, sorted=False).indices
    chosen = clean.gather(-1, places)
    if stochastic is None:
        signs = chosen.sign_()
    else:
        assert chance is not None
        positive = chance.gather(-1, places) < (0.5 + chosen / (2 * stochastic))
        tells = (clean != 0).any(-1, keepdim=True)  # a row that is not finite is zeros by now
        signs = torch.where(tells, positive.to(chosen.dtype) * 2 - 1, 0.0)
    return torch.zeros_like(clean).scatter_(-1, places, signs)


def direction(noisy: Tensor, level: float) -> Tensor:
    """-1, 0 or 1: the sign of each noisy sum whose size reaches the level; post-processing."""
    return noisy.sign().masked_fill_(noisy.abs() < level, 0.0)
