"""Exercises: a question's accepted answers, its hints, and the mistakes that are known."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpkit.course.answers import read
from dpkit.words import say

SEALED = Path(__file__).with_name("exercises.sealed")
"""What learners have: the exercises without their solutions, not in clear text."""
NEAR = 0.05
"""How near, relative to the answer, is called close."""
_ROUNDED = 0.985
"""What is less of the answer than this was guessed, not rounded."""


@dataclass(frozen=True)
class Misconception:
    """An answer that tells how it came about; `within` is relative."""

    value: float
    says: str
    within: float = 0.005

    def fits(self, number: float) -> bool:
        """Whether this is what was given, as it is or rounded to two digits or three."""
        near = abs(number - self.value) <= self.within * abs(self.value)
        return near or number in (float(f"{self.value:.2g}"), float(f"{self.value:.3g}"))


@dataclass(frozen=True)
class Exercise:
    """A question whose answer is one number.

    What lies from `low` to `high` counts as right. `kind` is "number", "whole", or "choice" of
    the numbers 1 to `options`; `share` says that a share of 1 is asked for, `up` that the answer
    is a promise, or must keep one, and is rounded up. Each wrong answer brings the next hint.
    """

    low: float
    high: float
    hints: tuple[str, ...]
    why: str
    kind: str = "number"
    options: int = 0
    share: bool = False
    up: bool = False
    wrong: tuple[Misconception, ...] = ()

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> Exercise:
        """The exercise from its stored form."""
        wrong = tuple(Misconception(**known) for known in parts.get("wrong", ()))
        return cls(**{**parts, "hints": tuple(parts["hints"]), "wrong": wrong})

    def verdict(self, given: Any, mistakes: int = 0) -> Verdict:
        """What to say to an answer, after so many wrong ones; `Unreadable` if it is no number."""
        number = read(given)
        if self.kind != "number" and abs(number - round(number)) <= 1e-6 * max(1, abs(number)):
            number = float(round(number))
        if self.low <= number <= self.high:
            return Verdict(True, f"**{say('Right.')}** {self.why}")
        known = next((wrong.says for wrong in self.wrong if wrong.fits(number)), None)
        if known is None:
            slip = self._slip(number)
            if slip is not None:
                return Verdict(None, slip)
            known = self._rounded(number)
        told = [f"**{say('Not yet.')}** {known}" if known else f"**{self._compared(number)}**"]
        if mistakes or known is None:
            told.append(self.hint(mistakes))
        return Verdict(False, " ".join(told))

    def hint(self, mistakes: int) -> str:
        """The hint after so many wrong answers: the last is the strongest."""
        place = min(mistakes, len(self.hints) - 1)
        return say("Hint {number} of {count}: {hint}", number=place + 1, count=len(self.hints),
                   hint=self.hints[place])  # fmt: skip

    def _slip(self, number: float) -> str | None:
        """What is wrong with the form of the number, if that is all."""
        if self.kind == "choice" and number not in range(1, self.options + 1):
            return say("Choose one of the numbers 1 to {options}.", options=self.options)
        nearly = math.floor(number) <= self.high and math.ceil(number) >= self.low
        if self.kind == "whole" and number != round(number) and nearly:
            return say("A whole number is asked for.")
        if self.low <= -number <= self.high:
            return say("The size is right, the sign is not.")
        if self.share and self.low <= number / 100 <= self.high:
            return say("That is in percent: divide it by 100.")
        return None

    def _rounded(self, number: float) -> str | None:
        """What to say where the answer was rounded down to two digits or more, and must not be."""
        if not self.up or not _ROUNDED * self.low <= number < self.low:
            return None
        first = math.floor(math.log10(self.low))
        for digits in range(2, 7):
            unit = 10.0 ** (first + 1 - digits)
            if abs(number - unit * math.floor(self.low / unit)) < 1e-6 * unit:
                return say(
                    "That is rounded down. What is promised, or must keep a promise, is rounded up."
                )
        return None

    def _compared(self, number: float) -> str:
        if self.kind == "choice":
            return say("Not yet.")
        close = abs(number - self.low) <= NEAR * abs(self.low)
        given = f"{number:.6g}"
        if number < self.low:
            if close:
                return say("Not yet: {given} is too small, though it is close.", given=given)
            return say("Not yet: {given} is too small.", given=given)
        if close:
            return say("Not yet: {given} is too large, though it is close.", given=given)
        return say("Not yet: {given} is too large.", given=given)


@dataclass(frozen=True)
class Verdict:
    """What is told of an answer; `right` is None where there was none to judge."""

    right: bool | None
    text: str


@functools.cache
def book() -> dict[str, Exercise]:
    """All exercises by their names, such as 01.1: the lesson, and the place in it."""
    from dpkit.course.sealing import unsealed

    return {name: Exercise.of(parts) for name, parts in unsealed(SEALED).items()}
