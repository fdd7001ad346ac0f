"""Methods: what a step releases, and how the model moves by it."""

from dpkit.methods.base import Batch, Method, Peek, Stepper
from dpkit.methods.dpsgd import DPSGD
from dpkit.methods.neuraldp import NeuralDP
from dpkit.methods.topagg import TopAgg

__all__ = ["DPSGD", "Batch", "Method", "NeuralDP", "Peek", "Stepper", "TopAgg"]
