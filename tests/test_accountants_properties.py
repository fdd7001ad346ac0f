"""Properties of all accountants; 10,000 examples with DPKIT_LONG=1, a short form else."""

import math
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dpkit.accountants import GDP, PLD, RDP, ZCDP, Basic, Moments, lines, steps_for_epsilon
from dpkit.accountants import contour as contours
from dpkit.mechanisms import (
    EpsilonDelta,
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    Ledger,
    RandomisedResponse,
    ReplacedGaussian,
    Subsampled,
    SubsampledGaussian,
)

LONG = os.environ.get("DPKIT_LONG") == "1"
EXAMPLES = int(os.environ.get("DPKIT_EXAMPLES", 10_000 if LONG else 40))


def examples(share=1.0):
    return settings(
        max_examples=max(int(EXAMPLES * share), 10),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def logs(low, high):
    return st.floats(math.log(low), math.log(high)).map(math.exp)


rates, noises = logs(1e-4, 1.0).map(lambda q: min(q, 1.0)), logs(0.3, 30.0)
deltas, steps = logs(1e-12, 0.3), logs(1, 1e5).map(round)
pairs = st.one_of(
    st.builds(SubsampledGaussian, rates, noises),
    st.builds(Gaussian, logs(1.0, 100.0)),
    st.builds(ReplacedGaussian, rates, noises),
)
others = st.one_of(
    pairs,
    st.builds(FixedSizeGaussian, rates, noises),
    st.builds(Laplace, logs(0.5, 50.0)),
    st.builds(Subsampled, st.builds(Laplace, logs(0.5, 5.0)), logs(0.01, 1.0)),
    st.builds(EpsilonDelta, logs(0.01, 2.0), st.sampled_from([0.0, 1e-9])),
    st.builds(RandomisedResponse, logs(0.01, 2.0), st.integers(2, 5)),
)
ledgers = st.lists(st.tuples(pairs, steps), min_size=1, max_size=3).map(Ledger.of)
moments = st.sampled_from([RDP(), ZCDP(), Moments()])


def close(a, b):
    return a == b or math.isclose(a, b, rel_tol=2e-3, abs_tol=1e-9)


@examples()
@given(st.builds(SubsampledGaussian, rates, noises), steps, deltas, st.floats(1.001, 3.0))
def test_epsilon_is_monotone(pair, count, delta, factor):
    q, sigma = pair.sample_rate, pair.noise_multiplier
    for accountant in (PLD(), RDP()):

        def epsilon(q=q, sigma=sigma, count=count, delta=delta, accountant=accountant):
            return accountant.epsilon(Ledger(((SubsampledGaussian(q, sigma), count),)), delta)

        value, slack = epsilon(), 1e-9 if accountant.name == "RDP" else 2e-3
        floor = value * (1 - slack) - 1e-9
        assert epsilon(sigma=sigma / factor) >= floor
        assert epsilon(count=math.ceil(count * factor)) >= floor
        assert epsilon(q=min(q * factor, 1.0)) >= floor
        assert epsilon(delta=delta / factor) >= floor


@examples(0.5)
@given(st.lists(st.tuples(others, st.integers(1, 50)), min_size=1, max_size=3), deltas)
def test_bounds_are_in_order_and_moments_are_above(entries, delta):
    ledger = Ledger.of(entries)
    bounds = PLD().bounds(ledger, delta)
    assert 0 <= bounds.lower <= bounds.estimate <= bounds.upper
    assert bounds.estimate == PLD().epsilon(ledger, delta)
    assert RDP().epsilon(ledger, delta) >= bounds.lower
    assert Basic().epsilon(ledger, delta) >= bounds.lower * (1 - 1e-9)


@examples()
@given(ledgers, deltas)
def test_contour_lies_within_the_sandwich(ledger, delta):
    counts = np.array([ledger.counts], dtype=np.int64)
    values = contours.epsilons(ledger.mechanisms, counts, delta)
    assume(math.isfinite(values[0]))
    bounds = PLD().bounds(ledger, delta)
    assert bounds.lower * (1 - 1e-9) - 1e-12 <= PLD().epsilon(ledger, delta)
    assert PLD().epsilon(ledger, delta) <= bounds.upper * (1 + 1e-9) + 1e-12


@examples()
@given(ledgers, deltas, moments)
def test_composition_is_commutative_and_associative(ledger, delta, accountant):
    parts = [Ledger((entry,)) for entry in ledger.entries]
    turned = sum(reversed(parts), Ledger())
    assert turned.steps == ledger.steps
    for one in (PLD(), accountant):
        assert one.epsilon(turned, delta) == one.epsilon(ledger, delta)
    twice, double = ledger + ledger, Ledger(tuple((m, 2 * n) for m, n in ledger.entries))
    assert twice == double
    assert (parts[0] + ledger) + parts[-1] == parts[0] + (ledger + parts[-1])


@examples()
@given(ledgers, deltas, st.sampled_from([PLD(), RDP(), ZCDP(), Moments(), Basic()]))
def test_asking_twice_and_saving_change_nothing(ledger, delta, accountant):
    before = accountant.epsilon(ledger, delta)
    accountant.delta(ledger, 1.0)
    accountant.epsilon(ledger, delta / 2)
    assert accountant.epsilon(ledger, delta) == before
    lines.on_axis.cache_clear()
    lines.on_line.cache_clear()
    loaded = Ledger.from_json(ledger.to_json())
    assert loaded == ledger and accountant.epsilon(loaded, delta) == before


@examples(0.5)
@given(ledgers, deltas, st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_a_curve_is_its_points_bit_for_bit(ledger, delta, shares):
    counts = np.array([[n * share // 20 for n in ledger.counts] for share in shares])
    for accountant in (PLD(), RDP()):
        curve = accountant.curve(ledger.mechanisms, counts, delta)
        for row, value in zip(counts.tolist(), curve, strict=True):
            alone = Ledger(tuple(zip(ledger.mechanisms, row, strict=True)))
            assert value == accountant.epsilon(alone, delta)


@examples()
@given(ledgers, deltas)
def test_delta_is_the_inverse_of_epsilon(ledger, delta):
    for accountant in (PLD(), RDP(), Moments()):
        value = accountant.epsilon(ledger, delta)
        assume(0 < value < math.inf)
        back = accountant.delta(ledger, value)
        assert back <= delta * (1.1 if accountant.name == "PLD" else 1 + 1e-6)


@examples(0.25)
@given(logs(1e-3, 1.0), noises, st.integers(1, 200), deltas)
def test_gdp_is_an_estimate_close_to_the_truth_only_where_it_is_exact(q, sigma, count, delta):
    plain = Ledger(((Gaussian(sigma), count),))
    assert math.isclose(GDP().epsilon(plain, delta), PLD().epsilon(plain, delta), rel_tol=1e-12)
    assert not GDP().bounds(Ledger(((SubsampledGaussian(q * 0.99, sigma), 1),)), delta).is_bound


@examples(0.1)
@given(st.floats(0.2, 8.0), logs(1e-4, 0.5), logs(0.5, 10.0), logs(1e-9, 1e-3))
def test_steps_for_epsilon_is_the_last_that_fits(target, q, sigma, delta):
    settings_ = dict(delta=delta, sample_rate=q, noise_multiplier=sigma)
    count = steps_for_epsilon(target, **settings_)
    pair = SubsampledGaussian(q, sigma)
    assume(count < 10**7)
    assert PLD().epsilon(Ledger(((pair, count),)), delta) <= target
    assert PLD().epsilon(Ledger(((pair, count + 1),)), delta) >= target * (1 - 2e-3)


@pytest.mark.parametrize("seed", range(300 if LONG else 6))
def test_the_edges_of_the_domain(seed):
    """Any q, sigma, steps and delta of the domain: a bound or infinity, never a crash or NaN."""
    random = np.random.default_rng(seed)
    for _ in range(4):
        q = float(min(10 ** random.uniform(-6, 0.1), 1.0))
        sigma = float(10 ** random.uniform(math.log10(0.05), 3))
        count = int(10 ** random.uniform(0, 7))
        delta = float(10 ** random.uniform(-15, math.log10(0.5)))
        kind = (SubsampledGaussian, SubsampledGaussian, ReplacedGaussian)[random.integers(3)]
        ledger = Ledger(((kind(q, sigma), count),))
        tight = PLD().epsilon(ledger, delta)
        assert tight >= 0.0
        # In the thousands PLD falls back on RDP, and tCDP, whose orders lie closer, may be tighter.
        least = tight if tight < 1000 else PLD().bounds(ledger, delta).lower
        for accountant in (RDP(), ZCDP(), Moments()):
            assert accountant.epsilon(ledger, delta) >= least * (1 - 1e-9)
        back = PLD().delta(ledger, tight)
        assert 0.0 <= back <= 1.0
        if seed < 40 and seed % 3 == 0:
            bounds = PLD().bounds(ledger, delta)
            assert bounds.lower <= tight <= bounds.upper


def test_the_corners_of_the_domain():
    for q in (1e-9, 0.3, 1.0):
        for sigma in (0.05, 1.0, 1000.0):
            for count in (1, 2, 10**7):
                for delta in (1e-15, 0.5):
                    ledger = Ledger(((SubsampledGaussian(q, sigma), count),))
                    value = PLD().epsilon(ledger, delta)
                    assert value >= 0.0
                    assert RDP().epsilon(ledger, delta) >= value * (1 - 1e-9)
