"""Faults of checkpoints: an interruption that loses the spend or finds old noise."""

from __future__ import annotations

import sys

from dpkit import checkpoint, training
from dpkit.methods.dpsgd import DPSGDStepper
from dpkit.noise import Noise
from dpkit.samplers import poisson
from tests.privacy.planted.mutant import drawing, mutant, put


@mutant("a checkpoint forgets the spend", "a resumed run starts its ledger at zero", "k", True)
def _(stack):
    original = training._Run.steps

    def steps(self):
        for step in original(self):
            if not self.start:
                yield step
                continue
            length = step.mark[1] - self.start
            yield training.replace(step, mark=(step.mark[0], max(length, 1)))

    put(stack, training._Run, "steps", steps)


@mutant("a resumed run repeats its noise", "the generator's state goes on from the file", "k", True)
def _(stack):
    original = checkpoint.Keeper.resume

    def resume(self, run, model):
        start = original(self, run, model)
        run.noise = Noise(start)
        return start

    put(stack, checkpoint.Keeper, "resume", resume)


@mutant("lost steps made again for free", "a retry after a crash that nobody pays for", "k")
def _(stack):
    put(stack, checkpoint.Keeper, "_after_loss", lambda self, held: int(held["done"]))


@mutant("paid when the step is done", "the spend reaches the disk after the noise", "k")
def _(stack):
    def before(self, run, model, step):
        if step >= self.paid:
            self.write(run, model, step, step)

    put(stack, checkpoint.Keeper, "before", before)


@mutant("resumed with another sigma", "the schedule restarts at step 0 after a resume", "k")
def _(stack):
    put(stack, checkpoint.Keeper, "_check", lambda self, held: None)


@mutant("a resumed run forgets its momentum", "only the weights are saved", "k")
def _(stack):
    put(stack, DPSGDStepper, "restore", lambda self, state: None)


@mutant("a resumed run draws its first batches again", "the sampler starts over", "k")
def _(stack):
    original = poisson.Poisson.batches

    def batches(self, num_examples, rng):
        run = sys._getframe(1).f_locals.get("self")
        start = getattr(run, "start", 0)
        found = list(original(self, num_examples, rng))
        yield from found[:start] + found[: len(found) - start]

    drawing(stack, batches)
