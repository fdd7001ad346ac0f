"""A head at work on what was released: noisy activations and labels, kept for all later steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from dpkit.gradients.checks import (
    check_modules,
    check_nothing_remembered,
    check_records_apart,
    in_evaluation,
)
from dpkit.gradients.fitting import check_fits
from dpkit.gradients.losses import PerExampleLoss
from dpkit.gradients.optimisers import Optimiser
from dpkit.gradients.parameters import FlatParameters
from dpkit.gradients.probe import made_up
from dpkit.mechanisms import Access, RandomisedResponse, Refused, Release
from dpkit.methods.activation import PrivateActivation
from dpkit.methods.averaging import Average
from dpkit.methods.base import Batch, Peek, check_once
from dpkit.schedules import at

if TYPE_CHECKING:
    from dpkit.methods.neuraldp import NeuralDP
    from dpkit.noise import Noise

CHUNK = 1_000
"""Records that pass the public layers at a time, unless a microbatch is asked for."""


class NeuralDPStepper:
    """NeuralDP at work on one model: a release now and then, plain descent on it in between.

    *Guarantee*
    - a step without a release reads noisy activations and kept labels alone;
    - what was released is kept in the checkpoint and never drawn a second time.
    """

    def __init__(
        self, method: NeuralDP, model: nn.Module, loss: Callable[..., Tensor], rule: Optimiser
    ) -> None:
        """Split the model at its private activation; refuse what trains or mixes before it."""
        self.method, self.model, self.loss = method, model, PerExampleLoss(loss)
        self.public, self.activation, self.head = split(model)
        self.activation.max_norm.fill_(method.max_norm)
        self.activation.normalises.fill_(method.normalise)
        flat = FlatParameters(self.head)
        self.parameters, self.leaves, self.slices = flat.vector, flat.leaves, flat.slices
        self._updater = rule.start(cast(Any, self))  # it reads these three alone
        self._average = Average(method.averaging, flat.vector) if method.averaging else None
        self._kept: dict[str, Tensor] = {}
        self._norms: Tensor | None = None  # for the learner's eye, so no checkpoint holds them
        self._chunk = CHUNK

    def limit(self, microbatch: int | None, memory_budget: int | None) -> None:
        """Pass so many records at a time through the public layers."""
        self._chunk = microbatch or CHUNK

    def prepare(self, inputs: Tensor, targets: Tensor, classes: int | None) -> None:
        """Refuse what does not fit together, by a look at invented records."""
        self._check_labels(targets, classes)
        x, y = made_up(inputs, targets)
        check_fits(self.model, self.loss, x, y, self.parameters, classes)
        check_nothing_remembered(self.public, x)
        with in_evaluation(self.public):
            check_records_apart(self.public, PerExampleLoss(_no_loss), x, y)

    def step(
        self, step: int, batch: Batch, releases: tuple[Release, ...], generator: Noise
    ) -> Peek:
        """Release what is due, of all records; then one plain step of the head on the batch."""
        self._check_kept(releases)
        check_once(releases, Access.ALL)
        if releases or self._norms is None:
            rows, self._norms = self._bounded(batch.everyone[0])
            self._release(rows, batch.everyone[1], releases, generator)
        held = self._kept["rows"], self._kept["labels"], self._norms
        rows, labels, norms = (values.index_select(0, batch.who) for values in held)
        loss = self._descend(step, rows, labels) if len(rows) else float("nan")
        return Peek(loss, norms.cpu().numpy(), self.method.max_norm, len(rows),
                    int(norms.isnan().sum()))  # fmt: skip

    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[float, float | None]:
        """Mean loss and accuracy (None without classes) on public data, without noise."""
        classes = not targets.is_floating_point() and targets.ndim == 1
        loss, hits = 0.0, 0
        with torch.no_grad(), in_evaluation(self.model):
            for x, y in zip(inputs.split(self._chunk), targets.split(self._chunk), strict=True):
                outputs = self.model(x)
                loss += float(self.loss(outputs, y).double().sum())
                hits += int((outputs.argmax(1) == y).sum()) if classes else 0
        return loss / len(inputs), hits / len(inputs) if classes else None

    def state(self) -> dict[str, Any]:
        """What was released, which is paid for once, and where the optimiser stands."""
        latest = {"latest": self._average.latest} if self._average else {}
        return {"kept": dict(self._kept), "updater": self._updater.state()} | latest

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        place = self.parameters.device
        self._kept = {name: kept.to(place) for name, kept in state["kept"].items()}
        self._updater.restore(state["updater"])
        if self._average:
            self._average.latest.copy_(state["latest"])

    @torch.no_grad()
    def _bounded(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Activations (N, d) of norm C at most, and the norms (N,) that they had."""
        with in_evaluation(self.public):
            parts = [self.activation.bounded(self.public(x)) for x in inputs.split(self._chunk)]
        return tuple(torch.cat(some) for some in zip(*parts, strict=True))

    def _release(
        self, rows: Tensor, targets: Tensor, releases: Sequence[Release], generator: Noise
    ) -> None:
        """Draw each release on all records, and keep what comes out."""
        if self.method.labels is None:
            self._kept["labels"] = targets
        for release in releases:
            if isinstance(release.mechanism, RandomisedResponse):
                self._kept["labels"] = release.mechanism.draw(targets.clone(), 1.0, generator)
            else:
                self._kept["rows"] = release.mechanism.draw(rows, self.method.max_norm, generator)

    def _check_kept(self, releases: Sequence[Release]) -> None:
        """Refuse to go on without what was paid for: what is lost is not drawn, or used raw."""
        answers = [isinstance(release.mechanism, RandomisedResponse) for release in releases]
        rows = "rows" in self._kept or not all(answers)
        labels = "labels" in self._kept or self.method.labels is None or any(answers)
        if not (rows and labels):
            raise Refused(
                "The noisy activations or labels that this run paid for were lost when it was "
                "interrupted, and drawing them again would be a release that nobody paid for: "
                "start a new run with a checkpoint of its own, and count this one as spent."
            )

    def _descend(self, step: int, rows: Tensor, labels: Tensor) -> float:
        """A step down the mean loss of the batch; its loss before."""
        if self._average is None:
            return self._moved(step, rows, labels)
        with torch.no_grad(), self._average.latest_at(step):
            return self._moved(step, rows, labels)

    def _moved(self, step: int, rows: Tensor, labels: Tensor) -> float:
        with torch.enable_grad():
            loss = self.loss(self.head(rows), labels).mean()
            gradients = torch.autograd.grad(loss, self.leaves)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._updater.step(flat, at(self.method.learning_rate, step))
        return float(loss.detach())

    def _check_labels(self, targets: Tensor, classes: int | None) -> None:
        rule = self.method.labels
        if rule is None:
            return
        if targets.is_floating_point() or targets.ndim != 1:
            raise Refused(
                "Randomised response is for class indices, one for each record: leave labels=None "
                "for other targets, which are then public."
            )
        if classes is not None and rule.k != classes:
            raise ValueError(
                f"labels: k (number of possible answers) must be the {classes} classes of the "
                f"data, got {rule.k}: give RandomisedResponse({rule.epsilon:g}, {classes})."
            )


