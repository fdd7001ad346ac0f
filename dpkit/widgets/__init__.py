"""Widgets: turn a plan's knobs, watch the events."""

from dpkit.widgets.board import Board, Box
from dpkit.widgets.controls import Buttons, Check, Choice, Code, Entry, Note, Progress, Slider
from dpkit.widgets.playground import Playground
from dpkit.widgets.plot import LivePlot

__all__ = [
    "Board", "Box", "Buttons", "Check", "Choice", "Code", "Entry", "LivePlot", "Note",
    "Playground", "Progress", "Slider",
]  # fmt: skip
