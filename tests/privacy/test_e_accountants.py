"""E. Accountants: exact values, independent values of others, and laws that hold everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, special

import dpkit as dp
from dpkit.mechanisms import PoissonSampling
from tests.privacy import cases

ADD, REPLACE = dp.Neighbours.ADD_REMOVE, dp.Neighbours.REPLACE_ONE
BOUNDS = [a for a in cases.ACCOUNTANTS if a.is_bound]
EXAMPLES = 400 if cases.LONG else 5


def poisson(q, sigma, steps, relation=ADD):
    return dp.Ledger.of([(dp.Gaussian(sigma).pair(relation, PoissonSampling(q)), steps)], relation)


def gaussian_delta(mu, epsilon):
    """Balle and Wang 2018, theorem 8, written down again."""
    return special.ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon) * special.ndtr(
        -mu / 2 - epsilon / mu
    )


def exact_epsilon(mu, delta):
    return optimize.brentq(lambda e: gaussian_delta(mu, e) - delta, 0, 5 + mu * mu + 12 * mu)


@pytest.mark.parametrize("sigma, steps", [(0.7, 1), (1.0, 1), (4.0, 25), (20.0, 100), (50.0, 7)])
def test_without_sampling_it_is_the_exact_gaussian(sigma, steps):
    exact = exact_epsilon(math.sqrt(steps) / sigma, 1e-5)
    for ledger in (dp.Ledger.of([(dp.Gaussian(sigma), steps)]), poisson(1.0, sigma, steps)):
        assert dp.PLD().epsilon(ledger, 1e-5) == pytest.approx(exact, rel=1e-6)
        assert dp.GDP().epsilon(ledger, 1e-5) == pytest.approx(exact, rel=1e-6)
        for accountant in BOUNDS:
            assert accountant.epsilon(ledger, 1e-5) >= exact * (1 - 1e-9), accountant.name
    twice = dp.Ledger.of([(dp.Gaussian(sigma).pair(REPLACE), steps)], REPLACE)
    exact = exact_epsilon(2 * math.sqrt(steps) / sigma, 1e-5)
    assert dp.PLD().epsilon(twice, 1e-5) == pytest.approx(exact, rel=1e-6)


def moment_by_quadrature(q, sigma, order):
    """log E_Q[(P/Q)^order] by adaptive quadrature, scaled by its own peak."""

    def log_integrand(x):
        exponent = (2 * x - 1) / (2 * sigma**2)
        ratio = np.logaddexp(math.log1p(-q) if q < 1 else -math.inf, math.log(q) + exponent)
        return order * ratio - x * x / (2 * sigma**2) - 0.5 * math.log(2 * math.pi * sigma**2)

    grid = np.linspace(-12 * sigma, 12 * sigma + order, 4001)
    values = np.array([log_integrand(x) for x in grid])
    top, at = values.max(), grid[values.argmax()]
    area, _ = integrate.quad(
        lambda x: math.exp(log_integrand(x) - top), grid[0], grid[-1],
        points=sorted({0.0, float(at)}), limit=500, epsabs=0, epsrel=1e-12,
    )  # fmt: skip
    return top + math.log(area)


ORDERS = [1.01, 1.25, 1.5, 2.0, 2.5, 4.5, 8.0, 17.0, 32.0, 59.05]


@pytest.mark.parametrize("q, sigma", [(0.01, 0.8), (0.004, 1.1), (0.1, 2.0), (0.4, 12.0),
                                      (0.9, 1.0), (1.0, 2.0)])  # fmt: skip
def test_rdp_of_each_order_against_quadrature(q, sigma):
    """Order by order: a test of epsilon alone hides slips inside RDP's slack."""
    mechanism = dp.Gaussian(sigma).pair(ADD, PoissonSampling(q))
    for order in ORDERS:
        found = float(mechanism.rdp(order))
        expected = moment_by_quadrature(q, sigma, order) / (order - 1)
        # The quadrature itself keeps 12 digits of 1 + moment.
        assert found == pytest.approx(expected, rel=1e-7, abs=3e-12 / (order - 1))
        assert found > 0, "Opacus 1.6.0 gives -0.41 at q = .4, sigma = 12, order 59.05"


