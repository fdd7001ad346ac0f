"""Lessons in the browser: they need no PyTorch and no threads, and the page can be built."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def builder():
    spec = importlib.util.spec_from_file_location("lite_build", ROOT / "lite" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LESSONS = builder().LESSONS

# What Pyodide is for a lesson: a Python that has no PyTorch and cannot start a thread.
AS_IN_A_BROWSER = """
import json, sys, threading
for name in ("torch", "torchvision", "sklearn", "jupyterlab"):
    sys.modules[name] = None
def start(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = start

book = json.load(open(sys.argv[1], encoding="utf-8"))
names = {"__name__": "__main__"}
for cell in book["cells"]:
    if cell["cell_type"] == "code" and not "".join(cell["source"]).startswith("%"):
        exec("".join(cell["source"]), names)

from dpkit.widgets import Slider
for name, panel in names.items():
    if isinstance(panel, type) or not hasattr(panel, "trouble"):
        continue
    for label, control in panel.controls.items():
        if isinstance(control, Slider):
            shown = json.dumps([plot.figure for plot in panel.plots.values()], default=repr)
            middle = round(control.low + 0.37 * (control.high - control.low))
            control.value = middle if control.integer else 0.8 * control.value
            panel.check()
            again = json.dumps([plot.figure for plot in panel.plots.values()], default=repr)
            print("moved" if shown != again else "STILL", name, label)
"""


@pytest.mark.parametrize("stem", LESSONS)
def test_a_lesson_runs_without_pytorch_and_threads(stem, tmp_path):
    book = ROOT / "notebooks" / f"{stem}.ipynb"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AS_IN_A_BROWSER, str(book)], cwd=tmp_path,
        capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "STILL" not in done.stdout, done.stdout
    assert stem == "index" or done.stdout.count("moved") >= 4


@pytest.mark.parametrize("stem", LESSONS)
def test_a_lesson_installs_dpkit_first_and_is_else_as_it_was(stem):
    book, made = (
        json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text()),
        builder().lesson(stem),
    )
    code = [cell["source"] for cell in made["cells"] if cell["cell_type"] == "code"]
    assert code[0].startswith("%pip install") and "dpkit" in code[0]
    assert [cell for cell in made["cells"] if cell["id"] != "install"] == book["cells"]
    assert made["metadata"]["kernelspec"]["name"] == "python"


LINK = re.compile(r"\]\(([^)]+\.ipynb)[^)]*\)")


def texts(book):
    return ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == "markdown"]


@pytest.mark.parametrize("stem", LESSONS)
def test_every_link_leads_to_a_lesson_on_the_page(stem):
    made = builder().lesson(stem)
    shown = builder().linked(made)
    there = {f"{each}.ipynb" for each in LESSONS}
    before, after = (set(LINK.findall("\n".join(texts(book)))) for book in (made, shown))
    assert before - there, "the notebook links to lessons that are not on the page"
    assert after == before & there
    assert sum("This page holds the lessons that need no PyTorch" in t for t in texts(shown)) == 1
    codes = [[c for c in book["cells"] if c["cell_type"] == "code"] for book in (made, shown)]
    assert [c["id"] for c in codes[0]] == [c["id"] for c in codes[1]]
    bare = [LINK.sub("", t.replace("[", "")) for t in texts(made)]
    told = [LINK.sub("", t.replace("[", "")).partition(f"\n{builder().ELSEWHERE}")[0]
            for t in texts(shown)]  # fmt: skip
    assert bare == told, "nothing else has changed"


def test_the_page_holds_what_needs_no_pytorch():
    from dpkit.course import LESSONS as every

    assert LESSONS == ("index", *(each.notebook[:-6] for each in every if not each.needs_torch))


def test_the_wheel_holds_every_file_that_is_no_code():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["dpkit"]
    for path in (ROOT / "dpkit").rglob("*"):
        name = path.relative_to(ROOT / "dpkit").as_posix()
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


def test_accounting_imports_no_scipy_before_it_computes():
    code = "import sys, dpkit.accountants, dpkit as dp; assert 'scipy.special' not in sys.modules"
    code += "; dp.PLD, dp.Poisson; assert 'scipy' not in sys.modules"
    code += "; assert dp.Plan(dp.DPSGD(1.0), dp.Poisson(.01, 9)).epsilon() > 0"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_is_built(tmp_path):
    """Needs the extra `lite` and a package index, so CI leaves it out."""
    for name in ("jupyterlite_core", "jupyterlite_pyodide_kernel"):
        pytest.importorskip(name, reason='JupyterLite is missing: pip install "dpkit[lite]"')
    out = tmp_path / "page"
    command = [sys.executable, ROOT / "lite" / "build.py", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (out / "files").glob("*.ipynb")} == set(LESSONS)
    for path in (out / "files").glob("*.ipynb"):
        for name in LINK.findall("\n".join(texts(json.loads(path.read_text("utf-8"))))):
            assert (out / "files" / name).exists(), f"{path.name} leads to {name}"
    bundled = json.loads((out / "pypi" / "all.json").read_text())
    assert {"dpkit", *builder().PANELS} <= {name.replace("-", "_") for name in bundled}
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode != 0 and "new or empty" in again.stderr
