"""Ways of bounding what one record adds to a sum of gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpkit.knobs import check_knobs, knob

if TYPE_CHECKING:
    from torch import Tensor


class Clipping(ABC):
    """How a record's gradient is scaled so that its norm is at most max_grad_norm.

    *Guarantee*: the joint norm of a record's scaled gradient is at most `max_grad_norm`, whatever
    the record, so that one Gaussian over all parameters can be charged for the sum.
    """

    @abstractmethod
    def factors(self, squares: Tensor, max_grad_norm: float) -> Tensor:
        """Scale of each record from its squared norm in each block.

        *Shapes*: squares (K, B), one row for each block; the result is (B,), or (K, B) with
        a scale for each block.
        """

    def check_blocks(self, blocks: tuple[str, ...]) -> None:  # noqa: B027 - most need no check
        """Raise one sentence if this clipping does not fit a model of these blocks."""


@dataclass(frozen=True)
class Flat(Clipping):
    """One bound for the whole gradient: the scale is min(1, C / norm).

    *Source*: Abadi et al. 2016, Algorithm 1.
    """

    def factors(self, squares: Tensor, max_grad_norm: float) -> Tensor:
        """min(1, C / norm), one for each record."""
        return _bounded(_joint(squares), max_grad_norm)


@dataclass(frozen=True)
class PerLayer(Clipping):
    """One bound for each layer, in the given proportions, which together make max_grad_norm.

    Layer k is clipped to C_k = C w_k / sqrt(sum of w_j^2), where w is `max_grad_norms` (all equal
    when None), so that the joint norm is at most C and one joint Gaussian of noise relative to C
    is charged. The total stays in the units of the gradient: nothing has to be undone.

    *Source*: McMahan et al. 2018, "A general approach to adding differential privacy", 3.2.
    """

    max_grad_norms: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check that every proportion is a positive number."""
        for value in self.max_grad_norms or ():
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(
                    "PerLayer's max_grad_norms (w_k, share of the clip bound that layer k gets) "
                    f"must each lie in (0, infinity), got {value}."
                )

    def factors(self, squares: Tensor, max_grad_norm: float) -> Tensor:
        """min(1, C_k / norm of block k), one for each block and record."""
        blocks = squares.shape[0]
        shares = self.max_grad_norms or (1.0,) * blocks
        whole = math.sqrt(math.fsum(share * share for share in shares))
        bounds = squares.new_tensor([[max_grad_norm * share / whole] for share in shares])
        return _bounded(squares, bounds)

    def check_blocks(self, blocks: tuple[str, ...]) -> None:
        """Refuse a number of shares other than the number of layers."""
        if self.max_grad_norms is not None and len(self.max_grad_norms) != len(blocks):
            raise ValueError(
                f"PerLayer needs one share for each of the model's {len(blocks)} layers "
                f"({', '.join(blocks)}), got {len(self.max_grad_norms)}."
            )


@dataclass(frozen=True)
class Automatic(Clipping):
    """Normalise instead of clip: the scale is C / (norm + gamma), so no record exceeds C.

    *Source*: Bu et al. 2023, "Automatic clipping", AUTO-S.
    """

    gamma: float = knob(
        0.01, "gamma", "stability constant added to every norm", 0.0, math.inf, open_low=True
    )

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    def factors(self, squares: Tensor, max_grad_norm: float) -> Tensor:
        """C / (norm + gamma), one for each record."""
        return max_grad_norm / (_joint(squares).sqrt() + self.gamma)


def _joint(squares: Tensor) -> Tensor:
    return squares[0] if squares.shape[0] == 1 else squares.sum(0)


def _bounded(squares: Tensor, bound: float | Tensor) -> Tensor:
    # A norm of zero gives infinity here, which the minimum with one makes harmless.
    return (bound * squares.rsqrt()).clamp_max(1.0)
