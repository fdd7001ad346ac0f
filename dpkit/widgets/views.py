"""The playground's linked plots: what is drawn from runs, a plan and the present step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpkit import figures
from dpkit.plan import Curve, round_up
from dpkit.runs import Run
from dpkit.training import Step
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.words import PLOTS, RECORDS
from dpkit.words import say

if TYPE_CHECKING:
    import torch

    from dpkit.datasets import Dataset

_GRID = 60
_SHOWN = 12
_PICTURE_PAUSE = 0.4
_HEADINGS = ("title", "annotations", "width", "height")
_MARGIN = {"l": 48, "r": 12, "t": 8, "b": 36}


class Views:
    """Five plots, each redrawn from the present state alone."""

    def __init__(self) -> None:
        """Make the plots, empty."""
        self._pictured: tuple[int, float] = (0, 0.0)
        heights = {"accuracy": 270, "epsilon": 270, "picture": 270, "loss": 230, "norms": 230}
        self.plots = {
            k: LivePlot(height=heights[k], title=say(title)) for k, title in PLOTS.items()
        }

    def draw(
        self,
        runs: Sequence[Run],
        planned: Curve,
        delta: float,
        step: Step | None,
        model: torch.nn.Module | None,
        data: Dataset,
        *,
        moving: bool,
    ) -> None:
        """All five from the present state; the picture less often while things are moving."""
        self.curves(runs, planned)
        self.price(planned, runs, delta)
        self.norms(step)
        self.picture(model, data, moving=moving)

    def check(self) -> None:
        """Raise if a page reported that it could not draw one of them."""
        for plot in self.plots.values():
            plot.check()

    def curves(self, runs: Sequence[Run], planned: Curve) -> None:
        """Accuracy and loss of all kept runs."""
        last = runs[-1].accuracy[-1] if runs and runs[-1].accuracy else None
        said = (
            say("no run yet")
            if last is None
            else say("latest accuracy {accuracy:.1%}, {runs} runs", accuracy=last, runs=len(runs))
        )
        self.plots["accuracy"].show(
            figures.accuracy(runs, planned), say("Test accuracy by step: {said}", said=said)
        )
        self.plots["loss"].show(
            figures.loss(runs, planned), say("Test loss by step: {said}", said=said)
        )

    def price(self, planned: Curve | None, runs: Sequence[Run], delta: float) -> None:
        """The planned epsilon curve and what was spent."""
        end = say("not known") if planned is None else round_up(float(planned.epsilon[-1]))
        spent = runs[-1].spent[-1] if runs and runs[-1].spent else 0.0
        summary = say(
            "Planned epsilon {epsilon} at delta {delta:g}; the latest run has spent {spent}",
            epsilon=end,
            delta=delta,
            spent=round_up(spent),
        )
        figure = figures.epsilon(planned, runs, say(" at δ = {delta:g}", delta=delta))
        self.plots["epsilon"].show(figure, summary)

    def norms(self, step: Step | None) -> None:
        """Histogram of the present batch's gradient norms."""
        if step is None:
            self.plots["norms"].show(figures.norms([], 1.0), say("No gradient norms yet"))
            return
        peek = step.peek
        summary = say(
            "{share:.0%} of {records} records are clipped",
            share=peek.clipped,
            records=peek.batch_size,
        )
        self.plots["norms"].show(figures.norms(peek.norms, peek.max_grad_norm), summary)

    def picture(
        self, model: torch.nn.Module | None, data: Dataset, *, moving: bool = False
    ) -> None:
        """Decision regions for 2-D data, predictions for images, else the data themselves."""
        now = time.monotonic()
        if moving and self._pictured[0] == id(model) and now - self._pictured[1] < _PICTURE_PAUSE:
            return
        self._pictured = id(model), now
        self.plots["picture"].title = say(RECORDS if model is None else PLOTS["picture"])
        if model is None:
            examples = data.picture()
            # The card around the plot has its own title.
            layout = {k: v for k, v in examples["layout"].items() if k not in _HEADINGS}
            figure = {"data": examples["data"], "layout": layout | {"margin": _MARGIN}}
            self.plots["picture"].show(figure, say("Examples of {name}", name=data.name))
        elif data.is_planar:
            self.plots["picture"].show(_regions(model, data), say("Regions by predicted class"))
        elif data.is_image:
            self.plots["picture"].show(_guesses(model, data), say("Predictions for test images"))

    def named(self) -> list[tuple[str, figures.Figure]]:
        """Titles and figures as they stand, for saving."""
        return [(plot.title, plot.figure) for plot in self.plots.values()]


def _outputs(model: torch.nn.Module, inputs: torch.Tensor) -> np.ndarray:
    """Class probabilities of a model, shape (records, classes)."""
    import torch

    where = next(model.parameters()).device
    was = model.training
    with torch.no_grad():
        found = model.eval()(inputs.to(where)).softmax(-1).cpu().numpy()
    model.train(was)
    return found


def _regions(model: torch.nn.Module, data: Dataset) -> figures.Figure:
    import torch

    points = data.test_inputs if len(data.test_inputs) else data.inputs
    reach = float(np.ceil(10 * points.abs().max().item()) / 10) + 0.2
    axis = torch.linspace(-reach, reach, _GRID)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    guess = _outputs(model, torch.stack([x.ravel(), y.ravel()], 1)).argmax(1)
    targets = data.test_targets if len(data.test_inputs) else data.targets
    extent = (-reach, reach, -reach, reach)
    return figures.boundary(points, targets, guess.reshape(_GRID, _GRID), extent)


def _guesses(model: torch.nn.Module, data: Dataset) -> figures.Figure:
    shown = data.test_inputs[:_SHOWN]
    odds = _outputs(model, shown)
    images = data.pixels(shown)
    images = images.mean(1) if images.ndim == 4 else images
    names = data.classes
    return figures.predictions(
        np.asarray(images),
        [names[int(t)] for t in data.test_targets[:_SHOWN]],
        [names[i] for i in odds.argmax(1)],
        [float(p) for p in odds.max(1)],
    )
