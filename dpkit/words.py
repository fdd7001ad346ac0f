"""Interface words in the reader's language: English is the key, one table a language the rest."""

from __future__ import annotations

import ast
import functools
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any, TypeVar

TABLES = Path(__file__).parent / "translations"
"""One `LANGUAGE.json` for each language but English: {English text: translation}."""
VARIABLE = "DPKIT_LANGUAGE"
_SAYING = {
    "say": slice(1), "marked": slice(1), "Fault": slice(3), "knob": slice(2, 3),
    "start_knob": slice(1), "period_knob": slice(1),
}  # fmt: skip
"""Calls whose arguments are shown, and which of them."""

_Table = TypeVar("_Table")
_present: Mapping[str, str] | None = None


def say(text: str, /, **values: Any) -> str:
    """The text in the present language, its `{placeholders}` filled with the values.

    *Guarantee*
    - what has no translation, or one with other placeholders, is said in English;
    - without values nothing is filled in: a template comes back as one.
    """
    table = _begun() if _present is None else _present
    said = table.get(text, text)
    return said.format(**values) if values else said


def marked(texts: _Table) -> _Table:
    """The same texts unchanged, marked for the translator: `say` them where they are shown."""
    return texts


def english() -> bool:
    """Whether nothing is translated at present."""
    return not (_begun() if _present is None else _present)


def languages() -> tuple[str, ...]:
    """The languages there are, English first."""
    return ("en", *sorted(path.stem for path in TABLES.glob("*.json")))


def speak(language: str) -> None:
    """Choose the language of the panels and figures that are made from now on."""
    global _present
    short = str(language).replace("_", "-").split("-")[0].lower()
    if short not in languages():
        raise ValueError(
            f"language must be one of {', '.join(languages())}, got {language!r}; "
            f"choose it by dp.widgets.speak or by the environment variable {VARIABLE}."
        )
    _present = _table(short)


def placeholders(text: str) -> frozenset[tuple[str, str, str]] | None:
    """What a template asks for: name, format and conversion of each; None if it is broken."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return None
    return frozenset((n, f or "", c or "") for _, n, f, c in parts if n is not None)


def _begun() -> Mapping[str, str]:
    """The table of the language that the environment names, English if there is no such one."""
    global _present
    _present, named = {}, os.environ.get(VARIABLE) or "en"
    try:
        speak(named)
    except ValueError:
        known = ", ".join(languages())
        text = f"{VARIABLE} must be one of {known}, got {named!r}; English is spoken instead."
        warnings.warn(text, stacklevel=3)
    return _present


def _table(language: str) -> dict[str, str]:
    """A language's usable entries; a table that cannot be read has none, and that is told."""
    if language == "en":
        return {}
    path = TABLES / f"{language}.json"
    try:
        entries = json.loads(path.read_text("utf-8"))
        if not isinstance(entries, dict):
            raise ValueError("it is no table of English texts and translations")
    except (OSError, ValueError) as error:
        warnings.warn(
            f"The words {path.name} cannot be read ({error}); English is spoken instead.",
            stacklevel=4,
        )
        return {}
    return {english: said for english, said in entries.items() if fits(english, said)}


def fits(english: str, said: Any) -> bool:
    """Whether a translation can stand for the English: text, with the same placeholders."""
    return isinstance(said, str) and bool(said) and placeholders(english) == placeholders(said)


@functools.cache
def collected() -> dict[str, str]:
    """Every text that the code gives to `say`, `marked` or as a knob's meaning, and its place."""
    found: dict[str, str] = {}
    home = Path(__file__).parent
    for path in sorted(home.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (at := _SAYING.get(_called(node.func))) is not None:
                place = f"{path.relative_to(home)}:{node.lineno}"
                for argument in node.args[at]:
                    found.update(dict.fromkeys(_literals(argument, place), place))
    return found


def _called(function: ast.expr) -> str:
    return getattr(function, "id", getattr(function, "attr", ""))


def _literals(node: ast.expr | None, place: str) -> Iterator[str]:
    """The texts in an argument: a literal, a table's values, both ends of a choice."""
    match node:
        case ast.JoinedStr():
            raise ValueError(f"{place}: an f-string has no translation; use {{placeholders}}.")
        case ast.Constant(value=str(text)) if text.strip():
            yield text
        case ast.Dict(values=parts) | ast.BoolOp(values=parts):
            for part in parts:
                yield from _literals(part, place)
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            for part in parts:
                yield from _literals(part, place)
        case ast.IfExp(body=one, orelse=other):
            yield from _literals(one, place)
            yield from _literals(other, place)
        case ast.Subscript(value=table):
            yield from _literals(table, place)


def faults(language: str) -> dict[str, dict[str, str]]:
    """What is wrong with a language's table: texts missing, stale, or with other placeholders."""
    path, keys = TABLES / f"{language}.json", collected()
    entries = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {
        "missing": {text: "" for text in keys if text not in entries},
        "stale": {text: said for text, said in entries.items() if text not in keys},
        "misfit": {t: s for t, s in entries.items() if t in keys and not fits(t, s)},
    }


def main(arguments: list[str]) -> int:
    """`python -m dpkit.words [missing | stale | misfit] [LANGUAGE]`: what is left to translate.

    `missing` of a language that has no table yet prints every text: where its table begins.
    """
    kinds = [word for word in arguments if word in ("missing", "stale", "misfit")]
    chosen = [word for word in arguments if word not in kinds] or list(languages()[1:])
    bad = [word for word in chosen if word not in languages()[1:]]
    if bad and kinds != ["missing"]:
        print(f"There is no table for {bad[0]!r}; there is {', '.join(languages()[1:])}.")
        return 2
    left = 0
    for language in chosen:
        found = faults(language)
        left += sum(len(found[kind]) for kind in kinds or found)
        if kinds:
            for kind in kinds:
                print(json.dumps(found[kind], ensure_ascii=False, indent=1))
        else:
            counts = ", ".join(f"{len(texts)} {kind}" for kind, texts in found.items())
            print(f"{language}: {len(collected())} texts, {counts}")
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
