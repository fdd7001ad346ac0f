"""The README and the chapters say what is true and what runs; notebooks are stripped and short."""

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import chapters

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CHAPTERS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *CHAPTERS]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WINGS = {"samplers", "accountants", "methods"}


def test_the_readmes_python_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "epsilon" in done.stdout and "Teaching run" in done.stdout
    assert len(re.findall(r"epsilon \d(?:\.\d+)? accuracy 0\.\d", done.stdout)) == 3


def test_the_readmes_command_is_what_ci_runs():
    assert README.count("<!-- test command -->\n```bash\n") == 1
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_runs_and_prints_what_it_says(path, tmp_path):
    chapters.run(path, tmp_path)


def test_every_chapter_is_there_and_a_block_is_left_out_for_a_reason_alone():
    assert {path.stem for path in CHAPTERS} >= {
        "quickstart", "concepts", "extending", "pitfalls", "comparison", "results", "house",
    }  # fmt: skip
    found = [block for path in CHAPTERS for block in chapters.blocks(path.read_text())]
    assert {block.kind for block in found} == {"python", "bash"}
    assert len([block for block in found if not block.left_out]) > 40
    assert [block.left_out for block in found if block.left_out] == [
        "installs packages", "starts a server",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n```\n```text\n2\n```\n",
        "```python\nprint(1)\nint('x')\n```\n```text\n1\n```\n",
        "```python\nprint(1)\n```\n\n```text\n1\nValueError: x\n```\n",
        "```python\nint('x')\n```\n",
        "```bash\nfalse\n```\n",
        "```bash\ndpkit epsilon\n```\n",
        "```python\na = 1\n```\n\nWords.\n\n```python\nassert a == 2\n```\n",
    ],
)
def test_a_chapter_that_says_what_is_untrue_fails(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((AssertionError, ValueError)):
        chapters.run(page, tmp_path)


def _anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_file_and_heading_that_a_page_names_is_there(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^):]+)\)", text):
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        if anchor:
            assert anchor in _anchors(there), target
    for part in re.findall(r"`((?:tests|benchmarks|dpkit|docs)/[\w/]+\.\w+)`", text):
        assert (ROOT / part).exists(), part
    for script in re.findall(r"python (benchmarks/\w+\.py)", text):
        assert (ROOT / script).exists(), script


def test_the_map_of_the_house_is_true():
    for part in re.findall(r"`(\w+/|\w+\.py)`", (ROOT / "docs" / "house.md").read_text()):
        assert (ROOT / "dpkit" / part).exists() or part == "dpkit/", part


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """What the chapter on extending adds to dpkit."""
    return chapters.run(ROOT / "docs" / "extending.md", tmp_path_factory.mktemp("extending"))


def test_what_the_chapter_adds_keeps_the_contract(added, monkeypatch):
    import dpkit as dp
    from dpkit import runs
    from tests import test_contract as contract

    noise, order = added["Logistic"](2.0), added["OneOrder"](8.0)
    lies, signs = added["InOrder"](7, 3), added["SignDescent"](1.2)
    monkeypatch.setattr(runs, "EXPORTS", (*runs.EXPORTS, added["SignDescent"]))
    for value in (noise, order, lies, signs):
        contract.test_values_are_frozen_hashable_and_documented(value)
    for value in (noise, lies, signs):
        contract.test_every_number_is_a_knob_that_refuses_nan(value)
    sampled = noise.pair(dp.Neighbours.ADD_REMOVE, dp.mechanisms.PoissonSampling(0.1))
    for value in (noise, sampled):
        contract.test_a_profile_is_a_hockey_stick_divergence(value)
        contract.test_rdp_bounds_the_profile(value)
    contract.test_an_accountant_keeps_order_and_never_leaves_its_range(order)
    contract.test_a_bound_is_not_below_the_exact_value(order)
    contract.test_a_sampler_covers_its_steps_and_draws_within_the_data(lies)
    contract.test_more_batches_than_records_are_refused_wherever_the_size_is_told(lies)
    for relation in dp.Neighbours:
        contract.test_a_sampler_charges_or_refuses_in_words(lies, relation)
    contract.test_a_method_is_priced_scaled_stored_and_has_sliders(signs)


def test_what_the_chapter_adds_keeps_its_promise(added, monkeypatch):
    import dpkit as dp
    from dpkit import runs
    from tests.privacy import test_a_replay, test_f_ledger

    exports = (*runs.EXPORTS, added["SignDescent"], added["InOrder"])
    monkeypatch.setattr(runs, "EXPORTS", exports)
    lies, signs = added["InOrder"](3, 2), added["SignDescent"](1.2, 0.7, 0.2)
    pairs = [(signs, dp.Poisson(0.4, 4)), (signs, lies), (dp.DPSGD(1.2, 0.7, 0.2), lies)]
    for method, sampler in pairs:
        for relation in sampler.relations:
            test_a_replay.test_every_method_sampler_and_relation((method, sampler, relation))
    for relation in lies.relations:
        test_f_ledger.test_the_ledger_is_what_was_measured((signs, dp.Poisson(0.4, 4), relation))
        entries = lies.charge([(dp.Release(dp.Gaussian(2.0)),)] * 3, relation)
        assert entries == [(dp.Gaussian(2.0).pair(relation), 1)]


def test_the_prices_of_the_comparison_are_what_its_command_prints():
    script = ROOT / "benchmarks" / "libraries.py"
    spec = importlib.util.spec_from_file_location("libraries", script)
    libraries = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(libraries)
    rows = {}
    for line in (ROOT / "docs" / "comparison.md").read_text().splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows.setdefault(name, cells)
    assert rows["epsilon at delta 1e-5"] == list(libraries.RUNS)
    for name, price in libraries.LIBRARIES.items():
        found = [libraries.cell(price, run) for run in libraries.RUNS.values()]
        assert found in (rows[name], ["-"] * len(found)), name


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
