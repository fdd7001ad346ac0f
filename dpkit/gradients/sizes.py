"""How many records are worked on at a time: by the cache, and by a budget of memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from dpkit.knobs import Knob

ACTIVATION_BYTES = 4 * 2**20
"""The largest activation of a microbatch on a CPU: more of it falls out of the cache."""

KEPT_BYTES = 31 * 2**20
"""Just below glibc's own limit of 32 MB for what it may keep."""

GRADIENT_BYTES = 32 * 2**20
"""All per-example gradients of a microbatch on a CPU."""

COMPANY = 16
"""Rows from which a product of matrices gives each row the same bits, whatever the others.

Measured on MKL and oneDNN; see `tests/test_gradients.py`, where single precision is held to it.
"""


_MICROBATCH = Knob("b", "records worked on at a time", 1, 1e12, integer=True, optional=True)
_BUDGET = Knob("M", "bytes that the engine may use", 1, 1e18, integer=True, optional=True)


@dataclass(frozen=True)
class Footprint:
    """Bytes that one record needs: its largest activation, all of them, its gradients."""

    largest: int
    activations: int
    gradients: int

    @property
    def total(self) -> int:
        """A rough sum: an activation is kept, copied by the layer after it, and differentiated."""
        return 4 * self.activations + 2 * self.gradients


def check_limits(microbatch: int | None, memory_budget: int | None) -> None:
    """Raise one sentence unless both are whole numbers, or None."""
    _MICROBATCH.check("microbatch", microbatch)
    _BUDGET.check("memory_budget", memory_budget)


def microbatch_size(
    need: Footprint, budget: int | None, device: torch.device, wanted: int | None = None
) -> int:
    """Records at a time: those that are wanted, or what suits; one sentence if they do not fit.

    Without a budget a quarter of the free memory is the limit, or all of it for a wanted size.
    """
    share = 4 if wanted is None else 1
    limit = available_memory(device) // share if budget is None else budget
    if need.total > limit:
        raise MemoryError(
            f"memory_budget (bytes that the engine may use) is {limit:,}, but one record of this "
            f"model needs about {need.total:,}: give a larger budget or a smaller model."
        )
    size = limit // max(1, need.total)
    if wanted is not None:
        if wanted > size:
            raise MemoryError(
                f"microbatch (b, records worked on at a time) must be at most {size:,} to fit "
                f"{limit:,} bytes, of which each needs about {need.total:,}, got {wanted:,}: give "
                "fewer, or a larger memory_budget."
            )
        return wanted
    if device.type != "cpu":
        # Free memory varies, and the size decides how sums round: few sizes, far apart.
        return 2 ** max(0, size.bit_length() - 1)
    size = min(size, max(COMPANY, ACTIVATION_BYTES // max(1, need.largest)))
    size = min(size, GRADIENT_BYTES // max(1, need.gradients))
    return max(1, size)


def rows_at_once(row: int, budget: int | None, device: torch.device) -> int:
    """Records at a time whose gradients, `row` bytes each, are held three times over."""
    limit = available_memory(device) // 4 if budget is None else budget
    size = limit // (4 * row)
    return max(1, min(size, GRADIENT_BYTES // row) if device.type == "cpu" else size)


def keep_freed_memory() -> None:
    """Let the C library keep the blocks that each step frees, instead of returning their pages.

    Taking pages back costs more than the arithmetic of a small step. By glibc's documented rule,
    freeing one large block (never touched here) sets the limit above which blocks are returned.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8, device="cpu")


def available_memory(device: torch.device) -> int:
    """Free bytes on a device; for a CPU the smaller of the machine's and the container's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [number for number in (_meminfo(), _container()) if number is not None]
    return min(free, default=2**32)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable")]
    return 1024 * int(found[0]) if found else None


def _container() -> int | None:
    """What a control group (version 2) still allows."""
    here = Path("/sys/fs/cgroup")
    try:
        limit = (here / "memory.max").read_text().strip()
        used = (here / "memory.current").read_text().strip()
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
