"""Votes: a private generator, moved by what teachers on disjoint shards agree on (DataLens)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dpkit.votes.plan import VotePlan
from dpkit.votes.shards import Shards

if TYPE_CHECKING:
    from dpkit.votes.basis import stroke_basis
    from dpkit.votes.evaluating import ClassMeans, Judge, deformed, frechet
    from dpkit.votes.generator import Generator
    from dpkit.votes.running import VotePeek, VoteStep, generate
    from dpkit.votes.teachers import Discriminator

_HOME_OF = {
    "ClassMeans": "evaluating",
    "Discriminator": "teachers",
    "Generator": "generator",
    "Judge": "evaluating",
    "VotePeek": "running",
    "VoteStep": "running",
    "deformed": "evaluating",
    "frechet": "evaluating",
    "generate": "running",
    "stroke_basis": "basis",
}
__all__ = [
    "ClassMeans", "Discriminator", "Generator", "Judge", "Shards", "VotePeek", "VotePlan",
    "VoteStep", "deformed", "frechet", "generate", "stroke_basis",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import when they are used what the plan does not need: torch."""
    if name not in _HOME_OF:
        raise AttributeError(f"dpkit.votes has no name {name!r}.")
    return getattr(importlib.import_module(f"dpkit.votes.{_HOME_OF[name]}"), name)
