"""Plant small faults, each after a bug that really happened, and see which test finds them.

`python -m tests.privacy.mutants` prints the table (what killed what) and fails if one survives,
or if the audit (c) alone finds it. `--short` runs the dozen of continuous integration, `--list`
names them all, `NAME ...` runs some, `--every` lets every letter hunt every mutant (long), and
`--seeds 200` counts false alarms. Each mutant is planted in a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from _pytest.mark.expression import Expression

from tests.privacy.planted import MUTANTS, Mutant
from tests.privacy.seeds import STATISTICAL, moved

HERE = Path(__file__).parent
NET = {
    "a": ("test_a_replay.py", "(sampler_and and DPSGD0 and not ZERO) or (every_layer and (mlp-ADD "
          "or conv1d-REPL or tied-ADD or cancelling or multi)) or (every_clipping and (mlp or "
          "conv1d)) or (alone and (NaN or 1e6 or removed)) or "
          "(sampler_and and (DPSGD7 or DPSGD13 or DPSGD14) and Poisson0 and not ZERO) or "
          "(sampler_and and TopAgg and Poisson0 and ADD)"),
    "b": ("test_b_noise.py", "DPSGD0 or DPSGD3 or TopAgg or own_law or batch or 32 or "
          "support_alone"),
    "c": ("test_c_canaries.py", "DPSGD0 or 93"),
    "d": ("test_d_fingerprint.py", "not is_priced"),
    "e": ("test_e_accountants.py", "not laws"),
    "f": ("test_f_ledger.py", "not measured or DPSGD0 or DPSGD2 or DPSGD3"),
    "g": ("test_g_metamorphic.py", "mlp or conv1d or tied or linear or multi or DPSGD or sgd or "
          "mixes"),
    "n": ("test_n_activations.py", "(moves and Poisson0) or (precisions and mlp) or bear or rate "
          "or read_again or (was_drawn and Poisson0) or charged or price or refused or never or "
          "lost"),
    "k": ("test_checkpoint.py", "not killed"),
    "m": ("test_m_masks.py", "test and not every_layer or every_layer and mlp"),
    "r": ("../test_ranks.py", "test"),
    "v": ("test_votes.py", "test"),
}  # fmt: skip
"""The tests of each letter that hunt mutants: short, yet every kind is there.

k: checkpoints; m: masks; r: two processes, which plant the fault in themselves;
v: votes.
"""


class _Hunt:
    """A pytest plugin: of each letter the tests of the net, until the first that fails."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = {letter: Expression.compile(text) for letter, text in words.items()}
        self.files = {Path(NET[letter][0]).name: letter for letter in words}
        self.found: dict[str, tuple[int, list[str]]] = {letter: (0, []) for letter in words}

    def pytest_collection_modifyitems(self, items) -> None:
        items[:] = [item for item in items if self._wanted(item)]

    def pytest_runtest_setup(self, item) -> None:
        # A letter that has killed the mutant is done: its other tests are not worth the time.
        if self.found[self.files[item.path.name]][1]:
            pytest.skip("this letter has its kill")

    def pytest_runtest_logreport(self, report) -> None:
        letter = self.files[Path(report.fspath).name]
        ran, failed = self.found[letter]
        if report.failed and not failed:
            failed.append(report.nodeid.rpartition("::")[2])
        self.found[letter] = (ran + (report.when == "call"), failed)

    def _wanted(self, item) -> bool:
        words = self.words[self.files[item.path.name]]
        return words.evaluate(lambda word: word in item.name)


