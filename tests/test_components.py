"""Private principal components: what a record can move, what is drawn, what is charged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.datasets import Dataset, PrivatePCA


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
