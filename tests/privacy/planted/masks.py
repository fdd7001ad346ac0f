"""Faults of masks: what is frozen moves, or the private records choose what is."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from dpkit.gradients.linear import LinearKernel
from dpkit.methods.averaging import Average
from dpkit.methods.dpsgd import DPSGDStepper
from dpkit.methods.masking import MaskedUpdater, Masking
from dpkit.methods.masks import Magnitude, Random
from tests.privacy.planted.mutant import mutant, put


@mutant("mask after the clip", "gradients clipped whole, then pruned: norms of what is dropped",
        "m")  # fmt: skip
def _(stack):
    def clipped(self, batch, bound):
        whole = self.engine.clipped_sum(*batch, bound)
        return whole if self._support is None else replace(
            whole, total=whole.total[self._support.index]
        )  # fmt: skip

    put(stack, DPSGDStepper, "_clipped", clipped)


@mutant("noise on frozen weights", "noise of the whole vector, and no weight restored", "mb")
def _(stack):
    original = MaskedUpdater.move

    def move(self, total, divisor, learning_rate):
        std = float(total.std())
        original(self, total, divisor, learning_rate)
        off = ~self.support.mask
        noise = torch.randn(int(off.sum())).to(self._parameters)
        self._parameters[off] -= learning_rate * std / divisor * noise

    put(stack, MaskedUpdater, "move", move)


@mutant("momentum of frozen weights", "the gradient is masked, the velocity is not", "m")
def _(stack):
    def move(self, total, divisor, learning_rate):
        if not hasattr(self, "whole"):
            held = type("Held", (), {"parameters": self._parameters})
            self.whole = self._rule.start(held)
        gradient = torch.zeros_like(self._parameters)
        gradient[self.support.index] = total
        self.whole.move(gradient, divisor, learning_rate)

    put(stack, MaskedUpdater, "move", move)


@mutant("frozen weights decay", "weight decay applied to all parameters", "m")
def _(stack):
    original = MaskedUpdater.move

    def move(self, total, divisor, learning_rate):
        original(self, total, divisor, learning_rate)
        decay = getattr(self._rule, "weight_decay", 0.0)
        self._parameters[~self.support.mask] *= 1 - learning_rate * decay

    put(stack, MaskedUpdater, "move", move)


@mutant("the average of frozen weights moves", "averaged over all, in steps that touch some", "m")
def _(stack):
    put(stack, Average, "touched", property(lambda self: None, lambda self, index: None))


@mutant("mask from private gradients", "prune by the largest gradients of the batch", "ma", True)
def _(stack):
    original, held = DPSGDStepper.step, {}

    def step(self, number, batch, *rest):
        if self._masking is not None:
            held["private"] = self.engine.clipped_sum(*batch, math.inf).total.abs()
        return original(self, number, batch, *rest)

    def scores(self, step, weights, gradient):
        return held["private"]

    put(stack, DPSGDStepper, "step", step)
    for criterion in (Random, Magnitude):
        put(stack, criterion, "scores", scores)


@mutant("private records for public ones", "the public batch drawn from the training set", "ma")
def _(stack):
    original = DPSGDStepper.prepare

    def prepare(self, inputs, targets, classes):
        original(self, inputs, targets, classes)
        if self._masking is not None:
            self._masking._public = inputs, targets

    put(stack, DPSGDStepper, "prepare", prepare)
    put(stack, DPSGDStepper, "learn", lambda self, inputs, targets: None)


@mutant("scaled norm for the noise alone", "noise for C sqrt(|S|/D), records clipped to C", "ma")
def _(stack):
    original = DPSGDStepper._clipped

    def clipped(self, batch, bound):
        scaled = self._masking is not None and self._masking.mask.scaled_norm
        return original(self, batch, bound / self._support.share**0.5 if scaled else bound)

    put(stack, DPSGDStepper, "_clipped", clipped)


@mutant("biases left out of a masked norm", "the norm over masked matrices alone", "ma")
def _(stack):
    original = LinearKernel.work

    def work(self, kept, grad, mask):
        made = original(self, kept, grad, mask)
        if mask is not None and grad.ndim == 2 and self.bias is not None:
            made.squares = made.squares - grad.square() @ mask.part(self.bias).ones(grad)
        return made

    put(stack, LinearKernel, "work", work)


@mutant("a resumed run ranks anew", "the pruning mask made again from the moved weights", "k")
def _(stack):
    put(stack, Masking, "restore", lambda self, state: None)
