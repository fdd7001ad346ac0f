"""False alarms: the statistical tests again under other seeds, with nothing planted.

`python -m tests.privacy.mutants --seeds 200` runs them; every failure is a false alarm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from dpkit import noise
from tests.privacy.planted.mutant import put

STATISTICAL = {
    "b": "(DPSGD0 or DPSGD3 or own_law or secure) and not (depend or 32)",
    "c": "DPSGD0 or 93",
    "d": "fingerprint or drawn or rounded",
    "f": "measured and (DPSGD0 or DPSGD2 or DPSGD3)",
}
"""Of each letter the tests whose verdict hangs on random numbers."""


@contextlib.contextmanager
def moved(by: int) -> Iterator[None]:
    """Let every seed that a test or a run names stand for another one."""
    original, words = np.random.SeedSequence, noise.SeededWords
    generator = np.random.default_rng

    class Moved(original):
        """A sequence from the seed and the move; what is spawned from it follows."""

        def __init__(self, entropy=None, **options):
            whole = isinstance(entropy, int | np.integer) and not options
            super().__init__([int(entropy), by] if whole else entropy, **options)

    def default_rng(seed=None):
        return generator(Moved(seed) if isinstance(seed, int | np.integer) else seed)

    class MovedWords(words):
        """Words from another seed, which decides them as well."""

        def __init__(self, seed):
            super().__init__(int(original([seed, by]).generate_state(1, np.uint64)[0]))

    with ExitStack() as stack:
        put(stack, np.random, "SeedSequence", Moved)
        put(stack, np.random, "default_rng", default_rng)
        put(stack, noise, "SeededWords", MovedWords)
        yield
