"""TopAgg: what a record keeps of its gradient, what it sends, and where the noise goes."""

import math

import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit.knobs import knobs_of
from dpkit.methods.topagg import kept
from dpkit.settings import Settings
from dpkit.widgets.playground import Playground
from tests.privacy.cases import LAYERS
from tests.privacy.recording import record

MLP = LAYERS[2]
RECORDS = 10
ALL = dp.Poisson(1.0, 3)


def ran(method, *, sampler=ALL, layer=MLP):
    plan = dp.Plan(method, sampler, 1e-3, accountant=dp.RDP())
    return record(plan, layer.model(), layer.records(RECORDS, 0), num_examples=RECORDS)


def gradients():
    """Each record's gradient by itself, the slow way."""
    model, rows = MLP.model(), []
    for x, y in zip(*MLP.records(RECORDS, 0), strict=True):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[None]), y[None]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return torch.stack(rows)


@pytest.mark.parametrize("k", [1, 7, 60])
def test_a_record_keeps_its_k_largest_coordinates(k):
    rows = torch.randn(5, 83, dtype=torch.float64)
    found = kept(rows, k)
    assert (found != 0).sum(1).tolist() == [k] * 5
    least = torch.where(found != 0, found.abs(), math.inf).amin(1)
    assert (rows.abs().masked_fill(found != 0, 0.0).amax(1) <= least).all()
    assert torch.equal(found[found != 0], rows[found != 0])
    votes = kept(rows, k, 1.0)
    assert torch.equal(votes, found.sign()) and torch.equal(
        votes.square().sum(1), votes.new_full((5,), k)
    )


def test_signs_are_votes_of_norm_sqrt_k_and_their_sum_is_what_gets_noise():
    k = 9
    log = ran(dp.TopAgg(1.0, math.sqrt(k), 0.1, top_k=k, signs=True))
    votes = kept(gradients(), k, 1.0)
    assert log.draws[0].norm == math.sqrt(k), "sigma in votes is the multiplier times sqrt(k)"
    assert torch.allclose(log.draws[0].total, votes.sum(0), atol=1e-9)


def test_numbers_are_clipped_after_the_choice():
    log = ran(dp.TopAgg(1.0, 0.3, 0.1, top_k=9))
    rows = kept(gradients(), 9)
    rows = rows * (0.3 / rows.norm(dim=1, keepdim=True)).clamp_max(1)
    assert torch.allclose(log.draws[0].total, rows.sum(0), atol=1e-12)


def test_all_coordinates_without_a_threshold_are_dpsgd():
    size = sum(p.numel() for p in MLP.model().parameters())
    left = ran(dp.TopAgg(1.2, 0.7, 0.2, 0.9, top_k=size)).weights[-1]
    right = ran(dp.DPSGD(1.2, 0.7, 0.2, 0.9)).weights[-1]
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(left, right, strict=True))


def test_noise_goes_on_coordinates_that_nobody_kept():
    """Which ones are kept is private: silence there would tell."""
    log = ran(dp.TopAgg(1.0, 0.7, 0.2, top_k=1))
    for draw in log.draws:
        silent = draw.total == 0
        assert silent.sum() > 50 and (draw.noise[silent] != 0).all()
    moved = [(a != b).all() for a, b in zip(log.weights[0], log.weights[1], strict=True)]
    assert all(moved), "every weight moves at every step"


@pytest.mark.parametrize("signs", [False, True])
def test_a_threshold_keeps_what_stands_out_of_the_noise(signs):
    tau, sigma, bound = 3.0, 1.0, 0.7
    method = dp.TopAgg(sigma, bound, 0.2, top_k=4, signs=signs, threshold=tau)
    layer = next(layer for layer in LAYERS if layer.name == "linear")
    log = ran(method, layer=layer)
    start = [v.clone() for v in layer.model().state_dict().values()]
    flat = [torch.cat([t.flatten() for t in w]) for w in (start, *log.weights)]
    for draw, before, after in zip(log.draws, flat, flat[1:], strict=False):
        wanted = torch.where(draw.noisy.abs() >= tau * sigma * bound, draw.noisy, 0.0)
        assert torch.allclose(before - after, 0.2 * wanted / RECORDS, atol=1e-12)


