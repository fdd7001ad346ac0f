"""Accountants against closed forms and against stored values of independent libraries."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, norm

from dpkit.accountants import (
    GDP,
    PLD,
    RDP,
    ZCDP,
    Advanced,
    Basic,
    Moments,
    noise_for_epsilon,
)
from dpkit.mechanisms import (
    EpsilonDelta,
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    Ledger,
    Mechanism,
    Neighbours,
    PoissonSampling,
    RandomisedResponse,
    Refused,
    ReplacedGaussian,
    Subsampled,
    SubsampledGaussian,
    UpperSide,
)

CASES = json.loads((Path(__file__).parent / "golden_epsilon.json").read_text())["cases"]
ACCOUNTANTS = (PLD(), RDP(), Moments(), ZCDP(), GDP(), Basic(), Advanced())


def cases(*kinds):
    return [pytest.param(case, id=case["id"]) for case in CASES if case["kind"] in kinds]


def poisson(q, sigma, steps, relation=Neighbours.ADD_REMOVE):
    return Ledger(((Gaussian(sigma).pair(relation, PoissonSampling(q)), steps),), relation)


def ledger_of(case):
    p = case["params"]
    if case["kind"] == "heterogeneous":
        pairs = [
            Gaussian(s).pair(Neighbours.ADD_REMOVE, PoissonSampling(q)) for q, s in p["phases"]
        ]
        return Ledger.of(zip(pairs, p["counts"], strict=True))
    replace = case["kind"] == "replace_one"
    relation = Neighbours.REPLACE_ONE if replace else Neighbours.ADD_REMOVE
    return poisson(p["q"], p["sigma"], p["T"], relation)


def test_the_golden_set_is_all_there():
    assert len(CASES) == 78


@pytest.mark.parametrize("case", cases("pld_epsilon", "heterogeneous", "replace_one"))
def test_pld_meets_the_exact_value(case):
    ledger, delta = ledger_of(case), case["params"]["delta"]
    value = PLD().epsilon(ledger, delta)
    exact = any("exact" in ref["kind"] for ref in case["refs"])
    assert value == pytest.approx(case["best"], rel=1e-8 if exact else 1e-6)
    assert PLD().delta(ledger, value) == pytest.approx(delta, rel=1e-6)


@pytest.mark.parametrize("case", cases("pld_epsilon", "heterogeneous", "replace_one"))
def test_bounds_hold_the_exact_value_between_them(case):
    bounds = PLD().bounds(ledger_of(case), case["params"]["delta"])
    # A stored value without a 34-digit producer is an estimate to 1e-6.
    exact = any("exact" in ref["kind"] for ref in case["refs"])
    slack = 0.0 if exact else 1e-6 * case["best"]
    assert bounds.lower - slack <= case["best"] <= bounds.upper + slack
    assert bounds.lower <= bounds.estimate <= bounds.upper
    assert bounds.upper - bounds.lower <= 0.01 * bounds.upper


@pytest.mark.parametrize("case", cases("pld_epsilon", "heterogeneous"))
def test_no_upper_bound_is_below_an_optimistic_estimate(case):
    ledger, delta = ledger_of(case), case["params"]["delta"]
    optimistic = [ref["value"] for ref in case["refs"] if ref["kind"] == "lower"]
    for accountant in (PLD(), RDP(), Moments(), ZCDP(), Basic(), Advanced()):
        for low in [*optimistic, case["best"] * (1 - 1e-6)]:
            assert accountant.epsilon(ledger, delta) >= low


@pytest.mark.parametrize("case", cases("rdp_poisson_gaussian"))
def test_rdp_of_each_order_is_exact(case):
    p = case["params"]
    pair = Gaussian(p["sigma"]).pair(Neighbours.ADD_REMOVE, PoissonSampling(p["q"]))
    assert float(pair.rdp(p["order"])) == pytest.approx(case["best"], rel=1e-11)


@pytest.mark.parametrize("case", cases("rdp_epsilon"))
def test_rdp_epsilon_is_as_good_as_the_libraries(case):
    value = RDP().epsilon(ledger_of(case), case["params"]["delta"])
    best = min(ref["value"] for ref in case["refs"])
    assert value <= max(ref["value"] for ref in case["refs"]) * (1 + 1e-9)
    assert value >= best * (1 - 2e-3)
    assert value > PLD().epsilon(ledger_of(case), case["params"]["delta"])


@pytest.mark.parametrize("case", cases("published"))
def test_published_epsilons_are_repeated_by_the_classic_conversion(case):
    p = case["params"]
    classic = next(ref["value"] for ref in case["refs"] if "old conversion" in ref["settings"])
    ledger = poisson(p["q"], p["sigma"], p["T"])
    moments = Moments().epsilon(ledger, p["delta"])
    orders = np.concatenate([1 + np.arange(1, 100) / 10, np.arange(12.0, 64.0)])  # Opacus's
    rdp = p["T"] * ledger.mechanisms[0].rdp(orders)
    value = min(moments, float(np.min(rdp + math.log(1 / p["delta"]) / (orders - 1))))
    assert value == pytest.approx(classic, rel=1e-3)
    assert value == pytest.approx(case["published"]["value"], rel=0.0125)
    assert moments == pytest.approx(value, rel=5e-3)


@pytest.mark.parametrize("case", cases("analytic_gaussian"))
def test_one_gaussian_is_exact(case):
    p = case["params"]
    if p["solve"] == "epsilon":
        value = PLD().epsilon(Ledger(((Gaussian(p["sigma"]), 1),)), p["delta"])
        assert value == pytest.approx(case["best"], rel=1e-12)
    else:
        sigma = noise_for_epsilon(p["epsilon"], delta=p["delta"], sample_rate=1.0, steps=1)
        assert case["best"] * (1 - 1e-9) <= sigma <= case["best"] * 1.005


@pytest.mark.parametrize("case", cases("gdp_clt"))
def test_the_limit_theorem_is_an_estimate_and_says_so(case):
    ledger, delta = ledger_of(case), case["params"]["delta"]
    bounds = GDP().bounds(ledger, delta)
    if case["params"]["q"] == 1.0:
        assert bounds.upper == pytest.approx(PLD().epsilon(ledger, delta), rel=1e-9)
        return
    closed = next(ref["value"] for ref in case["refs"] if ref["producer"].startswith("closed"))
    assert bounds.estimate == pytest.approx(closed, rel=1e-9)
    assert bounds.upper == math.inf and not bounds.is_bound and not GDP.is_bound
    assert "estimate" in bounds.method
    assert bounds.estimate < PLD().epsilon(ledger, delta)  # the reason why it gates nothing


@pytest.mark.parametrize("case", cases("zcdp"))
def test_zcdp(case):
    p = case["params"]
    ledger = Ledger(((Gaussian(math.sqrt(0.5 / p["rho"])), 1),))
    tight = next(ref["value"] for ref in case["refs"] if "Canonne" in ref["settings"])
    assert ZCDP().rho(ledger) == pytest.approx(p["rho"])
    assert ZCDP().epsilon(ledger, p["delta"]) == pytest.approx(tight, rel=1e-3)
    assert ZCDP().epsilon(ledger, p["delta"]) >= tight * (1 - 1e-12)
    assert PLD().epsilon(ledger, p["delta"]) == pytest.approx(case["best"], rel=1e-9)


@pytest.mark.parametrize("case", cases("laplace_rdp"))
def test_laplace_rdp(case):
    p = case["params"]
    exact = next(ref["value"] for ref in case["refs"] if ref["producer"].startswith("closed"))
    assert float(Laplace(p["b"]).rdp(p["order"])) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("case", cases("laplace_pld"))
def test_laplace_pld(case):
    p = case["params"]
    ledger = Ledger(((Laplace(p["b"]), p["T"]),))
    bounds = PLD().bounds(ledger, p["delta"])
    for ref in case["refs"]:
        if ref["kind"] == "upper":
            assert bounds.lower <= ref["value"] and bounds.estimate <= ref["value"] + 1e-5
        if ref["kind"] == "lower":
            assert bounds.upper >= ref["value"] and bounds.estimate >= ref["value"] - 1e-5
    if case["best"] is not None:
        assert bounds.estimate == pytest.approx(case["best"], rel=1e-10)


@pytest.mark.parametrize("case", cases("composition_pure"))
def test_pure_composition_equals_the_binomial(case):
    p = case["params"]
    eps0, steps, delta = p["eps0"], p["T"], p["delta"]
    ledger = Ledger(((EpsilonDelta(eps0), steps),))
    wins = np.arange(steps + 1)
    loss = (2 * wins - steps) * eps0
    chance = binom.pmf(wins, steps, 1 / (1 + math.exp(-eps0)))
    bounds = PLD().bounds(ledger, delta)

    def exact(eps):
        return float(np.sum(chance * -np.expm1(np.minimum(eps - loss, 0.0))))

    assert exact(bounds.lower) >= delta * (1 - 1e-6)
    assert exact(bounds.upper) <= delta
    assert bounds.upper - bounds.lower < 1e-6
    google = next(ref["value"] for ref in case["refs"] if "PLD" in ref["settings"])
    assert bounds.upper <= google + 1e-6
    drv = next(ref["value"] for ref in case["refs"] if "DRV10" in ref["settings"])
    assert Advanced().epsilon(ledger, delta) == pytest.approx(drv)
    assert Basic().epsilon(ledger, delta) == pytest.approx(eps0 * steps)


@pytest.mark.parametrize("case", cases("tradeoff"))
def test_tradeoff_and_advantage(case):
    p = case["params"]
    alpha = np.array(p["alpha"])
    if "mu" in p:
        ledger = Ledger(((Gaussian(1 / p["mu"]), 1),))
        assert PLD().tradeoff(ledger, alpha) == pytest.approx(norm.cdf(norm.isf(alpha) - p["mu"]))
        assert PLD().advantage(ledger) == pytest.approx(case["best"], rel=1e-9)
        return
    ledger = poisson(256 / 60_000, 1.1, 14_040)
    low = next(ref["value"] for ref in case["refs"] if ref["kind"] == "lower beta")
    curve = PLD().tradeoff(ledger, alpha)
    # riskcal lies 4e-4 above the tails of both grids of the sandwich at .01; those decide.
    assert curve == pytest.approx(low, rel=1e-3)
    for beta, (lower, upper) in zip(curve, _least_errors(ledger, alpha), strict=True):
        assert lower - 1e-12 <= beta <= upper + 1e-12
    advantage = next(ref["value"] for ref in case["refs"] if "advantage" in ref["settings"])
    assert PLD().advantage(ledger) == pytest.approx(advantage, rel=1e-3)
    every = PLD().tradeoff(ledger, np.linspace(0, 1, 101))
    assert every[0] == pytest.approx(1.0, abs=1e-3) and every[-1] == 0.0
    assert np.all(np.diff(every) <= 1e-12)


def _least_errors(ledger, alpha):
    """False negative rates from the tails of the two grids, worse of both hypotheses first."""
    from dpkit.accountants import sandwich

    layout = sandwich.laid_out(ledger.mechanisms, ledger.counts, 1e-5, tilt=0.0)
    sides = []
    for upper in (True, False):
        grid = sandwich.composed(ledger.mechanisms, ledger.counts, layout, upper)
        p = grid.tilted * math.exp(grid.log_scale)
        p_tail = np.cumsum(p[::-1])[::-1]
        q_tail = np.cumsum((p * np.exp(-grid.losses))[::-1])[::-1]
        one = np.interp(alpha, q_tail[::-1], 1 - p_tail[::-1])
        sides.append(np.minimum(one, np.interp(alpha, 1 - p_tail, q_tail)))
    return np.array(sides).T


@pytest.mark.parametrize("case", cases("calibration"))
def test_calibration_of_the_noise(case):
    p = case["params"]
    sigma = noise_for_epsilon(
        p["target_epsilon"], delta=p["delta"], sample_rate=p["q"], steps=p["T"]
    )
    tight = next(ref["value"] for ref in case["refs"] if ref["kind"] == "estimate")
    assert tight * (1 - 1e-5) <= sigma <= tight * 1.005


def test_fixed_size_replace_one_is_above_its_lower_bounds():
    relation = Neighbours.REPLACE_ONE
    for q, sigma, steps, low in (
        (256 / 60_000, 1.1, 14_040, 14.706),
        (0.01, 4.0, 10_000, 2.163),
        (4096 / 50_000, 3.0, 875, 9.138),
    ):
        fixed = Ledger(((FixedSizeGaussian(q, sigma), steps),), relation)
        # (1-q) N(0) + q N(2) against N(0) is one attack: Poisson add/remove at half the noise.
        attack = PLD().epsilon(poisson(q, sigma / 2, steps), 1e-5)
        assert attack == pytest.approx(low, rel=1e-3)
        for accountant in (PLD(), RDP()):
            assert accountant.epsilon(fixed, 1e-5) >= attack


def test_a_newcomers_mechanism_needs_its_profile_alone():
    class Bare(Mechanism):
        """A Laplace mechanism of which only the profile is told."""

        def profile(self, epsilon):
            return Laplace(2.0).profile(epsilon)

        def __repr__(self):
            return "Bare()"

    ledger, known = Ledger(((Bare(), 30),)), Ledger(((Laplace(2.0), 30),))
    bounds, exact = PLD().bounds(ledger, 1e-5), PLD().bounds(known, 1e-5)
    assert bounds.lower <= exact.upper and exact.lower <= bounds.upper
    assert bounds.upper == pytest.approx(exact.upper, rel=1e-3)
    assert RDP().epsilon(ledger, 1e-5) == pytest.approx(RDP().epsilon(known, 1e-5), rel=1e-3)
    assert RDP().epsilon(ledger, 1e-5) >= RDP().epsilon(known, 1e-5) * (1 - 1e-9)


def test_a_stated_delta_is_never_lost():
    ledger = Ledger(((EpsilonDelta(0.1, 1e-6), 20),))
    assert PLD().epsilon(ledger, 1e-5) == math.inf
    assert PLD().bounds(ledger, 1e-5).lower == math.inf
    assert PLD().delta(ledger, 50.0) == pytest.approx(-math.expm1(20 * math.log1p(-1e-6)))
    assert PLD().epsilon(ledger, 1e-4) < 2.1


@pytest.mark.parametrize("accountant", [a for a in ACCOUNTANTS if a.is_bound], ids=repr)
@pytest.mark.parametrize(
    "pair", [SubsampledGaussian(0.01, 0.8), Subsampled(Laplace(1.0), 0.02)], ids=repr
)
def test_both_directions_count(accountant, pair):
    """Which of the two data sets is called the first makes no difference."""
    ahead, back = Ledger(((pair, 60),)), Ledger(((pair.reverse, 60),))
    value = accountant.epsilon(ahead, 1e-5)
    assert accountant.epsilon(back, 1e-5) == pytest.approx(value, rel=1e-6)
    assert accountant.delta(back, value) == pytest.approx(accountant.delta(ahead, value), rel=1e-6)
    assert accountant.bounds(back, 1e-5).upper == pytest.approx(
        accountant.bounds(ahead, 1e-5).upper, rel=1e-3
    )
    half = accountant.epsilon(Ledger(((pair, 30), (pair.reverse, 30))), 1e-5)
    assert 0 < half <= value * (1 + 1e-6), "the maximum comes after composing"


def test_mixed_ledgers_of_every_kind():
    ledger = Ledger.of(
        [
            (SubsampledGaussian(0.01, 1.0), 500),
            (Gaussian(20.0), 2),
            (Laplace(15.0), 3),
            (EpsilonDelta(0.05, 1e-8), 2),
            (Subsampled(Laplace(2.0), 0.02), 10),
        ]
    )
    bounds = PLD().bounds(ledger, 1e-5)
    assert (
        0
        < bounds.lower
        <= bounds.estimate
        <= bounds.upper
        < RDP().epsilon(Ledger(ledger.entries[:3]), 1e-5) + 1.0
    )
    assert bounds.upper - bounds.lower < 0.02 * bounds.upper
    assert Basic().epsilon(ledger, 1e-5) > bounds.upper


def test_google_interop_is_refused_or_needs_its_package():
    replaced = poisson(0.1, 1.0, 3, Neighbours.REPLACE_ONE)
    from dpkit.accountants import to_dp_event

    try:
        import dp_accounting  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="pip install dp-accounting"):
            to_dp_event(replaced)
    else:
        with pytest.raises(Refused, match="another pair"):
            to_dp_event(replaced)
        with pytest.raises(Refused, match="no event for EpsilonDelta"):
            to_dp_event(Ledger(((EpsilonDelta(1.0, 1e-6), 2),)))
        assert to_dp_event(poisson(0.1, 1.0, 3)).count == 3


@pytest.mark.parametrize(
    "entries",
    [
        ((Gaussian(20.0), 100),),
        ((SubsampledGaussian(0.01, 0.8), 100),),
        ((Laplace(10.0), 30),),
        ((Subsampled(Laplace(2.0), 0.05), 40),),
        ((RandomisedResponse(0.3, 4), 12),),
        ((SubsampledGaussian(0.01, 1.0), 500), (Gaussian(20.0), 2), (Laplace(15.0), 3)),
        ((SubsampledGaussian(0.01, 1.0), 500), (SubsampledGaussian(0.02, 2.0), 1000)),
    ],
    ids=lambda entries: "+".join(type(mechanism).__name__ for mechanism, _ in entries),
)
def test_googles_accountant_on_the_event_agrees(entries):
    """Where dp_accounting is installed; its grid of 1e-4 errs upward, a cell a release at most."""
    dp_accounting = pytest.importorskip("dp_accounting")
    from dp_accounting import pld

    from dpkit.accountants import to_dp_event

    response = isinstance(entries[0][0], RandomisedResponse)
    theirs = dp_accounting.NeighboringRelation
    relation = theirs.REPLACE_ONE if response else theirs.ADD_OR_REMOVE_ONE
    ledger = Ledger(entries, Neighbours.REPLACE_ONE if response else Neighbours.ADD_REMOVE)
    google = pld.PLDAccountant(neighboring_relation=relation)
    found = google.compose(to_dp_event(ledger)).get_epsilon(1e-5)
    bounds = PLD().bounds(ledger, 1e-5)
    assert bounds.lower - 1e-6 <= found <= bounds.upper + 1.2e-3


def test_googles_event_of_an_upper_side_is_that_of_what_it_bounds():
    """Where dp_accounting is installed; it has no word for a side, and charges the whole."""
    pytest.importorskip("dp_accounting")
    from dp_accounting import pld

    from dpkit.accountants import to_dp_event

    pair, inner = SubsampledGaussian(0.01, 0.8), Gaussian(20.0)
    plain = Ledger(((pair, 100), (inner, 3)))
    upper = Ledger(((UpperSide(pair, "why"), 100), (UpperSide(inner, "why"), 3)))
    assert to_dp_event(upper) == to_dp_event(plain)
    found = pld.PLDAccountant().compose(to_dp_event(upper)).get_epsilon(1e-5)
    truth, bounds = PLD().bounds(plain, 1e-5), PLD().bounds(upper, 1e-5)
    assert truth.lower - 1e-6 <= found <= truth.upper + 1.2e-3
    assert bounds.lower == 0.0 and bounds.upper == pytest.approx(truth.upper, rel=1e-9)
    turned = Ledger(((UpperSide(pair, "why").reverse, 2),))
    with pytest.raises(Refused, match="no event for Reversed"):
        to_dp_event(turned)
    with pytest.raises(Refused, match="another pair"):
        to_dp_event(Ledger(upper.entries, Neighbours.REPLACE_ONE))


def test_a_release_of_count_nothing_changes_no_bit():
    """It may ask for the second direction, which then differs from the first by rounding."""
    absent, pair = SubsampledGaussian(0.37, 1.0), ReplacedGaussian(0.6065306597126334, 1.0)
    steep = ReplacedGaussian(0.0035360729279469397, 0.9340009794948182)
    other = ReplacedGaussian(0.024828524655642104, 4.268301754762353)
    for pairs, counts, delta in (
        ((pair,), (2,), 0.22313016014842982),
        ((steep, other), (631, 4637), 8.40322769526866e-12),
        ((steep, other), (541, 3974), 8.40322769526866e-12),
    ):
        alone = PLD().epsilon(Ledger(tuple(zip(pairs, counts, strict=True))), delta)
        beside = PLD().curve((absent, *pairs), np.array([[0, *counts]]), delta)
        assert beside[0] == alone


def test_heterogeneous_noise_of_many_values():
    sigmas = np.linspace(0.8, 2.0, 150)
    ledger = Ledger.of([(SubsampledGaussian(0.005, float(s)), 10) for s in sigmas])
    value = PLD().epsilon(ledger, 1e-5)
    few = Ledger.of([(SubsampledGaussian(0.005, 0.8), 1500)])
    many = Ledger.of([(SubsampledGaussian(0.005, 2.0), 1500)])
    assert PLD().epsilon(many, 1e-5) < value < PLD().epsilon(few, 1e-5)
    assert value < RDP().epsilon(ledger, 1e-5)


def test_the_loss_distribution_has_both_sides():
    ledger = poisson(0.01, 1.0, 1000)
    shown = PLD().loss_distribution(ledger, bins=60)
    assert len(shown.edges) == 61 and len(shown.upper) == len(shown.lower) == 60
    assert shown.upper.sum() == pytest.approx(1.0, abs=1e-5)
    assert shown.lower.sum() == pytest.approx(1.0, abs=1e-5)
    middle = 0.5 * (shown.edges[1:] + shown.edges[:-1])
    # KL = RDP as the order falls to 1; the upper side leans right, the lower left.
    assert np.sum(middle * shown.lower) <= np.sum(middle * shown.upper) + 1e-6
    kl = 1000 * float(SubsampledGaussian(0.01, 1.0).rdp(1 + 1e-6))
    assert np.sum(middle * shown.upper) == pytest.approx(kl, rel=0.05, abs=2e-3)


@pytest.mark.parametrize("accountant", ACCOUNTANTS, ids=lambda a: type(a).__name__)
def test_contract(accountant):
    nothing, bare = Ledger(), Ledger(((Gaussian(0.0), 1),))
    ledger = poisson(0.02, 2.0, 300)
    assert accountant.epsilon(nothing, 1e-5) == 0.0 and accountant.delta(nothing, 1.0) == 0.0
    assert accountant.epsilon(bare, 1e-5) == math.inf and accountant.delta(bare, 1.0) == 1.0
    value = accountant.epsilon(ledger, 1e-5)
    assert 0 < value < math.inf
    assert accountant.delta(ledger, value) <= 1e-5 * (1 + 1e-6)
    assert accountant.delta(ledger, math.inf) == 0.0
    counts = np.array([[0], [1], [100], [300]])
    curve = accountant.curve(ledger.mechanisms, counts, 1e-5)
    assert curve[0] == 0.0 and curve[-1] == value and np.all(np.diff(curve) >= 0)
    bounds = accountant.bounds(ledger, 1e-5)
    assert bounds.lower <= bounds.estimate == value <= bounds.upper
    for delta in (0.0, 1.0, -1.0, math.nan, math.inf, "small", None):
        with pytest.raises(ValueError, match="delta"):
            accountant.epsilon(ledger, delta)
    for epsilon in (-1.0, math.nan, "small"):
        with pytest.raises(ValueError, match="epsilon"):
            accountant.delta(ledger, epsilon)
    for wrong in (np.array([[-1]]), np.array([[1.5]]), np.zeros((2, 2))):
        with pytest.raises(ValueError, match="counts"):
            accountant.curve(ledger.mechanisms, wrong, 1e-5)
    with pytest.raises(AttributeError):
        accountant.name = "other"


def test_gdp_and_zcdp_refuse_in_words():
    response = Ledger(((RandomisedResponse(1.0, 4), 2),), Neighbours.REPLACE_ONE)
    with pytest.raises(Refused, match="use PLD"):
        GDP().epsilon(response, 1e-5)
    with pytest.raises(Refused, match="PLD"):
        ZCDP().rho(poisson(0.1, 1.0, 1))


def test_accountants_import_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import dpkit.accountants, dpkit.mechanisms\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torchvision', 'plotly', 'ipywidgets', 'anywidget'}, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
