"""The lines c + i t that log moments are kept on, and their sums over releases."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dpkit.mechanisms import Mechanism

LINES = 2.0 ** (np.arange(-48, 61) / 2)
"""The real parts c on which moments are kept, one grid for every mechanism."""
CHUNKS = (0, 18, 34, 62, 70, 78, 86, 94, 102, 109)
"""Where the lines are cut into pieces that are computed, and kept, together."""
FIRST = 2  # the piece that deep learning needs: c from 2^-7 to 2^6.5
BLOCKS = (0, 32, 64, 128, 256, 512, 1024)
"""Where the nodes of a line are cut into pieces; the last is the end."""
_BEYOND = 1e5  # a log moment that no line in use exceeds
LOG_CC = np.log(LINES) + np.log1p(LINES)


class Together(Protocol):
    """Releases whose log moments are summed at once, from rows of weights in place of counts."""

    def total(self, weight: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Sums of log moments: (K, n), (N,) -> (K, N); NaN where they are not known."""


Releases = Sequence[Mechanism] | Together


@functools.lru_cache(maxsize=262_144)
def on_axis(mechanism: Mechanism, chunk: int) -> np.ndarray:
    """log M on the real axis at a piece of the lines; infinite where it is out of reach."""
    lines = LINES[CHUNKS[chunk] : CHUNKS[chunk + 1]]
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.maximum(np.real(np.asarray(mechanism.log_moment(lines))), 0.0)
    if not values.max() < _BEYOND:
        values[np.logical_or.accumulate(~(values < _BEYOND))] = np.inf
    values.flags.writeable = False
    return values


@functools.lru_cache(maxsize=262_144)
def on_line(mechanism: Mechanism, line: int, block: int, period: int) -> np.ndarray | None:
    """log M at a piece of the nodes c + i t of a line, read only; None if it is not known there."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        values = np.array(mechanism.log_moment(places(line, period, block)[0]), dtype=complex)
    values[values.real == -np.inf] = -1e9  # the log of nothing, but a number
    if not np.isfinite(values).all():
        return None
    values.flags.writeable = False
    return values


def times(line: int, period: int, start: int, stop: int) -> np.ndarray:
    """t at some of the nodes of a line."""
    return (2 * math.pi * LINES[line] / period) * np.arange(start, stop)


@functools.lru_cache(maxsize=16_384)
def places(line: int, period: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """A piece of the nodes z, and log of 1 / (z (1 + z)) less that of the first; read only."""
    z = LINES[line] + 1j * times(line, period, BLOCKS[block], BLOCKS[block + 1])
    factor = LOG_CC[line] - np.log(z * (1 + z))
    z.flags.writeable = factor.flags.writeable = False
    return z, factor


@functools.lru_cache(maxsize=4096)
def powers_of_z(line: int, period: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """t, and the powers 1, z, z^2 at the nodes, of which the first counts half; read only."""
    t = times(line, period, 0, size)
    z = LINES[line] + 1j * t
    powers = np.stack([np.ones_like(z), z, z * z])
    powers[:, 0] *= 0.5
    t.flags.writeable = powers.flags.writeable = False
    return t, powers


def real_sums(releases: Releases, counts: np.ndarray, chunk: int) -> np.ndarray:
    """Sums of log moments on a piece of the real axis, infinite out of reach: (K, lines)."""
    start, stop = CHUNKS[chunk], CHUNKS[chunk + 1]
    if not isinstance(releases, Sequence):
        found = releases.total(counts, LINES[start:stop])
        return np.where(found < _BEYOND, np.maximum(found, 0.0), np.inf)
    total = np.zeros((len(counts), stop - start))
    for column, mechanism in enumerate(releases):
        values, count = on_axis(mechanism, chunk), counts[:, column, None]
        if np.isfinite(values[-1]):
            total += count * values
        else:  # a count of nothing is nothing even of infinity
            with np.errstate(invalid="ignore"):
                total += np.where(count > 0, count * values, 0.0)
    return total


def block_sums(
    releases: Releases, counts: np.ndarray, line: int, block: int, period: int
) -> np.ndarray | None:
    """Sums of log moments at a piece of the nodes; None if they are not known there."""
    z = places(line, period, block)[0]
    if not isinstance(releases, Sequence):
        found = releases.total(counts, z)
        return found if np.isfinite(found).all() else None
    total = np.zeros((len(counts), len(z)), dtype=complex)
    for column, mechanism in enumerate(releases):
        count = counts[:, column]
        if count.any():
            values = on_line(mechanism, line, block, period)
            if values is None:
                return None
            total += count[:, None] * values
    return total