def test_the_price_is_that_of_dpsgd_and_neither_k_nor_the_threshold_moves_it():
    sampler = dp.Poisson(0.1, 100)
    price = dp.Plan(dp.DPSGD(1.1), sampler).epsilon()
    for changed in ({"top_k": 1}, {"signs": True}, {"threshold": 4.0}):
        assert dp.Plan(dp.TopAgg(1.1, **changed), sampler).epsilon() == price


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"top_k": 0}, r"top_k \(k, .* whole number in \[1, 10000000\], got 0\."),
        ({"top_k": 2.5}, "whole number"),
        ({"top_k": lambda step: 3}, "it cannot follow a schedule"),
        ({"threshold": -1.0}, r"threshold \(τ, .* lie in \[0, 100\], got -1\."),
        ({"signs": 1}, "signs .* must be a bool, got 1"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"mask": dp.Freeze(0.5)}, r"mask .* must be None in TopAgg, .* use DPSGD\(mask="),
    ],
)
def test_what_is_out_of_range_is_refused_in_one_sentence(changed, words):
    with pytest.raises((ValueError, TypeError), match=words):
        dp.TopAgg(**changed)


def test_more_coordinates_than_parameters_are_refused_before_anything_is_drawn():
    with pytest.raises(
        ValueError, match=r"whole number in \[1, 83\], the parameters .* keep fewer"
    ):
        ran(dp.TopAgg(1.0, top_k=84))


def test_settings_tell_what_a_record_keeps():
    text = "kept=50 threshold=2.5 sends=signs noise=1.5"
    settings = Settings.from_string(text)
    assert Settings.from_string(settings.to_string()) == settings
    method = settings.plan(1437).method
    assert method == dp.TopAgg(1.5, 1.0, 0.5, top_k=50, signs=True, threshold=2.5)
    assert set(knobs_of(dp.TopAgg)) >= {"top_k", "threshold"}
    plain = Settings.from_string("noise=1.5")
    assert type(plain.plan(1437).method) is dp.DPSGD and "kept" not in plain.to_string()
    python = settings.to_python(settings.plan(1437))
    assert "dp.TopAgg(" in python and "signs=True" in python and "top_k=50" in python
    compile(python, "shown", "exec")


@pytest.mark.parametrize(
    "text, words",
    [
        ("kept=-1", r"kept \(k, .* whole number in \[0, "),
        ("threshold=2", "concern the coordinates .* kept = 0: set kept above 0"),
        ("sends=signs", "concern the coordinates .* kept = 0"),
        ("sends=sings", "did you mean 'signs'"),
        ("kept=5 frozen=0.5", "kept .* is for DPSGD without a mask"),
    ],
)
def test_settings_refuse_what_does_not_fit(text, words):
    with pytest.raises(ValueError, match=words):
        Settings.from_string(text).plan(1437)


def test_the_playground_turns_k_beside_plain_dpsgd():
    panel = Playground(settings="epochs=2 batch=256 noise=1.0 model=logistic")
    try:
        controls = panel.controls.widgets
        assert not controls["threshold"].shown and not controls["sends"].shown
        price = panel.plan.epsilon()
        controls["kept"].value = 40
        assert controls["threshold"].shown and controls["sends"].shown
        controls["sends"].value, controls["threshold"].value = "signs", 2.0
        panel.check()
        wanted = dp.TopAgg(1.0, 1.0, 0.5, top_k=40, signs=True, threshold=2.0)
        assert panel.plan.method == wanted and panel.plan.epsilon() == price
        assert panel.start() and panel.join(60)
        panel.check()
        assert panel.runs[-1].plan.method == wanted and panel.runs[-1].status == "done"
        controls["kept"].value = 0
        panel.check()
        assert type(panel.plan.method) is dp.DPSGD and not controls["threshold"].shown
    finally:
        panel.close()
