"""Calibration: the noise, the steps or the sampling rate that a wanted epsilon allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dpkit.accountants.base import Accountant, checked_delta
from dpkit.accountants.pld import PLD
from dpkit.mechanisms import Gaussian, Ledger, Neighbours, PoissonSampling, Refused
from dpkit.mechanisms.gaussian import gaussian_profile

_CLOSE = 0.005
"""How far below its target a calibrated epsilon may lie, as a share."""
_ENDLESS = 10**12
"""More steps than anybody takes."""


def solve_scale(
    price: Callable[[float], float],
    target: float,
    *,
    start: float = 1.0,
    low: float = 1e-4,
    high: float = 1e6,
    close: float = _CLOSE,
    power: float = 1.3,
) -> float:
    """A scale of the noise whose price is at most `target`, and within `close` of it.

    `price` falls as the scale grows. Guarantee: price(result) <= target.
    Secant steps in logarithms, which follow the power law that prices nearly obey: the first
    step takes `power` for it.
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
        following = _next(known, aim, power)
        if following is None or not math.log(low) <= following <= math.log(high):
            break
        x = following
    return _give_up(known, target, low, high)


def _next(known: list[tuple[float, float]], aim: float, power: float) -> float | None:
    """The next log scale: secant through the nearest two, kept inside the bracket."""
    above = [point for point in known if point[1] > aim]
    below = [point for point in known if point[1] <= aim]
    near = sorted((p for p in known if math.isfinite(p[1])), key=lambda p: abs(p[1] - aim))[:2]
    x = math.nan
    if len(near) == 2 and near[0][1] != near[1][1]:
        slope = (near[0][1] - near[1][1]) / (near[0][0] - near[1][0])
        x = near[0][0] + (aim - near[0][1]) / slope if slope < 0 else math.nan
    elif len(near) == 1:
        x = near[0][0] + max(min((near[0][1] - aim) / power, 3.0), -3.0)
    if not above or not below:
        edge = max(known)[0] + 1.5 if not below else min(known)[0] - 1.5
        inside = x > max(known)[0] if not below else x < min(known)[0]
        bounded = x - max(known)[0] < 5 if not below else min(known)[0] - x < 5
        return x if inside and bounded else edge
    left, right = max(above)[0], min(below)[0]
    if right - left < 1e-13:
        return None
    share = (x - left) / (right - left)
    return x if 1e-6 < share < 1 - 1e-6 and len(known) % 5 else 0.5 * (left + right)


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


def _bound(accountant: Accountant | None) -> Accountant:
    """The accountant to calibrate with, PLD by default; an estimate sets no budget."""
    accountant = accountant or PLD()
    if not accountant.is_bound:
        raise Refused(
            f"{accountant.name} gives an estimate, not a bound, and sets no budget; calibrate "
            "with PLD() or RDP()."
        )
    return accountant


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
    accountant = _bound(accountant)
    sampling = PoissonSampling(sample_rate)

    law = _Law.of(epsilon, delta, relation)
    size = sampling.sample_rate * math.sqrt(max(steps, 1))

    def sigma(scale: float) -> float:
        return 1 / math.sqrt(math.log1p(1 / min(scale * size, 1e150) ** 2))

    def price(scale: float) -> float:
        pair = Gaussian(sigma(scale)).pair(relation, sampling)
        return accountant.epsilon(Ledger(((pair, steps),), relation), delta)

    return sigma(solve_scale(price, epsilon, start=1 / law.mu, high=1e9, power=law.power))


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
    accountant = _bound(accountant)
    pair = Gaussian(noise_multiplier).pair(relation, PoissonSampling(sample_rate))
    law = _Law.of(epsilon, delta, relation)
    if noise_multiplier == 0:
        return 0
    start = min(max((law.mu / (sample_rate * _spread(noise_multiplier))) ** 2, 1.0), 1e6)

    def prices(counts: list[int]) -> list[float]:
        return accountant.curve((pair,), np.array(counts)[:, None], delta).tolist()

    return _last_that_fits(prices, epsilon, round(start), 2 / law.power)


def _last_that_fits(
    prices: Callable[[list[int]], list[float]], target: float, start: int, power: float
) -> int:
    """The most steps whose price is at most `target`: a fan of points about each secant's root.

    A fan costs little more than a point; the narrower it grows, the closer the next root.
    """
    low, high, known, at = 0, _ENDLESS, [], [start]
    for turn in range(200):
        for steps, value in zip(at, prices(at), strict=True):
            low = max(low, steps) if value <= target else low
            high = min(high, steps) if value > target else high
            if 0 < value < math.inf:
                known.append((math.log(steps), math.log(value)))
        if high - low <= 1:
            return low
        known.sort(key=lambda point: abs(point[1] - math.log(target)))
        root = math.exp(min(_root(known, math.log(target), power), 28.0))
        width = (0.02, 5e-4, 2e-6)[min(turn, 2)]
        fan = {round(root * (1 + width * k)) + k for k in (-1, 0, 1)}
        if turn > 2:
            fan.add((low + high) // 2 if high < _ENDLESS else 4 * low)
        at = sorted(min(max(steps, low + 1), high - 1) for steps in fan)
        at = sorted(set(at))
    return low


def _root(known: list[tuple[float, float]], aim: float, power: float) -> float:
    """Where the line through the two nearest points, of logarithms, meets the aim."""
    if not known:
        return 0.0
    x, y = known[0]
    for other_x, other_y in known[1:]:
        if (other_x - x) * (other_y - y) > 0:
            power = (other_x - x) / (other_y - y)
            break
    return max(x + min(max((aim - y) * power, -7.0), 7.0), 0.0)


class _Law(NamedTuple):
    """What the central limit expects: the mu of a target, and how epsilon grows with mu there."""

    mu: float
    power: float

    @classmethod
    def of(cls, epsilon: float, delta: float, relation: Neighbours) -> _Law:
        """epsilon = mu^2 / 2 + mu sqrt(2 log 1/delta) is above it, and a look at others mends that.

        The power is that of this law and a tenth: sampled noise outgrows its limit.
        """
        wide = math.sqrt(-2 * math.log(delta))
        least = math.sqrt(wide**2 + 2 * epsilon) - wide
        mus = least * np.geomspace(1.0, 3.0, 33)
        mu = float(np.interp(delta, gaussian_profile(mus, epsilon), mus))
        power = 1.1 * (mu + wide) / (mu / 2 + wide)
        return cls(mu / (2 if relation is Neighbours.REPLACE_ONE else 1), power)


def _spread(sigma: float) -> float:
    """mu of one step of all records, in the limit of many: sqrt(e^(1/s^2) - 1)."""
    return math.sqrt(math.expm1(min(1 / max(sigma, 1e-9) ** 2, 600.0)))


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
    accountant = _bound(accountant)

    law = _Law.of(epsilon, delta, relation)
    size = _spread(noise_multiplier) * math.sqrt(max(steps, 1))

    def rate(scale: float) -> float:
        return min(1 / (scale * size), 1.0)

    def price(scale: float) -> float:
        pair = Gaussian(noise_multiplier).pair(relation, PoissonSampling(rate(scale)))
        return accountant.epsilon(Ledger(((pair, steps),), relation), delta)

    least = 1 / size
    if price(least) <= epsilon:
        return 1.0
    start = max(1 / law.mu, least)
    low, high = min(least, 1e-4), max(1e12 * least, 1e12)
    return rate(solve_scale(price, epsilon, start=start, low=low, high=high, power=law.power))
