"""A published rule for sampled batches, kept for its history: false where noise is small."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpkit.accountants import closed
from dpkit.accountants.base import Accountant, checked_delta, checked_epsilon
from dpkit.mechanisms import Ledger, Mechanism, Refused, SubsampledGaussian

FALSE_BELOW = 0.892
"""Noise multiplier below which the rule's rho is less than the true cost, however small q is."""

_ORDERS = 24  # at which the true cost is compared, between 1 and the largest that the rule allows


@dataclass(frozen=True)
class Claim:
    """What the rule says: never a guarantee. `fault` is empty, or says why it is not even true."""

    epsilon: float
    order: float
    fault: str = ""


@dataclass(frozen=True)
class YuRandomSampling(Accountant):
    """rho = q^2 / sigma^2 a step, for orders up to sigma^2 ln(1 / (q sigma)) + 1.

    Guarantee: none. Its authors state it as a heuristic; it is loose for large sigma and false for
    sigma < 0.892 or, at high orders, up to 1.13 where q is large (near 0.08). There
    `epsilon` refuses and `claim` shows the number with the mark.
    *Source*: Yu et al. 2019, section 4 (random sampling).
    """

    name: ClassVar[str] = "Yu et al. 2019 for random sampling (a heuristic, not a bound)"
    is_bound: ClassVar[bool] = False

    def claim(self, ledger: Ledger, delta: float) -> Claim:
        """The number that the rule gives, and whether it is false there."""
        delta = checked_delta(delta)
        rho, limit, fault = _rule(ledger)
        if rho == 0:
            return Claim(0.0, math.inf, fault)
        if math.isinf(rho):
            return Claim(math.inf, math.inf, fault)
        best = 1 + math.sqrt(math.log(1 / delta) / rho)
        order = min(best, limit)
        if order <= 1:
            word = "q sigma is 1 or more, and the rule holds for no order"
            return Claim(math.inf, 1.0, fault or word)
        return Claim(rho * order + math.log(1 / delta) / (order - 1), order, fault)

    def epsilon(self, ledger: Ledger, delta: float) -> float:
        """The claim where it is not known to be false, else a refusal."""
        claim = self.claim(ledger, delta)
        if claim.fault:
            raise Refused(f"The rule of Yu et al. 2019 is false here: {claim.fault}; use PLD.")
        return claim.epsilon

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The least delta for which the rule gives this epsilon."""
        epsilon = checked_epsilon(epsilon)
        rho, limit, fault = _rule(ledger)
        if fault:
            raise Refused(f"The rule of Yu et al. 2019 is false here: {fault}; use PLD.")
        if rho == 0:
            return 0.0
        if math.isinf(rho) or limit <= 1:
            return 1.0
        order = min(max(0.5 * (epsilon / rho + 1), 1.0), limit)
        return math.exp(min((order - 1) * (rho * order - epsilon), 0.0))


def _rule(ledger: Ledger) -> tuple[float, float, str]:
    """The sum of rho, the largest order allowed, and the reason why it is false."""
    total, limit, fault = 0.0, math.inf, ""
    for mechanism, count in ledger.entries:
        rho, most, why = _of(mechanism)
        total, limit, fault = total + count * rho, min(limit, most), fault or why
    return total, limit, fault


def _of(mechanism: Mechanism) -> tuple[float, float, str]:
    plain = closed.gaussian_sigma(mechanism)
    if plain is not None:
        return (0.5 / plain**2 if plain**2 > 0 else math.inf), math.inf, ""
    if not isinstance(mechanism, SubsampledGaussian):
        raise Refused(
            f"The rule of Yu et al. 2019 is for Gaussian noise, shuffled or under Poisson "
            f"sampling, not {type(mechanism).__name__}; use PLD."
        )
    q, sigma = mechanism.sample_rate, mechanism.noise_multiplier
    if sigma**2 == 0:
        return math.inf, math.inf, ""
    rho, limit = q * q / sigma**2, sigma**2 * math.log(1 / (q * sigma)) + 1
    if sigma < FALSE_BELOW:
        return rho, limit, f"sigma is {sigma:g}, less than {FALSE_BELOW}"
    return rho, limit, _too_little(mechanism, rho, limit)


def _too_little(mechanism: Mechanism, rho: float, limit: float) -> str:
    """At which order, of those that the rule allows, its cost is furthest below the true one."""
    if limit <= 1 or rho == 0:
        return ""
    orders = np.linspace(min(1.0001, limit), limit, _ORDERS)
    share = mechanism.rdp(orders) / (rho * orders)
    worst = int(np.argmax(share))
    if share[worst] <= 1:
        return ""
    return f"its rho is less than the true cost at order {orders[worst]:.3g}"
