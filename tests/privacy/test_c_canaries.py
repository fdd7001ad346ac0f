"""C. The audit with orthogonal canaries: it reaches near the claim, and never beyond it."""

from __future__ import annotations

import numpy as np
import pytest

import dpkit as dp
from dpkit.auditing import audit
from dpkit.auditing.bounds import Errors, gaussian_epsilon, gaussian_mu
from tests.privacy import cases

FULL = dp.Poisson(1.0, 10)


@pytest.mark.parametrize("method", cases.READABLE, ids=cases.named)
def test_the_audit_finds_most_of_the_claim_and_never_more(method):
    """Every method, at q = 1: 10,000 guesses a side."""
    found = audit(dp.Plan(method, FULL, 1e-5), canaries=1000, observations=20_000, seed=0)
    assert not found.broken, str(found)
    varied = callable(method.noise_multiplier)
    assert found.lower > (0.4 if varied else 0.75) * found.claimed, str(found)


def test_at_mu_1_it_reaches_93_percent_with_50_000_observations_a_side():
    plan = dp.Plan(dp.DPSGD(1.0, 0.7), dp.Poisson(1.0, 1), 1e-5)
    found = audit(plan, observations=100_000, canaries=2000, seed=0)
    assert 0.93 * found.claimed < found.lower <= found.claimed
    assert min(found.errors.absent, found.errors.present) > 49_000


@pytest.mark.parametrize("rate, sigma, steps", [(0.1, 0.7, 12), (0.3, 1.5, 8)])
def test_transcripts_of_poisson_runs(rate, sigma, steps):
    """At delta 1e-2 the likelihood ratio reaches about half to .7 of the tight epsilon."""
    plan = dp.Plan(dp.DPSGD(sigma), dp.Poisson(rate, steps), 1e-5)
    found = audit(plan, canaries=500, observations=20_000, seed=0)
    assert found.delta == 0.01 and not found.broken, str(found)
    assert found.lower > 0.45 * found.claimed, str(found)


def test_no_false_alarm_at_9995_a_side():
    """The exact law of the guesses, 20,000 of them a time: 1 in 2,000 may exceed on a side."""
    rng = np.random.default_rng(0)
    runs, size = (20_000 if cases.LONG else 2_000), 10_000
    for mu in (0.5, 1.0, 2.0):
        rate = 0.5 * (1 + _erf(-mu / 2 / np.sqrt(2)))
        wrong = rng.binomial(size, rate, (runs, 2))
        found = [gaussian_mu(Errors(int(a), size, int(b), size), 0.0005) for a, b in wrong]
        assert np.mean(np.array(found) > mu) <= 0.001
        assert np.median(found) > {0.5: 0.82, 1.0: 0.91, 2.0: 0.94}[mu] * mu
        assert gaussian_epsilon(mu, 1e-5) > 0


def _erf(x):
    from scipy.special import erf

    return erf(x)
