"""Faults between processes, planted in each process of `tests/two_ranks.py`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from unittest.mock import patch

from dpkit import training
from dpkit.mechanisms import Gaussian
from dpkit.ranks import Ranks
from tests.privacy.planted.mutant import mutant, put

PLANT = "DPKIT_PLANT"
FAULTS = {}


def between(name: str, bug: str):
    """Register a fault that processes started from here plant in themselves."""

    def add(plant):
        FAULTS[name] = plant
        told = patch.dict(os.environ, {PLANT: name})
        mutant(name, bug, "r")(lambda stack: stack.enter_context(told))
        return plant

    return add


def planted(stack: ExitStack) -> None:
    """Plant here what the environment names, if anything."""
    if PLANT in os.environ:
        FAULTS[os.environ[PLANT]](stack)


@between("a share of the noise", "noise divided among ranks, of which one alone adds it")
def _(stack):
    original = Gaussian.draw

    def draw(self, total, norm, generator):
        return original(self, total, norm / Ranks.current().size, generator)

    put(stack, Gaussian, "draw", draw)


@between("noise after the sum is shared", "the other ranks train on what has no noise")
def _(stack):
    draw, share = Gaussian.draw, Ranks.sum_
    later = []

    def kept(self, total, norm, generator):
        later.append((self, norm, generator))
        return total

    def sum_(self, partial):
        partial = share(self, partial)
        for mechanism, norm, generator in later:
            draw(mechanism, partial, norm, generator)
        later.clear()
        return partial

    put(stack, Gaussian, "draw", kept)
    put(stack, Ranks, "sum_", sum_)


@between("each rank samples for itself", "a record in the slices of two ranks counts twice")
def _(stack):
    put(stack, training._Run, "join", lambda self, ranks: setattr(self, "ranks", ranks))


@between("every rank takes the whole batch", "a DataLoader without a DistributedSampler")
def _(stack):
    put(stack, Ranks, "own", lambda self, batch: batch)
