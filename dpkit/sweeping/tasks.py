"""One run of a sweep: what a worker is given, and what it gives back."""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
import sys
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dpkit.runs import Run, plan_from_json
from dpkit.spending import price
from dpkit.training import Step, train

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dpkit.datasets import Dataset

Data = Any
"""A Dataset, a pair of tensors, a name that `datasets.load` knows, or a function that gives one."""
Model = Any
"""A factory `(data, seed) -> Module` that can be imported, or a Module, which is copied."""

_ONE = threading.Lock()
_loaded: dict[str, Dataset] = {}


@dataclass(frozen=True)
class Work:
    """What all runs of a sweep share."""

    data: Data
    models: Mapping[str, Model]
    """By the names that tasks have."""
    fingerprint: str
    content: str
    """A digest of all splits."""
    device: str | None = None
    evaluate_every: int | None = None

    def dataset(self) -> Dataset:
        """The records, read once in each process."""
        if self.content not in _loaded:
            _loaded.clear()
            _loaded[self.content] = dataset_of(self.data)
        return _loaded[self.content]


@dataclass(frozen=True)
class Task:
    """One run: its plan as it is stored, and its seed."""

    key: str
    plan: str
    seed: int | None
    data: str
    model: str


@dataclass(frozen=True)
class Outcome:
    """What a run came to: `run` is its JSON without the time, which is told apart."""

    run: str
    accuracy: float | None
    seconds: float


def perform(task: Task, work: Work) -> Outcome:
    """Train by a stored plan, on one thread and one run at a time in a process.

    *Guarantee*
    - the outcome, its seconds aside, depends on task and work alone, in whatever process.
    """
    import torch

    with _ONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # told once, by the sweep itself
                return _trained(task, work)
        finally:
            torch.set_num_threads(threads)


def _trained(task: Task, work: Work) -> Outcome:
    data, plan = work.dataset(), plan_from_json(task.plan)
    run = Run(plan, task.data, task.model, data.num_examples, work.fingerprint, task.seed)
    seen: list[Step] = []
    model = made(work.models[task.model], data, task.seed)
    for step in train(
        model, data, plan, seed=task.seed, device=work.device, evaluate_every=work.evaluate_every
    ):
        tested = step.peek.accuracy is not None
        run.add(step)
        if tested or step.step == plan.steps:
            seen.append(step)
    price(seen)
    for step in seen:
        run.add_spend(step)
    run.status, seconds = "done", run.seconds
    run = replace(run, seconds=0.0)
    return Outcome(run.to_json(), run.accuracy[-1] if run.accuracy else None, seconds)


def dataset_of(data: Data) -> Dataset:
    """The records that a name, a function, a pair of tensors or a Dataset stands for."""
    from dpkit import datasets

    if isinstance(data, str):
        return datasets.load(data)
    if isinstance(data, datasets.Dataset):
        return data
    return dataset_of(data()) if callable(data) else datasets.Dataset.of(*data)


def made(model: Model, data: Dataset, seed: int | None) -> nn.Module:
    """A fresh model for a run."""
    import copy

    from torch import nn

    if isinstance(model, nn.Module):
        return copy.deepcopy(model)
    return model(data, seed)


def name_of(model: Model) -> str:
    """What tells a model from others: where its factory lies, or what its layers and weights are.

    Refuses a factory that another process could not import.
    """
    from torch import nn

    if isinstance(model, nn.Module):
        return f"{type(model).__name__} {_held(model)}"
    if isinstance(model, functools.partial):
        return f"{name_of(model.func)} {_pickled((model.args, sorted(model.keywords.items())))}"
    name = getattr(model, "__qualname__", "")
    home = sys.modules.get(getattr(model, "__module__", None) or "")
    notebook = home is not None and home.__name__ == "__main__" and not hasattr(home, "__file__")
    if not callable(model) or "<" in name or not name or notebook:
        raise ValueError(
            f"model must be a Module, or a function (data, seed) -> Module that stands at the top "
            f"of a module, so that workers can import it, got {model!r}; move it into a file."
        )
    owner = getattr(model, "__self__", None)  # a bound method is told apart by what it is bound to
    bound = "" if owner is None or isinstance(owner, type) else f" {_pickled(owner)}"
    return f"{model.__module__}.{name} {_source(model)}{bound}"


def digest(*tensors: Tensor) -> str:
    """A digest of public tensors."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(repr(tuple(tensor.shape)).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _held(model: nn.Module) -> str:
    """A digest of a model's layers and their code, plain attributes, flags and weights."""
    import torch

    found = hashlib.sha256(repr(model).encode())
    inner = vars(torch.nn.Module()).keys() - {"training"}
    for name, module in model.named_modules():
        about = [(key, _plain(value)) for key, value in vars(module).items() if key not in inner]
        about += [("training", module.training)]
        kind = type(module)
        own = "" if kind.__module__.startswith("torch.") else _source(kind)
        told = f"{kind.__module__}.{kind.__qualname__} {own} {sorted(about, key=str)}"
        found.update(f"{name} {told}".encode())
    for name, parameter in model.named_parameters():
        found.update(f"{name} {parameter.requires_grad} {digest(parameter)}".encode())
    for name, tensor in model.named_buffers():
        found.update(f"{name} {digest(tensor)}".encode())
    return found.hexdigest()[:16]


def _plain(value: Any) -> str:
    """What a module's attribute holds: a plain value as it is written, a container's digest."""
    if isinstance(value, int | float | str | None):
        return repr(value)
    try:
        return _pickled(value) if isinstance(value, tuple | list | dict | set) else ""
    except ValueError:
        return ""


def _pickled(value: Any) -> str:
    """A digest of the arguments that a factory was given."""
    check_travels("model", value)
    return hashlib.sha256(pickle.dumps(value, protocol=4)).hexdigest()[:16]


def _source(model: Any) -> str:
    """A digest of a factory's own lines: whoever edits them gets other runs."""
    try:
        return hashlib.sha256(inspect.getsource(model).encode()).hexdigest()[:8]
    except (OSError, TypeError):
        return ""


def check_travels(what: str, value: Any) -> None:
    """Refuse, before anything runs, what cannot be sent to another process."""
    try:
        pickle.dumps(value)
    except Exception as error:
        raise ValueError(
            f"{what} cannot be sent to a worker ({error}); give a value that pickle takes, such as "
            f"a function at the top of a module."
        ) from None
