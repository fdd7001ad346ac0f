"""The reader's language: every interface word has a translation, and what has none is English."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import timeit

import pytest
from traitlets import TraitError

import dpkit as dp
import dpkit.words as words
from dpkit import widgets
from dpkit.sweeping.composition import Total
from dpkit.widgets import told
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


@pytest.mark.parametrize("language", words.languages()[1:])
def test_what_plotly_fills_in_is_in_both(language):
    table = json.loads((words.TABLES / f"{language}.json").read_text("utf-8"))
    for english, said in table.items():
        asked, there = (
            sorted(re.findall(r"%\{+[^}]*\}+|<[^>]*>|`[^`]*`", t)) for t in (english, said)
        )
        assert asked == there, said
        assert english.count("**") == said.count("**"), said


def test_what_is_collected():
    assert literals("'a' 'b'") == ["ab"]
    assert literals("{'k': 'a', 'l': ('b', 'c')}[key]") == ["a", "b", "c"]
    assert literals("'a' if 'b' in c else d or 'e'") == ["a", "e"]
    assert literals("name") == literals("call('a')") == literals("''") == []
    with pytest.raises(ValueError, match=r"^here: an f-string"):
        literals("f'{a} b'")


def at_import(node):
    """The calls of `say` that run when a module is imported: all but those in functions' bodies."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(child.args)
        else:
            if isinstance(child, ast.Call) and words._called(child.func) == "say":
                yield child.lineno
            yield from at_import(child)


def test_nothing_is_said_at_import_where_the_language_may_change_later():
    for path in words.TABLES.parent.rglob("*.py"):
        assert not list(at_import(ast.parse(path.read_text("utf-8")))), path
    code = "a = say('x')\ndef f(b=say('y')):\n    return say('z')\nclass C:\n    c = [say('w')]"
    assert list(at_import(ast.parse(code))) == [1, 2, 5]


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
    assert words.main(["missing", "yy"]) == 1
    assert json.loads(capsys.readouterr().out) == {"a {n}": "", "new": ""}, "a table's beginning"
    assert words.main(["yy"]) == 2
    assert "no table for 'yy'" in capsys.readouterr().out


CLASSES = [*(name for name in widgets.__all__ if name.endswith("Panel")), "Playground",
           "FindTheBug", "Explorer", "abadi.TablePanel", "abadi.SweepsPanel",
           "abadi_live.LivePanel", "abadi_prices.PricesPanel"]  # fmt: skip
SHOWN = ("label", "help", "title", "unit", "text", "ends", "options", "actions", "columns", "rows",
         "words", "summary")  # fmt: skip
NAMES = {"MNIST", "Fashion", "CIFAR", "PneumoniaMNIST", "MLP", "ReLU", "CNN", "tanh", "PLD", "RDP",
         "GDP", "zCDP", "tCDP", "Moments", "DP", "SGD", "PNG", "SVG", "HTML", "JSON", "Python",
         "lot", "digits", "mnist", "dpkit", "Zhu", "Dong", "Wang", "Chua", "Tramer", "Opacus",
         "TensorFlow", "Privacy", "JAX", "Fréchet", "nat"}  # fmt: skip
"""Latin words that stay: data sets, models, methods, accountants, file formats, people."""


def made(name, language):
    """A panel that was made in a language, and shows all that it shows before a button."""
    speak(language)
    module, _, single = name.rpartition(".")
    home = importlib.import_module(f"dpkit.widgets.{module}") if module else widgets
    panel = getattr(home, single)(*([[]] if single == "Explorer" else []))
    if hasattr(panel, "join"):
        assert panel.join(120)
    panel.check()
    return panel


