"""Which plans the canary audit can read: steps whose releases stand in the weights."""

from __future__ import annotations

from dpkit.mechanisms import Neighbours, Refused
from dpkit.methods import DPSGD
from dpkit.plan import Plan
from dpkit.samplers import Poisson


def check_readable(plan: Plan) -> None:
    """Refuse a plan whose releases cannot be read off the weights, one by one."""
    method, sampler = plan.method, plan.sampler
    if not isinstance(method, DPSGD) or not isinstance(sampler, Poisson):
        raise Refused(
            f"The canary audit knows DPSGD with Poisson sampling, not {type(method).__name__} "
            f"with {type(sampler).__name__}; audit a plan of those."
        )
    if plan.neighbours is Neighbours.REPLACE_ONE:
        raise Refused(
            "The canary audit adds and removes records; audit the plan with "
            "relation=Neighbours.ADD_REMOVE."
        )
    others = method.optimiser, method.augmentation, method.mask
    if method.averaging or any(other is not None for other in others):
        raise Refused(
            "The canary audit reads each release off the weights, which plain SGD moves in each "
            "canary's own direction; audit the plan without optimiser, averaging, augmentation and "
            "mask, at the same price."
        )
    if plan.before:
        raise Refused("The canary audit attacks the steps alone; audit the plan with before=().")
    if sampler.varies:
        raise Refused(
            "The canary audit guesses by the law of one rate, and sample_rate changes with the "
            "step; audit plans of single rates, which each step is drawn and charged by."
        )
