"""Record what a run gave to its mechanisms, and replay it on a neighbour with frozen outputs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np
import torch

import dpkit as dp
from dpkit.runs import Run

TEST = (torch.linspace(-1, 1, 24).double().view(4, 6), torch.tensor([0, 1, 2, 0]))


@dataclass
class Draw:
    """One release: the mechanism, the sum it was given, the norm it was told, what came out."""

    mechanism: dp.Mechanism
    total: torch.Tensor
    norm: float
    noisy: torch.Tensor

    @property
    def noise(self) -> torch.Tensor:
        return (self.noisy - self.total).double()


@dataclass
class Recording:
    """One run as an attacker might see it, and what its mechanisms were given."""

    draws: list[Draw] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    weights: list[list[torch.Tensor]] = field(default_factory=list)
    public: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    ledger: dp.Ledger | None = None
    epsilon: float = float("nan")

    def of_step(self, step: int) -> list[Draw]:
        """The releases of one step."""
        return self.draws[self.ends[step - 1] if step else 0 : self.ends[step]]


def drawing_kinds(kind: type = dp.Mechanism) -> list[type]:
    """Every mechanism that draws."""
    found = [kind] if "draw" in vars(kind) and kind is not dp.Mechanism else []
    return found + [k for sub in kind.__subclasses__() for k in drawing_kinds(sub)]


@contextmanager
def listening(recording: Recording, frozen: Sequence[Draw] | None = None) -> Iterator[None]:
    """Log every draw; with `frozen`, give out those outputs instead of new ones."""

    def listener(original):
        def draw(mechanism, total, norm, generator):
            given = total.detach().clone()
            if frozen is None:
                noisy = original(mechanism, total, norm, generator)
            else:
                assert len(recording.draws) < len(frozen), "one release more than on D"
                noisy = frozen[len(recording.draws)].noisy.clone()
            recording.draws.append(Draw(mechanism, given, float(norm), noisy.detach().clone()))
            return noisy

        return draw

    patches = [patch.object(k, "draw", listener(k.__dict__["draw"])) for k in drawing_kinds()]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


@contextmanager
def deciding(sampler: dp.Sampler, decisions: Sequence[np.ndarray] | None) -> Iterator[None]:
    """Let a sampler hand out these batches instead of drawing."""
    if decisions is None:
        yield
        return
    with patch.object(type(sampler), "batches", lambda self, n, rng: iter(decisions)):
        yield


def seeding_the_cpu_alone():
    """Spare the stack traces that torch keeps of each seeding for devices that are not there.

    They took half of the time of a short run.
    """
    return patch.object(torch, "manual_seed", torch.default_generator.manual_seed)


def drawn(sampler: dp.Sampler, num_examples: int, seed: int) -> list[np.ndarray]:
    """The batches that a sampler draws by itself."""
    return list(sampler.batches(num_examples, np.random.default_rng(seed)))


def smuggled(
    inputs: torch.Tensor, targets: torch.Tensor, test=None, public=None
) -> dp.datasets.Dataset:
    """A data set that its own checks would refuse: NaN, no record, float64, real targets.

    The loop must hold its promise without the door keeper: data may come from elsewhere one day.
    """
    harmless = torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    data = dp.datasets.Dataset.of(*harmless, name="made", classes=("0", "1", "2"))
    here = {"inputs": inputs, "targets": targets}
    if test is not None:
        here |= {"test_inputs": test[0].to(inputs.dtype), "test_targets": test[1]}
    if public is not None:
        here |= {"public_inputs": public[0].to(inputs.dtype), "public_targets": public[1]}
    for name, value in here.items():
        object.__setattr__(data, name, value)
    return data


def record(
    plan: dp.Plan,
    model: torch.nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    *,
    num_examples: int,
    loss=None,
    decisions: Sequence[np.ndarray] | None = None,
    frozen: Recording | None = None,
    seed: int | None = 0,
    public=None,
) -> Recording:
    """Train through the public entry point and log all that happens."""
    out = Recording()
    test = TEST if data[0].shape[1:] == TEST[0].shape[1:] and data[1].ndim == 1 else None
    if public is None and data[1].ndim == 1:
        public = published(data[0])
    dataset = smuggled(*data, test, public)
    run = Run(plan, "made", "model", num_examples, fingerprint="", seed=seed)
    with (
        warnings.catch_warnings(record=True) as told,
        seeding_the_cpu_alone(),
        listening(out, None if frozen is None else frozen.draws),
        deciding(plan.sampler, decisions),
    ):
        warnings.simplefilter("always")
        options = {"loss": loss, "seed": seed, "num_examples": num_examples, "device": "cpu"}
        for step in dp.train(model, dataset, plan, **options):
            run.add(step)
            out.ends.append(len(out.draws))
            out.sizes.append(step.peek.batch_size)
            out.weights.append([v.detach().clone() for v in model.state_dict().values()])
        run.add_spend(step)
    out.ledger, out.epsilon = step.ledger, step.epsilon
    stored = json.loads(run.to_json()) | {"seconds": 0, "validation": step.validation}
    out.public = [json.dumps(stored)] + sorted({str(w.message) for w in told})
    return out


def published(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Public records of the shape and kind of the private ones, the same beside all of them."""
    made = torch.arange(6 * like[:1].numel() if len(like) else 6).view(6, *like.shape[1:])
    return made % 3 if not like.is_floating_point() else (made % 7 - 3) / 3, torch.arange(6) % 3


