"""Renyi accounting: add the moments of every release, convert once at the end."""

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
from dpkit.mechanisms import Ledger, Mechanism

ORDERS = 1.0 + np.concatenate(
    [
        np.geomspace(1e-4, 0.5, 32, endpoint=False),
        np.arange(0.5, 6.0, 0.05),
        np.arange(6.0, 16.0, 0.25),
        np.arange(16.0, 64.0, 1.0),
        np.geomspace(64.0, 1e7, 80),
    ]
)
"""Orders alpha > 1, dense where deep learning needs them, far out on both sides."""


@dataclass(frozen=True)
class RDP(CurveAccountant):
    """Renyi differential privacy with the tight conversion.

    Guarantee: an upper bound, over orders up to 1e7.
    *Source*: Mironov 2017; conversion Canonne, Kamath, Steinke 2020, proposition 12.
    """

    name: ClassVar[str] = "RDP"

    def curve(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """The least epsilon over the orders."""
        delta = checked_delta(delta)
        mechanisms, counts = gathered(mechanisms, checked_counts(mechanisms, counts))
        worst = np.zeros(len(counts))
        for backward in directions(mechanisms):
            total = composed(mechanisms, counts, backward)
            worst = np.maximum(worst, to_epsilon(total, delta))
        return np.where(counts.sum(axis=1) == 0, 0.0, worst)

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The least delta over the orders."""
        epsilon = checked_epsilon(epsilon)
        if not ledger.entries:
            return 0.0
        counts = one_row(ledger)
        log_deltas = [
            to_log_delta(composed(ledger.mechanisms, counts, backward), epsilon)[0]
            for backward in directions(ledger.mechanisms)
        ]
        return math.exp(min(max(log_deltas), 0.0))

    def order(self, ledger: Ledger, delta: float) -> float:
        """The order at which the epsilon is attained."""
        counts = one_row(ledger)
        by_order = [
            _by_order(composed(ledger.mechanisms, counts, back), checked_delta(delta))[0]
            for back in directions(ledger.mechanisms)
        ]
        worst = max(by_order, key=np.min)
        return float(ORDERS[int(np.argmin(worst))])


@functools.lru_cache(maxsize=65_536)
def log_moments(mechanism: Mechanism) -> np.ndarray:
    """log E_P[(dP/dQ)^(alpha-1)] for every order; read only."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.real(np.asarray(mechanism.log_moment(ORDERS - 1.0)))
    values = np.where(np.isnan(values), np.inf, np.maximum(values, 0.0))
    values.flags.writeable = False
    return values


def directions(mechanisms: Sequence[Mechanism]) -> tuple[bool, ...]:
    """Which directions to compose: the forward one alone where its moments are never smaller."""
    return (False,) if all(mechanism.leads for mechanism in mechanisms) else (False, True)


def composed(
    mechanisms: Sequence[Mechanism], counts: np.ndarray, backward: bool = False
) -> np.ndarray:
    """Sums of log moments over a ledger: (K, n) counts -> (K, orders)."""
    total = np.zeros((len(counts), len(ORDERS)))
    for column in canonical(mechanisms):
        mechanism = mechanisms[column].reverse if backward else mechanisms[column]
        count = counts[:, column : column + 1]
        with np.errstate(invalid="ignore"):
            total += np.where(count > 0, count * log_moments(mechanism)[None, :], 0.0)
    return total


def to_epsilon(total: np.ndarray, delta: float) -> np.ndarray:
    """Tight conversion: (K, orders) sums of log moments -> (K,) epsilons, never below 0."""
    return np.maximum(_by_order(total, delta).min(axis=1), 0.0)


def _by_order(total: np.ndarray, delta: float) -> np.ndarray:
    # RDP(a) + log((a-1)/a) - (log delta + log a) / (a-1)
    a = ORDERS
    shift = np.log((a - 1) / a) - (math.log(delta) + np.log(a)) / (a - 1)
    with np.errstate(over="ignore"):
        return total / (a - 1) + shift


def to_log_delta(total: np.ndarray, epsilon: float) -> np.ndarray:
    """The same conversion solved for log delta: (K, orders) -> (K,)."""
    if math.isinf(epsilon):
        return np.where(np.isfinite(total).any(axis=1), -np.inf, 0.0)
    a = ORDERS
    shift = (a - 1) * np.log((a - 1) / a) - np.log(a)
    return (total + shift - (a - 1) * epsilon).min(axis=1)


def log_deltas(
    mechanisms: Sequence[Mechanism], counts: Sequence[int], epsilon: np.ndarray
) -> np.ndarray:
    """A bound on log delta of one direction at each epsilon: (E,) -> (E,)."""
    total = composed(mechanisms, np.array([counts], dtype=np.int64))
    return np.array([float(to_log_delta(total, value)[0]) for value in epsilon.tolist()])
