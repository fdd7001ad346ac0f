"""Figures as plain Plotly JSON: pure functions, cheap enough to be live."""

from dpkit.figures import anatomy, attacks, basics, batching, privacy
from dpkit.figures.base import COLOURS, DASHES, Figure, thinned
from dpkit.figures.curves import accuracy, epsilon, loss
from dpkit.figures.pictures import boundary, norms, predictions
from dpkit.figures.saving import as_html, as_plotly

__all__ = [
    "COLOURS", "DASHES", "Figure", "accuracy", "anatomy", "as_html", "as_plotly", "attacks",
    "basics", "batching", "boundary", "epsilon", "loss", "norms", "predictions", "privacy",
    "thinned",
]  # fmt: skip
