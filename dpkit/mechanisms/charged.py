"""What an earlier run was charged, as it enters the plan of a later one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dpkit.mechanisms.base import Mechanism, Neighbours, Refused, Sampling


@dataclass(frozen=True)
class Charged(Mechanism):
    """A cost that stands already, sampling included, for one relation and no other.

    `Ledger.releases` makes these, for the `before` of the plan that goes on with the same records.
    """

    mechanism: Mechanism
    relation: Neighbours

    def profile(self, epsilon: Any) -> np.ndarray:
        """That of the cost."""
        return self.mechanism.profile(epsilon)

    @property
    def symmetric(self) -> bool:
        """As the cost."""
        return self.mechanism.symmetric

    def pair(self, relation: Neighbours, sampling: Sampling | None = None) -> Mechanism:
        """The cost itself, for the relation that it was charged for."""
        if relation is self.relation and sampling is None:
            return self.mechanism
        raise Refused(
            f"An earlier run that was charged for neighbours that {self.relation.value} adds to a "
            f"plan for those alone, got {relation.value}: give both plans one relation, as by "
            f"relation=Neighbours.{relation.name}."
        )
