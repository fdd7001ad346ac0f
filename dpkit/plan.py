"""A plan: a whole private training run as one value, priced before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants import PLD, Accountant, Bounds
from dpkit.accountants.base import printed
from dpkit.accountants.calibration import solve_scale
from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import Ledger, Mechanism, Neighbours, Refused, Release
from dpkit.methods import Method
from dpkit.samplers import Sampler

MEANINGLESS = 20.0
"""Above this epsilon a guarantee is told to be practically empty."""


class Curve(NamedTuple):
    """Planned epsilon against steps: two arrays of shape `(points,)`."""

    steps: NDArray[np.int64]
    epsilon: NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """A method, a sampler, a delta: all that decides what a run costs.

    *Guarantee*
    - `epsilon()` is the price of the completed run, and a completed run spends exactly that;
    - what cannot be accounted is refused at construction, in words.
    """

    method: Method
    sampler: Sampler
    delta: float = knob(
        1e-5, "δ", "chance that the epsilon bound may fail", 0, 1, open_low=True, open_high=True,
        log=True, slider=(1e-8, 1e-2),
    )  # fmt: skip
    relation: Neighbours | None = None
    accountant: Accountant = field(default_factory=PLD)
    before: tuple[Release, ...] = ()

    def __post_init__(self) -> None:
        """Check delta and that the relation fits method and sampler; charge one group."""
        check_knobs(self)
        allowed = [r for r in self.sampler.relations if r in self.method.relations]
        if self.relation is not None and self.relation not in allowed:
            raise Refused(
                f"{type(self.method).__name__} with {type(self.sampler).__name__} cannot be "
                f"accounted under {self.relation.name}; allowed: "
                f"{', '.join(r.name for r in allowed) or 'none, choose another sampler'}."
            )
        if not allowed:
            raise Refused(
                f"{type(self.method).__name__} and {type(self.sampler).__name__} share no "
                f"neighbouring relation; choose another sampler."
            )
        self._charge(self.sampler.groups()[0])

    @property
    def neighbours(self) -> Neighbours:
        """The relation in force: the one given, else the sampler's first that the method allows."""
        if self.relation is not None:
            return self.relation
        return next(r for r in self.sampler.relations if r in self.method.relations)

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return self.sampler.steps

    def ledger(self, steps: int | None = None) -> Ledger:
        """What the first `steps` steps are going to be charged (all of them by default)."""
        steps = self.steps if steps is None else steps
        entries = [(r.mechanism.pair(self.neighbours), r.count) for r in self.before]
        groups = self.sampler.groups()
        if not self.method.varies:
            whole = -(-steps // len(groups[0]))
            short = whole == len(groups) and len(groups[-1]) != len(groups[0])
            once = self._charge(groups[0])
            entries += [(m, count * (whole - short)) for m, count in once]
            entries += self._charge(groups[-1]) if short else []
        else:
            for group in groups:
                if group.start >= steps:
                    break
                entries += self._charge(group)
        return Ledger.of(entries, self.neighbours)

    def epsilon(self) -> float:
        """The price of the completed run at the plan's delta."""
        return self._price

    @cached_property
    def _price(self) -> float:
        return self.accountant.epsilon(self.ledger(), self.delta)

    def bounds(self) -> Bounds:
        """Lower bound, estimate and upper bound of the price, with how they were found."""
        return self.accountant.bounds(self.ledger(), self.delta)

    def curve(self, points: int = 200) -> Curve:
        """Planned epsilon after each of about `points` steps spread over the run."""
        steps = np.unique(np.linspace(1, self.steps, min(points, self.steps)).round().astype(int))
        whole = self.ledger()
        index = {mechanism: i for i, (mechanism, _) in enumerate(whole.entries)}
        counts = self._cumulative(steps, index)
        mechanisms = tuple(mechanism for mechanism, _ in whole.entries)
        if not mechanisms:
            return Curve(steps, np.zeros(len(steps)))
        return Curve(steps, self.accountant.curve(mechanisms, counts, self.delta))

    def calibrated(self, epsilon: float) -> Self:
        """The same plan with its noise scaled so that the price is at most `epsilon`, tightly."""
        if not (isinstance(epsilon, int | float) and 0 < epsilon < float("inf")):
            raise ValueError(
                f"epsilon (ε, price to calibrate to) must lie in (0, infinity), got {epsilon!r}."
            )
        if not self.accountant.is_bound:
            raise Refused(
                f"{self.accountant.name} gives an estimate, not a bound, and never sets a budget; "
                f"calibrate with PLD() or RDP()."
            )

        def price(factor: float) -> float:
            try:
                scaled = self.method.scaled(factor)
            except ValueError:  # beyond the range of the method's noise: look closer by
                return 0.0
            return replace(self, method=scaled).epsilon()

        factor = solve_scale(price, epsilon)
        try:
            return replace(self, method=self.method.scaled(factor))
        except ValueError as error:
            raise Refused(
                f"No noise that {type(self.method).__name__} allows brings epsilon down to "
                f"{epsilon:g}; allow a larger epsilon or delta, fewer steps or a smaller sample "
                f"rate ({str(error).rstrip('.')})."
            ) from None

    def cautions(self, num_examples: int) -> tuple[str, ...]:
        """What a learner should hear before this plan runs on `num_examples` records."""
        found = []
        if self.delta >= 1 / num_examples:
            found.append(
                f"delta {self.delta:g} is not below 1/N = {1 / num_examples:.2g}: publishing one "
                f"record outright would be allowed; choose a smaller delta."
            )
        epsilon = self.epsilon()
        if np.isinf(epsilon):
            found.append("epsilon is infinite: nothing is promised; add noise.")
        elif epsilon > MEANINGLESS:
            found.append(
                f"epsilon {epsilon:.3g} promises next to nothing: the odds of a conclusion about a "
                f"record may change by a factor of e^{epsilon:.3g}; add noise or take fewer steps."
            )
        return tuple(found)

    def guarantee(
        self, *, seeded: bool = False, known_size: bool = True, stopped_at: int | None = None
    ) -> str:
        """The promise in one sentence: epsilon, delta, unit, relation, sampler, accountant."""
        epsilon = self.epsilon()
        accountant = self.accountant
        if not np.isfinite(epsilon):
            promise = "No privacy is promised: epsilon is infinite"
        elif accountant.is_bound:
            promise = f"({round_up(epsilon)}, {self.delta:.3g})-differential privacy"
        else:
            promise = f"An estimate, not a bound: epsilon about {epsilon:.3g} at {self.delta:.3g}"
        text = (
            f"{promise} for one example ({self.neighbours.value}), by {self.sampler.describe} "
            f"over {self.steps:,} steps, accounted by {accountant.name}; assumes exact real "
            f"arithmetic (computers round)"
            + (" and that the number of examples is public." if known_size else ".")
        )
        if stopped_at is not None and stopped_at < self.steps:
            text += " " + self._if_stopped(stopped_at)
        if seeded:
            text = "Teaching run: whoever knows the seed can remove the noise. Otherwise: " + text
        return text

    def _if_stopped(self, steps: int) -> str:
        smaller = self.accountant.epsilon(self.ledger(steps), self.delta)
        return (
            f"Stopped after {steps:,} steps: the claim stays at the planned price, since when to "
            f"stop may have depended on the data; epsilon would be {round_up(smaller)} if this "
            f"length had been fixed beforehand."
        )

    def _charge(self, group: range) -> list[tuple[Mechanism, int]]:
        releases = [self.method.releases(step) for step in group]
        return self.sampler.charge(releases, self.neighbours)

    def _cumulative(
        self, steps: NDArray[np.int64], index: dict[Mechanism, int]
    ) -> NDArray[np.float64]:
        """Counts of each mechanism after each of the given steps, shape (points, mechanisms)."""

        def row(entries: list[tuple[Mechanism, int]]) -> NDArray[np.float64]:
            counts = np.zeros(len(index))
            for mechanism, count in entries:
                if mechanism in index:
                    counts[index[mechanism]] += count
            return counts

        before = row([(r.mechanism.pair(self.neighbours), r.count) for r in self.before])
        groups = self.sampler.groups()
        if self.method.varies:
            running = np.cumsum([row(self._charge(group)) for group in groups], axis=0)
            ends = np.array([group.stop for group in groups])
            return before + running[np.searchsorted(ends, steps)]
        whole = -(-steps // len(groups[0]))
        last = (whole == len(groups)) & (len(groups[-1]) != len(groups[0]))
        once, short = row(self._charge(groups[0])), row(self._charge(groups[-1]))
        return before + np.outer(whole - last, once) + np.outer(last, short)


def round_up(epsilon: float) -> str:
    """An epsilon to three digits, rounded up: a printed promise is never below the computed one."""
    return printed(epsilon, 3, 1)


def round_down(epsilon: float) -> str:
    """To three digits, rounded down: a printed lower side is never above the computed one."""
    return printed(epsilon, 3, -1)
