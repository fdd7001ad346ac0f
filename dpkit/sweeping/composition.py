"""What all runs of a store cost together: whoever looks at many has paid for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpkit.accountants import PLD
from dpkit.mechanisms import Ledger, Mechanism, Refused
from dpkit.plan import round_up
from dpkit.sweeping.store import Record, Store


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
    return composed([r for r in store.records() if paid.get(r.key)], paid, fingerprint)


def composed(
    records: Sequence[Record], paid: Mapping[str, int], fingerprint: str | None = None
) -> Total:
    """Compose runs on one data set (the last one's), each as often as it was paid for, or once."""
    if not records:
        return Total(0, 0, 0.0, 0.0)
    fingerprint = fingerprint or records[-1].fingerprint
    records = [r for r in records if r.fingerprint == fingerprint]
    times = [paid.get(r.key, 1) for r in records]
    delta = min(r.plan.delta for r in records)
    relation = records[0].plan.neighbours
    entries: list[tuple[Mechanism, int]] = []
    try:
        for record, often in zip(records, times, strict=True):
            ledger = record.plan.ledger()
            if ledger.relation is not relation:
                raise Refused("they are told for different neighbouring relations.")
            entries += [(mechanism, count * often) for mechanism, count in ledger.entries]
        epsilon = PLD().epsilon(Ledger.of(entries, relation), delta)
    except Refused as refusal:
        return Total(len(records), sum(times), float("inf"), delta, str(refusal))
    return Total(len(records), sum(times), epsilon, delta)
