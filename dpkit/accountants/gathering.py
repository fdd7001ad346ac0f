"""Long schedules made short: noise rounded down to a grid, which never lowers an epsilon."""

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
    """The same releases with at most about `most` different noises, if there are more.

    Guarantee: an upper bound stays one, a lower bound with `up`, since noise can be added to a
    release with less of it. The noise moves by less than a cell of the finest grid that does.

    Shapes: counts (K, n) -> (K, m).
    """
    if len(mechanisms) <= most:
        return tuple(mechanisms), counts
    sigma = np.array([_sigma(mechanism) for mechanism in mechanisms])
    places = np.log2(np.where(sigma > 0, sigma, 1.0))
    for power in range(_FINEST, _COARSEST - 1, -1):
        cells = np.ceil(places * 2**power) if up else np.floor(places * 2**power)
        rounded = np.exp2(cells / 2**power)
        rounded = np.maximum(rounded, sigma) if up else np.minimum(rounded, sigma)
        merged = _merged(mechanisms, np.where(sigma > 0, rounded, 0.0))
        if len(set(merged)) <= most:
            break
    columns = {mechanism: i for i, mechanism in enumerate(dict.fromkeys(merged))}
    total = np.zeros((len(counts), len(columns)), dtype=np.int64)
    np.add.at(total.T, [columns[mechanism] for mechanism in merged], counts.T)
    return tuple(columns), total


def _sigma(mechanism: Mechanism) -> float:
    """The noise of a sampled Gaussian, else 0: what is not to be touched."""
    return mechanism.noise_multiplier if isinstance(mechanism, _SAMPLED) else 0.0


def _merged(mechanisms: Sequence[Mechanism], sigma: np.ndarray) -> list[Mechanism]:
    return [
        replace(mechanism, noise_multiplier=value)
        if isinstance(mechanism, _SAMPLED) and value > 0 and math.isfinite(value)
        else mechanism
        for mechanism, value in zip(mechanisms, sigma.tolist(), strict=True)
    ]
