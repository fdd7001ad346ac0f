"""Long schedules made short: noise rounded down, rates up, which never lowers an epsilon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dpkit.mechanisms import FixedSizeGaussian, Mechanism, ReplacedGaussian, SubsampledGaussian

MOST = 1000
"""Up to so many different mechanisms a ledger is priced as it is."""
_SAMPLED = (SubsampledGaussian, ReplacedGaussian, FixedSizeGaussian)
_FINEST, _COARSEST = 13, 3  # cells in an octave of the noise, as powers of 2

Gathered = tuple[tuple[Mechanism, ...], np.ndarray]


def gathered(
    mechanisms: Sequence[Mechanism], counts: np.ndarray, most: int = MOST, up: bool = False
) -> Gathered:
    """The same releases with at most about `most` different mechanisms, if there are more.

    Guarantee: an upper bound stays one, a lower bound with `up`, since noise can be added to a
    release with less of it, and a record that joins at a higher rate can be left out again by a
    coin. Noise and rate move by less than a cell of the finest grid that does.

    Shapes: counts (K, n) -> (K, m).
    """
    if len(mechanisms) <= most:
        return tuple(mechanisms), counts
    sigma = np.array([_sigma(mechanism) for mechanism in mechanisms])
    rate = np.array([getattr(mechanism, "sample_rate", 1.0) for mechanism in mechanisms])
    several = len(set(rate[sigma > 0].tolist())) > 1
    for power in range(_FINEST, _COARSEST - 1, -1):
        noise = np.where(sigma > 0, _rounded(np.where(sigma > 0, sigma, 1.0), power, up), 0.0)
        joining = np.minimum(_rounded(rate, power, not up), 1.0) if several else rate
        merged = _merged(mechanisms, noise, joining)
        if len(set(merged)) <= most:
            break
    columns = {mechanism: i for i, mechanism in enumerate(dict.fromkeys(merged))}
    total = np.zeros((len(counts), len(columns)), dtype=np.int64)
    np.add.at(total.T, [columns[mechanism] for mechanism in merged], counts.T)
    return tuple(columns), total


def _sigma(mechanism: Mechanism) -> float:
    """The noise of a sampled Gaussian, else 0: what is not to be touched."""
    return mechanism.noise_multiplier if isinstance(mechanism, _SAMPLED) else 0.0


def _rounded(value: np.ndarray, power: int, up: bool) -> np.ndarray:
    """Numbers above 0 on a grid of 2^power cells an octave, rounded up or down, never beyond."""
    places = np.log2(value) * 2**power
    grid = np.exp2((np.ceil(places) if up else np.floor(places)) / 2**power)
    return np.maximum(grid, value) if up else np.minimum(grid, value)


def _merged(
    mechanisms: Sequence[Mechanism], sigma: np.ndarray, rate: np.ndarray
) -> list[Mechanism]:
    return [
        replace(mechanism, noise_multiplier=noise, sample_rate=joining)
        if isinstance(mechanism, _SAMPLED) and noise > 0 and math.isfinite(noise)
        else mechanism
        for mechanism, noise, joining in zip(mechanisms, sigma.tolist(), rate.tolist(), strict=True)
    ]
