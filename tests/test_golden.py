"""Accountants against the stored values of independent libraries (their producers are named)."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import dpkit as dp
from dpkit.accountants.calibration import noise_for_epsilon
from dpkit.mechanisms import Gaussian, Laplace, Ledger, Neighbours, PoissonSampling

CASES = json.loads((Path(__file__).parent / "golden_epsilon.json").read_text())["cases"]
RELATION = {"replace_one": Neighbours.REPLACE_ONE}


def of(*kinds):
    found = [case for case in CASES if case["kind"] in kinds]
    assert found
    return pytest.mark.parametrize("case", found, ids=[case["id"] for case in found])


def pair(q, sigma, relation=Neighbours.ADD_REMOVE):
    return Gaussian(sigma).pair(relation, PoissonSampling(q))


def ledger(case):
    p = case["params"]
    relation = RELATION.get(case["kind"], Neighbours.ADD_REMOVE)
    if "phases" in p:
        steps = zip(p["phases"], p["counts"], strict=True)
        return Ledger.of([(pair(q, sigma), count) for (q, sigma), count in steps])
    return Ledger.of([(pair(p["q"], p["sigma"], relation), p["T"])], relation)


def references(case, *kinds):
    return [r["value"] for r in case["refs"] if r["kind"] in kinds and np.isscalar(r["value"])]


@of("pld_epsilon", "heterogeneous", "replace_one")
def test_tight_epsilon_and_both_bounds(case):
    delta = case["params"]["delta"]
    bounds = dp.PLD().bounds(ledger(case), delta)
    best = case["best"]
    assert bounds.lower <= bounds.estimate <= bounds.upper
    if case["kind"] == "replace_one":
        # The stored best is a double-precision estimate good to 1e-6 or so.
        assert bounds.estimate == pytest.approx(best, abs=3e-6)
        assert bounds.lower <= best * (1 + 1e-6) and best <= bounds.upper * (1 + 1e-6)
        return
    tolerance = 2e-6 if case["params"].get("case", "-") in "ABCDE" else 1e-6 * best
    assert abs(bounds.estimate - best) <= tolerance
    assert bounds.lower <= best * (1 + 1e-12) and best <= bounds.upper * (1 + 1e-12)
    assert bounds.upper - bounds.lower <= 0.01 * best + 2e-3
    uppers = references(case, "upper")
    assert bounds.estimate <= max(uppers) * (1 + 1e-9)


@of("rdp_poisson_gaussian")
def test_rdp_of_one_step_never_below_the_exact_value(case):
    p, best = case["params"], case["best"]
    found = float(pair(p["q"], p["sigma"]).rdp(p["order"]))
    assert found >= best * (1 - 1e-9)
    assert found == pytest.approx(best, rel=2e-6)


@of("rdp_epsilon")
def test_rdp_epsilon_is_an_upper_bound_as_tight_as_the_peers(case):
    delta = case["params"]["delta"]
    found = dp.RDP().epsilon(ledger(case), delta)
    assert dp.PLD().bounds(ledger(case), delta).lower <= found
    assert found <= max(references(case, "upper")) * (1 + 1e-3)


@of("gdp_clt")
def test_the_clt_estimate_is_the_closed_form_and_is_called_one(case):
    closed = [r for r in case["refs"] if r["producer"].startswith("closed form")][0]["value"]
    if case["params"]["q"] == 1.0:
        return
    accountant = dp.GDP()
    assert accountant.epsilon(ledger(case), case["params"]["delta"]) == pytest.approx(closed, rel=1e-6)
    assert not accountant.is_bound
    assert closed < dp.PLD().epsilon(ledger(case), case["params"]["delta"])


@of("analytic_gaussian")
def test_the_analytic_gaussian(case):
    p = case["params"]
    if p["solve"] != "epsilon":
        assert p["solve"] == "sigma"
        found = noise_for_epsilon(p["epsilon"], delta=p["delta"], sample_rate=1.0, steps=1)
        assert case["best"] <= found * (1 + 1e-9) and found <= case["best"] * 1.005
        return
    found = dp.PLD().epsilon(Ledger.of([(Gaussian(p["sigma"]), 1)]), p["delta"])
    assert found == pytest.approx(case["best"], rel=1e-9)


@of("zcdp")
def test_zcdp_converts_no_worse_than_its_peers_and_never_below_exact(case):
    p = case["params"]
    gaussian = Ledger.of([(Gaussian(math.sqrt(1 / (2 * p["rho"]))), 1)])
    found = dp.ZCDP().epsilon(gaussian, p["delta"])
    assert case["best"] <= found <= max(references(case, "upper")) * (1 + 1e-9)
    assert dp.PLD().epsilon(gaussian, p["delta"]) == pytest.approx(case["best"], rel=1e-9)


@of("calibration")
def test_calibrated_noise_keeps_its_target_within_half_a_percent(case):
    p = case["params"]
    sigma = noise_for_epsilon(
        p["target_epsilon"], delta=p["delta"], sample_rate=p["q"], steps=p["T"]
    )
    spent = dp.PLD().epsilon(Ledger.of([(pair(p["q"], sigma), p["T"])]), p["delta"])
    assert p["target_epsilon"] * 0.995 <= spent <= p["target_epsilon"]
    estimate = references(case, "estimate")[0]
    assert estimate * (1 - 1e-5) <= sigma <= estimate * 1.005


@of("laplace_rdp")
def test_laplace_rdp(case):
    p = case["params"]
    assert float(Laplace(p["b"]).rdp(p["order"])) == pytest.approx(
        case["refs"][-1]["value"], rel=1e-9
    )


@of("laplace_pld")
def test_laplace_epsilon_lies_between_the_stored_bounds(case):
    p = case["params"]
    bounds = dp.PLD().bounds(Ledger.of([(Laplace(p["b"]), p["T"])]), p["delta"])
    low, high = min(references(case, "lower")), max(references(case, "upper"))
    assert bounds.upper >= low and bounds.lower <= high
    if case["best"] is not None:
        assert bounds.lower <= case["best"] * (1 + 1e-9) <= bounds.upper * (1 + 2e-9)


@of("tradeoff")
def test_the_trade_off_curve(case):
    p = case["params"]
    if p["mechanism"] == "gaussian":
        exact = [r["value"] for r in case["refs"] if r["kind"] == "exact" and len_of(r["value"])][0]
        held = Ledger.of([(Gaussian(1 / p["mu"]), 1)])
        assert dp.PLD().advantage(held) == pytest.approx(case["best"], rel=1e-6)
    else:
        exact = case["refs"][0]["value"]
        held = Ledger.of([(pair(256 / 60000, 1.1), 14040)])
    found = np.array([float(dp.PLD().tradeoff(held, a)) for a in p["alpha"]])
    # riskcal's DP-SGD curve is itself a lower bound, from a coarse grid.
    assert found == pytest.approx(exact, abs=1e-6 if p["mechanism"] == "gaussian" else 3e-3)


def len_of(value):
    return 0 if np.isscalar(value) else len(value)


@of("published")
def test_published_figures_are_reproduced_by_the_conversion_they_used(case):
    p = case["params"]
    if p.get("conversion", "").startswith("2016") and "T" in p and "q" in p:
        found = dp.Moments().epsilon(ledger(case), p["delta"])
        peers = references(case, "upper")
        assert found == pytest.approx(peers[0], rel=2e-2)
