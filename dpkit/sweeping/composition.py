"""What all runs of a store cost together: whoever looks at many has paid for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpkit.accountants import PLD
from dpkit.mechanisms import Ledger, Mechanism, Refused
from dpkit.plan import round_up
from dpkit.sweeping.store import Record, Store


@dataclass(frozen=True)
class Total:
    """The price of all attempts, at the strictest delta, for a record that is in every data set."""

    runs: int
    attempts: int
    epsilon: float
    delta: float
    sets: int = 1
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
        return (
            f"{runs} ε = {round_up(self.epsilon)} at δ = {self.delta:g}{whose}, by composition: "
            f"this is what a look at all of them spends."
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
    times = [paid.get(r.key, 1) for r in records]
    about: dict[str, Any] = {"delta": min(r.plan.delta for r in records),
             "sets": len({r.fingerprint for r in records})}  # fmt: skip
    relation = records[0].plan.neighbours
    entries: list[tuple[Mechanism, int]] = []
    try:
        for record, often in zip(records, times, strict=True):
            ledger = record.plan.ledger()
            if ledger.relation is not relation:
                raise Refused("they are told for different neighbouring relations.")
            entries += [(mechanism, count * often) for mechanism, count in ledger.entries]
        epsilon = PLD().epsilon(Ledger.of(entries, relation), about["delta"])
    except Refused as refusal:
        return Total(len(records), sum(times), float("inf"), **about, problem=str(refusal))
    return Total(len(records), sum(times), epsilon, **about)
