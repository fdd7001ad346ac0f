"""B. The moments of the noise: its scale, its independence, its tail, its secrecy."""

from __future__ import annotations

import math
import os
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import dpkit as dp
from dpkit.noise import Noise
from dpkit.schedules import at
from tests.privacy import cases
from tests.privacy.recording import record

RELEASES = 8
FIVE_SIGMA = float(stats.norm.sf(5))
RECORDS = 12


def wide(dtype=torch.float32):
    """1.0e5 weights in tensors of very different sizes, small and unlike one another."""
    model = nn.Sequential(nn.Linear(6, 400), nn.Tanh(), nn.Linear(400, 250), nn.Tanh(),
                          nn.Linear(250, 3)).to(dtype)  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(1e-6, 1e-5, parameter.numel()).view_as(parameter))
    return model


def nothing(outputs, targets):
    """A loss without a gradient: what is released is noise alone."""
    return 0 * outputs.sum(1)


def released(method, *, dtype=torch.float32, seed=0, rate=0.5):
    """Noise as the method drew it, per step, and as the weights moved, per step: (T, D) each."""
    plan = dp.Plan(method, dp.Poisson(rate, RELEASES), 1e-3, accountant=dp.RDP())
    model = wide(dtype)
    start = _flat(model.state_dict().values())
    data = torch.randn(RECORDS, 6, dtype=dtype), torch.arange(RECORDS) % 3
    log = record(plan, model, data, num_examples=RECORDS, loss=nothing, seed=seed)
    drawn = torch.stack([log.of_step(t)[0].noise for t in range(RELEASES)])
    places = torch.stack([start, *[_flat(w) for w in log.weights]])
    return drawn, places.diff(dim=0), [log.of_step(t)[0] for t in range(RELEASES)]


def _flat(tensors):
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])


def _tensors(vector):
    sizes = [p.numel() for p in wide().parameters()]
    if vector.shape[-1] < sum(sizes):  # a support, which runs through all of them
        return vector.split(20_000, dim=-1)
    return vector.split(sizes, dim=-1)


def _stds(method, drawn):
    """What the noise of each step must be: sigma C, or sigma C sqrt(|S| / D)."""
    whole = sum(p.numel() for p in wide().parameters())
    scaled = method.mask is not None and method.mask.scaled_norm
    factor = math.sqrt(drawn.shape[1] / whole) if scaled else 1.0
    return [at(method.noise_multiplier, t) * at(method.max_grad_norm, t) * factor
            for t in range(RELEASES)]  # fmt: skip


def assert_variance(values, std, what):
    """The sum of squares against its exact law, at five sigma on either side."""
    n = values.numel()
    square = float((values / std).square().sum())
    low, high = stats.chi2.isf(1 - FIVE_SIGMA, n), stats.chi2.isf(FIVE_SIGMA, n)
    assert low < square < high, f"{what}: variance {square / n:.4f} of what is charged (n = {n})"


@pytest.mark.parametrize("method", cases.METHODS, ids=cases.named)
def test_the_noise_drawn_has_the_charged_scale(method):
    drawn, _, draws = released(method)
    stds = _stds(method, drawn)
    for step, std in enumerate(stds):
        assert draws[step].mechanism == method.releases(step)[0].mechanism
        for i, part in enumerate(_tensors(drawn[step])):
            assert_variance(part, std, f"step {step}, tensor {i}")
    assert_variance(drawn / torch.tensor(stds).double()[:, None], 1.0, "all steps together")


