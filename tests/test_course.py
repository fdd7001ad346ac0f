"""The course: exercises accept what is computed, feedback is true, progress survives anything."""

import functools
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dpkit as dp
import dpkit.plan
from dpkit import abadi, course
from dpkit.course import __main__ as command
from dpkit.course import answers, exercises, record, sealing
from dpkit.course.exercises import SEALED, Exercise, book

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs" / "instructors" / "exercises.toml"
SOLUTIONS = SOURCE.with_name("solutions.md")
PLAIN = sealing.source(SOURCE)
WRONG = [(name, known) for name, parts in PLAIN.items() for known in parts.get("wrong", [])]
NAMES = {"math": math, "dp": dp, "abadi": abadi, "replace": replace}


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    path = tmp_path / "own" / "progress.json"
    monkeypatch.setenv("DPKIT_PROGRESS", str(path))
    monkeypatch.setattr(record, "_kept", {})
    monkeypatch.setattr(record, "_left", set())
    return path


@functools.cache
def computed(formula):
    return float(eval(formula, dict(NAMES)))


def lesson_cells(lesson, kind=None):
    cells = json.loads((ROOT / "notebooks" / lesson.notebook).read_text())["cells"]
    return ["".join(c["source"]) for c in cells if kind in (None, c["cell_type"])]


def flat(text):
    return " ".join(text.replace("*", "").replace("$\\varepsilon", "ε").replace("$", "").split())


# ---- what is accepted -------------------------------------------------------------------------


def test_the_sealed_file_is_that_of_the_source():
    assert sealing.unsealed(SEALED) == sealing.shipped(PLAIN), "seal the exercises anew"


@pytest.mark.parametrize("name", PLAIN)
def test_what_dpkit_computes_is_accepted(name):
    value, parts = computed(PLAIN[name]["solution"]), PLAIN[name]
    assert parts["answer"] == pytest.approx(value, rel=1e-4)
    told = book()[name].verdict(value)
    assert told.right and told.text == f"**Right.** {parts['why']}"
    below, above = value - 0.06 * abs(value) - 1e-9, value + 0.06 * abs(value) + 1e-9
    if not parts.get("kind"):
        assert book()[name].verdict(below).right is not True, "too low, and accepted"
        assert book()[name].verdict(above).right is not True, "too high, and accepted"


@pytest.mark.parametrize(("name", "known"), WRONG, ids=[f"{n}:{k['value']}" for n, k in WRONG])
def test_a_known_mistake_is_what_its_formula_gives(name, known):
    value = computed(known["formula"])
    assert known["value"] == pytest.approx(value, rel=1e-4, abs=1e-12)
    told = book()[name].verdict(value)
    assert told.right is False and told.text == f"**Not yet.** {known['says']}"


def test_a_mistake_is_known_by_its_roundings_and_not_by_what_lies_near():
    known = exercises.Misconception(math.log2(9), "base two")
    assert all(map(known.fits, (3.1699, 3.17, 3.2, 3.16, 3.1699250014)))
    assert not any(map(known.fits, (math.pi, 3.2972, 3.0, 3.1)))


def test_closed_forms_agree_with_the_accountants():
    """Answers once more, by hand."""
    noise = dp.schedules.StepDecay(12.0, 0.7, 15)
    spent = [0.5 / noise(epoch) ** 2 for epoch in range(59)]
    assert sum(spent[:58]) <= 0.78125 < sum(spent)
    by_hand = {
        "01.1": math.log(9), "02.1": 0.06, "02.2": 0.6, "04.3": 4, "05.1": 5 * math.log(10) / 32,
        "05.2": math.sqrt(8), "06.1": 58, "06.2": math.sqrt(15 / 0.63125), "07.1": 23_853,
        "07.3": 10**-0.5, "08.2": PLAIN["08.1"]["answer"] * math.sqrt(10),
        "08.4": 4 * math.log(3), "09.2": math.log(20), "10.3": 2245 * 400, "10.4": 20,
    }  # fmt: skip
    for name, value in by_hand.items():
        assert book()[name].verdict(value).right, name
    truth = dp.Plan(dp.DPSGD(1.0), dp.Shuffle(100, 1), relation=dp.Neighbours.ZERO_OUT).bounds()
    bins = dp.Plan(dp.DPSGD(1.0), dp.BallsInBins(100, 1), relation=dp.Neighbours.ZERO_OUT)
    assert bins.epsilon() < truth.lower, "libraries 1 and 2 of 04.1 print what is false"
    assert sum(not fault.audited for fault in dp.auditing.FAULTS) == 4, "as 09.4 says"
    mu = math.sqrt(2245) * 2 * math.sqrt(200) / 5000
    assert 8981 * (2 * math.sqrt(50) / 5000) ** 2 == pytest.approx(mu**2, rel=1e-3)


