"""Private gradients: per-example clipping near the speed of plain training."""

from dpkit.gradients.clipping import Automatic, Clipping, Flat, PerLayer
from dpkit.gradients.engine import Clipped, Engine

__all__ = ["Automatic", "Clipped", "Clipping", "Engine", "Flat", "PerLayer"]
