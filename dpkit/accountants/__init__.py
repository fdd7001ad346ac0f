"""Accountants: from a ledger to an epsilon that can be trusted."""

from dpkit.accountants.base import Accountant, Bounds
from dpkit.accountants.calibration import (
    noise_for_epsilon,
    sample_rate_for_epsilon,
    solve_scale,
    steps_for_epsilon,
)
from dpkit.accountants.composition import Advanced, Basic
from dpkit.accountants.distribution import LossDistribution
from dpkit.accountants.gdp import GDP
from dpkit.accountants.interop import to_dp_event
from dpkit.accountants.moments import Moments
from dpkit.accountants.pld import PLD
from dpkit.accountants.rdp import RDP
from dpkit.accountants.selection import BestOfRandom
from dpkit.accountants.yu import YuRandomSampling
from dpkit.accountants.zcdp import ZCDP

__all__ = [
    "GDP",
    "PLD",
    "RDP",
    "ZCDP",
    "Accountant",
    "Advanced",
    "Basic",
    "BestOfRandom",
    "Bounds",
    "LossDistribution",
    "Moments",
    "YuRandomSampling",
    "noise_for_epsilon",
    "sample_rate_for_epsilon",
    "solve_scale",
    "steps_for_epsilon",
    "to_dp_event",
]
