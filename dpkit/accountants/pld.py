"""The tight accountant: the whole privacy loss distribution, by the surest path that is open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dpkit.accountants import closed, contour, rdp
from dpkit.accountants.base import (
    Accountant,
    canonical,
    checked_counts,
    checked_delta,
    checked_epsilon,
)
from dpkit.mechanisms import Ledger, Mechanism


@dataclass(frozen=True)
class PLD(Accountant):
    """Exact composition: closed form, contour, sandwich, RDP, in this order of trust."""

    name: ClassVar[str] = "PLD"

    def epsilon(self, ledger: Ledger, delta: float) -> float:
        """The tight epsilon, as one row of `curve`."""
        counts = np.array([ledger.counts], dtype=np.int64).reshape(1, -1)
        return float(self.curve(ledger.mechanisms, counts, delta)[0])

    def curve(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """All rows at once, each bit for bit as if asked alone."""
        delta = checked_delta(delta)
        counts = checked_counts(mechanisms, counts)
        order = canonical(mechanisms)
        mechanisms, counts = tuple(mechanisms[i] for i in order), counts[:, order]
        out = closed.epsilons(mechanisms, counts, delta)
        rows = np.flatnonzero(np.isnan(out))
        if len(rows) and contour.usable(mechanisms):
            worst = contour.epsilons(mechanisms, counts[rows], delta)
            back = tuple(mechanism.reverse for mechanism in mechanisms)
            if back != mechanisms:
                worst = np.maximum(worst, contour.epsilons(back, counts[rows], delta))
            out[rows] = np.maximum(worst, 0.0)
        rows = np.flatnonzero(np.isnan(out))
        if len(rows):
            out[rows] = rdp.RDP().curve(mechanisms, counts[rows], delta)
        return out

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The tight delta."""
        epsilon = checked_epsilon(epsilon)
        raise NotImplementedError
