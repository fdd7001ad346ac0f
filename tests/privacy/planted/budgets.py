"""Faults of budgets and of noise that changes: the wrong sum, a step too many, a look for free."""

from __future__ import annotations

from fractions import Fraction

from dpkit import budgets, looks, plan
from tests.privacy.planted.ledger import charged
from tests.privacy.planted.mutant import mutant, put


@mutant(
    "maximum for sum", "parallel composition across epochs, which see the same records", "ef", True
)
def _(stack):
    def one(pairs):
        return [min(pairs, key=lambda pair: repr(pair[0]))][:1] if pairs else []

    charged(stack, lambda pairs: [(m, 1) for m, _ in one(pairs)])


@mutant(
    "a meter that keeps the maximum",
    "rho of an epoch is a maximum over its batches, not so that of the run",
    "f",
)
def _(stack):
    def after(self, added):
        return Fraction(max([float(self._spent), *added]))

    put(stack, budgets.Meter, "_after", after)


@mutant("a meter that knows the last noise only", "Opacus before 1.1, in a filter", "f")
def _(stack):
    def after(self, added):
        count = sum(self._counts.values()) + sum(added.values())
        return Fraction(count * list(added)[-1]) if added else self._spent

    put(stack, budgets.Meter, "_after", after)


@mutant("one step beyond the budget", "while spent <= budget: train", "f", True)
def _(stack):
    original = budgets.Meter._after

    def pay(self, entries):
        entries = [(self.budget.cost(m), n) for m, n in entries]
        if not self._spent <= self.budget.total:
            return False
        self._spent = original(self, dict(entries))
        for cost, count in entries:
            self._counts[cost] = self._counts.get(cost, 0) + count
        return True

    put(stack, budgets.Meter, "pay", pay)


@mutant("noise follows private validation", "the published code of Yu et al. 2019", "a")
def _(stack):
    original = looks.Looks.__init__

    def init(self, plan, data):
        original(self, plan, data)
        self.public = data.inputs, data.targets

    put(stack, looks.Looks, "__init__", init)


@mutant("a look for free", "accuracy of private records printed, and nobody pays", "af")
def _(stack):
    original = looks.Looks.before

    def before(self, step, run, meter):
        class Free:
            def pay(self, entries):
                return True

            def charge(self, entries):
                return None

        spend, run.spend = run.spend, Free()
        try:
            return original(self, step, run, Free())
        finally:
            run.spend = spend

    put(stack, looks.Looks, "before", before)


@mutant("a look without its noise", "the answer is charged, and given out exactly", "a")
def _(stack):
    original = looks.Looks._paid

    def paid(self, run, release):
        original(self, run, release)
        return looks._accuracy(run, run.inputs, run.targets)

    put(stack, looks.Looks, "_paid", paid)


@mutant("a schedule that is read while it runs", "a callback turns the noise down", "f")
def _(stack):
    put(stack, plan, "read_once", lambda owner, steps: owner)
