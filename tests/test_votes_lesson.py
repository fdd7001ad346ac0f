"""The lesson on votes: what its panels show is what dpkit computes; its words match stored runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.figures import votes as figures
from dpkit.votes import VotePlan
from dpkit.widgets import votes_stored
from dpkit.widgets.painter import PainterPanel
from dpkit.widgets.votes import VotesPanel
from dpkit.widgets.votes_stored import WorthPanel, mean, stored, values

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def votes():
    made = VotesPanel()
    yield made
    made.close()


@pytest.fixture
def painter():
    made = PainterPanel()
    yield made
    made.close()


def test_a_step_is_what_ballots_and_noise_make_of_the_gradients(votes):
    votes.turn(top_k=20, noise=60.0, threshold=0.15, copies=1, teachers=200)
    votes.check()
    gradient, vote, sums, noisy, way = votes.votes()
    assert vote.abs().sum() == 20 and torch.equal(vote[vote != 0], gradient[vote != 0].sign())
    assert sums.abs().max() <= 200 and torch.equal(way != 0, noisy.abs() >= 30)
    assert 0.7 < float((noisy - sums).std()) / 60 < 1.3
    votes.turn(noise=200.0)
    louder = votes.votes()[3]
    assert torch.allclose((louder - sums) / 200, (noisy - sums) / 60, atol=1e-4), "one draw"
    shown = votes.plots["histogram"].figure["data"][0]["y"]
    assert sum(shown) == 64


def test_the_steps_are_those_that_a_plan_affords(votes):
    votes.turn(top_k=20, noise=60.0, copies=1, budget=10.0, teachers=200, threshold=0.15)
    plan = VotePlan(200, 20, 60.0, 10, 0.15, 10.0, 1e-5)
    assert votes.plan == plan and f"**{plan.steps:,} generator steps** fit" in votes.said.text
    line = votes.plots["spending"].figure["data"][0]["y"]
    assert line[-1] == pytest.approx(plan.epsilon(), rel=1e-5) and max(line) <= 10
    votes.turn(copies=2)
    twice = replace(plan, copies=2)
    assert f"**{twice.steps:,} generator steps** fit" in votes.said.text
    assert twice.steps == plan.affordable // 4 // 10
    alone = replace(plan, most_steps=twice.steps).epsilon()
    assert f"cost ε = {dp.plan.round_up(alone)}" in votes.said.text
    votes.turn(noise=1.0)
    votes.check()
    assert "**No step fits.**" in votes.said.text and not votes.plots["spending"].figure["data"]


def test_the_painter_is_a_real_run_within_its_budget(painter):
    painter.turn(steps=12, teachers=60, budget=5.0)
    assert painter.start() and not painter.start()
    assert painter.join(100)
    painter.check()
    plan, last = painter.plan, painter.last
    assert last.step == 12 == plan.steps and last.epsilon == plan.epsilon() <= 5.0
    assert painter.progress.value == 1 and "0 steps are left" in painter.said.text
    assert "real test digits" in painter.said.text and len(painter.worth) == 3
    assert all(0 <= value <= 1 for value in painter.worth.values())
    assert len(painter.plots["spending"].figure["data"][0]["y"]) == 12
    painter.turn(copies=2)
    assert painter.last is None and not painter.worth
    assert painter.plan.noise == pytest.approx(2 * plan.noise, rel=0.01), "paid for by noise"


def test_figures_have_a_place_for_every_pixel():
    figure = figures.grid([np.full(9, 0.5)] * 4, 3, columns=2)
    sheet = np.asarray(figure["data"][0]["z"])
    assert sheet.shape == (7, 7) and np.isnan(sheet[3]).all() and (sheet[:3, :3] == 0.5).all()
    assert np.isfinite(np.asarray(figures.stored(["0f" * 8] * 3)["data"][0]["z"])).sum() == 48
    chain = figures.chain([("a", np.arange(4.0)), ("b", -np.ones(4))], 2)
    shown = np.asarray(chain["data"][0]["z"])
    assert np.nanmax(shown) == 1 and np.nanmin(shown) == -1
    assert len(figures.histogram(np.zeros(5), 0.0, 1.0, 10)["layout"].get("shapes", [])) == 0


def test_the_stored_runs_are_the_benchmarks():
    kept = json.loads((ROOT / "benchmarks/results/datalens.json").read_text())
    assert stored() == kept
    for run in stored()["mnist"]["runs"]:
        plan = VotePlan(4000, 30, run["noise"], 10, 0.0, run["epsilon"], 1e-5)
        assert plan.steps >= run["steps"]
        assert plan.epsilon(run["steps"]) == pytest.approx(run["spent"], rel=1e-9)
        assert run["spent"] <= run["epsilon"] and run["class means spent"] <= run["epsilon"]
    assert kept["accounting"]["classic"] == 1300 and kept["accounting"]["exact"] == 2245
    assert kept["accounting"]["in two teachers"] == pytest.approx(2.04, abs=0.005)


def test_the_words_of_the_lesson_hold():
    """Every figure in its text is that of the stored runs."""
    text = (ROOT / "notebooks/10_datalens.ipynb").read_text()
    assert len(values("accuracy", 1.0)) == len(values("accuracy", 10.0)) == 5
    assert "five seeds, 4,000 teachers, 30 directions" in text
    assert "60 steps of votes" in text and "150 steps" in text
    for what, epsilon, told in (
        ("accuracy", 1.0, 82), ("accuracy", 10.0, 83), ("class means", 1.0, 83),
        ("class means", 10.0, 83), ("not deformed", 1.0, 78), ("not deformed", 10.0, 78),
    ):  # fmt: skip
        assert abs(100 * mean(what, epsilon) - told) <= 0.75, (what, epsilon)
    assert mean("accuracy", 1.0) > 0.7123 and mean("accuracy", 10.0) > 0.8066
    for epsilon in (1.0, 10.0):
        assert mean("distance", epsilon) < mean("class means distance", epsilon)
    assert mean("accuracy", 1.0) >= 0.70 and mean("accuracy", 10.0) >= 0.80, "the bars"


def test_the_worth_panel_shows_the_stored_means():
    panel = WorthPanel()
    try:
        for key in ("1.0", "10.0"):
            panel.turn(budget=key)
            panel.check()
            assert f"generated by votes {mean('accuracy', float(key)):.1%}" in panel.said.text
            assert len(panel.plots["worth"].figure["data"]) == len(votes_stored.SHOWN) + 1
            assert panel.plots["images"].figure["data"]
    finally:
        panel.close()
