"""Plant small faults, each after a bug that really happened, and see which test finds them.

`python -m tests.privacy.mutants` prints the table (what killed what) and fails if one survives,
or if the audit (c) alone finds it. `--short` runs the dozen of continuous integration, `--list`
names them all, `NAME ...` runs some. Each mutant is planted in a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from _pytest.mark.expression import Expression

import dpkit as dp
from dpkit import checkpoint, training
from dpkit.accountants import calibration, rdp
from dpkit.gradients import Engine
from dpkit.gradients import clipping as clips
from dpkit.gradients import linear, tape
from dpkit.mechanisms import FixedSizeSampling, PoissonSampling, subsampled
from dpkit.methods.dpsgd import DPSGDStepper
from dpkit.runs import Run
from dpkit.samplers import poisson
from dpkit.schedules import at

HERE = Path(__file__).parent
NET = {
    "a": ("test_a_replay.py", "(sampler_and and DPSGD0 and not ZERO) or (every_layer and (mlp-ADD "
          "or conv1d-REPL or tied-ADD)) or (alone and (NaN or 1e6 or removed)) or (every_clipping "
          "and (mlp or conv1d))"),
    "b": ("test_b_noise.py", "DPSGD0 or DPSGD3 or own_law or batch"),
    "c": ("test_c_canaries.py", "DPSGD0 or 93"),
    "d": ("test_d_fingerprint.py", "not is_priced"),
    "e": ("test_e_accountants.py", "not laws"),
    "f": ("test_f_ledger.py", "not measured or DPSGD0 or DPSGD2 or DPSGD3"),
    "g": ("test_g_metamorphic.py", "mlp or conv1d or tied or linear or DPSGD or sgd or mixes"),
    "k": ("test_checkpoint.py", "not killed"),
}  # fmt: skip
"""The tests of each letter that hunt mutants: short, yet every kind is there. k: checkpoints."""


@dataclass(frozen=True)
class Mutant:
    """A fault: its name, the bug that it copies, how to plant it, and who should hunt it."""

    name: str
    bug: str
    plant: Callable[[ExitStack], None]
    letters: str
    short: bool = False


MUTANTS: list[Mutant] = []


def mutant(name: str, bug: str, letters: str, short: bool = False):
    """Register a function that plants a fault; it is handed an ExitStack for its patches."""

    def add(plant):
        MUTANTS.append(Mutant(name, bug, plant, letters, short))
        return plant

    return add


def put(stack: ExitStack, owner, name: str, value) -> None:
    stack.enter_context(patch.object(owner, name, value))


# --- clipping -----------------------------------------------------------------------------------


def by_rows(stack: ExitStack, change) -> None:
    """Replace the clip by a change of per-example gradients: change(engine, rows, C) -> rows."""

    def clipped_sum(self, inputs, targets, max_grad_norm, mask=None):
        def transform(rows):
            rows = rows if mask is None else rows * mask
            return change(self, rows, max_grad_norm)

        return self.transformed_sum(inputs, targets, transform, math.inf)

    put(stack, Engine, "clipped_sum", clipped_sum)


def scaled(rows, norms, bound):
    return rows * (bound / norms.clamp_min(1e-30)).clamp_max(1.0)[:, None]


@mutant("clip the mean", "clip_grad_norm_ on the batch; TF privacy with one microbatch", "acg", True)
def _(stack):
    by_rows(stack, lambda e, rows, c: rows * min(1.0, c / max(float(rows.mean(0).norm()), 1e-30)))


@mutant("per-tensor clip with one C", "each layer clipped to C, noise for one C", "ag", True)
def _(stack):
    def change(engine, rows, c):
        parts = [rows[:, place] for place in engine.slices.values()]
        return torch.cat([scaled(p, p.norm(dim=1), c) for p in parts], 1)

    by_rows(stack, change)


@mutant("clamp each number", "clip_grad_value_ for clip_grad_norm_", "ag")
def _(stack):
    by_rows(stack, lambda e, rows, c: rows.clamp(-c, c))


@mutant("largest coordinate as norm", "norm_type=inf in the clip", "ag")
def _(stack):
    by_rows(stack, lambda e, rows, c: scaled(rows, rows.abs().amax(1), c))


@mutant("norm without biases", "the norm over part of the parameters", "ag", True)
def _(stack):
    def change(engine, rows, c):
        square = sum(rows[:, place].square().sum(1)
                     for name, place in engine.slices.items() if "bias" not in name)  # fmt: skip
        return scaled(rows, square.sqrt(), c)

    by_rows(stack, change)


@mutant("C from the median norm", "adaptive clipping whose median nobody paid for", "ag")
def _(stack):
    by_rows(stack, lambda e, rows, c: scaled(rows, rows.norm(dim=1), float(rows.norm(dim=1).median())))


@mutant("normalise across records", "gradients scaled by the batch's mean norm", "ag")
def _(stack):
    def change(engine, rows, c):
        norms = rows.norm(dim=1)
        return scaled(rows, norms, c) * (norms.mean() / norms.clamp_min(1e-30)).clamp(0.5, 2)[:, None]

    by_rows(stack, change)


@mutant("NaN passes", "Opacus 1.6: 0 x NaN is NaN, one record ruins every weight", "a", True)
def _(stack):
    original = Engine.clipped_sum

    def clipped_sum(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        if found.skipped:
            found.total.mul_(math.nan)
        return found

    put(stack, Engine, "clipped_sum", clipped_sum)


@mutant("wrong ghost norm of a bias", "the 1 of the bias forgotten in |g|^2 (|a|^2 + 1)", "ag")
def _(stack):
    def squares(self):
        return linear._square(self.grad) * linear._square(self.inputs)

    put(stack, linear.Outer, "_squares", squares)


@mutant("tied weights counted once", "a layer used twice: one use bounded, both summed", "ag")
def _(stack):
    original = tape._merged

    def merged(calls, mask):
        work = original(calls, mask)
        if work is not None and len(calls) > 1:
            work.squares = original(calls[:1], mask).squares
        return work

    put(stack, tape, "_merged", merged)


@mutant("clip ignored with a mask", "the clip norm is ignored on one path", "ag")
def _(stack):
    original = Engine.clipped_sum

    def clipped_sum(self, x, y, max_grad_norm, mask=None):
        return original(self, x, y, max_grad_norm if mask is None else 1e9, mask)

    put(stack, Engine, "clipped_sum", clipped_sum)


@mutant("per-layer shares add up to too much", "every layer gets C, the sum has C sqrt(L)", "a")
def _(stack):
    def factors(self, squares, max_grad_norm):
        return clips._bounded(squares, max_grad_norm)

    put(stack, clips.PerLayer, "factors", factors)


@mutant("automatic clip beyond C", "gamma taken off the norm in place of added", "a")
def _(stack):
    def factors(self, squares, max_grad_norm):
        return max_grad_norm / (clips._joint(squares).sqrt() - self.gamma).clamp_min(1e-9)

    put(stack, clips.Automatic, "factors", factors)


@mutant("stale gradients", "zero_grad forgotten: the last batch's sum is in this one", "acg")
def _(stack):
    original = Engine.clipped_sum

    def clipped_sum(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        last = getattr(self, "_last", None)
        self._last = found.total.clone()
        if last is not None:
            found.total.add_(last, alpha=0.5)
        return found

    put(stack, Engine, "clipped_sum", clipped_sum)


@mutant("clip after averaging microbatches", "one clip for each microbatch, not each record", "ag")
def _(stack):
    def change(engine, rows, c):
        mean = rows.mean(0, keepdim=True)
        return scaled(mean, mean.norm(dim=1), c).expand_as(rows)

    by_rows(stack, change)


# --- noise --------------------------------------------------------------------------------------


def redrawn(stack: ExitStack, change) -> None:
    """Gaussian.draw with its noise changed: change(noise, mechanism, norm, total) -> noise."""
    original = dp.Gaussian.draw

    def draw(self, total, norm, generator):
        noisy = original(self, total.double(), norm, generator)
        return (total.double() + change(noisy - total, self, norm, total)).type_as(total)

    put(stack, dp.Gaussian, "draw", draw)


@mutant("no noise on the first tensor", "parameters added after the optimiser was made", "b", True)
def _(stack):
    redrawn(stack, lambda z, m, c, t: torch.cat([0 * z[: len(z) // 50], z[len(z) // 50 :]]))


@mutant("no noise on the last bias", "a bias that no optimiser group holds", "b")
def _(stack):
    redrawn(stack, lambda z, m, c, t: torch.cat([z[:-3], 0 * z[-3:]]) if len(z) > 3 else z)


@mutant("sigma squared", "variance passed where a deviation is meant", "bcf")
def _(stack):
    redrawn(stack, lambda z, m, c, t: z * m.noise_multiplier)


@mutant("C missing", "noise of sigma, not sigma C", "bcf", True)
def _(stack):
    redrawn(stack, lambda z, m, c, t: z / c)


@mutant("divided by the batch twice", "noise for a mean, added to a sum (Tramer et al. 2022)", "bc")
def _(stack):
    redrawn(stack, lambda z, m, c, t: z / 6)


@mutant("1 / sqrt(microbatches)", "noise scaled as if each microbatch had brought its own", "bcf")
def _(stack):
    redrawn(stack, lambda z, m, c, t: z / math.sqrt(2))


@mutant("same noise each step", "a random key used twice", "b", True)
def _(stack):
    original = dp.Gaussian.draw

    def draw(self, total, norm, generator):
        return original(self, total, norm, torch.Generator().manual_seed(5))

    put(stack, dp.Gaussian, "draw", draw)


@mutant("same noise in each tensor", "one generator seeded anew for each tensor", "b")
def _(stack):
    def change(z, m, c, t):
        half = len(z) // 2
        return torch.cat([z[:half], z[:half], z[2 * half :]])

    redrawn(stack, change)


@mutant("2% short", "Opacus's own tolerance lets a 7% shortage pass", "b", True)
def _(stack):
    redrawn(stack, lambda z, m, c, t: 0.98 * z)


@mutant("float16 noise", "half-precision training draws half-precision noise", "b")
def _(stack):
    redrawn(stack, lambda z, m, c, t: z.half().double())


@mutant("float32 noise", "torch.randn in float32 never passes 5.77 sigma", "b")
def _(stack):
    redrawn(stack, lambda z, m, c, t: z.float().double())


@mutant("published seed", "a default seed of 0 where secrecy is claimed", "b", True)
def _(stack):
    original = training._streams
    put(stack, training, "_streams", lambda seed, *a: original(0 if seed is None else seed, *a))


@mutant("noise follows torch's global seed", "torch.manual_seed(0) at the top of a notebook", "b")
def _(stack):
    original = training._streams

    def streams(seed, *rest):
        return original(int(torch.randint(2**62, ())) if seed is None else seed, *rest)

    put(stack, training, "_streams", streams)


@mutant("noise shrinks with the loss", "sigma driven by private validation", "a")
def _(stack):
    original = DPSGDStepper.step

    def step(self, number, batch, releases, generator):
        if len(batch[0]) and float(batch[0].double().abs().mean()) > 0.8:
            (release,) = releases
            releases = (dp.Release(dp.Gaussian(0.9 * release.mechanism.noise_multiplier)),)
        return original(self, number, batch, releases, generator)

    put(stack, DPSGDStepper, "step", step)


# --- the step and the batch ---------------------------------------------------------------------


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


def drawing(stack: ExitStack, batches) -> None:
    put(stack, poisson.Poisson, "batches", batches)


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


# --- the ledger ---------------------------------------------------------------------------------


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


# --- accounting ---------------------------------------------------------------------------------


@mutant("replace-one with C", "sensitivity C where two records differ by 2C", "ef", True)
def _(stack):
    original = dp.Gaussian.pair

    def pair(self, relation, sampling=None):
        relation = dp.Neighbours.ADD_REMOVE if sampling is None else relation
        return original(self, relation, sampling)

    put(stack, dp.Gaussian, "pair", pair)


@mutant("replace-one sampled as add-remove", "one relation's epsilon under another's name", "e")
def _(stack):
    original = dp.Gaussian.pair
    put(stack, dp.Gaussian, "pair",
        lambda self, relation, sampling=None: original(self, dp.Neighbours.ADD_REMOVE, sampling))  # fmt: skip


@mutant("fixed size with the Poisson pair", "the displaced record forgotten", "d")
def _(stack):
    original = dp.Gaussian.pair

    def pair(self, relation, sampling=None):
        if isinstance(sampling, FixedSizeSampling) and relation is dp.Neighbours.REPLACE_ONE:
            sampling = PoissonSampling(sampling.sample_rate)
        return original(self, relation, sampling)

    put(stack, dp.Gaussian, "pair", pair)


@mutant("fixed size under add-remove", "a pair that cannot be accounted is accounted", "d")
def _(stack):
    original = dp.Gaussian.pair

    def pair(self, relation, sampling=None):
        if isinstance(sampling, FixedSizeSampling):
            sampling = PoissonSampling(sampling.sample_rate)
        return original(self, relation, sampling)

    put(stack, dp.Gaussian, "pair", pair)


@mutant("the largest for the sum", "moments of two kinds of step: max in place of plus", "e")
def _(stack):
    def composed(mechanisms, counts, backward=False):
        parts = [n[:, None] * rdp.log_moments(m)[None, :]
                 for m, n in zip(mechanisms, np.asarray(counts).T, strict=True)]  # fmt: skip
        return np.max(parts, axis=0)

    put(stack, rdp, "composed", composed)


@mutant("wrong delta", "ten times the delta that was asked for", "ef")
def _(stack):
    original = dp.PLD.curve
    put(stack, dp.PLD, "curve",
        lambda self, m, c, delta: original(self, m, c, min(10 * delta, 0.99)))  # fmt: skip


@mutant("the limit theorem as a bound", "GDP's estimate gates a budget (2.51 said, 3.14 true)", "e")
def _(stack):
    put(stack, dp.GDP, "is_bound", True)


@mutant("1/a for 1/(a-1)", "the conversion's commonest slip", "e", True)
def _(stack):
    def by_order(total, delta):
        a = rdp.ORDERS
        return total / (a - 1) + np.log((a - 1) / a) - (math.log(delta) + np.log(a)) / a

    put(stack, rdp, "_by_order", by_order)


@mutant("moments over a", "RDP(a) from its moment by 1/a", "e")
def _(stack):
    original = dp.Mechanism.rdp
    put(stack, dp.Mechanism, "rdp",
        lambda self, alpha: original(self, alpha) * (np.asarray(alpha) - 1) / np.asarray(alpha))  # fmt: skip


@mutant("wrong sign in the conversion", "log(a / (a-1)) subtracted twice", "e")
def _(stack):
    def by_order(total, delta):
        a = rdp.ORDERS
        return total / (a - 1) + 2 * np.log((a - 1) / a) - (math.log(delta) + np.log(a)) / (a - 1)

    put(stack, rdp, "_by_order", by_order)


@mutant("the orders end at 64", "the optimum at the end of the list, unsaid", "e")
def _(stack):
    put(stack, rdp, "ORDERS", np.linspace(1.5, 64.0, len(rdp.ORDERS)))
    rdp.log_moments.cache_clear()


@mutant("series cut early", "a series of the moment stopped after a few terms", "e")
def _(stack):
    from scipy import special

    original = subsampled.SubsampledGaussian.log_moment

    def log_moment(self, z):
        z = np.asarray(z)
        if np.iscomplexobj(z) or self.sample_rate == 1:
            return original(self, z)
        a, k = np.atleast_1d(z)[:, None] + 1.0, np.arange(5)
        q, s = self.sample_rate, self.noise_multiplier
        chosen = special.binom(a, k) * q**k * (1 - q) ** (a - k)
        total = (chosen * np.exp((k * k - k) / (2 * s * s))).sum(1)
        return np.log(np.maximum(np.abs(total), 1e-300)).reshape(z.shape)

    put(stack, subsampled.SubsampledGaussian, "log_moment", log_moment)
    rdp.log_moments.cache_clear()


@mutant("sigma off by 3% in the profile", "a rounded constant in the accountant", "e")
def _(stack):
    put(stack, subsampled, "_mu", lambda s: 0.97 / s if s else math.inf)
    original = subsampled.SubsampledGaussian.log_moment
    put(stack, subsampled.SubsampledGaussian, "log_moment", lambda self, z: original(
        subsampled.SubsampledGaussian(self.sample_rate, 1.03 * self.noise_multiplier), z))  # fmt: skip
    rdp.log_moments.cache_clear()


@mutant("calibration overshoots", "a bisection that returns its cheap side", "e", True)
def _(stack):
    original = calibration.solve_scale

    def solve(price, target, **options):
        return 0.98 * original(price, target, **options)

    put(stack, calibration, "solve_scale", solve)
    put(stack, dp.plan, "solve_scale", solve)


@mutant("an epsilon rounded down", "2.996 printed as 2.99", "e")
def _(stack):
    put(stack, dp.plan, "round_up", lambda epsilon: f"{math.floor(epsilon * 100) / 100:g}")


@mutant("a query eats the history", "asking for epsilon consumes the steps", "e")
def _(stack):
    original, asked = dp.RDP.curve, []

    def curve(self, mechanisms, counts, delta):
        asked.append(1)
        return original(self, mechanisms, np.asarray(counts) // (1 + len(asked) % 2), delta)

    put(stack, dp.RDP, "curve", curve)




# --- checkpoints --------------------------------------------------------------------------------


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
        run.noise.manual_seed(start)
        return start

    put(stack, checkpoint.Keeper, "resume", resume)


@mutant("lost steps made again for free", "a retry after a crash that nobody pays for", "k")
def _(stack):
    put(stack, checkpoint.Keeper, "_after_loss", lambda self, held: int(held["done"]))


@mutant("paid when the step is done", "the spend reaches the disk after the noise", "k", True)
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


# --- the runner ---------------------------------------------------------------------------------


class _Hunt:
    """A pytest plugin: of each letter the tests of the net, until the first that fails."""

    def __init__(self, letters: str) -> None:
        self.files = {NET[letter][0]: letter for letter in letters}
        self.found: dict[str, tuple[int, list[str]]] = {letter: (0, []) for letter in letters}

    def pytest_collection_modifyitems(self, items) -> None:
        items[:] = [item for item in items if self._wanted(item)]

    def pytest_runtest_setup(self, item) -> None:
        # A letter that has killed the mutant is done: its other tests are not worth the time.
        if self.found[self.files[item.path.name]][1]:
            pytest.skip("this letter has its kill")

    def pytest_runtest_logreport(self, report) -> None:
        letter = self.files[Path(report.fspath).name]
        ran, failed = self.found[letter]
        if report.failed and not failed:
            failed.append(report.nodeid.rpartition("::")[2])
        self.found[letter] = (ran + (report.when == "call"), failed)

    def _wanted(self, item) -> bool:
        words = NET[self.files[item.path.name]][1]
        return Expression.compile(words).evaluate(lambda word: word in item.name)


def _pytest(files: list[str], *options: str, plugins=()) -> str:
    """Pytest in this process, without the plugins of other packages; what it said."""
    said = io.StringIO()
    arguments = [str(HERE / file) for file in files]
    arguments += ["-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *options]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        pytest.main(arguments, plugins=list(plugins))
    return said.getvalue()


def hunted(one: Mutant | None, letters: str) -> dict[str, tuple[int, list[str]]]:
    """Plant a mutant here, run its hunters: tests run and first failure, by letter."""
    hunt = _Hunt(letters)
    with ExitStack() as stack:
        if one is not None:
            one.plant(stack)
        said = _pytest(list(hunt.files), plugins=[hunt])
    idle = [letter for letter, (ran, failed) in hunt.found.items() if not (ran or failed)]
    if idle:
        raise RuntimeError(f"no test of {idle} ran: {said[-2000:]}")
    return hunt.found


def _child(number: int, letters: str) -> tuple[int, dict[str, tuple[int, list[str]]], float]:
    torch.set_num_threads(1)
    start = time.monotonic()
    try:
        one = MUTANTS[number] if number >= 0 else None
        found = hunted(one, letters or (one.letters if one else "".join(NET)))
    except BaseException:
        found = {"!": (0, [traceback.format_exc()])}
    return number, found, time.monotonic() - start


def _told(line: str) -> None:
    print(line, flush=True)


def _task(work: tuple[int, str]):
    return _child(*work)


def run(chosen: list[int], letters: str = "", processes: int = 2, out=_told) -> list[str]:
    """Hunt the chosen mutants, print the table, and name those that got away."""
    escaped = []
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    _pytest([file for file, _ in NET.values()], "--collect-only")  # imported once, for all forks
    # A fresh fork for each: nothing planted in one may be seen by the next.
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        work = [(number, letters) for number in chosen]
        for number, found, seconds in pool.imap_unordered(_task, work, chunksize=1):
            kills = [letter for letter, (_, failed) in found.items() if failed]
            name = MUTANTS[number].name if number >= 0 else "(nothing planted)"
            if number >= 0 and (not set(kills) - {"c"} or "!" in found):
                escaped.append(name)
            first = next((f[0] for _, f in found.values() if f), "")[-70:]
            ran = sum(ran for ran, _ in found.values())
            marks = "".join(x if x in kills else "." if x in found else " " for x in [*NET, "!"])
            out(f"{name:38} {marks} {ran:4d} tests {seconds:5.1f} s  {first}")
    return escaped


def main(arguments: list[str]) -> int:
    """The table, the survivors, the time."""
    if "--list" in arguments:
        for one in MUTANTS:
            print(f"{one.name:38} {one.bug}")
        return 0
    names = [a for a in arguments if not a.startswith("-")]
    chosen = [i for i, one in enumerate(MUTANTS)
              if (not names or one.name in names) and ("--short" not in arguments or one.short)]  # fmt: skip
    start = time.monotonic()
    escaped = run(chosen, processes=1 if "--one" in arguments else 2)
    print(f"{len(chosen)} mutants in {time.monotonic() - start:.0f} s, escaped: {escaped or 'none'}")
    return bool(escaped)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
