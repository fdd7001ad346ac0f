"""The best of a random number of runs: what it costs to release that one alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpkit.accountants.base import checked_delta
from dpkit.accountants.rdp import ORDERS, composed, directions, to_epsilon
from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import Ledger, Refused


@dataclass(frozen=True)
class BestOfRandom:
    """A protocol: draw a number K, make K runs, release the best of them and nothing else.

    K has a truncated negative binomial law: with `shape` 1 the geometric one, P(K = k) =
    gamma (1 - gamma)^(k - 1), with 0 the logarithmic one. Each run draws its plan anew, with equal
    chances, from a list that was fixed beforehand.

    *Guarantee*
    - an upper bound on epsilon of releasing the best run, if "best" is judged by what the runs
      release, by public records, or by a noisy score that is charged in the ledgers;
    - it is nothing where an exact look at private records judges, and nothing for those who look
      at more than one run, or who choose their number: they pay for all.

    *Source*: Papernot and Steinke 2022, "Hyperparameter tuning with Renyi differential privacy",
    theorem 2.
    """

    gamma: float = knob(0.05, "γ", "parameter of the number of runs", 0, 1, open_low=True)
    shape: float = knob(1.0, "η", "shape of the number of runs, 1: geometric", 0, 100)

    def __post_init__(self) -> None:
        """Check both parameters."""
        check_knobs(self)

    @classmethod
    def expecting(cls, runs: float) -> BestOfRandom:
        """The geometric law with that mean."""
        if not runs >= 1 or math.isinf(runs):
            raise ValueError(
                f"runs (E[K], expected number of runs) must lie in [1, infinity), got {runs!r}."
            )
        return cls(1 / runs)

    @property
    def expected_runs(self) -> float:
        """The mean of K."""
        gamma, eta = self.gamma, self.shape
        if gamma == 1:
            return 1.0
        if eta == 0:
            return (1 / gamma - 1) / math.log(1 / gamma)
        return eta * (1 - gamma) / (gamma * -math.expm1(eta * math.log(gamma)))

    def draw(self, rng: np.random.Generator) -> int:
        """A number of runs; it may be large, and every run has to be made."""
        if self.gamma == 1:
            return 1
        if self.shape == 0:
            return int(rng.logseries(1 - self.gamma))
        from scipy import stats  # half a second, for those who draw

        some = -math.expm1(self.shape * math.log(self.gamma))  # P(K > 0) before truncation
        return max(1, int(stats.nbinom.isf(some * rng.random(), self.shape, self.gamma)))

    def epsilon(self, ledgers: Sequence[Ledger], delta: float) -> float:
        """Epsilon of the best of K runs, each by one of the plans with these ledgers."""
        delta, ledgers = checked_delta(delta), tuple(ledgers)
        if not ledgers:
            raise ValueError("ledgers must hold the price of at least one plan, got none.")
        relations = {ledger.relation for ledger in ledgers}
        if len(relations) > 1:
            raise Refused(
                f"All plans must have one neighbouring relation, got "
                f"{', '.join(sorted(r.name for r in relations))}; choose plans of one kind."
            )
        worst = np.zeros(len(ORDERS))
        for ledger in ledgers:
            counts = np.array([ledger.counts], dtype=np.int64).reshape(1, -1)
            for backward in directions(ledger.mechanisms):
                worst = np.maximum(worst, composed(ledger.mechanisms, counts, backward)[0])
        return float(to_epsilon(self._log_moments(worst)[None, :], delta)[0])

    def _log_moments(self, single: np.ndarray) -> np.ndarray:
        """(lambda - 1) times theorem 2 at every order, with the best second order."""
        a, eta = ORDERS, self.shape
        with np.errstate(invalid="ignore", over="ignore"):
            renyi = single / (a - 1)
            second = (1 + eta) * ((1 - 1 / a) * renyi + math.log(1 / self.gamma) / a)
            return (a - 1) * (renyi + np.nanmin(second)) + math.log(self.expected_runs)
