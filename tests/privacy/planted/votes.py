"""Faults of votes: what the published code of DataLens gets wrong, and what others would."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

import dpkit as dp
from dpkit.methods.topagg import TopAggStepper
from dpkit.votes import ballot, running
from dpkit.votes.plan import VotePlan
from dpkit.votes.shards import Shards
from dpkit.votes.teachers import Teachers
from tests.privacy.planted.mutant import mutant, put


def _charge(stack, sigma):
    put(stack, VotePlan, "charged", property(lambda self: dp.Gaussian(sigma(self))))


@mutant("vote sensitivity sqrt(k)", "one vote counted, not one for another", "v", True)
def _(stack):
    _charge(stack, lambda plan: plan.noise / plan.bound / plan.copies)


@mutant("argmax bound on a vector", "GNMax's sqrt(2) for a vote of k coordinates", "v")
def _(stack):
    _charge(stack, lambda plan: plan.noise / math.sqrt(2) / plan.copies)


@mutant("overlapping teachers", "1,056 MNIST images sit in two: a class that runs out", "v", True)
def _(stack):
    original = Shards.of

    def of(self, record):
        teachers, rank = original(self, record)
        return tuple({*teachers, (teachers[0] + 1) % self.teachers}), rank

    put(stack, Shards, "of", of)


@mutant("copies of a record charged once", "an overlap that is known and not paid for", "v")
def _(stack):
    _charge(stack, lambda plan: plan.noise / plan.bound / 2)


@mutant("shards by row", "array_split: a record that leaves moves all that follow", "v")
def _(stack):
    def filled(self, ids, num_examples):
        rows, room = np.arange(len(list(ids))), self.room(num_examples)
        shards = np.full((self.teachers, room), -1, dtype=np.int64)
        for teacher, some in enumerate(np.array_split(rows, self.teachers)):
            shards[teacher, : len(some[:room])] = some[:room]
        return shards

    put(stack, Shards, "filled", filled)


@mutant("a shard's room from its records", "padded to the fullest shard, which is private", "v")
def _(stack):
    original = Shards.filled

    def filled(self, ids, num_examples):
        shards = original(self, ids, num_examples)
        return shards[:, : (shards >= 0).sum(1).max()]

    put(stack, Shards, "filled", filled)


@mutant("raw votes saved", "the sums before the noise, kept beside the images", "v", True)
def _(stack):
    original = running._Run._event

    def event(self, step, peek, labels, images, noisy, ways, painter):
        return original(self, step, peek, labels, images, peek.sums, ways, painter)

    put(stack, running._Run, "_event", event)


@mutant("direction from the raw votes", "the threshold before the noise", "v")
def _(stack):
    original = running._Run._counted

    def counted(self, gradients):
        sums, peek = original(self, gradients)
        put_aside.append(sums)
        return sums, peek

    put_aside = []
    put(stack, running._Run, "_counted", counted)
    put(stack, running, "direction",
        lambda noisy, level: ballot.direction(put_aside[-1], level))  # fmt: skip


@mutant("noise on the voted coordinates alone", "sparse noise: silence tells the support", "v")
def _(stack):
    original = running._Run._released

    def released(self, total):
        silent = total == 0
        return original(self, total).masked_fill(silent, 0.0)

    put(stack, running._Run, "_released", released)


@mutant("one charge for B images", "a generator step charged as one aggregation", "v")
def _(stack):
    put(stack, VotePlan, "entries", lambda self, steps=1: [(self.charged, steps)])


@mutant("a step beyond the budget of votes", "the check comes after the update", "v")
def _(stack):
    original = VotePlan.steps.fget
    put(stack, VotePlan, "steps", property(lambda self: original(self) + 1))


@mutant("votes charged after their noise", "a crash between the two is free", "v")
def _(stack):
    original = running._Run._event
    charge = running.Spend.charge

    def event(self, *rest):
        charge(self.spend, self.plan.entries())
        return original(self, *rest)

    class Later(running.Spend):
        def charge(self, entries):
            """Nothing yet."""

    put(stack, running, "Spend", Later)
    put(stack, running._Run, "_event", event)


@mutant("a teacher that is not finite votes", "a NaN in one record makes a sum NaN", "v")
def _(stack):
    def votes(gradients, top_k, stochastic=None, chance=None):
        places = gradients.abs().nan_to_num(0.0).topk(top_k, dim=-1).indices
        kept = torch.zeros_like(gradients).scatter_(-1, places, 1.0)
        return gradients / gradients.abs() * kept

    put(stack, running, "votes", votes)


@mutant("votes with sizes", "the gradient itself is sent, whose norm nobody bounds", "v")
def _(stack):
    def votes(gradients, top_k, stochastic=None, chance=None):
        return gradients * ballot.votes(gradients, top_k).abs()

    put(stack, running, "votes", votes)


@mutant("teachers compared with each other", "gradients scaled by the mean over teachers", "v")
def _(stack):
    original = Teachers.gradients

    def gradients(self, *rest):
        found = original(self, *rest)
        return found - found.nan_to_num(0.0).mean(0)

    put(stack, Teachers, "gradients", gradients)


@mutant("the same noise for each image", "one draw, added to all B sums", "v")
def _(stack):
    original = dp.Gaussian.draw

    def draw(self, total, norm, generator):
        with torch.random.fork_rng(devices=[]):
            return original(self, total, norm, torch.Generator().manual_seed(4))

    put(stack, dp.Gaussian, "draw", draw)


@mutant("noise of votes short by sqrt(k)", "sigma in votes taken for a multiplier of one", "v")
def _(stack):
    put(stack, VotePlan, "bound", property(lambda self: 1.0))


@mutant("noise on the kept coordinates alone", "a sparse gradient gets sparse noise", "ab", True)
def _(stack):
    summed, thinned = TopAggStepper._clipped, TopAggStepper.denoised

    def clipped(self, batch, bound):
        found = summed(self, batch, bound)
        self.kept_by_somebody = found.total != 0
        return found

    def denoised(self, noisy, release, bound):
        return thinned(self, noisy.mul_(self.kept_by_somebody), release, bound)

    put(stack, TopAggStepper, "_clipped", clipped)
    put(stack, TopAggStepper, "denoised", denoised)


@mutant("scaled by what was kept", "the mean norm of top-k gradients, which nobody paid for", "a")
def _(stack):
    original = TopAggStepper._clipped

    def clipped(self, batch, bound):
        found = original(self, batch, bound)
        mean = found.norms.mean() if len(found.norms) else found.total.new_ones(())
        return replace(found, total=found.total * (1 + mean))

    put(stack, TopAggStepper, "_clipped", clipped)
