"""Averaged weights and several views in whole runs: what is kept, stored, repeated and refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit.checkpoint import plan_hash
from dpkit.datasets import Dataset
from dpkit.gradients import Adam, Augmentation, Shifts, Views

VIEWS = Shifts(3, 1)
BOTH = dp.DPSGD(1.0, 0.5, 0.3, 0.9, averaging=0.8, augmentation=VIEWS)


def data(count=60):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((count + 20, 1, 5, 5)).astype(np.float32)
    targets = (inputs[:, 0, 1:4, 1:4].sum((1, 2)) > 0).astype(int)
    test = inputs[count:], targets[count:]
    return Dataset.of(inputs[:count], targets[:count], test=test, classes=("low", "high"))


def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(25, 6), nn.Tanh(), nn.Linear(6, 2))


def plan_of(method, steps=12):
    return dp.Plan(method, dp.Poisson(0.4, steps), 1e-3, accountant=dp.RDP())


def weights(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def run(method, *, steps=12, seed=0, stop=None, **options):
    """All weights that the model held after each step, and the last step."""
    net, held = model(), []
    for last in dp.train(net, data(), plan_of(method, steps), seed=seed, **options):
        held.append(weights(net))
        if last.step == stop:
            break
    return torch.stack(held), last, net


@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
@pytest.mark.parametrize("how", [{"momentum": 0.9}, {"optimiser": Adam()}])
def test_the_model_holds_the_average_of_the_weights_of_the_plain_run(share, how):
    plain, paid, _ = run(dp.DPSGD(1.0, 0.5, 0.3, **how))
    found, last, _ = run(dp.DPSGD(1.0, 0.5, 0.3, **how, averaging=share))
    average = weights(model())
    for step, latest in enumerate(plain):
        kept = min(share, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * latest
        assert torch.allclose(found[step], average, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[-1], plain[-1], atol=1e-2)
    assert last.ledger == paid.ledger and last.epsilon == paid.epsilon


def test_what_is_measured_is_the_average():
    _, last, net = run(dp.DPSGD(1.0, 0.5, 0.3, averaging=0.9), evaluate_every=1)
    loss = nn.functional.cross_entropy(net(data().test_inputs), data().test_targets)
    assert last.peek.test_loss == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, stop):
    whole, *_ = run(BOTH)
    before, *_ = run(BOTH, stop=stop, checkpoint=tmp_path / "run", checkpoint_every=4)
    after, last, _ = run(BOTH, checkpoint=tmp_path / "run", checkpoint_every=4)
    assert torch.equal(torch.cat([before, after]), whole) and last.step == 12


def test_a_checkpoint_belongs_to_its_augmentation_and_averaging():
    others = [{"augmentation": None}, {"averaging": 0.7}, {"augmentation": Shifts(3, 1, True)}]
    plans = [plan_of(method) for method in (BOTH, *(replace(BOTH, **other) for other in others))]
    assert len({plan_hash(plan) for plan in plans}) == 4


def test_views_cost_nothing_follow_the_seed_and_leave_others_streams_alone():
    plain, paid, _ = run(dp.DPSGD(1.0, 0.5, 0.3))
    state = torch.get_rng_state()
    found, last, _ = run(dp.DPSGD(1.0, 0.5, 0.3, augmentation=VIEWS))
    assert torch.equal(torch.get_rng_state(), state)
    again, *_ = run(dp.DPSGD(1.0, 0.5, 0.3, augmentation=VIEWS))
    assert torch.equal(found, again) and not torch.equal(found, plain)
    assert last.ledger == paid.ledger and last.epsilon == paid.epsilon
    assert last.peek.batch_size == len(last.peek.norms) == paid.peek.batch_size


def test_views_of_other_steps_are_others(monkeypatch):
    seen, drawn = [], Shifts.drawn
    monkeypatch.setattr(Shifts, "drawn", lambda *a: seen.append(drawn(*a)) or seen[-1])
    run(dp.DPSGD(1.0, 0.5, 0.3, augmentation=VIEWS))
    assert len(seen) == 13  # one look at invented records
    assert len({tuple(one.moves) for one in seen}) > 6


def test_data_without_a_grid_are_refused_before_anything_is_drawn(monkeypatch):
    monkeypatch.setattr(dp.Gaussian, "draw", lambda *a: pytest.fail("noise was drawn"))
    points = dp.datasets.load("moons", num_examples=50)
    method = dp.DPSGD(1.0, augmentation=VIEWS)
    with pytest.raises(ValueError, match=r"Shifts move images .* shape \(2,\): leave"):
        dp.train(dp.zoo.mlp(points, seed=0), points, plan_of(method), seed=0)


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_a_share_beyond_its_range_is_told(share):
    with pytest.raises(ValueError, match=r"averaging \(a, share .*\[0, 1\), got"):
        dp.DPSGD(averaging=share)


class Side(Views):
    """Two views of each record one below the other: in the wrong order, or mixed."""

    count = 2

    def __init__(self, how):
        self.how = how

    def of(self, inputs):
        if self.how == "order":
            return torch.cat([inputs, inputs.flip(3)])
        if self.how == "one short":
            return inputs
        return torch.stack([inputs, inputs - inputs.mean(0)], 1).flatten(0, 1)


class Sides(Augmentation):
    def __init__(self, how):
        self.how = how

    def check(self, shape):
        pass

    def drawn(self, device):
        return Side(self.how)


@pytest.mark.parametrize("how", ["order", "one short", "mixed"])
def test_views_that_mix_records_are_refused_before_any_noise(how):
    """Out of order they once moved a sum by 2.3 C."""
    with pytest.raises(ValueError, match="no view may look at another record"):
        dp.train(model(), data(), plan_of(dp.DPSGD(1.0, augmentation=Sides(how))), seed=0)


@pytest.mark.parametrize("wrong", [4, Shifts])
def test_what_is_no_augmentation_is_refused_at_once(wrong):
    with pytest.raises(TypeError, match=r"such as Shifts\(\)"):
        dp.DPSGD(augmentation=wrong)


def test_a_step_that_fails_leaves_the_average_in_the_model(monkeypatch):
    net = model()
    steps = dp.train(net, data(), plan_of(dp.DPSGD(1.0, 0.5, 0.3, averaging=0.9)), seed=0)
    for _ in range(5):
        next(steps)
    before = weights(net)
    monkeypatch.setattr(dp.Gaussian, "draw", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(steps)
    assert torch.equal(weights(net), before)
