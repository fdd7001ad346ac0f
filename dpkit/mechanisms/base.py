"""What a private release is: who counts as a neighbour, what it costs, how it draws its noise."""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np

from dpkit.knobs import check_knobs, knob
from dpkit.mechanisms import grid


class Neighbours(enum.Enum):
    """Which pairs of data sets a guarantee must not tell apart."""

    ADD_REMOVE = "add or remove one record"
    ZERO_OUT = "replace one record by a null that contributes nothing"
    REPLACE_ONE = "replace one record by another"


class Access(enum.Enum):
    """Whether a release reads the batch that was sampled, or every record."""

    SAMPLED = "reads the sampled records"
    ALL = "reads all records"


class Refused(ValueError):
    """A combination that cannot be accounted; the message names one that can."""


class Sampling:
    """A way in which one record enters a step; the base of the values below."""


@dataclass(frozen=True)
class PoissonSampling(Sampling):
    """Each record enters the step by itself with probability `sample_rate`."""

    sample_rate: float = knob(
        MISSING, "q", "chance that a step sees a record", 0.0, 1.0, open_low=True
    )

    def __post_init__(self) -> None:
        """Check the rate."""
        check_knobs(self)


@dataclass(frozen=True)
class FixedSizeSampling(Sampling):
    """The step sees a uniform subset of fixed size: a share `sample_rate` of all records."""

    sample_rate: float = knob(
        MISSING, "q", "share of the records that a step sees", 0.0, 1.0, open_low=True
    )

    def __post_init__(self) -> None:
        """Check the share."""
        check_knobs(self)


@dataclass(frozen=True, eq=False)
class Mechanism(ABC):
    """One private release, or its cost after sampling, as a pair of distributions P and Q.

    P is the output with the record, Q without it. A new mechanism needs `profile` alone. As a
    frozen dataclass it equals others of its numbers, and is charged with them; else itself alone.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse heirs of a finished mechanism, whose own formulas would be charged for theirs."""
        super().__init_subclass__(**options)
        for base in cls.__mro__[1:]:
            if issubclass(base, Mechanism) and base.__module__.startswith("dpkit."):
                if base is not Mechanism:
                    raise TypeError(
                        f"{cls.__name__} cannot be derived from {base.__name__}, which is charged "
                        f"by formulas of its own: derive it from Mechanism, and hold a "
                        f"{base.__name__} in a field."
                    )

    @abstractmethod
    def profile(self, epsilon: Any) -> np.ndarray:
        """The hockey-stick divergence delta(eps) = sup_S P(S) - e^eps Q(S).

        Shapes: any array of real numbers in, the same shape out, in float64.
        """

    @property
    def symmetric(self) -> bool:
        """Whether swapping P and Q changes nothing."""
        return False

    @property
    def leads(self) -> bool:
        """Whether every real moment of this direction is at least that of the reverse."""
        return self.symmetric

    @property
    def reverse(self) -> Mechanism:
        """The pair with P and Q swapped; itself where the two directions agree."""
        return self if self.symmetric else Reversed(self)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """The profile of the swapped pair: 1 - e^eps + e^eps delta(-eps).

        Rounding costs e^eps * 2^-52, so the value at eps = 16 stands for all beyond (the profile
        falls, so this is an upper bound); override it where a better form is known.
        """
        if self.symmetric:
            return self.profile(epsilon)
        epsilon = np.minimum(np.asarray(epsilon, dtype=float), 16.0)
        value = 1.0 - np.exp(epsilon) * (1.0 - self.profile(-epsilon))
        return np.clip(value, 0.0, 1.0)

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """Finite losses that have positive probability, each with that of P, where known."""
        return ()

    @property
    def anchors(self) -> tuple[float, ...]:
        """Losses that a grid should meet: the atoms, and where probability piles up."""
        return tuple(loss for loss, _ in self.atoms)

    @property
    def smooth(self) -> bool:
        """Whether `log_moment` holds for complex arguments, as the contour needs."""
        return False

    @property
    def below(self) -> Mechanism:
        """A pair that is proven to cost no more, where this one is an upper bound; else itself."""
        return self

    @property
    def band(self) -> str:
        """A few words on the two sides, where `below` is another; else empty."""
        return ""

    def log_moment(self, z: Any) -> np.ndarray:
        """log E_P[(dP/dQ)^z] in nats, for complex z; infinite where it is not finite.

        Guarantee: for real z > 0 never below the exact value (read off the profile from above).
        """
        return grid.log_moment(self, np.asarray(z))

    def rdp(self, alpha: Any) -> np.ndarray:
        """Renyi divergence of order alpha > 1, in nats."""
        alpha = np.asarray(alpha, dtype=float)
        return np.maximum(np.real(self.log_moment(alpha - 1.0)), 0.0) / (alpha - 1.0)

    def draw(self, total: Any, norm: float, generator: Any) -> Any:
        """`total` plus noise for contributions of norm at most `norm`.

        `generator` is a torch.Generator or a `dpkit.noise.Noise`. The result may be `total`
        itself, overwritten: take what is returned, and keep nothing of what was given.
        """
        raise TypeError(
            f"{type(self).__name__} states a cost and draws nothing; draw with the mechanism "
            "that is released, such as Gaussian."
        )

    def pair(self, relation: Neighbours, sampling: Sampling | None = None) -> Mechanism:
        """The dominating pair under a relation and a way of sampling, or `Refused`."""
        raise Refused(
            f"{type(self).__name__} states no cost for neighbours that "
            f"{relation.value} {sampling_text(sampling)}; use Gaussian, which states one."
        )


