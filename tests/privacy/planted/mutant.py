"""What a mutant is: a small fault, each after a bug that really happened, planted at run time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from unittest.mock import patch

from dpkit.samplers import Poisson


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


def drawing(stack: ExitStack, batches) -> None:
    """Let Poisson draw its batches otherwise."""
    put(stack, Poisson, "batches", batches)