@pytest.mark.parametrize("q, sigma", [(0.01, 4.0), (0.02, 0.9), (0.3, 1.5)])
def test_rdp_of_whole_orders_against_the_binomial_sum(q, sigma):
    for order in (2, 3, 7, 30, 64):
        k = np.arange(order + 1)
        terms = (
            special.gammaln(order + 1) - special.gammaln(k + 1) - special.gammaln(order - k + 1)
            + (order - k) * math.log1p(-q) + k * math.log(q) + (k * k - k) / (2 * sigma**2)
        )  # fmt: skip
        expected = special.logsumexp(terms) / (order - 1)
        mechanism = dp.Gaussian(sigma).pair(ADD, PoissonSampling(q))
        assert float(mechanism.rdp(order)) == pytest.approx(expected, rel=1e-8, abs=1e-13)


GOLDEN = [
    # q, sigma, steps, delta, exact (mpmath, contour in 34 digits)
    (0.004266666666666667, 1.1, 14040, 1e-5, 2.379554518826177),
    (0.01, 4.0, 10000, 1e-5, 0.9468668007643805),
    (0.08192, 3.0, 875, 1e-5, 3.601609710711065),
    (0.01, 1.0, 1000, 1e-5, 1.8282366665165768),
    (0.01, 1.0, 1000, 1e-8, 2.697867934493843),
    (0.5, 5.0, 50, 1e-5, 3.041255407490255),
    (0.05, 1.0, 10, 1e-5, 1.6560042093579381),
    (0.2, 1.0, 50, 1e-5, 10.127951311928307),
    (0.1, 0.6, 300, 1e-5, 36.85515812946388),
]


@pytest.mark.parametrize("q, sigma, steps, delta, exact", GOLDEN)
def test_poisson_against_stored_exact_values(q, sigma, steps, delta, exact):
    ledger = poisson(q, sigma, steps)
    assert dp.PLD().epsilon(ledger, delta) == pytest.approx(exact, rel=1e-5)
    for accountant in BOUNDS:
        assert accountant.epsilon(ledger, delta) >= exact * (1 - 1e-6), accountant.name
    bounds = dp.PLD().bounds(ledger, delta)
    assert bounds.lower <= exact * (1 + 1e-9) and exact * (1 - 1e-9) <= bounds.upper
    assert bounds.upper - bounds.lower < 0.01 * exact
    assert dp.PLD().delta(ledger, exact) == pytest.approx(delta, rel=1e-3)


@pytest.mark.parametrize("phases, counts, expected", [
    # dp-accounting 0.6.0 (PLD, discretised at 1e-4): upper bounds, 2e-4 wide at most
    ([(0.01, 1.0), (0.02, 2.0), (0.005, 0.7)], (500, 1000, 300), 2.4017948445361488),
    ([(0.004266666666666667, 1.3), (0.004266666666666667, 0.9)], (4680, 2340), 1.7300938040889622),
    ([(0.01, 1.0), (1.0, 10.0)], (1000, 5), 2.0325732229132996),
])  # fmt: skip
def test_phases_of_a_run_add_up(phases, counts, expected):
    entries = [(dp.Gaussian(s).pair(ADD, PoissonSampling(q)), n)
               for (q, s), n in zip(phases, counts, strict=True)]  # fmt: skip
    ledger = dp.Ledger.of(entries)
    assert dp.PLD().epsilon(ledger, 1e-5) == pytest.approx(expected, rel=1e-4)
    assert dp.RDP().epsilon(ledger, 1e-5) > expected


