"""C. The audit with orthogonal canaries: it reaches near the claim, and never beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

import dpkit as dp
from dpkit.auditing import audit
from dpkit.auditing.bounds import Errors, gaussian_epsilon, gaussian_mu
from tests.privacy import cases

FULL = dp.Poisson(1.0, 10)


def foretold(plan, side, worse):
    """The bound that the claimed law foretells, from wrong guesses of `worse` deviations too many.

    Known before any audit: with the claim true, a guess at C/2 is wrong with chance Phi(-mu/2).
    """
    sigmas = [plan.method.releases(t)[0].mechanism.noise_multiplier for t in range(plan.steps)]
    each = not callable(plan.method.noise_multiplier)
    mu, trials = (1 / sigmas[0], plan.steps) if each else (np.sqrt(sum(1 / np.square(sigmas))), 1)
    rate = ndtr(-mu / 2)
    wrong = round(rate * side + worse * np.sqrt(rate * (1 - rate) * side))
    found = gaussian_mu(Errors(wrong, side, wrong, side), 0.0005)
    return gaussian_epsilon(found * np.sqrt(trials), plan.delta)


@pytest.mark.parametrize("method", cases.AUDITED, ids=cases.named)
def test_the_audit_finds_most_of_the_claim_and_never_more(method):
    """Every method, at q = 1: 10,000 guesses a side."""
    plan = dp.Plan(method, FULL, 1e-5)
    found = audit(plan, canaries=1000, observations=20_000, seed=0)
    assert not found.broken, str(found)
    assert found.lower > foretold(plan, 10_000, worse=3.5), str(found)
    assert foretold(plan, 10_000, worse=0) > 0.85 * found.claimed


def test_at_mu_1_it_reaches_93_percent_with_50_000_observations_a_side():
    plan = dp.Plan(dp.DPSGD(1.0, 0.7), dp.Poisson(1.0, 1), 1e-5)
    found = audit(plan, observations=100_000, canaries=2000, seed=0)
    assert 0.93 * found.claimed < found.lower <= found.claimed
    assert min(found.errors.absent, found.errors.present) > 49_000


@pytest.mark.parametrize("rate, sigma, steps", [(0.1, 0.7, 12), (0.3, 1.5, 8)])
def test_transcripts_of_poisson_runs(rate, sigma, steps):
    """At delta 1e-2 the likelihood ratio reaches .71 of the tight epsilon, with 1e5 tries a side.

    The bar is the least that a prototype reached over its plans (.71 to .85). The law of these
    two plans, with its best threshold, foretells .81 and .82 at 5e4 tries, .90 and .91 at 2.5e5.
    """
    plan = dp.Plan(dp.DPSGD(sigma), dp.Poisson(rate, steps), 1e-5)
    found = audit(plan, canaries=2000, observations=200_000, seed=0)
    assert found.delta == 0.01 and not found.broken, str(found)
    assert found.lower > 0.71 * found.claimed, str(found)


def test_no_false_alarm_at_9995_a_side():
    """The exact law of the guesses, 20,000 of them a time: not one bound above the truth.

    Both rates must be unlucky together, so a bound fails far more rarely than its confidence says.
    """
    rng = np.random.default_rng(0)
    runs, size = (20_000 if cases.LONG else 2_000), 10_000
    for mu in (0.5, 1.0, 2.0):
        wrong = rng.binomial(size, ndtr(-mu / 2), (runs, 2))
        found = np.array([gaussian_mu(Errors(int(a), size, int(b), size), 0.0005)
                          for a, b in wrong])  # fmt: skip
        assert not np.any(found > mu)
        assert np.median(found) > {0.5: 0.82, 1.0: 0.91, 2.0: 0.94}[mu] * mu


def test_views_of_canaries_are_refused():
    plan = dp.Plan(dp.DPSGD(1.2, augmentation=cases.Rolled()), FULL, 1e-5)
    with pytest.raises(dp.mechanisms.Refused, match="without optimiser, averaging, aug"):
        audit(plan)
    with pytest.raises(dp.mechanisms.Refused, match="at the same price"):
        audit(dp.Plan(dp.DPSGD(1.2, averaging=0.9), FULL, 1e-5))


def test_honest_plans_raise_no_false_alarm():
    """Audits as a learner makes them, of plans that keep their claim: 2,000 in the long form."""
    audits = 2_000 if cases.LONG else 24
    plans = [
        *(dp.Plan(method, FULL, 1e-5) for method in cases.AUDITED),
        dp.Plan(dp.DPSGD(0.8), dp.Poisson(0.5, 3), 1e-5),
        dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.2, 4), 1e-5),
    ]
    for seed in range(audits):
        plan = plans[seed % len(plans)]
        found = audit(plan, canaries=1_000, observations=4_000, seed=seed)
        assert 0 <= found.lower <= found.claimed, (seed, str(found))
