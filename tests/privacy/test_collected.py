"""The net itself: every export is in it, as many tests as it should have, none skipped."""

from __future__ import annotations

import collections
import subprocess
import sys
from pathlib import Path

import pytest

import dpkit as dp
from dpkit.gradients import tape
from tests.privacy import cases, test_d_fingerprint, test_m_masks
from tests.privacy.mutants import MUTANTS, NET
from tests.privacy.recording import drawing_kinds

HERE = Path(__file__).parent
COMBINATIONS, METHODS = len(cases.combinations()), len(cases.METHODS)
LAYERS, NEIGHBOURS = len(cases.LAYERS), len(cases.NEIGHBOURS)
SAMPLERS, ACCOUNTANTS = len(cases.SAMPLERS), len(cases.ACCOUNTANTS)
CLIPPINGS, READABLE, MASKED = (
    len(some) for some in (cases.CLIPPINGS, cases.READABLE, cases.MASKED)
)
ACTIVATIONS = len(cases.ACTIVATIONS)
REPLACING = sum(dp.Neighbours.REPLACE_ONE in s.relations for s in cases.SAMPLERS)
CLASSIFIERS = sum(layer.loss is None for layer in cases.LAYERS)
EXPECTED = {
    "test_a_replay.py": COMBINATIONS + 2 * LAYERS + 3 * NEIGHBOURS + 3 * LAYERS * CLIPPINGS + 3,
    "test_b_noise.py": 2 * METHODS + READABLE + MASKED + 3 + 2 * 2 + 3 + 2 + 4,
    "test_c_canaries.py": len(cases.AUDITED) + 6,
    "test_d_fingerprint.py": len(test_d_fingerprint.FINGERPRINTS)
    + 4
    + SAMPLERS * (1 + ACCOUNTANTS)
    + 3,
    "test_m_masks.py": 2 * len(test_m_masks.MASKS) + 2 * len(test_m_masks.RULES) + 14 + 8 * LAYERS,
    "test_f_ledger.py": COMBINATIONS + METHODS + 19,
    "test_n_activations.py": ACTIVATIONS * (2 * REPLACING + 3) + 2 * 2 * 3 + 26,
    "test_g_metamorphic.py": LAYERS * (3 + CLIPPINGS + 1) + CLASSIFIERS + METHODS + 2 + 1 + 2,
    "test_votes.py": 4 * (NEIGHBOURS + 1) + 3 + 4,
}


@pytest.fixture(scope="module")
def counted():
    """Tests by file, as pytest collects them afresh in a process of its own."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider",
               str(HERE), "--deselect", str(HERE / "test_collected.py")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "test_" in line]
    if any("::" in line for line in lines):
        return collections.Counter(Path(line.split("::")[0]).name for line in lines)
    return {Path(name).name: int(n) for name, _, n in (line.partition(": ") for line in lines)}


@pytest.mark.parametrize("file", EXPECTED)
def test_as_many_tests_as_the_lists_call_for(counted, file):
    assert counted[file] == EXPECTED[file]


def test_no_file_of_the_net_is_missing(counted):
    assert {file for file, _ in NET.values() if "/" not in file} <= set(counted)
    assert counted["test_e_accountants.py"] >= 60 and counted["test_checkpoint.py"] >= 13


def test_every_method_sampler_accountant_and_layer_is_in_the_lists():
    """What dpkit exports must join: one line in `cases`."""

    def classes(module, kind):
        found = [getattr(module, name) for name in module.__all__]
        return {c for c in found if isinstance(c, type) and issubclass(c, kind) and c is not kind}

    assert classes(dp.methods, dp.Method) == {type(m) for m in cases.METHODS + cases.ACTIVATIONS}
    assert classes(dp.samplers, dp.Sampler) == {type(s) for s in cases.SAMPLERS}
    prints = {type(made()) for made, _ in test_d_fingerprint.FINGERPRINTS}
    assert classes(dp.samplers, dp.Sampler) == prints
    assert classes(dp.accountants, dp.Accountant) == {type(a) for a in cases.ACCOUNTANTS}
    clippings = classes(dp.gradients, dp.gradients.Clipping)
    assert clippings == {type(c) for c in cases.CLIPPINGS}


def test_every_kernel_of_the_engine_has_a_layer():
    for kernel in tape.KINDS:
        handled = [layer.name for layer in cases.LAYERS
                   if any(kernel.handles(m) for m in layer.model().modules())]  # fmt: skip
        assert handled, f"no layer of the lists is for {kernel.__name__}"


def test_every_mechanism_that_draws_is_recorded():
    assert {dp.Gaussian, dp.Laplace, dp.RandomisedResponse} <= set(drawing_kinds())


def test_the_mutants_are_named_once_and_hunted_by_more_than_the_audit():
    names = [one.name for one in MUTANTS]
    assert len(set(names)) == len(names) >= 95
    assert all(one.bug and set(one.letters) <= set(NET) for one in MUTANTS)
    assert all(set(one.letters) - {"c"} for one in MUTANTS)
    assert 12 <= sum(one.short for one in MUTANTS) <= 24


def test_a_dozen_mutants_are_killed():
    """H, in short; `python -m tests.privacy.mutants` plants them all."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.privacy.mutants", "--short"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.returncode == 0 and "escaped: none" in done.stdout, done.stdout + done.stderr
