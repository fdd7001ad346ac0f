"""What all runs of a store cost together: whoever looks at many has paid for each."""

from __future__ import annotations

from dataclasses import dataclass

from dpkit.accountants import PLD
from dpkit.mechanisms import Ledger, Refused
from dpkit.plan import round_up
from dpkit.sweeping.store import Store


@dataclass(frozen=True)
class Total:
    """The price of all attempts on the records of one data set, at the strictest delta."""

    runs: int
    attempts: int
    epsilon: float
    delta: float
    problem: str = ""

    @property
    def sentence(self) -> str:
        """The total in words."""
        if not self.attempts:
            return "Nothing was run yet."
        runs = f"{self.attempts:,} attempts at {self.runs:,} runs, shown or not, cost"
        if self.problem:
            return f"{runs} more than can be told together: {self.problem}"
        return (
            f"{runs} ε = {round_up(self.epsilon)} at δ = {self.delta:g} together, by composition: "
            f"this is what a look at all of them spends."
        )


def total(store: Store, fingerprint: str | None = None) -> Total:
    """Compose every attempt in a store, failed ones included, on one data set (the latest's)."""
    paid = store.paid()
    records = [r for r in store.records() if paid.get(r.key)]
    if not records:
        return Total(0, 0, 0.0, 0.0)
    fingerprint = fingerprint or records[-1].fingerprint
    records = [r for r in records if r.fingerprint == fingerprint]
    attempts = sum(paid[r.key] for r in records)
    delta = min(r.plan.delta for r in records)
    try:
        entries = []
        relation = records[0].plan.neighbours
        for record in records:
            ledger = record.plan.ledger()
            if ledger.relation is not relation:
                raise Refused("they are told for different neighbouring relations.")
            entries += [
                (mechanism, count * paid[record.key]) for mechanism, count in ledger.entries
            ]
        epsilon = PLD().epsilon(Ledger.of(entries, relation), delta)
    except Refused as refusal:
        return Total(len(records), attempts, float("inf"), delta, str(refusal))
    return Total(len(records), attempts, epsilon, delta)