@pytest.mark.parametrize("q, sigma, steps, expected", [
    # dp-accounting 0.6.0, REPLACE_ONE under Poisson sampling
    (0.004266666666666667, 1.1, 14040, 4.217546807073157),
    (0.01, 4.0, 10000, 1.9931943769116605),
    (0.08192, 3.0, 875, 7.678728959601182),
])  # fmt: skip
def test_replacing_one_record_costs_more(q, sigma, steps, expected):
    ledger = poisson(q, sigma, steps, REPLACE)
    assert dp.PLD().epsilon(ledger, 1e-5) == pytest.approx(expected, rel=2e-4)
    assert dp.RDP().epsilon(ledger, 1e-5) > expected * (1 - 2e-4)


@pytest.mark.parametrize("sigma, steps", [(0.05, 1), (0.5, 3), (3.0, 40), (60.0, 1), (1000.0, 2)])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.3])
def test_rdp_is_the_best_over_all_orders(sigma, steps, delta):
    """The tight conversion at the best real order: no optimum is cut off by the list's ends."""
    rho = steps / (2 * sigma**2)

    def epsilon(log_order):
        a = 1 + math.exp(log_order)
        return a * rho + math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1)

    grid = np.linspace(-12, 16, 400)
    start = grid[np.argmin([epsilon(x) for x in grid])]
    best = max(optimize.minimize_scalar(epsilon, bracket=(start - 0.1, start + 0.1)).fun, 0.0)
    found = dp.RDP().epsilon(dp.Ledger.of([(dp.Gaussian(sigma), steps)]), delta)
    assert best - 1e-12 <= found <= best * 1.01 + 2e-4


@pytest.mark.parametrize("q, sigma, steps, expected", [(0.01, 4.0, 10_000, 1.2586)])
def test_the_moments_of_2016_are_what_they_were(q, sigma, steps, expected):
    """Abadi et al. 2016, section 5: 1.26 (to 32 orders, classic conversion)."""
    assert dp.Moments().epsilon(poisson(q, sigma, steps), 1e-5) == pytest.approx(expected, rel=1e-3)


def test_an_estimate_never_gates_a_budget():
    """The limit theorem says 2.51 where 3.14 is true: it must be told as what it is."""
    ledger = poisson(0.2, 1.0, 50)
    assert dp.GDP().epsilon(ledger, 1e-5) < 0.98 * dp.PLD().epsilon(ledger, 1e-5)
    assert dp.GDP().bounds(ledger, 1e-5).upper == math.inf and not dp.GDP().is_bound
    plan = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.2, 50), 1e-5, accountant=dp.GDP())
    assert plan.guarantee().startswith("An estimate, not a bound")
    with pytest.raises(dp.Refused, match="never sets a budget"):
        plan.calibrated(2.0)
    assert dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.2, 50), 1e-5).accountant.is_bound


@pytest.mark.parametrize("accountant", BOUNDS, ids=cases.named)
@pytest.mark.parametrize("target", [0.3, 3.0])
def test_calibration_never_overshoots(accountant, target):
    plan = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.05, 200), 1e-5, accountant=accountant)
    try:
        found = plan.calibrated(target).epsilon()
    except ValueError:
        assert isinstance(accountant, dp.Moments) and target < math.log(1e5) / 32
        return
    assert target * 0.995 <= found <= target
    noise = dp.accountants.noise_for_epsilon(
        target, delta=1e-5, sample_rate=0.05, steps=200, accountant=accountant
    )
    assert target * 0.995 <= accountant.epsilon(poisson(0.05, noise, 200), 1e-5) <= target


def test_a_printed_epsilon_is_never_below_the_computed_one():
    for epsilon in np.geomspace(1e-4, 1e4, 500):
        assert float(dp.plan.round_up(float(epsilon))) >= epsilon