@pytest.mark.parametrize("factor", [0.98, 1.0])
def test_a_shortage_of_2_percent_is_always_found_and_no_honest_noise_is_accused(
    factor, monkeypatch
):
    """The sum of squares is the most powerful statistic that there is for a scale.

    At five sigma (a false alarm in 3.5 million, a side) one release of 1.0e5 values shows that a
    deviation is 2% short but for a chance of 2.8e-5, and the eight of a run but for 4e-95.
    """
    for n, miss in ((100_000, 2.9e-5), (800_000, 1e-94)):
        assert stats.chi2.sf(stats.chi2.isf(1 - FIVE_SIGMA, n) / 0.98**2, n) < miss
    original, method = dp.Gaussian.draw, cases.METHODS[0]
    monkeypatch.setattr(dp.Gaussian, "draw", lambda self, total, norm, generator: (
        original(self, total, factor * norm, generator)))  # fmt: skip
    std = method.noise_multiplier * method.max_grad_norm
    seeds = 250 if cases.LONG else 10
    alone, together = 0, 0
    for seed in range(seeds):
        drawn, _, _ = released(method, seed=seed)
        alone += sum(_accused(release[:100_000], std) for release in drawn)
        together += _accused(drawn, std)
    assert drawn.shape[1] >= 100_000
    assert (alone, together) == ((RELEASES * seeds, seeds) if factor < 1 else (0, 0))


def _accused(values, std):
    try:
        assert_variance(values, std, "")
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("method", cases.READABLE, ids=cases.named)
def test_the_weights_move_by_the_charged_noise(method):
    """End to end: the movement of the weights alone, over the public divisor."""
    _, moves, _ = released(method)
    velocity = torch.zeros_like(moves[0])
    for step, move in enumerate(moves):
        now = -move / at(method.learning_rate, step)
        noise = (now - method.momentum * velocity) * 0.5 * RECORDS
        velocity = now
        std = at(method.noise_multiplier, step) * at(method.max_grad_norm, step)
        for i, part in enumerate(_tensors(noise)):
            assert_variance(part, std, f"step {step}, tensor {i}")


@pytest.mark.parametrize("method", cases.MASKED, ids=cases.named)
def test_the_noise_of_a_mask_is_on_its_support_alone(method):
    """As many values are drawn as the mask keeps; the others do not move by a bit."""
    drawn, moves, draws = released(replace(method, augmentation=None))
    free = sum(p.numel() for name, p in wide().named_parameters()
               if not (method.mask.exempt and "bias" in name))  # fmt: skip
    kept = [moves.shape[1] - free + method.mask.kept(step, free) for step in range(RELEASES)]
    assert drawn.shape[1] < moves.shape[1]
    for step, (move, draw) in enumerate(zip(moves, draws, strict=True)):
        assert draw.total.numel() == kept[step]
        still = int((move == 0).sum())
        # A few of those that may move are moved by less than the last place of their weight.
        assert 0 <= still - (moves.shape[1] - kept[step]) < 1e-3 * kept[step]
    if method.momentum or method.optimiser or method.mask.chosen_once:
        return
    for step, (move, std) in enumerate(zip(moves, _stds(method, drawn), strict=True)):
        noise = -move[move != 0] * 0.5 * RECORDS / at(method.learning_rate, step)
        assert_variance(noise, std, f"step {step}, as the weights moved")


def test_a_step_is_divided_by_the_expected_batch_of_its_own():
    """Batches that grow: the public divisor grows with them, step by step."""
    method = cases.METHODS[0]
    drawn, moves, _ = released(method, rate=lambda step: 0.1 + 0.1 * step, dtype=torch.float64)
    for step, move in enumerate(moves):
        size = (0.1 + 0.1 * step) * RECORDS
        torch.testing.assert_close(-move * size / method.learning_rate, drawn[step])


@pytest.mark.parametrize("method", cases.METHODS, ids=cases.named)
def test_noise_is_independent_over_coordinates_tensors_and_steps(method):
    drawn, _, _ = released(method)
    unit = drawn / drawn.std(dim=1, keepdim=True)
    n = unit.shape[1]
    for lag in (1, 2, 7):
        assert abs(float((unit[:, lag:] * unit[:, :-lag]).mean())) < 5 / math.sqrt(unit.numel())
    between = unit @ unit.T / n
    assert float((between - torch.diag(between.diag())).abs().max()) < 5.5 / math.sqrt(n)
    parts = _tensors(unit)
    for a in range(len(parts)):
        for b in range(a):
            size = min(parts[a].shape[1], parts[b].shape[1])
            both = (parts[a][:, :size] * parts[b][:, :size]).mean()
            assert abs(float(both)) < 5.5 / math.sqrt(size * RELEASES), (a, b)
    assert float((drawn[1:] == drawn[:-1]).double().mean()) < 1e-4, "the same noise again"


