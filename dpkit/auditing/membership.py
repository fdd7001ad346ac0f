"""Membership inference: guess who was in the training data, from the trained model alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpkit.accountants import PLD
from dpkit.knobs import Knob
from dpkit.plan import Plan

if TYPE_CHECKING:
    import torch

    from dpkit.datasets import Dataset

_MODELS = Knob("k", "models to train, each on a random half of the records", 4, 4096, integer=True)
_SPREAD = 1e-3


@dataclass(frozen=True, eq=False)
class Roc:
    """What an attack gets right (`tpr`) at each rate of false alarms (`fpr`), both ascending."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]

    @classmethod
    def of(cls, scores: NDArray[np.float64], member: NDArray[np.bool_]) -> Roc:
        """From scores that are higher for members; ties are taken together."""
        order = np.argsort(-scores.ravel(), kind="stable")
        ranked, truth = scores.ravel()[order], member.ravel()[order]
        last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        hits, alarms = np.cumsum(truth)[last], np.cumsum(~truth)[last]
        start = np.zeros(1)
        return cls(
            np.append(start, alarms / max(int((~truth).sum()), 1)),
            np.append(start, hits / max(int(truth.sum()), 1)),
        )

    def at(self, fpr: float) -> float:
        """The true positive rate without exceeding a false positive rate."""
        return float(self.tpr[np.searchsorted(self.fpr, fpr, side="right") - 1])

    @property
    def area(self) -> float:
        """The area under the curve: one half for guessing."""
        return float(np.trapezoid(self.tpr, self.fpr))

    @property
    def advantage(self) -> float:
        """The largest gap between true and false positive rate."""
        return float((self.tpr - self.fpr).max())


@dataclass(frozen=True)
class Membership:
    """Two attacks on the same models: one threshold on the loss, and LiRA, record by record."""

    loss: Roc
    lira: Roc
    train_accuracy: float
    test_accuracy: float


def membership(
    build: Callable[[Dataset, int], torch.nn.Module],
    data: Dataset,
    plan: Plan,
    *,
    models: int = 16,
    seed: int = 0,
) -> Membership:
    """Train `models` models by `plan`, each on a random half of the data, and attack each.

    The loss attack calls a record a member if the model fits it well. LiRA asks how well the
    *other* models fit that very record with and without having seen it, and takes the likelihood
    ratio of two normal laws. `build(data, seed)` makes a fresh model. The plan's rate is that of
    a run on half of the data.

    *Source*: Yeom and others 2018; Carlini and others 2022 (LiRA, with a shared variance).
    """
    _MODELS.check("models", models)
    rng = np.random.default_rng(seed)
    size = data.num_examples
    member = np.zeros((models, size), dtype=np.bool_)
    # Each record is in half of the models, so that both laws can be fitted.
    for record in range(size):
        member[rng.permutation(models)[: models // 2], record] = True
    trained = [_trained(build, data, plan, row, seed + i) for i, row in enumerate(member)]
    confidence = np.stack([found[0] for found in trained])
    right = np.stack([found[1] for found in trained])
    return Membership(
        loss=Roc.of(confidence, member),
        lira=Roc.of(likelihood_ratios(confidence, member), member),
        train_accuracy=float(right[member].mean()),
        test_accuracy=float(right[~member].mean()),
    )


def likelihood_ratios(
    confidence: NDArray[np.float64], member: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """LiRA's score of each record under each model, from all the other models.

    *Shapes*: both and the result (models, records).
    """
    scores = np.zeros_like(confidence)
    for model in range(len(confidence)):
        others = np.arange(len(confidence)) != model
        seen, rest = confidence[others], member[others]
        laws = []
        for side in (rest, ~rest):
            count = np.maximum(side.sum(axis=0), 1)
            mean = np.where(side, seen, 0.0).sum(axis=0) / count
            laws.append((mean, np.where(side, (seen - mean) ** 2, 0.0).sum(axis=0), 1 + 1 / count))
        # Few models know little of each record's spread: one for both sides, pulled to the mean.
        own = (laws[0][1] + laws[1][1]) / max(len(seen) - 2, 1)
        spread = 0.5 * own + 0.5 * own.mean() + _SPREAD
        # A mean of fewer models lies farther off; unless that is allowed for, the side that this
        # very model was left out of looks the less likely one, whatever its score.
        inside, outside = ((confidence[model] - mean) ** 2 / room for mean, _, room in laws)
        scores[model] = (outside - inside) / (2 * spread)
    return scores


def region(plan: Plan, fpr: Any) -> NDArray[np.float64]:
    """The largest true positive rate that the plan allows any attacker at a false positive rate."""
    return 1.0 - PLD().tradeoff(plan.ledger(), fpr)


def _trained(
    build: Callable[[Dataset, int], torch.nn.Module],
    data: Dataset,
    plan: Plan,
    member: NDArray[np.bool_],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Logit-scaled confidence in the true class, and whether it won, for every record."""
    import torch

    from dpkit.datasets import Dataset
    from dpkit.training import train

    model = build(data, seed)
    keep = torch.from_numpy(member)
    half = Dataset.of(data.inputs[keep], data.targets[keep], classes=data.classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # attacking a run without privacy is the point
        steps = train(
            model, half, plan, seed=seed, device="cpu", num_examples=data.num_examples // 2,
            evaluate_every=0,
        )  # fmt: skip
        for _ in steps:
            pass
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(x) for x in data.inputs.split(1024)]).double()
    logs = outputs.log_softmax(dim=1)
    true = logs.gather(1, data.targets[:, None])[:, 0]
    rest = logs.scatter(1, data.targets[:, None], -math.inf).logsumexp(dim=1)
    score = (true - rest).clamp(-50.0, 50.0).numpy()
    return score, (outputs.argmax(dim=1) == data.targets).numpy()
