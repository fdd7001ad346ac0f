"""Budgets: filters that end a run before the step which would exceed them, whatever it reacts to.

A schedule that reacts to what was released has no price beforehand: the noise of a step is itself
an outcome. What may be promised then is the budget of a filter, fixed before the run. For rho
(zCDP) and for RDP at one order costs simply add, and a filter that stops before their sum exceeds
the budget keeps it (fully adaptive composition: Feldman and Zrnic 2021; Lecuyer 2021). For curves
of losses (PLD, f-DP) that is not so, and dpkit offers no such filter.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass
from fractions import Fraction
from typing import Any, ClassVar, Self

import numpy as np

from dpkit.accountants import RDP, ZCDP, Accountant
from dpkit.accountants.base import checked_delta, checked_epsilon, told
from dpkit.accountants.rdp import ORDERS, to_epsilon
from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import Ledger, Mechanism, Refused, SubsampledGaussian
from dpkit.mechanisms.quadrature import poisson_order

Entries = Iterable[tuple[Mechanism, int]]
_SLACK = 1 + 2.0**-48
"""What rounding of a few operations may hide, relative; the claim holds it."""


class Budget(ABC):
    """How much a run may cost in a measure that adds up step by step.

    *Guarantee*
    - `epsilon` holds for every run that pays a `Meter` of this budget before it draws, also where
      noise, length or anything else reacts to what was released before.
    """

    @property
    @abstractmethod
    def total(self) -> float:
        """The number that the sum of costs may reach but not exceed."""

    @property
    @abstractmethod
    def describe(self) -> str:
        """A few words for the guarantee."""

    @abstractmethod
    def cost(self, mechanism: Mechanism) -> float:
        """What one charge costs, or Refused where it has no cost in this measure."""

    def costs(self, mechanisms: Sequence[Mechanism]) -> list[float]:
        """What each of many charges costs: the same numbers, sooner."""
        return [self.cost(mechanism) for mechanism in mechanisms]

    @abstractmethod
    def epsilon(self, delta: float, spent: float | None = None) -> float:
        """The epsilon that the whole budget stands for, or a part of it."""

    @property
    def used(self) -> Used:
        """How the part that is used is told while a run goes on."""
        return Used(self)

    def meter(self) -> Meter:
        """A meter of this budget that nothing has been paid to."""
        return Meter(self)


@dataclass(frozen=True)
class RhoBudget(Budget):
    """A budget of zCDP: Gaussian releases on all records, or on batches that share none.

    *Source*: Bun and Steinke 2016 (zCDP); Yu et al. 2019 (budgets over epochs); Feldman and Zrnic
    2021 (RDP filters; rho bounds all orders at once, by one and the same stop).
    """

    rho: float = knob(
        MISSING, "ρ", "zCDP budget of the whole run", 0, 1e6, open_low=True, log=True,
        slider=(0.01, 10.0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check rho."""
        check_knobs(self)

    @classmethod
    def of(cls, epsilon: float, delta: float) -> Self:
        """The largest budget that stands for at most `epsilon`."""
        epsilon, low, high = checked_epsilon(epsilon), 1e-12, 1e6
        if not (epsilon > 0 and cls(low).epsilon(delta) <= epsilon < math.inf):
            raise ValueError(_too_little(epsilon, cls(low).epsilon(delta)))
        for _ in range(200):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if cls(middle).epsilon(delta) <= epsilon else (low, middle)
        return cls(low)

    @property
    def total(self) -> float:
        """rho."""
        return self.rho

    @property
    def describe(self) -> str:
        """The budget in a few words."""
        return f"a zCDP budget of ρ = {told(self.rho)}"

    def cost(self, mechanism: Mechanism) -> float:
        """The charge's rho."""
        try:
            return ZCDP().rho(Ledger(((mechanism, 1),)))
        except Refused:
            raise Refused(
                f"{type(mechanism).__name__} has no rho that holds for all orders, so a RhoBudget "
                f"cannot count it; give an RDPBudget, or draw batches by Shuffle."
            ) from None

    def epsilon(self, delta: float, spent: float | None = None) -> float:
        """The best conversion over all orders."""
        rho = (self.rho if spent is None else spent) * _SLACK
        moments = rho * ORDERS * (ORDERS - 1)
        return float(to_epsilon(moments[None, :], checked_delta(delta))[0])


