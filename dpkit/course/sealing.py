"""From the instructor's file of exercises to what learners have, and to the solutions."""

from __future__ import annotations

import base64
import json
import tomllib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NEEDED = ("question", "answer", "solution", "hints", "why")
_KNOWN = {*_NEEDED, "kind", "options", "exact", "below", "above", "share", "up", "facts",
          "wrong"}  # fmt: skip
_KINDS = ("number", "whole", "choice")
_EXACT = 1e-6
_STORED = 1e-4
"""How far below what is computed an answer may be stored, and given, where it is rounded up."""

Parts = dict[str, Any]


def source(path: Path) -> dict[str, Parts]:
    """The instructor's exercises, checked; ValueError names what is wrong with which."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no TOML file ({error}).") from None
    for name, parts in found.items():
        fault = _fault(parts)
        if fault:
            raise ValueError(f"Exercise {name} of {path.name}: {fault}.")
    if not found:
        raise ValueError(f"{path.name} holds no exercises.")
    return found


def bounds(parts: Mapping[str, Any]) -> tuple[float, float]:
    """The lowest and the highest number that count as right."""
    answer = float(parts["answer"])
    if _is_exact(parts):
        below = above = _EXACT
    else:
        below, above = (_STORED, 0.02) if parts.get("up") else (0.01, 0.01)
        below, above = parts.get("below", below), parts.get("above", above)
    return answer - below * abs(answer), answer + above * abs(answer)


def shipped(found: Mapping[str, Parts]) -> dict[str, Parts]:
    """What goes to learners: no questions, no solutions, no formulas."""
    made: dict[str, Parts] = {}
    for name, parts in found.items():
        low, high = bounds(parts)
        kept: Parts = {
            key: parts[key] for key in ("kind", "options", "share", "up") if key in parts
        }
        wrong = [{key: known[key] for key in ("value", "says", "within") if key in known}
                 for known in parts.get("wrong", [])]  # fmt: skip
        made[name] = {
            "low": low, "high": high, "hints": parts["hints"], "why": parts["why"], **kept,
            "wrong": wrong,
        }  # fmt: skip
    return made


def seal(found: Mapping[str, Parts], path: Path) -> None:
    """Write the exercises for learners, not in clear text."""
    plain = json.dumps(shipped(found), ensure_ascii=False, sort_keys=True).encode()
    text = base64.b64encode(zlib.compress(plain, 9)).decode()
    lines = [text[start : start + 100] for start in range(0, len(text), 100)]
    path.write_text("\n".join(lines) + "\n")


def unsealed(path: Path) -> dict[str, Parts]:
    """What was sealed."""
    found: dict[str, Parts] = json.loads(zlib.decompress(base64.b64decode(path.read_text())))
    return found


def solutions(found: Mapping[str, Parts]) -> str:
    """The solutions as Markdown: answer, accepted range, Python, hints, known mistakes."""
    from dpkit.course.lessons import LESSONS

    said = [
        "# Solutions",
        "Written by `python -m dpkit.course solutions`; change `exercises.toml` instead. The "
        "Python stands after `import math`, `import dpkit as dp`, `from dpkit import abadi` and "
        "`from dataclasses import replace`.",
    ]
    for lesson in LESSONS:
        said.append(f"## {lesson.number} {lesson.title}")
        for name, parts in found.items():
            if name.startswith(f"{lesson.number}."):
                said.append(_solution(name, parts))
    return "\n\n".join(said) + "\n"


def _solution(name: str, parts: Parts) -> str:
    low, high = bounds(parts)
    answer = f"**{parts['answer']:,}**"
    if not _is_exact(parts):
        answer += f" (accepted: {low:,.5g} to {high:,.5g})"
    lines = [
        f"### {name}\n\n{parts['question'].strip()}\n\nAnswer: {answer}. {parts['why']}",
        f"```python\n{parts['solution']}\n```",
        "\n".join(f"* Hint {place}: {hint}" for place, hint in enumerate(parts["hints"], 1)),
    ]
    lines += ["\n".join(f"* On {k['value']:,}: {k['says']}" for k in parts.get("wrong", []))]
    return "\n\n".join(line for line in lines if line)


def _is_exact(parts: Mapping[str, Any]) -> bool:
    return bool(parts.get("exact")) or parts.get("kind") == "choice"


def _fault(parts: Any) -> str:
    """What is wrong with an exercise, in words; empty if nothing is."""
    if not isinstance(parts, dict):
        return "it is no table"
    missing, unknown = set(_NEEDED) - set(parts), set(parts) - _KNOWN
    if missing or unknown:
        what = "lacks" if missing else "has an unknown"
        return f"it {what} {', '.join(sorted(missing or unknown))}"
    if parts.get("kind", "number") not in _KINDS:
        return f"kind must be one of {', '.join(_KINDS)}, got {parts['kind']!r}"
    if len(parts["hints"]) < 2:
        return "it needs two hints, a gentle one and a strong one"
    low, high = bounds(parts)
    for known in parts.get("wrong", []):
        if set(known) - {"value", "formula", "says", "within"} or not {"value", "says"} <= set(
            known
        ):
            return "a wrong answer has a value, a formula, what it says, and perhaps within"
        if low <= known["value"] <= high:
            return f"the wrong answer {known['value']} counts as right"
    return ""
