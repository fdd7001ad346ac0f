"""A basis for votes: a few public directions, learnt from pictures that a program draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpkit.datasets.components import PublicPCA
from dpkit.datasets.strokes import Strokes

if TYPE_CHECKING:
    from dpkit.datasets import Dataset
    from dpkit.datasets.components import Projection

DRAWN = 4_000
"""Pictures to learn from: they cost nothing but the time to draw them."""


def stroke_basis(data: Dataset, coordinates: int) -> Projection:
    """Principal components of drawn strokes, of the size and the scale of the data's images.

    Fewer coordinates to vote on mean less noise on each, at the same price.
    """
    shape = data.shape
    if len(shape) != 3 or shape[0] != 1 or shape[1] != shape[2] or shape[1] < 8:
        raise ValueError(
            f"stroke_basis needs square grey images of 8 pixels a side at least, shape (1, s, s), "
            f"but the records of {data.name!r} have shape {shape}: vote pixel by pixel, with "
            f"basis=None, or learn a PublicPCA from public records of that shape."
        )
    drawn = Strokes(shape[1]).images(DRAWN)
    drawn = (drawn - data.scaling.centre) / data.scaling.spread
    return PublicPCA(coordinates).learnt(drawn)
