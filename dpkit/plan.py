"""A plan: a whole private training run as one value, priced before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants import PLD, Accountant, Bounds
from dpkit.accountants.base import printed, told
from dpkit.accountants.calibration import solve_scale
from dpkit.budgets import Budget, Meter
from dpkit.charges import Charges
from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import Gaussian, Ledger, Neighbours, Refused, Release
from dpkit.methods import Method
from dpkit.samplers import Sampler
from dpkit.samplers.base import Entries
from dpkit.schedules import read_once

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
    - a `budget` ends the run before the step that would exceed it: where the noise is fixed
      beforehand, `steps` says when, and where it reacts, `epsilon()` is the budget's;
    - a function of the step is read once, here: what it may say later changes nothing;
    - what cannot be accounted is refused at construction, in words.
    """

    method: Method
    sampler: Sampler
    delta: float = knob(
        1e-5, "δ", "added probability that e^epsilon does not cover", 0, 1,
        open_low=True, open_high=True, log=True, slider=(1e-8, 1e-2),
    )  # fmt: skip
    relation: Neighbours | None = None
    accountant: Accountant = field(default_factory=PLD)
    before: tuple[Release, ...] = ()
    budget: Budget | None = None

    def __post_init__(self) -> None:
        """Check delta, schedules, and that the relation fits method and sampler; charge a group."""
        check_knobs(self)
        before = tuple(self.before) if isinstance(self.before, Iterable) else (self.before,)
        object.__setattr__(self, "before", before)
        self._check_kinds()
        for part in (self.sampler, self.method):
            name = "sampler" if part is self.sampler else "method"
            object.__setattr__(self, name, read_once(part, self.sampler.steps))
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
        self._check_reaction(len(self.sampler.groups()[0]))
        self._charges.check_some()
        self._check_budget()

    @property
    def neighbours(self) -> Neighbours:
        """The relation in force: the one given, else the sampler's first that the method allows."""
        if self.relation is not None:
            return self.relation
        return next(r for r in self.sampler.relations if r in self.method.relations)

    @property
    def steps(self) -> int:
        """Number of steps T: as many as the budget admits, at most those if the noise reacts."""
        if self.budget is None or self.method.reacting:
            return self.sampler.steps
        return self._charges.steps

    @cached_property
    def _charges(self) -> Charges:
        return Charges(self.method, self.sampler, self.neighbours, self.before, self.budget)

    def meter(self) -> Meter | None:
        """A meter of the budget that `before` has been paid to, or None; a run pays it."""
        return self._charges.meter()

    def check(self, group: range, entries: Entries) -> None:
        """Refuse what a group of steps is charged if the plan was priced at something else."""
        self._charges.check(group, entries)

    def ledger(self, steps: int | None = None) -> Ledger:
        """What the first `steps` steps are going to be charged (all of them by default)."""
        if self.method.reacting:
            raise Refused(
                "Noise that reacts to validation has no ledger beforehand; each Step of its run "
                "carries what was spent, and `epsilon()` is the budget's."
            )
        steps = self.steps if steps is None else min(steps, self.steps)
        return Ledger.of(self._charges.entries(steps), self.neighbours)

    def epsilon(self) -> float:
        """The price of the completed run at the plan's delta."""
        return self._price

    @cached_property
    def _price(self) -> float:
        if self.method.reacting and self.budget:
            return self.budget.epsilon(self.delta)
        return self.accountant.epsilon(self.ledger(), self.delta)

    def bounds(self) -> Bounds:
        """Lower bound, estimate and upper bound of the price, with how they were found."""
        if self.method.reacting and self.budget:
            price = self.epsilon()
            return Bounds(0.0, price, price, self.budget.describe, self.neighbours)
        return self.accountant.bounds(self.ledger(), self.delta)

    def curve(self, points: int = 200) -> Curve:
        """Planned epsilon after each of about `points` steps spread over the run."""
        steps = np.unique(np.linspace(1, self.steps, min(points, self.steps)).round().astype(int))
        if self.method.reacting:  # nothing less than the whole budget is promised at any step
            return Curve(steps, np.full(len(steps), self.epsilon()))
        whole = self.ledger()
        index = {mechanism: i for i, (mechanism, _) in enumerate(whole.entries)}
        counts = self._charges.counts(steps, index)
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
        if self.budget is not None:
            raise Refused(
                f"A plan under {self.budget.describe} ends where that is used up, whatever its "
                f"noise: choose the budget, by RhoBudget.of or RDPBudget.of, or calibrate without."
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
                f"epsilon {round_up(epsilon)} promises next to nothing: the odds of a conclusion "
                f"about a record may change by a factor of e^{round_up(epsilon)}; add noise or "
                f"take fewer steps."
            )
        return tuple(found)

    def guarantee(
        self, *, seeded: bool = False, known_size: bool = True, stopped_at: int | None = None
    ) -> str:
        """The promise in one sentence: epsilon, delta, unit, relation, sampler, accountant."""
        epsilon = self.epsilon()
        accountant = self.accountant
        reacting = self.method.reacting is not None
        delta = told(self.delta, 3)
        if not np.isfinite(epsilon):
            promise = "No privacy is promised: epsilon is infinite"
        elif accountant.is_bound or reacting:
            promise = f"({round_up(epsilon)}, {delta})-differential privacy"
        else:
            promise = f"An estimate, not a bound: epsilon about {epsilon:.3g} at {delta}"
        text = (
            f"{promise} for {self.method.unit} ({self.neighbours.value}), by "
            f"{self.sampler.describe} over {self._length}; assumes exact real "
            f"arithmetic (computers round)"
            + (" and that the number of examples is public." if known_size else ".")
        )
        if terms := self.method.terms(self.steps):
            text += f" {terms}"
        if stopped_at is not None and stopped_at < self.steps:
            text += " " + self._if_stopped(stopped_at)
        if seeded:
            text = "Teaching run: whoever knows the seed can remove the noise. Otherwise: " + text
        return text

    @property
    def _length(self) -> str:
        """For how long, and what the price rests on."""
        steps = f"{self.steps:,} steps"
        if self.budget is None:
            return f"{steps}, accounted by {self.accountant.name}"
        budget = self.budget.describe
        if self.method.reacting is None:
            return f"{steps}, as many as {budget} admits, accounted by {self.accountant.name}"
        return f"at most {steps}, by a filter that keeps {budget} whatever the noise reacts to"

    @property
    def measure(self) -> Accountant:
        """How what is spent is told while a run goes on: in its budget's measure if it reacts."""
        reacting = self.budget if self.method.reacting else None
        return reacting.used if reacting else self.accountant

    def _check_kinds(self) -> None:
        """Refuse what is nothing of the kind, before anything is asked of it."""
        relation = () if self.relation is None else (self.relation,)
        for name, values, kind, example in (
            ("relation", relation, Neighbours, "Neighbours.ADD_REMOVE"),
            ("accountant", (self.accountant,), Accountant, "PLD()"),
            ("before", self.before, Release, "(Release(Gaussian(16.0)),)"),
        ):
            for value in values:
                if not isinstance(value, kind):
                    raise TypeError(f"{name} must be such as {example}, got {value!r}.")
        if not isinstance(self.budget, Budget | None):
            raise Refused(
                f"budget must be a RhoBudget or an RDPBudget, got {type(self.budget).__name__}: "
                f"curves of losses (PLD, f-DP) are no filter for noise that reacts."
            )

    def _check_reaction(self, group: int) -> None:
        """Refuse noise that reacts without a budget, or within a group that is charged at once."""
        reacting = self.method.reacting
        if reacting and self.budget is None:
            raise Refused(
                "Noise that reacts to validation has no price beforehand; give the plan a "
                "budget, RhoBudget or RDPBudget."
            )
        if reacting and reacting.steps_per_epoch % group:
            raise Refused(
                f"ValidationDecay must hold for whole groups of {group:,} steps, which "
                f"{type(self.sampler).__name__} charges together, got steps_per_epoch = "
                f"{reacting.steps_per_epoch:,}; make it a multiple."
            )

    def _check_budget(self) -> None:
        """Refuse a run that its budget never lets go, or never lets look."""
        meter, first = self.meter(), self.sampler.groups()[0]
        if meter is None or self.budget is None:
            return
        if not meter.pay(self._charges.of(first)):
            raise Refused(
                f"The first {len(first):,} steps would exceed {self.budget.describe}; allow more, "
                f"or add noise."
            )
        reacting = self.method.reacting
        if reacting and reacting.look_noise is not None:
            look = Gaussian(reacting.look_noise).pair(self.neighbours)
            if not meter.pay([(look, 1)]):
                raise Refused(
                    f"A single look with look_noise {reacting.look_noise:g} would exceed "
                    f"{self.budget.describe}; allow more, or add noise to it."
                )

    def _if_stopped(self, steps: int) -> str:
        if self.method.reacting:
            return f"Stopped after {steps:,} steps: the claim stays at the whole budget."
        smaller = self.accountant.epsilon(self.ledger(steps), self.delta)
        return (
            f"Stopped after {steps:,} steps: the claim stays at the planned price, since when to "
            f"stop may have depended on the data; epsilon would be {round_up(smaller)} if this "
            f"length had been fixed beforehand."
        )


def round_up(epsilon: float) -> str:
    """An epsilon to three digits, rounded up: a printed promise is never below the computed one."""
    return printed(epsilon, 3, 1)


def round_down(epsilon: float) -> str:
    """To three digits, rounded down: a printed lower side is never above the computed one."""
    return printed(epsilon, 3, -1)
