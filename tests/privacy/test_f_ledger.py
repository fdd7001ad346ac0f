"""F. Conservation: the ledger against the engine's own log, never against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import dpkit as dp
from dpkit import training
from dpkit.gradients import optimisers
from dpkit.runs import Run
from dpkit.samplers import poisson
from dpkit.schedules import at
from tests.privacy import cases
from tests.privacy.recording import Recording, listening, record, smuggled

RECORDS = 40


def zero(outputs, targets):
    return 0 * outputs.sum(1)


def data():
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal((RECORDS, 6))), torch.arange(RECORDS) % 3


@pytest.mark.parametrize("combination", cases.combinations(), ids=cases.named)
def test_the_ledger_is_what_was_measured(combination):
    """The multiset of (kind, q, measured std / C), one entry for each release that was made."""
    method, sampler, relation = combination
    plan = dp.Plan(method, sampler, 1e-3, relation, accountant=dp.RDP())
    wide = nn.Linear(6, 20_000, dtype=torch.float64)
    records = 10 if isinstance(sampler, dp.FixedSize) else RECORDS
    few = tuple(part[:records] for part in data())
    log = record(plan, wide, few, num_examples=records, loss=zero)
    assert log.ledger == plan.ledger() and log.epsilon == plan.epsilon()
    assert len(log.draws) == sampler.steps
    assert log.ledger.relation is relation
    measured = [float(d.noise.std()) / d.norm for d in log.draws]
    values = min(d.noise.numel() for d in log.draws)  # a mask leaves some
    # A group of disjoint batches costs what its least noisy step does.
    measured = sorted(min(measured[step] for step in group) for group in sampler.groups())
    entries = [(_upper(m), n) for m, n in log.ledger.entries]
    paid = [(m, n) for m, n in entries if not isinstance(m, dp.EpsilonDelta)]
    charged = sorted(_sigma(m, relation) for m, count in paid for _ in range(count))
    assert measured == pytest.approx(charged, rel=5 / math.sqrt(2 * values))
    rates = {getattr(m, "sample_rate", None) or getattr(m, "batches", 1.0) for m, _ in paid}
    stated = getattr(sampler, "sample_rate", getattr(sampler, "batches_per_epoch", 1.0))
    stated = 1.0 if isinstance(sampler, dp.Partition) else stated  # nothing hides a fixed shard
    assert rates == {at(stated, step) for step in range(sampler.steps)}
    lost = [(m.delta, n) for m, n in entries if isinstance(m, dp.EpsilonDelta)]
    if isinstance(sampler, dp.TruncatedPoisson):
        from scipy.stats import binom

        assert lost == [(pytest.approx(binom.sf(25, 40, 0.2)), sampler.steps)]
    else:
        assert not lost


def _upper(mechanism):
    """What is paid where nothing is claimed from below."""
    return mechanism.mechanism if isinstance(mechanism, dp.mechanisms.UpperSide) else mechanism


def _sigma(mechanism, relation):
    """The multiplier that a charge stands for: unsampled replace-one is charged at sigma / 2."""
    halved = relation is dp.Neighbours.REPLACE_ONE and isinstance(mechanism, dp.Gaussian)
    return mechanism.noise_multiplier * (2 if halved else 1)


@pytest.mark.parametrize("method", cases.METHODS, ids=cases.named)
def test_an_early_stop_has_paid_for_what_it_drew(method):
    plan = dp.Plan(method, dp.Poisson(0.3, 12), 1e-3, accountant=dp.RDP())
    log, last = Recording(), None
    with listening(log):
        for step in dp.train(
            nn.Linear(6, 3).double(), smuggled(*data(), public=data()), plan, seed=0
        ):
            last = step
            assert step.ledger == plan.ledger(step.step) and step.ledger.steps == len(log.draws)
            if step.step == 5:
                break
    assert last.ledger.steps == 5
    text = plan.guarantee(stopped_at=5)
    full = dp.RDP().epsilon(plan.ledger(), plan.delta)
    assert f"({dp.plan.round_up(full)}, " in text and "claim stays at the planned price" in text


def test_every_charge_is_written_before_its_noise_is_drawn(monkeypatch):
    """At the moment of each draw the spend already holds it."""
    plan = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.3, 6), 1e-3)
    charged, seen = [], []
    original = training.Spend.charge

    def charge(self, entries):
        original(self, entries)
        charged.extend(entries)

    draw = dp.Gaussian.draw
    monkeypatch.setattr(training.Spend, "charge", charge)
    monkeypatch.setattr(
        dp.Gaussian, "draw",
        lambda *a: (seen.append(sum(count for _, count in charged)), draw(*a))[1],
    )  # fmt: skip
    list(dp.train(nn.Linear(6, 3).double(), smuggled(*data()), plan, seed=0))
    assert all(paid >= drawn + 1 for drawn, paid in enumerate(seen)) and len(seen) == 6


def test_a_run_makes_no_step_beyond_its_plan():
    plan = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.3, 6), 1e-3)
    log = Recording()
    with listening(log):
        steps = dp.train(nn.Linear(6, 3).double(), smuggled(*data()), plan, seed=0)
        assert len(list(steps)) == 6 and next(steps, None) is None
    assert len(log.draws) == 6


def test_a_failed_step_stays_charged(monkeypatch):
    """A step that fails after its draw was released to memory is not given back."""
    plan = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.3, 6), 1e-3)
    steps = dp.train(nn.Linear(6, 3).double(), smuggled(*data()), plan, seed=0)
    next(steps)
    run = steps.gi_frame.f_locals["self"]
    monkeypatch.setattr(optimisers._SGDUpdater, "move", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(steps)
    assert run.spend.ledger(run.spend.mark).steps == 2


def test_releases_made_once_before_the_run_are_charged():
    before = (dp.Release(dp.Gaussian(3.0), access=dp.Access.ALL), dp.Release(dp.Laplace(4.0), 2))
    plan = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.3, 4), 1e-3, before=before)
    log = record(plan, nn.Linear(6, 3).double(), data(), num_examples=RECORDS)
    counts = {type(m).__name__: count for m, count in log.ledger.entries}
    assert counts == {"Gaussian": 1, "Laplace": 2, "SubsampledGaussian": 4}
    assert log.ledger == plan.ledger()
    bare = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.3, 4), 1e-3)
    assert plan.epsilon() > bare.epsilon() + 0.1


def test_counts_of_a_release_are_charged():
    """Google's dp_accounting forgets a count in two of its type ladders; here it is paid."""
    sampler, relation = dp.Poisson(0.1, 5), dp.Neighbours.ADD_REMOVE
    once = sampler.charge([(dp.Release(dp.Gaussian(2.0)),)], relation)
    thrice = sampler.charge([(dp.Release(dp.Gaussian(2.0), 3),)], relation)
    price = [dp.PLD().epsilon(dp.Ledger.of(e, relation), 1e-5) for e in (once, thrice)]
    exact = dp.Gaussian(2.0 / math.sqrt(3)).pair(relation, dp.mechanisms.PoissonSampling(0.1))
    assert price[1] == pytest.approx(dp.PLD().epsilon(dp.Ledger.of([(exact, 1)]), 1e-5))
    assert price[1] > 1.4 * price[0]


