"""What a learner gives as an answer, read as one number; whatever else it is, told kindly."""

from __future__ import annotations

import math
import re
from typing import Any

from dpkit.words import say

_SIMPLE = r"(\d+(_\d+)*(\.\d*)?|\.\d+)(e[-+]?\d+)?"
_PLAIN = re.compile(rf"([-+]?)({_SIMPLE})(?:\s*/\s*({_SIMPLE}))?", re.IGNORECASE | re.ASCII)
"""A text that is a number, or a quotient of two: 2.5, 1e-5, 1_000, 1/3."""
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x2212: "-"}
"""Digits and signs as East Asian keyboards type them, and the minus sign of texts."""
_NUMBER = r"[-+]?(\d{1,3}(,\d{3})+(?!\d)|\d+(_\d+)*|(?=\.\d))(\.\d*)?(e[-+]?\d+)?"
_UNSURE = r"[-+]?[1-9]\d{0,2},\d{3}"
"""A comma that may stand before decimals or between thousands."""
_FORMULA = r"[\d+\-*/^%!()\[\]{}|√×·÷²³π]|\b(a?sqrt|log|ln|lg|exp|e|pi|root|over|times)\b"
"""What in a text, beside a number, tells that the number alone is not what is meant."""


class Unreadable(ValueError):
    """What was given is no number; the message says what it is, and what to do."""


def read(given: Any) -> float:
    """The number that was given; `Unreadable` for anything that is not one real, finite number.

    *Guarantee*: no value, of whatever type, raises another exception than `Unreadable`.
    """
    try:
        return _finite(_number(given))
    except Unreadable:
        raise
    except Exception:  # values of any class, whose methods may do anything
        raise Unreadable(_called(given)) from None


def _number(given: Any) -> float:
    if type(given).__name__ in ("bool", "bool_"):
        raise Unreadable(say("A number is asked for, not true or false."))
    if isinstance(given, str):
        return _plain(given)
    if isinstance(given, bytes):
        raise Unreadable(_text(given.decode("utf-8")))
    if isinstance(given, complex) or getattr(getattr(given, "dtype", None), "kind", "") == "c":
        raise Unreadable(say("That is a complex number; a real one is asked for."))
    if callable(given) and not hasattr(given, "__float__"):
        raise Unreadable(
            say("That is a function; call it, with brackets, and give what it returns.")
        )
    if isinstance(given, int | float):
        return float(given) if abs(given) < 1e308 or given != given else math.inf
    shape = getattr(given, "shape", None)
    if shape is not None and len(shape) == 0:
        return _number(given.item()) if hasattr(given, "item") else float(given)
    if hasattr(given, "__len__"):
        if isinstance(given, tuple) and len(given) > 1:
            raise Unreadable(
                say("A comma makes several numbers in Python: write 2.5, and 1000 or 1_000.")
            )
        raise Unreadable(_many(len(given)))
    if hasattr(given, "__float__"):
        return float(given)
    raise Unreadable(_called(given))


def _finite(number: float) -> float:
    if math.isnan(number):
        raise Unreadable(
            say("nan is no number: somewhere 0 was divided by 0, or a logarithm had no value.")
        )
    if math.isinf(number):
        raise Unreadable(say("That is infinite, or too large; a finite number is asked for."))
    return number


def _plain(given: str) -> float:
    """The number that a text is beyond doubt; `Unreadable` for any other text."""
    text = given.translate(_WIDE).strip()
    if re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", text) and re.search(r",.*[,.]", text):
        text = text.replace(",", "")
    elif not re.fullmatch(_UNSURE, text):
        text = re.sub(r"(?<=\d),(?=\d)", ".", text)
    found = _PLAIN.fullmatch(text)
    if found is None or found[7] and not float(found[7]):
        raise Unreadable(_text(given))
    whole = float(found[2]) / float(found[7] or 1)
    return -whole if found[1] == "-" else whole


def _text(given: str) -> str:
    """What to say to a text, by what stands in it."""
    plain = given.translate(_WIDE).strip()
    if re.fullmatch(r"[-+]?[\d.,]+\s*(%|per ?cent|pct)", plain, re.IGNORECASE):
        return say("A percentage is a share of 100: write 0.25 for 25%, without quotes.")
    if re.fullmatch(_UNSURE, plain):
        small, large = plain.replace(",", "."), plain.replace(",", "")
        return say("Write {small} or {large}, whichever you mean, without comma and quotes.",
                   small=small, large=large)  # fmt: skip
    found = re.search(_NUMBER, plain, re.IGNORECASE)
    if found is None:
        return say("That is text, and a number is asked for.")
    if re.search(_FORMULA, plain[: found.start()] + " " + plain[found.end() :], re.IGNORECASE):
        return say("That is text: write the formula without quotes.")
    number = found[0].replace(",", "")
    return say("That is text: write the number alone, without quotes: {number}.", number=number)


def _many(count: int) -> str:
    if count == 1:
        return say("That holds one number, but is none itself: take it out with [0] or .item().")
    return say("One number is asked for, and that holds {count}.", count=count)


def _called(given: Any) -> str:
    kind = type(given).__name__
    if any("epsilon" in vars(cls) for cls in type(given).__mro__):
        return say(
            "That is of the type {kind}; ask it for a number, such as its epsilon.", kind=kind
        )
    return say("A number is asked for, and that is of the type {kind}.", kind=kind)
