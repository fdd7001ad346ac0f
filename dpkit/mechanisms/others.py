"""Mechanisms beside the Gaussian: Laplace noise, randomised response, a stated guarantee."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np

from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms.base import (
    Mechanism,
    Neighbours,
    PoissonSampling,
    Refused,
    Sampling,
    sampling_text,
    torch_stream,
)
from dpkit.mechanisms.subsampled import Subsampled


@dataclass(frozen=True)
class Laplace(Mechanism):
    """Laplace noise of scale `noise_multiplier` times the L1 norm of one contribution."""

    noise_multiplier: float = knob(
        MISSING, "b", "noise scale over the L1 norm bound", 0.0, math.inf, open_high=True,
        slider=(0.1, 10.0), log=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the scale."""
        check_knobs(self)

    @property
    def symmetric(self) -> bool:
        """The mirror image swaps the two sides."""
        return True

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Beyond the two centres the loss is constant."""
        if self.noise_multiplier == 0:
            return ()
        top = 1 / self.noise_multiplier
        return ((-top, 0.5 * math.exp(-top)), (top, 0.5))

    def profile(self, epsilon: Any) -> np.ndarray:
        """1 - exp((eps - 1/b) / 2) inside [-1/b, 1/b]."""
        epsilon = np.asarray(epsilon, dtype=float)
        if self.noise_multiplier == 0:
            return np.ones_like(epsilon)
        top = 1 / self.noise_multiplier
        inside = -np.expm1((np.clip(epsilon, -top, top) - top) / 2)
        # Beyond the top nothing is left: 0, not the -0 of -expm1(0).
        inside = np.maximum(inside, 0.0) + 0.0
        return np.where(epsilon < -top, -np.expm1(np.minimum(epsilon, 0.0)), inside)

    def log_moment(self, z: Any) -> np.ndarray:
        """Closed form for every complex z (Mironov 2017, table II)."""
        z = np.asarray(z)
        if self.noise_multiplier == 0:
            return np.where(z * (1 + z) == 0, 0.0, np.inf)
        top = 1 / self.noise_multiplier
        middle = 2 * z + 1
        flat = np.abs(middle) < 1e-9
        ratio = np.where(flat, top, (1 - np.exp(-top * middle)) / np.where(flat, 1, middle))
        last = np.exp(-top * middle)
        return z * top + np.log(0.5 + 0.5 * last + 0.5 * ratio)

    def draw(self, total: Any, norm: float, generator: Any) -> Any:
        """The difference of two exponentials, in double precision."""
        if self.noise_multiplier == 0:
            return total
        generator = torch_stream(generator, total)
        noise = total.new_empty(total.shape).double().exponential_(generator=generator)
        noise -= total.new_empty(total.shape).double().exponential_(generator=generator)
        return noise.mul_(self.noise_multiplier * norm).add_(total).type_as(total)

    def pair(self, relation: Neighbours, sampling: Sampling | None = None) -> Mechanism:
        """Sensitivity 1 to add or zero out, 2 to replace one record."""
        if sampling is None or getattr(sampling, "sample_rate", None) == 1.0:
            return Laplace(self.noise_multiplier / 2) if relation is _REPLACE else self
        return _poisson(self, relation, sampling)


@dataclass(frozen=True)
class RandomisedResponse(Mechanism):
    """Each record's own answer among `k`, kept with chance e^eps / (e^eps + k - 1)."""

    epsilon: float = knob(
        MISSING, "epsilon", "log of how much likelier the true answer is", 0.0, math.inf,
        open_high=True, slider=(0.1, 5.0),
    )  # fmt: skip
    k: int = knob(
        2, "k", "number of possible answers", 2, math.inf, integer=True, open_high=True,
        slider=(2, 100),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check epsilon and k."""
        check_knobs(self)

    @property
    def symmetric(self) -> bool:
        """Two answers swap their roles."""
        return True

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """The two answers differ by epsilon either way; any third tells nothing."""
        a, b = self.keep, self.keep * math.exp(-self.epsilon)
        return ((-self.epsilon, b), (0.0, (self.k - 2) * b), (self.epsilon, a))

    @property
    def keep(self) -> float:
        """Chance that the true answer is given."""
        return 1.0 / (1.0 + (self.k - 1) * math.exp(-self.epsilon))

    def profile(self, epsilon: Any) -> np.ndarray:
        """P gives its answer with chance a, the other's with b: lines in e^eps."""
        epsilon = np.asarray(epsilon, dtype=float)
        a, b = self.keep, self.keep * math.exp(-self.epsilon)
        size = np.exp(np.minimum(epsilon, 700.0))
        other = (self.k - 2) * b
        return (
            np.maximum(a - size * b, 0)
            + np.maximum(b - size * a, 0)
            + other * np.maximum(1 - size, 0)
        )

    def log_moment(self, z: Any) -> np.ndarray:
        """A sum over the three losses."""
        z = np.asarray(z)
        a, b = self.keep, self.keep * math.exp(-self.epsilon)
        rest = b * np.exp(-2 * z * self.epsilon) + (self.k - 2) * b * np.exp(-z * self.epsilon)
        return z * self.epsilon + np.log(a + rest)

    def draw(self, total: Any, norm: float, generator: Any) -> Any:
        """Answers 0 to k-1 in, randomised answers out; `norm` plays no part."""
        generator = torch_stream(generator, total)
        chance = total.new_empty(total.shape).double().uniform_(generator=generator)
        shift = total.new_empty(total.shape).random_(1, self.k, generator=generator)
        return (total + shift * (chance >= self.keep)) % self.k

    def pair(self, relation: Neighbours, sampling: Sampling | None = None) -> Mechanism:
        """Itself, where one record's answer is replaced by another."""
        if relation is _REPLACE and sampling is None:
            return self
        raise Refused(
            "Randomised response protects the value of an answer, not its presence, and is not "
            f"amplified: it is accounted for neighbours that {_REPLACE.value}, without sampling "
            f"(asked: {relation.value}, {sampling_text(sampling)})."
        )


@dataclass(frozen=True)
class EpsilonDelta(Mechanism):
    """Anything of which only an (epsilon, delta) guarantee is known: the worst pair with it.

    *Source*: Kairouz, Oh, Viswanath 2015.
    """

    epsilon: float = knob(
        MISSING, "epsilon", "the stated privacy loss", 0.0, math.inf, open_high=True,
        slider=(0.1, 5.0),
    )  # fmt: skip
    delta: float = knob(0.0, "delta", "the stated chance of more", 0.0, 1.0, log=True)

    def __post_init__(self) -> None:
        """Check epsilon and delta."""
        check_knobs(self)

    @property
    def symmetric(self) -> bool:
        """The worst pair is its own mirror image."""
        return True

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Two finite losses."""
        keep = (1 - self.delta) / (1 + math.exp(-self.epsilon))
        return ((-self.epsilon, keep * math.exp(-self.epsilon)), (self.epsilon, keep))

    def profile(self, epsilon: Any) -> np.ndarray:
        """delta beyond the stated epsilon; lines in e^eps between."""
        epsilon = np.asarray(epsilon, dtype=float)
        size = np.exp(np.minimum(epsilon, 700.0))
        keep = 1 / (1 + math.exp(-self.epsilon))
        flip = keep * math.exp(-self.epsilon)
        pure = np.maximum(keep - size * flip, 0) + np.maximum(flip - size * keep, 0)
        return self.delta + (1 - self.delta) * pure

    def log_moment(self, z: Any) -> np.ndarray:
        """Infinite for z > 0 unless delta is 0."""
        z = np.asarray(z)
        pure = RandomisedResponse(self.epsilon).log_moment(z)
        if self.delta == 0:
            return pure
        inside = np.log1p(-self.delta) + pure if self.delta < 1 else np.full(z.shape, -np.inf)
        return np.where((np.real(z) > 0) | (np.real(z) < -1), np.inf, inside)

    def pair(self, relation: Neighbours, sampling: Sampling | None = None) -> Mechanism:
        """Itself: the guarantee is taken as stated for the relation in use."""
        if sampling is None or getattr(sampling, "sample_rate", None) == 1.0:
            return self
        return _poisson(self, relation, sampling)


@dataclass(frozen=True)
class UpperSide(Mechanism):
    """What costs no more than `mechanism`, by an argument that has no lower side.

    `reason` is told as the band; `below` is nothing at all.
    """

    mechanism: Mechanism
    reason: str

    @property
    def below(self) -> Mechanism:
        """Nothing: 0 is all that is proven from below."""
        return EpsilonDelta(0.0, 0.0)

    @property
    def band(self) -> str:
        """Why this is an upper side alone."""
        return self.reason

    @property
    def noise_multiplier(self) -> float:
        """That of the upper side, where it has one: without noise the cost is infinite."""
        return float(getattr(self.mechanism, "noise_multiplier", 1.0))

    @property
    def symmetric(self) -> bool:
        """As the upper side."""
        return self.mechanism.symmetric

    @property
    def leads(self) -> bool:
        """As the upper side."""
        return self.mechanism.leads

    @property
    def smooth(self) -> bool:
        """As the upper side."""
        return self.mechanism.smooth

    @property
    def reverse(self) -> Mechanism:
        """The upper side's reverse, an upper side too."""
        return self if self.symmetric else UpperSide(self.mechanism.reverse, self.reason)

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Those of the upper side."""
        return self.mechanism.atoms

    @property
    def anchors(self) -> tuple[float, ...]:
        """Those of the upper side."""
        return self.mechanism.anchors

    def profile(self, epsilon: Any) -> np.ndarray:
        """The upper side's."""
        return self.mechanism.profile(epsilon)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """The upper side's."""
        return self.mechanism.reverse_profile(epsilon)

    def log_moment(self, z: Any) -> np.ndarray:
        """The upper side's."""
        return self.mechanism.log_moment(z)


_REPLACE = Neighbours.REPLACE_ONE


def _poisson(mechanism: Mechanism, relation: Neighbours, sampling: Sampling) -> Mechanism:
    """Poisson sampling of any mechanism for add, remove or zero out; else a refusal."""
    if isinstance(sampling, PoissonSampling) and relation is not _REPLACE:
        return Subsampled(mechanism, sampling.sample_rate)
    raise Refused(
        f"{type(mechanism).__name__} {sampling_text(sampling)} cannot be accounted for neighbours "
        f"that {relation.value}; use Poisson sampling and neighbours that "
        f"{Neighbours.ADD_REMOVE.value}, or Gaussian noise."
    )
