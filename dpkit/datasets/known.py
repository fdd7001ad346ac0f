"""The published sets: where each one's files lie, how they are read and where they come from."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dpkit.datasets import files
from dpkit.datasets.fetch import Source, Unreachable, cache_folder, fetch, gunzip, untar
from dpkit.datasets.raw import Array, Raw, Scaling
from dpkit.datasets.splits import stratified
from dpkit.datasets.toys import TOYS

BUILT_IN = ("digits", *TOYS)
"""The sets that need no network and no file."""
DATA_VARIABLE = "DPKIT_DATA"
_TEN_DIGITS = tuple(str(digit) for digit in range(10))


class Known(ABC):
    """A published set: the same records for everybody."""

    name: str

    @abstractmethod
    def load(self, root: str | os.PathLike[str] | None) -> Raw:
        """All of its records."""


@dataclass(frozen=True)
class Digits(Known):
    """Handwritten digits, 8x8, that come with scikit-learn: 1,437 to train on and 360 to test.

    *Source*: UCI "Optical recognition of handwritten digits", its test part.
    """

    name: str = "digits"
    scaling: ClassVar[Scaling] = Scaling(full=16.0)

    def load(self, root: str | os.PathLike[str] | None = None) -> Raw:
        """All of its records; the split is the same for every seed."""
        table = _digits_table()
        images, targets = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1]
        test = stratified(targets, 360, seed=0)
        return Raw(
            self.name, images[~test], targets[~test], images[test], targets[test], _TEN_DIGITS,
            self.scaling,
        )  # fmt: skip


def _digits_table() -> Array:
    """The 1,797 rows of 64 pixels (0 to 16) and a label.

    The file is read where scikit-learn keeps it, since importing `sklearn.datasets` costs a second
    and 76 MB; should it move, scikit-learn is asked after all.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            'The "digits" come with scikit-learn, which is not installed: '
            "pip install scikit-learn, or load a toy set: " + ", ".join(BUILT_IN[1:]) + "."
        )
    path = Path(next(iter(spec.submodule_search_locations)), "datasets/data/digits.csv.gz")
    if path.is_file():
        return np.loadtxt(path, delimiter=",").astype(np.int64)
    from sklearn.datasets import load_digits

    stored = load_digits()
    return np.column_stack([stored.data, stored.target]).astype(np.int64)


@dataclass(frozen=True)
class FileSet(Known):
    """A set that is read from files: in a folder of the learner's, or downloaded once."""

    name: str
    classes: tuple[str, ...]
    scaling: Scaling

    @property
    @abstractmethod
    def paths(self) -> tuple[Path, ...]:
        """Its files, relative to the data folder; the names they have in public."""

    @abstractmethod
    def read(self, place: Path) -> tuple[files.Split, files.Split]:
        """The training and the test split from files in a data folder."""

    @abstractmethod
    def download(self, place: Path) -> None:
        """Bring its files into a data folder."""

    def load(self, root: str | os.PathLike[str] | None = None) -> Raw:
        """All of its records, from the first data folder that holds any of its files."""
        places = _places(root)
        place = next((place for place in places if self.begun(place)), None)
        if place is None:
            place = places[-1]
            self._brought(place, places)
        train, test = self.read(place)
        return Raw(self.name, *train, *test, self.classes, self.scaling, self.note(place))

    def at_hand(self, root: str | os.PathLike[str] | None = None) -> bool:
        """Whether a data folder holds it, so that `load` needs no network."""
        return any(self.begun(place) for place in _places(root))

    @property
    def wanted(self) -> str:
        """Its files in words, for whoever has to bring them."""
        return f"the {len(self.paths)} files {self.paths[0]}, ..., {self.paths[-1].name}"

    def begun(self, place: Path) -> bool:
        """Whether a data folder holds any of its files."""
        return any(files.found(place / path) for path in self.paths)

    def note(self, place: Path) -> str:
        """What must be said of the files in a folder."""
        return ""

    def whole(self, place: Path, paths: Sequence[Path]) -> list[Path]:
        """The files as they are found; one sentence if some, but not all, are there."""
        there = [files.found(place / path) for path in paths]
        missing = [str(path) for path, file in zip(paths, there, strict=True) if file is None]
        if missing:
            raise FileNotFoundError(
                f'The data folder {place} holds only a part of "{self.name}": '
                f"{', '.join(missing)} is missing; add it, or delete the rest and load again."
            )
        return [file for file in there if file is not None]

    def _brought(self, place: Path, looked: Sequence[Path]) -> None:
        where = " nor in ".join(f"{p}{'' if p.is_dir() else ' (no such folder)'}" for p in looked)
        instead = (
            f"put {self.wanted} in a folder and set {DATA_VARIABLE} to that "
            f"folder, or load a built-in set: " + ", ".join(f'"{n}"' for n in BUILT_IN) + "."
        )
        try:
            self.download(place)
        except Unreachable as reason:
            raise ConnectionError(
                f'"{self.name}" is not in {where}, and could not be downloaded ({reason}): '
                f"{instead}"
            ) from reason
        except ImportError as reason:
            raise ImportError(
                f'"{self.name}" is not in {where}, and {reason}; or {instead}'
            ) from reason


