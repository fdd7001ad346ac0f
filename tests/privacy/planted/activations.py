"""Faults of private activations: a bound, a charge, a cache or a label that is not what is said."""

from __future__ import annotations

import torch

import dpkit as dp
from dpkit.methods import activation, cached
from dpkit.methods.cached import NeuralDPStepper
from dpkit.methods.neuraldp import NeuralDP
from tests.privacy.planted.mutant import mutant, put


@mutant("batch-wise activation clip", "the norm of the whole batch is bounded, no row's", "n", True)
def _(stack):
    original = activation.bounded

    def bounded(rows, max_norm, normalises):
        norms = original(rows, max_norm, normalises)[1]
        whole = torch.nan_to_num(rows).norm()
        return torch.nan_to_num(rows) * (max_norm / whole.clamp_min(max_norm)), norms

    put(stack, activation, "bounded", bounded)


@mutant("entries of an activation clamped", "each entry to C, the norm to C sqrt(d)", "n")
def _(stack):
    original = activation.bounded

    def bounded(rows, max_norm, normalises):
        return torch.nan_to_num(rows).clamp(-max_norm, max_norm), original(rows, max_norm, True)[1]

    put(stack, activation, "bounded", bounded)


@mutant("an activation that is not finite passes", "NaN over NaN is no row of norm C", "n")
def _(stack):
    def bounded(rows, max_norm, normalises):
        norms = rows.norm(dim=1, keepdim=True)
        return rows * (max_norm / norms.clamp_min(max_norm)), norms.squeeze(1)

    put(stack, activation, "bounded", bounded)


@mutant("activations centred at their own mean", "a private mean, which nobody pays for", "n")
def _(stack):
    original = NeuralDPStepper._bounded

    def centred(self, inputs):
        rows, norms = original(self, inputs)
        return (rows - rows.mean(0)) / 2, norms

    put(stack, NeuralDPStepper, "_bounded", centred)


@mutant(
    "one charge for all epochs", "the activation is noised afresh each epoch and paid once", "n"
)
def _(stack):
    original = NeuralDP.releases

    def releases(self, step, history=()):
        found = original(self, step, history)
        return found if not step else tuple(dp.Release(r.mechanism, 0, r.access) for r in found)

    put(stack, NeuralDP, "releases", releases)


@mutant("a cache that is drawn again", "each step's batch passes the noisy layer afresh", "n")
def _(stack):
    original = NeuralDPStepper.step

    def step(self, number, batch, releases, generator):
        due = releases or self.method.releases(0)[:1]
        return original(self, number, batch, due, generator)

    put(stack, NeuralDPStepper, "step", step)


@mutant("a lost cache drawn again", "resume releases a second time what was paid for once", "n")
def _(stack):
    original = NeuralDPStepper.step

    def step(self, number, batch, releases, generator):
        due = releases or (() if "rows" in self._kept else self.method.releases(0))
        return original(self, number, batch, due, generator)

    put(stack, NeuralDPStepper, "step", step)


@mutant("activations that sampling amplifies", "Knolle's batches are credited with rate q", "n")
def _(stack):
    original = NeuralDP.releases

    def releases(self, step, history=()):
        return tuple(dp.Release(r.mechanism) for r in original(self, step, history))

    put(stack, NeuralDP, "releases", releases)


@mutant("replaced activations charged with C", "a replaced row moves by 2C, not by C", "n")
def _(stack):
    original = dp.Gaussian.pair

    def pair(self, relation, sampling=None):
        found = original(self, relation, sampling)
        return self if sampling is None else found

    put(stack, dp.Gaussian, "pair", pair)


@mutant("a trainable layer before the activation", "the update of g holds the raw records", "n")
def _(stack):
    original = cached.split

    def split(model):
        flags = [(p, p.requires_grad) for p in model[0].parameters()]
        model[0].requires_grad_(False)
        parts = original(model)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        return parts

    put(stack, cached, "split", split)


@mutant("statistics of records before the noise", "a batch norm at or before the activation", "n")
def _(stack):
    put(stack, cached, "check_modules", lambda model: None)
    put(stack, cached, "check_records_apart", lambda *a: None)
    put(stack, cached, "check_nothing_remembered", lambda *a: None)


@mutant("raw labels where answers are promised", "randomised once, then trained on the truth", "n")
def _(stack):
    original = NeuralDPStepper._release

    def release(self, rows, targets, releases, generator):
        original(self, rows, targets, releases, generator)
        self._kept["labels"] = targets

    put(stack, NeuralDPStepper, "_release", release)


@mutant("labels answered again each epoch", "the mean of many answers is the label", "n")
def _(stack):
    original = NeuralDPStepper._release

    def release(self, rows, targets, releases, generator):
        if self.method.labels and len(releases) == 1:
            releases = (*releases, dp.Release(self.method.labels))
        original(self, rows, targets, releases, generator)

    put(stack, NeuralDPStepper, "_release", release)


@mutant("one noise for all rows", "a vector of noise that is broadcast: differences are bare", "n")
def _(stack):
    original = dp.Gaussian.draw

    def draw(self, total, norm, generator):
        if total.dim() < 2:
            return original(self, total, norm, generator)
        return total + original(self, torch.zeros_like(total[0]), norm, generator)

    put(stack, dp.Gaussian, "draw", draw)


@mutant("activations bounded without their scale", "noise of sigma where sigma C is charged", "n")
def _(stack):
    original = dp.Gaussian.draw

    def draw(self, total, norm, generator):
        return original(self, total, 1.0 if total.dim() > 1 else norm, generator)

    put(stack, dp.Gaussian, "draw", draw)


@mutant("a head that looks at the records again", "a skip connection around the noisy layer", "n")
def _(stack):
    original = NeuralDPStepper.step

    def step(self, number, batch, releases, generator):
        peek = original(self, number, batch, releases, generator)
        clean = self._bounded(batch.everyone[0])[0]
        self.parameters.add_(1e-3 * clean.mean())
        return peek

    put(stack, NeuralDPStepper, "step", step)