@pytest.mark.parametrize("method", cases.METHODS[:2], ids=cases.named)
def test_noise_is_drawn_in_double_precision(method):
    """A float32 generator never passes 5.77 sigma; a float16 one knows few values."""
    drawn, _, _ = released(method, dtype=torch.float64)
    assert drawn.dtype == torch.float64
    narrow = drawn.float().double() == drawn
    assert float(narrow.double().mean()) < 1e-3, "the noise has single precision"
    assert drawn.unique().numel() > 0.9999 * drawn.numel()
    single, _, _ = released(method, dtype=torch.float32)
    assert single[0].unique().numel() > 0.98 * single[0].numel()


@pytest.mark.parametrize("method", cases.METHODS[:2], ids=cases.named)
def test_secret_noise_does_not_follow_any_public_seed(method):
    """seed=None: the same global seeds before two runs must not give the same noise."""
    runs = []
    for _ in range(2):
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        runs.append(released(method, seed=None)[0])
    assert float((runs[0] == runs[1]).double().mean()) < 1e-4
    n = runs[0].numel()
    unit = [run / run.std(dim=1, keepdim=True) for run in runs]
    assert abs(float((unit[0] * unit[1]).mean())) < 5 / math.sqrt(n)
    first = released(method, seed=0)[0]
    assert torch.equal(first, released(method, seed=0)[0]), "a seed repeats its noise"
    assert not torch.equal(first, released(method, seed=1)[0])


def test_a_secret_is_not_a_seed_of_32_bits(monkeypatch):
    """A key of 32 bits is tried out in days: noise takes at least 128 from the system."""
    asked, original = [], os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: asked.append(n) or original(n))
    released(cases.METHODS[0], seed=None)
    assert sum(asked) >= 16, "whoever tries all keys finds the noise"


def test_a_device_stream_is_not_a_seed_of_32_bits():
    """torch's CPU generator keeps 32 bits of any seed: its state must hold more than that."""
    one = Noise(None).keyed(torch.device("cpu"))
    again = torch.Generator().manual_seed(one.initial_seed())
    assert not torch.equal(torch.rand(9, generator=one), torch.rand(9, generator=again))
    assert torch.equal(*(torch.rand(3, generator=torch.Generator().manual_seed(s))
                         for s in (1, 1 + 2**32)))  # fmt: skip


def test_secure_noise_comes_from_the_system_bit_by_bit(monkeypatch):
    asked, original = [], os.urandom
    monkeypatch.setattr(os, "urandom", lambda n: asked.append(n) or original(n))
    assert_variance(Noise(None, secure=True).add_(torch.zeros(100_000), 1.0).double(), 1.0, "all")
    assert sum(asked) >= 4 * 100_000
    with pytest.raises(ValueError, match="secure=True .* seed=3"):
        Noise(3, secure=True)


@pytest.mark.parametrize("rate", [1e-9, 1.0])
def test_noise_does_not_depend_on_the_batch(rate):
    """Empty and full batches get the very same noise, to the last digit that float32 keeps."""
    full, empty = (released(cases.METHODS[0], rate=r)[0] for r in (0.5, rate))
    assert torch.allclose(full, empty, atol=1e-5)


@pytest.mark.parametrize("stream", [Noise, torch.Generator().manual_seed], ids=["Noise", "torch"])
@pytest.mark.parametrize("kind", [dp.Gaussian, dp.Laplace], ids=cases.named)
def test_a_mechanism_draws_its_own_law(kind, stream):
    """Kolmogorov-Smirnov at 1e-6, over 2e5 draws, tail included."""
    total = torch.zeros(200_000, dtype=torch.float64)
    noise = kind(1.5).draw(total, 2.0, stream(0)) / 3.0
    law = {dp.Gaussian: "norm", dp.Laplace: "laplace"}[kind]
    assert stats.kstest(noise.numpy(), law).pvalue > 1e-6
    assert float(noise.abs().max()) > 4.0
