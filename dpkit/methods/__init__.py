"""Methods: what a step releases, and how the model moves by it."""

from dpkit.methods.base import Batch, Method, Peek, Stepper
from dpkit.methods.dpsgd import DPSGD
from dpkit.methods.masks import Freeze, Magnitude, Mask, PublicGradient, Random, Select
from dpkit.methods.neuraldp import NeuralDP
from dpkit.methods.topagg import TopAgg

__all__ = [
    "DPSGD",
    "Batch",
    "Freeze",
    "Magnitude",
    "Mask",
    "Method",
    "NeuralDP",
    "Peek",
    "PublicGradient",
    "Random",
    "Select",
    "Stepper",
    "TopAgg",
]
