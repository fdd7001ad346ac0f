"""The catalogue of planted faults; importing it registers them all."""

from tests.privacy.planted import (
    accounting,
    activations,
    batching,
    budgets,
    checkpoints,
    clipping,
    ledger,
    masks,
    noise,
    ranks,
    steps,
    votes,
)
from tests.privacy.planted.mutant import MUTANTS, Mutant

__all__ = [
    "MUTANTS", "Mutant", "accounting", "activations", "batching", "budgets", "checkpoints",
    "clipping", "ledger", "masks", "noise", "ranks", "steps", "votes",
]  # fmt: skip
