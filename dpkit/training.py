"""Training: the one loop, a generator of Step events."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dpkit.checkpoint import Keeper, identity
from dpkit.knobs import Knob
from dpkit.looks import Looks
from dpkit.machine import device_of, placed
from dpkit.mechanisms import Access, Release
from dpkit.methods import Batch, Peek, Stepper
from dpkit.noise import Noise
from dpkit.plan import Plan
from dpkit.ranks import Ranks
from dpkit.spending import Spend, Step

if TYPE_CHECKING:
    import torch

    from dpkit.datasets import Dataset
    from dpkit.methods.base import Loss

    Data: TypeAlias = Dataset | tuple[torch.Tensor, torch.Tensor]


_SIZE = Knob("N", "public number of examples", 1, 1e12, integer=True)
_SEED = Knob("s", "start of a teaching run's streams", 0, 2**63 - 1, integer=True, optional=True)
_EVERY = Knob("k", "steps between two looks at the test data, 0 for none", 0, 1e12, integer=True)


def train(
    model: torch.nn.Module,
    data: Data,
    plan: Plan,
    *,
    loss: Loss | None = None,
    seed: int | None = None,
    secure: bool = False,
    device: str | torch.device | None = None,
    num_examples: int | None = None,
    evaluate_every: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 50,
    microbatch: int | None = None,
    memory_budget: int | None = None,
) -> Iterator[Step]:
    """Train `model` in place by `plan` on `data`, yielding a `Step` after each step.

    Stop by `break`, pause by not asking for the next step. Everything is checked here, before the
    first batch is drawn. `loss(outputs, targets, reduction="none")` gives one loss a record
    (cross entropy by default). `seed=None` takes noise and sampling from the operating system's
    entropy, stretched by a cipher; `secure=True` takes every bit of noise straight from it. A seed
    makes a teaching run, repeatable bit for bit and private to nobody who knows it.
    `num_examples` is the public number of examples that scales a step; by default the data's own,
    which is then treated as public. `evaluate_every` steps the model is measured on test data
    (0: never; by default so often that it costs about a tenth of the training).
    `checkpoint` is a private file from which the same call goes on after an interruption; it is
    written, and the next steps are paid for, every `checkpoint_every` steps (see `checkpoint`).
    `microbatch` records are worked on at a time; by default what suits the machine and fits
    `memory_budget` (bytes; by default a quarter of what is free). Neither changes a result.
    In a group of torch.distributed every process calls this with the same arguments (see `ranks`).
    """
    import torch

    dataset = _as_dataset(data)
    streams = _streams(seed, secure)
    ranks = Ranks.current()
    where = device_of(device, ranks.size)
    size = dataset.num_examples if num_examples is None else num_examples
    _SIZE.check("num_examples", size)
    if evaluate_every is not None:
        _EVERY.check("evaluate_every", evaluate_every)
    for caution in plan.cautions(size):
        warnings.warn(caution, stacklevel=2)
    ranks.alike(model.to(where).state_dict().values())

    def start() -> _Run:
        plan.method.check_records(dataset.shape)
        criterion = loss or torch.nn.functional.cross_entropy
        stepper = plan.method.start(model, criterion, plan.sampler.expected_batches(size))
        run = _Run(plan, dataset, stepper, where, streams, evaluate_every, size)
        stepper.limit(microbatch, memory_budget)
        stepper.prepare(run.inputs, run.targets, dataset.num_classes)
        if hasattr(stepper, "learn"):
            stepper.learn(*placed(where, dataset.public_inputs, dataset.public_targets))
        return run

    run = ranks.together(start)
    run.seed = None if seed is None else int(seed)
    run.join(ranks)
    if checkpoint is not None:
        run.keep(partial(Keeper, checkpoint, checkpoint_every), model)
    return run.steps()


class _Run:
    """One training run: the streams, the data on their device, and the spend."""

    def __init__(
        self,
        plan: Plan,
        data: Dataset,
        stepper: Stepper,
        device: torch.device,
        streams: tuple[np.random.Generator, Noise],
        evaluate_every: int | None,
        size: int,
    ) -> None:
        self.plan, self.data, self.stepper, self.device = plan, data, stepper, device
        self.sampling, self.noise = streams
        self.inputs, self.targets = placed(device, data.inputs, data.targets)
        self.every = _evaluations(plan, data, size) if evaluate_every is None else evaluate_every
        self.spend = Spend(plan.neighbours)
        self.seed: int | None = None
        self.size = size
        self.start = 0
        self.ranks = Ranks()
        self._keeping: tuple[Keeper, torch.nn.Module] | None = None
        self._random = _dropout_stream(self.sampling, device)
        self.looks = Looks(plan, data)
        self.batches = plan.sampler.batches(len(self.inputs), self.sampling)

    def steps(self) -> Iterator[Step]:
        """Pay and charge a group, then draw and release its steps one by one."""
        plan, meter = self.plan, self.plan.meter()
        self.spend.charge([(r.mechanism.pair(plan.neighbours), r.count) for r in plan.before])
        for group in plan.sampler.groups():
            if group.start >= plan.steps or not self.looks.before(group.start, self, meter):
                break
            seen = self.looks.history
            releases = [tuple(plan.method.releases(step, seen)) for step in group]
            entries = list(plan.sampler.at_step(group.start).charge(releases, plan.neighbours))
            plan.check(group, entries)
            if meter is not None and not meter.pay(entries):
                break
            self.spend.charge(entries)
            for step, released in zip(group, releases, strict=True):
                batch = next(self.batches)
                if step >= self.start:
                    yield from self._made(step, batch, released)
        self._kept(plan.steps)

    def _made(self, step: int, batch: Any, released: tuple[Release, ...]) -> Iterator[Step]:
        """One step: paid for on disk if there is a checkpoint, then drawn, then told."""
        if self._keeping is not None:
            keeper, model = self._keeping
            keeper.before(self, model, step)
        with self._own_random_numbers():
            peek = self.stepper.step(step, self._gather(batch), released, self.noise)
        self._kept_at_once(step + 1, released)
        event = self._event(step + 1, peek)
        try:
            yield event
        except GeneratorExit:
            self._kept(step + 1)
            raise

    def join(self, ranks: Ranks) -> None:
        """Draw the batches of rank 0, after making sure that all ranks do the same."""
        self.looks.refuse("several processes", ranks.size > 1)
        self.ranks = ranks
        if ranks.size > 1:
            for what, value in identity(self).items():
                ranks.agree(what, value)
            self.sampling.bit_generator.state = ranks.told(self.sampling.bit_generator.state)

    def keep(self, make: Callable[[], Keeper], model: torch.nn.Module) -> None:
        """Go on from a checkpoint, if there is one, and write it from now on."""
        self.looks.refuse("a checkpoint", True)

        def resume() -> tuple[Keeper, int]:
            keeper = make()
            return keeper, keeper.resume(self, model)

        keeper, self.start = self.ranks.together(resume)
        self.ranks.agree("checkpoint", self.start)
        self._keeping = keeper, model

    def _kept(self, done: int) -> None:
        """An orderly end or pause: nothing beyond the steps that are done is paid for."""
        if self._keeping is not None and done >= self.start:
            keeper, model = self._keeping
            keeper.write(self, model, done, done)

    def _kept_at_once(self, done: int, released: tuple[Release, ...]) -> None:
        """What was released of all records goes on disk now: it is paid for once, for good."""
        if self._keeping is not None and any(r.access is Access.ALL for r in released):
            keeper, model = self._keeping
            keeper.write(self, model, done, max(keeper.paid, done))

    def streams(self) -> dict[str, Any]:
        """The state of a teaching run's streams, for its checkpoint."""
        return {"noise": self.noise.state(), "model": self._random}

    def restore_streams(self, held: dict[str, Any]) -> None:
        """Go on with these streams."""
        self.noise.restore(held["noise"])
        self._random = held["model"]

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Let a teaching run's dropout follow its seed, and leave everybody else's stream alone."""
        if self.seed is None:
            yield
            return
        import torch

        on_gpu = self.device.type == "cuda"
        get = partial(torch.cuda.get_rng_state, self.device) if on_gpu else torch.get_rng_state
        put = (
            partial(torch.cuda.set_rng_state, device=self.device) if on_gpu else torch.set_rng_state
        )
        others = get()
        put(self._random)
        try:
            yield
        finally:
            self._random = get()
            put(others)

    def _gather(self, batch: Any) -> Batch:
        import torch

        index = torch.from_numpy(self.ranks.own(batch)).to(self.device, non_blocking=True)
        return Batch((self.inputs, self.targets), index)

    def _event(self, done: int, peek: Peek) -> Step:
        plan = self.plan
        if self.every and len(self.data.test_inputs) and self._due(done):
            test_loss, accuracy = self.stepper.evaluate(*self._test)
            peek = replace(peek, test_loss=test_loss, accuracy=accuracy)
        spent, told = (self.spend, self.spend.mark), self.looks.history
        return Step(done, plan.steps, peek, plan.delta, plan.measure, *spent, told)

    @cached_property
    def _test(self) -> tuple[torch.Tensor, ...]:
        """The test data on the device, moved there once."""
        return placed(self.device, self.data.test_inputs, self.data.test_targets)

    def _due(self, done: int) -> bool:
        return done == 1 or done % self.every == 0 or done == self.plan.steps


def _evaluations(plan: Plan, data: Dataset, size: int) -> int:
    """Steps between measurements: about a tenth of the training's work, 20 to 100 of them."""
    trained = 3 * plan.steps * plan.sampler.mean_batch(size, plan.steps)
    wanted = min(100, max(20, 0.1 * trained / max(1, len(data.test_inputs))))
    return max(1, round(plan.steps / wanted))


def _streams(seed: int | None, secure: bool = False) -> tuple[np.random.Generator, Noise]:
    """Separate streams for sampling and noise; without a seed from the system's entropy."""
    _SEED.check("seed", seed)
    seed = None if seed is None else int(seed)
    sampling, noise = np.random.SeedSequence(seed).spawn(2)
    key = None if seed is None else int(noise.generate_state(1, np.uint64)[0])
    return np.random.default_rng(sampling), Noise(key if not secure else seed, secure)


def _dropout_stream(sampling: np.random.Generator, device: torch.device) -> torch.Tensor:
    """The state of a stream for a model's own random numbers, apart from sampling and noise."""
    import torch

    sequence = sampling.bit_generator.seed_seq
    assert isinstance(sequence, np.random.SeedSequence)
    seed = int(sequence.spawn(1)[0].generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device=device).manual_seed(seed).get_state()


def _as_dataset(data: Data) -> Dataset:
    """A data set as it is; a pair of tensors as a data set without test data."""
    from dpkit.datasets import Dataset

    if isinstance(data, Dataset):
        return data
    inputs, targets = data
    return Dataset.of(inputs, targets)