def strings(value):
    """All texts in nested lists and tables."""
    if isinstance(value, str):
        yield re.sub(r"<[^>]*>|%?\{[^}]*\}", " ", value)
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def shown(panel):
    """(kind, text) of everything that a reader meets in a panel; of an option what is read."""
    for part in getattr(panel, "_board", panel).parts:
        for kind in (kind for kind in SHOWN if hasattr(part, kind)):
            value = getattr(part, kind)
            if kind in ("options", "actions"):
                value = [item[kind == "actions"] for item in value]
            yield from ((kind, text) for text in strings(value))
        if hasattr(part, "figure"):
            yield from (("figure", text) for text in drawn(part.figure))
    if getattr(panel, "table", None) is not None:
        table = re.sub(r"<style>.*?</style>", "", panel.table.value, flags=re.DOTALL)
        yield from (("table", text) for text in strings(table))


def drawn(figure, key=""):
    """The texts in a figure: names, axes, notes, ticks, hovers."""
    if isinstance(figure, dict):
        for name, value in figure.items():
            yield from drawn(value, name)
    elif isinstance(figure, list | tuple):
        for value in figure:
            yield from drawn(value, key)
    elif key in ("text", "name", "label", "ticktext", "customdata", "hovertemplate"):
        yield from strings(figure)


def keys(panel):
    """What code compares: values, options' values, names of controls, plots and buttons."""
    found = []
    for part in getattr(panel, "_board", panel).parts:
        found.append((part.part, getattr(part, "value", None) if part.part != "progress" else None))
        found.append([option[1] for option in getattr(part, "options", ())])
        found.append([action[0] for action in getattr(part, "actions", ())])
    return found


def figures_of(texts):
    """The numbers in what is shown, however the words about them are ordered."""
    return sorted(re.findall(r"(?<![\w.])-?\d[\d,.]*\d|\d", " ".join(texts)))


@pytest.mark.parametrize("name", CLASSES)
def test_a_panel_speaks_chinese_and_changes_no_number(name, monkeypatch):
    one = made(name, "en")
    english, before = list(shown(one)), keys(one)
    one.close()
    speak("zh")
    unknown = Noting(words._present)
    monkeypatch.setattr(words, "_table", lambda language: unknown)
    other = made(name, "zh")
    try:
        chinese = list(shown(other))
        left = {(kind, text) for kind, text in chinese
                if set(re.findall(r"[A-Za-zé]{2,}", text)) - NAMES}  # fmt: skip
        assert not left, "these words are English"
        assert not unknown.asked, "these words are said, and not collected"
        assert keys(other) == before
        assert [kind for kind, _ in chinese] == [kind for kind, _ in english]
        told = ("text", "summary", "table", "rows")
        assert figures_of(t for k, t in chinese if k in told) == figures_of(
            t for k, t in english if k in told
        )
    finally:
        other.close()


class Noting(dict):
    """A table that remembers the English that it was asked for and does not have."""

    def __init__(self, entries):
        super().__init__(entries)
        self.asked = set()

    def get(self, text, default=None):
        wordy = re.search(r"[A-Za-z]{4}", text) and text.isascii()
        if text not in self and wordy and text not in NAMES:
            self.asked.add(text)
        return super().get(text, default)


PLANS = {
    "poisson": dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.01, 100), 1e-5),
    "falling rates": dp.Plan(
        dp.DPSGD(1.0), dp.Poisson(dp.schedules.StepDecay(0.1, 0.5, 10), 100), 1e-5
    ),
    "balls": dp.Plan(dp.DPSGD(2.0), dp.BallsInBins(10, 3), 1e-5, accountant=dp.Moments()),
    "fixed": dp.Plan(dp.DPSGD(2.0), dp.FixedSize(10, 1000, 5), 1e-5),
    "cut": dp.Plan(dp.DPSGD(2.0), dp.TruncatedPoisson(0.01, 100, 80, 1000), 1e-5),
    "shuffle": dp.Plan(dp.DPSGD(2.0), dp.Shuffle(10, 3), 1e-5, accountant=dp.GDP()),
    "partition": dp.Plan(dp.DPSGD(2.0), dp.Partition(10, 3), 1e-5),
    "labels": dp.Plan(
        dp.NeuralDP(1.0, 1.0, 0.1, labels=dp.RandomisedResponse(1.0)), dp.Shuffle(12, 2), 1e-4
    ),
    "activations": dp.Plan(
        dp.NeuralDP(1.0, 1.0, 0.1, release="each epoch", steps_per_epoch=6), dp.Shuffle(12, 2), 1e-4
    ),
    "budget": dp.Plan(dp.DPSGD(9.0), dp.Shuffle(10, 30), 1e-5, budget=dp.RhoBudget(0.1)),
    "renyi": dp.Plan(dp.DPSGD(9.0), dp.Poisson(0.01, 90), 1e-5, budget=dp.RDPBudget(0.5, 8)),
    "no noise": dp.Plan(dp.DPSGD(0.0), dp.Poisson(0.01, 100), 1e-5),
    "meaningless": dp.Plan(dp.DPSGD(0.2), dp.Poisson(0.5, 1000), 0.5),
}


