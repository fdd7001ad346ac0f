"""A data set: training records to protect, test records to look at, public records if any."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from dpkit.datasets import picture
from dpkit.datasets.checking import check_alike, check_classes, check_every_class, check_split
from dpkit.datasets.raw import Raw, Scaling
from dpkit.datasets.splits import stratified
from dpkit.knobs import Knob

_SHARE = Knob("share", "of the records held out as test data", 0, 1, open_high=True)
_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Records and their classes, checked once; the unit of privacy is one training record.

    The test and the public split are taken to be public: what is measured on them, or learnt from
    them, is not accounted for. Either may be empty. `published` says that the training records are
    known to everybody as well, as those of `load` are. `note` is for the reader of results.

    *Guarantee*
    - Where the classes are named, a record is refused only for what it is itself (not finite, of no
      class), never for which others there are. Such a refusal reaches the holder of the records,
      before anything is released.

    *Shapes*: inputs `(N, ...)` float32, or int64 for tokens of an embedding, targets `(N,)` int64;
    the other splits likewise.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    public_inputs: Tensor
    public_targets: Tensor
    classes: tuple[str, ...]
    scaling: Scaling = Scaling()
    published: bool = False
    note: str = field(default="")

    def __post_init__(self) -> None:
        """Refuse, in one sentence, what is no data set."""
        check_classes(self.name, self.classes)
        for split, inputs, targets in (
            ("training", self.inputs, self.targets),
            ("test", self.test_inputs, self.test_targets),
            ("public", self.public_inputs, self.public_targets),
        ):
            check_split(self.name, split, inputs, targets, self.classes)
            check_alike(self.name, split, inputs, self.inputs)
            if inputs.shape[1:] != self.inputs.shape[1:]:
                raise ValueError(
                    f"{self.name}: the {split} records must have the shape of the training "
                    f"records, {self.shape}, got {tuple(inputs.shape[1:])}."
                )
        if not len(self.inputs):
            raise ValueError(f"{self.name}: there must be at least one training record, got none.")

    @classmethod
    def of(
        cls,
        inputs: Any,
        targets: Any,
        *,
        test: tuple[Any, Any] | None = None,
        test_share: float = 0.0,
        public: tuple[Any, Any] | None = None,
        classes: tuple[str, ...] | None = None,
        name: str = "my-data",
    ) -> Self:
        """A data set of your own tensors, arrays or lists; float32 tensors are not copied.

        Bytes (uint8) are taken to be pixels and divided by 255, an int64 *tensor* to be the tokens
        of an embedding, which it stays; other numbers keep their value as float32.
        Without `classes` they are named "0" to the highest target, and a class between that has no
        record is refused: which classes occur is then public. Name them where it is private.
        Without `test` there is no test split, unless `test_share` holds out that share of each
        class by a fixed rule: those records are then treated as public, and `num_examples` counts
        the rest.
        """
        x, y = _inputs(name, inputs), _targets(name, targets)
        names = _class_names(y) if classes is None else tuple(classes)
        if test_share and test is not None:
            raise ValueError("Give test records or a test_share, not both.")
        if test_share:
            x, y, test = _held_out(name, x, y, names, test_share)
        tested = (x[:0], y[:0]) if test is None else _pair(name, "test", test)
        given = (x[:0], y[:0]) if public is None else _pair(name, "public", public)
        made = cls(name, x, y, *tested, *given, classes=names)
        if classes is None:
            check_every_class(name, made.targets, names)
        return made

    def __repr__(self) -> str:
        """Name, sizes, shape: no record."""
        public = f" + {len(self.public_inputs):,} public" if len(self.public_inputs) else ""
        note = f" ({self.note})" if self.note else ""
        return (
            f"<Dataset {self.name}{note}: {self.num_examples:,} training + "
            f"{len(self.test_inputs):,} test{public} records of shape {self.shape}, "
            f"{self.num_classes} classes>"
        )

    @property
    def num_examples(self) -> int:
        """N, the number of training records."""
        return len(self.inputs)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one record."""
        return tuple(self.inputs.shape[1:])

    @property
    def is_image(self) -> bool:
        """Whether a record is an image: (channels, height, width) with one or three channels."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3)

    @property
    def is_planar(self) -> bool:
        """Whether a record is a point of the plane."""
        return self.shape == (2,)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the training records: the same for the same records in the same order.

        *Guarantee*
        - Of published sets it is the same everywhere. Of any other it is keyed with a secret of
          this process: a plain hash in a stored run would let anybody test a guess of the records.
        """
        return self.keyed(b"" if self.published else _KEY)

    def keyed(self, key: bytes) -> str:
        """A fingerprint that only whoever has the key can compare: 16 digits."""
        digest = hashlib.sha256(key)
        for tensor in (self.inputs, self.targets):
            digest.update(repr(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data.cast("B"))
        return digest.hexdigest()[:16]

    def pixels(self, inputs: Tensor) -> Any:
        """Images as an array in [0, 1], ready to be shown: the scaling undone.

        Values that lie beyond [0, 1] even then, as your own may, stretch the range for all.
        """
        return picture.stretched(self.scaling.shown(inputs.detach().cpu().numpy()))

    def picture(self, *, columns: int = 12) -> dict[str, Any]:
        """Training records as a Plotly figure in JSON form: images, points, or class sizes.

        *Guarantee*
        - Not private: it shows the records themselves, and says so.
        """
        title = f"{self.name}: {self.num_examples:,} training records"
        title += f" ({self.note})" if self.note else ""
        targets = self.targets.cpu().numpy()
        if self.is_image:
            rows = [np.flatnonzero(targets == k)[:columns] for k in range(self.num_classes)][:20]
            shown = self.pixels(self.inputs[torch.from_numpy(np.concatenate(rows))])
            ends = np.cumsum([len(row) for row in rows])[:-1]
            return picture.mosaic(np.split(shown, ends), self.classes, columns, title)
        if self.is_planar:
            points = self.inputs[: picture.MOST_POINTS].cpu().numpy()
            return picture.scatter(points, targets[: picture.MOST_POINTS], self.classes, title)
        sizes = np.bincount(targets, minlength=self.num_classes)
        return picture.sizes(sizes, self.classes, title)


def assembled(raw: Raw, *, num_examples: int | None, public: float, seed: int) -> Dataset:
    """Choose among raw records, then scale what was chosen: bytes stay bytes until then."""
    chosen = np.ones(len(raw.targets), dtype=np.bool_)
    if num_examples is not None:
        size = Knob("N", "how many training records", len(raw.classes), len(chosen), integer=True)
        size.check("num_examples", num_examples)
        chosen = stratified(raw.targets, num_examples, seed=seed)
    shared = np.zeros_like(chosen)
    if public:
        shared[chosen] = _public(raw, chosen, public, seed)
    splits = [
        (raw.inputs[keep], raw.targets[keep]) if not keep.all() else (raw.inputs, raw.targets)
        for keep in (chosen & ~shared, shared)
    ]
    train, test, given = (
        (torch.from_numpy(raw.scaling.apply(x)), torch.from_numpy(y.astype(np.int64)))
        for x, y in (splits[0], (raw.test_inputs, raw.test_targets), splits[1])
    )
    return Dataset(
        raw.name, *train, *test, *given, classes=raw.classes, scaling=raw.scaling,
        published=True, note=raw.note,
    )  # fmt: skip


def _public(raw: Raw, chosen: Any, share: float, seed: int) -> Any:
    """Which of the chosen records become public: at least one, and never all of a class."""
    targets = raw.targets[chosen]
    total = max(1, round(share * len(targets)))
    most = len(targets) - len(raw.classes)
    if total > most:
        raise ValueError(
            f"public (share, of the training records split off as public) must leave a private "
            f"record of each class, {most:,} of {len(targets):,} at most, got {share:g}."
        )
    return stratified(targets, total, seed=seed + 1, spare=1)


def _held_out(
    name: str, inputs: Tensor, targets: Tensor, classes: tuple[str, ...], share: float
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Training and test records: a share of each class, the same for the same targets."""
    _SHARE.check("test_share", share)
    check_classes(name, classes)
    check_split(name, "training", inputs, targets, classes)
    total = max(1, round(share * len(inputs)))
    most = len(inputs) - len(targets.unique())
    if total > most:
        raise ValueError(
            f"{name}: test_share must leave a training record of each class, {most:,} of "
            f"{len(inputs):,} at most, got {share:g}: give more records, or test=(inputs, targets)."
        )
    test = torch.from_numpy(stratified(targets.numpy(), total, seed=0, spare=1))
    return inputs[~test], targets[~test], (inputs[test], targets[test])


def _pair(name: str, split: str, pair: Any) -> tuple[Tensor, Tensor]:
    """The inputs and targets of another split."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        kind = type(pair).__name__
        raise TypeError(f"{name}: {split} must be a pair (inputs, targets), got a {kind}.")
    return _inputs(name, pair[0]), _targets(name, pair[1])


def _inputs(name: str, values: Any) -> Tensor:
    """Numbers of any kind as a float32 tensor on the CPU; bytes as pixels; tokens as they are."""
    if isinstance(values, Tensor) and values.dtype == torch.int64:
        return values.detach().cpu().contiguous()
    if isinstance(values, Tensor) and not values.is_complex():
        tensor = values.detach().cpu().to(torch.float32).contiguous()
        return tensor / 255 if values.dtype == torch.uint8 else tensor
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: the inputs must be real numbers, got {array.dtype}.")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: refused later
        numbers = np.ascontiguousarray(array, np.float32)
    if array.dtype == np.uint8:
        return torch.from_numpy(numbers / np.float32(255))
    return torch.from_numpy(numbers if numbers.flags.writeable else numbers.copy())


def _targets(name: str, values: Any) -> Tensor:
    """Class indices of any whole-number kind as an int64 tensor on the CPU."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in "biu" and array.size:
        raise TypeError(
            f"{name}: the targets must be class indices (whole numbers 0 to k - 1), got "
            f"{array.dtype}: convert numbers with astype(int), and number the classes of texts "
            f"with np.unique(labels, return_inverse=True)[1]."
        )
    return torch.from_numpy(array.astype(np.int64))


def _class_names(targets: Tensor) -> tuple[str, ...]:
    highest = int(targets.max()) if targets.numel() else 0
    return tuple(str(k) for k in range(min(max(highest, 0), 100_000) + 1))
