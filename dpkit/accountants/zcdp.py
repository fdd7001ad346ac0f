"""Concentrated privacy: one number rho that adds up; under sampling it holds to an order omega."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpkit.accountants import closed
from dpkit.accountants.base import (
    CurveAccountant,
    canonical,
    checked_counts,
    checked_delta,
    checked_epsilon,
    one_row,
)
from dpkit.accountants.gathering import gathered
from dpkit.mechanisms import (
    EpsilonDelta,
    Laplace,
    Ledger,
    Mechanism,
    RandomisedResponse,
    Refused,
    UpperSide,
)

OMEGAS = 1.0 + np.geomspace(1e-3, 1e6, 361)
"""Orders omega up to which rho is claimed (tCDP); the best is taken."""


@dataclass(frozen=True)
class ZCDP(CurveAccountant):
    """rho-zCDP, and (rho, omega)-tCDP for sampled releases.

    Guarantee: an upper bound. For a sampled release rho is the largest RDP(a)/a below omega.
    *Source*: Bun and Steinke 2016; Bun, Dwork, Rothblum, Steinke 2018 (tCDP).
    """

    name: ClassVar[str] = "zCDP"

    def rho(self, ledger: Ledger) -> float:
        """The rho of the whole ledger; Refused where only tCDP holds."""
        total = 0.0
        for mechanism, count in ledger.entries:
            rho = _pure_rho(mechanism)
            if rho is None:
                raise Refused(
                    f"{type(mechanism).__name__} has no finite useful rho for all orders; ask for "
                    "epsilon (tCDP), or use RDP or PLD."
                )
            total += count * rho
        return total

    def curve(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """The least epsilon over omega, by rho + 2 sqrt(rho ln(1/delta)) improved (CKS 2020)."""
        delta = checked_delta(delta)
        mechanisms, counts = gathered(mechanisms, checked_counts(mechanisms, counts))
        rho = _rhos(mechanisms, counts)
        shift = np.log((OMEGAS - 1) / OMEGAS) - (math.log(delta) + np.log(OMEGAS)) / (OMEGAS - 1)
        with np.errstate(over="ignore"):
            values = (rho * OMEGAS + shift).min(axis=1)
        return np.where(counts.sum(axis=1) == 0, 0.0, np.maximum(values, 0.0))

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The least delta over omega."""
        epsilon = checked_epsilon(epsilon)
        if not ledger.entries:
            return 0.0
        rho = _rhos(ledger.mechanisms, one_row(ledger))[0]
        a = OMEGAS
        if math.isinf(epsilon):
            return 0.0 if np.isfinite(rho).any() else 1.0
        log_delta = (a - 1) * (rho * a - epsilon + np.log((a - 1) / a)) - np.log(a)
        return math.exp(min(float(np.nanmin(log_delta)), 0.0))


def _rhos(mechanisms: Sequence[Mechanism], counts: np.ndarray) -> np.ndarray:
    """Sums of rho at every omega: (K, n) -> (K, omegas)."""
    total = np.zeros((len(counts), len(OMEGAS)))
    for column in canonical(mechanisms):
        count = counts[:, column : column + 1]
        rho = _tcdp(mechanisms[column])[None, :]
        with np.errstate(invalid="ignore"):
            total += np.where(count > 0, count * rho, 0.0)
    return total


def _pure_rho(mechanism: Mechanism) -> float | None:
    """rho where one holds for all orders: 1/(2 s^2), or eps^2/2 for pure epsilon."""
    sigma = closed.gaussian_sigma(mechanism)
    if sigma is not None:
        return 0.5 / sigma**2 if sigma**2 > 0 else math.inf
    if isinstance(mechanism, UpperSide):
        return _pure_rho(mechanism.mechanism)
    if isinstance(mechanism, Laplace):
        scale = mechanism.noise_multiplier
        return 0.5 / scale**2 if scale**2 > 0 else math.inf
    if isinstance(mechanism, RandomisedResponse):
        return 0.5 * mechanism.epsilon**2
    if isinstance(mechanism, EpsilonDelta) and mechanism.delta == 0:
        return 0.5 * mechanism.epsilon**2
    return None


@functools.lru_cache(maxsize=65_536)
def _tcdp(mechanism: Mechanism) -> np.ndarray:
    """rho(omega) = sup of RDP(a) / a over 1 < a <= omega.

    K(c) = c RDP(1+c) is convex, so in each cell its chord is above it; K / (c (1+c)) of the chord
    is largest at an end or where b c^2 + 2 a c + a = 0.
    """
    pure = _pure_rho(mechanism)
    if pure is not None:
        return np.full(len(OMEGAS), pure)
    c = np.append(1e-6, OMEGAS - 1)
    worst = np.zeros(len(OMEGAS))
    for side in (mechanism,) if mechanism.leads else (mechanism, mechanism.reverse):
        with np.errstate(over="ignore", invalid="ignore"):
            k = np.real(np.asarray(side.log_moment(c)))
            k = np.where(np.isnan(k), np.inf, np.maximum(k, 0.0))
            b = np.diff(k) / np.diff(c)
            a = k[1:] - b * c[1:]
            inner = np.clip((-a + np.sqrt(np.maximum(a * a - a * b, 0.0))) / b, c[:-1], c[1:])
            cell = np.maximum(k[1:] / (c[1:] + c[1:] ** 2), (a + b * inner) / (inner + inner**2))
        cell = np.maximum(np.where(np.isnan(cell), np.inf, cell), k[0] / (c[0] + c[0] ** 2))
        worst = np.maximum(worst, np.maximum.accumulate(cell))
    return worst
