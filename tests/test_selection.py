"""The best of a random number of runs: its law, and a bound that the exact answer never exceeds."""

import math

import numpy as np
import pytest

import dpkit as dp
from dpkit.accountants import BestOfRandom
from dpkit.mechanisms import Ledger

ADD = dp.Neighbours.ADD_REMOVE


def generating(x, gamma, shape):
    """E[x^K], written down independently from the paper's definition of the law."""
    if shape == 0:
        return math.log1p(-(1 - gamma) * x) / math.log(gamma)
    return ((1 - (1 - gamma) * x) ** -shape - 1) / (gamma**-shape - 1)


@pytest.mark.parametrize("gamma", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("shape", [0.0, 1.0, 2.5])
def test_the_number_of_runs_has_the_law_that_is_said(gamma, shape):
    law, rng = BestOfRandom(gamma, shape), np.random.default_rng(0)
    drawn = np.array([law.draw(rng) for _ in range(20_000)])
    assert drawn.min() >= 1
    spread = drawn.std() / math.sqrt(len(drawn))
    assert abs(drawn.mean() - law.expected_runs) < 5 * spread
    for x in (0.5, 0.9):
        sample = x**drawn
        error = sample.std() / math.sqrt(len(sample))
        assert abs(sample.mean() - generating(x, gamma, shape)) < 5 * error


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("gamma", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("shape", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_the_bound_holds_where_the_answer_is_known_exactly(epsilon, gamma, shape, delta):
    """Each run tells one bit by randomised response, and the best run is one that tells 1."""
    bit = dp.RandomisedResponse(epsilon, 2).pair(dp.Neighbours.REPLACE_ONE)
    bound = BestOfRandom(gamma, shape).epsilon(
        [Ledger.of([(bit, 1)], dp.Neighbours.REPLACE_ONE)], delta
    )
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    zero = [generating(1 - p, gamma, shape) for p in (truth, 1 - truth)]
    exact = 0.0
    for p, q in (zero, zero[::-1]):
        exact = max(exact, p - math.exp(bound) * q, (1 - p) - math.exp(bound) * (1 - q))
    assert exact <= delta
    assert bound <= (2 + shape) * epsilon + 1e-4, "never above the simple rule of pure privacy"


def test_one_run_alone_costs_what_it_costs_and_many_cost_far_less_than_all():
    plan = dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.01, 1000), 1e-5, accountant=dp.RDP())
    one, ledger = plan.epsilon(), plan.ledger()
    assert BestOfRandom(1.0).epsilon([ledger], 1e-5) >= one
    many = BestOfRandom.expecting(100)
    assert many.expected_runs == pytest.approx(100)
    best = many.epsilon([ledger], 1e-5)
    everything = dp.RDP().epsilon(Ledger.of([(m, 100 * n) for m, n in ledger.entries], ADD), 1e-5)
    assert one < best < 3.5 * one < everything
    assert many.epsilon([ledger, dp.Plan(dp.DPSGD(1.0), plan.sampler, 1e-5).ledger()], 1e-5) > best


def test_bad_input_ends_in_a_sentence():
    ledger = dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.01, 10), 1e-5).ledger()
    other = dp.Plan(dp.DPSGD(2.0), dp.FixedSize(5, 100, 10), 1e-5).ledger()
    for make, says in (
        (lambda: BestOfRandom(0.0), "γ"),
        (lambda: BestOfRandom(0.1, -1.0), "η"),
        (lambda: BestOfRandom.expecting(0.5), "expected number of runs"),
        (lambda: BestOfRandom().epsilon([], 1e-5), "at least one plan"),
        (lambda: BestOfRandom().epsilon([ledger], 2.0), "delta"),
        (lambda: BestOfRandom().epsilon([ledger, other], 1e-5), "one neighbouring relation"),
    ):
        with pytest.raises(ValueError, match=says):
            make()
