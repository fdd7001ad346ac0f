"""The panel of the lesson on private activations: what is released, and what it costs."""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from dpkit.accountants import PLD
from dpkit.figures import activations as figures
from dpkit.mechanisms import Gaussian, Ledger, Neighbours, PoissonSampling, RandomisedResponse
from dpkit.methods import DPSGD, NeuralDP
from dpkit.plan import Plan, round_up
from dpkit.samplers import Poisson, Shuffle
from dpkit.widgets.controls import Buttons, Choice, Progress, Slider
from dpkit.widgets.lesson import Lesson
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.worker import Worker
from dpkit.words import marked, say

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpkit.datasets import Dataset

DELTA, BATCHES, EPOCHS = 1e-4, 12, 20
LAYERS = marked({"pixels": "the picture itself", "random": "a random tanh layer",
          "directions": "public directions"})  # fmt: skip
"""Where the noise is added: every layer before it is fixed by no private record."""
LABELS = ((marked("public, not protected"), "public"), (marked("randomised"), "randomised"))
REPLACE = Neighbours.REPLACE_ONE
RECORDS_SHOWN = 400


def digits() -> Dataset:
    """The data of the live panels: the digits, a tenth of which is public."""
    from dpkit import datasets

    return datasets.load("digits", public=0.1)


def layer_of(data: Dataset, layer: str, dimension: int) -> nn.Module:
    """What is before the noise: fixed by a constant, or by public records."""
    import torch
    from torch import nn

    from dpkit.datasets import PublicPCA

    size = math.prod(data.shape)
    if layer == "pixels":
        return nn.Flatten()
    linear = nn.Linear(size, dimension)
    with torch.no_grad():
        if layer == "random":
            weights = torch.randn(dimension, size, generator=torch.Generator().manual_seed(0))
            linear.weight.copy_(weights / math.sqrt(size) * 3)
            linear.bias.zero_()
            return nn.Sequential(nn.Flatten(), linear, nn.Tanh())
        found = PublicPCA(dimension).learnt(data.public_inputs)
        linear.weight.copy_(found.directions.T)
        linear.bias.copy_(-(found.centre @ found.directions))
    return nn.Sequential(nn.Flatten(), linear)


