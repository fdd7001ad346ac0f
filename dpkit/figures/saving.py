"""Figures as Plotly objects and as pages that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpkit.figures.base import Figure

if TYPE_CHECKING:
    import plotly.graph_objects as go


def as_plotly(figure: Figure) -> go.Figure:
    """The same figure as a Plotly object, checked by Plotly, for saving and further work."""
    import plotly.graph_objects as go

    return go.Figure(figure)


def as_html(titled: Sequence[tuple[str, Figure]], heading: str, words: str) -> str:
    """One HTML page that needs no network: a heading, words, and the figures below them."""
    from html import escape

    parts = [f"<!doctype html><meta charset='utf-8'><title>{escape(heading)}</title>"]
    parts.append(f"<body style='font-family:sans-serif;max-width:60em;margin:2em auto'>"
                 f"<h1>{escape(heading)}</h1><p>{escape(words)}</p>")  # fmt: skip
    for i, (title, figure) in enumerate(titled):
        drawn = as_plotly(figure).update_layout(template="plotly_white", height=360)
        parts.append(f"<h2>{escape(title)}</h2>")
        parts.append(drawn.to_html(full_html=False, include_plotlyjs=i == 0))
    return "\n".join([*parts, "</body>"])