def test_the_stored_run_and_the_promise_hold_nothing_private():
    """A run's file has no training loss and no norm; a seed is told before the promise."""
    plan = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.3, 6), 1e-3)
    run = Run(plan, "made", "model", RECORDS, fingerprint="", seed=3)
    private = set()
    test = torch.randn(5, 6).double(), torch.tensor([0, 1, 2, 0, 1])
    for step in dp.train(nn.Linear(6, 3).double(), smuggled(*data(), test), plan, seed=3):
        run.add(step, spend=True)
        private |= {f"{step.peek.loss:.6g}"} | {f"{x:.6g}" for x in step.peek.norms}
    text = run.to_json()
    numbers = {f"{float(x):.6g}" for x in _numbers(text)}
    assert private and not private & numbers
    assert run.guarantee.startswith("Teaching run: whoever knows the seed can remove the noise")
    secret = Run(plan, "made", "model", RECORDS, fingerprint="", seed=None)
    assert not secret.guarantee.startswith("Teaching run")


def _numbers(text):
    import re

    return re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)


@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_the_delta_of_the_plan_is_the_delta_that_is_priced(delta):
    plan = dp.Plan(dp.DPSGD(2.0), dp.Poisson(1.0, 4), delta)
    exact = dp.PLD().epsilon(dp.Ledger.of([(dp.Gaussian(1.0), 1)]), delta)
    assert plan.epsilon() == pytest.approx(exact, rel=1e-9)
    log = record(plan, nn.Linear(6, 3).double(), data(), num_examples=RECORDS)
    assert log.epsilon == plan.epsilon()
    assert f"{delta:.3g}" in plan.guarantee()


def test_delta_above_one_over_n_is_told():
    with pytest.warns(UserWarning, match="not below 1/N"):
        plan = dp.Plan(dp.DPSGD(), dp.Poisson(0.1, 2), delta=1 / RECORDS)
        dp.train(nn.Linear(6, 3).double(), smuggled(*data()), plan, seed=0)


def epochs_paid(log, sampler):
    """rho of every epoch by the log of the noise itself: disjoint batches cost their least."""
    noises = [draw.mechanism.noise_multiplier for draw in log.draws if draw.total.numel() > 1]
    groups = [noises[group.start : group.stop] for group in sampler.groups()]
    return [0.5 / min(group) ** 2 for group in groups if group]


