"""The auditor audited: no leak gives 0, no noise gives much, faults are found, attacks attack."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.auditing import FAULTS, Roc, audit, auditing, invert, membership, region
from dpkit.auditing import canaries as canary
from dpkit.auditing.bounds import Errors, any_epsilon, gaussian_mu, upper_limit
from dpkit.auditing.membership import likelihood_ratios
from dpkit.widgets.attack import SAMPLED, FindTheBug

PLAN = dp.Plan(dp.DPSGD(1.0, 4.0, 0.1), dp.Poisson(1.0, 10), 1e-5)


def mlp(data, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 10)
        )


def test_no_leakage_gives_nothing(monkeypatch):
    """A run that looks at nobody: the bound is 0, at any confidence."""
    honest = canary.watched

    def blind(plan, canaries, seeds):
        coins, sums = honest(plan, canaries, seeds)
        return np.random.default_rng(1).permutation(coins), sums

    monkeypatch.setattr(canary, "watched", blind)
    assert audit(PLAN, observations=20_000, seed=0).lower == 0.0


def test_no_noise_gives_more_than_20():
    plan = dp.Plan(dp.DPSGD(0.0), dp.Poisson(1.0, 1), 1e-5)
    found = audit(plan, observations=20_000, seed=0)
    assert found.lower > 20 and found.claimed == float("inf") and not found.broken


def test_half_the_noise_is_caught():
    fault = next(f for f in FAULTS if f.name == "half the noise")
    found = audit(fault.planted(PLAN), observations=10_000, seed=0)
    assert found.broken and "FALSE" in str(found)
    assert found.claimed == PLAN.epsilon()


def test_a_score_of_the_wrong_sign_gives_nothing(monkeypatch):
    honest = canary.watched

    def flipped(plan, canaries, seeds):
        coins, sums = honest(plan, canaries, seeds)
        return coins, (-x for x in sums)

    monkeypatch.setattr(canary, "watched", flipped)
    assert audit(PLAN, observations=10_000, seed=0).lower == 0.0
    sampled = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.3, 5), 1e-5)
    assert audit(sampled, observations=10_000, canaries=500, seed=0).lower == 0.0


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_every_fault_is_found_by_the_audit_exactly_if_it_says_so(fault):
    honest = SAMPLED if fault.batches else PLAN
    plan = fault.planted(honest)
    assert plan.epsilon() == honest.epsilon(), "a planted fault makes the same claim"
    assert audit(plan, canaries=1000, observations=10_000, seed=0).broken is fault.audited
    assert len(fault.story) > 60 and fault.found_by
    after = [_weights(one) for one in (honest, honest, plan)]
    assert torch.equal(after[0], after[1])
    assert not torch.allclose(after[0], after[2]), "the fault changes nothing"


def _weights(plan):
    """What a teaching run ends with."""
    inputs = 20 * torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Linear(3, 2)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(dp.train(model, (inputs, torch.arange(12) % 2), plan, seed=1, num_examples=10))
    return model.weight.detach()


def test_the_panel_audits_and_says_what_else_finds_the_fault():
    panel = FindTheBug(observations=6_000)
    for fault in (FAULTS[1], FAULTS[-1]):
        panel.fault.value = fault.name
        assert not panel.found and not panel.story.text, "the old verdict no longer stands"
        panel.buttons.click("audit")
        assert panel.join(60)
        panel.check()
        assert panel.found[-1].broken is fault.audited
        assert panel.found[-1].claimed == (SAMPLED if fault.batches else panel.full).epsilon()
        assert ("FALSE" in panel.verdict.text) is fault.audited
        assert fault.found_by in panel.story.text
    panel.close()


def test_looks_climb_and_hold_together():
    fault = FAULTS[0].planted(PLAN)
    found = list(auditing(fault, canaries=500, observations=40_000, looks=5, seed=0))
    assert len(found) == 5 and found[-1].broken
    assert [f.observations for f in found] == sorted(f.observations for f in found)
    assert found[-1].lower > found[0].lower
    again = list(auditing(fault, canaries=500, observations=40_000, looks=5, seed=0))
    assert again == found


def test_limits_are_those_of_clopper_and_pearson():
    from scipy.stats import binom

    for wrong, tries in [(0, 100), (3, 100), (50, 100), (100, 100)]:
        limit = upper_limit(wrong, tries, 0.01)
        assert wrong >= tries or binom.cdf(wrong, tries, limit) == pytest.approx(0.01)
    assert gaussian_mu(Errors(500, 1000, 500, 1000), 0.001) == 0.0
    assert any_epsilon(Errors(0, 1000, 1000, 1000), 0.0, 0.001) == 0.0
    assert any_epsilon(Errors(0, 10**6, 0, 10**6), 0.0, 0.001) > 10


def test_what_cannot_be_audited_is_refused_in_words():
    with pytest.raises(dp.Refused, match="ADD_REMOVE"):
        audit(dataclasses.replace(PLAN, relation=dp.Neighbours.REPLACE_ONE))
    with pytest.raises(dp.Refused, match="before"):
        audit(dataclasses.replace(PLAN, before=(dp.Release(dp.Gaussian(1.0)),)))
    with pytest.raises(ValueError, match="confidence"):
        audit(PLAN, confidence=1.5)
    with pytest.raises(ValueError, match="canaries"):
        audit(PLAN, canaries=3)
    with pytest.raises(ValueError, match="delta"):
        audit(PLAN, delta=2.0)


def test_roc_counts_ties_together():
    roc = Roc.of(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False]))
    assert list(roc.fpr) == [0, 0, 0.5, 1] and list(roc.tpr) == [0, 0.5, 1, 1]
    assert roc.at(0.0) == 0.5 and roc.at(0.4) == 0.5 and roc.at(0.5) == 1.0
    assert roc.area == pytest.approx(0.875) and roc.advantage == 0.5


def test_lira_guesses_where_there_is_nothing_to_know_and_finds_what_there_is():
    """Scores that do not depend on membership give the diagonal, neither side of it."""
    rng = np.random.default_rng(0)
    member = np.array([rng.permutation(12) < 6 for _ in range(4000)]).T
    scores = rng.normal(size=(1, 4000)) + rng.normal(size=member.shape)
    null = Roc.of(likelihood_ratios(scores, member), member)
    assert null.area == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / 12_000))
    found = Roc.of(likelihood_ratios(scores + 2.0 * member, member), member)
    assert found.area > 0.85


def test_membership_succeeds_without_privacy_and_fails_with_it():
    data = dp.datasets.load("digits", num_examples=200)
    bare = dp.Plan(dp.DPSGD(0.0, 1e6, 0.5), dp.Poisson(0.3, 150), 1e-3)
    found = membership(mlp, data, bare, models=12)
    assert found.train_accuracy > 0.99 and found.lira.area > 0.65
    assert found.lira.at(0.01) > 3 * 0.01
    private = dp.Plan(dp.DPSGD(1.0, 1.0, 0.3), dp.Poisson(0.3, 40), 1e-3).calibrated(1.0)
    kept = membership(mlp, data, private, models=12)
    fpr = np.array([0.01, 0.05, 0.2])
    allowed = region(private, fpr)
    # 1200 guesses a side: five standard errors above what is allowed at most.
    slack = 5 * np.sqrt(allowed * (1 - allowed) / 1200) + 5 * np.sqrt(fpr * (1 - fpr) / 1200)
    for roc in (kept.loss, kept.lira):
        assert np.all(np.array([roc.at(x) for x in fpr]) <= allowed + slack)
        assert roc.area < 0.62


def test_a_gradient_gives_its_record_away_unless_it_is_private():
    data = dp.datasets.load("digits", num_examples=50)
    model = mlp(data, 0)
    before = [p.clone() for p in model.parameters()]
    assert invert(model, data, 3).similarity > 0.9999
    clipped = dp.DPSGD(0.0, 1.0)
    assert invert(model, data, 3, method=clipped).similarity > 0.9999, "a clip alone hides nothing"
    private = dp.DPSGD(1.0, 1.0)
    seen = [abs(invert(model, data, i, method=private, seed=i).similarity) for i in range(8)]
    assert float(np.median(seen)) < 0.5
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(ValueError, match="record"):
        invert(model, data, 50)
    with pytest.raises(ValueError, match="Linear with a bias"):
        invert(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten()), data, 0)
