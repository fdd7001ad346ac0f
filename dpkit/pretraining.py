"""Public pretraining: ordinary SGD on records that need no protection, near the private or far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpkit.knobs import Knob

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dpkit.datasets import Dataset

_EPOCHS = Knob("E", "passes over the public records", 1, 10_000, integer=True)
_BATCH = Knob("L", "public records in a batch", 1, 1_000_000, integer=True)
_RATE = Knob("η", "learning rate", 0, 1e4, open_low=True)
_MOMENTUM = Knob("m", "momentum of the updates", 0, 1, open_high=True)
_SEED = Knob("seed", "order of the public records", 0, 2**53, integer=True)
_COUNT = Knob("n", "pictures to draw", 1, 1_000_000, integer=True)
TURN, MOVE = 0.35, 0.12
"""How far a drawing is turned (radians) and moved (of half a side), one way or the other."""


def pretrained(
    model: torch.nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    seed: int = 0,
) -> torch.nn.Module:
    """Train `model` in place on public records by ordinary SGD, and give it back.

    *Guarantee*
    - nothing is accounted, so the records must be public: the public split of a data set (near), or
      `shapes` (far).

    *Shapes*: inputs (n, ...), targets (n,) class indices.
    """
    import torch

    for declared, name, value in (
        (_EPOCHS, "epochs", epochs), (_BATCH, "batch_size", batch_size),
        (_RATE, "learning_rate", learning_rate), (_MOMENTUM, "momentum", momentum),
        (_SEED, "seed", seed),
    ):  # fmt: skip
        declared.check(name, value)
    if not len(inputs) or len(inputs) != len(targets):
        raise ValueError(
            f"pretrained needs public records, one target for each, got {len(inputs)} and "
            f"{len(targets)}: load a data set with public=0.1, or draw `shapes`."
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    velocity = [torch.zeros_like(p) for p in parameters]
    stream = torch.Generator().manual_seed(int(seed))
    for _ in range(int(epochs)):
        for batch in torch.randperm(len(inputs), generator=stream).split(int(batch_size)):
            outputs = model(inputs[batch])
            loss = torch.nn.functional.cross_entropy(outputs, targets[batch])
            found = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, v, g in zip(parameters, velocity, found, strict=True):
                    p.sub_(v.mul_(momentum).add_(g), alpha=learning_rate)
    return model


def shapes(data: Dataset, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Toy pictures in the format of a data set: each class is one drawing, turned and moved.

    They come from no data at all, and look at the data set's shape and classes only, which are
    public: records as far from handwriting as pen strokes can be.

    *Shapes*: inputs (count, 1, side, side), targets (count,).
    """
    import torch

    from dpkit.datasets.strokes import Strokes

    _COUNT.check("count", count)
    _SEED.check("seed", seed)
    if len(data.shape) != 3 or data.shape[0] != 1 or data.shape[1] != data.shape[2]:
        raise ValueError(
            f"shapes are grey square pictures (1, side, side), but the records of {data.name!r} "
            f"have shape {data.shape}: pretrain on its own public split, public=0.1."
        )
    drawings = Strokes(data.shape[1], int(seed)).images(data.num_classes)
    stream = torch.Generator().manual_seed(int(seed))
    targets = torch.randint(data.num_classes, (int(count),), generator=stream)
    lots = 2 * torch.rand(int(count), 3, generator=stream) - 1
    turn, move = TURN * lots[:, 0], MOVE * 2 * lots[:, 1:]
    rows = torch.stack(
        [turn.cos(), -turn.sin(), move[:, 0], turn.sin(), turn.cos(), move[:, 1]], 1
    ).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(rows, [int(count), *data.shape], align_corners=False)
    images = torch.nn.functional.grid_sample(drawings[targets], grid, align_corners=False)
    return (images - data.scaling.centre) / data.scaling.spread, targets
