"""One contract for every mechanism, sampler, accountant and method: a new one joins by one line."""

import dataclasses
import json
import math

import numpy as np
import pytest

import dpkit as dp
from dpkit.knobs import every_knob, knobs_of, turned
from dpkit.runs import plan_from_json, plan_to_json
from dpkit.schedules import at

MECHANISMS = [
    dp.Gaussian(1.5),
    dp.Gaussian(0.0),
    dp.Laplace(2.0),
    dp.RandomisedResponse(1.0),
    dp.EpsilonDelta(0.5, 1e-6),
    dp.Gaussian(1.5).pair(dp.Neighbours.ADD_REMOVE, dp.mechanisms.PoissonSampling(0.1)),
    dp.Gaussian(1.5).pair(dp.Neighbours.REPLACE_ONE, dp.mechanisms.PoissonSampling(0.1)),
    dp.Laplace(2.0).pair(dp.Neighbours.ADD_REMOVE, dp.mechanisms.PoissonSampling(0.1)),
    dp.mechanisms.FixedSizeGaussian(0.1, 1.5),
    dp.mechanisms.AllocatedGaussian(12, 1.5),
    dp.mechanisms.ShuffledGaussian(12, 1.5),
    dp.mechanisms.ShuffledGaussian(12, 1.5, True),
    dp.mechanisms.ShuffledGaussian(12, 1.5, False, 2.5),
    dp.mechanisms.UpperSide(dp.Laplace(2.0), "an upper side alone"),
]
SAMPLERS = [
    dp.Poisson(0.1, 12),
    dp.Poisson(1.0, 3),
    dp.Poisson(dp.schedules.Tabulated(tuple(0.05 + 0.02 * t for t in range(12))), 12),
    dp.Shuffle(7, 3),
    dp.FixedSize(8, 50, 12),
    dp.BallsInBins(7, 3),
    dp.TruncatedPoisson(0.1, 12, 30, 50),
    dp.Partition(7, 3),
]
ACCOUNTANTS = [dp.PLD(), dp.RDP(), dp.Moments(), dp.ZCDP(), dp.GDP(), dp.Basic(), dp.Advanced(),
               dp.accountants.YuRandomSampling()]  # fmt: skip
METHODS = [
    dp.DPSGD(1.2),
    dp.NeuralDP(1.2),
    dp.NeuralDP(1.2, release="each epoch", steps_per_epoch=4, labels=dp.RandomisedResponse(1.0, 3)),
    dp.DPSGD(dp.schedules.Tabulated(tuple(2.0 - 0.1 * t for t in range(10))), 0.5, 0.1, 0.9),
    dp.DPSGD(1.2, mask=dp.Freeze(0.9, exempt=("*.bias",))),
    dp.DPSGD(1.2, averaging=0.99, augmentation=dp.gradients.Shifts(3, 1, mirrored=True)),
    dp.TopAgg(1.2, 0.5, 0.1, top_k=10, signs=True, threshold=3.0),
]


def named(values):
    return pytest.mark.parametrize("value", values, ids=[repr(v)[:60] for v in values])


@named(MECHANISMS + SAMPLERS + ACCOUNTANTS + METHODS)
def test_values_are_frozen_hashable_and_documented(value):
    assert dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen
    assert hash(value) == hash(dataclasses.replace(value))
    assert value == dataclasses.replace(value)
    assert "." in (type(value).__doc__ or "")


@named(MECHANISMS + SAMPLERS + METHODS)
def test_every_number_is_a_knob_that_refuses_nan(value):
    for name, declared in knobs_of(value).items():
        assert declared.symbol and declared.meaning and declared.low < declared.high
        with pytest.raises((ValueError, TypeError)):
            turned(value, name, math.nan)


@named(MECHANISMS)
def test_a_profile_is_a_hockey_stick_divergence(value):
    epsilons = np.linspace(-6, 12, 73)
    for side in (value, value.reverse):
        delta = np.asarray(side.profile(epsilons))
        assert ((delta >= 0) & (delta <= 1)).all()
        assert (np.diff(delta) <= 1e-12).all(), "falls in epsilon"
        assert (delta >= 1 - np.exp(epsilons) - 1e-12).all(), "delta >= 1 - e^eps"
    # Swapping P and Q: delta_QP(eps) = 1 - e^eps + e^eps delta_PQ(-eps).
    swapped = 1 - np.exp(epsilons) + np.exp(epsilons) * np.asarray(value.profile(-epsilons))
    assert np.asarray(value.reverse.profile(epsilons)) == pytest.approx(
        np.clip(swapped, 0, 1), abs=1e-9
    )


