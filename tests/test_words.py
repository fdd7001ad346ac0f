"""The reader's language: every interface word has a translation, and what has none is English."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

import dpkit.words as words
from dpkit.words import say, speak


@pytest.fixture(autouse=True)
def english():
    """Every test begins and ends in English."""
    speak("en")
    yield
    speak("en")


@pytest.fixture
def spoken(tmp_path, monkeypatch):
    """Speak a language made up for the test: a table, or the text of its file."""

    def made(table, name="xx"):
        text = table if isinstance(table, str) else json.dumps(table)
        (tmp_path / f"{name}.json").write_text(text, "utf-8")
        monkeypatch.setattr(words, "TABLES", tmp_path)
        speak(name)

    return made


def test_english_is_what_the_code_says():
    assert say("Clip norm C") == "Clip norm C"
    assert say("clips {share:.1%}", share=0.25) == "clips 25.0%"
    assert say("a {template}") == "a {template}"


def test_a_translation_is_said_with_the_same_numbers(spoken):
    spoken({"clips {share:.1%} of {all:,}": "{all:,} x {share:.1%}", "Train": "Xx"})
    assert say("clips {share:.1%} of {all:,}", share=0.25, all=4000) == "4,000 x 25.0%"
    assert say("Train") == "Xx"


def test_a_missing_translation_is_english(spoken):
    spoken({"Train": "Xx", "Stop": "", "Reset": 3, "Pause": None})
    assert [say(t) for t in ("Train", "Stop", "Reset", "Pause", "Data {n}")] == [
        "Xx", "Stop", "Reset", "Pause", "Data {n}",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["{b}", "none", "{a:.3f}", "{a} {b}", "{a", "{a!r}", "{}"])
def test_a_translation_with_other_placeholders_is_english(spoken, wrong):
    spoken({"{a} of all": wrong})
    assert say("{a} of all", a=0.12345) == "0.12345 of all"


@pytest.mark.parametrize("broken", ["", "{", "[1, 2]", '"text"', "null", "{'a': 'b'}"])
def test_a_broken_table_is_told_once_and_english(spoken, broken):
    with pytest.warns(UserWarning, match=r"^The words xx\.json cannot be read .*; English is"):
        spoken(broken)
    assert say("Train") == "Train"


def test_a_table_that_is_no_utf_8_is_told(spoken, tmp_path):
    spoken({})
    (tmp_path / "xx.json").write_bytes(b'{"a": "\xff"}')
    with pytest.warns(UserWarning, match="cannot be read"):
        speak("xx")


@pytest.mark.parametrize("name", ["klingon", "", "../zh", "zh.json", None, 3])
def test_an_unknown_language_is_refused_in_one_sentence(name):
    with pytest.raises(ValueError, match=r"^language must be one of en, zh, got .*DPKIT_LANGUAGE"):
        speak(name)


@pytest.mark.parametrize("name", ["zh", "ZH", "zh-CN", "zh_CN"])
def test_regions_are_understood(name):
    speak(name)


def asked(language, code="from dpkit.words import say; print(say('Train'))"):
    """A fresh Python with a language in its environment."""
    return subprocess.run(
        [sys.executable, "-c", code], env={words.VARIABLE: language}, text=True,
        capture_output=True, encoding="utf-8", timeout=60,
    )  # fmt: skip


def test_the_environment_names_the_language():
    told = asked("klingon")
    assert told.stdout.strip() == "Train"
    assert told.stderr.count("Warning") == 1 and "must be one of en, zh" in told.stderr
    assert asked("").stderr == ""


def test_words_need_the_standard_library_alone():
    code = "import sys, dpkit.words; print([m for m in ('numpy', 'torch') if m in sys.modules])"
    assert asked("zh", code).stdout.strip() == "[]"


def literals(code):
    return list(words._literals(ast.parse(code, mode="eval").body, "here"))


def test_what_is_collected():
    assert literals("'a' 'b'") == ["ab"]
    assert literals("{'k': 'a', 'l': ('b', 'c')}[key]") == ["a", "b", "c"]
    assert literals("'a' if 'b' in c else d or 'e'") == ["a", "e"]
    assert literals("name") == literals("call('a')") == literals("''") == []
    with pytest.raises(ValueError, match=r"^here: an f-string"):
        literals("f'{a} b'")


@pytest.mark.parametrize("language", words.languages()[1:])
def test_the_table_holds_exactly_what_the_code_says(language):
    """`python -m dpkit.words missing zh` prints what is left to translate."""
    found = words.faults(language)
    assert found == {"missing": {}, "stale": {}, "misfit": {}}


def test_missing_stale_and_misfit_are_found(spoken, monkeypatch, capsys):
    spoken({"a {n}": "b {m}", "old": "x"})
    monkeypatch.setattr(words, "collected", lambda: {"a {n}": "here:1", "new": "here:2"})
    assert words.faults("xx") == {
        "missing": {"new": ""}, "stale": {"old": "x"}, "misfit": {"a {n}": "b {m}"},
    }  # fmt: skip
    assert words.main(["missing", "xx"]) == 1
    assert json.loads(capsys.readouterr().out) == {"new": ""}
    assert words.main([]) == 1
    assert "1 missing, 1 stale, 1 misfit" in capsys.readouterr().out
    assert words.main(["missing", "yy"]) == 2
    assert "no table for 'yy'" in capsys.readouterr().out
