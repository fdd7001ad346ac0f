"""The lessons that need no PyTorch as a static page: `python lite/build.py OUT`.

Needs `pip install "dpkit[lite]"` and, while it builds, a package index. The page runs Python in the
browser (JupyterLite, Pyodide): no server, no account, nothing sent anywhere. dpkit and the panels'
packages are on the page; Pyodide with NumPy and SciPy comes from its public host when a lesson is
opened, unless --pyodide names a downloaded distribution (pyodide-VERSION.tar.bz2), which is then
put on the page too, so that it works with no network at all.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ("index", "01_what_is_dp", "03_accountants")
PANELS = ("ipywidgets", "anywidget", "plotly", "psygnal", "narwhals", "jupyterlab_widgets", "comm")
"""What the panels need beyond Pyodide's own packages, at the versions that are installed here."""
INSTALL = "%pip install -q ipywidgets anywidget plotly dpkit"


def lesson(stem: str) -> dict[str, Any]:
    """A notebook for the page: the same cells, after one that installs dpkit from the page."""
    book = json.loads((ROOT / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8"))
    cell = {
        "cell_type": "code", "id": "install", "metadata": {}, "source": INSTALL, "outputs": [],
        "execution_count": None,
    }  # fmt: skip
    first = next(n for n, each in enumerate(book["cells"]) if each["cell_type"] == "code")
    book["cells"].insert(first, cell)
    kernel = {"name": "python", "display_name": "Python (Pyodide)", "language": "python"}
    return {**book, "metadata": {**book["metadata"], "kernelspec": kernel}}


ELSEWHERE = """
This page holds the lessons that need no PyTorch. The others run on a computer with dpkit (`dpkit \
lab`), or in a Binder tab: the README of dpkit says how.
"""


def linked(book: dict[str, Any]) -> dict[str, Any]:
    """The same notebook, without links to lessons that are not on the page."""
    cells = []
    for cell in book["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            away = re.compile(rf"\[([^\]]*)\]\((?!(?:{'|'.join(LESSONS)})\.)[^)/:]*\.ipynb\)")
            kept, count = away.subn(r"\1", text)
            text = f"{kept}\n{ELSEWHERE}" if count else text
        cells.append({**cell, "source": text})
    return {**book, "cells": cells}


def wheels(folder: Path) -> list[Path]:
    """dpkit's own wheel and those of the panels' packages, all of pure Python."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    _do([*pip, "wheel", "--no-deps", "-w", folder, ROOT])
    pinned = [f"{name}=={version(name)}" for name in PANELS]
    anywhere = ["--platform", "any", "--implementation", "py", "--abi", "none"]
    _do([*pip, "download", "--no-deps", "--only-binary", ":all:", *anywhere, "-d", folder, *pinned])
    found = sorted(folder.glob("*.whl"))
    assert len(found) == 1 + len(PANELS), found
    return found


def build(out: Path, pyodide: str | None = None) -> None:
    """Write the page into a folder that does not exist yet."""
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"The folder must be new or empty, got {out}: remove it first.")
    with tempfile.TemporaryDirectory(prefix="dpkit-lite-") as name:
        folder = Path(name)
        for part in ("contents", "wheels"):
            (folder / part).mkdir()
        for stem in LESSONS:
            (folder / "contents" / f"{stem}.ipynb").write_text(json.dumps(linked(lesson(stem))))
        settings = {
            "LiteBuildConfig": {"contents": ["contents"], "apps": ["lab", "notebooks"]},
            "PipliteAddon": {"piplite_urls": [str(path) for path in wheels(folder / "wheels")]},
        }
        if pyodide:
            place = pyodide if "://" in pyodide else str(Path(pyodide).resolve())
            settings["PyodideAddon"] = {"pyodide_url": place}
        (folder / "jupyter_lite_config.json").write_text(json.dumps(settings))
        page = {"jupyter-config-data": {"appName": "dpkit", "exposeAppInBrowser": True}}
        (folder / "jupyter-lite.json").write_text(json.dumps({"jupyter-lite-schema-version": 0,
                                                              **page}))  # fmt: skip
        command = [sys.executable, "-m", "jupyter", "lite", "build", "--output-dir", out.resolve()]
        _do(command, cwd=folder)


def _do(command: list[object], cwd: Path | None = None) -> None:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command[:6]))} ...\n{done.stderr[-3000:]}")


def main() -> None:
    """Build, and say how to look at it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--pyodide", help="a Pyodide distribution to put on the page")
    options = parser.parse_args()
    build(options.out, options.pyodide)
    print(f"Built. To look at it: {sys.executable} -m http.server -d {options.out}")
    print("then open http://localhost:8000/lab/index.html?path=index.ipynb")


if __name__ == "__main__":
    main()