def violations(
    left: Recording, right: Recording, sensitivity: float, present: Sequence[bool]
) -> list[str]:
    """What a neighbour's run reveals beyond its releases; `present`: the record is in step t.

    Between the two runs all outputs are equal, so whatever differs is a leak: the number, kind,
    scale and shape of releases, the weights, the ledger, the public stream, or a sum that moved
    by more than the sensitivity (times C).
    """
    found = []
    if left.ends != right.ends:
        return [f"releases: {left.ends} against {right.ends}"]
    for step, here in enumerate(present):
        for a, b in zip(left.of_step(step), right.of_step(step), strict=True):
            if a.mechanism != b.mechanism or a.norm != b.norm:
                found.append(f"step {step}: noise {a.mechanism}, {a.norm}; {b.mechanism}, {b.norm}")
            if a.total.shape != b.total.shape:
                found.append(f"step {step}: shape {a.total.shape}; {b.total.shape}")
            elif not (torch.isfinite(a.total).all() and torch.isfinite(b.total).all()):
                found.append(f"step {step}: a sum that is not finite")
            else:
                found += _moved(a, b, sensitivity if here else 0.0, step)
        pairs = zip(left.weights[step], right.weights[step], strict=True)
        if not all(torch.equal(a, b) for a, b in pairs):
            found.append(f"step {step}: the weights differ though every output is the same")
    if left.ledger != right.ledger or left.epsilon != right.epsilon:
        found.append(f"the ledger: {left.ledger} against {right.ledger}")
    if left.public != right.public:
        found.append(f"the public stream: {left.public} against {right.public}")
    return found


def _moved(a: Draw, b: Draw, sensitivity: float, step: int) -> list[str]:
    if not a.total.is_floating_point():  # answers, of which one record gives one
        changed = int((a.total != b.total).sum())
        return [f"step {step}: {changed} answers changed"] if changed > 1 else []
    moved = float((a.total.double() - b.total.double()).norm())
    # What rounding may move: a sum of a dozen vectors of norm C, in the model's own precision.
    slack = 30 * torch.finfo(a.total.dtype).eps + 1e-6 * sensitivity
    if moved <= (sensitivity + slack) * a.norm:
        return []
    return [f"step {step}: the sum moved by {moved:.6g}, allowed {sensitivity} x {a.norm}"]
