"""Two processes over gloo train as one: the same model, noise drawn once, one ledger."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpkit.ranks import Ranks
from tests import two_ranks


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes saw."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [
        *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", "2", "-m", two_ranks.__name__, str(folder)),
    ]
    root = Path(two_ranks.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    return two_ranks.trained(two_ranks.model(), two_ranks.plan(), seed=5)


def test_two_ranks_train_the_model_that_one_process_trains(both, alone):
    for rank in both:
        gap = (rank["seeded"]["weights"] - alone["weights"]).norm()
        assert gap < 1e-4 * alone["weights"].norm()
        assert rank["seeded"]["epsilon"] == alone["epsilon"] == two_ranks.plan().epsilon()
        assert rank["seeded"]["sizes"] == alone["sizes"]
        assert rank["seeded"]["losses"] == pytest.approx(alone["losses"])


@pytest.mark.parametrize("case", ["seeded", "other start", "secret", "resumed", *two_ranks.MASKS])
def test_every_rank_holds_the_same_bits(both, case):
    assert torch.equal(both[0][case]["weights"], both[1][case]["weights"])


@pytest.mark.parametrize("name", two_ranks.MASKS)
def test_two_ranks_move_the_support_that_one_process_moves(both, name):
    alone = two_ranks.trained(two_ranks.model(), two_ranks.plan(mask=two_ranks.MASKS[name]), seed=5)
    start = two_ranks.flat(two_ranks.model())
    gap = (both[0][name]["weights"] - alone["weights"]).norm()
    assert gap < 1e-4 * alone["weights"].norm() and both[1][name]["noise"] is None
    moved = both[0][name]["weights"] != start
    assert torch.equal(moved, alone["weights"] != start) and 0 < moved.sum() < len(moved)
    assert both[0][name]["noise"].shape == alone["noise"].shape and alone["noise"].shape[1] == 61


def test_rank_0_alone_draws_the_noise_once_and_in_full(both, alone):
    assert both[1]["seeded"]["noise"] is None and both[1]["secret"]["noise"] is None
    assert torch.allclose(both[0]["seeded"]["noise"], alone["noise"], atol=1e-5)
    secret = both[0]["secret"]["noise"]
    assert len(secret) == two_ranks.STEPS
    n = secret.numel()
    assert abs(float((secret / (1.1 * 0.5)).square().mean()) - 1) < 5 * math.sqrt(2 / n)
    assert not torch.allclose(secret[:3], alone["noise"][:3], atol=1e-2)


def test_all_ranks_draw_one_secret_batch(both):
    """Each step's slices make one Poisson batch: no record is in two of them."""
    for slices in zip(*(rank["secret"]["slices"] for rank in both), strict=True):
        together = torch.cat(slices)
        assert len(together.unique()) == len(together)
        assert torch.equal(together.sort().values[::2], slices[0]), "not dealt out in turn"
    sizes = both[0]["secret"]["sizes"]
    assert sizes == both[1]["secret"]["sizes"] and len(set(sizes)) > 3
    mean = 0.2 * two_ranks.RECORDS
    spread = math.sqrt(mean * 0.8 / len(sizes))
    assert abs(sum(sizes) / len(sizes) - mean) < 5 * spread


def test_a_resumed_run_equals_the_unbroken_one(both):
    assert torch.equal(both[0]["resumed"]["weights"], both[0]["seeded"]["weights"])


@pytest.mark.parametrize("case, what", [("other seeds", "seed"), ("other plans", "plan")])
def test_ranks_that_differ_are_refused_on_every_rank(both, case, what):
    for rank in both:
        assert f"the same {what}" in rank[case]


@pytest.mark.parametrize("case, hurt, told", [("damaged on one", 1, "cannot be read"),
                                              ("short of memory", 0, "larger budget")])  # fmt: skip
def test_a_rank_that_cannot_begin_stops_the_others_too(both, case, hurt, told):
    """Without an agreement the healthy rank would wait for the other until it timed out."""
    assert told in both[hurt][case]
    assert f"cannot begin on rank {hurt}" in both[1 - hurt][case]
    assert told in both[1 - hurt][case]


def test_a_process_without_a_group_is_alone():
    assert Ranks.current() == Ranks(0, 1)
    assert Ranks().gathered(3) == [3] and Ranks().told(4) == 4
    assert Ranks().together(lambda: 5) == 5
