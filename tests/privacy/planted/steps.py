"""Faults of the step and of the batch: a divisor, a sampler, a look that nobody pays for."""

from __future__ import annotations

import math

import numpy as np

import dpkit as dp
from dpkit import training
from dpkit.methods.dpsgd import DPSGDStepper
from dpkit.samplers import poisson
from tests.privacy.planted.mutant import drawing, mutant, put


@mutant("divide by the drawn batch", "Opacus issues 571 and 819", "ab", True)
def _(stack):
    original = DPSGDStepper.step

    def step(self, number, batch, *rest):
        self.expected_batch = float(max(len(batch[0]), 1))
        return original(self, number, batch, *rest)

    put(stack, DPSGDStepper, "step", step)


@mutant("divisor from the private size", "a divisor recomputed from len(dataset)", "a")
def _(stack):
    original = training._Run.__init__

    def init(self, plan, data, stepper, *rest, **options):
        stepper.expected_batch = plan.sampler.expected_batch(len(data.inputs))
        original(self, plan, data, stepper, *rest, **options)

    put(stack, training._Run, "__init__", init)


@mutant("empty batch skipped", "an empty Poisson batch releases nothing and changes nothing", "ab")
def _(stack):
    original = DPSGDStepper.step

    def step(self, number, batch, releases, generator):
        if not len(batch[0]):
            return dp.methods.Peek(math.nan, np.zeros(0), 1.0, 0)
        return original(self, number, batch, releases, generator)

    put(stack, DPSGDStepper, "step", step)


@mutant("learning rate from the norms", "a step size that looks at private gradients", "a")
def _(stack):
    original = DPSGDStepper.step

    def step(self, number, batch, *rest):
        keep = self.engine.parameters.clone()
        peek = original(self, number, batch, *rest)
        if peek.clipped > 0.5:
            self.engine.parameters.sub_(keep).mul_(0.9).add_(keep)
        return peek

    put(stack, DPSGDStepper, "step", step)


@mutant("inputs normalised by private data", "mean and deviation of the training set, unpaid", "a")
def _(stack):
    original = training._Run.__init__

    def init(self, plan, data, *rest, **options):
        original(self, plan, data, *rest, **options)
        if self.inputs.is_floating_point() and self.inputs.dim() == 2:
            self.inputs = self.inputs - self.inputs.mean(0)

    put(stack, training._Run, "__init__", init)


@mutant("a record twice in a batch", "sampling with replacement", "ad")
def _(stack):
    original = poisson.Poisson.batches

    def batches(self, num_examples, rng):
        for batch in original(self, num_examples, rng):
            yield np.sort(np.concatenate([batch, batch[:1]]))

    drawing(stack, batches)


@mutant("truncated Poisson", "batches cut to a static shape, charged as if they were not", "d")
def _(stack):
    original = poisson.Poisson.batches

    def batches(self, num_examples, rng):
        most = math.ceil(self.sample_rate * num_examples)
        for batch in original(self, num_examples, rng):
            yield np.sort(rng.permutation(batch)[:most])

    drawing(stack, batches)


def _cut(rng, num_examples, parts):
    return [np.sort(part) for part in np.array_split(rng.permutation(num_examples), parts)]


@mutant("shuffle accounted as Poisson", "most libraries for years (Chua et al. 2024)", "d", True)
def _(stack):
    def batches(self, num_examples, rng):
        parts, cut = max(round(1 / self.sample_rate), 1), []
        for _ in range(self.steps):
            cut = cut or _cut(rng, num_examples, parts)
            yield cut.pop()

    drawing(stack, batches)


@mutant("shuffled once", "a DataLoader that keeps its first order", "d")
def _(stack):
    def batches(self, num_examples, rng):
        cut = _cut(rng, num_examples, max(round(1 / self.sample_rate), 1))
        for step in range(self.steps):
            yield cut[step % len(cut)]

    drawing(stack, batches)


@mutant("fixed size accounted as Poisson", "random.sample in place of coins", "d")
def _(stack):
    def batches(self, num_examples, rng):
        size = max(round(self.sample_rate * num_examples), 1)
        for _ in range(self.steps):
            yield np.sort(rng.choice(num_examples, size, replace=False))

    drawing(stack, batches)


@mutant("balls into bins accounted as Poisson", "one step an epoch for each record", "d")
def _(stack):
    def batches(self, num_examples, rng):
        parts = max(round(1 / self.sample_rate), 1)
        for step in range(self.steps):
            if step % parts == 0:
                bins = rng.integers(0, parts, num_examples)
            yield np.flatnonzero(bins == step % parts)

    drawing(stack, batches)


@mutant("q rounded", "batch size int(q N), and q = batch / N again", "d")
def _(stack):
    original = poisson._included

    def included(num_examples, rate, rng):
        return original(num_examples, math.ceil(rate * num_examples) / num_examples, rng)

    put(stack, poisson, "_included", included)


@mutant("the first record always joins", "an offset in geometric gaps", "d")
def _(stack):
    original = poisson._included

    def included(num_examples, rate, rng):
        return np.union1d(original(num_examples, rate, rng), [0]).astype(np.int64)

    put(stack, poisson, "_included", included)


@mutant("stops when the loss explodes", "early stopping by the private training loss", "a")
def _(stack):
    original = training._Run.steps

    def steps(self):
        for step in original(self):
            yield step
            if not step.peek.loss < 50:
                return

    put(stack, training._Run, "steps", steps)
