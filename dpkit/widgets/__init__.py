"""Widgets: turn a plan's knobs, watch the events."""

from dpkit.widgets.controls import Buttons, Check, Choice, Entry, Note, Progress, Slider
from dpkit.widgets.playground import Playground
from dpkit.widgets.plot import LivePlot

__all__ = [
    "Buttons", "Check", "Choice", "Entry", "LivePlot", "Note", "Playground", "Progress", "Slider",
]  # fmt: skip
