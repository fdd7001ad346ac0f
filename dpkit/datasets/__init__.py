"""Data sets: `load` by name, or `Dataset.of` your own tensors; nothing heavy until it is needed."""

from __future__ import annotations

import difflib
import importlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from dpkit.datasets import known, toys
from dpkit.datasets.known import BUILT_IN
from dpkit.datasets.raw import Scaling
from dpkit.knobs import Knob

if TYPE_CHECKING:
    from dpkit.datasets.components import PrivateMean, PrivatePCA, PublicPCA
    from dpkit.datasets.dataset import Dataset
    from dpkit.datasets.scattering import Scattering
    from dpkit.datasets.strokes import Strokes

__all__ = [
    "BUILT_IN", "NAMES", "Dataset", "PrivateMean", "PrivatePCA", "PublicPCA", "Scaling",
    "Scattering", "Strokes", "load",
]  # fmt: skip

NAMES = (*BUILT_IN, *known.KNOWN)
"""All names that `load` understands."""

_SEED = Knob("seed", "makes the choice of records repeatable", 0, 2**53, integer=True)
_PUBLIC = Knob("share", "of the training records split off as public", 0, 1, open_high=True)


def load(
    name: str,
    *,
    num_examples: int | None = None,
    noise: float | None = None,
    public: float = 0.0,
    seed: int = 0,
    root: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load a data set by name, from `NAMES`.

    `num_examples` is how many training records to draw (a toy set) or to choose (any other; all by
    default); `public` is the share of those that is split off as public, so that `num_examples` of
    the result is what remains. `noise` is for the toy sets. `seed` decides which records; the test
    split of "digits" is fixed. Files are read from `root`, else from the folder that the
    environment variable DPKIT_DATA names, else from the cache folder; what is in none of them is
    downloaded, to `root` or the cache folder.

    *Guarantee*
    - Same arguments, same records, bit for bit.
    - Train, test and public records are disjoint; each class keeps its share.
    - Inputs are scaled by constants that stand in the code, never by the data.
    - A download that fails, or is interrupted, leaves no file behind.
    """
    from dpkit.datasets.dataset import assembled

    _SEED.check("seed", seed)
    _PUBLIC.check("public", public)
    wanted, chosen = _named(name), _whole(num_examples)
    if isinstance(wanted, toys.Toy):
        raw = wanted.load(chosen, noise, int(seed))
    elif noise is None:
        raw = wanted.load(root)
    else:
        raise ValueError(
            f"noise is for the toy sets ({_listed(toys.TOYS)}), not for {name!r}: leave it out."
        )
    return assembled(raw, num_examples=chosen, public=public, seed=int(seed))


def _named(name: str) -> toys.Toy | known.Known:
    sets: dict[str, toys.Toy | known.Known] = {"digits": known.DIGITS, **toys.TOYS, **known.KNOWN}
    if isinstance(name, str) and name in sets:
        return sets[name]
    close = difflib.get_close_matches(str(name).lower().replace("_", "-"), NAMES, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"There is no data set {name!r}{hint}; there are: {_listed(NAMES)}.")


def _whole(value: Any) -> Any:
    """A numpy integer or 1000.0 as an int; anything else as it is, for the check to refuse."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, np.integer) else value


def _listed(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names)


_HOMES = {
    "Dataset": "dataset",
    "PrivateMean": "components",
    "PrivatePCA": "components",
    "PublicPCA": "components",
    "Scattering": "scattering",
    "Strokes": "strokes",
}


def __getattr__(name: str) -> Any:
    """Import when they are used what the names above do not need: torch, scipy."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"dpkit.datasets.{_HOMES[name]}"), name)
    raise AttributeError(f"dpkit.datasets has no name {name!r}.")
