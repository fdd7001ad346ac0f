"""Principal components: what a record can move, what is drawn, what is charged; public ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.datasets import Dataset, PrivatePCA, PublicPCA, Strokes


def made(n=300, width=9, seed=0):
    """Records that vary mostly along three directions."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((width, width)))[0]
    inputs = rng.standard_normal((n, width)) * [9, 6, 4, *[0.3] * (width - 3)] @ axes.T
    test = inputs[:20].astype(np.float32), np.arange(20) % 2
    return Dataset.of(inputs.astype(np.float32), np.arange(n) % 2, test=test), axes


class Watched:
    """What the mechanism was given and what it drew."""

    def __init__(self, monkeypatch):
        self.given, self.noise, original = [], [], dp.Gaussian.draw

        def draw(mechanism, total, norm, generator):
            given = total.clone()
            noisy = original(mechanism, total, norm, generator)
            self.given.append(given / norm)
            self.noise.append((noisy - given) / norm)
            return noisy

        monkeypatch.setattr(dp.Gaussian, "draw", draw)


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-9, 0.0])
def test_a_record_moves_the_release_by_at_most_one(monkeypatch, scale):
    watched, (data, _) = Watched(monkeypatch), made(30)
    inputs = data.inputs.clone()
    inputs[4] *= scale
    for rows in (inputs, torch.cat([inputs[:4], inputs[5:]]), data.inputs):
        PrivatePCA(2, 1.0).of(Dataset.of(rows, torch.arange(len(rows)) % 2), seed=1)
    whole, without, other = watched.given
    assert float((whole - without).norm()) <= 1 + 1e-9
    assert float((whole - other).norm()) <= 2
    if scale >= 1:
        assert float((whole - without).norm()) > 0.7, "a record of length 1 counts"


