"""Running averages of the weights: what a model holds between the steps that move its latest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WARM_UP = 10
"""At step t the average keeps (1 + t) / (10 + t) of itself at most: it soon forgets the start."""


class Average:
    """An exponential moving average of released weights, which is post-processing.

    Between two steps the parameters are the average, so that whoever evaluates, stops or keeps the
    model has it; the latest weights, from which descent goes on, lie here.

    *Source*: De et al. 2022, section 3.4, with its warm-up.
    """

    touched: Tensor | None = None
    """The coordinates that a step may move, the average's too; None for all."""

    def __init__(self, share: float, parameters: Tensor) -> None:
        """Start where the parameters (D,) are; `share` of the average outlives a step."""
        self.share, self._parameters = share, parameters
        self.latest, self._average = parameters.clone(), parameters.clone()

    @contextmanager
    def latest_at(self, step: int) -> Iterator[None]:
        """The latest weights for a gradient and a move; then, whatever happens, the average."""
        self._average.copy_(self._parameters)
        self._parameters.copy_(self.latest)
        try:
            yield
            share = min(self.share, (1 + step) / (WARM_UP + step))
            self.latest.copy_(self._parameters)
            if self.touched is None:
                self._average.lerp_(self.latest, 1 - share)
            else:
                held, latest = self._average[self.touched], self.latest[self.touched]
                self._average[self.touched] = held.lerp_(latest, 1 - share)
        finally:
            self._parameters.copy_(self._average)
