"""Charges: what each group of a run's steps costs, known before it runs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from dpkit.budgets import Budget, Meter
from dpkit.mechanisms import Mechanism, Neighbours, Refused, Release
from dpkit.methods import Method
from dpkit.samplers import Sampler
from dpkit.samplers.base import Blocks, Entries

_AHEAD = 1000  # groups that are charged at once, since their costs are sooner found together


@dataclass
class _Walked:
    """Charges one after the other, in few objects: the steps and the entries up to each group."""

    stops: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    entries: Entries = field(default_factory=list)

    def reach(self, steps: int) -> int:
        """How many entries the first steps have: all of every group that they touch."""
        return self.ends[bisect_left(self.stops, steps)] if steps else 0


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
        self._costs: dict[Mechanism, float] = {}
        self.before = [(r.mechanism.pair(relation), r.count) for r in before]

    def of(self, group: range) -> Entries:
        """What one group costs."""
        releases = [tuple(self.method.releases(step)) for step in group]
        return list(self.sampler.at_step(group.start).charge(releases, self.relation))

    @cached_property
    def varies(self) -> bool:
        """Whether groups differ in what they cost, or in their lengths."""
        return self.method.varies or self.sampler.varies or self._uneven

    @cached_property
    def _uneven(self) -> bool:
        """Whether another group than the last, and shorter, one differs in length."""
        groups = self.sampler.groups()
        if isinstance(groups, Blocks):
            return False
        first, *rest, last = [len(groups[0]), *map(len, groups)]
        return last > first or any(length != first for length in rest)

    def check(self, group: range, entries: Entries) -> None:
        """Refuse a group that costs other than it was priced at; ask before it is drawn."""
        if self.method.reacting is None and entries != self._priced(group):
            if not self.varies:
                self._alike(group.start, False)
            raise Refused(
                f"Step {group.start:,} costs other than it was priced at: let `releases` of "
                f"{type(self.method).__name__} and `charge` of {type(self.sampler).__name__} "
                f"depend on the step alone, and mechanisms of your own be frozen dataclasses, "
                f"which equal others of their numbers."
            )

    def _priced(self, group: range) -> Entries:
        """What the price holds for a group; nothing for one that it does not reach."""
        if not self.varies:
            return self._once if len(group) == len(self.sampler.groups()[0]) else self._last
        ends, place = self._walked.ends, bisect_left(self._walked.stops, group.stop)
        if place == len(ends):
            return []
        return self._walked.entries[ends[place - 1] if place else 0 : ends[place]]

    def check_some(self) -> None:
        """Charge the first group, and look whether steps of others follow the same law."""
        groups = self.sampler.groups()
        if not isinstance(groups, Blocks):
            stops = [0, *(group.stop for group in groups)]
            told = [range(a, b) for a, b in pairwise(stops) if a < b]
            if told != list(groups) or stops[-1] != self.sampler.steps:
                raise Refused(
                    f"groups() of {type(self.sampler).__name__} must be ranges that hold each of "
                    f"the {self.sampler.steps:,} steps once, in order: a price would be wrong."
                )
        assert self._once is not None
        for step in () if self.varies else (self.sampler.steps // 2, self.sampler.steps - 1):
            same = tuple(self.method.releases(step)) == tuple(self.method.releases(0))
            self._alike(step, same and self.sampler.at_step(step) == self.sampler.at_step(0))

    def _alike(self, step: int, same: bool) -> None:
        if not same:
            raise Refused(
                f"Step {step:,} costs other than step 0, although {type(self.method).__name__} and "
                f"{type(self.sampler).__name__} say that nothing varies: a price would be wrong. "
                f"Return True from `varies` of the one that does."
            )

    @cached_property
    def _once(self) -> Entries:
        """What the first group costs, and every other of its length if nothing varies."""
        return self.of(self.sampler.groups()[0])

    @cached_property
    def _last(self) -> Entries:
        """What the last group costs, where it is shorter than the others."""
        return self.of(self.sampler.groups()[-1])

    def meter(self) -> Meter | None:
        """A meter of the budget to which what comes before the run has been paid, or None."""
        if self.budget is None:
            return None
        meter = Meter(self.budget, self._costs)
        if not meter.pay(self.before):
            raise Refused(f"What comes before the run exceeds {self.budget.describe}; allow more.")
        return meter

    @cached_property
    def steps(self) -> int:
        """How many steps the budget admits; all of them without one."""
        if self.budget is None:
            return self.sampler.steps
        if self.varies:
            return self._walked.stops[-1] if self._walked.stops else 0
        groups = self.sampler.groups()
        whole, once = len(groups[0]), self._once
        full = self.sampler.steps // whole
        fit = bisect_left(range(full), True, key=lambda n: not self._fits(once, n + 1))
        rest = [] if full == len(groups) else self._last
        return self.sampler.steps if fit == full and self._fits(once, full, rest) else fit * whole

    def _fits(self, once: Entries, times: int, rest: Sequence[tuple[Mechanism, int]] = ()) -> bool:
        meter = self.meter()
        return meter is None or meter.pay([*((m, n * times) for m, n in once), *rest])

    def entries(self, steps: int) -> Entries:
        """What the first steps cost: whoever is in a group has been charged for all of it."""
        groups = self.sampler.groups()
        if self.varies:
            return self.before + self._walked.entries[: self._walked.reach(steps)]
        whole = -(-steps // len(groups[0]))
        short = whole == len(groups) and len(groups[-1]) != len(groups[0])
        alike = [(m, count * (whole - short)) for m, count in self._once]
        return self.before + alike + (self._last if short else [])

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
            columns = np.array([index[mechanism] for mechanism, _ in self._walked.entries])
            numbers = np.array([count for _, count in self._walked.entries])
            found, done = np.empty((len(steps), len(index))), 0
            for point, end in enumerate(map(self._walked.reach, steps.tolist())):
                np.add.at(running, columns[done:end], numbers[done:end])
                found[point], done = running, end
            return found
        whole = -(-steps // len(groups[0]))
        last = (whole == len(groups)) & (len(groups[-1]) != len(groups[0]))
        once, short = row(self._once), row(self._last)
        return running + np.outer(whole - last, once) + np.outer(last, short)

    @cached_property
    def _walked(self) -> _Walked:
        """The charges of all groups, as far as the budget goes."""
        walked = _Walked()
        for stop, entries in self._walk():
            walked.stops.append(stop)
            walked.entries += entries
            walked.ends.append(len(walked.entries))
        return walked

    def _walk(self) -> Iterator[tuple[int, Entries]]:
        """Of each group where it ends and what it costs."""
        meter, groups = self.meter(), iter(self.sampler.groups())
        while some := [(group.stop, self.of(group)) for group in islice(groups, _AHEAD)]:
            if meter is not None:
                new = dict.fromkeys(m for _, entries in some for m, _ in entries)
                unknown = [mechanism for mechanism in new if mechanism not in self._costs]
                self._costs.update(zip(unknown, meter.budget.costs(unknown), strict=True))
            for stop, entries in some:
                if meter is not None and not meter.pay(entries):
                    return
                yield stop, entries