@named([m for m in MECHANISMS if m != dp.Gaussian(0.0)])
def test_rdp_bounds_the_profile(value):
    for alpha in (1.5, 2.0, 5.0, 20.0):
        rdp = float(value.rdp(alpha))
        assert rdp >= 0
        if math.isfinite(rdp):
            epsilon = rdp + math.log(1e5) / (alpha - 1)
            assert float(value.profile(epsilon)) <= 1e-5 * (1 + 1e-9)


@named(SAMPLERS)
def test_a_sampler_covers_its_steps_and_draws_within_the_data(value):
    groups = list(value.groups())
    assert [step for group in groups for step in group] == list(range(value.steps))
    batches = list(value.batches(50, np.random.default_rng(0)))
    assert len(batches) == value.steps
    assert all(
        len(b) == len(set(b.tolist())) and set(b.tolist()) <= set(range(50)) for b in batches
    )
    assert value.describe and value.relations and value.mean_batch(50, value.steps) > 0
    sizes = [value.at_step(step).expected_batch(50) for step in range(value.steps)]
    assert sizes == [at(value.expected_batches(50), step) for step in range(value.steps)]


@named([s for s in SAMPLERS if type(s) in (dp.Shuffle, dp.Partition)])
def test_more_batches_than_records_are_refused_wherever_the_size_is_told(value):
    for ask in (value.expected_batch, value.remainder):
        assert ask(7) is not None
        with pytest.raises(ValueError, match=r"whole number in \[1, 6\], .* got 7; ask for fewer"):
            ask(6)


def test_a_truncation_is_told_as_a_part_of_delta():
    assert "in the run, counted within delta)" in dp.TruncatedPoisson(0.1, 12, 30, 50).describe


@pytest.mark.parametrize("relation", list(dp.Neighbours))
@named(SAMPLERS)
def test_a_sampler_charges_or_refuses_in_words(value, relation):
    release = (dp.Release(dp.Gaussian(1.0)),)
    group = value.groups()[0]
    if relation in value.relations:
        entries = value.at_step(0).charge([release] * len(group), relation)
        assert dp.PLD().epsilon(dp.Ledger.of(entries, relation), 1e-5) > 0
    else:
        with pytest.raises(dp.Refused):
            dp.Plan(dp.DPSGD(), value, relation=relation)


@named(ACCOUNTANTS)
def test_an_accountant_keeps_order_and_never_leaves_its_range(value):
    def price(noise, steps, delta=1e-5):
        return value.epsilon(dp.Ledger.of([(dp.Gaussian(noise), steps)]), delta)

    assert value.epsilon(dp.Ledger.of([]), 1e-5) == 0.0
    assert price(0.0, 1) == math.inf
    assert 0 < price(4.0, 10) < price(2.0, 10) < math.inf
    assert price(4.0, 10) < price(4.0, 20)
    assert price(4.0, 10, 1e-5) <= price(4.0, 10, 1e-7)
    assert price(4.0, 10) == price(4.0, 10), "asking twice changes nothing"
    bounds = value.bounds(dp.Ledger.of([(dp.Gaussian(4.0), 10)]), 1e-5)
    assert bounds.lower <= bounds.estimate <= bounds.upper
    for delta in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="delta"):
            price(4.0, 10, delta)


@named([a for a in ACCOUNTANTS if a.is_bound])
def test_a_bound_is_not_below_the_exact_value(value):
    for noise, steps in [(4.0, 10), (1.0, 1), (20.0, 400)]:
        exact = dp.PLD().epsilon(dp.Ledger.of([(dp.Gaussian(noise / math.sqrt(steps)), 1)]), 1e-5)
        found = value.epsilon(dp.Ledger.of([(dp.Gaussian(noise), steps)]), 1e-5)
        assert found >= exact * (1 - 1e-9)


@named(METHODS)
def test_a_method_is_priced_scaled_stored_and_has_sliders(value):
    plan = dp.Plan(value, dp.Poisson(0.1, 10))
    assert value.releases(3) == value.releases(3), "releases are a pure function"
    assert dp.Plan(value.scaled(2.0), dp.Poisson(0.1, 10)).epsilon() < plan.epsilon()
    assert plan_from_json(plan_to_json(plan)).epsilon() == plan.epsilon()
    json.loads(plan_to_json(plan))
    for path, declared, _ in every_knob(value):
        low, high = declared.slider or (declared.low, declared.high)
        assert math.isfinite(low) and math.isfinite(high), f"{path} needs a range for its slider"