class ActivationPanel(Lesson):
    """Layer, dimension, noise, releases, labels: the cloud, the three prices, and a live run.

    *Guarantee*
    - the noisy cloud is what one release of this plan looks like, made-up noise and all;
    - the true price is that of the very plan that Train runs.
    """

    PAUSE: ClassVar = 0.2  # seconds between two pictures

    def __init__(self, data: Dataset | None = None) -> None:
        """Make the panel; nothing is trained until Train is pressed. `data` None is the digits."""
        self.data = data or digits()
        self.runs: list[tuple[str, float]] = []
        self.progress = Progress(label=say("Training"))
        self._of: tuple[Any, ...] = ()
        buttons = Buttons(actions=[("train", say("Train"), "primary"), ("stop", say("Stop"), "")],
                          disabled=["stop"], label=say("Live runs"))  # fmt: skip
        self._trainer = Worker(self._race, buttons, self.trouble)
        layers = [(say(words), key) for key, words in LAYERS.items()]
        labels = [(say(words), key) for words, key in LABELS]
        super().__init__(
            {
                "layer": Choice(label=say("Noise after"), options=layers, value="directions"),
                "dimension": Slider(label=say("Dimension d"), value=16, low=2, high=64,
                                    integer=True, ends=(say("few numbers"), say("many"))),
                "sigma": Slider(label=say("Noise σ"), value=1.0, low=0.1, high=20.0, log=True,
                                ends=(say("little"), say("much"))),
                "releases": Slider(label=say("Releases K"), value=1, low=1, high=EPOCHS,
                                   integer=True, ends=(say("once"), say("each epoch"))),
                "labels": Choice(label=say("Labels"), options=labels, value="public"),
                "answer": Slider(label=say("ε of a label's answer"), value=3.0, low=0.1, high=8.0,
                                 log=True),
                "train": buttons,
                "progress": self.progress,
            },
            {
                "prices": LivePlot(height=190, title=say("What does it cost? Three answers")),
                "before": LivePlot(height=330, title=say("Activations, brought to norm C")),
                "after": LivePlot(height=330, title=say("What is released")),
                "finals": LivePlot(height=330, title=say("Live, at the true price")),
            },
            wide=("prices",), worker=self._trainer,
        )  # fmt: skip

    @property
    def method(self) -> NeuralDP:
        """Private activations as the controls stand."""
        count, sigma = int(self.value("releases")), float(self.value("sigma"))
        rule = RandomisedResponse(float(self.value("answer")), self.data.num_classes)
        rate = 2.0 / (1 + self._width * sigma**2)
        each = -(-BATCHES * EPOCHS // count)
        often: dict[str, Any] = {"release": "each epoch", "steps_per_epoch": each}
        return NeuralDP(
            sigma, 1.0, rate, 0.9, labels=rule if self.value("labels") == "randomised" else None,
            averaging=0.99, **(often if count > 1 else {}),
        )  # fmt: skip

    @property
    def plan(self) -> Plan:
        """What Train runs, at its true price."""
        return Plan(self.method, Shuffle(BATCHES, EPOCHS), DELTA)

    @property
    def claimed(self) -> float:
        """What it would cost if a batch hid who is in it, as the tempting reading says."""
        steps = BATCHES * int(self.value("releases"))
        pair = Gaussian(float(self.value("sigma"))).pair(
            Neighbours.ADD_REMOVE, PoissonSampling(1 / BATCHES)
        )
        return PLD().epsilon(Ledger.of([(pair, steps)]), DELTA)

    @property
    def _width(self) -> int:
        pixels = self.value("layer") == "pixels"
        return math.prod(self.data.shape) if pixels else int(self.value("dimension"))

    def redraw(self) -> None:
        """The cloud and the prices; other settings begin new runs."""
        self.controls["dimension"].shown = self.value("layer") != "pixels"
        self.controls["answer"].shown = self.value("labels") == "randomised"
        names = ("layer", "dimension", "sigma", "releases", "labels", "answer")
        now = tuple(self.value(name) for name in names)
        if now != self._of:
            self._trainer.stop()
            self._of, self.runs = now, []
        before, after = self.clouds
        targets = self.data.targets[: len(before)].numpy()
        classes, reach = self.data.classes, 1.25 + 2.5 * float(self.value("sigma"))
        self.plots["before"].show(
            figures.cloud(before, targets, classes, 1.25),
            say("{records} records on a sphere", records=len(before)),
        )
        self.plots["after"].show(
            figures.cloud(after, targets, classes, reach),
            say(
                "the same with noise of {sigma:.3g} C in each direction", sigma=self.value("sigma")
            ),
        )
        true, claimed = self.plan.epsilon(), self.claimed
        self.plots["prices"].show(
            figures.readouts(claimed, true),
            say(
                "claimed {claimed}, true {true}, end to end none",
                claimed=round_up(claimed),
                true=round_up(true),
            ),
        )
        self._show()

    @property
    def clouds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The first records in the plane where they spread most, without and with noise."""
        import torch

        from dpkit.methods.activation import bounded

        layer = layer_of(self.data, self.value("layer"), self._width)
        with torch.no_grad():
            rows, _ = bounded(layer(self.data.inputs[:RECORDS_SHOWN]), 1.0, True)
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
        noisy = rows + float(self.value("sigma")) * noise
        plane = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:2].T
        return rows @ plane, noisy @ plane

    def train(self) -> bool:
        """Train both at the same price, on a thread of its own; False if a run is on."""
        return self._trainer.start()

    def _race(self, stop: threading.Event) -> None:
        """Two runs each of private activations and of DP-SGD on the same features and price."""
        from dpkit import zoo

        with self._drawing:
            if stop.is_set():
                return
            self.runs, plan, layer = [], self.plan, (self.value("layer"), self._width)
            self._show()
        seen, rival = seen_through(layer_of(self.data, *layer), self.data), rival_of(plan)
        both = ((marked("private activations"), zoo.released, plan),
                (marked("DP-SGD"), zoo.logistic, rival))  # fmt: skip
        try:
            for seed, (name, model, what) in itertools.product(range(2), both):
                accuracy = self._final(model(seen, seed), seen, what, seed, stop)
                with self._drawing:
                    if stop.is_set():
                        return
                    self.runs = [*self.runs, (name, accuracy)]
                    self._show()
        finally:
            stop.set()  # no time is left
            with self._drawing:
                self._tell()

    def _final(
        self, model: nn.Module, data: Dataset, plan: Plan, seed: int, stop: threading.Event
    ) -> float:
        """The accuracy at the end of one run."""
        from dpkit.training import train

        accuracy = None
        for step in train(model, data, plan, seed=seed, evaluate_every=plan.steps):
            with self._drawing:
                if stop.is_set():
                    break
                accuracy = step.peek.accuracy
                if self._trainer.pace.due(self.PAUSE):
                    self._tell(step.step / step.steps)
        return float(accuracy or 0.0)

    def _tell(self, part: float = 0.0) -> None:
        """Progress, with a part of the run that is on."""
        done = len(self.runs)
        told, share = say("{done} of 4 runs", done=done), (done + part) / 4
        self.progress.show(share, told + self._trainer.left(share))

    def _show(self) -> None:
        said = ", ".join(f"{say(name)} {accuracy:.0%}" for name, accuracy in self.runs)
        self.plots["finals"].show(figures.finals(self.runs), said or say("not trained yet"))
        self._tell()
        self.said.show(self._words())

    def _words(self) -> str:
        plan, count = self.plan, int(self.value("releases"))
        times = say("once") if count == 1 else say("{number} times", number=count)
        public = self.value("labels") == "public"
        covers = say("its label is **not** protected") if public else say("label included")
        return say(
            "Each record is released {times}: **ε = {epsilon}** at δ = {delta:g} for "
            "replacing a record, {covers}. To claim {claimed} would be false: a batch hides "
            "nobody, as every record is released on its own. Trained end to end, **no ε** "
            "holds. Teaching runs: whoever knows the seed can remove the noise.",
            times=times,
            epsilon=round_up(plan.epsilon()),
            delta=DELTA,
            covers=covers,
            claimed=round_up(self.claimed),
        )


def seen_through(layer: nn.Module, data: Dataset) -> Dataset:
    """The records as they are after a layer."""
    import torch

    with torch.no_grad():
        return replace(
            data, inputs=layer(data.inputs), test_inputs=layer(data.test_inputs),
            public_inputs=layer(data.public_inputs),
        )  # fmt: skip


def rival_of(plan: Plan) -> Plan:
    """DP-SGD under the same relation, delta and price, in batches of a twelfth, 20 passes."""
    rate = min(4.0, max(0.2, plan.epsilon()))
    rival = Plan(DPSGD(2.0, 0.5, rate, averaging=0.9), Poisson(1 / BATCHES, BATCHES * EPOCHS),
                 DELTA, REPLACE)  # fmt: skip
    return rival.calibrated(plan.epsilon())
