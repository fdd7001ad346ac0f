"""The time that something takes or still needs, in words."""

from __future__ import annotations

import time

from dpkit.words import say


class Pace:
    """When to show the next picture, and how much time is left by the share that is done."""

    def __init__(self) -> None:
        """Begin with no idea: what comes before the first step is no part of the pace."""
        self._since: tuple[float, float] | None = None
        self._next = 0.0

    def due(self, pause: float) -> bool:
        """Whether `pause` seconds have gone by since this was last answered by True."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + pause
        return True

    def left(self, share: float) -> str:
        """The time left by the mean since the first share, as a progress says it; "" if unknown."""
        now = time.monotonic()
        began, first = self._since or (now, share)
        self._since = (began, first) if first > 0 else None
        if not 0 < first < share < 1:
            return ""
        return remaining((now - began) * (1 - share) / (share - first))


def remaining(seconds: float) -> str:
    """The end of a sentence on progress: how long it will go on."""
    return say(", about {time} left", time=duration(seconds))


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 9.95:
        return say("{seconds:.1f} s", seconds=seconds)
    if seconds < 120:
        return say("{seconds:.0f} s", seconds=seconds)
    return say("{minutes:.0f} min", minutes=seconds / 60)