def figures(text):
    """Every number of a text that is no small whole one, with its decimals."""
    for found in re.findall(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?", text):
        number = found.rstrip(",").replace(",", "").replace("_", "")
        year = re.fullmatch("20[0-2][0-9],?", found)
        if "." in number or float(number) > 1000 and not year:
            yield float(number), len(number.partition(".")[2])


@pytest.mark.parametrize("name", PLAIN)
def test_every_figure_of_the_feedback_is_computed_or_given(name):
    parts = PLAIN[name]
    formulas = [parts["solution"], *parts.get("facts", [])]
    formulas += [known["formula"] for known in parts.get("wrong", [])]
    given = " ".join([parts["question"], *formulas])
    known = [value for value, _ in figures(given)] + [computed(f) for f in formulas]
    texts = [parts["why"], *(k["says"] for k in parts.get("wrong", []))]
    lessons = flat(" ".join(lesson_cells(next(x for x in course.LESSONS if x.number == name[:2]))))
    for text in texts + parts["hints"]:
        for number, decimals in figures(text):
            fits = any(abs(value - number) <= 0.5001 * 10.0**-decimals for value in known)
            hinted = text in parts["hints"] and f"{number:g}" in lessons
            assert fits or hinted, f"{number} in: {text}"


def test_answers_are_not_in_clear_text_in_what_learners_have():
    kept = [p for p in (ROOT / "dpkit").rglob("*") if p.suffix in (".py", ".json", ".sealed")]
    text = "\n".join(p.read_text() for p in kept)
    for name, parts in PLAIN.items():
        assert parts["why"] not in text and parts["hints"][-1] not in text, name
    pattern = "course/*.sealed"
    assert pattern in (ROOT / "pyproject.toml").read_text() and list((ROOT / "dpkit").glob(pattern))
    assert "course" in dp.__all__ and dp.course is course


# ---- feedback ---------------------------------------------------------------------------------


def test_in_a_notebook_the_emphasis_is_shown(monkeypatch, capsys):
    shown = []
    display = SimpleNamespace(display=shown.append, Markdown=lambda text: ("markdown", text))
    notebook = SimpleNamespace(get_ipython=lambda: "a shell")
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    course.check("01.1", 0.8)
    course.hint("00.1")
    assert shown[0][0] == "markdown" and "*quotient*" in shown[0][1] and len(shown) == 2
    notebook.get_ipython = lambda: None
    course.check("01.1", 0.8)
    assert "by their quotient." in capsys.readouterr().out and len(shown) == 2


def test_hints_grow_stronger_and_mistakes_are_recognised(capsys):
    soft, strong = PLAIN["01.3"]["hints"]
    course.check("01.3")
    assert capsys.readouterr().out == 'Not answered yet. For a hint: `course.hint("01.3")`\n'
    course.check("01.3", 2.5)
    assert capsys.readouterr().out == f"Not yet: 2.5 is too large. Hint 1 of 2: {soft}\n"
    course.check("01.3", 1.5)
    assert capsys.readouterr().out == f"Not yet: 1.5 is too small. Hint 2 of 2: {strong}\n"
    course.check("01.3", 2.0)
    assert "too small, though it is close" in capsys.readouterr().out
    course.check("1.3", 3)
    said = capsys.readouterr().out
    assert "sum of the epsilons" in said and strong in said
    course.check("01.3", dp.PLD().epsilon(dp.Ledger(((dp.Laplace(10.0), 30),)), 1e-5))
    assert capsys.readouterr().out.startswith("Right. Thirty releases")
    assert record.load()["01.3"] == record.Tried(attempts=5, hints=0, solved=True)
    for number, expected in ((1, soft), (2, strong), (2, strong)):
        course.hint("01.3")
        assert capsys.readouterr().out == f"Hint {number} of 2: {expected}\n"
    assert record.load()["01.3"].hints == 3


class Odd:
    """Nothing works with it."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __float__(self):
        raise ZeroDivisionError

    def __repr__(self):
        raise RuntimeError


BAD = [
    ("ε = 2.1", "without quotes: 2.1."),
    ("90%", "write 0.25 for 25%"),
    ("2,197", "Write 2.197 or 2197, whichever"),
    ("3 %", "write 0.25 for 25%"),
    ("３％", "write 0.25 for 25%"),
    ("90 percent", "write 0.25 for 25%"),
    ("1/0", "write the formula"),
    ("1e400", "infinite"),
    ("2.1 or so", "without quotes: 2.1."),
    ("σ 1_000", "without quotes: 1_000."),
    ("about 1,234.5", "without quotes: 1234.5."),
    *(
        (text, "write the formula without quotes")
        for text in (
            "ln(9)",
            "ln 9",
            "1/0.1/2",
            "2*5",
            "10^1",
            "√8",
            "log10(9)",
            "2 × 5",
            "5 - 3",
            "(2.1)",
            "e 2",
        )
    ),
    ("ln 9 or so"[:2], "That is text"),
    ("", "That is text"),
    (b"2", "That is text"),
    (b"\xff", "of the type bytes"),
    ([2.197], "take it out with [0]"),
    ([1, 2, 3], "that holds 3"),
    ((), "that holds 0"),
    ((2, 197), "write 2.5, and 1000"),
    ({"a": 1}, "take it out"),
    (np.array([1.0, 2.0]), "that holds 2"),
    (torch.tensor([2.197]), ".item()"),
    (torch.zeros(2, 2), "that holds 2"),
    (torch.zeros((), device="meta"), "of the type Tensor"),
    (torch.tensor(True), "not true or false"),
    (True, "not true or false"),
    (np.bool_(True), "not true or false"),
    (float("nan"), "nan is no number"),
    (np.float32("nan"), "nan is no number"),
    (float("inf"), "infinite"),
    (10**400, "infinite, or too large"),
    (Decimal("NaN"), "nan is no number"),
    (2 + 1j, "complex"),
    (np.complex64(1), "complex"),
    (math.log, "call it, with brackets"),
    (dp.Plan, "call it, with brackets"),
    (lambda: 2.197, "call it, with brackets"),
    (dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.1, 5)), "of the type Plan; ask it"),
    (dp.PLD(), "of the type PLD; ask it"),
    (..., "of the type ellipsis"),
    (object(), "of the type object"),
    (np, "of the type module"),
    (Odd(), "of the type Odd"),
    (np.datetime64("2020-01-01"), "number"),
    (-2.197, "the sign is not"),
]


@pytest.mark.parametrize(("given_", "said"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_is_no_number_gets_a_hint_and_is_no_mistake(given_, said, capsys):
    course.check("01.1", given_)
    assert said in capsys.readouterr().out
    assert record.load() == {}, "a slip of form is no wrong answer"


@pytest.mark.parametrize(
    "right",
    [2.197, np.float64(2.197), np.float32(2.197), np.array(2.197), torch.tensor(2.197),
     torch.tensor(2.197, requires_grad=True), Decimal("2.197"), Fraction(2197, 1000)],
)  # fmt: skip
def test_numbers_of_every_kind_are_read(right):
    assert book()["01.1"].verdict(right).right


@pytest.mark.parametrize(
    ("text", "number"),
    [("2.197", 2.197), (" +2.197 ", 2.197), ("1e-5", 1e-5), ("1E5", 1e5), ("1/3", 1 / 3),
     ("1 / 0.1", 10), ("0,5", 0.5), ("0,333", 0.333), ("2,19", 2.19), ("1_000", 1000),
     ("1,234,567", 1234567), ("1,234.5", 1234.5), ("1,5e-3", 0.0015), (".5", 0.5), ("3.", 3),
     ("−2", -2), ("-1/4", -0.25), ("０．６", 0.6), ("18", 18)],
)  # fmt: skip
def test_a_text_that_is_a_number_beyond_doubt_is_read(text, number):
    assert answers.read(text) == pytest.approx(number, rel=1e-15)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.complex_numbers(),
                 st.lists(st.floats()), st.dictionaries(st.text(), st.none()), st.booleans(),
                 st.decimals(), st.fractions(), st.dates()))  # fmt: skip
def test_nothing_that_is_given_ends_in_a_traceback(anything):
    try:
        assert math.isfinite(answers.read(anything))
    except answers.Unreadable as fault:
        assert str(fault).endswith((".", "[0] or .item()."))


def test_units_forms_and_choices_are_told():
    share = Exercise(0.24, 0.26, ("soft", "strong"), "why", share=True)
    assert "divide it by 100" in share.verdict(25).text and share.verdict(25).right is None
    assert "divide it by 100" in book()["06.4"].verdict(3.521).text
    assert [name for name in book() if book()[name].share] == ["06.4"]
    assert "percent" not in book()["05.4"].verdict(92.63).text, "an epsilon is no share"
    whole = Exercise(18, 18, ("soft", "strong"), "why", "whole")
    assert "whole number" in whole.verdict(18.4).text and whole.verdict(18.4).right is None
    assert whole.verdict(18.0000000001).right
    assert "too small" in whole.verdict(9.5).text and "soft" in whole.verdict(9.5).text
    choice = Exercise(3, 3, ("soft", "strong"), "why", "choice", 4)
    assert choice.verdict(5).text == "Choose one of the numbers 1 to 4."
    assert choice.verdict(2).text == "**Not yet.** Hint 1 of 2: soft"


@pytest.mark.parametrize("name", ["99.9", "", None, 3, ["01.1"], "check"])
def test_an_exercise_that_is_not_there_is_told(name, capsys):
    course.check(name, 3)
    course.hint(name)
    assert capsys.readouterr().out.count("There is no exercise") == 2


@pytest.mark.parametrize("name", ["01.9", "01.", "01", "1", 1, 1.9])
def test_a_lesson_without_that_exercise_lists_its_own(name, capsys):
    course.check(name, 3)
    course.hint(name)
    told = f"There is no exercise {name}; lesson 01 has 01.1, 01.2, 01.3."
    assert capsys.readouterr().out == f"{told}\n{told}\n"


PROMISED = {
    "00.1": (1.599, 1.6, 1.59), "01.1": (2.197, 2.2, 2.19), "01.3": (2.063, 2.07, 2.1, 2.06),
    "03.1": (0.947, 0.95, 0.946), "02.3": (5.2653, 5.3, 5.26), "03.2": (2.026, 2.03, 2.02),
    "04.2": (11.481, 11.49, 11.5, 11.47), "05.2": (2.8, 2.83, 2.84), "05.3": (1.415, 1.42, 1.414),
    "05.4": (0.927, 0.93, 0.92), "06.2": (4.875, 4.88, 4.9, 4.87), "06.3": (6.13, 6.2, 6.12),
    "06.4": (0.03522, 0.0353, 0.035), "07.3": (0.316, 0.32, 0.31), "07.4": (0.623, 0.63, 0.62),
    "08.1": (3.994, 4, 3.99), "08.2": (12.63, 12.7, 13, 12.62), "08.3": (1.994, 2, 1.99),
    "08.4": (4.395, 4.4, 4.39), "09.3": (4.38, 4.4, 4.37), "10.1": (8980, 8981, 8982),
    "10.2": (14987, 15000, 14980), "03.3": (21364, 21365),
    "11.1": (10.55, 10.6, 10.7, 10.5), "11.2": (4.16, 4.2, 4.15), "11.3": (9.244, 9.25, 9.24),
}  # fmt: skip


@pytest.mark.parametrize("name", PROMISED)
def test_a_promise_is_rounded_up(name):
    *right, wrong = PROMISED[name]
    assert all(book()[name].verdict(number).right for number in right)
    told = book()[name].verdict(wrong)
    assert told.right is False, "it promises what is not proven"
    assert ("rounded up" in told.text) == book()[name].up


TURNED = {
    "twice": lambda x: 2 * x, "half": lambda x: x / 2, "upside down": lambda x: 1 / x,
    "squared": lambda x: x * x, "its root": math.sqrt, "in percent": lambda x: 100 * x,
    "as a share": lambda x: x / 100, "with a minus": lambda x: -x, "one more": lambda x: x + 1,
    "its logarithm": lambda x: math.log(x) if x != 1 else 0.0, "as the exponent": math.exp,
}  # fmt: skip
SLIPS = ("the sign is not", "divide it by 100", "whole number", "Choose one of", "too large;")


@pytest.mark.parametrize("name", PLAIN)
def test_a_wrong_answer_leads_on_and_is_not_accepted(name):
    right, parts = PLAIN[name]["answer"], PLAIN[name]
    helps = [*parts["hints"], *(known["says"] for known in parts.get("wrong", [])), *SLIPS]
    for how, turn in TURNED.items():
        number = turn(right) if right < 600 or how != "as the exponent" else 0.0
        if abs(number - right) <= 0.05 * right:
            continue
        for given_ in (number, np.float64(number), repr(float(number)), Fraction(number)):
            told = course.checking.verdict(name, given_)
            assert told.right is not True, how
            assert any(help_ in told.text for help_ in helps), (how, told.text)


@pytest.mark.parametrize("name", PLAIN)
def test_a_right_answer_is_accepted_in_every_notation(name):
    number = computed(PLAIN[name]["solution"])
    if PLAIN[name].get("kind") == "whole" or number > 1000:
        number = float(math.ceil(number)) if name == "10.2" else float(round(number))
    forms = [repr(number), f" {number!r} ", f"{number:.15e}", repr(number).replace(".", ","),
             Decimal(number), Fraction(number), np.float64(number), np.array(number),
             torch.tensor(number, dtype=torch.float64)]  # fmt: skip
    if number == round(number):
        forms += [int(number), f"{int(number)}", f"{int(number)}/1", np.int64(number)]
    for form in forms:
        assert course.checking.verdict(name, form).right, form
    for form in ([number], None, float("nan"), f"{number} %", [], {}, b"", True, "?"):
        course.check(name, form)
    assert record.load() == {}, "what is no number is neither right nor wrong"


def test_the_course_needs_neither_torch_nor_numpy():
    code = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'scipy', 'plotly', 'ipywidgets'):\n"
        "    sys.modules[name] = None\n"
        "from dpkit import course\n"
        "course.check('01.1', 2.2); course.contents()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Right."), done.stderr


# ---- progress ---------------------------------------------------------------------------------


def test_progress_is_kept_shown_and_forgotten(own_file, capsys):
    course.check("01.1", 9)
    course.check("01.1", 2.197)
    course.check("01.1", 2.197)
    stored = json.loads(own_file.read_text())["exercises"]
    assert stored == {"01.1": {"attempts": 2, "hints": 0, "solved": True}}
    assert [p.name for p in own_file.parent.iterdir()] == [own_file.name], "no part is left"
    shown = repr(course.progress())
    assert f"1 of {len(PLAIN)} exercises solved" in shown
    assert re.search(r"01 What is differential privacy\? +1 of 3 +2 +0", shown)
    assert "1 of 3" in course.contents()._repr_html_()
    course.check("01.1", 9)
    assert record.load()["01.1"].solved, "what was solved stays solved"
    course.forget()
    assert not own_file.exists() and "cleared" in capsys.readouterr().out
    course.forget()
    assert record.load() == {}


DAMAGED = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": "x"}', b"a thesis, not a progress file",
    b'{"format": "dpkit course progress", "version": "2", "exercises": {}}',
    b'{"format": "dpkit course progress", "version": 0, "exercises": {}}',
    b'{"format": "dpkit course progress", "version": 1}',
    b'{"format": "dpkit course progress", "version": 1, "exercises": {"01.1": 3}}',
    b'{"format": "dpkit course progress", "version": 1, "exercises": {"01.1":'
    b' {"attempts": -1, "hints": 0, "solved": true}}}',
    b'{"format": "dpkit course progress", "version": 1, "exercises": {"01.1":'
    b' {"attempts": 1, "hints": 0, "solved": "yes"}}}',
    b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED, ids=[str(i) for i in range(len(DAMAGED))])
def test_a_damaged_or_foreign_file_is_set_aside_and_told(content, own_file, capsys):
    own_file.parent.mkdir()
    own_file.write_bytes(content)
    (own_file.parent / "progress.json.set-aside-1").write_text("an earlier one")
    course.check("01.1", 2.197)
    said = capsys.readouterr().out
    assert said.count("set-aside-2") == 1 and "Right." in said
    assert (own_file.parent / "progress.json.set-aside-2").read_bytes() == content
    assert (own_file.parent / "progress.json.set-aside-1").read_text() == "an earlier one"
    assert record.load()["01.1"].solved and capsys.readouterr().out == ""


def test_forgetting_deletes_no_foreign_file(own_file, capsys):
    own_file.parent.mkdir()
    own_file.write_text("my thesis")
    course.forget()
    (aside,) = own_file.parent.iterdir()
    assert aside.read_text() == "my thesis" and "set-aside-1" in capsys.readouterr().out


def test_a_disk_that_cannot_be_written_costs_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DPKIT_PROGRESS", str(tmp_path / "file" / "progress.json"))
    course.check("01.1", 9)
    assert "cannot be saved" in capsys.readouterr().out
    course.check("01.1", 2.197)
    assert "cannot be saved" not in capsys.readouterr().out, "told once"
    assert record.load()["01.1"] == record.Tried(2, 0, True), "kept while the kernel lives"
    course.forget()
    assert record.load() == {}


def test_a_folder_in_its_place_costs_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DPKIT_PROGRESS", str(tmp_path))
    course.check("01.1", 9)
    assert capsys.readouterr().out.count("it is a folder") == 1
    course.forget()
    assert "is left as it is" in capsys.readouterr().out and record.load() == {}


@pytest.mark.parametrize("linked", [False, True])
def test_a_device_is_neither_read_nor_moved_nor_deleted(linked, tmp_path, monkeypatch, capsys):
    """Whoever names /dev/null wants nothing kept, and must not lose /dev/null."""
    device = tmp_path / "device"
    if not hasattr(record.os, "mkfifo"):
        pytest.skip("this system makes no device without rights")
    record.os.mkfifo(device)
    if linked:
        (tmp_path / "link").symlink_to(device)
    monkeypatch.setenv("DPKIT_PROGRESS", str(tmp_path / "link" if linked else device))
    before = {path: path.lstat().st_ino for path in tmp_path.iterdir()}
    course.check("01.1", 9)
    course.check("01.1", 2.197)
    assert capsys.readouterr().out.count("a device") == 1 and record.load()["01.1"].solved
    course.forget()
    assert record.load() == {} and device.is_fifo()
    assert {path: path.lstat().st_ino for path in tmp_path.iterdir()} == before


NEWER = b'{"format": "dpkit course progress", "version": 2, "exercises": {"01.1": "solved!"}}'


def test_a_file_of_a_newer_version_is_left_and_told_once(own_file, capsys):
    own_file.parent.mkdir()
    own_file.write_bytes(NEWER)
    course.check("01.1", 2.197)
    said = capsys.readouterr().out
    assert said.count("newer dpkit") == 1 and "DPKIT_PROGRESS" in said and "Right." in said
    course.check("01.2", 10)
    assert "newer" not in capsys.readouterr().out
    assert record.load()["01.1"].solved and record.load()["01.2"].solved
    course.forget()
    assert record.load() == {} and own_file.read_bytes() == NEWER
    assert list(own_file.parent.iterdir()) == [own_file]


def test_a_file_that_cannot_be_read_is_not_written_over(own_file, monkeypatch, capsys):
    course.check("01.1", 2.197)
    before = own_file.read_bytes()

    def barred(self):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(record.Path, "read_bytes", barred)
        course.check("01.2", 10)
        course.check("01.2", 10)
        assert capsys.readouterr().out.count("cannot be read (Permission denied)") == 1
        assert record.load()["01.2"].solved
    assert own_file.read_bytes() == before


KERNEL = """
import sys
from dpkit.course import record
for turn in range(100):
    record.note("01.1", wrong=True)
    record.note(sys.argv[1], hinted=True)
"""


def test_two_kernels_at_once_lose_nothing(own_file):
    pytest.importorskip("fcntl", reason="the folder is held by flock, which Windows lacks")
    command = [sys.executable, "-c", KERNEL]
    kernels = [subprocess.Popen([*command, name]) for name in ("01.2", "01.3")]
    assert [kernel.wait(60) for kernel in kernels] == [0, 0]
    counts = {"01.1": (200, 0), "01.2": (0, 100), "01.3": (0, 100)}
    assert {name: (t.attempts, t.hints) for name, t in record.load().items()} == counts
    assert list(own_file.parent.iterdir()) == [own_file]


def test_a_folder_that_is_held_for_long_does_not_hold_up_a_learner(own_file, monkeypatch, capsys):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(record, "_PATIENCE", 0.05)
    own_file.parent.mkdir()
    handle = record.os.open(own_file.parent, record.os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        course.check("01.1", 2.197)
    finally:
        record.os.close(handle)
    assert record.load()["01.1"].solved


FULL = """
import resource
from dpkit import course
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
course.check("01.2", 10)
course.check("01.3", 3)
course.contents(), print(course.progress())
"""


def test_a_disk_that_is_full_costs_one_sentence(own_file):
    """The system itself refuses the write after sixteen bytes."""
    pytest.importorskip("resource")
    course.check("01.1", 2.197)
    before = own_file.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("cannot be saved") == 1 and "2 of 43 exercises" in done.stdout
    assert own_file.read_bytes() == before and list(own_file.parent.iterdir()) == [own_file]


def test_what_was_kept_in_mind_joins_what_another_kernel_saved(own_file, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(record.os, "replace", full)
        course.check("01.1", 2.197)
    own_file.write_text(
        '{"format": "dpkit course progress", "version": 1, "exercises": {"01.2":'
        ' {"attempts": 3, "hints": 2, "solved": true}}}'
    )
    course.hint("01.3")
    assert set(json.loads(own_file.read_text())["exercises"]) == {"01.1", "01.2", "01.3"}
    assert record.load()["01.2"] == record.Tried(3, 2, True) and record.load()["01.1"].solved


def test_without_a_home_it_lies_in_the_working_folder(tmp_path, monkeypatch, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DPKIT_PROGRESS")
    monkeypatch.setattr(record.Path, "home", homeless)
    monkeypatch.chdir(tmp_path)
    course.check("01.1", 2.197)
    assert (tmp_path / ".dpkit-progress.json").exists() and record.load()["01.1"].solved


def test_a_write_that_is_cut_short_leaves_the_old_file(own_file, monkeypatch, capsys):
    course.check("01.1", 2.197)
    before = own_file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.os, "replace", full)
    course.check("01.2", 10)
    assert "No space left" in capsys.readouterr().out
    assert own_file.read_bytes() == before and len(list(own_file.parent.iterdir())) == 1
    assert record.load()["01.2"].solved


def test_by_default_it_lies_in_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("DPKIT_PROGRESS")
    monkeypatch.setenv("HOME", str(tmp_path))
    course.hint("01.1")
    assert (tmp_path / ".dpkit-progress.json").exists()


# ---- lessons ----------------------------------------------------------------------------------

LESSONS = pytest.mark.parametrize("lesson", course.LESSONS, ids=lambda x: x.number)


def test_every_notebook_is_a_lesson_in_its_order():
    there = sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))
    assert there == [*(lesson.notebook for lesson in course.LESSONS), "index.ipynb"]
    seen = []
    for lesson in course.LESSONS:
        assert set(lesson.after) <= set(seen), "what comes before stands before"
        seen.append(lesson.number)


@LESSONS
def test_a_lesson_has_its_parts(lesson):
    cells = json.loads((ROOT / "notebooks" / lesson.notebook).read_text())["cells"]
    first, last = lesson_cells(lesson)[0], lesson_cells(lesson)[-1]
    title, _, heading, *_ = first.split("\n")
    assert title == f"# {lesson.title}" and heading == lesson.heading
    assert flat(lesson.question) in flat(first), "it opens with its question"
    assert 2 <= len(lesson.objectives) <= 3 and 15 <= lesson.minutes <= 60
    codes = lesson_cells(lesson, "code")
    assert any(
        re.fullmatch(r"\w+|dp\.widgets\.LivePlot\.of\(.*", c.split("\n")[-1]) for c in codes[:2]
    ), "a picture"
    assert re.search(r"## Summary\n\n\* ", last), "it ends with a summary"
    assert f"\n{lesson.onward}\n" in last and "**Sources.** " in last
    assert last.index("## Summary") < last.index("**Next:**") < last.index("**Sources.**")
    assert sum(text.count("**Next:**") for text in lesson_cells(lesson)) == 1
    assert len({cell["id"] for cell in cells}) == len(cells)


@LESSONS
def test_a_lesson_has_three_exercises_as_they_are_sealed(lesson):
    texts = lesson_cells(lesson)
    checks = [(place, *found) for place, text in enumerate(texts)
              for found in re.findall(r'^(my_\w+) = None\ncourse\.check\("([\d.]+)", (\w+)\)$',
                                      text, re.M)]  # fmt: skip
    assert [name for _, _, name, _ in checks] == list(lesson.exercises) and len(checks) >= 3
    assert any("## Exercises" in text for text in texts)
    for number, (place, made, name, checked) in enumerate(checks, 1):
        assert made == checked
        assert f"**{number}.** {PLAIN[name]['question'].strip()}" in texts[place - 1]
    assert "from dpkit import course" in texts[checks[0][0]]
    assert "".join(texts).count("course.check(") == len(checks)


def test_the_course_as_a_learner_solves_it(capsys):
    for lesson in course.LESSONS:
        for code in lesson_cells(lesson, "code"):
            for made, name in re.findall(r'^(\w+) = None\ncourse\.check\("([\d.]+)"', code, re.M):
                scope = {made: computed(PLAIN[name]["solution"]), "course": course}
                exec(f"course.check({name!r}, {made})", scope)
                assert capsys.readouterr().out.startswith("Right. "), name
    assert f"{len(PLAIN)} of {len(PLAIN)} exercises solved" in repr(course.progress())


@LESSONS
def test_lessons_that_say_so_run_without_torch(lesson):
    if lesson.needs_torch:
        return
    code = "import sys\nsys.modules['torch'] = None\n" + "\n".join(lesson_cells(lesson, "code"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_of_contents_leads_everywhere():
    table = course.contents()
    page = ElementTree.fromstring(table._repr_html_())
    assert page.find("caption").text == "The course: 12 lessons, about 9 hours"
    heads = page.findall("thead/tr/th")
    assert {head.get("scope") for head in heads} == {"col"} and len(heads) == 7
    rows = page.findall("tbody/tr")
    for lesson, row in zip(course.LESSONS, rows, strict=True):
        head, cells = row.find("th"), row.findall("td")
        assert head.get("scope") == "row" and head.find("a").get("href") == lesson.notebook
        assert head.find("a").text == f"{lesson.number} {lesson.title}"
        assert len(cells) == 6 and cells[0].text == lesson.question
        assert all(goal.replace("$", "") in cells[1].text for goal in lesson.objectives)
        assert cells[2].text == str(lesson.minutes)
        assert cells[4].text == ("yes" if lesson.needs_torch else "no")
    text = repr(table).split("\n")
    assert len(text) == 2 + len(course.LESSONS) and max(map(len, text)) <= 110


def test_in_a_browser_only_what_is_on_the_page_is_a_link(monkeypatch):
    monkeypatch.setattr(course.lessons.sys, "platform", "emscripten")
    for table in (course.contents(), course.progress()):
        page = ElementTree.fromstring(table._repr_html_())
        links = [link.get("href") for link in page.iter("a")]
        assert links == ["01_what_is_dp.ipynb", "03_accountants.ipynb"]
        assert len(page.findall("tbody/tr")) == len(course.LESSONS)
    assert "not on this page" in course.contents().caption


def test_the_index_lists_the_same_lessons():
    cells = json.loads((ROOT / "notebooks" / "index.ipynb").read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    listed = re.findall(r"^\* \[(.*)\]\((.*)\): (\d+) minutes$", text, re.M)
    assert listed == [(f"{x.number} {x.title}", x.notebook, str(x.minutes)) for x in course.LESSONS]
    assert "course.contents()" in text and "course.progress()" in text
    bare = [x.number for x in course.LESSONS if not x.needs_torch]
    assert f"**Without PyTorch:** {' and '.join(bare)}." in text


def test_tables_are_safe_html():
    table = course.lessons.Table("a < b", ("<i>",), (("<script>",),), ('"x',))
    ElementTree.fromstring(table._repr_html_())
    assert "<script>" not in table._repr_html_() and "<script>" in repr(table)


# ---- the instructor's side --------------------------------------------------------------------


def test_the_solutions_are_those_of_the_source():
    assert SOLUTIONS.read_text("utf-8") == sealing.solutions(PLAIN), "write the solutions anew"
    for name, parts in PLAIN.items():
        assert f"### {name}\n" in SOLUTIONS.read_text("utf-8")
        assert f"```python\n{parts['solution']}\n```" in SOLUTIONS.read_text("utf-8")


def test_the_commands_seal_and_write(tmp_path, capsys):
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '["01.1"]\nquestion = "How many?"\nanswer = 2\nexact = true\nsolution = "1 + 1"\n'
        'hints = ["soft", "strong"]\nwhy = "Two."\n[["01.1".wrong]]\nvalue = 3\nsays = "Three."\n'
    )
    assert command.main(["seal", str(mine), "--output", str(tmp_path / "mine.sealed")]) == 0
    (made,) = sealing.unsealed(tmp_path / "mine.sealed").values()
    assert Exercise.of(made).verdict(3).text == "**Not yet.** Three."
    assert command.main(["solutions", str(mine)]) == 0
    assert "### 01.1\n\nHow many?\n\nAnswer: **2**. Two." in (tmp_path / "solutions.md").read_text()
    assert capsys.readouterr().out.startswith("1 exercises, written to ")


GOOD = {"question": "?", "answer": 2.0, "solution": "2", "hints": ["a", "b"], "why": "so"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": 3}, "has an unknown answers"),
        ({"why": None}, "lacks why"),
        ({"kind": "word"}, "kind must be one of"),
        ({"hints": ["one"]}, "needs two hints"),
        ({"wrong": [{"value": 2.001, "says": "no"}]}, "counts as right"),
        ({"wrong": [{"says": "no"}]}, "a wrong answer has a value"),
    ],
)
def test_a_faulty_source_is_told_in_a_sentence(change, said):
    parts = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    assert said in sealing._fault(parts) and sealing._fault(GOOD) == ""


def test_a_source_that_is_none_is_told(tmp_path, capsys):
    for content, said in (
        ("= =", "is no TOML file"),
        ("", "holds no exercises"),
        ("a = 1", "no table"),
    ):
        (tmp_path / "x.toml").write_text(content)
        assert command.main(["seal", str(tmp_path / "x.toml")]) == 2
        assert said in capsys.readouterr().err
    assert command.main(["seal", str(tmp_path / "nowhere.toml")]) == 2


def test_known_mistakes_do_not_hide_each_other():
    for name, exercise in book().items():
        for known in exercise.wrong:
            first = next(other for other in exercise.wrong if other.fits(known.value))
            assert first is known, (name, known.value)


def test_near_is_near():
    assert exercises.NEAR == 0.05
    exercise = Exercise(1.0, 1.02, ("soft", "strong"), "why")
    assert (
        exercise.verdict(0.96).text
        == "**Not yet: 0.96 is too small, though it is close.** Hint 1 of 2: soft"
    )
    assert (
        exercise.verdict(1.04).text
        == "**Not yet: 1.04 is too large, though it is close.** Hint 1 of 2: soft"
    )
    assert exercise.verdict(2).text == "**Not yet: 2 is too large.** Hint 1 of 2: soft"


@LESSONS
def test_the_instructors_notes_have_a_chapter_for_each_lesson(lesson):
    text = SOURCE.with_name("lessons.md").read_text("utf-8")
    chapters = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert [title for title, _ in chapters] == [f"{x.number} {x.title}" for x in course.LESSONS]
    chapter = dict(chapters)[f"{lesson.number} {lesson.title}"]
    assert sum(map(int, re.findall(r"^\| (\d+) \|", chapter, re.M))) == lesson.minutes
    for part in ("On the projector", "Misconceptions", "Discuss", "Homework"):
        assert chapter.count(f"**{part}.**") == 1
    assert chapter.count("\n* ") >= 3


def minutes_shown(lessons):
    text = SOURCE.with_name("lessons.md").read_text("utf-8")
    total = 0
    for number, parts in re.findall(r"\*\*(\d\d)\*\* (.+?)\.(?:\s|$)", "\n".join(lessons)):
        (chapter,) = re.findall(rf"^## {number} .*?(?=^## |\Z)", text, re.M | re.S)
        rows = re.findall(r"^\| (\d+) \| (.+) \|$", chapter, re.M)
        for part in parts.split("; "):
            (minutes,) = (int(minutes) for minutes, name in rows if name.startswith(part))
            total += minutes
    return total


def test_the_plans_of_the_whole_course_add_up():
    text = SOURCE.with_name("README.md").read_text("utf-8")
    ninety, weeks = text.split("## Ninety minutes")[1].split("## Three weeks")
    assert sum(map(int, re.findall(r"^\| (\d+) \| ", ninety, re.M))) == 90
    for lesson in course.LESSONS:
        assert re.search(rf"\b{lesson.number}\b", weeks), "every lesson has its meeting"
    meetings = re.findall(r"^\| \d \| \d \| (.+?) \| (\d+) \|", weeks, re.M)
    assert len(meetings) == 6
    for shown, total in meetings:
        always, _, one_of = shown.partition("Then one of ")
        choices = {minutes_shown([lesson]) for lesson in re.split(r" (?=\*\*)", one_of)}
        assert len(choices) == 1, "whichever is chosen takes as long"
        taken = minutes_shown(re.split(r" (?=\*\*)", always)) + choices.pop()
        assert taken == int(total) <= 60, shown
    for target in re.findall(r"\]\((\w+\.\w+)\)", text):
        assert SOURCE.with_name(target).exists(), target
