"""The playground without a page: a cell can do all that a person can."""

import json
import math
import time

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.runs import Run
from dpkit.settings import Settings
from dpkit.widgets import words
from dpkit.widgets.session import MOST_RUNS

SMALL = "data=moons model=mlp examples=200 noise=1.0 batch=40 epochs=4"
LONG = "data=moons model=mlp examples=200 noise=1.0 batch=40 epochs=20000"


@pytest.fixture
def panel():
    made = dp.widgets.Playground(settings=SMALL)
    yield made
    made.close()


def turn(panel, name, value):
    panel.controls.widgets[name].value = value


def test_a_run_ends_exactly_at_the_planned_epsilon(panel):
    picture = panel.face.views.plots["picture"]
    assert "not private" in picture.title, "before a run the picture shows training records"
    assert panel.start() and panel.join(60)
    panel.check()
    assert "not private" not in picture.title
    run = panel.runs[-1]
    assert run.status == "done" and run.spent[-1] == panel.plan.epsilon()
    assert run.spent_steps[-1] == panel.plan.steps == 20 and len(run.accuracy) >= 15
    assert "Teaching run" in panel.face.promise.text
    assert "1 run" in panel.face.total.text


def test_the_spent_curve_bends_however_seldom_it_is_drawn(panel):
    panel.load("data=moons model=mlp examples=200 noise=1.0 batch=20 epochs=80")
    panel.session._pause = math.inf  # drawn as seldom as can be
    assert panel.start() and panel.join(60)
    run = panel.runs[-1]
    steps = np.array(run.spent_steps)
    assert steps[0] == 1 and steps[-1] == panel.plan.steps == 800
    assert np.diff(steps).max() <= 800 / 8 and np.diff(steps).min() > 0
    curve = np.interp(steps, *panel.plan.curve(800))
    assert np.allclose(run.spent, curve, rtol=1e-9)


def test_next_to_no_noise_is_planned_at_fewer_steps(panel):
    """Each of them takes milliseconds there; the end is the plan's price all the same."""
    turn(panel, "epochs", 40)
    points = len(panel.session.planned.epsilon)
    turn(panel, "method.noise_multiplier", 0.2)
    few = panel.session.planned.epsilon
    assert 100 <= points and len(few) <= 16 and few[-1] == panel.plan.epsilon()
    panel.check()


def test_the_plan_follows_every_control_before_anything_runs(panel):
    before = panel.plan.epsilon()
    shown = panel.face.readout.text
    turn(panel, "method.noise_multiplier", 2.0)
    assert panel.plan.epsilon() < before and panel.face.readout.text != shown
    turn(panel, "epochs", 40.0)
    assert panel.plan.steps == 200
    turn(panel, "mode", "epsilon")
    turn(panel, "epsilon", 2.0)
    assert 1.99 <= panel.plan.epsilon() <= 2.0
    turn(panel, "accountant", "RDP")
    assert panel.plan.accountant == dp.RDP() and panel.plan.epsilon() <= 2.0
    panel.check()
    planned = panel.face.views.plots["epsilon"].figure["data"][0]
    assert planned["y"][-1] == pytest.approx(panel.plan.epsilon(), rel=1e-4)


def test_twenty_starts_are_one_run():
    panel = dp.widgets.Playground(settings=LONG)
    assert sum(panel.start() for _ in range(20)) == 1
    assert len(panel.session.budget.plans) == len(panel.runs) == 1
    panel.stop()
    assert panel.join(10) and panel.runs[-1].status == "stopped"
    assert "if this length had been fixed beforehand" in panel.face.promise.text
    panel.check()
    panel.close()


def test_pause_and_resume():
    panel = dp.widgets.Playground(settings=LONG)
    panel.start()
    while panel.session.last is None:
        time.sleep(0.01)
    panel.pause()
    time.sleep(0.2)
    held = panel.session.last.step
    time.sleep(0.3)
    assert panel.session.last.step == held
    panel.pause()
    time.sleep(0.3)
    assert panel.session.last.step > held
    panel.stop()
    assert panel.join(10)
    panel.close()


