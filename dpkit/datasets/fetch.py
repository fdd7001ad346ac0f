"""Download files whole or not at all: into a hidden folder beside, checked, then renamed."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 20.0
"""Seconds without a byte before a mirror is given up."""
_CHUNK = 1 << 16


class Unreachable(ConnectionError):
    """No mirror gave the file; the message says what each one said."""


@dataclass(frozen=True)
class Source:
    """One file to download: its mirrors, tried in order, and the MD5 checksum of its bytes."""

    urls: tuple[str, ...]
    name: str
    md5: str


Unpack = Callable[[Path, Path], None]
"""From a downloaded file and the folder it lies in to what shall be kept."""


def fetch(target: Path, sources: Sequence[Source], unpack: Unpack, place: Path) -> None:
    """Make `target`, a file or folder somewhere in `place`, from what the sources hold.

    `unpack(file, staged)` writes into `staged / target.name`.

    *Guarantee*
    - `target` appears by one rename, after every checksum is right; whatever ends the download
      before that (an error, an interrupt), nothing of it stays in `place`. A killed process can
      leave a hidden folder, which is never read.
    """
    with _writable(place):
        place.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".download-", dir=place))
    try:
        for source in sources:
            archive = _downloaded(source, staged)
            with _writable(place):
                unpack(archive, staged)
        with _writable(place):
            _renamed(staged / target.name, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def gunzip(archive: Path, folder: Path) -> None:
    """Write the content of a `.gz` file into a folder, in pieces."""
    folder.mkdir(exist_ok=True)
    with gzip.open(archive) as packed, (folder / archive.stem).open("wb") as plain:
        shutil.copyfileobj(packed, plain, _CHUNK)
    archive.unlink()


def untar(archive: Path, staged: Path) -> None:
    """Unpack a tar archive; a member that would land outside is refused."""
    with tarfile.open(archive) as tar:
        tar.extractall(staged, filter="data")
    archive.unlink()


def _renamed(ready: Path, target: Path) -> None:
    """Move into place; if another process was faster, its copy is as good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    try:
        ready.replace(target)
    except OSError:
        if not target.exists():
            raise


def _downloaded(source: Source, folder: Path) -> Path:
    """The file in `folder`, from the first mirror whose bytes have the right checksum."""
    said = []
    path = folder / source.name
    for url in source.urls:
        try:
            found = _copied(url, path, source.name)
        except Unreachable as reason:
            said.append(str(reason))
            continue
        if found == source.md5:
            return path
        said.append(f"{_host(url)}: {source.name} came damaged, MD5 {found}, not {source.md5}")
    raise Unreachable("; ".join(said))


def _copied(url: str, path: Path, name: str) -> str:
    """Write what an address holds to a file, with a progress bar; its MD5."""
    from tqdm.auto import tqdm

    digest = hashlib.md5(usedforsecurity=False)
    with _opened(url) as (length, chunks):
        with tqdm(total=length, desc=name, unit="B", unit_scale=True, leave=False) as bar:
            with _writable(path.parent.parent), path.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
    return digest.hexdigest()


@contextmanager
def _opened(url: str) -> Iterator[tuple[int | None, Iterator[bytes]]]:
    """The length and the bytes of an address; whatever the network does is `Unreachable`."""
    request = urllib.request.Request(url, headers={"User-Agent": "dpkit"})
    with _reached(url):
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    with response:
        length = response.headers.get("Content-Length")
        yield int(length) if length else None, _chunks(url, response)


def _chunks(url: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        with _reached(url):
            chunk = response.read(_CHUNK)
        if not chunk:
            return
        yield chunk


@contextmanager
def _reached(url: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as reason:
        deeper = getattr(reason, "reason", reason)
        why = getattr(deeper, "strerror", None) or str(deeper) or type(deeper).__name__
        raise Unreachable(f"{_host(url)}: {why}") from reason


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc or url


@contextmanager
def _writable(place: Path) -> Iterator[None]:
    """Say which folder could not be written to, and what to do."""
    try:
        yield
    except Unreachable:
        raise
    except OSError as reason:
        why = reason.strerror or str(reason)
        raise PermissionError(
            f"The data folder {place} cannot be written to ({why}): give another folder as "
            f"root=..., or set DPKIT_DATA to a folder that holds the files."
        ) from reason


def cache_folder() -> Path:
    """Where downloads are kept: the platform's cache folder for dpkit."""
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dpkit"
