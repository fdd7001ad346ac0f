"""The catalogue of planted faults; importing it registers them all."""

from tests.privacy.planted import (
    accounting,
    activations,
    batching,
    budgets,
    checkpoints,
    clipping,
    ledger,
    noise,
    ranks,
    steps,
)
from tests.privacy.planted.mutant import MUTANTS, Mutant

__all__ = [
    "MUTANTS", "Mutant", "accounting", "activations", "batching", "budgets", "checkpoints",
    "clipping", "ledger", "noise", "ranks", "steps",
]  # fmt: skip
