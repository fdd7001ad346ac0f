"""DP-SGD: clip each record's gradient, add Gaussian noise to the sum, descend."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from dpkit.gradients.augmentation import Augmentation, check_apart
from dpkit.gradients.clipping import Clipping, Flat
from dpkit.gradients.optimisers import SGD, Adam, Optimiser
from dpkit.knobs import Knob, check_knobs, knob
from dpkit.mechanisms import Access, Gaussian, Neighbours, Release
from dpkit.methods.averaging import Average
from dpkit.methods.base import Loss, Method, Peek, check_once
from dpkit.methods.masks import Mask
from dpkit.ranks import Ranks
from dpkit.schedules import Schedule, ValidationDecay, at, scaled

if TYPE_CHECKING:
    import torch

    from dpkit.gradients import Clipped, Engine
    from dpkit.gradients.support import Support
    from dpkit.methods.masking import Masking
    from dpkit.noise import Noise

_AVERAGING = Knob("a", "share of the average weights that outlives a step", 0, 1, open_high=True)


@dataclass(frozen=True)
class DPSGD(Method):
    """Differentially private stochastic gradient descent.

    *Guarantee*
    - each step releases one Gaussian of standard deviation sigma C on a sum to which a record
      contributes a vector of norm at most C, whatever the `clipping`; all else, the `optimiser`
      included, is post-processing;
    - the sum is divided by a public constant, never by the batch that was drawn.

    *Source*: Abadi et al. 2016, algorithm 1.
    """

    noise_multiplier: Schedule = knob(
        1.0, "σ", "noise standard deviation / clip norm", 0, 10_000, schedule=True,
        slider=(0.0, 20.0),
    )  # fmt: skip
    max_grad_norm: Schedule = knob(
        1.0, "C", "clip norm of a record's gradient", 0, 1e6, schedule=True, open_low=True,
        log=True, slider=(0.01, 100.0),
    )  # fmt: skip
    learning_rate: Schedule = knob(
        0.1, "η", "learning rate", 0, 1e4, schedule=True, open_low=True, log=True,
        slider=(0.001, 10.0),
    )  # fmt: skip
    momentum: float = knob(0.0, "m", "momentum of the updates", 0, 1, open_high=True)
    optimiser: Optimiser | None = None
    """How the model moves by the private gradient; None is SGD with `momentum`."""
    clipping: Clipping = Flat()  # noqa: RUF009 - a frozen value
    """How a record's gradient is bounded."""
    augmentation: Augmentation | None = None
    """The views of a record, whose mean gradient is bounded as one; None is the record itself."""
    averaging: float = 0.0
    """The model holds a running average of the released weights; 0 is the latest weights."""
    mask: Mask | None = None
    """Which parameters a step may move: `Freeze` or `Select`; None is all."""

    relations: ClassVar[tuple[Neighbours, ...]] = tuple(Neighbours)

    def __post_init__(self) -> None:
        """Check every knob, that the momentum is given once, and that noise alone reacts."""
        check_knobs(self)
        _AVERAGING.check("averaging", self.averaging)
        if not isinstance(self.augmentation, Augmentation | None):
            raise TypeError(
                f"augmentation (how a record is seen) must be an Augmentation such as Shifts(), or "
                f"None, got {self.augmentation!r}."
            )
        self._check_mask()
        for name in ("max_grad_norm", "learning_rate"):
            if isinstance(getattr(self, name), ValidationDecay):
                raise ValueError(
                    f"{name} cannot follow ValidationDecay, which sets the noise_multiplier alone; "
                    f"give it a schedule that is fixed beforehand."
                )
        if self.optimiser is not None and self.momentum:
            raise ValueError(
                f"momentum (m) must be 0 beside an optimiser, which has its own, got "
                f"{self.momentum:g}: give it to the optimiser, as in SGD(momentum=0.9)."
            )

    def _check_mask(self) -> None:
        if not isinstance(self.mask, Mask | None):
            raise TypeError(
                f"mask (which parameters a step may move) must be Freeze(ratio) or Select(ratio), "
                f"or None, got {self.mask!r}; one that was read from private gradients would be a "
                f"release that nobody has paid for."
            )
        if self.mask is not None and not isinstance(self.optimiser, SGD | Adam | None):
            raise TypeError(
                f"mask needs an optimiser whose memory can be masked too, SGD or Adam of "
                f"dpkit.gradients, got {self.optimiser!r}."
            )

    @property
    def varies(self) -> bool:
        """Whether the noise multiplier is a function of the step."""
        return callable(self.noise_multiplier)

    @property
    def reacting(self) -> ValidationDecay | None:
        """The noise schedule if it reacts to validation accuracy."""
        noise = self.noise_multiplier
        return noise if isinstance(noise, ValidationDecay) else None

    def releases(self, step: int, history: tuple[float, ...] = ()) -> tuple[Release, ...]:
        """One Gaussian on the sampled records; its noise is relative to C, whatever C is."""
        return (Release(Gaussian(at(self.noise_multiplier, step, history))),)

    def scaled(self, factor: float) -> Self:
        """The same run with the noise multiplier times a factor."""
        return replace(self, noise_multiplier=scaled(self.noise_multiplier, factor))

    def check_records(self, shape: tuple[int, ...]) -> None:
        """Views need records that have them, such as images."""
        if self.augmentation is not None:
            self.augmentation.check(shape)

    def start(self, model: torch.nn.Module, loss: Loss, expected_batch: Schedule) -> DPSGDStepper:
        """Take hold of a model; refuses layers that mix records."""
        from dpkit.gradients import Engine

        return DPSGDStepper(self, Engine(model, loss, self.clipping), expected_batch)


