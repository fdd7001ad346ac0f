"""A privacy loss laid on a grid from above, given its profile alone; moments read off it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_NODES = 8192  # points of the uneven grid that moments are read from


class Masses(NamedTuple):
    """Probability under P of the losses `origin + step * (first + i)`, and of an infinite loss."""

    origin: float
    first: int
    step: float
    mass: np.ndarray
    infinite: float

    @property
    def losses(self) -> np.ndarray:
        """The grid's losses."""
        return self.origin + self.step * np.arange(self.first, self.first + len(self.mass))


class Points(NamedTuple):
    """Points of a profile, each as what is small there.

    Left of the point `kink` a value is delta(eps) - total (1 - e^eps), from the kink on it is
    delta(eps); `at_kink` is the value at the kink as the left side counts. A total below 1 leaves
    out atoms that are kept elsewhere.
    """

    epsilon: np.ndarray
    values: np.ndarray
    kink: int
    at_kink: float
    total: float = 1.0


def points(mechanism: Any, epsilon: np.ndarray, kink: int) -> Points:
    """A profile on rising epsilons: 1 - e^eps is taken off exactly, as the reverse profile's."""
    right = np.asarray(mechanism.profile(epsilon[kink:]), dtype=float)
    # delta(eps) = 1 - e^eps + e^eps delta_reverse(-eps)
    left = np.asarray(mechanism.reverse_profile(-epsilon[: kink + 1]), dtype=float)
    left = left * np.exp(epsilon[: kink + 1])
    return Points(epsilon, np.concatenate([left[:-1], right]), kink, float(left[-1]))


def masses(of: Points) -> np.ndarray:
    """Masses under P of the profile that joins the points by lines in u = e^eps.

    A mass is u times the change of slope; left of the first point the line starts at (0, total).
    """
    epsilon, values, kink = of.epsilon, of.values, of.kink
    run, grow = np.diff(values), np.expm1(np.minimum(np.diff(epsilon), 700.0))
    if kink:
        run[kink - 1] = of.at_kink - values[kink - 1]
    mass = np.append(run / grow, 0.0)
    mass -= np.append(values[0] if kink else of.at_kink, run * (1.0 + 1.0 / grow))
    mass[kink] += of.total * np.exp(epsilon[kink])
    return mass


def above(mechanism: Any, step: float, low: int, high: int) -> Masses:
    """Masses whose profile joins the true one's grid points by lines in e^eps: never below it.

    *Source*: connect the dots, Doroshenko et al. 2022.
    """
    origin = origin_of(mechanism)
    of = points(mechanism, origin + step * np.arange(-low, high + 1), low)
    return Masses(origin, -low, step, masses(of), float(of.values[-1]))


def origin_of(mechanism: Any) -> float:
    """The loss that grids are built around: where probability piles up, else 0."""
    return float(mechanism.anchors[0]) if mechanism.anchors else 0.0


def log_moment(mechanism: Any, z: np.ndarray) -> np.ndarray:
    """log E_P[e^(z L)] from above, for real z > 0 or z < -1; infinite where the tail is unknown."""
    if np.iscomplexobj(z):
        raise TypeError(f"{type(mechanism).__name__} gives moments of real order only.")
    flat = np.atleast_1d(z).astype(float).ravel()
    out = np.zeros(len(flat))
    for pick, sign in ((flat > 0, 1.0), (flat < -1, -1.0)):
        if pick.any():
            ahead, back = mechanism.profile, mechanism.reverse_profile
            side = _Side(ahead, back) if sign > 0 else _Side(back, ahead)
            out[pick] = _moments(side, flat[pick] if sign > 0 else -1.0 - flat[pick])
    return out.reshape(np.shape(z))


class _Side(NamedTuple):
    """A direction, as two profiles."""

    profile: Callable[[np.ndarray], np.ndarray]
    reverse_profile: Callable[[np.ndarray], np.ndarray]


def _moments(side: _Side, orders: np.ndarray) -> np.ndarray:
    """Moments of the masses from above on a grid that is fine about 0 and reaches far out."""
    ahead, back = reach(side.profile, 1e-290), reach(side.reverse_profile, 1e-290)
    if not np.isfinite(ahead + back):
        return np.full(len(orders), np.inf)
    core = max(float(side.profile(np.zeros(1))[0]), 1e-12 * (ahead + back), 1e-300)
    wide = [np.arcsinh(back / core), np.arcsinh(ahead / core)]
    left = int(np.clip(_NODES * wide[0] / sum(wide), 16, _NODES - 16))
    epsilon = core * np.append(
        -np.sinh(np.linspace(wide[0], 0.0, left + 1)[:-1]),
        np.sinh(np.linspace(0.0, wide[1], _NODES - left + 1)),
    )
    of = points(side, epsilon, left)
    mass, infinite = np.maximum(masses(of), 0.0), float(of.values[-1])
    if infinite > 1e-280:
        return np.full(len(orders), np.inf)
    with np.errstate(divide="ignore"):
        log_mass = np.log(mass)
    return np.array([_moment(order, epsilon, mass, log_mass, infinite) for order in orders])


def _moment(
    order: float, epsilon: np.ndarray, mass: np.ndarray, log_mass: np.ndarray, infinite: float
) -> float:
    exponent = order * epsilon
    log_term = exponent + log_mass
    top = float(log_term.max())
    if infinite > 0.0 and float(log_term[-8:].max()) > top - 30.0:
        return np.inf
    if top < 1.0:
        growth = np.sum(mass * np.expm1(np.minimum(exponent, 500.0)))
        return float(np.log1p(max(growth, 0.0)))
    return top + float(np.log(np.sum(np.exp(log_term - top))))


def reach(profile: Callable[[np.ndarray], np.ndarray], tail: float) -> float:
    """The least eps at which a falling profile is below a tail, or level at its last value."""
    eps = np.concatenate([[0.0], np.geomspace(1e-12, 1e12, 97)])
    for _ in range(3):
        values = profile(eps)
        index = int(np.argmax(values <= max(float(values[-1]), tail)))
        if index == 0:
            return float(eps[1]) if eps[0] == 0 else float(eps[0])
        eps = np.linspace(eps[index - 1], eps[index], 33)
    return float(eps[-1]) if eps[-1] < 1e12 else float("inf")
