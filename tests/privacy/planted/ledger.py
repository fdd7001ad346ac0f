"""Faults of the ledger: what was released and what was charged are not the same."""

from __future__ import annotations

import math
import sys
from contextlib import ExitStack

import dpkit as dp
from dpkit import training
from dpkit.methods.dpsgd import DPSGDStepper
from dpkit.runs import Run
from dpkit.samplers import poisson
from tests.privacy.planted.mutant import mutant, put


def charged(stack: ExitStack, change) -> None:
    """Ledger.of with its entries changed."""
    original = dp.Ledger.of.__func__

    def of(cls, pairs, relation=dp.Neighbours.ADD_REMOVE):
        return original(cls, change(list(pairs)), relation)

    put(stack, dp.Ledger, "of", classmethod(of))


@mutant("half the steps charged", "a count of epochs where steps are meant", "ef", True)
def _(stack):
    charged(stack, lambda pairs: [(m, math.ceil(n / 2)) for m, n in pairs])


@mutant("last sigma for all", "Opacus before 1.1: history kept the last noise level only", "f")
def _(stack):
    charged(stack, lambda pairs: [(pairs[-1][0], sum(n for _, n in pairs))] if pairs else [])


@mutant("a release's count forgotten", "dp_accounting forgets it in two type ladders", "f")
def _(stack):
    def together(releases):
        return releases[0].mechanism

    put(stack, poisson, "together", together)


@mutant("what comes before is free", "PCA or a normalisation from private data, uncharged", "f")
def _(stack):
    ledger, steps = dp.Plan.ledger, training._Run.steps

    def unpaid(self, *args):
        object.__setattr__(self, "before", ())
        return ledger(self, *args)

    put(stack, dp.Plan, "ledger", unpaid)
    put(stack, training._Run, "steps", lambda self: (setattr_(self.plan), steps(self))[1])


def setattr_(plan):
    object.__setattr__(plan, "before", ())


@mutant("charged after use", "the spend is written when the step is done", "f")
def _(stack):
    original = training.Spend.charge

    def charge(self, entries):
        late = getattr(self, "_late", [])
        original(self, late)
        self._late = list(entries)

    put(stack, training.Spend, "charge", charge)


@mutant("one step too many", "a loop to T inclusive", "f")
def _(stack):
    original, batches = training._Run.steps, poisson.Poisson.batches

    def steps(self):
        yield from original(self)
        batch = next(batches(self.plan.sampler, len(self.inputs), self.sampling))
        self.stepper.step(self.plan.steps - 1, self._gather(batch),
                          self.plan.method.releases(self.plan.steps - 1), self.noise)  # fmt: skip

    put(stack, training._Run, "steps", steps)


@mutant("training loss on the public stream", "a log line that prints the private loss", "af", True)
def _(stack):
    original = Run.add

    def add(self, step, **options):
        original(self, step, **options)
        self.test_loss.append(step.peek.loss)

    put(stack, Run, "add", add)


@mutant("a stop reported as planned", "a data-dependent stop, told as if fixed beforehand", "f")
def _(stack):
    original = dp.Plan.guarantee

    def guarantee(self, *, stopped_at=None, **options):
        plan = self
        if stopped_at:
            sampler = dp.Poisson(self.sampler.sample_rate, stopped_at)
            plan = dp.Plan(self.method, sampler, self.delta, accountant=self.accountant)
        return original(plan, **options)

    put(stack, dp.Plan, "guarantee", guarantee)


@mutant("the seed is not told", "a guarantee beside a published seed", "f")
def _(stack):
    original = dp.Plan.guarantee
    put(stack, dp.Plan, "guarantee",
        lambda self, *, seeded=False, **options: original(self, **options))  # fmt: skip


@mutant("a failed step is not charged", "a retry that nobody pays for", "f")
def _(stack):
    original = DPSGDStepper.step

    def step(self, *args):
        try:
            return original(self, *args)
        except ArithmeticError:
            run = sys._getframe(1).f_locals["self"]
            mechanism, count = run.spend._entries[-1]
            run.spend._entries[-1] = (mechanism, count - 1)
            raise

    put(stack, DPSGDStepper, "step", step)


@mutant("delta of one over N passes", "no word about a delta that allows publishing a record", "f")
def _(stack):
    put(stack, dp.Plan, "cautions", lambda self, num_examples: ())
