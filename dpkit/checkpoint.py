"""Checkpoints: a killed run goes on where it was, and has never paid less than it drew.

A checkpoint states `done` steps, with all that is needed to go on from there, and `paid` steps:
`paid` runs ahead, and is on disk before the noise of any step that it covers is drawn. Whenever
the power fails, what was drawn is a part of what was paid.

The file is private. It holds which records are in which batch, and the weights between releases.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpkit.knobs import Knob, every_knob, knobs_of
from dpkit.schedules import at

if TYPE_CHECKING:
    from dpkit.plan import Plan

VERSION = 1
_EVERY = Knob("k", "steps that are paid ahead at each write", 1, 1_000_000, integer=True)


@dataclass(frozen=True)
class Progress:
    """How far a run has come: `paid` >= every step whose noise was drawn >= `done`."""

    done: int
    paid: int
    steps: int
    seeded: bool


def read(path: str | os.PathLike[str]) -> Progress:
    """The progress that a checkpoint states."""
    held = _loaded(Path(path))
    return Progress(held["done"], held["paid"], held["steps"], held["seed"] is not None)


class Keeper:
    """Writes a run's checkpoints, and brings a run back to where its file says.

    *Guarantee*
    - a file is complete or the one before it: written beside, synced, then renamed;
    - a teaching run repeats the steps that were lost, bit for bit: they are the same releases;
    - a secret run never draws noise from a stored state. Each resumption starts a stream of its
      own, and steps that were paid for but lost stay paid and are not repeated.
    """

    def __init__(self, path: str | os.PathLike[str], every: int) -> None:
        """Nothing is read or written yet; a folder that is missing is told now."""
        _EVERY.check("checkpoint_every", every)
        self.path, self.every, self.paid = Path(path), int(every), 0
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"checkpoint {self.path}: there is no folder {self.path.parent}; make it first."
            )

    def resume(self, run: Any, model: Any) -> int:
        """Bring a run to the state on file, if there is one; the first step that is to be made."""
        self._identity, self._stamp = identity(run), _stamp(self.path)
        if self._stamp is None:
            self._sampling = run.sampling.bit_generator.state
            return 0
        held = _loaded(self.path)
        self._check(held)
        self._sampling = json.loads(held["sampling"])
        run.sampling.bit_generator.state = self._sampling
        model.load_state_dict(held["model"])
        run.stepper.restore(held["stepper"])
        self.paid = held["paid"]
        if run.seed is not None:
            run.restore_streams(held["streams"])
            return int(held["done"])
        return self._after_loss(held)

    def before(self, run: Any, model: Any, step: int) -> None:
        """Called before a step is drawn: pays for the next ones if this one is not yet paid."""
        if step >= self.paid:
            self.write(run, model, step, min(step + self.every, run.plan.steps))

    def write(self, run: Any, model: Any, done: int, paid: int) -> None:
        """Put the state after `done` steps on disk; returns when it is safe there."""
        if run.ranks.first:
            self._on_disk(run, model, done, paid)
        self.paid = paid

    def _on_disk(self, run: Any, model: Any, done: int, paid: int) -> None:
        import torch

        self._check_ours()
        content = self._identity | {
            "home": self._home,
            "done": done,
            "paid": paid,
            "sampling": json.dumps(self._sampling),
            "model": model.state_dict(),
            "stepper": run.stepper.state(),
            "streams": run.streams() if run.seed is not None else {},
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        _replace(self.path, buffer.getvalue())
        self._stamp = _stamp(self.path)

    @property
    def _home(self) -> str:
        """A digest of where the file lies."""
        return hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:16]

    def _check_ours(self) -> None:
        """Refuse to overwrite what another run has written since: its spend would be lost."""
        if _stamp(self.path) not in (None, self._stamp):
            raise RuntimeError(
                f"checkpoint {self.path} was written by another process while this run used it: "
                f"this run ends here, with all its steps paid for in that file; give each run a "
                f"path of its own."
            )

    def _after_loss(self, held: dict[str, Any]) -> int:
        """A secret run goes on after all that may have been drawn."""
        if held.get("home", self._home) != self._home:
            warnings.warn(
                f"checkpoint {self.path} was written in another place: if a run goes on from "
                f"there as well, both make the steps that are left, each with noise of its own, "
                f"and the plan is spent twice; delete the copy that is not used.",
                stacklevel=4,
            )
        lost = held["paid"] - held["done"]
        if lost:
            warnings.warn(
                f"The run was interrupted after step {held['done']:,}: up to {lost:,} steps may "
                f"have been drawn since. They stay paid for and are not repeated.",
                stacklevel=4,
            )
        return int(held["paid"])

    def _check(self, held: dict[str, Any]) -> None:
        """Refuse the checkpoint of another run, naming what differs."""
        words = {
            "plan": "another plan",
            "data": "other data",
            "seed": "another seed",
            "num_examples": "another num_examples",
        }
        other = [told for key, told in words.items() if held[key] != self._identity[key]]
        if other:
            raise ValueError(
                f"checkpoint {self.path} belongs to a run with {' and '.join(other)}: give the "
                f"arguments of that run, or another path."
            )


def identity(run: Any) -> dict[str, Any]:
    """What makes a run this run and no other."""
    return {
        "dpkit": "checkpoint",
        "version": VERSION,
        "private": "holds which records are in which batch: never publish this file",
        "plan": plan_hash(run.plan),
        "data": _data_hash(run.inputs, run.targets),
        "seed": run.seed,
        "steps": run.plan.steps,
        "num_examples": run.size,
    }


def plan_hash(plan: Plan) -> str:
    """A hash of all of a plan's numbers; a schedule counts by its value at every step."""
    numbers = [
        (path, [at(value, t) for t in range(plan.steps)] if callable(value) else value)
        for path, _, value in every_knob(plan)
    ]
    kinds = [type(part).__name__ for part in (plan.method, plan.sampler, plan.accountant)]
    method: Any = plan.method
    rules = [f.name for f in fields(method) if f.name not in knobs_of(method)]
    how = [_told(getattr(method, name)) for name in rules]
    text = repr((numbers, kinds, how, plan.neighbours.name, plan.before))
    releases = [r.mechanism for r in plan.before]
    if not _ours(method):  # its noise need not be a knob
        told = [tuple(method.releases(step)) for step in range(plan.steps)]
        text += _told(told)
        releases += [r.mechanism for step in told for r in step]
    if not all(map(_ours, (plan.sampler, plan.accountant, *releases))):
        text += f"{_told(plan.sampler)} {plan.epsilon():.9g}"  # all that changes the price
    return hashlib.sha256(text.encode()).hexdigest()


