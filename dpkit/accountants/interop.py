"""The door to Google's dp_accounting: a ledger as one of its events."""

from __future__ import annotations

import math
from typing import Any

from dpkit.mechanisms import (
    EpsilonDelta,
    Gaussian,
    Laplace,
    Ledger,
    Mechanism,
    Neighbours,
    RandomisedResponse,
    Refused,
    Subsampled,
    SubsampledGaussian,
    UpperSide,
)


def to_dp_event(ledger: Ledger) -> Any:
    """The same releases as a `dp_accounting.DpEvent`, for its accountants with ADD_OR_REMOVE_ONE.

    Guarantee: every count is kept, randomised response as so many single events: its PLD
    accountant (0.6.0) forgets their count, and asks for REPLACE_ONE. Needs dp_accounting.
    """
    try:
        import dp_accounting
    except ImportError:
        raise ImportError("to_dp_event needs dp_accounting: pip install dp-accounting.") from None
    if ledger.relation is Neighbours.REPLACE_ONE and _sampled(ledger):
        raise Refused(
            "dp_accounting's event for sampled replace-one neighbours means another pair than "
            "dpkit's; hand over a ledger of neighbours that add or remove one record."
        )
    builder = dp_accounting.DpEventBuilder()
    for charged, count in ledger.entries:
        mechanism = charged.mechanism if isinstance(charged, UpperSide) else charged
        event = _event(dp_accounting, mechanism)
        if isinstance(mechanism, RandomisedResponse):
            event, count = dp_accounting.ComposedDpEvent([event] * count), 1
        builder.compose(event, count)
    return builder.build()


def _sampled(ledger: Ledger) -> bool:
    plain = (Gaussian, Laplace, EpsilonDelta, RandomisedResponse)
    sides = [m.mechanism if isinstance(m, UpperSide) else m for m in ledger.mechanisms]
    return any(not isinstance(side, plain) for side in sides)


def _event(dp: Any, mechanism: Mechanism) -> Any:
    if isinstance(mechanism, Gaussian):
        return dp.GaussianDpEvent(mechanism.noise_multiplier)
    if isinstance(mechanism, Laplace):
        return dp.LaplaceDpEvent(mechanism.noise_multiplier)
    if isinstance(mechanism, RandomisedResponse):
        keep = mechanism.keep
        noise = 1 - keep * -math.expm1(-mechanism.epsilon)
        return dp.RandomizedResponseDpEvent(noise, mechanism.k)
    if isinstance(mechanism, SubsampledGaussian):
        inner = dp.GaussianDpEvent(mechanism.noise_multiplier)
        return dp.PoissonSampledDpEvent(mechanism.sample_rate, inner)
    if isinstance(mechanism, Subsampled):
        inner = _event(dp, mechanism.mechanism)
        return dp.PoissonSampledDpEvent(mechanism.sample_rate, inner)
    raise Refused(
        f"dp_accounting has no event for {type(mechanism).__name__}; it has one for Gaussian, "
        "Laplace and randomised response, and for the first two under Poisson sampling."
    )
