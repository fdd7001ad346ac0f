"""From an attacker's errors to a lower bound on epsilon that holds with a stated confidence."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy.special import ndtri
from scipy.stats import beta

from dpkit.mechanisms.gaussian import gaussian_profile


class Errors(NamedTuple):
    """How often an attacker was wrong, and in how many tries on either side."""

    false_positives: int
    absent: int
    false_negatives: int
    present: int

    def __add__(self, other: object) -> Errors:
        """Both together."""
        if not isinstance(other, Errors):
            return NotImplemented
        return Errors(*(a + b for a, b in zip(self, other, strict=True)))


def upper_limit(wrong: int, tries: int, tail: float) -> float:
    """The largest error rate that `wrong` of `tries` leaves plausible (Clopper and Pearson 1934).

    It is exceeded by the true rate with a chance of at most `tail`.
    """
    return 1.0 if wrong >= tries else float(beta.isf(tail, wrong + 1, tries - wrong))


def gaussian_mu(errors: Errors, tail: float) -> float:
    """A lower bound on mu: PhiInv(1 - FPR) - PhiInv(FNR) with both rates at their upper limits.

    Holds for any release that claims to be mu-GDP. *Source*: Dong, Roth, Su 2019, corollary 2.13.
    """
    fpr = upper_limit(errors.false_positives, errors.absent, tail)
    fnr = upper_limit(errors.false_negatives, errors.present, tail)
    return max(float(ndtri(1 - fpr) - ndtri(fnr)), 0.0)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The exact epsilon of a mu-GDP release."""
    if not mu > 0 or float(gaussian_profile(mu, 0.0)) <= delta:
        return 0.0
    top = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1.0
    return float(optimize.brentq(lambda e: float(gaussian_profile(mu, e)) - delta, 0.0, top))


def any_epsilon(errors: Errors, delta: float, tail: float) -> float:
    """A lower bound on epsilon from one threshold, whatever the mechanism.

    *Source*: Kairouz, Oh, Viswanath 2015: FNR >= 1 - delta - e^eps FPR, and the same mirrored.
    """
    fpr = upper_limit(errors.false_positives, errors.absent, tail)
    fnr = upper_limit(errors.false_negatives, errors.present, tail)
    found = [0.0]
    for one, other in ((fpr, fnr), (fnr, fpr)):
        if 1 - delta - other > 0:
            found.append(math.log((1 - delta - other) / one))
    return max(found)


def best_threshold(present: np.ndarray, absent: np.ndarray, delta: float, tries: int) -> float:
    """The score at which an attacker expects the largest bound from `tries` on either side.

    From scores of simulated, public laws: it must be fixed before the audited run is looked at.
    """
    scores = np.quantile(np.concatenate([present, absent]), 1 - np.geomspace(0.99, 5e-4, 400))
    wrong = 1 - np.searchsorted(np.sort(absent), scores, side="right") / len(absent)
    missed = np.searchsorted(np.sort(present), scores, side="right") / len(present)
    found = [
        any_epsilon(Errors(round(a * tries), tries, round(b * tries), tries), delta, 0.0005)
        for a, b in zip(wrong, missed, strict=True)
    ]
    return float(scores[int(np.argmax(found))]) if max(found) > 0 else float(np.median(scores))
