"""Faults of batching: one scheme is drawn or charged in the place of another."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

import dpkit as dp
from dpkit.mechanisms import Gaussian, ShuffledGaussian
from dpkit.samplers import balls_in_bins, disjoint, poisson, shuffle
from dpkit.schedules import at
from tests.privacy.planted.mutant import mutant, put


def _as_poisson(sampler, rate):
    return dp.Poisson(rate, sampler.steps)


@mutant("Shuffle charged as Poisson", "Opacus, TF Privacy: the Poisson epsilon of a shuffle", "df")
def _(stack):
    def charge(self, group, relation):
        return _as_poisson(self, 1 / self.batches_per_epoch).charge(group, relation)

    put(stack, dp.Shuffle, "charge", charge)


@mutant("FixedSize charged with the Poisson pair", "a published accountant for subsets", "d", True)
def _(stack):
    def charge(self, group, relation):
        return _as_poisson(self, self.sample_rate).charge(group, relation)

    put(stack, dp.FixedSize, "charge", charge)


@mutant("Shuffle keeps its first order", "a sampler that shuffles when it is made", "d")
def _(stack):
    def batches(self, num_examples, rng):
        parts = disjoint.parts(rng.permutation(num_examples), self.batches_per_epoch)
        return (part for _ in range(self.epochs) for part in parts)

    put(stack, dp.Shuffle, "batches", batches)


@mutant("balls thrown once", "the same bins every epoch, charged as fresh ones", "d")
def _(stack):
    def batches(self, num_examples, rng):
        thrown = balls_in_bins._thrown(self, num_examples, rng)
        return (part for _ in range(self.epochs) for part in thrown)

    put(stack, dp.BallsInBins, "batches", batches)


@mutant("BallsInBins shuffles", "equal batches look tidier", "d")
def _(stack):
    put(stack, dp.BallsInBins, "batches", dp.Shuffle.batches)


@mutant("truncation uncharged", "batches of a static shape at the Poisson price", "df")
def _(stack):
    put(stack, dp.TruncatedPoisson, "charge",
        lambda self, group, relation: self._poisson.charge(group, relation))  # fmt: skip


@mutant("FixedSize rounds its rate", "q = 1 / int(N / L)", "df")
def _(stack):
    put(stack, dp.FixedSize, "sample_rate",
        property(lambda self: 1 / round(self.num_examples / self.batch_size)))  # fmt: skip


@mutant("an epoch charged at its last noise", "last sigma for all", "df")
def _(stack):
    def worst(group, sampler):
        return group[-1][0].mechanism

    put(stack, shuffle, "worst", worst)


@mutant("a shuffled record replaced with C", "sensitivity C where two records differ by 2C", "df")
def _(stack):
    put(stack, ShuffledGaussian, "gaussian",
        property(lambda self: Gaussian(self.noise_multiplier)))  # fmt: skip


@mutant("one epoch for all", "parallel composition over epochs as well", "f")
def _(stack):
    original, seen = dp.Shuffle.charge, []

    def charge(self, group, relation):
        seen.append(1)
        return original(self, group, relation) if len(seen) % 2 else []

    put(stack, dp.Shuffle, "charge", charge)


@mutant("overlapping shards", "teachers that share records", "d")
def _(stack):
    def batches(self, num_examples, rng):
        size = num_examples // self.shards
        shards = [np.sort(rng.permutation(num_examples)[:size]) for _ in range(self.shards)]
        return (shard for _ in range(self.epochs) for shard in shards)

    put(stack, dp.Partition, "batches", batches)


def _growing_charged(stack, one):
    """Draw every step at its own rate, and charge all of them by one."""

    def at_step(self, step):
        rates = [at(self.sample_rate, t) for t in range(self.steps)]
        return replace(self, sample_rate=one(rates)) if self.varies else self

    def batches(self, num_examples, rng):
        for step in range(self.steps):
            yield poisson._included(num_examples, at(self.sample_rate, step), rng)

    put(stack, dp.Poisson, "at_step", at_step)
    put(stack, dp.Poisson, "batches", batches)


@mutant("growing batches charged at the mean rate", "q = mean batch / N, as a config has it", "df")
def _(stack):
    _growing_charged(stack, lambda rates: math.fsum(rates) / len(rates))


@mutant("falling batches charged at the last rate", "last rate for all", "df")
def _(stack):
    _growing_charged(stack, lambda rates: rates[-1])


@mutant("growing batches charged at the first rate", "q was read when the run began", "df")
def _(stack):
    _growing_charged(stack, lambda rates: rates[0])


@mutant("growing batches divided by the first", "no leak, but steps that grow with the batch", "b")
def _(stack):
    put(stack, dp.Sampler, "expected_batches",
        lambda self, num_examples: self.at_step(0).expected_batch(num_examples))  # fmt: skip