class DPSGDStepper:
    """DP-SGD at work on one model."""

    def __init__(self, method: DPSGD, engine: Engine, expected_batch: Schedule) -> None:
        """Hold the engine, and start the optimiser on its parameters."""
        self.method, self.engine, self.expected_batch = method, engine, expected_batch
        self._ranks = Ranks.current()
        rule = method.optimiser or SGD(method.momentum)
        self._masking: Masking | None = None
        self._support: Support | None = None
        if method.mask is not None:
            from dpkit.methods.masking import Masking

            self._masking = Masking(method.mask, engine, rule)
        self._updater = self._masking.updater if self._masking else rule.start(engine)
        self._average = Average(method.averaging, engine.parameters) if method.averaging else None

    def step(
        self,
        step: int,
        batch: tuple[torch.Tensor, torch.Tensor],
        releases: tuple[Release, ...],
        generator: Noise,
    ) -> Peek:
        """One noisy clipped sum, divided by the expected batch, and one descent step."""
        import torch

        (release,) = releases
        check_once(releases, Access.SAMPLED, Access.ALL)
        with self._average.latest_at(step) if self._average else nullcontext():
            bound = self._masked(step, at(self.method.max_grad_norm, step))
            clipped = self._clipped(batch, bound)
            noisy = clipped.total
            if self._ranks.first:  # before the sum is shared
                noisy = release.mechanism.draw(noisy, bound, generator)
            self._ranks.sum_(noisy)
            noisy = self.denoised(noisy, release, bound)
            size, rate = at(self.expected_batch, step), at(self.method.learning_rate, step)
            self._updater.move(noisy, size, rate)
        looks = torch.stack([clipped.losses, clipped.norms]).double()
        losses, norms = looks.cpu().numpy()  # waits for a GPU once
        finite = float(losses[np.isfinite(losses)].sum())
        return _peek(self._ranks.gathered((finite, clipped.skipped, norms)), bound)

    def _masked(self, step: int, bound: float) -> float:
        """Settle the support of a step, if there is a mask, and its clip norm."""
        if self._masking is None:
            return bound
        self._support = support = self._masking.support(step, self.engine.parameters)
        if self._average:
            self._average.touched = support.index
        return bound * support.share**0.5 if self._masking.mask.scaled_norm else bound

    def _clipped(self, batch: tuple[torch.Tensor, torch.Tensor], bound: float) -> Clipped:
        """The clipped sum over a batch, of the records or of the means over their views."""
        augmentation = self.method.augmentation
        if augmentation is None:
            return self.engine.clipped_sum(*batch, bound, self._support)
        views = augmentation.drawn(batch[0].device)
        return self.engine.transformed_sum(*batch, _unchanged, bound, views, self._support)

    def denoised(self, noisy: torch.Tensor, release: Release, bound: float) -> torch.Tensor:
        """The noisy sum as the update takes it: post-processing."""
        return noisy

    def limit(self, microbatch: int | None, memory_budget: int | None) -> None:
        """Work on so many records at a time, within so many bytes."""
        self.engine.limit(microbatch, memory_budget)

    def prepare(self, inputs: torch.Tensor, targets: torch.Tensor, classes: int | None) -> None:
        """Refuse what does not fit together, by a look at invented records."""
        self.engine.prepare(inputs, targets, classes)
        if self.method.augmentation is not None:
            from dpkit.gradients.checks import same_random_numbers
            from dpkit.gradients.probe import made_up

            invented, _ = made_up(inputs, targets)
            with same_random_numbers(invented):
                check_apart(self.method.augmentation, invented)

    def learn(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Take the data set's public records, of which there may be none."""
        if self._masking is not None:
            self._masking.learn(inputs, targets)

    def evaluate(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, float | None]:
        """Mean loss and accuracy (None without classes) of the present model on public data."""
        return self.engine.evaluate(inputs, targets)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the model."""
        latest = {"latest": self._average.latest} if self._average else {}
        return self._updater.state() | latest | (self._masking.state() if self._masking else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        ours = {"latest", "scores"}
        self._updater.restore({name: held for name, held in state.items() if name not in ours})
        if self._average:
            self._average.latest.copy_(state["latest"])
        if self._masking:
            self._masking.restore(state)


def _unchanged(rows: torch.Tensor) -> torch.Tensor:
    return rows


def _peek(parts: list[tuple[float, int, np.ndarray]], max_grad_norm: float) -> Peek:
    """One look at what all ranks saw: sums of finite losses, skipped records, norms."""
    norms = np.concatenate([part[2] for part in parts])
    skipped = sum(part[1] for part in parts)
    kept = len(norms) - skipped
    return Peek(
        loss=sum(part[0] for part in parts) / kept if kept else float("nan"),
        norms=norms,
        max_grad_norm=max_grad_norm,
        batch_size=len(norms),
        skipped=skipped,
    )
