"""Methods: what a step releases, and how the model moves by it."""

from dpkit.methods.base import Method, Peek, Stepper
from dpkit.methods.dpsgd import DPSGD
from dpkit.methods.topagg import TopAgg

__all__ = ["DPSGD", "Method", "Peek", "Stepper", "TopAgg"]
