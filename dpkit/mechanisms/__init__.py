"""Private releases: what draws is what is accounted."""

from dpkit.mechanisms.allocated import AllocatedGaussian
from dpkit.mechanisms.base import (
    Access,
    FixedSizeSampling,
    Mechanism,
    Neighbours,
    PoissonSampling,
    Refused,
    Release,
    Reversed,
    Sampling,
)
from dpkit.mechanisms.charged import Charged
from dpkit.mechanisms.gaussian import Gaussian
from dpkit.mechanisms.ledger import Ledger
from dpkit.mechanisms.others import EpsilonDelta, Laplace, RandomisedResponse, UpperSide
from dpkit.mechanisms.shuffled import ShuffledGaussian
from dpkit.mechanisms.subsampled import (
    FixedSizeGaussian,
    ReplacedGaussian,
    Subsampled,
    SubsampledGaussian,
)

__all__ = [
    "Access",
    "AllocatedGaussian",
    "Charged",
    "EpsilonDelta",
    "FixedSizeGaussian",
    "FixedSizeSampling",
    "Gaussian",
    "Laplace",
    "Ledger",
    "Mechanism",
    "Neighbours",
    "PoissonSampling",
    "RandomisedResponse",
    "Refused",
    "Release",
    "ReplacedGaussian",
    "Reversed",
    "Sampling",
    "ShuffledGaussian",
    "Subsampled",
    "SubsampledGaussian",
    "UpperSide",
]