def _pytest(files: list[str], *options: str, plugins=()) -> str:
    """Pytest in this process, without the plugins of other packages; what it said."""
    said = io.StringIO()
    arguments = [str(HERE / file) for file in files]
    arguments += ["-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *options]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        pytest.main(arguments, plugins=list(plugins))
    return said.getvalue()


def hunted(one: Mutant | None, words: Mapping[str, str]) -> dict[str, tuple[int, list[str]]]:
    """Plant a mutant here, run its hunters: tests run and first failure, by letter."""
    hunt = _Hunt(words)
    with ExitStack() as stack:
        if one is not None:
            one.plant(stack)
        said = _pytest([NET[letter][0] for letter in words], plugins=[hunt])
    idle = [letter for letter, (ran, failed) in hunt.found.items() if not (ran or failed)]
    if idle:
        raise RuntimeError(f"no test of {idle} ran: {said[-2000:]}")
    return hunt.found


def _child(number: int, letters: str) -> tuple[int, dict[str, tuple[int, list[str]]], float]:
    torch.set_num_threads(1)
    start = time.monotonic()
    try:
        one = MUTANTS[number] if number >= 0 else None
        wanted = letters or (one.letters if one else "".join(NET))
        found = hunted(one, {letter: NET[letter][1] for letter in wanted})
    except BaseException:
        found = {"!": (0, [traceback.format_exc()])}
    return number, found, time.monotonic() - start


def _told(line: str) -> None:
    print(line, flush=True)


def _task(work: tuple[int, str]):
    return _child(*work)


def _forks(processes: int):
    """A pool of forks of a process that has imported all; a fresh one for each task.

    Nothing that is planted in one may be seen by the next.
    """
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    _pytest([file for file, _ in NET.values()], "--collect-only")
    return multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1)


def run(chosen: list[int], letters: str = "", processes: int = 2, out=_told) -> list[str]:
    """Hunt the chosen mutants, print the table, and name those that got away."""
    escaped = []
    with _forks(processes) as pool:
        work = [(number, letters) for number in chosen]
        for number, found, seconds in pool.imap_unordered(_task, work, chunksize=1):
            kills = [letter for letter, (_, failed) in found.items() if failed]
            name = MUTANTS[number].name if number >= 0 else "(nothing planted)"
            if "!" in found or (kills if number < 0 else not set(kills) - {"c"}):
                escaped.append(name)
            first = next((f[0] for _, f in found.values() if f), "")[-70:]
            ran = sum(ran for ran, _ in found.values())
            marks = "".join(x if x in kills else "." if x in found else " " for x in [*NET, "!"])
            out(f"{name:38} {marks} {ran:4d} tests {seconds:5.1f} s  {first}")
    return escaped


def _alarms(seeds: range) -> list[str]:
    """What the statistical tests say of an honest dpkit, under these seeds."""
    torch.set_num_threads(1)
    found = []
    for seed in seeds:
        with moved(seed):
            told = hunted(None, STATISTICAL)
        found += [f"seed {seed}: {name}" for _, names in told.values() for name in names]
    return found


def false_alarms(seeds: int, processes: int = 2, out=_told) -> list[str]:
    """The false alarms of the statistical tests over many seeds."""
    parts = [range(start, min(start + 10, seeds + 1)) for start in range(1, seeds + 1, 10)]
    found = []
    with _forks(processes) as pool:
        for done, some in enumerate(pool.imap_unordered(_alarms, parts), start=1):
            found += some
            out(f"{min(10 * done, seeds)} seeds: {len(found)} false alarms {some or ''}")
    return found


def main(arguments: list[str]) -> int:
    """The table, the survivors, the time."""
    if "--list" in arguments:
        for one in MUTANTS:
            print(f"{one.name:38} {one.bug}")
        return 0
    start, processes = time.monotonic(), 1 if "--one" in arguments else 2
    if "--seeds" in arguments:
        seeds = int(arguments[arguments.index("--seeds") + 1])
        found = false_alarms(seeds, processes)
        print(f"{len(found)} false alarms over {seeds} seeds in {_effort(start)}: {found}")
        return bool(found)
    short, names = "--short" in arguments, [a for a in arguments if not a.startswith("-")]
    chosen = [i for i, one in enumerate(MUTANTS)
              if (not names or one.name in names) and (one.short or not short)]  # fmt: skip
    # The control: with nothing planted the net must be silent, or its kills mean nothing.
    control = [] if names or short else [-1]
    escaped = run(control + chosen, "".join(NET) if "--every" in arguments else "", processes)
    print(f"{len(chosen)} mutants in {_effort(start)}, escaped: {escaped or 'none'}")
    return bool(escaped)


def _effort(start: float) -> str:
    """Wall time, processor time and load, since one means little without the others."""
    times = os.times()
    spent = times.user + times.system + times.children_user + times.children_system
    wall = time.monotonic() - start
    return f"{wall:.0f} s (processor {spent:.0f} s, load {os.getloadavg()[0]:.1f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
