"""NeuralDP read end to end, as a demonstration: why noise on activations does not hide records.

Here the layers before the noise are trained as well. Their update is made of the raw records, and
no noise on activations changes that: nothing in this file states an epsilon, for there is none.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpkit.auditing.bounds import Errors, any_epsilon
from dpkit.auditing.inversion import Inversion
from dpkit.knobs import Knob
from dpkit.noise import Noise
from dpkit.plan import round_down

if TYPE_CHECKING:
    import torch

    from dpkit.datasets import Dataset

NONE = "none: the layers before the noise are trained on the raw records"
"""What stands in the place of an epsilon."""
OUTSIDE = 1e-9
"""Share of an update that lies outside the span of all others, beyond which it is no rounding."""

_KNOBS = {
    "noise_multiplier": Knob("σ", "noise standard deviation / norm of an activation", 0, 1e6),
    "batch_size": Knob("B", "records in a batch", 1, 1_000_000, integer=True),
    "epochs": Knob("E", "passes over the data", 1, 1_000_000, integer=True),
    "trials": Knob("n", "coins to guess", 2, 1_000_000, integer=True),
    "width": Knob("d", "numbers in an activation", 1, 10_000, integer=True),
    "learning_rate": Knob("η", "learning rate", 0, 1e4, open_low=True),
    "delta": Knob("δ", "added probability that e^epsilon does not cover", 0, 1, True, True),
    "confidence": Knob("1 - a", "chance that the bound holds", 0.5, 1, open_high=True),
}


@dataclass(frozen=True)
class Spotted:
    """What an attack on the end-to-end reading found; a claim of any epsilon is refuted by it.

    `refuted` is the largest epsilon that these guesses alone rule out; it grows without end with
    their number, as long as none is wrong.
    """

    errors: Errors
    noise_multiplier: float
    refuted: float
    delta: float
    confidence: float

    @property
    def wrong(self) -> int:
        """How many guesses were wrong."""
        return self.errors.false_positives + self.errors.false_negatives

    @property
    def guesses(self) -> int:
        """How many coins were guessed."""
        return self.errors.absent + self.errors.present

    def __str__(self) -> str:
        """The finding in one sentence."""
        return (
            f"No privacy is promised: of {self.guesses:,} guesses whether a record was in the "
            f"batch, {self.wrong} were wrong, at noise {self.noise_multiplier:g} times the norm of "
            f"an activation; every epsilon up to {round_down(self.refuted)} is ruled out at delta "
            f"{self.delta:g} (confidence {self.confidence:g}), and more guesses rule out more."
        )


def through(
    model: torch.nn.Module,
    data: Dataset,
    *,
    noise_multiplier: float,
    max_norm: float = 1.0,
    learning_rate: float = 0.1,
    momentum: float = 0.0,
    batch_size: int = 128,
    epochs: int = 1,
    seed: int | None = None,
) -> Iterator[float]:
    """Train all of a model through its noisy activation; yields the test accuracy of each epoch.

    The model is `nn.Sequential(*front, PrivateActivation(), *head)`, and moves in place. This is
    the tempting reading of the paper. It promises nothing to anybody: see `spotted`.
    """
    import torch

    _check(noise_multiplier=noise_multiplier, batch_size=batch_size, epochs=epochs,
           learning_rate=learning_rate)  # fmt: skip
    _noisy, noise = _attached(model, max_norm), Noise(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
    order = torch.Generator().manual_seed(0 if seed is None else seed)
    for _ in range(epochs):
        for who in torch.randperm(data.num_examples, generator=order).split(batch_size):
            optimiser.zero_grad()
            outputs = _noisy(data.inputs[who], noise_multiplier, noise)
            torch.nn.functional.cross_entropy(outputs, data.targets[who]).backward()
            optimiser.step()
        with torch.no_grad():
            hits = (model(data.test_inputs).argmax(1) == data.test_targets).sum()
        yield float(hits) / max(1, len(data.test_inputs))


def spotted(
    data: Dataset,
    record: int,
    *,
    noise_multiplier: float,
    width: int = 32,
    batch_size: int = 16,
    trials: int = 200,
    delta: float = 1e-5,
    confidence: float = 0.999,
    seed: int | None = None,
) -> Spotted:
    """Guess, for each of many batches, whether it holds `record` or another in its place.

    As the definition of privacy has it, the attacker knows all other records. The first layer is
    linear, so its update lies in the span of the batch: whatever is outside the span of the others
    is the record's.
    """
    _check(noise_multiplier=noise_multiplier, batch_size=batch_size, trials=trials, width=width,
           delta=delta, confidence=confidence)  # fmt: skip
    scene = _Scene(data, record, width, batch_size, seed)
    found = [scene.once(noise_multiplier, there=bool(trial % 2)) for trial in range(trials)]
    alarms = sum(outside > OUTSIDE for outside, _ in found[0::2])
    misses = sum(outside <= OUTSIDE for outside, _ in found[1::2])
    errors = Errors(alarms, len(found[0::2]), misses, len(found[1::2]))
    refuted = any_epsilon(errors, delta, (1 - confidence) / 2)
    return Spotted(errors, noise_multiplier, refuted, delta, confidence)


def recovered(
    data: Dataset,
    record: int,
    *,
    noise_multiplier: float,
    width: int = 32,
    batch_size: int = 16,
    seed: int | None = None,
) -> Inversion:
    """The record as it stands in one update, beside itself; alone in its batch, an exact copy.

    With others in the batch it is what lies outside their span, which noise does not touch.
    """
    _check(noise_multiplier=noise_multiplier, batch_size=batch_size, width=width)
    scene = _Scene(data, record, width, batch_size, seed)
    scene.known = scene.known[:, :-1]  # those beside it: nobody stands in its place here
    _, direction = scene.once(noise_multiplier, there=True)
    true = scene.inputs[0]
    found = direction * (direction @ true)  # of the right sign and size, for the eye
    return Inversion(data.inputs[record].cpu(), found.reshape(data.shape).float())


class _Scene:
    """A record, those that keep it company, and the first steps of a training through noise."""

    def __init__(self, data: Dataset, record: int, width: int, batch: int, seed: int | None):
        import torch
        from torch import nn

        from dpkit.methods.activation import PrivateActivation

        if not 0 <= record < data.num_examples:
            raise ValueError(
                f"record must be a whole number in [0, {data.num_examples}), got {record}."
            )
        if batch >= min(data.num_examples, math.prod(data.shape)):
            raise ValueError(
                f"batch_size (B, records in a batch) must be below the {data.num_examples:,} "
                f"records and the {math.prod(data.shape)} numbers of one, or their span is "
                f"everything, got {batch}; take fewer."
            )
        self.stream = torch.Generator()
        self.stream.manual_seed(seed) if seed is not None else self.stream.seed()
        self.noise = Noise(seed)
        others = torch.randperm(data.num_examples, generator=self.stream)
        others = others[others != record][:batch]  # the last of them takes the record's place
        who = torch.cat([torch.tensor([record]), others])
        self.inputs = data.inputs[who].flatten(1).double()
        self.targets, size = data.targets[who], self.inputs.shape[1]
        self.model = nn.Sequential(nn.Linear(size, width), PrivateActivation(),
                                   nn.Linear(width, data.num_classes)).double()  # fmt: skip
        # Those that stay and the one in the record's place: the attacker knows them all.
        self.known = torch.linalg.qr(self.inputs[1:].T)[0]

    def once(self, noise_multiplier: float, there: bool) -> tuple[float, torch.Tensor]:
        """The share of one update outside the span of what is known, and its main direction."""
        import torch

        model = copy.deepcopy(self.model)
        first, _, head, _ = model.parameters()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.1, generator=self.stream)
            head.div_(1 + noise_multiplier)  # or noise saturates the softmax now and then
        batch = slice(0, -1) if there else slice(1, None)
        before = first.detach().clone()
        outputs = _attached(model, 1.0)(self.inputs[batch], noise_multiplier, self.noise)
        torch.nn.functional.cross_entropy(outputs, self.targets[batch]).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        update = first.detach() - before
        rest = update - (update @ self.known) @ self.known.T
        direction = torch.linalg.svd(rest, full_matrices=False)[2][0]
        return float(rest.norm() / update.norm().clamp_min(1e-300)), direction


def _attached(model: torch.nn.Module, max_norm: float) -> Callable[..., torch.Tensor]:
    """The model as a function that adds noise at its private activation."""
    from dpkit.methods.cached import parts

    front, activation, head = parts(model)
    activation.max_norm.fill_(max_norm)

    def noisy(inputs: torch.Tensor, sigma: float, noise: Noise) -> torch.Tensor:
        rows = activation(front(inputs))
        outputs: torch.Tensor = head(
            rows + noise.add_(rows.new_zeros(rows.shape), sigma * max_norm)
        )
        return outputs

    return noisy


def _check(**given: float) -> None:
    for name, value in given.items():
        _KNOBS[name].check(name, value)
