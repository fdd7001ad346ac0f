"""A session at the playground: its data, its plan, its runs and what they cost; nothing drawn."""

from __future__ import annotations

import copy
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpkit import zoo
from dpkit.accountants import PLD
from dpkit.plan import Curve, Plan, round_down, round_up
from dpkit.runs import Run
from dpkit.samplers import FixedSize
from dpkit.settings import Settings, choose
from dpkit.spending import price
from dpkit.training import Step, train
from dpkit.widgets import words
from dpkit.widgets.budget import Budget
from dpkit.widgets.runner import Runner, State
from dpkit.widgets.told import retold
from dpkit.words import say

if TYPE_CHECKING:
    import torch

    from dpkit.datasets import Dataset

    Model = Callable[..., torch.nn.Module] | torch.nn.Module

MOST_RUNS = 6
"""Runs kept for comparison; the oldest leaves first."""
CURVE_POINTS, FEW_POINTS = 120, 16
_LOUD = 0.3  # of a noise below this each point takes milliseconds
_SHARE, _LONGEST = 32, 0.6
_BETWEEN = 16


class Session:
    """Plans, starts and keeps runs; tells `drawn(step)` at most every `pause` seconds.

    Where that costs more than a thirtieth of the time it is told less often, at least twice in
    about a second.

    `held()` is told when a pause has begun, `ended(state, error)` when a run is over.

    *Guarantee*
    - a run is written into the budget before its first batch is drawn;
    - at most one run is on, and `ended(state, error)` is called once for each, before the next.
    """

    def __init__(
        self,
        data: Dataset,
        model: Model | None,
        device: str | None,
        pause: float,
        drawn: Callable[[Step], None],
        held: Callable[[], None],
        ended: Callable[[State, Exception | None], None],
    ) -> None:
        """Begin with a data set and no run; `model` None means the one that settings name."""
        self.data, self._given, self._device = data, model, device
        self._pause, self._drawn, self._ended = pause, drawn, ended
        self.budget, self.runs = Budget(), list[Run]()
        self.model: torch.nn.Module | None = None
        self.last: Step | None = None
        self.runner = Runner(self._on_step, held, self._on_end)
        self._lock = threading.RLock()
        self._due = self._began = 0.0
        self._since, self._every = list[Step](), 1
        self.plan: Plan
        self.planned: Curve
        self.least: float | None = None

    @property
    def run(self) -> Run | None:
        """The latest run."""
        return self.runs[-1] if self.runs else None

    def replan(self, settings: Settings) -> Plan:
        """Price the settings; on an error the plan in force stays."""
        plan = settings.plan(self.data.num_examples)
        ledger = plan.ledger()
        # Subsets of fixed size, and next to no noise, have no fast path: fewer points of a curve.
        noises = [getattr(m, "noise_multiplier", 1.0) for m in ledger.mechanisms]
        few = isinstance(plan.sampler, FixedSize) or min(noises, default=1.0) < _LOUD
        self.plan, self.planned = plan, plan.curve(FEW_POINTS if few else CURVE_POINTS)
        banded = plan.accountant == PLD() and any(m.band for m in ledger.mechanisms)
        self.least = PLD().below(ledger, plan.delta) if banded else None
        return plan

    def told(self) -> str:
        """The plan in force in words: its price, whom it protects against, its band."""
        plan, end = self.plan, float(self.planned.epsilon[-1])
        high = round_up(end)
        size = self.data.num_examples
        rest = plan.sampler.remainder(size)
        known = self.least is None or not math.isfinite(end) or self.least > 0.999 * end
        band = say(words.BAND, low=round_down(self.least or 0.0), high=high)
        return say(
            words.PLANNED,
            epsilon=high, kind="" if plan.accountant.is_bound else say(words.ESTIMATE),
            delta=plan.delta, sigma=getattr(plan.method, "noise_multiplier", float("nan")),
            rate=plan.sampler.mean_batch(size, plan.steps) / size,
            steps=plan.steps, relation=say(plan.neighbours.value),
            sampler=retold(plan.sampler.describe), remainder=f" {retold(rest)}" if rest else "",
            band="" if known else band,
        )  # fmt: skip

    def take(self, data: Dataset) -> None:
        """Go on with other data; only runs on the same data stay for comparison."""
        self.data = data
        if not self.runner.busy:
            self.model, self.last = None, None
        self.runs = [run for run in self.runs if run.fingerprint == data.fingerprint]

    def start(self, settings: Settings) -> bool:
        """Begin a run of the plan in force; False if one is on already."""
        with self._lock:
            # The end of the run before may still be being told, from what is replaced here.
            if self.runner.busy or not self.runner.join(10):
                return False
            plan, data, seed = self.plan, self.data, settings.seed
            model = self._fresh(settings)
            run = Run(plan, data.name, settings.model, data.num_examples, data.fingerprint,
                      seed, settings.to_string())  # fmt: skip

            def steps() -> Iterator[Step]:
                # The panel shows the cautions itself.
                with warnings.catch_warnings(action="ignore"):
                    return train(model, data, plan, seed=seed, device=self._device)

            self.budget.add(data, plan)
            self.model, self.last, self._since, self._every = model, None, [], 1
            self.runs = [*self.runs, run][-MOST_RUNS:]
            run.status, self._began = State.RUNNING.value, time.monotonic()
            return self.runner.start(steps)

    def forget(self) -> None:
        """Stop and forget the kept runs; what is spent stays spent."""
        self.runner.stop()
        self.runner.join(10)
        self.runs, self.model, self.last = [], None, None
        self.runner.state = State.IDLE

    def seconds_left(self, step: Step) -> tuple[float, float]:
        """Time to the end of the run and steps a second, by the mean so far."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return seconds / step.step * (step.steps - step.step), step.step / seconds

    def save_weights(self, path: str | Path) -> Path:
        """Write the trained weights alone: nothing that is not private goes with them."""
        import torch

        if self.model is None or self.runner.busy:
            raise ValueError(say("There are no final weights yet; train to the end or press Stop."))
        torch.save({k: v.detach().cpu() for k, v in self.model.state_dict().items()}, path)
        return Path(path)

    def _fresh(self, settings: Settings) -> torch.nn.Module:
        import torch

        if isinstance(self._given, torch.nn.Module):
            return copy.deepcopy(self._given)
        factory: Any = self._given or choose(settings.model, zoo.MODELS, "model")
        return factory(self.data, seed=settings.seed)

    def _on_step(self, step: Step) -> None:
        now = time.monotonic()
        due = now >= self._due or step.step in (1, step.steps)
        self.runs[-1].add(step)
        self.last = step
        if step.step % self._every == 0:
            self._since.append(step)
        if len(self._since) > _BETWEEN:
            self._every *= 2
            self._since = [kept for kept in self._since if kept.step % self._every == 0]
        if due:
            self._spent()
            self._drawn(step)
            took = time.monotonic() - now
            # A thirtieth of the time: all that a panel costs must stay below a twentieth.
            self._due = now + took + min(max(self._pause, _SHARE * took), _LONGEST)

    def _spent(self) -> None:
        """Price steps evenly since the last drawing, so that the spent curve bends as it should."""
        last = self.last
        assert last is not None
        told = bool(self._since) and self._since[-1].step == last.step
        steps = self._since if told else [*self._since, last]
        price(steps)
        for step in steps:
            self.runs[-1].add_spend(step)
        self._since, self._every = [], 1

    def _on_end(self, state: State, failure: Exception | None) -> None:
        run = self.runs[-1]
        run.status = state.value
        if self.last is not None:
            self._spent()
        self._ended(state, failure)


def rate_for_cores() -> float:
    """Updates a second: 8, or 4 where less than two cores are ours."""
    cores: float = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        pass
    return 8.0 if cores >= 2 else 4.0
