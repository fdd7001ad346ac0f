"""Records as files or generators hold them, and the fixed rule that turns them into inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Scaling:
    """The fixed map from stored values to inputs: (stored / full - centre) / spread.

    *Guarantee*
    - The three numbers stand in the source code and are never computed from the records that are
      loaded: a mean taken of private records would be a release that nobody accounts for.
    """

    full: float = 1.0
    centre: float = 0.0
    spread: float = 1.0

    def apply(self, stored: Array) -> NDArray[np.float32]:
        """The inputs: one float32 copy, changed in place, so that the peak is that one copy."""
        inputs = np.divide(stored, np.float32(self.full), dtype=np.float32)
        if self.centre:
            inputs -= np.float32(self.centre)
        if self.spread != 1.0:
            inputs /= np.float32(self.spread)
        return inputs

    def shown(self, inputs: Array) -> Array:
        """The way back, for the eye: values in [0, 1] where the stored ones were in [0, full]."""
        return inputs * np.float32(self.spread) + np.float32(self.centre)


@dataclass(frozen=True)
class Raw:
    """A whole set before any choice among its records.

    `note` says in words what a reader of results must know of the records.

    *Shapes*: inputs (N, ...) of any number type, targets (N,); the test split likewise.
    """

    name: str
    inputs: Array
    targets: Array
    test_inputs: Array
    test_targets: Array
    classes: tuple[str, ...]
    scaling: Scaling = Scaling()
    note: str = ""