def test_closing_ends_the_run():
    panel = dp.widgets.Playground(settings=LONG)
    panel.start()
    panel.close()
    assert not panel.session.runner.busy


def test_runs_are_kept_up_to_a_number_and_every_one_is_paid(panel):
    for count in range(MOST_RUNS + 2):
        turn(panel, "seed", str(count))
        panel.start()
        panel.join(60)
    panel.check()
    assert len(panel.runs) == MOST_RUNS
    assert f"{MOST_RUNS + 2} runs" in panel.face.total.text
    data = panel.session.data
    assert panel.session.budget.epsilon(data) > panel.plan.epsilon() * 1.5
    lines = panel.face.views.plots["accuracy"].figure["data"]
    assert len(lines) == MOST_RUNS
    assert len({(line["line"]["color"], line["line"]["dash"]) for line in lines}) == MOST_RUNS
    assert all("noise=1.0" in line["hovertemplate"] for line in lines)
    panel.reset()
    assert panel.runs == [] and f"{MOST_RUNS + 2} runs" in panel.face.total.text


@pytest.mark.parametrize("scene", words.SCENES)
def test_every_scene_loads_and_has_a_plan(panel, scene):
    panel.face.scene.value = scene
    panel.check()
    assert panel.settings == Settings.from_string(words.SCENES[scene][1])
    assert panel.plan.epsilon() > 0 and panel.face.advice.text


def test_a_bad_value_is_told_and_nothing_is_lost(panel):
    settings, plan = panel.settings, panel.plan
    for text in ("noise=-1", "volume=3", "data=dogits", "batch=999999999999"):
        panel.face.text.value = text
        assert panel.face.trouble.text and panel.error is not None
        assert "Traceback" not in panel.face.trouble.text
    turn(panel, "seed", "seven")
    assert "seed must be" in panel.face.trouble.text
    assert panel.plan == plan and panel.session.data.name == settings.data
    turn(panel, "method.noise_multiplier", 1.5)
    panel.check()
    assert panel.start() and panel.join(60)
    panel.check()


def test_an_error_in_training_is_shown_kept_and_leaves_the_panel_usable(panel, monkeypatch):
    def explode(*args, **kwargs):
        raise RuntimeError("the roof is on fire")

    with monkeypatch.context() as patch:
        patch.setattr("dpkit.methods.dpsgd.DPSGDStepper.step", explode)
        panel.start()
        panel.join(10)
    assert "the roof is on fire" in panel.face.trouble.text
    assert panel.runs[-1].status == "failed"
    with pytest.raises(RuntimeError, match="roof"):
        panel.check()
    turn(panel, "method.noise_multiplier", 1.2)
    assert panel.start() and panel.join(60)
    panel.check()


def test_my_own_data_and_module():
    inputs = torch.randn(120, 5, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] > 0).long()
    net = torch.nn.Linear(5, 2)
    before = net.weight.detach().clone()
    panel = dp.widgets.Playground((inputs, targets), net, "batch=30 epochs=5")
    panel.start()
    assert panel.join(60)
    panel.check()
    assert panel.runs[-1].status == "done"
    assert torch.equal(net.weight, before), "the learner's module is copied, not trained"
    panel.close()


def test_what_is_taken_away_holds_nothing_private(panel, tmp_path):
    with pytest.raises(ValueError, match="press Train"):
        panel.save_run(tmp_path / "run.json")
    with pytest.raises(ValueError, match="no final weights"):
        panel.save_weights(tmp_path / "weights.pt")
    panel.start()
    panel.join(60)
    run = Run.from_json(panel.save_run(tmp_path / "run.json").read_text())
    assert run.plan == panel.plan and run.accuracy == panel.runs[-1].accuracy
    stored = json.loads((tmp_path / "run.json").read_text())
    assert not {"norms", "loss", "batch_size", "skipped"} & set(stored)
    state = torch.load(panel.save_weights(tmp_path / "weights.pt"), weights_only=True)
    assert set(state) == set(panel.session.model.state_dict())
    page = panel.save_html(tmp_path / "page.html").read_text()
    assert "Teaching run" in page and "cdn" not in page.split("plotly.js")[0]


