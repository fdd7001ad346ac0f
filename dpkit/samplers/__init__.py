"""Samplers: how records come into a step, and what a step on them costs."""

from dpkit.samplers.balls_in_bins import BallsInBins
from dpkit.samplers.base import Blocks, Sampler
from dpkit.samplers.fixed_size import FixedSize
from dpkit.samplers.partition import Partition
from dpkit.samplers.poisson import Poisson
from dpkit.samplers.shuffle import Shuffle
from dpkit.samplers.truncated_poisson import TruncatedPoisson

__all__ = [
    "BallsInBins",
    "Blocks",
    "FixedSize",
    "Partition",
    "Poisson",
    "Sampler",
    "Shuffle",
    "TruncatedPoisson",
]
