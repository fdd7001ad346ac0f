"""Charges: what each group of a run's steps costs, known before it runs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dpkit.budgets import Budget, Meter
from dpkit.mechanisms import Mechanism, Neighbours, Refused, Release
from dpkit.methods import Method
from dpkit.samplers import Sampler
from dpkit.samplers.base import Entries


class Charges:
    """The charges of a method's releases on a sampler's batches, group by group.

    *Guarantee*
    - a budget lets through exactly the groups that its meter lets a training make.
    """

    def __init__(
        self,
        method: Method,
        sampler: Sampler,
        relation: Neighbours,
        before: Sequence[Release],
        budget: Budget | None,
    ) -> None:
        """Nothing is charged yet."""
        self.method, self.sampler, self.relation, self.budget = method, sampler, relation, budget
        self.before = [(r.mechanism.pair(relation), r.count) for r in before]

    def of(self, group: range) -> Entries:
        """What one group costs."""
        releases = [self.method.releases(step) for step in group]
        return self.sampler.at_step(group.start).charge(releases, self.relation)

    @property
    def varies(self) -> bool:
        """Whether groups differ in what they cost."""
        return self.method.varies or self.sampler.varies

    def meter(self) -> Meter | None:
        """A meter of the budget to which what comes before the run has been paid, or None."""
        if self.budget is None:
            return None
        meter = self.budget.meter()
        if not meter.pay(self.before):
            raise Refused(f"What comes before the run exceeds {self.budget.describe}; allow more.")
        return meter

    @cached_property
    def steps(self) -> int:
        """How many steps the budget admits; all of them without one."""
        if self.budget is None:
            return self.sampler.steps
        if self.varies:
            return self._walked[-1][0] if self._walked else 0
        groups = self.sampler.groups()
        whole, once = len(groups[0]), self.of(groups[0])
        full = self.sampler.steps // whole
        fit = bisect_left(range(full), True, key=lambda n: not self._fits(once, n + 1))
        rest = [] if full == len(groups) else self.of(groups[-1])
        return self.sampler.steps if fit == full and self._fits(once, full, rest) else fit * whole

    def _fits(self, once: Entries, times: int, rest: Sequence[tuple[Mechanism, int]] = ()) -> bool:
        meter = self.meter()
        return meter is None or meter.pay([*((m, n * times) for m, n in once), *rest])

    def entries(self, steps: int) -> Entries:
        """What the first steps cost: whoever is in a group has been charged for all of it."""
        groups = self.sampler.groups()
        if self.varies:
            last = bisect_left(self._walked, steps, key=lambda charge: charge[0])
            walked = islice(self._walked, last + 1 if steps else 0)
            return self.before + [entry for _, entries in walked for entry in entries]
        whole = -(-steps // len(groups[0]))
        short = whole == len(groups) and len(groups[-1]) != len(groups[0])
        alike = [(m, count * (whole - short)) for m, count in self.of(groups[0])]
        return self.before + alike + (self.of(groups[-1]) if short else [])

    def counts(self, steps: NDArray[np.int64], index: dict[Mechanism, int]) -> NDArray[np.float64]:
        """Counts of each mechanism after each of the given steps, `(points, mechanisms)`."""

        def row(entries: Entries) -> NDArray[np.float64]:
            counts = np.zeros(len(index))
            for mechanism, count in entries:
                if mechanism in index:
                    counts[index[mechanism]] += count
            return counts

        running, groups = row(self.before), self.sampler.groups()
        if self.varies:
            found, walked, end = [], iter(self._walked), 0
            for step in steps:
                while end < step:
                    end, entries = next(walked)
                    for mechanism, count in entries:
                        running[index[mechanism]] += count
                found.append(running.copy())
            return np.array(found)
        whole = -(-steps // len(groups[0]))
        last = (whole == len(groups)) & (len(groups[-1]) != len(groups[0]))
        once, short = row(self.of(groups[0])), row(self.of(groups[-1]))
        return running + np.outer(whole - last, once) + np.outer(last, short)

    @cached_property
    def _walked(self) -> list[tuple[int, Entries]]:
        return list(self._walk())

    def _walk(self) -> Iterator[tuple[int, Entries]]:
        """Of each group where it ends and what it costs, as far as the budget goes."""
        meter = self.meter()
        for group in self.sampler.groups():
            entries = self.of(group)
            if meter is not None and not meter.pay(entries):
                return
            yield group.stop, entries
