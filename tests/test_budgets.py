"""Budgets: a run ends before the step that would exceed one, and promises what it keeps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dpkit as dp
from dpkit import schedules
from dpkit.runs import plan_from_json, plan_to_json

RHO = dp.RhoBudget(0.78125)
TABLE = [
    (schedules.Uniform(8.0), 100),
    (schedules.TimeDecay(10.0, 0.05), 38),
    (schedules.StepDecay(10.0, 0.6, 10), 31),
    (schedules.ExponentialDecay(10.0, 0.01), 71),
    (schedules.PolynomialDecay(10.0, 2.0, 3.0, 100), 44),
]
"""Yu et al. 2019: how many epochs a budget of rho = 0.78125 lasts."""
REACTING = schedules.ValidationDecay(10.0, 0.7, 10, 5, 0.01)
ZERO = dp.Neighbours.ZERO_OUT


def data(public=True, records=30):
    rng = np.random.default_rng(3)
    inputs, targets = rng.standard_normal((records, 4)), np.arange(records) % 3
    given = (rng.standard_normal((12, 4)), np.arange(12) % 3) if public else None
    return dp.datasets.Dataset.of(inputs, targets, public=given)


def trained(plan, held=None, **options):
    held = held or data()
    options = {"seed": 0, "device": "cpu"} | options
    return list(dp.train(dp.zoo.mlp(held, seed=0), held, plan, **options))


@pytest.mark.parametrize(("shape", "epochs"), TABLE, ids=lambda v: getattr(v, "start", v))
def test_the_epochs_that_a_budget_lasts(shape, epochs):
    """Planned, and by a real training: the very same filter ends it."""
    for batches in (1, 3):
        held = replace(shape, steps_per_epoch=batches)
        plan = dp.Plan(dp.DPSGD(held), dp.Shuffle(batches, 200), 1e-5, budget=RHO)
        assert plan.steps == epochs * batches
        run = trained(plan)
        assert run[-1].step == run[-1].steps == epochs * batches
        assert run[-1].ledger == plan.ledger() and run[-1].epsilon == plan.epsilon()
        spent = dp.ZCDP().rho(run[-1].ledger)
        assert spent <= 0.78125 < spent + 0.5 / held(epochs * batches) ** 2


def test_a_budget_is_used_up_to_the_last_digit():
    """100 times 1/128 are 100/128, and 100 times 1/200 are one half; a hair less does not do."""
    for noise, rho in ((8.0, 0.78125), (10.0, 0.5)):
        plan = dp.Plan(dp.DPSGD(noise), dp.Shuffle(2, 150), budget=dp.RhoBudget(rho))
        assert plan.steps == 200
        less = replace(plan, budget=dp.RhoBudget(math.nextafter(rho, 0)))
        assert less.steps == 198


@given(st.floats(0.5, 20), st.floats(0.001, 3), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_noise_that_does_not_change_is_counted_as_step_by_step(sigma, rho, batches):
    """Equal epochs are found by halving: they must be those that a meter lets through."""
    meter, epochs = dp.RhoBudget(rho).meter(), 0
    if not meter.pay([(dp.Gaussian(sigma), 1)]):
        return
    while epochs < 150 and (not epochs or meter.pay([(dp.Gaussian(sigma), 1)])):
        epochs += 1
    budget = dp.RhoBudget(rho)
    for noise in (sigma, schedules.Uniform(sigma)):
        plan = dp.Plan(dp.DPSGD(noise), dp.Shuffle(batches, 150), budget=budget)
        assert plan.steps == epochs * batches


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.3, 30), st.integers(1, 4)), min_size=1, max_size=40),
    st.floats(0.01, 5),
)
def test_a_meter_never_lets_more_through_than_its_budget(charges, rho):
    """Against the plain sum; what was refused has changed nothing."""
    meter, total = dp.RhoBudget(rho).meter(), 0.0
    for sigma, count in charges:
        before, cost = meter.spent, count * 0.5 / sigma**2
        fits = meter.pay([(dp.Gaussian(sigma), count)])
        assert fits or meter.spent == before
        assert fits == (total + cost <= rho) or abs(total + cost - rho) < 1e-12
        total += cost if fits else 0.0
        assert meter.spent <= rho and meter.spent == pytest.approx(total)


def test_charges_of_a_group_are_paid_together_or_not_at_all():
    meter = dp.RhoBudget(0.02).meter()
    assert not meter.pay([(dp.Gaussian(10.0), 1), (dp.Gaussian(5.0), 1)]) and meter.spent == 0
    assert not meter.pay([(dp.Gaussian(0.0), 1)]) and not meter.pay([(dp.Gaussian(1e-160), 1)])
    assert meter.pay([(dp.Gaussian(10.0), 4)]) and not meter.pay([(dp.Gaussian(1e4), 1)])


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize("rho", [1e-4, 0.1, 0.78125, 20.0])
def test_a_rho_budget_is_worth_no_less_than_the_truth(rho, delta):
    """The exact epsilon of a Gaussian of this rho is below; the textbook formula is above."""
    found = dp.RhoBudget(rho).epsilon(delta)
    exact = dp.PLD().epsilon(dp.Ledger.of([(dp.Gaussian(math.sqrt(0.5 / rho)), 1)]), delta)
    assert exact <= found <= rho + 2 * math.sqrt(rho * math.log(1 / delta))
    assert dp.RhoBudget.of(found, delta).rho == pytest.approx(rho, rel=1e-9)
    assert dp.RhoBudget.of(found, delta).epsilon(delta) <= found
    assert RHO.epsilon(1e-5) == pytest.approx(6.12, abs=5e-3)


@pytest.mark.parametrize("order", [2.0, 8.0, 40.5])
def test_an_rdp_budget_is_the_conversion_at_its_order(order):
    """Proposition 12 of Canonne, Kamath and Steinke, written out."""
    budget = dp.RDPBudget(1.5, order)
    expected = 1.5 + math.log((order - 1) / order)
    expected -= (math.log(1e-5) + math.log(order)) / (order - 1)
    assert budget.epsilon(1e-5) == pytest.approx(expected, rel=1e-12)
    epsilon = budget.epsilon(1e-5) + 1
    made = dp.RDPBudget.of(epsilon, 1e-5, order=order)
    assert made.rdp == pytest.approx(2.5) and made.epsilon(1e-5) <= epsilon


def test_an_rdp_budget_counts_sampled_releases_by_the_worse_direction():
    pair = dp.Gaussian(1.2).pair(dp.Neighbours.REPLACE_ONE, dp.mechanisms.PoissonSampling(0.1))
    sided = dp.Laplace(1.0).pair(dp.Neighbours.ADD_REMOVE, dp.mechanisms.PoissonSampling(0.3))
    budget = dp.RDPBudget(3.0, 6.0)
    assert budget.cost(pair) == float(pair.rdp(6.0))
    assert budget.cost(sided) == max(float(sided.rdp(6.0)), float(sided.reverse.rdp(6.0)))


def test_a_budget_that_covers_a_plan_lets_exactly_that_plan_through():
    plain = dp.Plan(dp.DPSGD(1.1), dp.Poisson(0.05, 40), 1e-5, accountant=dp.RDP())
    budget = dp.RDPBudget.covering(plain.ledger(), 1e-5)
    assert budget.epsilon(1e-5) == pytest.approx(plain.epsilon(), rel=1e-9)
    longer = replace(plain, sampler=dp.Poisson(0.05, 80), budget=budget)
    assert longer.steps == 40 and longer.ledger() == plain.ledger()
    assert len(trained(longer)) == 40
    assert len(longer.curve(10).steps) == 10 and longer.curve(10).epsilon[-1] == longer.epsilon()


def test_what_comes_before_is_paid_from_the_budget():
    pca = dp.Release(dp.Gaussian(4.0), access=dp.Access.ALL)  # 1/32, as four epochs of sigma 8
    plan = dp.Plan(dp.DPSGD(8.0), dp.Shuffle(3, 200), 1e-5, before=(pca,), budget=RHO)
    assert plan.steps == 3 * 96 and trained(plan)[-1].step == 3 * 96


def test_a_schedule_that_reacts_promises_the_whole_budget():
    shape = replace(REACTING, steps_per_epoch=3)
    plan = dp.Plan(dp.DPSGD(shape), dp.Shuffle(3, 200), 1e-5, budget=RHO)
    run = trained(plan)
    assert plan.epsilon() == RHO.epsilon(1e-5) and plan.bounds().upper == plan.epsilon()
    assert (plan.curve(5).epsilon == plan.epsilon()).all()
    last = run[-1]
    spent = dp.ZCDP().rho(last.ledger)
    lower = 0.7 * shape(last.step - 1, last.validation)
    assert spent <= 0.78125 < spent + 0.5 / lower**2, "ended before the epoch that was too much"
    assert last.epsilon <= plan.epsilon() and last.step < plan.steps
    assert len(last.validation) == sum(shape.looks_before(t) for t in range(last.step))
    drops = [math.log(m.noise_multiplier / 10, 0.7) for m in last.ledger.mechanisms]
    assert drops == pytest.approx(range(len(drops))) and len(drops) > 2
    for stopped in (None, 30):
        text = plan.guarantee(stopped_at=stopped)
        assert "(6.13, 1e-05)-differential privacy" in text and "at most 600 steps" in text
        assert "a filter that keeps a zCDP budget of ρ = 0.78125" in text and "PLD" not in text
    assert text.endswith("the claim stays at the whole budget.")


def test_public_accuracy_steers_the_noise():
    """A model that cannot learn from its public records loses noise at every comparison."""
    shape = replace(REACTING, period=4, window=2, factor=0.8)
    plan = dp.Plan(dp.DPSGD(shape, learning_rate=1e-9), dp.Shuffle(1, 200), 1e-5, budget=RHO)
    stuck = trained(plan)
    drawn = [m.noise_multiplier for m, n in stuck[-1].ledger.entries for _ in range(n)]
    expected = [10 * 0.8 ** max(e // 4 - 1, 0) for e in range(len(drawn))]
    assert drawn == pytest.approx(expected) and len(set(stuck[-1].validation)) == 1
    patient = replace(plan, method=dp.DPSGD(replace(shape, threshold=-1.0), learning_rate=1e-9))
    assert {m.noise_multiplier for m in trained(patient)[-1].ledger.mechanisms} == {10.0}


def test_each_paid_look_is_charged_as_a_release():
    """rho = 1 / (2 N^2 sigma_v^2), before it is drawn, out of the same budget."""
    records, sigma_v = 30, 1.5
    shape = replace(REACTING, start=8.0, factor=1.0, look_noise=records * sigma_v)
    plan = dp.Plan(dp.DPSGD(shape), dp.Shuffle(1, 500), 1e-5, budget=RHO)
    last = trained(plan, data(public=False))[-1]
    looks = len(last.validation)
    counts = {type(m).__name__: n for m, n in last.ledger.entries}
    # At one batch an epoch a shuffled step is charged as the Gaussian that it is.
    gaussians = {m.noise_multiplier: n for m, n in last.ledger.entries}
    assert gaussians[45.0] == looks > 20 and sum(counts.values()) == last.step + looks
    spent = last.step / 128 + looks / (2 * records**2 * sigma_v**2)
    assert dp.ZCDP().rho(last.ledger) == pytest.approx(spent) and spent <= 0.78125
    assert last.step < 100, "looks are not free"
    near = np.mean(last.validation)
    assert np.std(last.validation) == pytest.approx(sigma_v, rel=0.4) and abs(near) < 1.5


def test_replace_one_pays_four_times():
    plan = dp.Plan(dp.DPSGD(8.0), dp.Shuffle(2, 200), 1e-5, dp.Neighbours.REPLACE_ONE, budget=RHO)
    assert plan.steps == 50


def test_a_budget_is_stored_with_its_plan():
    for shape in (REACTING, schedules.TimeDecay(10.0, 0.05)):
        for budget in (RHO, dp.RDPBudget(2.0, 9.0), None):
            if budget is None and shape is REACTING:
                continue
            plan = dp.Plan(dp.DPSGD(shape), dp.Shuffle(1, 50), 1e-5, budget=budget)
            assert plan_from_json(plan_to_json(plan)) == plan


def test_a_checkpoint_ends_where_the_budget_does(tmp_path):
    from dpkit import checkpoint

    plan = dp.Plan(dp.DPSGD(8.0), dp.Shuffle(2, 9), 1e-5, budget=dp.RhoBudget(3 / 128))
    path = tmp_path / "run.ckpt"
    model, steps = dp.zoo.logistic(data()), []
    for step in dp.train(model, data(), plan, seed=1, checkpoint=path, checkpoint_every=4):
        steps.append(step.step)
        if step.step == 3:
            break
    del step
    again = dp.train(model, data(), plan, seed=1, checkpoint=path, checkpoint_every=4)
    steps += [step.step for step in again]
    found = checkpoint.read(path)
    assert steps == [1, 2, 3, 4, 5, 6] and found.done == found.paid == found.steps == 6
    other = replace(plan, budget=dp.RhoBudget(4 / 128))
    with pytest.raises(ValueError, match="another plan"):
        dp.train(model, data(), other, seed=1, checkpoint=path)


def reacting(sampler=None, budget=RHO, **changes):
    return dp.Plan(dp.DPSGD(replace(REACTING, **changes)), sampler or dp.Shuffle(1, 50), 1e-5,
                   budget=budget)  # fmt: skip


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: reacting(budget=None), "has no price beforehand; give the plan a budget"),
        (lambda: reacting(budget=dp.PLD()), r"got PLD: curves of losses \(PLD, f-DP\) are no filt"),
        (lambda: reacting(budget=dp.GDP()), "got GDP: curves of losses"),
        (lambda: reacting(budget=3.0), "RhoBudget or an RDPBudget, got float"),
        (lambda: reacting(dp.Poisson(0.1, 50)), "cannot count it; give an RDPBudget, or draw"),
        (lambda: reacting(dp.BallsInBins(3, 9), steps_per_epoch=3), "give an RDPBudget"),
        (lambda: reacting(dp.Shuffle(4, 9), steps_per_epoch=6), "whole groups of 4 steps"),
        (lambda: reacting(start=0.5), "The first 1 steps would exceed a zCDP budget"),
        (lambda: reacting().ledger(), "no ledger beforehand"),
        (lambda: reacting().calibrated(1.0), "choose the budget, by RhoBudget.of or RDPBudget.of"),
        (lambda: dp.Plan(dp.DPSGD(8.0), dp.Shuffle(1, 50), budget=RHO).calibrated(1.0), "choose"),
        (
            lambda: dp.Plan(dp.DPSGD(8.0), dp.Shuffle(1, 50), budget=RHO,
                            before=(dp.Release(dp.Gaussian(0.5), access=dp.Access.ALL),)),
            "What comes before the run exceeds",
        ),
        (lambda: trained(reacting(), data(public=False)), "at public records alone, and 'my-d"),
        (lambda: dp.RhoBudget(0.0), r"rho .* must lie in \(0, "),
        (lambda: dp.RDPBudget(1.0, 1.0), r"order .* must lie in \(1, "),
        (lambda: dp.RhoBudget.of(0.0, 1e-5), "epsilon .* must be a finite number above"),
        (lambda: dp.RhoBudget.of(math.inf, 1e-5), "epsilon"),
        (lambda: dp.RDPBudget.of(0.5, 1e-5, order=2.0), "above 10.1 at order 2, got 0.5; allow m"),
        (lambda: dp.RhoBudget(1.0).epsilon(0.0), "delta"),
    ],
)  # fmt: skip
def test_what_no_filter_can_keep_is_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message) as told:
        build()
    assert "\n" not in str(told.value)


def test_a_reacting_run_has_no_checkpoint(tmp_path):
    with pytest.raises(dp.Refused, match="not offered with a checkpoint"):
        trained(reacting(), checkpoint=tmp_path / "run.ckpt")


def test_a_reacting_schedule_needs_classes():
    inputs, targets = torch.zeros(6, 2), torch.zeros(6)
    from tests.privacy.recording import smuggled

    with pytest.raises(dp.Refused, match="needs classes"):
        next(dp.train(torch.nn.Linear(2, 1), smuggled(inputs, targets), reacting(look_noise=4.0)))


@pytest.mark.parametrize("budget", [dp.RhoBudget(0.02), dp.RDPBudget(0.3, 12.0)])
def test_while_noise_reacts_the_used_part_is_told_in_the_budgets_own_measure(budget):
    """The conversion at other orders was never promised, and once showed half of the claim."""
    noise = schedules.ValidationDecay(20.0, 0.5, 2, 1, 1.0, steps_per_epoch=2)
    sampler = dp.Poisson(0.2, 400) if isinstance(budget, dp.RDPBudget) else dp.Shuffle(2, 200)
    plan = dp.Plan(dp.DPSGD(noise), sampler, 1e-3, budget=budget)
    run = trained(plan)
    told = [step.epsilon for step in run]
    assert told == sorted(told) and told[-1] <= plan.epsilon() == budget.epsilon(1e-3)
    entries = run[-1].ledger.entries
    cost = math.fsum(n * budget.cost(m) for m, n in entries)
    assert told[-1] == budget.epsilon(1e-3, cost) and cost <= budget.total
    assert run[-1].step < 400, "the budget ends it"


def test_a_charge_of_count_nothing_costs_nothing():
    """Infinity times nothing is nothing here."""
    nothing = dp.Release(dp.Gaussian(0.0), count=0)
    plan = dp.Plan(dp.DPSGD(8.0), dp.Shuffle(2, 150), 1e-5, budget=RHO, before=(nothing,))
    assert plan.steps == 200


def test_a_whole_number_may_come_as_a_float():
    noise = schedules.ValidationDecay(10.0, 0.7, 10.0, 5.0, steps_per_epoch=2.0)
    assert noise == replace(REACTING, steps_per_epoch=2) and type(noise.period) is int


def test_noise_that_reacts_inside_an_epoch_is_told_what_to_change():
    noise = schedules.ValidationDecay(4.0, 0.5, 1, 1)
    with pytest.raises(dp.mechanisms.Refused, match="whole groups of 4 steps"):
        dp.Plan(dp.DPSGD(noise), dp.Shuffle(4, 20), 1e-3, budget=RHO)


def test_a_look_that_can_never_be_paid_is_told_at_once():
    noise = replace(REACTING, look_noise=0.1)
    with pytest.raises(dp.mechanisms.Refused, match="single look with look_noise 0.1"):
        dp.Plan(dp.DPSGD(noise), dp.Poisson(0.1, 60), 1e-3, budget=dp.RDPBudget(2.0, 8.0))


@pytest.mark.parametrize("order", [1.5, 2.0, 8.0, 64.0, 1000.0])
def test_many_costs_are_found_at_once_and_are_the_same(order):
    """The arrays by which thousands of noises are paid for, against each noise by itself."""
    budget = dp.RDPBudget(1e3, order)
    sampled = [dp.mechanisms.SubsampledGaussian(q, sigma) for q in (1e-4, 0.01, 0.5, 0.999)
               for sigma in (0.05, 0.2, 0.5, 0.7, 1.0, 3.0, 50.0)]  # fmt: skip
    other = [dp.Gaussian(2.0), dp.mechanisms.SubsampledGaussian(1.0, 2.0), dp.Laplace(3.0)]
    every = [*sampled, *other, dp.mechanisms.SubsampledGaussian(0.5, 0.0)]
    found = budget.costs(every)
    assert found == [budget.cost(mechanism) for mechanism in every]
    alone = [float(mechanism.rdp(order)) for mechanism in every]
    np.testing.assert_allclose(found, alone, rtol=1e-12)


def test_noises_that_all_differ_stop_where_each_alone_would():
    noise = schedules.Tabulated(tuple(1.0 + 0.001 * (t * 7 % 1500) for t in range(1500)))
    budget = dp.RDPBudget(1.5, 8.0)
    plan = dp.Plan(dp.DPSGD(noise), dp.Poisson(0.02, 1500), budget=budget)
    paid = [budget.cost(mechanism) for mechanism in plan.ledger().mechanisms]
    whole = dp.Plan(dp.DPSGD(noise), dp.Poisson(0.02, 1500)).ledger()
    after = budget.cost(whole.mechanisms[plan.steps])
    assert 1000 < plan.steps < 1500
    assert math.fsum(paid) <= 1.5 < math.fsum(paid) + after
