"""Sweeps: many plans, one store; nothing that was finished is lost or made again."""

from dpkit.sweeping.composition import Total, total
from dpkit.sweeping.grid import Grid, Point
from dpkit.sweeping.loop import Sweep, sweep
from dpkit.sweeping.store import Record, Store

__all__ = ["Grid", "Point", "Record", "Store", "Sweep", "Total", "sweep", "total"]