@dataclass(frozen=True)
class Reversed(Mechanism):
    """A pair with P and Q swapped (Zhu, Dong, Wang 2022, lemma 20)."""

    forward: Mechanism

    def profile(self, epsilon: Any) -> np.ndarray:
        """The forward pair's reverse profile."""
        return self.forward.reverse_profile(epsilon)

    def reverse_profile(self, epsilon: Any) -> np.ndarray:
        """The forward pair's profile."""
        return self.forward.profile(epsilon)

    @property
    def reverse(self) -> Mechanism:
        """The forward pair."""
        return self.forward

    @property
    def atoms(self) -> tuple[tuple[float, float], ...]:
        """The forward losses with their signs turned, and the chances of Q."""
        return tuple((-loss, chance * math.exp(-loss)) for loss, chance in self.forward.atoms)

    @property
    def anchors(self) -> tuple[float, ...]:
        """The forward anchors with their signs turned."""
        return tuple(-anchor for anchor in self.forward.anchors)

    @property
    def smooth(self) -> bool:
        """As the forward pair."""
        return self.forward.smooth

    def log_moment(self, z: Any) -> np.ndarray:
        """E_Q[(dQ/dP)^z] = E_P[(dP/dQ)^(-1-z)]."""
        if not self.smooth:
            return super().log_moment(z)
        return self.forward.log_moment(-1.0 - np.asarray(z))


@dataclass(frozen=True)
class Release:
    """What a method does in one step: a mechanism, how often, and which records it reads."""

    mechanism: Mechanism
    count: int = knob(
        1, "n", "how often the mechanism is released in a step", 0, np.inf, integer=True
    )
    access: Access = Access.SAMPLED

    def __post_init__(self) -> None:
        """Check the count."""
        check_knobs(self)


def sampling_text(sampling: Sampling | None) -> str:
    """How a way of sampling reads in a sentence."""
    if sampling is None:
        return "without sampling"
    if isinstance(sampling, PoissonSampling):
        return f"under Poisson sampling at rate {sampling.sample_rate:g}"
    if isinstance(sampling, FixedSizeSampling):
        return f"under fixed-size sampling at rate {sampling.sample_rate:g}"
    return f"under {type(sampling).__name__}"


def torch_stream(generator: Any, total: Any) -> Any:
    """The torch.Generator for drawing on a tensor's device, from one or from a `Noise`."""
    return generator.keyed(total.device) if hasattr(generator, "keyed") else generator