@pytest.mark.parametrize("name", PLANS)
def test_what_a_plan_says_of_itself_is_retold_with_its_numbers(name):
    plan = PLANS[name]
    sentences = [
        plan.guarantee(), plan.guarantee(seeded=True, known_size=False, stopped_at=plan.steps // 2),
        plan.sampler.describe, plan.sampler.remainder(1003), *plan.cautions(1003),
    ]  # fmt: skip
    assert [told.retold(sentence) for sentence in sentences] == sentences
    speak("zh")
    for sentence in sentences:
        said = told.retold(sentence)
        assert not set(re.findall(r"[A-Za-zé]{2,}", said)) - {*NAMES, "Rényi", "inf"}, sentence
        assert figures_of([sentence]) == figures_of([said])


@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("unit", ["one example", PLANS["activations"].method.unit])
def test_what_a_sweep_costs_is_retold_with_its_numbers(sets, unit):
    sentence = Total(12, 1_345, 6.62, 1e-3, sets, unit).sentence
    speak("zh")
    said = told.retold(sentence)
    assert not re.search("[A-Za-z]", said), sentence
    assert figures_of([sentence]) == figures_of([said])


def test_what_is_not_known_is_not_retold():
    speak("zh")
    for text in ("A sentence that nobody knows.", "Poisson sampling at rate of many", "", "3 teas"):
        assert told.retold(text) == text


def test_a_run_is_the_same_in_every_language(tmp_path):
    asked = "data=moons model=mlp examples=200 noise=1.0 batch=40 epochs=2 seed=3"
    found = {}
    for language in ("en", "zh"):
        speak(language)
        panel = widgets.Playground(settings=asked)
        assert panel.start() and panel.join(60)
        panel.check()
        stored = json.loads(panel.save_run(tmp_path / f"{language}.json").read_text("utf-8"))
        stored.pop("seconds")
        found[language] = (
            stored, panel.python(), panel.settings.to_string(), panel.runs[-1].guarantee,
            [value.tolist() for value in panel.session.model.state_dict().values()],
        )  # fmt: skip
        assert (language == "zh") == ("教学运行" in panel.face.promise.text)
        panel.close()
    assert found["en"] == found["zh"]


def test_a_word_costs_next_to_nothing(spoken):
    spoken({"at rate {rate}": "{rate}"})
    plan = timeit.timeit(lambda: say("at rate {rate}", rate=0.1), number=20_000) / 20_000
    assert plan < 2e-5, "a look into a table and a format"


def test_a_refusal_of_a_control_is_told_in_the_language():
    speak("zh")
    slider = widgets.Slider(label="步数 T", value=3, low=1, high=9, integer=True)
    with pytest.raises(TraitError, match=r"^步数 T必须是 1 到 9 的整数，得到的是 99。$"):
        slider.value = 99
    assert slider.value == 3 and slider.words["number"].endswith("未采用“{value}”。")
    slider.close()
    speak("en")
    slider = widgets.Slider(label="Steps T", value=3, low=1, high=9, integer=True)
    assert slider.words["error"] == "Error:", "a control made afterwards speaks English again"
    slider.close()
