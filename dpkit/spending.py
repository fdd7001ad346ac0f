"""Spending: what a run has been charged, and the step that tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dpkit.accountants import Accountant
from dpkit.mechanisms import Ledger, Mechanism, Neighbours
from dpkit.methods import Peek


class Spend:
    """What has been charged so far: written before a batch is drawn, and never taken back."""

    def __init__(self, relation: Neighbours) -> None:
        """Nothing is charged yet."""
        self.relation = relation
        self._entries: list[tuple[Mechanism, int]] = []

    def charge(self, entries: list[tuple[Mechanism, int]]) -> None:
        """Write a charge down; repeats of the last mechanism are counted, not listed."""
        for mechanism, count in entries:
            if self._entries and self._entries[-1][0] == mechanism:
                self._entries[-1] = (mechanism, self._entries[-1][1] + count)
            else:
                self._entries.append((mechanism, count))

    @property
    def mark(self) -> tuple[int, int]:
        """A point in time, for `ledger`: entries so far and the count of the last."""
        return len(self._entries), self._entries[-1][1] if self._entries else 0

    def ledger(self, mark: tuple[int, int]) -> Ledger:
        """The ledger as it stood at a mark."""
        length, count = mark
        entries = self._entries[:length]
        if entries:
            entries[-1] = (entries[-1][0], count)
        return Ledger.of(entries, self.relation)


@dataclass(frozen=True)
class Step:
    """One finished step: how many are done, what is spent, and what a learner may peek at.

    `step` counts finished steps from 1; after the last it equals the plan's `steps`.
    `epsilon` and `ledger` are computed when they are asked for. `peek` is not private.
    """

    step: int
    steps: int
    peek: Peek
    delta: float
    accountant: Accountant = field(repr=False)
    spend: Spend = field(repr=False, compare=False)
    mark: tuple[int, int] = field(repr=False)
    validation: tuple[float, ...] = ()
    """What a schedule that reacts has seen: on public records, or paid for."""

    @cached_property
    def ledger(self) -> Ledger:
        """All that has been charged up to this step."""
        return self.spend.ledger(self.mark)

    @cached_property
    def epsilon(self) -> float:
        """Budget spent up to this step: its price had this length been fixed beforehand.

        Where the noise reacts to what was seen, it is the part of the plan's budget that is used,
        told in the budget's own measure: the promise is the whole.
        """
        return self.accountant.epsilon(self.ledger, self.delta)


def price(steps: Sequence[Step]) -> list[float]:
    """What was spent up to each of these steps, at once if of one run; they keep what was found."""
    if any((s.accountant, s.delta) != (steps[0].accountant, steps[0].delta) for s in steps):
        return [step.epsilon for step in steps]  # of different runs: each by its own
    if not steps:
        return []
    ledgers = [step.ledger for step in steps]
    index = {m: n for n, m in enumerate(dict.fromkeys(m for x in ledgers for m in x.mechanisms))}
    counts = np.zeros((len(steps), len(index)), dtype=np.int64)
    for row, ledger in enumerate(ledgers):
        for mechanism, count in ledger.entries:
            counts[row, index[mechanism]] = count
    found = steps[0].accountant.curve(tuple(index), counts, steps[0].delta)
    for step, epsilon in zip(steps, found.tolist(), strict=True):
        step.__dict__["epsilon"] = epsilon  # what the cached property would hold
    return found.tolist()
