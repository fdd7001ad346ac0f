"""The tight accountant: the whole privacy loss distribution, by the surest path that is open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from dpkit.accountants import closed, composition, contour, rdp, sandwich, schedule
from dpkit.accountants.base import (
    Bounds,
    CurveAccountant,
    canonical,
    checked_counts,
    checked_delta,
    checked_epsilon,
    one_row,
)
from dpkit.accountants.distribution import LossDistribution, histogram
from dpkit.accountants.gathering import MOST, gathered
from dpkit.mechanisms import EpsilonDelta, Gaussian, Ledger, Mechanism, SubsampledGaussian

_APART = 1e-5
"""What rounding may part the contour from the sandwich by, as a share of epsilon."""
_BRACKETED = 64
"""Up to so many different mechanisms the two sides of a bracket are composed as they are."""
_CLOSED = 1e-12
"""Relative rounding of the closed forms, which their bounds allow for."""

_NOTHING = EpsilonDelta(0.0, 0.0)
"""The lower side of what is not known from below."""


@dataclass(frozen=True)
class PLD(CurveAccountant):
    """Exact composition: closed form, contour, sandwich, RDP, in this order of trust and need.

    Guarantee:
    - the maximum over the two directions is taken after composing (Lebeda et al. 2024);
    - a schedule of more than a thousand noises is priced from above, as blends of a few noises or
      with its noise rounded down; a row of its curve may differ from one asked alone by as much;
    - where neither closed form nor contour answers, epsilon is the upper side of a bracket.
    """

    name: ClassVar[str] = "PLD"

    def curve(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """All rows at once, each bit for bit as if asked alone."""
        delta = checked_delta(delta)
        counts = checked_counts(mechanisms, counts)
        if len(mechanisms) > MOST:
            return self._long(tuple(mechanisms), counts, delta)
        return self._exact(mechanisms, counts, delta)

    def _long(
        self, mechanisms: tuple[Mechanism, ...], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """Blends of noises; where they do not answer, noise rounded down."""
        out = schedule.epsilons(mechanisms, counts, delta)
        rows = np.flatnonzero(np.isnan(out))
        if len(rows):
            used = np.flatnonzero(counts[rows].sum(axis=0))
            kept = tuple(mechanisms[column] for column in used)
            out[rows] = self._exact(*gathered(kept, counts[rows][:, used]), delta)
        return out

    def _exact(
        self, mechanisms: Sequence[Mechanism], counts: np.ndarray, delta: float
    ) -> np.ndarray:
        """Every mechanism as it is."""
        order = canonical(mechanisms)
        mechanisms, counts = tuple(mechanisms[i] for i in order), counts[:, order]
        out = closed.epsilons(mechanisms, counts, delta)
        rows = np.flatnonzero(np.isnan(out))
        out[rows] = _contour(mechanisms, counts[rows], delta)
        rows = np.flatnonzero(np.isnan(out))
        if len(rows):
            out[rows[closed.nothing(mechanisms, counts[rows], delta)]] = 0.0
        for row in np.flatnonzero(np.isnan(out)):
            kept = tuple(m for m, count in zip(mechanisms, counts[row], strict=True) if count)
            out[row] = _upper(kept, tuple(counts[row][counts[row] > 0].tolist()), delta)[0]
        return out

    def bounds(self, ledger: Ledger, delta: float) -> Bounds:
        """Lower and upper from the sandwich, the estimate from the contour if it answers.

        Where a mechanism is an upper bound itself, the lower side is that of its `below`.
        """
        found = self._bounds(ledger, delta)
        words = "; ".join(sorted({m.band for m in ledger.mechanisms if m.band}))
        if not words:
            return found
        low = min(self.below(ledger, delta), found.estimate)
        return replace(found, lower=low, method=f"{found.method}; {words}")

    def below(self, ledger: Ledger, delta: float) -> float:
        """A lower bound on the true epsilon, from the `below` of every mechanism."""
        delta = checked_delta(delta)
        few = _gathered(ledger, _BRACKETED, up=True)
        entries = [(mechanism.below, count) for mechanism, count in few.entries]
        shown = Ledger.of([entry for entry in entries if entry[0] != _NOTHING], ledger.relation)
        mechanisms, counts = _sorted(shown)
        value = float(closed.epsilons(mechanisms, np.array([counts], dtype=np.int64), delta)[0])
        if not math.isnan(value):
            return value * (1 - _CLOSED)
        return _lower(mechanisms, counts, delta, math.inf)

    def _bounds(self, ledger: Ledger, delta: float) -> Bounds:
        delta = checked_delta(delta)
        if len(ledger.entries) > MOST:
            found = schedule.bracket(ledger.mechanisms, one_row(ledger), delta)
            if found:
                value, method = self.epsilon(ledger, delta), "contour, of blends on both sides"
                return Bounds(found[0], value, found[1], method, ledger.relation)
        up, down = (_gathered(ledger, _BRACKETED, up=side) for side in (True, False))
        if down == ledger:  # few noises, or none that can be gathered
            return self._narrow_bounds(ledger, delta)
        value = self.epsilon(ledger, delta)
        lower = min(self._narrow_bounds(up, delta).lower, value)
        wide = self._narrow_bounds(down, delta)
        method = f"{wide.method}, of a schedule whose noise is rounded both ways"
        return Bounds(lower, value, max(wide.upper, value), method, ledger.relation)

    def _narrow_bounds(self, ledger: Ledger, delta: float) -> Bounds:
        """The bracket of the mechanisms as they are."""
        mechanisms, counts = _sorted(ledger)
        row = np.array([counts], dtype=np.int64)
        value = float(closed.epsilons(mechanisms, row, delta)[0])
        value = 0.0 if closed.nothing(mechanisms, row, delta)[0] else value
        if not math.isnan(value):
            low, high = value * (1 - _CLOSED), value * (1 + _CLOSED)
            return Bounds(low, value, high, "closed form", ledger.relation)
        upper, method = _upper(mechanisms, counts, delta)
        lower = _lower(mechanisms, counts, delta, upper)
        value = float(_contour(mechanisms, row, delta)[0])
        if lower <= value <= upper:
            return Bounds(lower, value, upper, "contour, within a sandwich", ledger.relation)
        if lower * (1 - _APART) <= value <= upper * (1 + _APART):
            # Rounding, once for each of millions of releases: the bracket takes the value in.
            lower, upper = min(lower, value), max(upper, value)
            return Bounds(lower, value, upper, "contour, beside a sandwich", ledger.relation)
        return Bounds(lower, upper, upper, method, ledger.relation)

    def delta(self, ledger: Ledger, epsilon: float) -> float:
        """The tight delta."""
        return float(self.deltas(ledger, np.array([checked_epsilon(epsilon)]))[0])

    def deltas(self, ledger: Ledger, epsilon: Any) -> np.ndarray:
        """delta at each epsilon >= 0, the worse of the two directions.

        Shapes: (E,) -> (E,).
        """
        epsilon = np.asarray(epsilon, dtype=float)
        if len(ledger.entries) > MOST:
            found = schedule.deltas(ledger.mechanisms, one_row(ledger)[0], epsilon)
            if not np.isnan(found).any():
                return found
        mechanisms, counts = _sorted(_gathered(ledger))
        worst = np.zeros(len(epsilon))
        for side in _directions(mechanisms):
            worst = np.maximum(worst, _deltas(side, counts, epsilon))
        return worst

    def tradeoff(self, ledger: Ledger, fpr: Any) -> np.ndarray:
        """The least false negative rate of any attacker, at each false positive rate.

        f(a) = max over eps >= 0 of 1 - delta(eps) - e^eps a and e^-eps (1 - delta'(eps) - a), with
        delta' of the swapped pair; the attacker may swap the hypotheses too. Never above the
        truth, since only some epsilons are tried.
        *Source*: Dong, Roth, Su 2019, proposition 2.12.
        """
        fpr = np.asarray(fpr, dtype=float)
        if np.any(~((fpr >= 0) & (fpr <= 1))):
            raise ValueError("fpr (false positive rate) must lie in [0, 1].")
        mu2, plain = closed.gaussian_mu2(ledger.mechanisms, one_row(ledger))
        if plain[0]:
            return closed.gaussian_tradeoff(math.sqrt(mu2[0]), fpr)
        tops = [self.epsilon(ledger, delta) for delta in (1e-9, 1e-3)]
        top = next((value for value in tops if math.isfinite(value)), 0.0)
        eps = top * np.linspace(0.0, 1.0, 1025) ** 1.5
        mechanisms, counts = _sorted(ledger)
        both = [_deltas(side, counts, eps) for side in _directions(mechanisms)]
        flat = fpr.reshape(-1, 1)
        with np.errstate(over="ignore"):
            one = [(1 - delta - np.exp(eps) * flat).max(axis=1) for delta in both]
            two = [(np.exp(-eps) * (1 - delta - flat)).max(axis=1) for delta in both]
        least = np.minimum(np.maximum(one[0], two[-1]), np.maximum(one[-1], two[0]))
        return np.maximum(least, 0.0).reshape(fpr.shape)

    def advantage(self, ledger: Ledger) -> float:
        """The best attacker's true minus false positive rate: delta at epsilon 0."""
        return self.delta(ledger, 0.0)

    def loss_distribution(
        self, ledger: Ledger, bins: int = 120, backward: bool = False
    ) -> LossDistribution:
        """The composed privacy loss as a histogram, from above and from below."""
        mechanisms, counts = _sorted(ledger)
        side = _directions(mechanisms)[-1] if backward else mechanisms
        return histogram(side, counts, bins)


def _gathered(ledger: Ledger, most: int = MOST, up: bool = False) -> Ledger:
    """The ledger, with fewer different noises if it has more than `most`."""
    if len(ledger.entries) <= most:
        return ledger
    mechanisms, counts = gathered(ledger.mechanisms, one_row(ledger), most, up)
    return Ledger(tuple(zip(mechanisms, counts[0].tolist(), strict=True)), ledger.relation)


def _sorted(ledger: Ledger) -> tuple[tuple[Mechanism, ...], tuple[int, ...]]:
    order = canonical(ledger.mechanisms)
    return tuple(ledger.mechanisms[i] for i in order), tuple(ledger.counts[i] for i in order)


def _directions(mechanisms: tuple[Mechanism, ...]) -> list[tuple[Mechanism, ...]]:
    """The pairs as they are, and swapped if that makes a difference."""
    if all(mechanism.symmetric for mechanism in mechanisms):
        return [mechanisms]
    return [mechanisms, tuple(mechanism.reverse for mechanism in mechanisms)]


def _contour(mechanisms: tuple[Mechanism, ...], counts: np.ndarray, delta: float) -> np.ndarray:
    """Both directions by the contour, cut at 0; NaN where either does not vouch for itself."""
    if not len(counts) or not contour.usable(mechanisms):
        return np.full(len(counts), np.nan)
    worst = None
    for side in _directions(mechanisms):
        values = contour.epsilons(side, counts, delta, worst)
        worst = values if worst is None else np.maximum(worst, values)
    return np.maximum(0.0 if worst is None else worst, 0.0)


def _whole(mechanism: Mechanism) -> Mechanism:
    """A Gaussian for one that is sampled nearly always: its "not seen" is too rare to lay out."""
    inner = getattr(mechanism, "forward", mechanism)
    if isinstance(inner, SubsampledGaussian) and 1.0 - 1e-9 < inner.sample_rate < 1.0:
        return Gaussian(inner.noise_multiplier)
    return mechanism


def _upper(
    mechanisms: tuple[Mechanism, ...], counts: tuple[int, ...], delta: float
) -> tuple[float, str]:
    """An upper bound and its method: the sandwich or, where it is tighter, RDP or adding up."""
    row = np.array([counts], dtype=np.int64)
    mechanisms = tuple(map(_whole, mechanisms))  # costs no less
    found = {
        "sandwich": sandwich.worse(sandwich.upper, _directions(mechanisms), counts, delta),
        "RDP": float(rdp.RDP().curve(mechanisms, row, delta)[0]),
    }
    if composition.at_least(mechanisms, counts, delta) < min(found.values()):
        found["basic composition"] = float(composition.Basic().curve(mechanisms, row, delta)[0])
    method = min(found, key=lambda name: found[name])
    return found[method], method


def _lower(
    mechanisms: tuple[Mechanism, ...], counts: tuple[int, ...], delta: float, upper: float
) -> float:
    """A lower bound from the sandwich."""
    if upper == 0.0:
        return 0.0
    whole = tuple(map(_whole, mechanisms))
    if whole != mechanisms:
        # P >= q P_1 for each release, so delta(eps) >= q^T delta_1(eps - T log q).
        share = 0.0
        for mechanism, one, count in zip(mechanisms, whole, counts, strict=True):
            if mechanism != one:
                inner: Any = getattr(mechanism, "forward", mechanism)
                share += count * math.log(inner.sample_rate)
        delta = delta * math.exp(-share)
        found = _lower(whole, counts, delta, math.inf) + share if delta < 1.0 else 0.0
        return min(max(found, 0.0), upper)
    return min(sandwich.worse(sandwich.lower, _directions(mechanisms), counts, delta, upper), upper)


def _deltas(
    mechanisms: tuple[Mechanism, ...], counts: tuple[int, ...], epsilon: np.ndarray
) -> np.ndarray:
    """One direction's deltas."""
    row = np.array([counts], dtype=np.int64)
    if not counts:
        return np.zeros(len(epsilon))
    if any(getattr(mechanism, "noise_multiplier", 1.0) == 0 for mechanism in mechanisms):
        return np.ones(len(epsilon))
    if sum(counts) == 1:
        return mechanisms[0].profile(epsilon)
    mu2, plain = closed.gaussian_mu2(mechanisms, row)
    if plain[0]:
        return closed.gaussian_profile(math.sqrt(mu2[0]), epsilon)
    out = np.full(len(epsilon), np.nan)
    finite = np.isfinite(epsilon)
    if contour.usable(mechanisms):
        out[~finite] = 0.0
        out[finite] = contour.deltas(mechanisms, row[0], epsilon[finite])
    rest = np.isnan(out)
    if rest.any():
        above = _log_deltas(mechanisms, counts, epsilon[rest])
        out[rest] = sandwich.deltas(mechanisms, counts, epsilon[rest], above)
    return out


def _log_deltas(
    mechanisms: tuple[Mechanism, ...], counts: tuple[int, ...], epsilon: np.ndarray
) -> np.ndarray:
    """A bound on the log delta of one direction, by moments; those of a leader serve for both."""
    above = rdp.log_deltas(mechanisms, counts, epsilon)
    turned = tuple(mechanism.reverse for mechanism in mechanisms)
    if turned != mechanisms and all(mechanism.leads for mechanism in turned):
        above = np.minimum(above, rdp.log_deltas(turned, counts, epsilon))
    return above
