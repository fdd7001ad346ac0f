"""Normal noise for private sums: secret or repeatable, fast, and right far into the tails."""

from __future__ import annotations

import json
import math
import os
from abc import ABC, abstractmethod
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PAIRS = 1 << 16
"""Pairs of values made at a time: few calls, in arrays that about fit a core's own cache."""

RARE = 1 << 12
"""Radius words nearer to zero than this, of 2^31, get 53 more random bits."""

UNIT = 2.0**-13
"""The unit in which radii are kept until they meet their cosine."""


class Noise:
    """A stream of independent standard normal values that are added to private sums.

    *Guarantee*:
    - without a seed every bit comes from the operating system's entropy, stretched by AES in
      counter mode where the `cryptography` package is installed and `secure` is not asked for;
      on a GPU by the device's own generator, under a fresh key of 63 such bits for each release,
      unless `secure` is asked for, which draws on the processor;
    - with a seed the stream is repeatable bit for bit on one machine, and protects nothing
      against whoever knows the seed;
    - tails are right: the radius has 31 random bits, and 53 more beyond five deviations, so that
      values of more than eight occur as often as they should.

    Values are made by the method of Box and Muller, in float32 for a float32 sum and in float64
    for a float64 one.
    """

    def __init__(self, seed: int | None = None, secure: bool = False) -> None:
        """The system's entropy for None; a teaching run's repeatable stream for a seed."""
        if secure and seed is not None:
            raise ValueError(
                "secure=True (every bit of noise from the operating system) leaves no place for "
                f"a seed, got seed={seed!r}: give seed=None, or secure=False for a teaching run."
            )
        self.seed = seed
        self._words: Words
        if seed is None:
            self._words = SystemWords() if secure else _secret_words()
        else:
            self._words = SeededWords(seed)
        self._kept: dict[tuple[int, torch.dtype], tuple[Tensor, ...]] = {}

    def added(self, total: Tensor, std: float) -> Tensor:
        """A new tensor, `total` plus independent normal noise of standard deviation `std`.

        *Shapes*: any; the result has the shape, dtype and device of `total`.
        """
        return self.add_(total.contiguous().clone(), std)

    def add_(self, total: Tensor, std: float) -> Tensor:
        """Add independent normal noise of standard deviation `std` to `total` in place."""
        if not 0 <= std < math.inf:
            raise ValueError(
                f"std (standard deviation of the noise) must lie in [0, infinity), got {std}."
            )
        if total.element_size() < 4 or not total.is_floating_point():
            raise ValueError(
                f"total (what the noise is added to) must hold float32 or float64 numbers, got "
                f"{total.dtype}: coarser ones would round the noise."
            )
        if std > 0 and total.numel():
            flat = total.view(-1)
            if total.device.type == "cpu":
                self._add_on_cpu(flat, std)
            elif isinstance(self._words, SystemWords):
                flat.add_(self._drawn_here(flat, std))
            else:
                flat.add_(self._drawn_on_device(flat), alpha=std)
        return total

    def _add_on_cpu(self, flat: Tensor, std: float) -> None:
        """Box and Muller 1958: r cos(t) and r sin(t), with r^2 = -2 log(u), t uniform."""
        import torch

        whole = flat.numel() // (2 * PAIRS) * PAIRS * 2
        halves = list(flat[:whole].split(PAIRS)) if whole else []
        if whole < flat.numel():
            halves += flat[whole:].split((flat.numel() - whole + 1) // 2)
        for first, second in zip_longest(halves[::2], halves[1::2]):
            radius, angle, turned = self._polar(len(first), flat)
            first.addcmul_(torch.cos(angle, out=turned), radius, value=UNIT * std)
            if second is not None:
                torch.sin(angle, out=turned)
                if len(second) < len(first):
                    turned, radius = turned[: len(second)], radius[: len(second)]
                second.addcmul_(turned, radius, value=UNIT * std)

    def _polar(self, count: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Radii (in UNIT) and angles in [0, 2 pi) of `count` pairs, and room for a third array."""
        import torch

        both, angle, radius, turned, pi, zero = self._arrays(count, like)
        words = torch.from_numpy(self._words.take(2 * count))
        both.copy_(words)
        torch.add(pi, angle, alpha=2 * math.pi * 2.0**-32, out=angle)
        # A word w, of either sign, gives u^2 = (w / 2^31)^2: a square is cheaper than a mask.
        torch.addcmul(zero, radius, radius, value=2.0**-62, out=radius)
        rare = radius.amin().item() < (RARE * 2.0**-31) ** 2
        # r^2 = angle - 2^26 log(u^2), in units of 2^-26. float32 knows few values of u near one,
        # that is of radii near zero: the angle, a speck below the rounding of the logarithm,
        # stands for the bits that are missing there.
        torch.sub(angle, radius.log_(), alpha=1 / UNIT**2, out=radius).sqrt_()
        if rare:
            self._refine(radius, words[count:])
        return radius, angle, turned

    def _arrays(self, count: int, like: Tensor) -> tuple[Tensor, ...]:
        """Working arrays and their parts: fresh memory and fresh views cost a third of a draw."""
        key = (count, like.dtype)
        if key not in self._kept:
            if len(self._kept) > 3:
                self._kept.clear()
            room = like.new_empty(3 * count)
            parts = room[: 2 * count], *room.split(count)
            self._kept[key] = (*parts, like.new_tensor(math.pi), like.new_zeros(()))
        return self._kept[key]

    def _refine(self, radius: Tensor, words: Tensor) -> None:
        """Draw again, finely, the radii whose word lies within RARE of zero.

        Such a word w stands for the cell from w to w + 1, in which a point is drawn.
        """
        import torch

        # numpy finds the one or two places twenty times faster than torch.nonzero.
        signed = words.numpy()
        places = torch.from_numpy(np.flatnonzero((signed < RARE) & (signed > -RARE)))
        cell = words[places].double()
        extra = torch.from_numpy(self._words.take(2 * len(places)).view(np.int64))
        fraction = (extra >> 11).bitwise_and_(2**53 - 1).double().add_(0.5).mul_(2.0**-53)
        fine = ((cell + fraction) * 2.0**-31).abs_().log_().mul_(-2.0).sqrt_().div_(UNIT)
        radius[places] = fine.to(radius.dtype)

    def keyed(self, device: torch.device) -> torch.Generator:
        """A device's own generator under a fresh key of this stream, for other distributions.

        A CPU generator keeps 32 bits of its seed, which can be tried out: its whole state is
        filled. The state is torch's own layout: 8 bytes of seed, two counters of 4 bytes, one of
        8, then 624 words of 8 bytes that each hold 32 bits of a Mersenne twister.
        """
        import torch

        key = int(self._words.take(2).view(np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator(device=device).manual_seed(key)
        if generator.device.type == "cpu":
            state = generator.get_state()
            fresh = self._words.take(624).view(np.uint32).astype(np.int64)
            state[24 : 24 + 624 * 8].view(torch.int64).copy_(torch.from_numpy(fresh))
            generator.set_state(state)
        return generator

    def state(self) -> str:
        """Where a teaching run's stream stands, as text; a secret stream has no state to keep."""
        if not isinstance(self._words, SeededWords):
            raise TypeError("A secret stream of noise is never stored: it would be drawn twice.")
        return self._words.state()

    def restore(self, state: str) -> None:
        """Go on where a teaching run's stream stood."""
        if not isinstance(self._words, SeededWords):
            raise TypeError("A secret stream of noise is never restored: it would be drawn twice.")
        self._words.restore(state)

    def _drawn_here(self, flat: Tensor, std: float) -> Tensor:
        """Noise made on the processor for a sum that lies elsewhere."""
        import torch

        made = torch.zeros(flat.shape, dtype=flat.dtype, device="cpu")
        self._add_on_cpu(made, std)
        return made.to(flat.device)

    def _drawn_on_device(self, flat: Tensor) -> Tensor:
        """Float64 values, under a fresh key for each release."""
        import torch

        return torch.randn(
            flat.shape, dtype=torch.float64, device=flat.device, generator=self.keyed(flat.device)
        )


class Words(ABC):
    """A source of uniform random 32-bit words."""

    @abstractmethod
    def take(self, count: int) -> np.ndarray:
        """`count` (even) fresh words as int32; the array is overwritten by the next call."""


class SeededWords(Words):
    """Repeatable words for teaching runs."""

    def __init__(self, seed: int) -> None:
        """One stream for each seed."""
        self._bits = np.random.SFC64(seed)

    def take(self, count: int) -> np.ndarray:
        """Raw 64-bit words, cut in two."""
        return self._bits.random_raw(count // 2).view(np.int32)

    def state(self) -> str:
        """The generator's state as JSON."""
        held: dict[str, Any] = dict(self._bits.state)
        words = [int(word) for word in held["state"]["state"]]
        return json.dumps(held | {"state": {"state": words}})

    def restore(self, state: str) -> None:
        """Go on from a state that `state` gave."""
        held = json.loads(state)
        words = np.array(held["state"]["state"], dtype=np.uint64)
        self._bits.state = held | {"state": {"state": words}}


class SystemWords(Words):
    """Words straight from the operating system."""

    def take(self, count: int) -> np.ndarray:
        """`os.urandom`, several times slower than a stretched key."""
        return np.frombuffer(bytearray(os.urandom(4 * count)), dtype=np.int32)


class StretchedWords(Words):
    """The operating system's entropy, stretched by AES-128 in counter mode (that of GCM).

    The buffer is encrypted onto itself: words are running sums (exclusive or) of the key stream,
    which are as uniform and independent as the key stream, and no zeros have to be read.
    """

    def __init__(self) -> None:
        """A key and a nonce that nobody else knows."""
        self._bytes = memoryview(bytearray(8 * PAIRS + 16))
        self._buffer = np.frombuffer(self._bytes, dtype=np.int32)
        self._renew()

    def take(self, count: int) -> np.ndarray:
        """The next part of the key stream."""
        if count > 2 * PAIRS:
            return np.concatenate([self.take(2 * PAIRS).copy(), self.take(count - 2 * PAIRS)])
        if self._left < 4 * count or self._process != os.getpid():
            self._renew()  # a forked process must not draw its parent's noise
        self._left -= 4 * count
        self._cipher.update_into(self._bytes[: 4 * count], self._bytes[: 4 * count + 15])
        return self._buffer[:count]

    def _renew(self) -> None:
        """A fresh key, long before GCM's limit of 64 GB for one."""
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        mode = modes.GCM(os.urandom(12))
        self._cipher = Cipher(algorithms.AES(os.urandom(16)), mode).encryptor()
        self._process = os.getpid()
        self._left = 2**32


def _secret_words() -> Words:
    try:
        return StretchedWords()
    except ImportError:
        return SystemWords()
