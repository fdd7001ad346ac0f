"""A loss as one value for each record, checked to be just that."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor


class PerExampleLoss:
    """Any loss as a function of (outputs, targets) that returns one value for each record.

    A loss with a `reduction` parameter is called with reduction="none", another one plainly.
    """

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        """Look whether the loss has a `reduction` to switch off."""
        if not callable(loss):
            raise TypeError(
                "loss must be a function of (outputs, targets), such as "
                f"torch.nn.functional.cross_entropy, got {loss!r}."
            )
        self.loss = loss
        self._options = {"reduction": "none"} if _has_reduction(loss) else {}

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each record.

        *Shapes*: outputs (B, ...), targets (B, ...), the result (B,).
        """
        losses = self.loss(outputs, targets, **self._options)
        if losses.shape != targets.shape[:1]:
            self._refuse(losses, targets)
        return losses

    def _refuse(self, losses: Tensor, targets: Tensor) -> None:
        expected = f"one value for each of the {targets.shape[0]} records"
        if losses.ndim == 0:
            raise ValueError(
                f"loss must return {expected}, got a single number: a loss that sums or averages "
                'over the batch cannot be clipped; give one with reduction="none".'
            )
        raise ValueError(
            f"loss must return {expected}, got the shape {tuple(losses.shape)}: sum or average "
            "over the positions of a record inside the loss."
        )


def _has_reduction(loss: Callable[..., Tensor]) -> bool:
    try:
        return "reduction" in inspect.signature(loss).parameters
    except (TypeError, ValueError):  # a compiled function without a signature
        return False
