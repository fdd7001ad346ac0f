"""Binder's image and the README's badges: pins, files that run, links that lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [
    line.split("#")[0].strip() for line in (BINDER / "requirements.txt").read_text().splitlines()
]
PINS = dict(line.split("==") for line in LINES if line and not line.startswith("-"))


def badges():
    spec = importlib.util.spec_from_file_location("badges", BINDER / "badges.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(extra):
    """The requirements of an extra and of the extras that it names."""
    for text in PROJECT["optional-dependencies"][extra]:
        wanted = Requirement(text)
        if wanted.name == "dpkit":
            for inner in wanted.extras:
                yield from asked(inner)
        else:
            yield wanted


def test_every_pin_lies_in_the_range_that_dpkit_asks_for():
    wanted = [*map(Requirement, PROJECT["dependencies"]), *asked("lab")]
    assert {each.name for each in wanted} <= set(PINS)
    for each in wanted:
        assert each.specifier.contains(PINS[each.name]), (each, PINS[each.name])
    runtime = (BINDER / "runtime.txt").read_text().strip().removeprefix("python-")
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(runtime)


def test_pytorch_is_the_cpu_build_and_the_rest_is_what_ci_tests():
    """A local path, or `-r`, would make Binder build everything anew for each commit."""
    assert [line for line in LINES if line.startswith("-")] == [
        "--extra-index-url https://download.pytorch.org/whl/cpu"
    ]
    assert PINS["torch"].endswith("+cpu") and "torchvision" not in PINS
    assert not any(name.startswith("nvidia") for name in PINS)
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    other = {name: pin for name, pin in PINS.items() if name != "torch"}
    assert other == {name: tested[name] for name in other}


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_can_be_run(name):
    assert os.access(BINDER / name, os.X_OK)
    done = subprocess.run(["bash", "-n", BINDER / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dpkit_comes_from_the_tree_and_the_settings_are_there():
    said = (BINDER / "postBuild").read_text()
    assert re.search(r"pip install (?=.*--no-deps)[^\n]* \.$", said, re.M)
    for path in re.findall(r"binder/\w+\.json", said):
        json.loads((ROOT / path).read_text())
    config = json.loads((BINDER / "jupyter_config.json").read_text())
    for app in ("LabApp", "ServerApp"):
        at = config[app]["default_url"].removeprefix("/lab/tree/")
        assert (ROOT / at).exists(), at


def test_start_hands_on_every_word_of_its_command():
    words = [sys.executable, "-c", "import os, sys; print(os.environ['OMP_NUM_THREADS'], sys.argv)"]
    command = [BINDER / "start", *words, "a b", "--c"]
    assert subprocess.check_output(command, text=True).strip() == "1 ['-c', 'a b', '--c']"


def test_every_lesson_has_a_badge_and_every_badge_a_lesson():
    block = badges().BLOCK.search((ROOT / "README.md").read_text())
    found = {unquote(at) for at in re.findall(r"\?labpath=([^)\s]+)\)", block[0])}
    there = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert found == there
    assert block[0].splitlines()[1:-1] == badges().badges("OWNER/dpkit").splitlines()


def test_badges_take_the_name_of_a_public_copy():
    made = badges().badges("ada/course", ref="v1")
    assert "https://mybinder.org/v2/gh/ada/course/v1?labpath=notebooks%2F" in made
    assert "OWNER" not in made
    with pytest.raises(SystemExit, match="OWNER/NAME, got 'nonsense'"):
        badges().badges("nonsense")