def test_the_exported_python_repeats_the_run_bit_for_bit(panel):
    panel.start()
    panel.join(60)
    code = panel.python()
    assert len(code.strip().splitlines()) == 5
    space: dict[str, object] = {}
    exec(
        code.replace("print(", "seen.append((").replace("accuracy)", "accuracy))"),
        {"seen": (seen := [])},
        space,
    )
    run = panel.runs[-1]
    assert [s for s, _, _ in seen] == run.tested_steps
    assert [a for _, _, a in seen] == run.accuracy
    assert seen[-1][1] == run.spent[-1]


def test_settings_text_loads_again(panel):
    turn(panel, "method.max_grad_norm", 3.0)
    text = panel.face.text.value
    other = dp.widgets.Playground(settings=text)
    assert other.settings == panel.settings
    other.close()


def test_changing_data_fits_the_batch_and_forgets_other_runs(panel):
    panel.start()
    panel.join(60)
    turn(panel, "num_examples", 30)
    panel.check()
    assert panel.settings.batch_size == 30 and panel.runs == []
    turn(panel, "data", "digits")
    panel.check()
    assert panel.session.data.name == "digits" and panel.settings.num_examples is None
    turn(panel, "model", "cnn")
    turn(panel, "data", "moons")
    assert panel.settings.model == "mlp", "a CNN has nothing to do on points"


def test_without_noise_epsilon_is_infinite_and_the_panel_says_so(panel):
    turn(panel, "method.noise_multiplier", 0.0)
    assert math.isinf(panel.plan.epsilon()) and "No privacy" in panel.face.promise.text
    panel.start()
    assert panel.join(60)
    panel.check()
    assert "inf" in panel.face.progress.text


def test_an_estimate_is_called_one(panel):
    turn(panel, "accountant", "GDP")
    assert "estimate, not a bound" in panel.face.readout.text
    turn(panel, "mode", "epsilon")
    assert "never sets a budget" in panel.face.trouble.text


def test_data_that_are_not_there_are_told_and_the_old_ones_stay(panel, monkeypatch, tmp_path):
    monkeypatch.setenv("DPKIT_DATA", str(tmp_path))
    monkeypatch.setattr(
        "dpkit.datasets.load", lambda *a, **k: (_ for _ in ()).throw(OSError("no network here."))
    )
    turn(panel, "data", "mnist")
    panel.join(10)
    assert "no network here" in panel.face.trouble.text
    assert panel.session.data.name == "moons" and panel.settings.data == "moons"


@pytest.mark.parametrize("scheme", list(words.BATCHING))
def test_the_batching_control_switches_scheme_price_and_words(panel, scheme):
    """What is drawn is what is accounted: the plan has that very sampler, the readout its band."""
    panel.controls.widgets["batching"].value = scheme
    panel.check()
    plan, text = panel.plan, panel.face.readout.text
    assert type(plan.sampler).__name__ == scheme
    assert plan.neighbours.value in text and plan.sampler.describe in text
    assert f"Planned ε = {dp.plan.round_up(plan.epsilon())}" in text
    assert ("not known exactly" in text) == (scheme in ("Shuffle", "FixedSize"))
    if scheme in ("Shuffle", "FixedSize"):
        assert f"between **{dp.plan.round_down(plan.bounds().lower)}**" in text
    again = Settings.from_string(panel.settings.to_string())
    assert again == panel.settings and again.batching == scheme
    assert f"dp.{scheme}(" in panel.python()
    panel.start()
    assert panel.join(60)
    panel.check()
    assert panel.runs[-1].spent[-1] == plan.epsilon()
    assert panel.face.progress.text.endswith(f"ε spent {dp.plan.round_up(plan.epsilon())}")
    assert plan.sampler.describe in panel.runs[-1].guarantee


def test_a_remainder_and_an_unknown_scheme_are_told(panel):
    panel.load("batching=Shuffle batch=100")
    batches = panel.plan.sampler.batches_per_epoch
    assert f"{batches} batches do not divide" in panel.face.readout.text
    with pytest.raises(ValueError, match="did you mean 'Shuffle'"):
        Settings.from_string("batching=Shufle")
