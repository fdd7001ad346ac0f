"""What a data set must be: each fault is one sentence with the name, the rule and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def check_classes(name: str, classes: tuple[str, ...]) -> None:
    """Class names are different texts, one at least."""
    if not classes or not all(isinstance(c, str) for c in classes):
        raise ValueError(f"{name}: classes must be names, one for each class, got {classes!r}.")
    if len(set(classes)) < len(classes):
        raise ValueError(f"{name}: classes must have different names, got {classes!r}.")


def check_split(
    name: str, split: str, inputs: Tensor, targets: Tensor, classes: tuple[str, ...]
) -> None:
    """One split: tensors that belong together, finite inputs, targets that are class indices."""
    import torch

    for what, tensor, kinds in (
        ("inputs", inputs, (torch.float32, torch.int64)),
        ("targets", targets, (torch.int64,)),
    ):
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in kinds:
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            wanted = " or ".join(map(str, kinds))
            raise TypeError(
                f"{name}: the {split} {what} must be a tensor of {wanted}, got {kind}; "
                f"Dataset.of converts arrays and other number types."
            )
    _check_shapes(name, split, inputs, targets)
    if len(inputs):
        _check_finite(name, split, inputs)
        _check_labels(name, split, targets, len(classes))


def check_alike(name: str, split: str, inputs: Tensor, training: Tensor) -> None:
    """Tokens or numbers, but the same in every split."""
    if inputs.dtype != training.dtype:
        raise TypeError(
            f"{name}: the {split} inputs must be of the kind of the training inputs, "
            f"{training.dtype}, got {inputs.dtype}: tokens are int64 tensors in every split."
        )


def check_every_class(name: str, targets: Tensor, classes: tuple[str, ...]) -> None:
    """No class without a training record, where which classes occur is public."""
    import torch

    counts = torch.bincount(targets, minlength=len(classes))
    empty = [f"{k} ({classes[k]!r})" for k in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise ValueError(
            f"{name}: class {', '.join(empty[:3])}{more} of {len(classes)} has no training record: "
            f"number the classes 0 to k - 1 without gaps, or name them all by classes=(...)."
        )


def _check_shapes(name: str, split: str, inputs: Tensor, targets: Tensor) -> None:
    if targets.dim() != 1:
        raise ValueError(
            f"{name}: the {split} targets must have shape (N,), one class index for each record, "
            f"got {tuple(targets.shape)}; flatten them, or take argmax(1) of one-hot rows."
        )
    if inputs.dim() < 2 or 0 in inputs.shape[1:]:
        raise ValueError(
            f"{name}: the {split} inputs must have shape (N, ...) with at least one feature, "
            f"got {tuple(inputs.shape)}; one feature alone is inputs[:, None]."
        )
    if len(inputs) != len(targets):
        raise ValueError(
            f"{name}: {len(inputs):,} {split} inputs but {len(targets):,} {split} targets: "
            f"give one target for each record."
        )


def _check_finite(name: str, split: str, inputs: Tensor) -> None:
    # aminmax carries NaN and infinity to its result and, unlike isfinite, makes no second copy.
    low, high = inputs.aminmax()
    if not inputs.is_floating_point() and low < 0:
        bad = int((inputs < 0).flatten(1).any(1).nonzero()[0])
        raise ValueError(
            f"{name}: int64 inputs are tokens, whole numbers from 0, but record {bad} of the "
            f"{split} inputs has {int(inputs[bad].min())}: number tokens from 0, or give "
            f"inputs.float()."
        )
    if not (low.isfinite() and high.isfinite()):
        bad = next(i for i, record in enumerate(inputs) if not record.isfinite().all())
        raise ValueError(
            f"{name}: the {split} inputs must be finite numbers, record {bad} holds NaN or "
            f"infinity: drop or repair such records."
        )


def _check_labels(name: str, split: str, targets: Tensor, classes: int) -> None:
    wrong = ((targets < 0) | (targets >= classes)).nonzero().flatten()
    if len(wrong):
        at = int(wrong[0])
        raise ValueError(
            f"{name}: the {split} targets must be class indices 0 to {classes - 1} "
            f"({classes} classes), record {at} has {int(targets[at])}: number the classes from 0, "
            f"as np.unique(labels, return_inverse=True)[1] does."
        )
