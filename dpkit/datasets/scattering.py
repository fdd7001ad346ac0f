"""Wavelet scattering: a fixed map from images to features that a linear model can tell apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dpkit.knobs import check_knobs, knob

if TYPE_CHECKING:
    from torch import Tensor

    from dpkit.datasets.dataset import Dataset

CHUNK = 8
"""Images at a time: always as many, or a Fourier transform might round a record otherwise."""
STABILITY = 1e-5
"""Added to a variance before its root is divided by, as torch.nn.GroupNorm does."""


@dataclass(frozen=True)
class Scattering:
    """Averages of |x * wavelet| and ||x * wavelet| * wavelet|, normalised record by record.

    `Scattering().of(data)` turns images of 28x28 into 81 maps of 7x7. Nothing is learnt, so that
    nothing is charged: the map is the same for everybody and for all data.

    *Guarantee*
    - a record's features depend on that record alone, bit for bit.

    *Source*: Bruna and Mallat 2013, "Invariant scattering convolution networks", order 2; group
    normalisation and a linear model on top: Tramèr and Boneh 2021, section 3.
    """

    scales: int = knob(2, "J", "octaves of wavelets; maps shrink by 2^J", 1, 4, integer=True)
    angles: int = knob(8, "L", "directions of a wavelet", 2, 16, integer=True)
    groups: int = knob(
        27, "G", "groups of maps that are normalised, 0 for none", 0, 10_000, integer=True
    )

    def __post_init__(self) -> None:
        """Check the knobs, and that the groups divide the maps."""
        check_knobs(self)
        if self.groups and self.maps % self.groups:
            raise ValueError(
                f"groups (G, groups of maps that are normalised, 0 for none) must divide the "
                f"{self.maps} maps of an image, got {self.groups}."
            )

    @property
    def maps(self) -> int:
        """Features at each place of one channel: 1 + J L + L^2 J (J - 1) / 2."""
        first = self.scales * self.angles
        return 1 + first + first * self.angles * (self.scales - 1) // 2

    def of(self, data: Dataset) -> Dataset:
        """The data with features for images, in all splits.

        *Shapes*: inputs `(N, channels, height, width)` to `(N, channels * maps, height // 2^J,
        width // 2^J)`.
        """
        if not data.is_image:
            raise ValueError(
                f"Scattering needs images of shape (1 or 3 channels, height, width), but the "
                f"records of {data.name!r} have shape {data.shape}: bring images into that shape, "
                f"as inputs[:, None] does for grey."
            )
        return replace(
            data,
            inputs=self.features(data.inputs),
            test_inputs=self.features(data.test_inputs),
            public_inputs=self.features(data.public_inputs),
            note=", ".join(filter(None, (data.note, f"order-2 scattering, {self.scales} scales"))),
        )

    def features(self, images: Tensor) -> Tensor:
        """The features of images, in chunks.

        *Shapes*: (N, C, H, W) to (N, C * maps, H // 2^J, W // 2^J).
        """
        import torch

        if images.ndim != 4:
            raise ValueError(
                f"images must have the shape (N, channels, height, width), got "
                f"{tuple(images.shape)}: images[:, None] adds a channel."
            )
        bank = _Bank(self, images.shape[2], images.shape[3])
        count, channels = images.shape[:2]
        found = torch.empty(count, channels * self.maps, *bank.places)
        room = torch.zeros(CHUNK, *images.shape[1:])
        for start in range(0, count, CHUNK):
            some = images[start : start + CHUNK]
            room[: len(some)] = some
            maps = torch.stack([bank.maps(room[:, channel]) for channel in range(channels)], 1)
            found[start : start + CHUNK] = self._normalised(maps.flatten(1, 2))[: len(some)]
        return found

    def _normalised(self, maps: Tensor) -> Tensor:
        """Each group of a record's maps at mean zero and variance one."""
        if not self.groups:
            return maps
        rows = maps.view(len(maps), self.groups, -1)
        rows = rows - rows.mean(2, keepdim=True)
        return (rows / (rows.square().mean(2, keepdim=True) + STABILITY).sqrt()).view_as(maps)


class _Bank:
    """The filters for images of one size."""

    def __init__(self, rule: Scattering, height: int, width: int) -> None:
        block = 2**rule.scales
        if min(height, width) < 2 * block:
            raise ValueError(
                f"Scattering at {rule.scales} scales (J) needs images of {2 * block} pixels a side "
                f"at least, got {height}x{width}: take fewer scales."
            )
        self.rule = rule
        self.places = height // block, width // block
        self.edges = _edges(height, block), _edges(width, block)
        self.sides = height + sum(self.edges[0]), width + sum(self.edges[1])

    def maps(self, images: Tensor) -> Tensor:
        """The averaged moduli of one channel: (B, H, W) to (B, maps, h, w)."""
        import torch
        from torch.nn import functional

        padding = (*self.edges[1], *self.edges[0])
        images = functional.pad(images[:, None], padding, mode="reflect")
        spectrum = torch.fft.fft2(images)
        found = [[self._average(images, 0)], [], []]
        for j in range(self.rule.scales):
            first = _moduli(spectrum, self._wavelets[0, j])
            found[1].append(self._average(first, j))
            deeper = torch.fft.fft2(first) if j + 1 < self.rule.scales else first
            for k in range(j + 1, self.rule.scales):
                second = _moduli(deeper[:, :, None], self._wavelets[j, k])
                found[2].append(self._average(second.flatten(1, 2), k))
        return torch.cat([part for order in found for part in order], dim=1)

    def _average(self, maps: Tensor, halvings: int) -> Tensor:
        """Gaussian averages about the centres of blocks: two products of matrices."""
        tall, wide = self._averages[halvings]
        return tall @ maps @ wide.T

    @cached_property
    def _wavelets(self) -> dict[tuple[int, int], list[list[Tensor]]]:
        """Wavelets of scale k on the grid that is halved j times, in blocks (see `_moduli`)."""
        pairs = [(0, j) for j in range(self.rule.scales)]
        pairs += itertools.combinations(range(1, self.rule.scales), 2)
        return {(j, k): self._wavelet(j, k - j) for j, k in pairs}

    def _wavelet(self, halvings: int, scale: int) -> list[list[Tensor]]:
        import torch

        sides = [side >> halvings for side in self.sides]
        turns = [math.pi * turn / self.rule.angles for turn in range(self.rule.angles)]
        slant = 4 / self.rule.angles
        every = torch.stack([_morlet(sides, scale, turn, slant) for turn in turns]).float()
        parts = 2**scale
        return [
            [block.contiguous() for block in row.chunk(parts, dim=2)]
            for row in (every / parts**2).chunk(parts, dim=1)
        ]

    @cached_property
    def _averages(self) -> list[tuple[Tensor, Tensor]]:
        """For each halving the matrices (h, height) and (w, width) of the averages."""
        block = 2**self.rule.scales
        return [
            (
                _gaussians(self.places[0], self.edges[0][0], self.sides[0], block, j),
                _gaussians(self.places[1], self.edges[1][0], self.sides[1], block, j),
            )
            for j in range(self.rule.scales)
        ]


def _edges(side: int, block: int) -> tuple[int, int]:
    """Mirrored pixels on both ends: a block each, so that the whole is a number of blocks."""
    return block, block + -side % block


def _moduli(spectrum: Tensor, blocks: list[list[Tensor]]) -> Tensor:
    """|x * wavelet| on the grid that the wavelet needs: (B, ..., S, S) to (B, ..., L, s, s).

    Taking every 2^k-th value is adding up the blocks of the spectrum.
    """
    import torch

    parts = len(blocks)
    rows = [row.chunk(parts, dim=-1) for row in spectrum.chunk(parts, dim=-2)]
    pairs: Iterator[tuple[Tensor, Tensor]] = (
        (rows[a][b], blocks[a][b]) for a in range(parts) for b in range(parts)
    )
    total = torch.mul(*next(pairs))
    for values, weights in pairs:
        total.addcmul_(values, weights)
    return torch.fft.ifft2(total).abs()


def _morlet(sides: list[int], scale: int, turn: float, slant: float) -> Tensor:
    """The spectrum of a Morlet wavelet sampled on a grid: a wave under a Gaussian, mean zero.

    Width .8 * 2^scale pixels along the wave and 1 / slant of it across, frequency 3 pi / 4 at
    scale 0; a sampled function's spectrum repeats, hence the sum over periods.
    """
    import torch

    width, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale

    def spectrum(centre: float) -> Tensor:
        total = torch.zeros(sides[0], sides[1], dtype=torch.float64)
        for down, across in itertools.product(range(-2, 3), repeat=2):
            y, x = torch.meshgrid(
                2 * math.pi * (torch.fft.fftfreq(sides[0], dtype=torch.float64) + down),
                2 * math.pi * (torch.fft.fftfreq(sides[1], dtype=torch.float64) + across),
                indexing="ij",
            )
            along = x * math.cos(turn) + y * math.sin(turn) - centre
            beside = (y * math.cos(turn) - x * math.sin(turn)) / slant
            total += torch.exp(-(width**2) / 2 * (along.square() + beside.square()))
        return total

    wave, mean = spectrum(frequency), spectrum(0.0)
    return wave - mean * (wave[0, 0] / mean[0, 0])


def _gaussians(count: int, edge: int, side: int, block: int, halvings: int) -> Tensor:
    """Weights (count, side >> halvings) about the centres of blocks of pixels, .4 blocks wide."""
    import torch

    pixels = torch.arange(0, side, 2**halvings, dtype=torch.float64)
    centres = edge + block * torch.arange(count) + (block - 1) / 2
    weights = torch.exp(-((pixels - centres[:, None]) / (0.4 * block)).square() / 2)
    return (weights / weights.sum(1, keepdim=True)).float()
