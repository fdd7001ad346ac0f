"""Choose records so that every class keeps its share: subsets, test and public splits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpkit.datasets.raw import Array


def stratified(targets: Array, total: int, *, seed: int, spare: int = 0) -> NDArray[np.bool_]:
    """A mask of `total` records, drawn at random within each class.

    *Guarantee*
    - Classes get shares in proportion to their sizes (largest remainder), at least one each where
      `total` allows it, and at least `spare` records of each class stay unchosen.
    - The same targets, total and seed give the same mask: only uniform doubles of PCG64 are used,
      the stream that numpy is least likely to change.
    """
    counts = np.bincount(targets)
    shares = _shares(counts, total, counts - np.minimum(spare, counts))
    keys = np.random.Generator(np.random.PCG64(seed)).random(len(targets))
    mask = np.zeros(len(targets), dtype=np.bool_)
    for label, share in enumerate(shares):
        members = np.flatnonzero(targets == label)
        mask[members[np.argsort(keys[members], kind="stable")[:share]]] = True
    return mask


def _shares(counts: Array, total: int, most: Array) -> Array:
    """How many of each class: near proportion, one at least if possible, `most` at most."""
    if not 0 <= total <= most.sum():
        raise ValueError(f"Only {most.sum()} of {counts.sum()} records may be chosen, not {total}.")
    wanted = total * counts / max(counts.sum(), 1)
    least = np.minimum(most, 1 if total >= np.count_nonzero(most) else 0)
    shares = np.clip(np.floor(wanted).astype(np.int64), least, most)
    while shares.sum() < total:
        shares[np.argmax(np.where(shares < most, wanted - shares, -np.inf))] += 1
    while shares.sum() > total:
        shares[np.argmax(np.where(shares > least, shares - wanted, -np.inf))] -= 1
    return shares
