"""What the explorer says of prices: one run's over its steps, that of all attempts together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from dpkit.accountants import PLD
from dpkit.figures import curves
from dpkit.figures.base import Figure
from dpkit.plan import Curve, Plan
from dpkit.runs import plan_from_json
from dpkit.sweeping import Record, Store
from dpkit.sweeping.composition import composed, total
from dpkit.widgets.told import retold
from dpkit.words import say


def spent(record: Record) -> Figure:
    """Epsilon planned and spent over the steps of a run, in the terms of its promise.

    Where the plan's accountant gives but an estimate, both lines are PLD's, as the promise is.
    """
    run, planned = record.run, _curve(record.plan_json or "")
    if record.plan.accountant.is_bound:
        return curves.epsilon(planned, [run])
    every = _bounded(record.plan).curve(record.plan.steps).epsilon
    run = replace(run, spent=[float(every[step - 1]) for step in run.spent_steps])
    return curves.epsilon(planned, [run], say(" (bound by PLD)"))


def attempts(records: Sequence[Record], file: Path | None) -> int:
    """How many were paid for, shown or not; without a store as many as its records tell of."""
    if file is None:
        return sum(map(_paid, records))
    with Store(file) as store:
        return store.attempts


def cost(records: Sequence[Record], file: Path | None) -> str:
    """What all attempts cost together; at least, where there is no store that counted them."""
    if file is not None:
        with Store(file) as store:
            found = total(store)
        return say("**What this picture costs.** {sentence}", sentence=retold(found.sentence))
    paid = {record.key: _paid(record) for record in records}
    found = composed([record for record in records if paid[record.key]], paid)
    return say(
        "**What this picture costs**, at least: the finished runs and the failed attempts that "
        "their records tell of. {sentence}",
        sentence=retold(found.sentence),
    )


def _paid(record: Record) -> int:
    return record.failures + (record.state == "finished")


def _bounded(plan: Plan) -> Plan:
    """The plan as its promise prices it."""
    return plan if plan.accountant.is_bound else replace(plan, accountant=PLD())


@lru_cache(500)
def _curve(plan: str) -> Curve:
    """What a plan spends, priced once."""
    return _bounded(plan_from_json(plan)).curve()
