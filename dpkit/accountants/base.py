"""What an accountant is: it turns a ledger into an epsilon, with bounds that say what they are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import ClassVar

import numpy as np

from dpkit.mechanisms import Ledger, Mechanism, Neighbours
from dpkit.mechanisms.ledger import MOST_RELEASES


@dataclass(frozen=True)
class Bounds:
    """An epsilon between two sides, and how it was found."""

    lower: float
    estimate: float
    upper: float
    method: str
    relation: Neighbours

    @property
    def is_bound(self) -> bool:
        """Whether `upper` is finite, so that it may gate a budget."""
        return math.isfinite(self.upper)

    def __str__(self) -> str:
        """A sentence for people."""
        return (
            f"epsilon {self.estimate:.4g}, between {printed(self.lower, 4, -1)} and "
            f"{printed(self.upper, 4, 1)} "
            f"({self.method}; neighbours: {self.relation.value})"
        )


@dataclass(frozen=True)
class Accountant(ABC):
    """A way to turn a ledger into (epsilon, delta).

    Guarantee: the same input gives the same bits, whatever was asked before.
    """

    name: ClassVar[str] = "accountant"
    is_bound: ClassVar[bool] = True

    @abstractmethod
    def epsilon(self, ledger: Ledger, delta: float) -> float:
        """The epsilon of a ledger at a delta: infinite without noise, 0 if nothing is released."""

    @abstractmethod
    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The delta of a ledger at an epsilon."""

    def bounds(self, ledger: Ledger, delta: float) -> Bounds:
        """Lower, estimate and upper; here the lower side is only 0."""
        value = self.epsilon(ledger, delta)
        upper = value if self.is_bound else math.inf
        return Bounds(0.0, value, upper, self.name, ledger.relation)

    def curve(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """Epsilon at each row of cumulative counts.

        Shapes: n mechanisms, counts (K, n) -> (K,).
        """
        counts = checked_counts(mechanisms, counts)
        ledgers = (Ledger(tuple(zip(mechanisms, row, strict=True))) for row in counts.tolist())
        return np.array([self.epsilon(ledger, delta) for ledger in ledgers])


def one_row(ledger: Ledger) -> np.ndarray:
    """A ledger's counts as the one row of a curve: shape (1, n)."""
    return np.array([ledger.counts], dtype=np.int64).reshape(1, -1)


class CurveAccountant(Accountant):
    """One that prices many counts of the same mechanisms at once: one ledger is a row of one."""

    def epsilon(self, ledger: Ledger, delta: float) -> float:
        """The epsilon of a ledger at a delta: infinite without noise, 0 if nothing is released."""
        return float(self.curve(ledger.mechanisms, one_row(ledger), delta)[0])

    @abstractmethod
    def curve(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """Epsilon at each row of cumulative counts.

        Shapes: n mechanisms, counts (K, n) -> (K,).
        """


def printed(number: float, digits: int, towards: int) -> str:
    """A number to so many digits, rounded up if `towards` is 1 and down if it is -1.

    What is rounded are the digits that Python writes: read back they are the number, and 0.1 is
    no more than that.
    """
    if not math.isfinite(number) or number == 0:
        return f"{number:g}"
    exact = Decimal(repr(float(number)))
    unit = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    way = ROUND_CEILING if towards > 0 else ROUND_FLOOR
    return f"{float(exact.quantize(unit, way)):.{max(digits, 6)}g}"


def told(number: float, digits: int = 6, towards: int = 1) -> str:
    """The same for a number that somebody wrote, such as delta: mostly as it was written."""
    return printed(number, digits, towards)


def checked_delta(delta: float) -> float:
    """delta as a float in (0, 1), or one sentence."""
    try:
        value = float(delta)
    except (TypeError, ValueError):
        value = math.nan
    if not 0.0 < value < 1.0:
        raise ValueError(
            f"delta (added probability that e^epsilon does not cover) must lie in (0, 1), got "
            f"{delta!r}; choose it well below one over the number of records."
        )
    return value


def checked_epsilon(epsilon: float) -> float:
    """epsilon as a float >= 0, or one sentence."""
    try:
        value = float(epsilon)
    except (TypeError, ValueError):
        value = math.nan
    if not value >= 0.0:
        raise ValueError(f"epsilon (the privacy loss) must lie in [0, infinity], got {epsilon!r}.")
    return value


def checked_counts(mechanisms: Sequence[Mechanism], counts: np.ndarray) -> np.ndarray:
    """Counts as a (K, n) array of whole numbers >= 0, or one sentence."""
    array = np.asarray(counts)
    if array.ndim == 1 and len(mechanisms) == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != len(mechanisms):
        raise ValueError(
            f"counts must have one row for each point and one column for each of the "
            f"{len(mechanisms)} mechanisms, got the shape {array.shape}."
        )
    if array.size and (np.any(array < 0) or np.any(array != np.floor(array))):
        raise ValueError("counts (how often each mechanism was released) must be whole and >= 0.")
    if array.size and float(array.max()) * len(mechanisms) > MOST_RELEASES:
        raise ValueError(
            f"counts (how often each mechanism was released) must add up to at most 2^53, beyond "
            f"which numbers are not exact, got {float(array.max()):.3g} for one of "
            f"{len(mechanisms)}; release less often."
        )
    return array.astype(np.int64)


def canonical(mechanisms: Sequence[Mechanism]) -> list[int]:
    """An order of the mechanisms that does not depend on how they were listed."""
    return sorted(range(len(mechanisms)), key=lambda i: repr(mechanisms[i]))
