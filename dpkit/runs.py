"""A run as data: its plan, its public curves and its promise; grows while training goes on."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dpkit import accountants, budgets, gradients, mechanisms, methods, samplers, schedules
from dpkit.plan import Plan
from dpkit.stored import dumps, loads, whole
from dpkit.training import Step
from dpkit.votes import VotePlan

EXPORTS: tuple[type, ...] = (
    Plan,
    VotePlan,
    methods.DPSGD,
    methods.NeuralDP,
    methods.TopAgg,
    methods.Freeze,
    methods.Select,
    methods.Random,
    methods.Magnitude,
    methods.PublicGradient,
    samplers.Poisson,
    samplers.Shuffle,
    samplers.FixedSize,
    samplers.BallsInBins,
    samplers.TruncatedPoisson,
    samplers.Partition,
    gradients.SGD,
    gradients.Adam,
    gradients.Flat,
    gradients.PerLayer,
    gradients.Automatic,
    gradients.Shifts,
    *schedules.STORED,
    budgets.RhoBudget,
    budgets.RDPBudget,
    accountants.PLD,
    accountants.RDP,
    accountants.Moments,
    accountants.ZCDP,
    accountants.GDP,
    accountants.Basic,
    accountants.Advanced,
    accountants.YuRandomSampling,
    mechanisms.Neighbours,
    mechanisms.Access,
    mechanisms.Release,
    mechanisms.Gaussian,
    mechanisms.Laplace,
    mechanisms.RandomisedResponse,
    mechanisms.EpsilonDelta,
    mechanisms.Charged,
    mechanisms.SubsampledGaussian,
    mechanisms.ReplacedGaussian,
    mechanisms.FixedSizeGaussian,
    mechanisms.AllocatedGaussian,
    mechanisms.ShuffledGaussian,
    mechanisms.UpperSide,
)
"""Every class that a stored plan may hold; what is not here is refused."""


def plan_to_json(plan: Plan) -> str:
    """A plan as versioned JSON text; a callable schedule becomes one value a step."""
    return dumps(plan, EXPORTS, kind="plan", steps=plan.steps)


def plan_from_json(text: str) -> Plan:
    """The plan that `plan_to_json` stored; ValueError in one sentence for anything else."""
    return loads(text, EXPORTS, kind="plan")


@dataclass
class Run:
    """One run's settings and public curves: post-processing of what was released.

    *Guarantee*
    - holds nothing that looks at private records: no training loss, no gradient norms.
    """

    plan: Plan
    data: str
    model: str
    num_examples: int
    fingerprint: str
    seed: int | None
    settings: str = ""
    status: str = "ready"
    done: int = 0
    seconds: float = 0.0
    spent_steps: list[int] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)
    tested_steps: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic, repr=False, compare=False)

    def add(self, step: Step, *, spend: bool = False) -> None:
        """Take a step in: its test figures if it has any, its spent epsilon if asked for."""
        if not self.done:
            self._started = time.monotonic()
        self.done = step.step
        self.seconds = time.monotonic() - self._started
        if step.peek.accuracy is not None and step.peek.test_loss is not None:
            self.tested_steps.append(step.step)
            self.accuracy.append(step.peek.accuracy)
            self.test_loss.append(step.peek.test_loss)
        if spend:
            self.add_spend(step)

    def add_spend(self, step: Step) -> None:
        """Take in what was spent up to a step."""
        if not self.spent_steps or self.spent_steps[-1] != step.step:
            self.spent_steps.append(step.step)
            self.spent.append(step.epsilon)

    @property
    def guarantee(self) -> str:
        """The promise of this run in words, as far as it has gone."""
        stopped = self.done if self.status in ("stopped", "failed") else None
        return self.plan.guarantee(seeded=self.seed is not None, stopped_at=stopped)

    def to_json(self) -> str:
        """The run as JSON text that `from_json` loads again."""
        content = {name: getattr(self, name) for name in _PLAIN}
        # A diverged run has a loss that is no number, which JSON does not know.
        content["test_loss"] = [x if abs(x) < float("inf") else None for x in self.test_loss]
        content["spent"] = [x if x < float("inf") else None for x in self.spent]
        head = {"dpkit": "run", "version": 1, "plan": json.loads(plan_to_json(self.plan))}
        head |= {"guarantee": self.guarantee, **content}
        return json.dumps(head, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The run that `to_json` stored; ValueError in one sentence for anything else."""
        try:
            head: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"A stored run must be JSON, but {error}.") from None
        if not isinstance(head, dict) or head.get("dpkit") != "run":
            raise ValueError("This is not a stored run of dpkit.")
        if head.get("version") != 1:
            raise ValueError(f"This run was stored in version {head.get('version')!r}, not 1.")
        missing = [name for name in ("plan", *_PLAIN) if name not in head]
        if missing:
            raise ValueError(f"A stored run must have {', '.join(missing)}.")
        content = {name: head[name] for name in _PLAIN}
        content["test_loss"] = [float("nan") if x is None else x for x in content["test_loss"]]
        content["spent"] = [float("inf") if x is None else x for x in content["spent"]]
        return cls(plan=plan_from_json(json.dumps(head["plan"])), **content)

    def save(self, path: str | Path) -> Path:
        """Write the run as JSON; a file that was there is replaced only by a whole one."""
        try:
            with whole(path) as part:
                part.write_text(self.to_json())
        except OSError as error:
            raise OSError(f"The run could not be written to {path}: {error.strerror}.") from error
        return Path(path)


_PLAIN = (
    "data", "model", "num_examples", "fingerprint", "seed", "settings", "status", "done",
    "seconds", "spent_steps", "spent", "tested_steps", "accuracy", "test_loss",
)  # fmt: skip
