"""Wavelet scattering: against direct convolutions, against deformations, one record at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.datasets import Dataset, Scattering


def images(n=4, channels=1, height=28, width=28, seed=0):
    """Smooth random images."""
    rng = torch.Generator().manual_seed(seed)
    rough = torch.randn(n, channels, height, width, generator=rng)
    return torch.nn.functional.avg_pool2d(rough, 3, stride=1, padding=1)


def strokes(shift=0.0, bend=0.0, side=28):
    """A slanted stroke, moved by a number of pixels, or bent."""
    y, x = torch.meshgrid(*[torch.arange(side) - side / 2 + 0.5] * 2, indexing="ij")
    place = x * 0.8 + y * 0.6 - shift + bend * (y / side).square() * side
    return torch.exp(-place.square() / 4)[None, None] * torch.exp(-(x**2 + y**2) / 80)


def morlet(scale, turn, slant, reach):
    """The wavelet in space, straight from its formula, on pixels -reach to reach."""
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float)
    width, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
    along = x * math.cos(turn) + y * math.sin(turn)
    beside = (y * math.cos(turn) - x * math.sin(turn)) * slant
    window = np.exp(-(along**2 + beside**2) / (2 * width**2))
    wave = window * np.exp(1j * frequency * along)
    return (wave - window * (wave.sum() / window.sum())) * slant / (2 * math.pi * width**2)


def convolved(image, kernel):
    """Term by term, around the edges."""
    reach, total = len(kernel) // 2, np.zeros(image.shape, dtype=complex)
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            moved = np.roll(image, (down, across), axis=(0, 1))
            total += kernel[reach + down, reach + across] * moved
    return total


def averaged(field, step, height, width):
    """Gaussian averages of 1.6 pixels about the centres of blocks of 4, 4 pixels from the edge."""
    found = np.empty((height // 4, width // 4))
    for row, column in np.ndindex(*found.shape):
        y, x = (step * np.arange(n, dtype=float) for n in field.shape)
        tall = np.exp(-((y - 4 - 4 * row - 1.5) ** 2) / (2 * 1.6**2))
        wide = np.exp(-((x - 4 - 4 * column - 1.5) ** 2) / (2 * 1.6**2))
        found[row, column] = (tall / tall.sum()) @ field @ (wide / wide.sum())
    return found


def direct(image, angles):
    """Order 2 at two scales by slow sums, moduli taken at every pixel and then thinned out."""
    height, width = image.shape
    padded = np.pad(image, ((4, 4 + -height % 4), (4, 4 + -width % 4)), mode="reflect")
    turns = [math.pi * k / angles for k in range(angles)]
    found, second = [averaged(padded, 1, height, width)], []
    for turn in turns:
        first = abs(convolved(padded, morlet(0, turn, 4 / angles, 15)))
        found.append(averaged(first, 1, height, width))
        for other in turns:
            deeper = abs(convolved(first, morlet(1, other, 4 / angles, 15)))[::2, ::2]
            second.append(averaged(deeper, 2, height, width))
    for turn in turns:
        first = abs(convolved(padded, morlet(1, turn, 4 / angles, 15)))[::2, ::2]
        found.append(averaged(first, 2, height, width))
    return np.stack(found + second)


@pytest.mark.parametrize("height, width", [(28, 28), (18, 25)])
def test_it_is_what_direct_convolutions_give(height, width):
    image = images(1, height=height, width=width)
    found = Scattering(angles=4, groups=0).features(image)[0].numpy()
    expected = direct(image[0, 0].double().numpy(), 4)
    assert found.shape == expected.shape == (25, height // 4, width // 4)
    # A wavelet of the second scale reaches beyond 15 pixels by this much.
    assert np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("scales", [1, 2, 3])
@pytest.mark.parametrize("channels, side", [(1, 28), (3, 32), (1, 16)])
def test_shapes_and_numbers_of_maps(scales, channels, side):
    rule = Scattering(scales, 4, 0)
    maps = {1: 5, 2: 25, 3: 61}[scales]
    found = rule.features(images(2, channels, side, side))
    assert rule.maps == maps and found.shape == (2, channels * maps, *[side // 2**scales] * 2)
    assert found.dtype == torch.float32 and bool(torch.isfinite(found).all())


def test_the_digits_and_their_splits():
    data = dp.datasets.load("digits", num_examples=200, public=0.1)
    found = Scattering().of(data)
    assert found.shape == (81, 2, 2) and found.num_examples == data.num_examples
    assert len(found.test_inputs) == 360 and len(found.public_inputs) == 20
    assert torch.equal(found.targets, data.targets) and "scattering" in found.note
    assert torch.equal(found.test_inputs[7], Scattering().features(data.test_inputs[7:8])[0])


def test_a_record_has_the_same_bits_in_any_company():
    many = images(37, 3, 12, 12)
    together = Scattering().features(many)
    for place in range(37):
        assert torch.equal(Scattering().features(many[place : place + 1])[0], together[place])
    spoilt = many.clone()
    spoilt[[0, 8, 17]], spoilt[3] = float("nan"), 1e30
    kept = [n for n in range(37) if n not in (0, 3, 8, 17)]
    assert torch.equal(Scattering().features(spoilt)[kept], together[kept])


def test_groups_have_mean_zero_and_variance_one_in_every_record():
    found = Scattering().features(30 * images(5)).view(5, 27, -1)
    assert float(found.mean(2).abs().max()) < 1e-5
    assert float((found.var(2, correction=0) - 1).abs().max()) < 0.02
    raw = Scattering(groups=0).features(30 * images(5))
    expected = torch.nn.functional.group_norm(raw, 27)
    assert torch.allclose(found.view_as(expected), expected, atol=2e-5)


def test_a_constant_image_has_no_waves():
    raw = Scattering(groups=0).features(torch.full((1, 1, 28, 28), 2.5))[0]
    assert torch.allclose(raw[0], torch.tensor(2.5)) and float(raw[1:].abs().max()) < 1e-5


def test_small_moves_and_bends_change_little_where_pixels_change_much():
    rule, still = Scattering(groups=0), strokes()
    reference = rule.features(still)
    for other, share in ((strokes(shift=1.5), 0.7), (strokes(bend=2.0), 0.9)):
        pixels = float((other - still).norm() / still.norm())
        found = float((rule.features(other) - reference).norm() / reference.norm())
        assert pixels > 0.5 and found < share * pixels


def test_a_wave_answers_in_its_own_direction():
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    for turn in range(8):
        angle = math.pi * turn / 8
        wave = torch.cos(0.75 * math.pi * (x * math.cos(angle) + y * math.sin(angle)))
        found = Scattering(groups=0).features(wave[None, None])[0, 1:9, 2:-2, 2:-2].mean((1, 2))
        assert int(found.argmax()) == turn and float(found.max()) > 0.4


def test_energy_is_neither_lost_nor_made():
    """A white image's waves hold its energy: the bank covers all frequencies about evenly."""
    noise = torch.randn(20, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    raw = Scattering(groups=0).features(noise)
    assert 0.1 < float(raw[:, 1:9].mean()) < 1 and float(raw.abs().max()) < 3


def test_bits_do_not_depend_on_what_was_computed_before():
    rule, image = Scattering(), images(1)
    first = rule.features(image)
    rule.features(images(11, seed=3))
    assert torch.equal(rule.features(image), first) and rule == Scattering()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: Scattering(0), r"scales \(J.*\[1, 4\], got 0"),
        (lambda: Scattering(angles=1.5), r"angles \(L.*whole number in \[2, 16\], got 1.5"),
        (lambda: Scattering(groups=10), "must divide the 81 maps of an image, got 10"),
        (lambda: Scattering().features(images(1, height=7, width=9)), "of 8 pixels .* got 7x9"),
        (lambda: Scattering(3, groups=0).features(images(1, height=15)), "got 15x28: take fewer"),
        (
            lambda: Scattering().of(Dataset.of(np.zeros((4, 64), np.float32), [0, 1, 0, 1])),
            r"needs images .*'my-data' have shape \(64,\): bring",
        ),
    ],
)
def test_bad_input_is_told_in_a_sentence(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def test_images_without_a_channel_are_told():
    with pytest.raises(ValueError, match="adds a channel"):
        Scattering().features(torch.zeros(3, 28, 28))