def test_the_noise_is_what_is_charged(monkeypatch):
    watched, (data, _) = Watched(monkeypatch), made(width=60)
    pca = PrivatePCA(5, 3.0)
    for seed in range(30):
        pca.of(data, seed=seed)
    noise = torch.stack(watched.noise)
    assert noise.shape == (30, 60 * 61 // 2)
    assert abs(float(noise.var()) / 9 - 1) < 5 * math.sqrt(2 / noise.numel())
    plan = dp.Plan(dp.DPSGD(4.0), dp.Poisson(0.01, 100), 1e-5, before=(pca.release,))
    alone = dp.Plan(dp.DPSGD(4.0), dp.Poisson(0.01, 100), 1e-5)
    assert (dp.Gaussian(3.0), 1) in plan.ledger().entries
    assert plan.epsilon() > max(alone.epsilon(), 1.2)


def test_without_noise_it_is_pca():
    data, axes = made()
    found = PrivatePCA(3, 0.0).of(data, seed=0)
    unit = data.inputs / data.inputs.norm(dim=1, keepdim=True)
    kept = np.linalg.svd(unit.double().numpy(), full_matrices=False)[2][:3]
    assert np.allclose(abs(found.inputs.numpy()), abs(data.inputs.numpy() @ kept.T), atol=1e-4)
    assert found.test_inputs.shape == (20, 3) and found.shape == (3,)
    assert not found.published and found.num_classes == data.num_classes


def test_a_seed_repeats_and_no_seed_does_not():
    data, _ = made()
    pca = PrivatePCA(4, 20.0)
    one, two, secret = (pca.of(data, seed=s).inputs for s in (1, 1, None))
    assert torch.equal(one, two) and not torch.equal(one, secret)


def test_training_on_components_spends_what_the_plan_says():
    data, _ = made()
    pca = PrivatePCA(3, 5.0)
    plan = dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.1, 20), 1e-4, before=(pca.release,))
    small = pca.of(data, seed=0)
    *_, last = dp.train(dp.zoo.logistic(small, seed=0), small, plan, seed=0)
    assert last.epsilon == plan.epsilon() and last.ledger == plan.ledger()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: PrivatePCA(0, 1.0), r"components \(k.*\[1, 100000\], got 0"),
        (lambda: PrivatePCA(5, -1.0), "noise_multiplier .* got -1"),
        (lambda: PrivatePCA(10, 1.0).of(made()[0]), r"\[1, 9\].* got 10; ask for fewer"),
    ],
)
def test_bad_input_is_told_in_a_sentence(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_public_components_even_out_public_records():
    data, axes = made()
    public = made(seed=5)[0].inputs
    for evenness in (0.0, 0.5, 1.0):
        found = PublicPCA(3, evenness).learnt(public).features(public).double()
        assert torch.allclose(found.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-4)
        covariance = found.T @ found / len(found)
        assert torch.allclose(covariance, covariance.diag().diag(), atol=1e-3)
        assert float(covariance.trace()) == pytest.approx(3, rel=1e-3)
        spreads = (covariance[0, 0] / covariance[2, 2]).sqrt().item()
        plain = np.linalg.svd((public - public.mean(0)).numpy(), compute_uv=False)
        assert spreads == pytest.approx((plain[0] / plain[2]) ** (1 - evenness), rel=1e-3)
    kept = PublicPCA(9).learnt(public).directions
    assert torch.allclose(kept @ kept.T, torch.eye(9) * float((kept @ kept.T)[0, 0]), atol=1e-5)


def test_public_components_are_the_public_records_affair_alone():
    data, _ = made()
    rule = PublicPCA(3, 0.5).learnt(made(seed=5)[0].inputs)
    found, other = rule.of(data), rule.of(made(seed=6)[0])
    assert found.shape == other.shape == (3,) and found.published == data.published
    assert torch.allclose(rule.features(data.inputs[4:5])[0], found.inputs[4], rtol=1e-5)
    assert found.test_inputs.shape == (20, 3) and found.public_inputs.shape == (0, 3)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: PublicPCA(0), r"components \(k.*\[1, 100000\], got 0"),
        (lambda: PublicPCA(2, 1.5), r"evenness \(p.*\[0, 1\], got 1.5"),
        (lambda: PublicPCA(10).learnt(made()[0].inputs), r"\[1, 9\].* got 10; ask for fewer"),
        (lambda: PublicPCA(5).learnt(made()[0].inputs[:4]), r"\[1, 4\].* got 5; ask for fewer"),
        (lambda: Strokes(4), r"side \(s.*\[8, 512\], got 4"),
        (lambda: Strokes().images(0), r"count \(n.*\[1, 1000000\], got 0"),
    ],
)
def test_bad_public_input_is_told_in_a_sentence(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_strokes_are_ink_on_paper_and_the_same_for_everybody():
    found = Strokes().images(200)
    assert found.shape == (200, 1, 28, 28) and torch.equal(found[:70], Strokes().images(70))
    assert not torch.equal(found, Strokes(seed=1).images(200))
    assert float(found.min()) == 0 and float(found.max()) == 1
    assert 0.05 < float(found.mean()) < 0.2 and not found[:, :, 0, 0].any()
    assert (found.flatten(1).amax(1) > 0.9).all(), "no picture is empty"
    wide = Strokes(56).images(200)
    assert float(wide.mean()) == pytest.approx(float(found.mean()), abs=0.02)


def test_a_public_projection_has_the_same_bits_in_any_company():
    inputs = made()[0].inputs
    found = PublicPCA(3).learnt(made(seed=5)[0].inputs).features
    whole = found(inputs)
    for count in (1, 2, 5, 17):
        assert torch.equal(found(inputs[:count]), whole[:count])


def test_private_records_are_no_public_ones():
    data = made()[0]
    with pytest.raises(dp.mechanisms.Refused, match="use PrivatePCA"):
        PublicPCA(3).learnt(data.inputs).of(data)


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_public_records_without_components_are_refused(value):
    with pytest.raises(ValueError, match="finite numbers and not all the same"):
        PublicPCA(2).learnt(torch.full((10, 5), value))


def test_records_of_another_width_are_refused():
    with pytest.raises(ValueError, match="must have 5 numbers"):
        PublicPCA(2).learnt(torch.rand(10, 5)).features(torch.rand(3, 4))


def test_a_private_mean_is_one_release_of_the_stated_sensitivity():
    """A record moves the noisy sum by its bound at most; the noise has the charged scale."""
    mean = dp.datasets.PrivateMean(3.0, 2.0)
    assert mean.release == dp.Release(dp.Gaussian(3.0), access=dp.Access.ALL)
    rows = torch.randn(50, 20_000) / 200
    for bad in (1e30, float("nan"), -5.0, 0.0):
        other = rows.clone()
        other[7] = bad
        moved = 50 * (mean.of(rows, seed=1).double() - mean.of(other, seed=1).double())
        assert float(moved.norm()) <= 2.0 + float(rows[7].norm()) + 1e-3
    noise = 50 * mean.of(torch.zeros(50, 20_000), seed=2).double()
    assert float(noise.std()) == pytest.approx(6.0, rel=0.03)
    exact = dp.datasets.PrivateMean(0.0, 1e6).of(rows)
    assert torch.allclose(exact, rows.mean(0), atol=1e-6)
    with pytest.raises(ValueError, match="max_norm"):
        dp.datasets.PrivateMean(1.0, 0.0)