def parts(model: nn.Module) -> tuple[nn.Sequential, PrivateActivation, nn.Sequential]:
    """What is before the private activation, the activation, and what is after it."""
    found = [m for m in model.modules() if isinstance(m, PrivateActivation)]
    children = list(model) if isinstance(model, nn.Sequential) else []
    place = next((n for n, child in enumerate(children) if [child] == found), None)
    if place is None:
        raise ValueError(
            f"NeuralDP needs a model nn.Sequential(*public, PrivateActivation(), *head) with one "
            f"PrivateActivation among its own layers, got {type(model).__name__} with "
            f"{len(found)}: dp.zoo.released builds one."
        )
    return nn.Sequential(*children[:place]), found[0], nn.Sequential(*children[place + 1 :])


def split(model: nn.Module) -> tuple[nn.Sequential, PrivateActivation, nn.Sequential]:
    """The parts of a model whose head alone is trained; or a refusal."""
    public, activation, head = parts(model)
    trainable = [name for name, p in public.named_parameters() if p.requires_grad]
    if trainable:
        raise Refused(
            f"The layers before the private activation would be trained (parameter "
            f"{trainable[0]}), and their updates hold the raw records: no noise on activations "
            f"hides that. Freeze them by requires_grad_(False), trained on public records, or by "
            f"DPSGD with its ledger in the plan's `before`."
        )
    check_modules(public)
    if not any(p.requires_grad for p in head.parameters()):
        raise ValueError(
            "The head, all layers after the PrivateActivation, has no trainable parameter: add a "
            "layer such as torch.nn.Linear."
        )
    return public, activation, head


def _no_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """For comparing activations alone: no loss is taken of them."""
    return torch.zeros(len(targets))
