"""Faults of accounting: the ledger is right and its epsilon is wrong."""

from __future__ import annotations

import math

import numpy as np

import dpkit as dp
from dpkit.accountants import calibration, rdp
from dpkit.mechanisms import FixedSizeSampling, PoissonSampling, subsampled
from tests.privacy.planted.mutant import mutant, put


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

    def pair(self, relation, sampling=None):
        return original(self, dp.Neighbours.ADD_REMOVE, sampling)

    put(stack, dp.Gaussian, "pair", pair)


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

    def over_a(self, alpha):
        return original(self, alpha) * (np.asarray(alpha) - 1) / np.asarray(alpha)

    put(stack, dp.Mechanism, "rdp", over_a)


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

    def log_moment(self, z):
        off = subsampled.SubsampledGaussian(self.sample_rate, 1.03 * self.noise_multiplier)
        return original(off, z)

    put(stack, subsampled.SubsampledGaussian, "log_moment", log_moment)
    rdp.log_moments.cache_clear()


@mutant("calibration overshoots", "a bisection that returns its cheap side", "e")
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
