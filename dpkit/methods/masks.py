"""Masks: which parameters DP-SGD may move, chosen without a look at private records."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

from dpkit.knobs import check_knobs, knob
from dpkit.schedules import Schedule, ValidationDecay, at

if TYPE_CHECKING:
    from torch import Tensor

    PublicGradient_ = Callable[[int, int], Tensor]


class Criterion(ABC):
    """What ranks the coordinates: the largest scores are kept.

    *Guarantee*
    - nothing here is handed a private record, or a gradient of one: a ranking is public, or a
      function of weights that are released already, and so costs nothing.
    """

    public: ClassVar[bool] = False
    """Whether it needs the data set's public records."""
    reads_weights: ClassVar[bool] = False
    """Whether it ranks by the present weights, which must differ then."""

    @abstractmethod
    def scores(self, step: int, weights: Tensor, gradient: PublicGradient_) -> Tensor:
        """A score for each coordinate, (D,); `gradient(count, seed)` is of public records."""


@dataclass(frozen=True)
class Random(Criterion):
    """Coordinates by lot, from a seed that everybody may know."""

    seed: int = knob(0, "seed", "public start of the lots", 0, 2**53, integer=True)

    def __post_init__(self) -> None:
        """Check the seed."""
        check_knobs(self)

    def scores(self, step: int, weights: Tensor, gradient: PublicGradient_) -> Tensor:
        """Uniform numbers, others at every step."""
        import numpy as np
        import torch

        lots = np.random.Generator(np.random.PCG64([self.seed, step]))
        return torch.from_numpy(lots.random(len(weights), dtype=np.float32)).to(weights.device)


@dataclass(frozen=True)
class Magnitude(Criterion):
    """The largest weights: those of a public start for `Freeze`, the released ones for `Select`."""

    reads_weights: ClassVar[bool] = True

    def scores(self, step: int, weights: Tensor, gradient: PublicGradient_) -> Tensor:
        """|w|."""
        return weights.abs()


@dataclass(frozen=True)
class PublicGradient(Criterion):
    """The largest gradients on a batch of the data set's public records."""

    count: int = knob(256, "n", "public records in the batch", 1, 10_000_000, integer=True,
                      log=True, slider=(1, 4096))  # fmt: skip
    seed: int = knob(0, "seed", "public start of the batches", 0, 2**53, integer=True)
    public: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the knobs."""
        check_knobs(self)

    def scores(self, step: int, weights: Tensor, gradient: PublicGradient_) -> Tensor:
        """|g| of the batch that this step's seed draws."""
        return gradient(self.count, self.seed + step).abs_()


@dataclass(frozen=True)
class Mask(ABC):
    """Keeps ceil((1 - p) D) of the D parameters that are not exempt, and these always.

    *Guarantee*
    - the mask acts before the clip, noise goes on the support alone, and what lies off it does not
      move by a bit in that step, whatever momentum, weight decay or average there is;
    - epsilon does not depend on it, since it is chosen without a look at private records.

    *Source*: Adamczewski and Park 2023, "Differential privacy meets neural network pruning".
    """

    ratio: Schedule = knob(
        MISSING, "p", "share of the parameters that is frozen", 0, 1, open_high=True,
        schedule=True, slider=(0.0, 0.99),
    )  # fmt: skip
    by: Criterion = Random()
    """What ranks the parameters."""
    exempt: tuple[str, ...] = ()
    """Layers, or parameters, that are never frozen, by name: ('2', '*.bias')."""
    scaled_norm: bool = False
    """Whether C is multiplied by sqrt(|S| / D), as suits a random support."""

    chosen_once: ClassVar[bool]
    """Whether the ranking of the first step holds for all."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_knobs(self)
        kind = type(self).__name__
        if isinstance(self.ratio, ValidationDecay):
            raise ValueError(
                "ratio cannot follow ValidationDecay, which sets the noise_multiplier alone; give "
                "it a schedule that is fixed beforehand."
            )
        if not isinstance(self.by, Criterion):
            raise TypeError(
                f"by (what ranks the parameters) must be Random(), Magnitude() or "
                f"PublicGradient(), got {self.by!r}: a mask read from private gradients would be "
                f"a release of its own, which nobody has paid for."
            )
        object.__setattr__(self, "exempt", _names(self.exempt, kind))
        if not isinstance(self.scaled_norm, bool):
            raise TypeError(
                f"scaled_norm (C sqrt(|S|/D) in place of C) must be True or False, got "
                f"{self.scaled_norm!r}."
            )

    def kept(self, step: int, size: int) -> int:
        """How many of `size` parameters that may be frozen are kept in a step.

        The ratio counts as it is written: a tenth is exactly that.
        """
        return math.ceil((1 - Fraction(repr(at(self.ratio, step)))) * size)


@dataclass(frozen=True)
class Freeze(Mask):
    """One ranking, made before training: what is frozen stays as it started.

    A `ratio` that follows a schedule freezes by the same ranking, more or less of it. By
    `Magnitude` it reads the weights that training starts from, which must be public.
    """

    chosen_once: ClassVar[bool] = True


@dataclass(frozen=True)
class Select(Mask):
    """A new ranking at every step, which may read the weights that were released until then."""

    chosen_once: ClassVar[bool] = False


def _names(names: object, kind: str) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, tuple | list):
        raise TypeError(
            f"exempt (names of layers that {kind} never freezes) must be a tuple of names such as "
            f"('2', '*.bias'), got {names!r}."
        )
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"exempt (names of layers that {kind} never freezes) must hold names, as "
                f"model.named_parameters() gives them, got {name!r}."
            )
    return tuple(names)
