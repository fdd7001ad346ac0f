"""The running total: what all runs on one data set cost together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpkit.accountants import PLD
from dpkit.accountants.base import told
from dpkit.mechanisms import Ledger, Refused
from dpkit.plan import Plan, round_up
from dpkit.words import say

if TYPE_CHECKING:
    from dpkit.datasets import Dataset


class Budget:
    """Plans of the runs that were started, by data set; a started run counts in full.

    *Guarantee*
    - a run is written down before it draws its first batch, and is never taken back.
    """

    def __init__(self) -> None:
        """Nothing was run yet."""
        self.plans: list[tuple[str, Plan]] = []

    def add(self, data: Dataset, plan: Plan) -> None:
        """Write a run down."""
        self.plans.append((data.fingerprint, plan))

    def of(self, data: Dataset) -> list[Plan]:
        """The plans that were run on a data set."""
        return [plan for fingerprint, plan in self.plans if fingerprint == data.fingerprint]

    def epsilon(self, data: Dataset) -> float:
        """Epsilon of all runs together, at the strictest delta among them."""
        plans = self.of(data)
        if not plans:
            return 0.0
        ledger = Ledger.of((), plans[0].neighbours)
        for plan in plans:
            ledger = ledger + plan.ledger()
        last = plans[-1].accountant  # what many runs cost is no estimate
        accountant = last if last.is_bound else PLD()
        return accountant.epsilon(ledger, min(plan.delta for plan in plans))

    def text(self, data: Dataset) -> str:
        """The running total in a sentence; empty before the first run."""
        plans = self.of(data)
        if not plans:
            return ""
        try:
            total = say(
                "ε = {epsilon} at δ = {delta:g}",
                epsilon=round_up(self.epsilon(data)),
                delta=float(told(min(p.delta for p in plans))),
            )
        except Refused as refusal:
            total = say("cannot be accounted ({refusal})", refusal=refusal)
        runs = say("1 run") if len(plans) == 1 else say("{number} runs", number=len(plans))
        return say(
            "**Running total** on {data}: {runs} (shown or not) cost {total} together. Every "
            "run spends, also one that you discard.",
            data=data.name,
            runs=runs,
            total=total,
        )
