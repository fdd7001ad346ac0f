"""Faults of the noise: too little, too regular, too well known."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack

import torch

import dpkit as dp
from dpkit import noise, training
from dpkit.methods.dpsgd import DPSGDStepper
from dpkit.noise import Noise
from tests.privacy.planted.mutant import mutant, put


def redrawn(stack: ExitStack, change) -> None:
    """Gaussian.draw with its noise changed: change(noise, mechanism, norm, total) -> noise."""
    original = dp.Gaussian.draw

    def draw(self, total, norm, generator):
        exact = total.double()
        noise = original(self, exact.clone(), norm, generator) - exact
        return (exact + change(noise, self, norm, total)).type_as(total)

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


@mutant("same noise each step", "a random key used twice", "b")
def _(stack):
    original = dp.Gaussian.draw

    def draw(self, total, norm, generator):
        return original(self, total, norm, Noise(5))

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


@mutant("a secret of 32 bits", "torch keeps 32 bits of a CPU generator's seed", "b")
def _(stack):
    few = lambda: noise.SeededWords(int.from_bytes(os.urandom(4)))  # noqa: E731
    put(stack, noise, "_secret_words", few)


@mutant("no noise on an empty batch", "the noise is skipped with the sum that it belongs to", "b")
def _(stack):
    redrawn(stack, lambda z, m, c, t: z * bool(t.any()))
