"""What all runs of a store cost together: whoever looks at many has paid for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpkit.accountants import PLD
from dpkit.accountants.base import told
from dpkit.mechanisms import Ledger, Mechanism, Refused
from dpkit.plan import round_up
from dpkit.runs import plan_from_json
from dpkit.sweeping.store import Record, Store


@dataclass(frozen=True)
class Total:
    """The price of all attempts, at the strictest delta, for a record that is in every data set."""

    runs: int
    attempts: int
    epsilon: float
    delta: float
    sets: int = 1
    unit: str = "one example"
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The total in words."""
        if not self.attempts:
            return "Nothing was run yet."
        where = f" on {self.sets} data sets" if self.sets > 1 else ""
        runs = f"{self.attempts:,} attempts at {self.runs:,} runs{where}, shown or not, cost"
        if self.problem:
            return f"{runs} more than can be told together: {self.problem}"
        whose = " for a record that is in all of them" if self.sets > 1 else " together"
        whose += f", of {self.unit}" if self.unit != "one example" else ""
        return (
            f"{runs} ε = {round_up(self.epsilon)} at δ = {told(self.delta)}{whose}, by "
            f"composition: this is what a look at all of them spends."
        )


def total(store: Store, fingerprint: str | None = None) -> Total:
    """Compose every attempt in a store, failed ones included; those on one data set if named."""
    paid = store.paid()
    held = [r for r in store.records() if paid.get(r.key)]
    return composed([r for r in held if fingerprint in (None, r.fingerprint)], paid)


def composed(records: Sequence[Record], paid: Mapping[str, int]) -> Total:
    """Compose runs, each as often as it was paid for, or once."""
    if not records:
        return Total(0, 0, 0.0, 0.0)
    times: Counter[str] = Counter()
    for record in records:
        times[record.plan_json or ""] += paid.get(record.key, 1)
    plans = [(plan_from_json(text), often) for text, often in times.items()]
    about: dict[str, Any] = {"delta": min(plan.delta for plan, _ in plans),
             "sets": len({r.fingerprint for r in records}),
             "unit": plans[0][0].method.unit}  # fmt: skip
    relation = plans[0][0].neighbours
    entries: list[tuple[Mechanism, int]] = []
    try:
        for plan, often in plans:
            ledger = plan.ledger()
            if ledger.relation is not relation:
                raise Refused("they are told for different neighbouring relations.")
            if plan.method.unit != about["unit"]:
                raise Refused(f"some protect {about['unit']}, others {plan.method.unit}.")
            entries += [(mechanism, count * often) for mechanism, count in ledger.entries]
        epsilon = PLD().epsilon(Ledger.of(entries, relation), about["delta"])
    except Refused as refusal:
        return Total(len(records), times.total(), float("inf"), **about, problem=str(refusal))
    return Total(len(records), times.total(), epsilon, **about)
