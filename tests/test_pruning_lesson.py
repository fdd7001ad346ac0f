"""The pruning lesson: its masks are those of training, and its words those of the stored runs."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.figures import pruning as figures
from dpkit.widgets import pruning as lesson
from dpkit.widgets.pruning_stored import CLOSE, HELP, PARITY, stored

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "07_pruning.ipynb"


@pytest.fixture(scope="module")
def panel():
    made = lesson.PruningPanel()
    yield made
    made.close()


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location(
        "pruning_benchmark", ROOT / "benchmarks/pruning.py"
    )
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def settled(panel):
    assert panel.join()
    panel.check()
    return panel


@pytest.mark.parametrize("mode", lesson.MODES)
@pytest.mark.parametrize("by", lesson.CRITERIA)
def test_the_mask_drawn_is_the_one_that_training_uses(panel, mode, by):
    """What moves in the first step of a real run is what is not grey."""
    panel.turn(mode=mode, by=by, start="near", ratio=0.6)
    settled(panel)
    model = lesson.started("near")
    before = model[1].weight.detach().clone()
    next(dp.train(model, lesson.records("near"), panel.plan, seed=0))
    moved = (model[1].weight.detach() != before).numpy()[: lesson.UNITS]
    wanted = figures.mask(before.numpy()[: lesson.UNITS], moved, 8)
    drawn = panel.plots["mask"].figure
    assert drawn["data"][1]["z"] == wanted["data"][1]["z"]
    assert drawn["data"][0]["z"] == wanted["data"][0]["z"]


def test_the_energy_kept_is_that_of_the_gradient_on_public_records(panel):
    panel.turn(mode="freeze", by="magnitude", start="near", ratio=0.7)
    settled(panel)
    data, model = lesson.records("near"), lesson.started("near")
    torch.nn.functional.cross_entropy(model(data.public_inputs), data.public_targets).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
    size = torch.cat([p.detach().abs().flatten() for p in model.parameters()])
    kept = dp.Freeze(0.7).kept(0, len(size))
    best = size.topk(kept).indices
    energy = float(gradient[best].square().sum() / gradient.square().sum())
    marker = panel.plots["energy"].figure["data"][-1]
    assert marker["x"][0] == pytest.approx(100 * kept / len(size), rel=1e-5)
    assert marker["y"][0] == pytest.approx(100 * energy, rel=1e-3)
    lines = panel.plots["energy"].figure["data"][1:-1]
    lot = np.interp(50, *(lines[0][axis] for axis in "xy"))
    assert 40 < lot < 60, "a lot keeps its share"
    best = np.interp(50, *(lines[2][axis] for axis in "xy"))
    assert best > 95, "the largest public gradients keep nearly all"


def test_the_noise_is_sigma_c_and_the_support(panel):
    panel.turn(ratio=0.75, sigma=1.5, clip=2.0, scaled=False)
    settled(panel)
    size, kept = 7_510, dp.Freeze(0.75).kept(0, 7_510)
    at = panel.plots["noise"].figure["data"][-1]
    assert at["y"][0] == pytest.approx((1.5 * 2.0) ** 2 * kept, rel=1e-5)
    assert f"≈ **{3.0 * math.sqrt(kept):.3g}**" in panel.said.text
    price = dp.plan.round_up(panel.plan.epsilon())
    assert f"ε = **{price}**" in panel.said.text
    panel.turn(scaled=True)
    settled(panel)
    at = panel.plots["noise"].figure["data"][-1]
    assert at["y"][0] == pytest.approx((1.5 * 2.0) ** 2 * kept * kept / size, rel=1e-5)
    panel.turn(scaled=False, sigma=1.0, clip=1.0)


def test_two_lots_share_their_share_and_a_frozen_mask_is_the_same(panel):
    for mode, by, low, high in (
        ("freeze", "random", 1.0, 1.0), ("select", "random", 0.36, 0.44),
        ("select", "magnitude", 0.9, 1.0),
    ):  # fmt: skip
        panel.turn(mode=mode, by=by, start="near", ratio=0.6)
        found, share = lesson.overlaps(panel.plan, "near")
        assert len(found) == lesson.SHOWN and share == pytest.approx(0.4, abs=1e-3)
        assert all(low <= value <= high for value in found), (mode, by, found)
    settled(panel)


def test_live_runs_are_runs_of_train_at_one_price():
    (ratio, values), *_ = lesson.accuracies("freeze", "random", (0.9,), 2.0, seeds=1)
    data, model = lesson.records("near"), lesson.started("near")
    sampler = dp.Poisson(lesson.BATCH / data.num_examples, lesson.STEPS)
    plan = dp.Plan(dp.DPSGD(1.0, 1.0, 0.5, mask=dp.Freeze(0.9)), sampler).calibrated(2.0)
    *_, last = dp.train(model, data, plan, seed=0, evaluate_every=lesson.STEPS)
    assert (ratio, values) == (0.9, [last.peek.accuracy]) and last.epsilon <= 2.0


def test_the_stored_runs_are_whole_and_the_claims_follow_from_them(benchmark):
    full = json.loads((ROOT / "benchmarks/results/pruning.json").read_text())
    kept, seeds = stored(), stored().setting["seeds"]
    cells = list(benchmark.conditions())
    assert len(kept.cells) == len(cells) == len({json.dumps(c) for c in kept.cells})
    assert seeds == list(range(len(seeds))) and len(seeds) >= 2
    for one in cells:
        found = [run for run in full["runs"] if benchmark._key(run) == benchmark._key(vars(one))]
        by = {run["seed"]: run["accuracy"] for run in found}
        assert kept.accuracies(**vars(one)) == [by[seed] for seed in seeds]
        assert all(0.99 * one.epsilon < run["spent"] <= one.epsilon for run in found)
        assert all(run["rate"] == full["tuning"]["rate"] for run in found)
    again = benchmark.claims([run for run in full["runs"] if run["seed"] in seeds])
    assert again.pop("seeds") == seeds and json.loads(json.dumps(again)) == kept.claims


def test_the_prices_of_the_stored_runs_are_those_of_today(benchmark):
    setting = stored().setting
    records = setting["private records"]
    for epsilon in benchmark.EPSILONS:
        plan = dp.Plan(dp.DPSGD(benchmark.sigma(epsilon, records)), benchmark.sampler(records),
                       setting["delta"])  # fmt: skip
        assert 0.99 * epsilon < plan.epsilon() <= epsilon


def test_intervals_are_students(benchmark):
    told = benchmark.interval([0.01, 0.02, 0.03, 0.02, 0.02], 10)
    assert told["mean"] == pytest.approx(0.02)
    half = 2.776445 * 0.00707107 / math.sqrt(5)
    assert told["interval"] == pytest.approx([0.02 - half, 0.02 + half], rel=1e-5)
    assert told["family"][0] < told["interval"][0] < told["interval"][1] < told["family"][1]


def test_what_the_notebook_says_of_the_claims_is_so():
    """Whoever makes the runs again learns here that the words beside them have to follow."""
    text = NOTEBOOK.read_text()
    for number, claim in enumerate((HELP, PARITY, CLOSE), start=1):
        said = "**Reproduced.**" if stored().claims[claim]["reproduced"] else "**Not reproduced.**"
        cell = next(line for line in text.splitlines() if f"**Claim {number}:" in line)
        assert said in cell
    setting = stored().setting
    assert f"{len(setting['seeds'])} seeds" in text and f"{setting['private records']:,}" in text


@pytest.mark.parametrize("claim", [HELP, PARITY, CLOSE])
def test_every_difference_is_drawn(claim):
    rows = stored().differences(claim)
    figure = figures.differences(rows, "points")
    assert len(figure["data"]) == 2 * len(rows) and figure["layout"]["yaxis"]["ticktext"] == [*rows]
    means = [trace["x"][0] for trace in figure["data"][1::2]]
    assert means == pytest.approx([100 * row["mean"] for row in rows.values()], rel=1e-4)


def test_lines_begin_with_no_pruning():
    line = stored().line("select", "magnitude", 2.0)
    assert [ratio for ratio, _ in line] == [0.0, 0.3, 0.5, 0.7, 0.9]
    assert line[0][1] == stored().accuracies(start="near", epsilon=2.0, ratio=0.0)
    with pytest.raises(KeyError, match="no runs of"):
        stored().accuracies(start="nowhere")
