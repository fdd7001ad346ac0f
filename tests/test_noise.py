"""Noise: its moments, its tails, its independence, and where its bits come from."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from dpkit import noise as module
from dpkit.noise import Noise, SeededWords, StretchedWords, SystemWords, Words

MANY = 3_000_001


def drawn(seed: int, count: int = MANY, dtype: torch.dtype = torch.float32) -> np.ndarray:
    return Noise(seed).added(torch.zeros(count, dtype=dtype), 1.0).double().numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_moments_and_shape(dtype: torch.dtype) -> None:
    z = drawn(1, dtype=dtype)
    root = math.sqrt(len(z))
    assert abs(z.mean()) * root < 4
    assert abs(z.var() - 1) * root / math.sqrt(2) < 4
    assert abs((z**3).mean()) * root / math.sqrt(15) < 4
    assert abs((z**4).mean() - 3) * root / math.sqrt(96) < 4
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert not (z == 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tails_are_as_heavy_as_they_should_be(dtype: torch.dtype) -> None:
    z = np.concatenate([np.abs(drawn(seed, 10**7, dtype)) for seed in range(3)])
    for beyond in (3.0, 4.0, 4.5, 5.0):
        expected = len(z) * 2 * stats.norm.sf(beyond)
        assert abs((z > beyond).sum() - expected) < 4 * math.sqrt(expected), beyond


class RareWords(Words):
    """Radius words that all lie near zero: what one draw in half a million has."""

    def __init__(self) -> None:
        self._bits = np.random.default_rng(5)

    def take(self, count: int) -> np.ndarray:
        words = self._bits.integers(-(2**31), 2**31, count, dtype=np.int32)
        if count > 1000:
            words[count // 2 :] = self._bits.integers(0, module.RARE, count - count // 2)
        return words


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_far_tail_has_its_exact_distribution(dtype: torch.dtype) -> None:
    noise = Noise(0)
    noise._words = RareWords()
    count = 40_000
    pairs = noise.added(torch.zeros(2 * count, dtype=dtype), 1.0).double().view(2, count)
    energy = pairs.square().sum(0).numpy() / 2 - math.log(2**31 / module.RARE)
    assert energy.min() > -1e-5
    assert stats.kstest(energy, "expon").pvalue > 1e-3
    assert pairs.abs().max() > 6.5  # float32 torch.randn never exceeds 5.77
    angles = torch.atan2(pairs[1], pairs[0]).numpy()
    assert stats.kstest(angles, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-3


def test_small_radii_are_not_lumped() -> None:
    """Where u rounds to one in float32 the radius still takes many values, none of them zero."""

    class NearOne(RareWords):
        def take(self, count: int) -> np.ndarray:
            words = super().take(count)
            words[count // 2 :] = 2**31 - 1 - self._bits.integers(0, 32, count - count // 2)
            return words

    noise = Noise(0)
    noise._words = NearOne()
    pairs = noise.added(torch.zeros(2, 20_000).view(-1), 1.0).view(2, -1)
    radii = pairs.double().square().sum(0).sqrt()
    assert float(radii.min()) > 0 and float(radii.max()) < 1e-3
    assert len(torch.unique(radii)) > 15_000


@pytest.mark.parametrize("lag", [1, 2, module.PAIRS, 2 * module.PAIRS])
def test_values_do_not_depend_on_each_other(lag: int) -> None:
    z = drawn(7)
    for f in (lambda v: v, np.square, np.abs):
        left, right = f(z[:-lag]), f(z[lag:])
        assert abs(np.corrcoef(left, right)[0, 1]) * math.sqrt(len(left)) < 4.5


def test_streams() -> None:
    zeros = torch.zeros(1001)
    first = Noise(3)
    one, two = first.added(zeros, 1.0), first.added(zeros, 1.0)
    again = Noise(3)
    assert torch.equal(one, again.added(zeros, 1.0)) and torch.equal(two, again.added(zeros, 1.0))
    others = [two, Noise(4).added(zeros, 1.0), Noise().added(zeros, 1.0), Noise().added(zeros, 1.0)]
    assert not any(torch.equal(one, other) for other in others)
    assert not torch.equal(others[2], others[3])
    assert abs(float(np.corrcoef(one, others[1])[0, 1])) < 5 / math.sqrt(1001)
    a, b = (torch.rand(5, generator=first.keyed(torch.device("cpu"))) for _ in range(2))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("make", [StretchedWords, SystemWords, lambda: SeededWords(1)])
def test_words_are_uniform(make: Callable[[], Words]) -> None:
    words = make()
    taken = np.concatenate(
        [words.take(count).copy() for count in (2, 100, 2 * module.PAIRS, 4) * 2]
    )
    bits = np.unpackbits(taken.view(np.uint8)).reshape(-1, 32).mean(0)
    assert np.abs(bits - 0.5).max() * 2 * math.sqrt(len(taken)) < 7
    assert len(np.unique(taken[:100])) > 90


def test_secret_noise_has_the_right_scale_and_renews_its_key() -> None:
    noise = Noise()
    assert isinstance(noise._words, StretchedWords)
    cipher, noise._words._left = noise._words._cipher, 100
    z = noise.added(torch.zeros(400_000), 3.0).double()
    assert noise._words._cipher is not cipher
    assert abs(float(z.square().mean()) / 9 - 1) < 7 * math.sqrt(2 / 400_000)
    assert abs(float(z.mean())) < 7 * 3 / math.sqrt(400_000)


def test_noise_without_the_cipher_comes_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.ciphers", None)
    noise = Noise()
    assert isinstance(noise._words, SystemWords)
    z = noise.added(torch.zeros(100_000), 1.0).double()
    assert abs(float(z.square().mean()) - 1) < 7 * math.sqrt(2 / 100_000)


def test_added_noise_keeps_shape_and_leaves_the_sum_alone() -> None:
    total = torch.arange(12.0).view(3, 4).t()
    noisy = Noise(0).added(total, 1e-3)
    assert noisy.shape == total.shape and torch.allclose(noisy, total, atol=0.01)
    assert torch.equal(total, torch.arange(12.0).view(3, 4).t()) and not torch.equal(noisy, total)
    assert torch.equal(Noise(0).added(total, 0.0), total)
    assert Noise(0).added(torch.zeros(0), 1.0).shape == (0,)
    assert Noise(0).added(torch.zeros((), dtype=torch.float64), 1.0).dtype == torch.float64
    scaled = Noise(0).added(torch.zeros(9, dtype=torch.float64), 5.0)
    assert torch.allclose(scaled, 5 * Noise(0).added(torch.zeros(9, dtype=torch.float64), 1.0))
    for std in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="std"):
            Noise(0).added(total, std)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_draws_other_noise() -> None:
    noise = Noise(None)
    noise.added(torch.zeros(8), 1.0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, noise.added(torch.zeros(8), 1.0).numpy().tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = np.frombuffer(os.read(read, 32), dtype=np.float32)
    ours = noise.added(torch.zeros(8), 1.0).numpy()
    assert not (ours == theirs).any()


class Spy(Noise):
    """Says which way a sum that lies elsewhere is taken."""

    def _drawn_here(self, flat: torch.Tensor, std: float) -> torch.Tensor:
        self.way = "here"
        return super()._drawn_here(flat, std)

    def _drawn_on_device(self, flat: torch.Tensor) -> torch.Tensor:
        self.way = "there"
        return torch.zeros_like(flat)


def test_secure_noise_for_another_device_is_made_here() -> None:
    """Every bit from the system: no device's generator can promise that."""
    elsewhere = torch.zeros(1000, device="meta")
    for secure, way in ((True, "here"), (False, "there")):
        spy = Spy(secure=secure)
        assert spy.add_(elsewhere, 2.0).device.type == "meta" and spy.way == way


@pytest.mark.parametrize("drawn_by", ["_drawn_here", "_drawn_on_device"])
def test_noise_for_another_device_has_the_right_scale_and_never_repeats(drawn_by: str) -> None:
    noise = Noise(secure=True)
    zeros = torch.zeros(400_000)
    arguments = (zeros, 1.0) if drawn_by == "_drawn_here" else (zeros,)
    one, two = (getattr(noise, drawn_by)(*arguments).double() for _ in range(2))
    for z in (one, two):
        assert abs(float(z.square().mean()) - 1) < 7 * math.sqrt(2 / 400_000)
        assert abs(float(z.mean())) < 7 / math.sqrt(400_000)
    assert abs(float((one * two).mean())) < 7 / math.sqrt(400_000)
