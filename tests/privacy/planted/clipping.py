"""Faults of clipping: what one record adds is bounded wrongly, or not at all."""

from __future__ import annotations

import math
from contextlib import ExitStack

import torch

from dpkit.gradients import Engine, attention, embedding, linear, tape
from dpkit.gradients import clipping as clips
from dpkit.gradients.support import as_support
from tests.privacy.planted.mutant import mutant, put


def by_rows(stack: ExitStack, change) -> None:
    """Replace the clip by a change of per-example gradients: change(engine, rows, C) -> rows."""

    def clipped_sum(self, inputs, targets, max_grad_norm, mask=None):
        def transform(rows):
            rows = rows if mask is None else rows * as_support(mask, self.size).mask
            return change(self, rows, max_grad_norm)

        return self.transformed_sum(inputs, targets, transform, math.inf)

    put(stack, Engine, "clipped_sum", clipped_sum)


def scaled(rows, norms, bound):
    return rows * (bound / norms.clamp_min(1e-30)).clamp_max(1.0)[:, None]


@mutant(
    "clip the mean", "clip_grad_norm_ on the batch; TF privacy with one microbatch", "acg", True
)
def _(stack):
    by_rows(stack, lambda e, rows, c: rows * min(1.0, c / max(float(rows.mean(0).norm()), 1e-30)))


@mutant("per-tensor clip with one C", "each layer clipped to C, noise for one C", "ag")
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


@mutant("norm without biases", "the norm over part of the parameters", "ag")
def _(stack):
    def change(engine, rows, c):
        square = sum(rows[:, place].square().sum(1)
                     for name, place in engine.slices.items() if "bias" not in name)  # fmt: skip
        return scaled(rows, square.sqrt(), c)

    by_rows(stack, change)


@mutant("C from the median norm", "adaptive clipping whose median nobody paid for", "ag")
def _(stack):
    by_rows(
        stack, lambda e, rows, c: scaled(rows, rows.norm(dim=1), float(rows.norm(dim=1).median()))
    )


@mutant("normalise across records", "gradients scaled by the batch's mean norm", "ag")
def _(stack):
    def change(engine, rows, c):
        norms = rows.norm(dim=1)
        return (
            scaled(rows, norms, c) * (norms.mean() / norms.clamp_min(1e-30)).clamp(0.5, 2)[:, None]
        )

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


@mutant("norm by products of pairs", "a Gram norm cancels, and the rest passes unclipped", "a")
def _(stack):
    def made(self, kernel, tokens, grad):
        self.weight, self.tokens, self.grad, self.size = kernel.weight, tokens, grad, kernel.size
        different = tokens[:, :, None] != tokens[:, None, :]
        gram = torch.bmm(grad, grad.transpose(1, 2)).masked_fill_(different, 0.0)
        self.squares = gram.flatten(1).sum(1).clamp_min_(0.0)

    put(stack, embedding.Lookups, "__init__", made)


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


@mutant("a projection that is not in the norm", "nn.MultiheadAttention hides it from hooks", "ag")
def _(stack):
    original = attention.InProjection.work

    def work(self, kept, grad, mask):
        found = original(self, kept, grad, mask)
        found.squares = found.squares * 0
        return found

    put(stack, attention.InProjection, "work", work)


@mutant("each view clipped on its own", "augmentation multiplicity: K views, K times C", "ag", True)
def _(stack):
    transformed = Engine.transformed_sum

    def each(self, inputs, targets, transform, max_grad_norm, views=None):
        if views is not None:
            inputs, targets = views.of(inputs), targets.repeat_interleave(views.count, 0)
        return transformed(self, inputs, targets, transform, max_grad_norm)

    put(stack, Engine, "transformed_sum", each)
