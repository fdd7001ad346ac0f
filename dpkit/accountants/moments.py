"""The moments accountant of 2016, as it was: whole orders up to 32, the classic conversion."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpkit.accountants.base import (
    CurveAccountant,
    canonical,
    checked_counts,
    checked_delta,
    checked_epsilon,
    one_row,
)
from dpkit.accountants.gathering import gathered
from dpkit.accountants.rdp import directions
from dpkit.mechanisms import Ledger, Mechanism

LAMBDAS = np.arange(1.0, 33.0)


@dataclass(frozen=True)
class Moments(CurveAccountant):
    """Log moments lambda = 1 to 32 and delta = min exp(alpha - lambda eps).

    Guarantee: an upper bound; lambda <= 32 puts a floor of ln(1/delta)/32 under epsilon.
    *Source*: Abadi et al. 2016, theorem 2.
    """

    name: ClassVar[str] = "moments accountant (2016)"

    def curve(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """The least (alpha(lambda) + ln(1/delta)) / lambda."""
        delta = checked_delta(delta)
        mechanisms, counts = gathered(mechanisms, checked_counts(mechanisms, counts))
        values = np.zeros(len(counts))
        for backward in directions(mechanisms):
            values = np.maximum(values, _least(_composed(mechanisms, counts, backward), delta))
        return np.where(counts.sum(axis=1) == 0, 0.0, values)

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The least exp(alpha(lambda) - lambda eps)."""
        epsilon = checked_epsilon(epsilon)
        if not ledger.entries:
            return 0.0
        counts = one_row(ledger)
        worst = -math.inf
        for backward in directions(ledger.mechanisms):
            alpha = _composed(ledger.mechanisms, counts, backward)[0]
            gap = np.where(np.isinf(alpha), np.inf, alpha - LAMBDAS * min(epsilon, 1e300))
            worst = max(worst, float(gap.min()))
        return math.exp(min(worst, 0.0))


def _least(alpha: np.ndarray, delta: float) -> np.ndarray:
    return ((alpha + math.log(1 / delta)) / LAMBDAS).min(axis=1)


@functools.lru_cache(maxsize=65_536)
def _log_moments(mechanism: Mechanism) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.real(np.asarray(mechanism.log_moment(LAMBDAS)))
    return np.where(np.isnan(values), np.inf, np.maximum(values, 0.0))


def _composed(mechanisms: Sequence[Mechanism], counts: np.ndarray, backward: bool) -> np.ndarray:
    total = np.zeros((len(counts), len(LAMBDAS)))
    for column in canonical(mechanisms):
        side = mechanisms[column].reverse if backward else mechanisms[column]
        count = counts[:, column : column + 1]
        with np.errstate(invalid="ignore"):
            total += np.where(count > 0, count * _log_moments(side)[None, :], 0.0)
    return total