def _ours(part: Any) -> bool:
    """Whether the knobs and the printed form of something say all about it."""
    return type(part).__module__.startswith("dpkit.")


def _told(value: Any) -> str:
    """A value as it reads, without the address at which a function happens to lie."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _data_hash(*tensors: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()


def _loaded(path: Path) -> dict[str, Any]:
    """The content of a file, read without running anything that it may hold."""
    import torch

    content = io.BytesIO(path.read_bytes())
    try:
        held = torch.load(content, map_location="cpu", weights_only=True)
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        pickle.UnpicklingError,
    ) as reason:
        raise ValueError(
            f"checkpoint {path} cannot be read: it is damaged or no checkpoint of dpkit. What "
            f"its run has spent is unknown: count its whole plan as spent."
        ) from reason
    if not isinstance(held, dict) or held.get("dpkit") != "checkpoint":
        raise ValueError(f"checkpoint {path} is no checkpoint of dpkit; give another path.")
    if held.get("version") != VERSION:
        raise ValueError(
            f"checkpoint {path} has version {held.get('version')!r}; this dpkit reads {VERSION}."
        )
    return held


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _replace(path: Path, content: bytes) -> None:
    """Write beside, sync, rename, sync the folder: after this the new file is there for good."""
    part = path.with_name(path.name + ".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
