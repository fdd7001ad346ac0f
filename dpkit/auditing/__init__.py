"""Auditing: attack a private run, and measure how much it gives away."""

from dpkit.auditing.batching import BatchAttack
from dpkit.auditing.canaries import Audit, audit, auditing
from dpkit.auditing.faults import FAULTS, Fault
from dpkit.auditing.inversion import Inversion, invert
from dpkit.auditing.membership import Membership, Roc, membership, region

__all__ = [
    "FAULTS",
    "Audit",
    "BatchAttack",
    "Fault",
    "Inversion",
    "Membership",
    "Roc",
    "audit",
    "auditing",
    "invert",
    "membership",
    "region",
]
