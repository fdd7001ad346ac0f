"""Calibration: the noise, the steps or the sampling rate that a wanted epsilon allows."""

from __future__ import annotations

import math
from collections.abc import Callable

from dpkit.accountants.base import Accountant, checked_delta
from dpkit.accountants.pld import PLD
from dpkit.mechanisms import Gaussian, Ledger, Neighbours, PoissonSampling, Refused

_CLOSE = 0.005
"""How far below its target a calibrated epsilon may lie, as a share."""


def solve_scale(
    price: Callable[[float], float],
    target: float,
    *,
    start: float = 1.0,
    low: float = 1e-4,
    high: float = 1e6,
    close: float = _CLOSE,
) -> float:
    """A scale of the noise whose price is at most `target`, and within `close` of it.

    `price` falls as the scale grows. Guarantee: price(result) <= target.
    Secant steps in logarithms, which follow the power law that prices nearly obey.
    """
    checked_target(target)
    aim = math.log(target * (1 - close / 3))
    known: list[tuple[float, float]] = []  # (log scale, log price), by log scale
    x = math.log(start)
    for _ in range(80):
        value = price(math.exp(x))
        if target * (1 - close) <= value <= target:
            return math.exp(x)
        known.append((x, math.log(value) if value > 0 else -math.inf))
        known.sort()
        following = _next(known, aim)
        if following is None or not math.log(low) <= following <= math.log(high):
            break
        x = following
    return _give_up(known, target, low, high)


def _next(known: list[tuple[float, float]], aim: float) -> float | None:
    """The next log scale: secant through the nearest two, kept inside the bracket."""
    above = [point for point in known if point[1] > aim]
    below = [point for point in known if point[1] <= aim]
    near = sorted((p for p in known if math.isfinite(p[1])), key=lambda p: abs(p[1] - aim))[:2]
    x = math.nan
    if len(near) == 2 and near[0][1] != near[1][1]:
        slope = (near[0][1] - near[1][1]) / (near[0][0] - near[1][0])
        x = near[0][0] + (aim - near[0][1]) / slope if slope < 0 else math.nan
    elif len(near) == 1:
        x = near[0][0] + max(min((near[0][1] - aim) / 1.3, 3.0), -3.0)
    if not above or not below:
        edge = max(known)[0] + 1.5 if not below else min(known)[0] - 1.5
        inside = x > max(known)[0] if not below else x < min(known)[0]
        bounded = x - max(known)[0] < 5 if not below else min(known)[0] - x < 5
        return x if inside and bounded else edge
    left, right = max(above)[0], min(below)[0]
    if right - left < 1e-13:
        return None
    share = (x - left) / (right - left)
    return x if 0.02 < share < 0.98 and len(known) % 4 else 0.5 * (left + right)


def _give_up(known: list[tuple[float, float]], target: float, low: float, high: float) -> float:
    """The least scale seen that keeps the target, or a refusal."""
    kept = [x for x, value in known if value <= math.log(target)]
    if not kept:
        raise Refused(
            f"No noise up to {high:g} brings epsilon down to {target:g}; allow a larger epsilon "
            "or delta, fewer steps or a smaller sample rate."
        )
    return math.exp(min(kept))


def checked_target(target: float) -> float:
    """A target epsilon in (0, infinity), or one sentence."""
    if not (isinstance(target, int | float) and 0 < target < math.inf):
        raise ValueError(
            f"epsilon (the privacy loss to reach) must lie in (0, infinity), got {target!r}."
        )
    return float(target)


def noise_for_epsilon(
    epsilon: float,
    *,
    delta: float,
    sample_rate: float,
    steps: int,
    relation: Neighbours = Neighbours.ADD_REMOVE,
    accountant: Accountant | None = None,
) -> float:
    """The least noise multiplier (within 0.5% of the target epsilon) for Poisson batches."""
    checked_delta(delta)
    accountant = accountant or PLD()
    sampling = PoissonSampling(sample_rate)

    def price(sigma: float) -> float:
        pair = Gaussian(sigma).pair(relation, sampling)
        return accountant.epsilon(Ledger(((pair, steps),), relation), delta)

    return solve_scale(price, epsilon)


def steps_for_epsilon(
    epsilon: float,
    *,
    delta: float,
    sample_rate: float,
    noise_multiplier: float,
    relation: Neighbours = Neighbours.ADD_REMOVE,
    accountant: Accountant | None = None,
) -> int:
    """The most steps whose epsilon stays at or below the target."""
    checked_target(epsilon)
    checked_delta(delta)
    accountant = accountant or PLD()
    pair = Gaussian(noise_multiplier).pair(relation, PoissonSampling(sample_rate))

    def fits(steps: int) -> bool:
        return accountant.epsilon(Ledger(((pair, steps),), relation), delta) <= epsilon

    low, high = 0, 1
    while fits(high):
        low, high = high, high * 4
        if high > 10**12:
            return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def sample_rate_for_epsilon(
    epsilon: float,
    *,
    delta: float,
    noise_multiplier: float,
    steps: int,
    relation: Neighbours = Neighbours.ADD_REMOVE,
    accountant: Accountant | None = None,
) -> float:
    """The largest Poisson rate (within 0.5% of the target epsilon)."""
    checked_target(epsilon)
    checked_delta(delta)
    accountant = accountant or PLD()

    def price(inverse: float) -> float:
        pair = Gaussian(noise_multiplier).pair(relation, PoissonSampling(1 / inverse))
        return accountant.epsilon(Ledger(((pair, steps),), relation), delta)

    if price(1.0) <= epsilon:
        return 1.0
    return 1 / solve_scale(price, epsilon, start=100.0, low=1.0, high=1e12)
