"""One panel for each notebook cell: running the cell again closes the panel it made before."""

from __future__ import annotations

import weakref
from typing import Any

_panels: dict[str, list[tuple[int, weakref.ref[Any]]]] = {}


def replace_in_cell(panel: Any) -> None:
    """Remember a panel by its cell, and close those that an earlier run of the cell made."""
    cell, count = _cell()
    if cell is None:
        return
    kept = []
    for when, reference in _panels.get(cell, []):
        old = reference()
        if old is not None and when == count:
            kept.append((when, reference))
        elif old is not None:
            old.close()
    _panels[cell] = [*kept, (count, weakref.ref(panel))]


def _cell() -> tuple[str | None, int]:
    """The running cell's id and execution count; (None, 0) outside a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None, 0
    shell = get_ipython()
    if shell is None or not hasattr(shell, "get_parent"):
        return None, 0
    parent = shell.get_parent() or {}
    return parent.get("metadata", {}).get("cellId"), int(shell.execution_count)
