"""Masks as values: what they refuse, how they are counted, stored, resumed and shared by ranks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit.checkpoint import plan_hash
from dpkit.gradients import SGD, Engine, TorchOptimiser
from dpkit.gradients.support import Support
from dpkit.methods import Freeze, Magnitude, PublicGradient, Random, Select
from dpkit.methods.masking import Masking
from dpkit.ranks import Ranks
from dpkit.runs import plan_from_json, plan_to_json
from dpkit.settings import Settings


def plan_of(mask, steps=8, **options):
    return dp.Plan(dp.DPSGD(1.2, 0.7, 0.1, mask=mask, **options), dp.Poisson(0.3, steps), 1e-4)


@pytest.fixture(scope="module")
def digits():
    return dp.datasets.load("digits", public=0.2)


def weights(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize(("ratio", "size", "kept"), [
    (0.0, 10, 10), (0.7, 10, 3), (0.9, 10, 1), (0.3, 10, 7), (0.1, 30, 27), (0.29, 100, 71),
    (0.7, 79_510, 23_853), (0.999, 10, 1), (1e-5, 10, 10), (0.5, 0, 0),
])  # fmt: skip
def test_as_many_are_kept_as_the_ratio_says_in_writing(ratio, size, kept):
    assert Freeze(ratio).kept(0, size) == kept == Select(ratio).kept(5, size)


def test_a_schedule_keeps_what_each_step_says():
    falling = Select(lambda step: 0.5 + 0.1 * step)
    assert [falling.kept(t, 100) for t in (0, 1, 4)] == [50, 40, 10]


@pytest.mark.parametrize(("build", "words"), [
    (lambda: Freeze(1.0), r"ratio \(p, share .* in \[0, 1\), got 1"),
    (lambda: Select(-0.1), r"ratio \(p, .* got -0.1"),
    (lambda: Select(float("nan")), r"ratio \(p, .* got nan"),
    (lambda: Freeze("half"), "ratio .* must be a number or a function of the step"),
    (lambda: Freeze(dp.schedules.ValidationDecay(0.5, 0.9, 2, 1)), "ratio cannot follow"),
    (lambda: Freeze(0.5, by="private gradients"), "release of its own, which nobody has paid for"),
    (lambda: Freeze(0.5, by=torch.ones(3)), "by .* must be Random"),
    (lambda: Freeze(0.5, exempt="2"), "must be a tuple of names"),
    (lambda: Freeze(0.5, exempt=(2,)), "must hold names"),
    (lambda: Freeze(0.5, scaled_norm=1), "scaled_norm .* True or False, got 1"),
    (lambda: Random(-1), "seed .* got -1"),
    (lambda: PublicGradient(0), "count .* got 0"),
    (lambda: dp.DPSGD(1.0, mask=0.9), r"mask .* must be Freeze\(ratio\) or Select\(ratio\)"),
    (lambda: dp.DPSGD(1.0, mask=torch.ones(5)), "read from private gradients"),
    (lambda: dp.DPSGD(1.0, mask=Freeze(0.5), optimiser=TorchOptimiser(torch.optim.RMSprop)),
     "whose memory can be masked too"),
    (lambda: dp.TopAgg(1.0, mask=Freeze(0.5)), "mask .* must be None in TopAgg"),
    (lambda: plan_of(Freeze(lambda step: step / 7)), r"ratio .* in \[0, 1\), got 1"),
    (lambda: plan_of(Select(dp.schedules.Tabulated((0.5, 0.6)))), "a value for each of the 8"),
])  # fmt: skip
def test_what_is_no_mask_is_refused_in_a_sentence(build, words):
    with pytest.raises((ValueError, TypeError), match=words) as told:
        build()
    assert str(told.value).endswith(".")


def test_what_does_not_fit_is_refused_before_anything_is_drawn(digits):
    private = dp.datasets.load("digits")
    for mask, data, make, words in (
        (Select(0.5, PublicGradient()), private, dp.zoo.mlp, "needs public records"),
        (Freeze(0.5, Magnitude()), digits, dp.zoo.logistic, "all weights of this model are equal"),
        (Freeze(0.5, exempt=("head",)), digits, dp.zoo.mlp, "'head', which no layer"),
    ):
        with pytest.raises(ValueError, match=words):
            dp.train(make(data, 0), data, plan_of(mask), seed=0)


def test_a_plan_reads_the_ratio_once_and_stores_it():
    told = [0.2]
    plan = plan_of(Freeze(lambda step: told[0], Magnitude(), ("*.bias",), True))
    told[0] = 0.8
    assert plan.method.mask.kept(3, 10) == 8
    assert plan_from_json(plan_to_json(plan)) == plan
    for mask in (Select(0.3, PublicGradient(9, 2)), Freeze(0.5, Random(4))):
        assert plan_from_json(plan_to_json(plan_of(mask))) == plan_of(mask)


def test_another_mask_is_another_run():
    masks = [
        None,
        Freeze(0.5),
        Freeze(0.6),
        Select(0.5),
        Freeze(0.5, exempt=("0",)),
        Freeze(0.5, Magnitude()),
        Freeze(0.5, Random(1)),
        Freeze(0.5, scaled_norm=True),
    ]
    assert len({plan_hash(plan_of(mask)) for mask in masks}) == len(masks)


def test_the_price_is_calibrated_with_the_mask_as_without():
    sigma = plan_of(None).calibrated(2.0).method.noise_multiplier
    masked = plan_of(Freeze(0.9)).calibrated(2.0)
    assert masked.method.noise_multiplier == sigma and masked.method.mask == Freeze(0.9)


@pytest.mark.parametrize("mask", [Freeze(0.5, Magnitude()), Freeze(0.5, PublicGradient(20))],
                         ids=["magnitude", "gradient"])  # fmt: skip
def test_a_resumed_run_keeps_its_ranking_whatever_model_it_is_handed(mask, digits, tmp_path):
    """The ranking was made of the start; what is handed in later may have moved, or be another."""
    plan, ends = plan_of(mask, 10), []
    for stop in (None, 4):
        path, model = tmp_path / f"{stop}.pt", dp.zoo.mlp(digits, 0)
        steps = dp.train(model, digits, plan, seed=1, checkpoint=path)
        for step in steps:
            if step.step == stop:
                break
        steps.close()
        if stop:
            model = dp.zoo.mlp(digits, 99)
            for _ in dp.train(model, digits, plan, seed=1, checkpoint=path):
                pass
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_the_frozen_are_those_of_least_magnitude_and_the_exempt_never_are(digits):
    model = dp.zoo.mlp(digits, 0)
    start = weights(model)
    for _ in dp.train(model, digits, plan_of(Freeze(0.9, Magnitude(), ("3", "1.bias"))), seed=0):
        pass
    moved, first = weights(model) != start, 100 * 64
    assert moved[first:].all() and int(moved[:first].sum()) == math.ceil(0.1 * first)
    size = start[:first].abs()
    assert size[moved[:first]].min() >= size[~moved[:first]].max()


def test_wholly_frozen_layers_are_not_worked_on(digits):
    """No product of a layer without support, and no backward pass below the last that has one."""
    model = dp.zoo.mlp(digits, 0, hidden=(30, 20))
    engine = Engine(model, nn.functional.cross_entropy)
    engine.clipped_sum(digits.inputs[:8], digits.targets[:8], 1.0)
    worked = []
    for unit in engine._source.units:
        kernel = unit.kernels[0]
        original = kernel.work
        kernel.work = lambda *a, name=unit.name, original=original: (
            worked.append(name), original(*a))[1]  # fmt: skip
    top = torch.arange(engine.slices[engine.names[-2]].start, engine.size)
    engine.clipped_sum(digits.inputs[:8], digits.targets[:8], 1.0, Support(top, engine.size))
    assert worked == [engine._source.units[-1].name]


def test_every_rank_has_the_mask_of_rank_0(digits, monkeypatch):
    """Scores are overwritten by those of rank 0, which another processor may round apart."""
    shared = []
    monkeypatch.setattr(
        Ranks, "alike", lambda self, tensors: shared.extend(t.zero_() for t in tensors)
    )
    model = dp.zoo.mlp(digits, 0)
    engine = Engine(model, nn.functional.cross_entropy)
    for mask in (Freeze(0.5), Select(0.5, Magnitude())):
        Masking(mask, engine, SGD()).support(0, engine.parameters)
    assert len(shared) == 2 and all(len(scores) == engine.size for scores in shared)


def test_the_mask_of_the_settings_is_turned_told_and_written():
    settings = Settings().turned("frozen", 0.9)
    plan = settings.plan(1000)
    assert plan.method.mask == Freeze(0.9) and plan.epsilon() == Settings().plan(1000).epsilon()
    assert "frozen=0.9" in settings.to_string() and "frozen" not in Settings().to_string()
    assert Settings.from_string(settings.to_string()) == settings
    text = settings.to_python(plan).splitlines()[2].removeprefix("plan = ")
    assert eval(text, {"dp": dp}) == plan
    with pytest.raises(ValueError, match="frozen .* for DPSGD without a mask"):
        replace(settings, method=dp.DPSGD(1.0, mask=Select(0.5))).plan(1000)
