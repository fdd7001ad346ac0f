"""Gaussian differential privacy: exact for plain Gaussians, a limit theorem under sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpkit.accountants import closed
from dpkit.accountants.base import (
    Bounds,
    CurveAccountant,
    checked_counts,
    checked_delta,
    checked_epsilon,
    one_row,
)
from dpkit.mechanisms import Gaussian, Ledger, Mechanism, Refused, SubsampledGaussian
from dpkit.mechanisms.gaussian import gaussian_profile


@dataclass(frozen=True)
class GDP(CurveAccountant):
    """mu-GDP: exact without sampling; with Poisson sampling an estimate that may lie too low.

    *Source*: Dong, Roth, Su 2019; Bu, Dong, Long, Su 2020 (central limit theorem).
    """

    name: ClassVar[str] = "GDP (limit theorem: an estimate, not a bound)"
    is_bound: ClassVar[bool] = False

    def mu(self, ledger: Ledger) -> float:
        """The mu of the whole ledger."""
        return float(_mu(ledger.mechanisms, one_row(ledger))[0])

    def curve(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """The epsilon of that Gaussian."""
        delta = checked_delta(delta)
        counts = checked_counts(mechanisms, counts)
        return closed.gaussian_epsilon(_mu(mechanisms, counts), delta)

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The delta of that Gaussian."""
        return float(gaussian_profile(self.mu(ledger), checked_epsilon(epsilon)))

    def bounds(self, ledger: Ledger, delta: float) -> Bounds:
        """Exact without sampling; else the upper side is infinite, since it is an estimate."""
        value = self.epsilon(ledger, delta)
        if all(isinstance(mechanism, Gaussian) for mechanism in ledger.mechanisms):
            return Bounds(value, value, value, "GDP, exact", ledger.relation)
        return Bounds(0.0, value, math.inf, self.name, ledger.relation)


def _mu(mechanisms: Sequence[Mechanism], counts: np.ndarray) -> np.ndarray:
    total = np.zeros(len(counts))
    for column, mechanism in enumerate(mechanisms):
        count = counts[:, column]
        total = total + np.where(count > 0, count * _mu2(mechanism), 0.0)
    return np.sqrt(total)


def _mu2(mechanism: Mechanism) -> float:
    """mu^2 of one release: 1/s^2, or q^2 (e^(1/s^2) - 1) under Poisson sampling."""
    sigma = closed.gaussian_sigma(mechanism)
    if sigma is not None:
        return 1 / sigma**2 if sigma**2 > 0 else math.inf
    if isinstance(mechanism, SubsampledGaussian):
        q, sigma = mechanism.sample_rate, mechanism.noise_multiplier
        if q == 1.0 or sigma**2 == 0:
            return 1 / sigma**2 if sigma**2 > 0 else math.inf
        return q**2 * math.expm1(1 / sigma**2) if sigma**2 > 1 / 700 else math.inf
    raise Refused(
        f"GDP knows Gaussian noise, plain or under Poisson sampling, not "
        f"{type(mechanism).__name__}; use PLD."
    )
