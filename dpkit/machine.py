"""The machine that a run computes on: which device, and whether the data fit there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def device_of(wanted: str | torch.device | None, processes: int = 1) -> torch.device:
    """The device that is wanted, or a GPU if there is one; each process of a group its own."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = _parsed(wanted if wanted is not None else "cuda" if gpus else "cpu")
    if device.type == "cpu":
        return device
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if index >= gpus:
        raise ValueError(
            f"device must be one of this machine's GPUs (it has {gpus}), got {wanted or 'cuda'!r}, "
            f'which is number {index} here: give device="cpu", or start fewer processes.'
        )
    if processes > 1:  # what nccl sends goes through the current device
        torch.cuda.set_device(index)
    return torch.device("cuda", index)


def placed(device: torch.device, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors on a device, or one sentence if they do not fit there."""
    if device.type == "cuda":
        from dpkit.gradients.sizes import available_memory

        need = sum(t.numel() * t.element_size() for t in tensors if t.device != device)
        free = available_memory(device)
        if need > free:
            raise MemoryError(
                f"The data need {need:,} bytes, but {device} has {free:,} free: give "
                'device="cpu", or fewer records.'
            )
    return tuple(tensor.to(device) for tensor in tensors)


def _parsed(wanted: Any) -> torch.device:
    import torch

    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(
            'device must be "cpu", "cuda", a numbered GPU such as "cuda:1", or None for the best '
            f"there is, got {wanted!r}."
        )
    return device
