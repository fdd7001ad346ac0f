"""Samplers: how records come into a step, and what a step on them costs."""

from dpkit.samplers.base import Blocks, Sampler
from dpkit.samplers.poisson import Poisson

__all__ = ["Blocks", "Poisson", "Sampler"]
