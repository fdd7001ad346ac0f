"""The explorer's words: what knobs are called, and what to know before runs are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpkit.figures.sweeps import Cloud
from dpkit.sweeping import Record
from dpkit.words import marked, say

LABELS = marked({
    "method.noise_multiplier": "noise σ", "method.max_grad_norm": "clip norm C",
    "method.learning_rate": "learning rate η", "method.momentum": "momentum",
    "sampler.sample_rate": "sample rate q", "sampler.steps": "steps T", "delta": "δ",
    "method.mask.ratio": "pruning ratio", "method.top_k": "kept k",
})  # fmt: skip


def label(name: str) -> str:
    """A knob as its readers call it."""
    return say(LABELS.get(name, name))


def labels() -> dict[str, str]:
    """All of them by the knobs' dotted paths."""
    return {name: label(name) for name in LABELS}


def text_of(value: Any) -> str:
    """A knob's value in a list."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def named(name: str, value: Any) -> str:
    """A knob's value where it stands alone: a number needs the knob's name beside it."""
    return value if isinstance(value, str) else f"{label(name)} {text_of(value)}"


def unlike(cloud: Cloud) -> str:
    """What to know, and to do, before runs of different promises are compared; or nothing."""
    told = cloud.unlike(labels())
    return told and f"**{told}** " + say("Choose one of them by *Show only where*.")


def unshown(records: Sequence[Record], shown: int) -> str:
    """How many finished runs are no dots, and why; empty if all are."""
    done = [record for record in records if record.state == "finished"]
    untested = sum(record.accuracy is None for record in done)
    told = []
    if endless := len(done) - untested - shown:
        told.append(say("{number:,} of infinite ε, which promise nothing", number=endless))
    if untested:
        told.append(say("{number:,} without a test accuracy", number=untested))
    return say("Finished runs not shown: {reasons}.", reasons=", ".join(told)) if told else ""
