"""NeuralDP: release each record's activation with noise; all that is trained on it is free."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from dpkit.gradients.optimisers import SGD, Optimiser
from dpkit.knobs import Knob, check_knobs, knob
from dpkit.mechanisms import Access, Gaussian, Neighbours, RandomisedResponse, Refused, Release
from dpkit.methods.base import Loss, Method
from dpkit.ranks import Ranks
from dpkit.schedules import Schedule, ValidationDecay

if TYPE_CHECKING:
    import torch

    from dpkit.methods.cached import NeuralDPStepper

RELEASE = ("once", "each epoch")
_AVERAGING = Knob("a", "share of the average weights that outlives a step", 0, 1, open_high=True)


@dataclass(frozen=True)
class NeuralDP(Method):
    """Private activations: noise on what a public layer makes of each record, then plain training.

    The model is `nn.Sequential(*public, PrivateActivation(), *head)`; the head alone is trained.
    `release="once"` draws one noisy activation of every record before the first step and keeps it:
    training on it for any time costs nothing. `"each epoch"` draws afresh every `steps_per_epoch`
    steps, and pays each time. `labels=RandomisedResponse(epsilon, k)` randomises each label once;
    without it labels are used as they are, and are not protected.

    *Guarantee*
    - a release adds Gaussian noise of standard deviation sigma C to rows of norm at most C, one for
      each record: replacing a record moves its own row alone, by at most 2C;
    - every record is released, whoever is in a batch: no sampling amplifies it;
    - what is before the layer is frozen. It must be public, or paid for by the plan's `before`.

    *Source*: Knolle et al. 2021, read so that the promise holds: the layers before stay fixed.
    """

    noise_multiplier: float = knob(
        1.0, "σ", "noise standard deviation / norm of an activation", 0, 10_000,
        log=True, slider=(0.3, 20.0),
    )  # fmt: skip
    max_norm: float = knob(
        1.0, "C", "norm of a record's activation", 0, 1e6, open_low=True, log=True,
        slider=(0.01, 100.0),
    )  # fmt: skip
    learning_rate: Schedule = knob(
        0.1, "η", "learning rate", 0, 1e4, schedule=True, open_low=True, log=True,
        slider=(0.001, 10.0),
    )  # fmt: skip
    momentum: float = knob(0.0, "m", "momentum of the updates", 0, 1, open_high=True)
    release: str = "once"
    """When activations are released: "once", or "each epoch" of `steps_per_epoch` steps."""
    steps_per_epoch: int | None = knob(
        None, "t", "steps from one release to the next", 1, 10_000_000, integer=True, optional=True,
        log=True, slider=(1, 1000),
    )  # fmt: skip
    normalise: bool = True
    """Whether every activation is brought to norm C, or only clipped to it."""
    labels: RandomisedResponse | None = None
    """How labels are randomised, once; None takes them as public."""
    optimiser: Optimiser | None = None
    """How the head moves; None is SGD with `momentum`."""
    averaging: float = 0.0
    """The model holds a running average of the head's weights; 0 is the latest weights."""

    relations: ClassVar[tuple[Neighbours, ...]] = (Neighbours.REPLACE_ONE,)

    def __post_init__(self) -> None:
        """Check every knob, and that the releases are told in one way."""
        check_knobs(self)
        _AVERAGING.check("averaging", self.averaging)
        self._check_release()
        if not isinstance(self.normalise, bool):
            raise TypeError(
                f"normalise (bring every activation to norm C, or clip it) must be True or False, "
                f"got {self.normalise!r}."
            )
        if not isinstance(self.labels, RandomisedResponse | None):
            raise TypeError(
                f"labels (how they are randomised) must be a RandomisedResponse(epsilon, k), or "
                f"None where they are public, got {self.labels!r}."
            )
        if isinstance(self.learning_rate, ValidationDecay):
            raise ValueError(
                "learning_rate cannot follow ValidationDecay, which sets the noise of DPSGD alone; "
                "give it a schedule that is fixed beforehand."
            )
        if self.optimiser is not None and self.momentum:
            raise ValueError(
                f"momentum (m) must be 0 beside an optimiser, which has its own, got "
                f"{self.momentum:g}: give it to the optimiser, as in SGD(momentum=0.9)."
            )

    @property
    def varies(self) -> bool:
        """The first step of a release differs from those that train on it."""
        return True

    @property
    def unit(self) -> str:
        """A label that is not randomised is not protected."""
        return "one example" if self.labels else "the input of one example, its label being public"

    def terms(self, steps: int) -> str:
        """How often a record is released, and what the promise rests on."""
        count = -(-steps // self.steps_per_epoch) if self.steps_per_epoch else 1
        labels = ", its label once by randomised response" if self.labels else ""
        times = "once" if count == 1 else f"{count:,} times"
        return (
            f"Every record's noisy activation is released {times}{labels}: no batch amplifies that "
            f"and training on it is free; the layers before it are public and frozen, or paid for."
        )

    def releases(self, step: int, history: tuple[float, ...] = ()) -> tuple[Release, ...]:
        """One Gaussian on all records where a release is due, and labels with the first."""
        if step % self.steps_per_epoch if self.steps_per_epoch else step:
            return ()
        activations = Release(Gaussian(self.noise_multiplier), access=Access.ALL)
        if step or self.labels is None:
            return (activations,)
        return (activations, Release(self.labels, access=Access.ALL))

    def scaled(self, factor: float) -> Self:
        """The same run with the noise on activations times a factor; labels stay as they are."""
        return replace(self, noise_multiplier=self.noise_multiplier * factor)

    def start(
        self, model: torch.nn.Module, loss: Loss, expected_batch: Schedule
    ) -> NeuralDPStepper:
        """Take hold of a head; refuses a model that has no private activation, or trains before."""
        from dpkit.methods.cached import NeuralDPStepper

        if Ranks.current().size > 1:
            raise Refused(
                "NeuralDP keeps one noisy copy of all records and trains its head in one process: "
                "start it without torch.distributed."
            )
        return NeuralDPStepper(self, model, loss, self.optimiser or SGD(self.momentum))

    def _check_release(self) -> None:
        if self.release not in RELEASE:
            raise ValueError(
                f'release (when activations are released) must be "once" or "each epoch", got '
                f"{self.release!r}."
            )
        if (self.release == "once") != (self.steps_per_epoch is None):
            raise ValueError(
                f"steps_per_epoch (t, steps from one release to the next) must be a whole number "
                f'for release="each epoch" and None for "once", got {self.steps_per_epoch!r} for '
                f'"{self.release}".'
            )