@pytest.mark.parametrize("noise", [
    8.0, lambda t: 8.0 + 0.01 * t, lambda t: 8.0 - 0.01 * t, lambda t: 4.0 + 4.0 * (t % 2),
    dp.schedules.TimeDecay(10.0, 0.05, steps_per_epoch=2),
    dp.schedules.ValidationDecay(10.0, 0.7, 4, 2, 1.0, steps_per_epoch=2),
], ids=["uniform", "rising", "falling", "uneven", "time", "validation"])  # fmt: skip
def test_a_budget_holds_for_the_noise_that_was_drawn(noise):
    """Not one epoch beyond the budget, by the log of the draws, and none is given away."""
    rho = 0.25
    sampler = dp.Shuffle(2, 200)
    plan = dp.Plan(dp.DPSGD(noise, 1.0, 1e-6), sampler, 1e-3, budget=dp.RhoBudget(rho))
    log = record(plan, nn.Linear(6, 3).double(), data(), num_examples=RECORDS, public=data())
    spent = epochs_paid(log, sampler)
    assert sum(spent) <= rho < sum(spent) + max(spent[-2:]) / 0.49 and len(spent) < 200
    assert len(log.draws) == 2 * len(spent)
    charged = [0.5 / _sigma(_upper(m), log.ledger.relation) ** 2 * n for m, n in log.ledger.entries]
    assert sum(charged) == pytest.approx(sum(spent), rel=1e-12)
    if plan.method.reacting is None:
        assert log.ledger == plan.ledger() and log.epsilon == plan.epsilon()
        assert plan.steps == len(log.draws)
    assert dp.RhoBudget(rho).epsilon(1e-3) >= dp.PLD().epsilon(log.ledger, 1e-3)


def test_every_paid_look_is_in_the_ledger_before_it_is_taken(monkeypatch):
    """An accuracy of private records is a release: 1 / (2 N^2 sigma_v^2), out of the budget."""
    seen, charged = [], []
    original, draw = training.Spend.charge, dp.Gaussian.draw
    monkeypatch.setattr(
        training.Spend, "charge", lambda self, e: (charged.extend(e), original(self, e))[1]
    )
    monkeypatch.setattr(
        dp.Gaussian, "draw",
        lambda *a: (seen.append((a[0], sum(n for _, n in charged))), draw(*a))[1],
    )  # fmt: skip
    noise = dp.schedules.ValidationDecay(8.0, 0.7, 4, 2, 1.0, look_noise=20.0)
    plan = dp.Plan(dp.DPSGD(noise), dp.Shuffle(1, 99), 1e-3, budget=dp.RhoBudget(0.25))
    *_, last = dp.train(nn.Linear(6, 3).double(), smuggled(*data()), plan, seed=0)
    looks = [n for m, n in last.ledger.entries if m.noise_multiplier == 20.0]
    assert looks and looks[0] >= len(last.validation) > 4
    drawn_looks = sum(mechanism.noise_multiplier == 20.0 for mechanism, _ in seen)
    paid_looks = sum(n for m, n in charged if m.noise_multiplier == 20.0)
    assert drawn_looks == paid_looks
    assert all(paid >= number + 1 for number, (_, paid) in enumerate(seen))
    assert dp.ZCDP().rho(last.ledger) <= 0.25


def test_noise_that_was_priced_is_noise_that_is_drawn():
    """A function that says less once the run has begun, as one that saw the loss would."""
    begun = []
    plan = dp.Plan(dp.DPSGD(lambda t: 0.2 if begun else 2.0), dp.Poisson(0.3, 6), 1e-3)
    price = plan.epsilon()
    begun.append(True)
    log = record(plan, nn.Linear(6, 3).double(), data(), num_examples=RECORDS)
    assert {draw.mechanism for draw in log.draws} == {dp.Gaussian(2.0)} and log.epsilon == price


@pytest.mark.parametrize("noise", [1.5, lambda step: 2.0 - 0.1 * step], ids=["one", "falling"])
def test_every_step_is_charged_at_the_rate_of_its_own_batch(noise, monkeypatch):
    """Batches that grow: in step t the ledger states the rate by which that batch was drawn."""
    rates, used = [0.05 + 0.09 * step for step in range(10)], []
    original = poisson._included

    def included(num_examples, rate, rng):
        used.append(rate)
        return original(num_examples, rate, rng)

    monkeypatch.setattr(poisson, "_included", included)
    plan = dp.Plan(dp.DPSGD(noise), dp.Poisson(lambda step: rates[step], 10), 1e-3)
    before = 0
    for step in dp.train(nn.Linear(6, 3).double(), smuggled(*data()), plan, seed=0):
        new = step.ledger.entries[before:]
        assert [(m.sample_rate, m.noise_multiplier) for m, _ in new] == [
            (rates[before], at(noise, before))
        ] and used == rates[: step.step]
        before = len(step.ledger.entries)
    assert before == 10 and step.ledger == plan.ledger() and step.epsilon == plan.epsilon()
    even, most = (dp.Plan(dp.DPSGD(noise), dp.Poisson(q, 10), 1e-3).epsilon()
                  for q in (np.mean(rates), max(rates)))  # fmt: skip
    assert 1.01 * even < plan.epsilon() < most
