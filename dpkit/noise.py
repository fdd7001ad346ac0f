"""Normal noise for private sums: secret or seeded, drawn in float64, with the right tails."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Noise:
    """A stream of independent normal values."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        if seed is None:
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

            self._cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
        n = 8192
        self._zeros = bytes(8 * n)
        self._bytes = bytearray(8 * n + 16)
        import torch

        words = torch.frombuffer(self._bytes, dtype=torch.int32, count=2 * n)
        self._k, self._angle = words[:n], words[n:]
        self._r = torch.empty(n, dtype=torch.float64)
        self._t = torch.empty(n, dtype=torch.float32)
        self._z = torch.empty(2 * n, dtype=torch.float64)

    def added(self, total: torch.Tensor, std: float) -> torch.Tensor:
        """total plus noise."""
        import torch

        out = total.clone()
        n = 8192
        for start in range(0, len(out), 2 * n):
            piece = out[start : start + 2 * n]
            self._cipher.update_into(self._zeros, self._bytes)
            r, t, z = self._r, self._t, self._z
            torch.add(self._k, 2**31 + 0.5, out=r)
            r.mul_(2.0**-32).log_().mul_(-2 * std * std).sqrt_()
            torch.mul(self._angle, 2 * math.pi / 2**32, out=t)
            torch.mul(t.cos(), r, out=z[:n])
            torch.mul(t.sin_(), r, out=z[n:])
            piece.add_(z[: len(piece)])
        return out