@dataclass(frozen=True)
class RDPBudget(Budget):
    """A budget of Renyi privacy at one order, fixed beforehand: any release that has moments.

    *Source*: Feldman and Zrnic 2021, theorem 4.3 (Renyi filter); Lecuyer 2021.
    """

    rdp: float = knob(
        MISSING, "R", "Renyi budget of the whole run, in nats", 0, 1e6, open_low=True, log=True,
        slider=(0.01, 100.0),
    )  # fmt: skip
    order: float = knob(
        MISSING, "α", "order of the Renyi divergence", 1, 1e6, open_low=True, log=True,
        slider=(1.1, 200.0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check both."""
        check_knobs(self)

    @classmethod
    def of(cls, epsilon: float, delta: float, *, order: float) -> Self:
        """The budget at an order that stands for at most `epsilon`."""
        epsilon, least = checked_epsilon(epsilon), cls(1e-9, order)._beside(delta)
        if not least < epsilon < math.inf:
            raise ValueError(_too_little(epsilon, least, f" at order {order:g}"))
        return cls((epsilon - least) / _SLACK**2, order)

    @classmethod
    def covering(cls, ledger: Ledger, delta: float) -> Self:
        """The budget that a ledger just uses up, at the order that is best for it."""
        order = RDP().order(ledger, delta)
        probe = cls(1.0, order)
        return cls(math.fsum(n * probe.cost(m) for m, n in ledger.entries) * _SLACK, order)

    @property
    def total(self) -> float:
        """The Renyi divergence."""
        return self.rdp

    @property
    def describe(self) -> str:
        """The budget in a few words."""
        return f"a Renyi budget of {told(self.rdp)} at order {told(self.order, towards=-1)}"

    def cost(self, mechanism: Mechanism) -> float:
        """The larger divergence of the two directions."""
        if _sampled(mechanism):
            return self.costs([mechanism])[0]
        sides = [mechanism] if mechanism.leads else [mechanism, mechanism.reverse]
        with np.errstate(over="ignore", invalid="ignore"):
            costs = [float(side.rdp(self.order)) for side in sides]
        return math.inf if any(math.isnan(cost) for cost in costs) else max(costs)

    def costs(self, mechanisms: Sequence[Mechanism]) -> list[float]:
        """Sampled Gaussians at once: their nodes lie in one array."""
        many: Sequence[Any] = [mechanism for mechanism in mechanisms if _sampled(mechanism)]
        rate, sigma = (
            np.array([getattr(mechanism, name) for mechanism in many])
            for name in ("sample_rate", "noise_multiplier")
        )
        with np.errstate(over="ignore", invalid="ignore"):
            moments = np.maximum(poisson_order(rate, sigma, self.order - 1.0), 0.0)
        found = iter((moments / (self.order - 1.0)).tolist())
        return [next(found) if _sampled(one) else self.cost(one) for one in mechanisms]

    def epsilon(self, delta: float, spent: float | None = None) -> float:
        """The conversion at the budget's own order (Canonne, Kamath, Steinke 2020)."""
        rdp = self.rdp if spent is None else spent
        return max(rdp * _SLACK + self._beside(delta), 0.0)

    def _beside(self, delta: float) -> float:
        """What the conversion adds to the divergence."""
        a = self.order
        return math.log1p(-1 / a) - (math.log(checked_delta(delta)) + math.log(a)) / (a - 1)


@dataclass(frozen=True)
class Used(Accountant):
    """The part of a budget that is used, as an epsilon in the budget's own measure.

    A run whose noise reacts is promised the whole budget and nothing less; this grows towards it.
    """

    budget: Budget
    name: ClassVar[str] = "budget used"

    def epsilon(self, ledger: Ledger, delta: float) -> float:
        """What a budget as large as the ledger's cost would stand for."""
        if not ledger.entries:
            return 0.0
        meter = self.budget.meter()
        costs = [n * meter.cost(mechanism) for mechanism, n in ledger.entries]
        return self.budget.epsilon(delta, math.fsum(costs))

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """Not offered: a budget is fixed for one delta."""
        raise Refused("The delta of a budget that is partly used is not offered; ask the plan.")


class Meter:
    """A budget at work: charges are paid before anything is drawn, and never given back.

    *Guarantee*
    - what does not fit is not paid, in no part: `pay` says False and nothing has changed;
    - equal charges are multiplied, then summed without rounding: 100 times 1/128 fit into 100/128.
    """

    def __init__(self, budget: Budget, costs: dict[Mechanism, float] | None = None) -> None:
        """Nothing is paid yet; `costs` are those of this budget that are known already."""
        self.budget = budget
        self._costs: dict[Mechanism, float] = {} if costs is None else costs
        self._counts: dict[float, int] = {}
        self._spent: Fraction | float = Fraction(0)

    @property
    def spent(self) -> float:
        """What has been paid, in the budget's measure."""
        return float(self._spent)

    def pay(self, entries: Entries) -> bool:
        """Pay all these charges if they fit, or none of them."""
        added: dict[float, int] = {}
        for mechanism, count in entries:
            if not count:
                continue
            cost = self.cost(mechanism)
            added[cost] = added.get(cost, 0) + count
        after = self._after(added)
        if not after <= self.budget.total:
            return False
        for cost, count in added.items():
            self._counts[cost] = self._counts.get(cost, 0) + count
        self._spent = after
        return True

    def cost(self, mechanism: Mechanism) -> float:
        """What one charge costs; found once."""
        if mechanism not in self._costs:
            self._costs[mechanism] = self.budget.cost(mechanism)
        return self._costs[mechanism]

    def _after(self, added: dict[float, int]) -> Fraction | float:
        after = self._spent
        for cost, count in added.items():
            held = self._counts.get(cost, 0)
            if math.isinf(grown := (held + count) * cost):
                return math.inf
            after += Fraction(grown) - Fraction(held * cost)
        return after


def _sampled(mechanism: Mechanism) -> bool:
    """Whether `poisson_order` knows a mechanism's moments, which lead those of its reverse."""
    return (
        type(mechanism) is SubsampledGaussian
        and mechanism.sample_rate < 1.0
        and mechanism.noise_multiplier**2 > 0
    )


def _too_little(epsilon: float, least: float, where: str = "") -> str:
    return (
        f"epsilon (ε, price of the budget) must be a finite number above {least:.3g}{where}, got "
        f"{epsilon!r}; allow more, or a larger delta."
    )
