"""Moments of the sampled Gaussian's privacy loss, by a trapezoid rule that converges fast."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from dpkit.later import special

_EDGE = 8.8  # standard deviations beyond which a Gaussian holds less than 1e-18
_WIDE = math.sqrt(80.0)  # where e^(d^2/2 - 2 pi d/h) is best made less than e^-40
_FINE = 0.8  # share of the largest node distance that the analysis allows
_MOST, _FAR = 6_000, 60.0  # nodes, and standard deviations, that no order of use exceeds;
# an order beyond them is answered by infinity, which is still a bound


class Nodes(NamedTuple):
    """Losses at the nodes, and the logarithm of each one's probability under P and under Q."""

    loss: np.ndarray
    log_p: np.ndarray
    log_q: np.ndarray


def poisson(rate: float, sigma: float, z: np.ndarray) -> np.ndarray:
    """log E_P[(dP/dQ)^z] for P = (1-q) N(0, s^2) + q N(1, s^2), Q = N(0, s^2)."""
    if sigma**2 == 0:
        return np.where(z * (1 + z) == 0, 0.0, np.inf)
    if rate == 1.0:
        return z * (1 + z) / (2 * sigma**2)
    return _by_blocks(rate, sigma, z, False)


def poisson_order(rate: np.ndarray, sigma: np.ndarray, z: float) -> np.ndarray:
    """`poisson` at one real z > 0 for many rates below 1 and noises above 0: (n,), (n,) -> (n,).

    Each row has the nodes that it would have alone; rows with as many are summed together.
    """
    order, out = np.array([z]), np.full(len(sigma), np.inf)
    spans = [_span(q, s, order, False) for q, s in zip(rate.tolist(), sigma.tolist(), strict=True)]
    counts = np.array([span[2] if span else 0 for span in spans])
    for count in sorted(set(counts.tolist()) - {0}):
        rows = np.flatnonzero(counts == count)
        for some in np.array_split(rows, -(-len(rows) * count // 200_000)):
            left, step = (np.array([spans[row][side] for row in some]) for side in (0, 1))
            u = left[:, None] + step[:, None] * np.arange(count)
            q, s = rate[some, None], sigma[some, None]
            loss = _log_ratio(q, u / s - 0.5 / s**2)
            base = np.log(step / math.sqrt(2 * math.pi))[:, None] - 0.5 * u * u
            out[some] = _log_sum(z * loss, base + loss)
    return out


def replaced(rate: float, sigma: float, z: np.ndarray) -> np.ndarray:
    """The same for P = (1-q) N(0) + q N(1), Q = (1-q) N(0) + q N(-1)."""
    if sigma**2 == 0:
        return np.where(z * (1 + z) == 0, 0.0, np.inf)
    if rate == 1.0:
        return 4 * z * (1 + z) / (2 * sigma**2)
    return _by_blocks(rate, sigma, z, True)


def _by_blocks(rate: float, sigma: float, z: np.ndarray, both: bool) -> np.ndarray:
    """Real orders of very different size get nodes of their own; the far ones give infinity."""
    flat = z.reshape(-1)
    if flat.dtype.kind == "c":
        groups = [np.arange(len(flat))]
    else:  # orders that stay within a few widths share nodes, larger ones by factors of 8
        size = np.maximum(flat + 1.0, -flat) / (3 * _EDGE * sigma)
        groups = [np.arange(len(flat))]
        if size.max() > 1.0:
            kind = np.ceil(np.log2(np.maximum(size, 1.0)) / 3.0)
            order = size.argsort(kind="stable")
            groups = [order[kind[order] == k] for k in sorted(set(kind.tolist()))]
    out = np.full(flat.shape, np.inf, dtype=flat.dtype)
    for group in groups:
        nodes, kept = _nodes(rate, sigma, flat[group], both), len(group)
        while nodes is None and kept > 1:  # the far half may be what is out of reach
            kept //= 2
            nodes = _nodes(rate, sigma, flat[group[:kept]], both)
        if nodes is not None:
            out[group[:kept]] = _log_mean(nodes, flat[group[:kept]])
        if kept < len(group) or nodes is None:
            break
    return out.reshape(np.shape(z))


def _nodes(rate: float, sigma: float, z: np.ndarray, both: bool) -> Nodes | None:
    """Equispaced nodes that cover and resolve the integrand for all of `z`."""
    span = _span(rate, sigma, z, both)
    if span is None:
        return None
    left, step, count = span
    return _laid(rate, sigma, left + step * np.arange(count), step, both)


def _span(rate: float, sigma: float, z: np.ndarray, both: bool) -> tuple[float, float, int] | None:
    """Where the nodes begin, how far they are apart and how many there are."""
    real, turning = z.real, z.dtype.kind == "c"
    frequency = max(float(z.imag.max()), -float(z.imag.min())) if turning else 0.0
    highest, lowest = float(real.max()), float(real.min())
    most = max(highest, -1.0 - lowest if both else 0.0)
    if both:  # L'(u) <= 2/s, and the picture is its own mirror image
        right = _reach(rate, sigma, (most + 1.0, most), _EDGE + (1.0 + 2.0 * most) / sigma)
        left = -right
    else:
        least = max(-1.0 - lowest, 0.0)
        right = _reach(rate, sigma, (most + 1.0, 0.0), _EDGE + max(most + 1.0, 0.0) / sigma)
        left = -_reach(rate, sigma, (0.0, least), _EDGE + least / sigma)
    step = _step(rate, sigma, frequency, both)
    count = math.ceil((right - left) / step) + 1
    if count > _MOST or right - left > 2 * _FAR + 12.0 / sigma:
        return None
    return left, step, count


def _laid(rate: float, sigma: float, u: np.ndarray, step: float, both: bool) -> Nodes:
    base = math.log(step / math.sqrt(2 * math.pi)) - 0.5 * u * u
    up = _log_ratio(rate, u / sigma - 0.5 / sigma**2)
    if not both:
        return Nodes(up, base + up, base)
    down = _log_ratio(rate, -u / sigma - 0.5 / sigma**2)
    return Nodes(up - down, base + up, base + down)


def _log_ratio(rate: Any, exponent: np.ndarray) -> np.ndarray:
    """log(1 - q + q e^v), exact for small q and for large v; v is monotone along a row."""
    small = np.log1p(rate * np.expm1(np.minimum(exponent, 30.0)))
    if max(exponent[..., -1].max(), exponent[..., 0].max()) <= 30.0:
        return small
    large = exponent + np.log(rate)
    large = large + np.log1p((1 - rate) * np.exp(-np.maximum(exponent, 30.0)) / rate)
    return np.where(exponent > 30.0, large, small)


def _log_mean(nodes: Nodes, z: np.ndarray) -> np.ndarray:
    """log E_P[e^(z L)]: as log1p of E[e^(zL) - 1], which keeps small moments exact."""
    forward = z.real >= -0.5
    if forward.all():
        return _one_side(nodes.loss, nodes.log_p, z)
    if not forward.any():
        return _one_side(-nodes.loss, nodes.log_q, -1.0 - z)
    return np.where(
        forward,
        _one_side(nodes.loss, nodes.log_p, np.where(forward, z, 0.0)),
        _one_side(-nodes.loss, nodes.log_q, np.where(forward, 0.0, -1.0 - z)),
    )


def _one_side(loss: np.ndarray, log_weight: np.ndarray, z: np.ndarray) -> np.ndarray:
    if z.dtype.kind == "c":
        if (z.real == z.real[0]).all():
            return _line(loss, log_weight, float(z.real[0]), z.imag)
        return np.array([_line(loss, log_weight, x.real, np.array([x.imag]))[0] for x in z])
    return _log_sum(np.multiply.outer(z, loss), log_weight)


def _log_sum(exponent: np.ndarray, log_weight: np.ndarray) -> np.ndarray:
    """log of the sums of weight e^exponent over rows, where the weights of each add up to 1."""
    log_term = exponent + log_weight
    top = log_term.max(axis=-1)
    out, small, every = np.empty(len(top)), top < 3.0, float(top.max()) < 3.0
    if every or small.any():  # where the weight is nothing the growth may overflow: hold it below
        weight = np.exp(log_weight)
        part = exponent if every else exponent[small]
        weight = weight if every or weight.ndim == 1 else weight[small]
        growth = np.expm1(np.minimum(part, 300.0)) * weight
        out[small] = np.log1p(np.maximum(growth.sum(axis=-1), -1 + 1e-300))
    if not every:
        large = np.exp(log_term[~small] - top[~small, None])
        out[~small] = top[~small] + np.log(np.sum(large, axis=-1))
    return out


def _line(loss: np.ndarray, log_weight: np.ndarray, c: float, t: np.ndarray) -> np.ndarray:
    """On a vertical line the modulus is shared: only the phases are left to do."""
    log_modulus = c * loss + log_weight
    top = max(float(log_modulus.max()), 0.0)
    kept = log_modulus > top - 42.0
    grown = np.exp(log_modulus[kept] - top)
    turned = _turned(loss[kept], grown, t)
    if top < 3.0:  # E[e^(zL) - 1] from a part that is exact for small losses and the phases' own
        growth = np.exp(log_weight) * np.expm1(np.minimum(c * loss, 300.0))
        turned *= math.exp(top)
        return _log1p(growth.sum() + turned.real, turned.imag)
    return top + np.log(grown.sum() + turned)


def _turned(loss: np.ndarray, weight: np.ndarray, t: np.ndarray) -> np.ndarray:
    """sum_j weight_j (e^(i t loss_j) - 1) for equidistant t, or one by one.

    With a = e^(ix) - 1 and b = e^(iy) - 1 that of x + y is (a + 1) b + a: a matrix product takes
    the place of most of the sines, and small losses keep all their digits.
    """
    inner = 8 if len(t) <= 64 else 16
    inner = inner if len(t) % inner == 0 else len(t)
    step = (t[-1] - t[0]) / (len(t) - 1) if len(t) > 1 else 0.0
    if inner == len(t) or np.abs(t[1:] - t[:-1] - step).max() > 1e-9 * step:
        return (weight * _turns(t, loss)).sum(axis=1)
    turns = _turns(np.concatenate([step * np.arange(inner), t[::inner]]), loss)
    fine, coarse = turns[:inner], weight * turns[inner:]
    product = np.einsum("ij,kj->ik", coarse + weight, fine)  # too small for threads
    return (product + coarse.sum(axis=1)[:, None]).ravel()


def _turns(t: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """e^(i t loss) - 1, exact where it is small."""
    half = np.multiply.outer(0.5 * t, loss)
    sine = np.sin(half)
    out = np.empty(half.shape, dtype=complex)
    twice = sine + sine
    np.multiply(twice, -sine, out=out.real)
    np.multiply(twice, np.cos(half), out=out.imag)
    return out


def _log1p(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log(1 + x + iy) without losing a small real part."""
    with np.errstate(divide="ignore", invalid="ignore"):
        modulus = 0.5 * np.log1p(np.maximum(x * (2 + x) + y * y, -1.0))
    return modulus + 1j * np.arctan2(y, 1 + x)


def _reach(rate: float, sigma: float, powers: tuple[float, float], reach: float) -> float:
    """How far out e^(-u^2/2) r(u)^a r(-u)^-b still counts, in standard deviations; at most `reach`.

    Two sweeps find the last place that is within e^-45 of the largest value.
    """
    if reach < 4 * _EDGE:  # a few more nodes cost less than to look
        return reach
    low, best = 0.0, -math.inf
    for _ in range(2):
        u = np.linspace(low, reach, 257)
        size = -0.5 * u * u
        for power, side in zip(powers, (1.0, -1.0), strict=True):
            if power:
                ratio = _log_ratio(rate, side * u / sigma - 0.5 / sigma**2)
                size += side * power * ratio
        best = float(size.max()) if low == 0.0 else best
        near = np.flatnonzero(size > best - 45.0)
        if not len(near):  # losses that are no numbers any more
            break
        last = int(near[-1])
        low, reach = float(u[last]), float(u[min(last + 1, 256)])
    return max(reach, _EDGE)


def _step(rate: float, sigma: float, frequency: float, both: bool) -> float:
    """Node distance that resolves the oscillation and, beyond it, the sharpest feature.

    That is the Gaussian or the bend of log r, analytic up to a distance pi sigma; what the
    Gaussian weight takes off the bend's singularity need not be resolved, and one further away
    than the Gaussian itself asks for is never met.
    """
    centre = 0.5 / sigma + sigma * math.log((1 - rate) / rate)
    away = min(math.pi * sigma, _WIDE)
    bend = max(40.0 - 0.5 * centre**2 + 0.5 * away**2, 0.0) / away
    wave = frequency * (2 if both else 1) / sigma
    return _FINE * 2 * math.pi / (wave + max(11.0, bend))


def replaced_profile(rate: float, sigma: float, epsilon: object) -> np.ndarray:
    """P(x > x0) - e^eps Q(x > x0) where the loss at x0 is eps; the loss rises with x."""
    eps = np.asarray(epsilon, dtype=float)
    if sigma**2 == 0:
        return np.where(eps < -1e308, 1.0, rate * np.ones_like(eps))
    size = np.minimum(np.abs(eps), 1e9)
    x0 = _where_loss(rate, sigma, size)
    stay = (
        math.log1p(-rate) + special.log_ndtr(-x0 / sigma)
        if rate < 1
        else np.full(eps.shape, -np.inf)
    )
    here = math.log(rate) + special.log_ndtr((1 - x0) / sigma)
    there = math.log(rate) + special.log_ndtr((-1 - x0) / sigma)
    # P - e^eps Q of the half line, each term in logarithms: e^eps alone may overflow.
    value = np.exp(np.logaddexp(stay, here)) - np.exp(size + np.logaddexp(stay, there))
    value = np.clip(value, 0.0, 1.0)
    small = np.exp(-size)
    return np.where(eps < 0, 1 - small + small * value, value)


def _where_loss(rate: float, sigma: float, eps: np.ndarray) -> np.ndarray:
    """The x >= 0 at which (1-q+q e^((2x-1)/2s^2)) / (1-q+q e^((-2x-1)/2s^2)) is e^eps.

    With y = e^(x/s^2), k = q e^(-1/2s^2): k y^2 + (1-q)(1 - e^eps) y - k e^eps = 0.
    """
    log_k = math.log(rate) - 0.5 / sigma**2
    half = np.log1p(-rate) if rate < 1 else -math.inf
    # b = (1-q)(e^eps - 1) / 2;  y = (b + sqrt(b^2 + k^2 e^eps)) / k, in logarithms
    with np.errstate(divide="ignore"):
        log_b = half + np.where(eps > 0, eps + np.log(-np.expm1(-eps)), -np.inf) - math.log(2)
    log_root = 0.5 * np.logaddexp(2 * log_b, 2 * log_k + eps)
    return sigma**2 * (np.logaddexp(log_b, log_root) - log_k)
