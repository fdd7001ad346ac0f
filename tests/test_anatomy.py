"""The anatomy of a step: what the panel says is what real steps do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.noise import Noise
from dpkit.widgets.anatomy import RECORDS, TRAINED, AnatomyPanel, errors


@pytest.fixture
def panel():
    made = AnatomyPanel(seed=3)
    yield made
    made.close()


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("bound, sigma, batch", [(0.1, 1.0, 64), (0.5, 3.0, 20), (3.0, 0.3, 300)])
def test_the_errors_are_those_of_real_steps(panel, trained, bound, sigma, batch):
    """3,000 steps by the sampler, the engine's own gradients and the mechanism."""
    panel.turn(model=trained)
    world, found = panel.world, errors(panel.world, bound, sigma, batch)
    sampler, noise = dp.Poisson(batch / RECORDS, 3000), Noise(5)
    rows, true = torch.from_numpy(world.clipped(bound)), world.rows.mean(0)
    steps = np.array([
        dp.Gaussian(sigma).draw(rows[torch.from_numpy(chosen)].sum(0), bound, noise).numpy() / batch
        for chosen in sampler.batches(RECORDS, np.random.default_rng(7))
    ])  # fmt: skip
    measured = np.sqrt(((steps - true) ** 2).sum(1).mean())
    assert measured == pytest.approx(found.total, rel=0.06)
    assert np.linalg.norm(steps.mean(0) - true) == pytest.approx(
        found.bias, abs=5 * found.total / np.sqrt(3000)
    )


def test_the_gradients_are_those_of_autograd(panel):
    world = panel.world
    weight = world.engine.parameters.detach().clone().requires_grad_()
    scores = world.inputs @ weight
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        scores, world.targets, reduction="none"
    )
    for i in (0, 7, 399):
        (grad,) = torch.autograd.grad(losses[i], weight, retain_graph=True)
        assert np.allclose(world.rows[i], grad.numpy(), atol=1e-12)


def test_the_step_is_the_engines_and_lies_in_its_cloud(panel):
    panel.turn(clip=0.3, noise=2.0, batch=50)
    assert panel.plots["price"].figure["data"][0]["x"][-1] == 100
    plots = panel.plots
    kept = plots["records"].figure["data"][2]
    lengths = np.hypot(kept["x"], kept["y"])
    assert len(lengths) > 20 and lengths.max() <= 0.3 * (1 + 1e-5)
    clipped, noisy = (plots["step"].figure["data"][k] for k in (3, 4))
    mean = np.array([np.sum(kept["x"]), np.sum(kept["y"])]) / 50
    assert np.allclose([clipped["x"][1], clipped["y"][1]], mean, atol=1e-5)
    gap = np.hypot(noisy["x"][1] - mean[0], noisy["y"][1] - mean[1])
    assert 0 < gap < 6 * 2.0 * 0.3 / 50
    cloud = plots["step"].figure["data"][0]
    assert np.std(cloud["x"]) == pytest.approx(2.0 * 0.3 / 50, rel=0.2)


def test_the_price_is_the_plans_and_does_not_depend_on_the_clip_norm(panel):
    plan = dp.Plan(dp.DPSGD(2.0), dp.Poisson(100 / RECORDS, 100), 1e-4)
    panel.turn(noise=2.0, batch=100)
    price = dp.plan.round_up(plan.epsilon())
    for bound in (0.1, 2.0):
        panel.turn(clip=bound)
        assert f"ε = {price}**" in panel.said.text


def test_another_draw_changes_the_step_and_nothing_else(panel):
    before = {name: plot.figure for name, plot in panel.plots.items()}
    panel.controls["again"].click("again")
    after = {name: plot.figure for name, plot in panel.plots.items()}
    assert after["step"] != before["step"] and after["records"] != before["records"]
    assert all(after[name] == before[name] for name in ("norms", "errors", "ratio"))


@pytest.mark.parametrize("model", TRAINED)
def test_every_end_of_every_control_is_drawn(panel, model):
    panel.turn(model=model)
    for name in ("clip", "noise", "batch"):
        control, middle = panel.controls[name], panel.value(name)
        for end in (control.low, control.high, middle):
            panel.turn(**{name: int(end) if control.integer else end})
            panel.check()
            assert all(plot.summary for plot in panel.plots.values())