@pytest.mark.parametrize("accountant", cases.ACCOUNTANTS, ids=cases.named)
def test_order_and_grouping_change_nothing(accountant):
    """Commutative, associative, n x 1 = 1 x n; asking changes nothing; stored forms agree."""
    a, b = (dp.Gaussian(s).pair(ADD, PoissonSampling(q)) for q, s in [(0.1, 2.0), (0.2, 3.0)])
    c = dp.Gaussian(9.0)
    one = dp.Ledger.of([(a, 4), (b, 2), (c, 1)])
    value = accountant.epsilon(one, 1e-5)
    for entries in ([(c, 1), (b, 2), (a, 4)], [(a, 1)] * 2 + [(b, 2), (c, 1)] + [(a, 1)] * 2):
        assert accountant.epsilon(dp.Ledger.of(entries), 1e-5) == value
    parts = dp.Ledger.of([(a, 4)]) + (dp.Ledger.of([(b, 2)]) + dp.Ledger.of([(c, 1)]))
    assert accountant.epsilon(parts, 1e-5) == value
    assert accountant.epsilon(dp.Ledger.from_json(one.to_json()), 1e-5) == value
    assert accountant.epsilon(one, 1e-5) == value, "a query that eats the history"
    counts = np.array([[1, 0, 0], [4, 0, 1], [4, 2, 1]])
    curve = accountant.curve((a, b, c), counts, 1e-5)
    assert curve[-1] == pytest.approx(value, rel=1e-9) and np.all(np.diff(curve) > 0)


def test_a_total_is_a_sum_and_not_a_maximum():
    """Two kinds of release cost more than the dearer one."""
    a, b = dp.Gaussian(2.0), dp.Gaussian(2.1)
    for accountant in cases.ACCOUNTANTS:
        both = accountant.epsilon(dp.Ledger.of([(a, 3), (b, 3)]), 1e-5)
        alone = max(accountant.epsilon(dp.Ledger.of([(m, 3)]), 1e-5) for m in (a, b))
        assert both > 1.15 * alone, accountant.name


# The rule of 2019 is true only in places, and follows no law where its orders end.
LAWFUL = [a for a in cases.ACCOUNTANTS if not isinstance(a, dp.accountants.YuRandomSampling)]


@pytest.mark.parametrize("accountant", LAWFUL, ids=cases.named)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
@given(
    q=st.floats(0.001, 1.0), sigma=st.floats(0.3, 30.0), steps=st.integers(1, 500),
    log_delta=st.floats(-11.0, -1.0), more=st.floats(1.05, 2.0),
)  # fmt: skip
def test_laws_that_hold_everywhere(accountant, q, sigma, steps, log_delta, more):
    """Epsilon falls in sigma and delta, rises in q and T, and is never negative or NaN."""
    delta = 10.0**log_delta
    value = accountant.epsilon(poisson(q, sigma, steps), delta)
    assert value >= 0 and not math.isnan(value)
    slack = 1e-6 + 3e-4 * value if math.isfinite(value) else 0.0
    assert accountant.epsilon(poisson(q, sigma * more, steps), delta) <= value + slack
    assert accountant.epsilon(poisson(q, sigma, steps), min(delta * more, 0.5)) <= value + slack
    assert accountant.epsilon(poisson(q, sigma, math.ceil(steps * more)), delta) >= value - slack
    if accountant.is_bound:  # the limit theorem's estimate jumps at q = 1
        seen = poisson(min(q * more, 1.0), sigma, steps)
        assert accountant.epsilon(seen, delta) >= value - slack
    bounds = accountant.bounds(poisson(q, sigma, steps), delta)
    assert bounds.lower <= bounds.estimate <= bounds.upper


@pytest.mark.parametrize("accountant", cases.ACCOUNTANTS, ids=cases.named)
def test_the_ends(accountant):
    assert accountant.epsilon(dp.Ledger.of([]), 1e-5) == 0.0
    assert accountant.epsilon(poisson(0.1, 0.0, 3), 1e-5) == math.inf
    for bad in ((0.0, 1.0), (1.5, 1.0), (math.nan, 1.0), (0.1, -1.0), (0.1, math.nan)):
        with pytest.raises(ValueError):
            accountant.epsilon(poisson(*bad, 3), 1e-5)
    for delta in (0.0, 1.0, -1e-5, math.nan):
        with pytest.raises(ValueError, match="delta"):
            accountant.epsilon(poisson(0.1, 1.0, 3), delta)
