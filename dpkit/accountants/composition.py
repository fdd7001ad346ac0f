"""Composition as it was first taught: add the epsilons up, or their squares."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpkit.accountants import closed
from dpkit.accountants.base import Accountant, checked_delta, checked_epsilon
from dpkit.mechanisms import Ledger, Mechanism
from dpkit.mechanisms.grid import reach

_BEYOND = 1 + 1e-9, 1e-14
"""How far beyond the largest atom a pure mechanism is seen to have nothing left: times, plus."""


@dataclass(frozen=True)
class Basic(Accountant):
    """Epsilons add and deltas add; delta is shared equally among the releases that need one.

    *Source*: Dwork et al. 2006.
    """

    name: ClassVar[str] = "basic composition"

    def epsilon(self, ledger: Ledger, delta: float) -> float:
        """The sum of the epsilons."""
        delta = checked_delta(delta)
        return math.fsum(count * eps for eps, count in _parts(ledger, delta))

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The least delta whose sum of epsilons stays below, by bisection."""
        return _delta(self, ledger, epsilon)


@dataclass(frozen=True)
class Advanced(Accountant):
    """Strong composition: about the root of the number of releases, for a part of delta.

    *Source*: Dwork, Rothblum, Vadhan 2010; for mixed epsilons Kairouz, Oh, Viswanath 2015.
    """

    name: ClassVar[str] = "advanced composition"

    def epsilon(self, ledger: Ledger, delta: float) -> float:
        """sqrt(2 ln(1/delta') sum eps^2) + sum eps (e^eps - 1), or the plain sum if smaller."""
        delta = checked_delta(delta)
        shared = delta if _all_pure(ledger) else delta / 2
        parts = _parts(ledger, shared)
        if any(math.isinf(eps) for eps, _ in parts):
            return math.inf
        squares = math.fsum(count * eps * eps for eps, count in parts)
        drift = math.fsum(count * eps * math.expm1(min(eps, 700.0)) for eps, count in parts)
        strong = math.sqrt(2 * math.log(1 / shared) * squares) + drift
        return min(strong, math.fsum(count * eps for eps, count in parts))

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The least delta whose epsilon stays below, by bisection."""
        return _delta(self, ledger, epsilon)


def _is_pure(mechanism: Mechanism) -> bool:
    """Whether no loss lies beyond the largest atom, so that no delta is needed.

    A little further on nothing at all is left then, where at the atom rounding may leave 1e-16.
    """
    for side in (mechanism, mechanism.reverse):
        if not side.atoms:
            return False
        beyond = _BEYOND[0] * max(side.atoms)[0] + _BEYOND[1]
        if float(side.profile(np.array([beyond]))[0]) > 0.0:
            return False
    return True


def _all_pure(ledger: Ledger) -> bool:
    return all(_is_pure(mechanism) for mechanism in ledger.mechanisms)


def _parts(ledger: Ledger, delta: float) -> list[tuple[float, int]]:
    """Each mechanism's own epsilon at its share of delta, and its count."""
    needing = sum(count for mechanism, count in ledger.entries if not _is_pure(mechanism))
    parts = []
    for mechanism, count in ledger.entries:
        if _is_pure(mechanism):
            parts.append((max(*mechanism.atoms, *mechanism.reverse.atoms)[0], count))
        else:
            parts.append((_epsilon(mechanism, delta / needing), count))
    return parts


def at_least(mechanisms: Sequence[Mechanism], counts: Sequence[int], delta: float) -> float:
    """Less than the sum of the epsilons by some thousandths, in a tenth of the time."""
    pure = [_is_pure(mechanism) for mechanism in mechanisms]
    needing = sum(count for count, free in zip(counts, pure, strict=True) if not free)
    total = 0.0
    for mechanism, count, free in zip(mechanisms, counts, pure, strict=True):
        share = 0.0 if free else delta / needing
        ends = [reach(side, share) for side in (mechanism.profile, mechanism.reverse_profile)]
        total += count * max(ends)
    return 0.995 * total


@functools.lru_cache(maxsize=4096)
def _epsilon(mechanism: Mechanism, delta: float) -> float:
    if getattr(mechanism, "noise_multiplier", 1.0) == 0:
        return math.inf
    return closed.single_epsilon(mechanism, delta)


def _delta(accountant: Accountant, ledger: Ledger, epsilon: float) -> float:
    """Bisection on log delta: the epsilon falls as delta grows."""
    epsilon = checked_epsilon(epsilon)
    if not ledger.entries:
        return 0.0

    def fits(log_delta: float) -> bool:
        value = accountant.epsilon(ledger, math.exp(log_delta))
        return value <= epsilon and math.isfinite(value)

    low, high = -690.0, -1e-12
    if not fits(high):
        return 1.0
    if fits(low):
        return 0.0
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return math.exp(high)
