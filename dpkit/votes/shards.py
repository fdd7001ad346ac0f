"""Shards: which teacher holds which record, by a keyed hash of the record's own id."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field

import numpy as np
from numpy.typing import NDArray

from dpkit.knobs import check_knobs, knob


@dataclass(frozen=True)
class Shards:
    """Records dealt out to teachers, each by itself.

    *Guarantee*
    - where a record goes depends on its id and the key alone: other records, classes that run out
      and the order of the data change nothing;
    - no record is held by more than `copies` teachers;
    - a shard has room for a public number of records; what is beyond it is left out by hash, which
      concerns that teacher alone.
    """

    teachers: int = knob(MISSING, "N", "teachers", 1, 1_000_000, integer=True)
    copies: int = knob(1, "r", "teachers that hold one record", 1, 1000, integer=True)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    def __post_init__(self) -> None:
        """Check the knobs and the key."""
        check_knobs(self)
        if self.copies > self.teachers:
            raise ValueError(
                f"copies (r, teachers that hold one record) must be a whole number in "
                f"[1, {self.teachers}], the teachers that there are, got {self.copies}."
            )
        if not isinstance(self.key, bytes) or not 16 <= len(self.key) <= 64:
            raise ValueError("key (of the hash that deals out records) must be 16 to 64 bytes.")

    def of(self, record: int) -> tuple[tuple[int, ...], int]:
        """The teachers of a record id, and its rank where a shard is full."""
        state = hashlib.blake2b(str(int(record)).encode(), key=self.key, digest_size=32).digest()
        numbers = np.frombuffer(state, dtype=np.uint64).tolist()
        first, stride = numbers[0] % self.teachers, self.teachers // self.copies
        return tuple((first + c * stride) % self.teachers for c in range(self.copies)), numbers[1]

    def room(self, num_examples: int) -> int:
        """Places in a shard: three deviations above the mean of a public number of records."""
        mean = num_examples * self.copies / self.teachers
        return math.ceil(mean + 3 * math.sqrt(mean)) + 1

    def filled(self, ids: Iterable[int], num_examples: int) -> NDArray[np.int64]:
        """Rows of the data in each shard, (N, room); -1 marks an empty place."""
        found: list[list[tuple[int, int]]] = [[] for _ in range(self.teachers)]
        for row, record in enumerate(ids):
            teachers, rank = self.of(record)
            for teacher in teachers:
                found[teacher].append((rank, row))
        room = self.room(num_examples)
        shards = np.full((self.teachers, room), -1, dtype=np.int64)
        for teacher, held in enumerate(found):
            rows = [row for _, row in sorted(held)[:room]]
            shards[teacher, : len(rows)] = rows
        return shards
