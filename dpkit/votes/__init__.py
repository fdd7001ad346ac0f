"""Votes: a private generator, moved by what teachers on disjoint shards agree on (DataLens)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dpkit.votes.plan import VotePlan
from dpkit.votes.shards import Shards

if TYPE_CHECKING:
    from dpkit.votes.generator import Generator
    from dpkit.votes.running import VotePeek, VoteStep, generate
    from dpkit.votes.teachers import Discriminator

_HOME_OF = {
    "Discriminator": "teachers",
    "Generator": "generator",
    "VotePeek": "running",
    "VoteStep": "running",
    "generate": "running",
}
__all__ = [
    "Discriminator", "Generator", "Shards", "VotePeek", "VotePlan", "VoteStep", "generate",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import when they are used what the plan does not need: torch."""
    if name not in _HOME_OF:
        raise AttributeError(f"dpkit.votes has no name {name!r}.")
    return getattr(importlib.import_module(f"dpkit.votes.{_HOME_OF[name]}"), name)