@dataclass(frozen=True)
class IdxSet(FileSet):
    """MNIST and the sets made in its likeness: four idx files, mirrors known to torchvision."""

    torchvision_class: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where torchvision keeps them as well, so that a folder of its own will do."""
        parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
        return tuple(Path(self.torchvision_class, "raw", f"{part}-ubyte") for part in parts)

    def read(self, place: Path) -> tuple[files.Split, files.Split]:
        """Both splits; any size is read, not only the published one."""
        images, labels, test_images, test_labels = self.whole(place, self.paths)
        return files.idx_split(images, labels), files.idx_split(test_images, test_labels)

    def download(self, place: Path) -> None:
        """Fetch and unpack the four files."""
        known = getattr(_torchvision(), self.torchvision_class)
        sources = [
            Source(tuple(mirror + name for mirror in known.mirrors), name, md5)
            for name, md5 in known.resources
        ]
        target = place / self.torchvision_class / "raw"
        fetch(target, sources, lambda file, staged: gunzip(file, staged / target.name), place)


@dataclass(frozen=True)
class Cifar10(FileSet):
    """CIFAR-10: five training batches and a test batch of pickled arrays."""

    folder: ClassVar[str] = "cifar-10-batches-py"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The batches, test batch last."""
        names = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
        return tuple(Path(self.folder, name) for name in names)

    def read(self, place: Path) -> tuple[files.Split, files.Split]:
        """Both splits; any size is read, not only the published one."""
        *train, test = self.whole(place, self.paths)
        return files.cifar_split(train), files.cifar_split([test])

    def download(self, place: Path) -> None:
        """Fetch and unpack the archive."""
        known = _torchvision().CIFAR10
        source = Source((known.url,), known.filename, known.tgz_md5)
        fetch(place / self.folder, [source], untar, place)


@dataclass(frozen=True)
class Pneumonia(FileSet):
    """PneumoniaMNIST: chest X-rays of children, 28x28; training and test split of MedMNIST.

    Its validation split is left alone. `pneumoniamnist_balanced.npz`, a class-balanced subset in
    the same format, is read where the published file is missing, and says so in its note.
    """

    @property
    def paths(self) -> tuple[Path, ...]:
        """The published file, or the balanced subset."""
        return Path("pneumoniamnist.npz"), Path("pneumoniamnist_balanced.npz")

    @property
    def wanted(self) -> str:
        """The published file."""
        return str(self.paths[0])

    def begun(self, place: Path) -> bool:
        """Either file is enough."""
        return any((place / path).is_file() for path in self.paths)

    def note(self, place: Path) -> str:
        """Whether these are not the published records, but a choice among them."""
        return "" if (place / self.paths[0]).is_file() else "a class-balanced subset"

    def read(self, place: Path) -> tuple[files.Split, files.Split]:
        """Both splits; any size is read, not only the published one."""
        path = next(place / path for path in self.paths if (place / path).is_file())
        return files.npz_split(path, "train"), files.npz_split(path, "test")

    def download(self, place: Path) -> None:
        """Fetch the file from where the package medmnist says it is."""
        known = _medmnist()["pneumoniamnist"]
        name = self.paths[0].name
        fetch(place / name, [Source((known["url"],), name, known["MD5"])], _kept, place)


def _kept(archive: Path, staged: Path) -> None:
    """The downloaded file is what is wanted."""


def _places(root: str | os.PathLike[str] | None) -> tuple[Path, ...]:
    """The data folders to look in; what is in none of them goes to the last."""
    if root is not None:
        return (Path(root).expanduser(),)
    named = os.environ.get(DATA_VARIABLE)
    return (*((Path(named).expanduser(),) if named else ()), cache_folder())


def _torchvision() -> Any:
    """torchvision's data sets, which know mirrors and checksums, or what is wrong with it."""
    try:
        import torchvision.datasets
    except ModuleNotFoundError as reason:
        raise ImportError(
            f"downloading it needs torchvision, which is not installed ({reason}): "
            f'pip install "dpkit[vision]"'
        ) from reason
    except Exception as reason:  # torch of another build: RuntimeError, OSError, AttributeError
        import torch

        raise ImportError(
            f"downloading it needs torchvision, which does not fit the installed torch "
            f"{torch.__version__} ({reason}): install the torchvision that was built for that "
            f"torch, a CPU build for a CPU build"
        ) from reason
    return torchvision.datasets


def _medmnist() -> Any:
    """MedMNIST's table of addresses and checksums, or what is missing."""
    try:
        from medmnist.info import INFO
    except Exception as reason:
        raise ImportError(
            f"downloading it needs the package medmnist, which does not import ({reason}): "
            f'pip install "dpkit[pneumonia]"'
        ) from reason
    return INFO


_FASHION = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker",
            "bag", "ankle boot")  # fmt: skip
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
          "truck")  # fmt: skip
_bytes = partial(Scaling, 255.0)

DIGITS = Digits()
# Centre and spread are rounded on purpose: near enough to help, too coarse to tell of a record.
KNOWN: dict[str, FileSet] = {
    entry.name: entry
    for entry in (
        IdxSet("mnist", _TEN_DIGITS, _bytes(0.1, 0.3), "MNIST"),
        IdxSet("fashion-mnist", _FASHION, _bytes(0.3, 0.35), "FashionMNIST"),
        Cifar10("cifar10", _CIFAR, _bytes(0.5, 0.25)),
        Pneumonia("pneumonia", ("normal", "pneumonia"), _bytes(0.5, 0.2)),
    )
}
