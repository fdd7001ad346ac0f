"""The README's snippets run, its map is true, and the notebooks are stripped and short."""

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WINGS = {"samplers", "accountants", "methods"}


def test_the_readmes_python_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "epsilon" in done.stdout and "Teaching run" in done.stdout


def test_the_readmes_command_is_what_ci_runs():
    assert README.count("<!-- test command -->\n```bash\n") == 1
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()


def test_every_file_that_the_readme_names_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for part in re.findall(r"`(\w+/|\w+\.py)`", README):
        assert (ROOT / "dpkit" / part).exists(), part


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_hold_no_outputs_and_no_long_cell(path):
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None
            assert len("".join(cell["source"]).splitlines()) <= 9


def test_every_public_name_is_there_and_documented():
    import dpkit

    for name in dpkit.__all__:
        assert (getattr(dpkit, name).__doc__ or "").strip(), name
    with pytest.raises(AttributeError, match="no name 'nonsense'"):
        _ = dpkit.nonsense


def test_no_module_bears_the_name_of_a_public_function():
    import dpkit

    modules = {p.stem for p in (ROOT / "dpkit").glob("*.py")}
    assert not modules & {name for names in dpkit._HOMES.values() for name in names}


def _imports(path):
    """Modules of dpkit that a file imports when it is itself imported."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dpkit"):
            yield from (
                [node.module]
                if node.module != "dpkit"
                else [f"dpkit.{alias.name}" for alias in node.names]
            )
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("dpkit"))


def test_the_three_wings_never_import_each_other():
    for wing in WINGS:
        for path in (ROOT / "dpkit" / wing).glob("*.py"):
            used = {name.split(".")[1] for name in _imports(path) if "." in name}
            assert not used & (WINGS - {wing}), path


@pytest.mark.parametrize(
    "module", ["knobs", "schedules", "mechanisms", "samplers", "accountants", "methods", "plan"]
)
def test_accounting_imports_without_torch(module):
    code = (
        "import sys\n"
        "for name in ('torch', 'plotly', 'ipywidgets', 'sklearn', 'torchvision'):\n"
        "    sys.modules[name] = None\n"
        f"import dpkit.{module}\n"
        "import dpkit as dp\n"
        "print(dp.Plan(dp.DPSGD(1.0), dp.Poisson(.01, 100)).epsilon())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 1


def test_modules_keep_to_their_length():
    for path in (ROOT / "dpkit").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 330, path
        importlib.import_module(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        ) if path.stem != "__main__" else None
