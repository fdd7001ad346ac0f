"""Where the explorer's runs come from: a store, a file, the stored comparison on MNIST."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from dpkit.sweeping import Record, Store, Sweep, export

COMMAND = "python benchmarks/sweeps.py mnist"
"""What makes the stored comparison again, from a clone of the project."""


def stored() -> list[Record]:
    """Methods compared on MNIST, as they were run once, with their curves and guarantees."""
    with resources.as_file(resources.files("dpkit.widgets").joinpath("sweep_mnist.json")) as file:
        return export.from_json(file)


def file_of(source: Any) -> Path | None:
    """The store's file, in which every attempt stands."""
    if isinstance(source, str | Path):
        return None if Path(source).suffix == ".json" else Path(source)
    store = source.store if isinstance(source, Sweep) else source
    return store.path if isinstance(store, Store) else None


def finished(source: Any) -> list[Record]:
    """The runs that can be shown at once; those of a sweep come when it is started."""
    if isinstance(source, Sweep):
        return []
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise FileNotFoundError(f"There is no store {source}; make one by dpkit.sweep.")
        if Path(source).suffix == ".json":
            return export.from_json(source)
        with Store(source) as store:
            return list(store.records("finished"))
    return list(source.records("finished") if isinstance(source, Store) else source)
