"""Calibration: never above the target, never more than 0.5% below it; long schedules."""

import math

import numpy as np
import pytest

from dpkit.accountants import (
    GDP,
    PLD,
    RDP,
    ZCDP,
    Moments,
    YuRandomSampling,
    noise_for_epsilon,
    sample_rate_for_epsilon,
    steps_for_epsilon,
)
from dpkit.accountants.gathering import MOST, gathered
from dpkit.mechanisms import (
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    Ledger,
    Neighbours,
    PoissonSampling,
    Refused,
    SubsampledGaussian,
)

RELATIONS = (Neighbours.ADD_REMOVE, Neighbours.REPLACE_ONE)
SETTINGS = [  # epsilon, delta, q, T
    (3.0, 1e-5, 256 / 60_000, 14_040),
    (0.5, 1e-6, 0.01, 1_000),
    (8.0, 1e-9, 0.05, 300),
    (0.05, 1e-4, 1e-3, 50),
    (1.0, 1e-5, 1.0, 20),
]


def priced(q, sigma, steps, delta, relation, accountant):
    pair = Gaussian(sigma).pair(relation, PoissonSampling(q))
    return accountant.epsilon(Ledger(((pair, steps),), relation), delta)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("accountant", [PLD(), RDP(), ZCDP()], ids=lambda a: a.name)
@pytest.mark.parametrize("epsilon, delta, q, steps", SETTINGS)
def test_noise_steps_and_rate_keep_their_target(epsilon, delta, q, steps, accountant, relation):
    options = dict(delta=delta, relation=relation, accountant=accountant)
    sigma = noise_for_epsilon(epsilon, sample_rate=q, steps=steps, **options)
    if epsilon == 0.05 and not isinstance(accountant, PLD):
        # A step of the listed orders falls here: their epsilon jumps by a sixth as noise grows.
        assert priced(q, sigma, steps, delta, relation, accountant) <= epsilon
        return
    assert 0.995 * epsilon <= priced(q, sigma, steps, delta, relation, accountant) <= epsilon
    count = steps_for_epsilon(epsilon, sample_rate=q, noise_multiplier=sigma, **options)
    assert count >= steps  # the noise was chosen for as many
    assert priced(q, sigma, count, delta, relation, accountant) <= epsilon
    assert priced(q, sigma, count + 1, delta, relation, accountant) > epsilon
    rate = sample_rate_for_epsilon(epsilon, noise_multiplier=sigma, steps=steps, **options)
    value = priced(rate, sigma, steps, delta, relation, accountant)
    assert value <= epsilon and (rate == 1.0 or value >= 0.995 * epsilon)


@pytest.mark.parametrize("accountant", [GDP(), YuRandomSampling()], ids=lambda a: a.name)
def test_an_estimate_sets_no_budget(accountant):
    options = dict(delta=1e-5, accountant=accountant)
    words = "gives an estimate, not a bound, and sets no budget; calibrate with PLD"
    with pytest.raises(Refused, match=words):
        noise_for_epsilon(2.0, sample_rate=0.01, steps=1000, **options)
    with pytest.raises(Refused, match=words):
        steps_for_epsilon(2.0, sample_rate=0.01, noise_multiplier=1.0, **options)
    with pytest.raises(Refused, match=words):
        sample_rate_for_epsilon(2.0, noise_multiplier=1.0, steps=1000, **options)


def test_the_ends_of_calibration():
    loud = dict(delta=1e-5, sample_rate=0.5)
    assert steps_for_epsilon(0.1, noise_multiplier=0.0, **loud) == 0
    assert steps_for_epsilon(0.1, noise_multiplier=0.3, **loud) == 0
    assert steps_for_epsilon(9.0, noise_multiplier=1e3, delta=1e-5, sample_rate=1e-9) > 10**10
    assert sample_rate_for_epsilon(9.0, delta=1e-5, noise_multiplier=50.0, steps=3) == 1.0
    for accountant in (PLD(), Moments()):
        count = steps_for_epsilon(
            2.0, delta=1e-5, sample_rate=0.01, noise_multiplier=4.0, accountant=accountant
        )
        assert count > 1000


def test_noise_is_rounded_to_the_side_that_keeps_the_bound():
    sigma = np.linspace(0.8, 2.0, 3 * MOST)
    pairs = [SubsampledGaussian(0.005, float(s)) for s in sigma]
    counts = np.stack([np.arange(len(pairs)), np.ones(len(pairs), dtype=int)])
    for up in (False, True):
        few, total = gathered([*pairs, Laplace(3.0)], np.pad(counts, ((0, 0), (0, 1))), 100, up)
        assert len(few) <= 100 and np.array_equal(total.sum(axis=1), counts.sum(axis=1))
        assert few[-1] == Laplace(3.0)
        noises = np.array([pair.noise_multiplier for pair in few[:-1]])
        # The k-th smallest noise before is never above (up: below) the one it became.
        before, after = np.repeat(sigma, counts[1]), np.sort(np.repeat(noises, total[1, :-1]))
        assert np.all(after >= before) if up else np.all(after <= before)
        assert np.all(np.abs(np.log(after / before)) < 0.03)
    kept, same = gathered(pairs[:50], counts[:, :50])
    assert kept == tuple(pairs[:50]) and same is not None
    odd, _ = gathered([FixedSizeGaussian(0.1, float(s)) for s in sigma], counts, 50)
    assert all(isinstance(pair, FixedSizeGaussian) for pair in odd)


def test_a_schedule_of_ten_thousand_noises():
    """Between two schedules of few noises, one louder and one quieter at every step."""
    sigma = np.linspace(0.8, 2.0, 10_000)
    ledger = Ledger.of([(SubsampledGaussian(0.005, float(s)), 1) for s in sigma])
    parts = sigma.reshape(200, 50)
    sides = [
        Ledger.of([(SubsampledGaussian(0.005, float(s)), 50) for s in part])
        for part in (parts[:, -1], parts[:, 0])
    ]
    low, high = (PLD().epsilon(side, 1e-5) for side in sides)
    value = PLD().epsilon(ledger, 1e-5)
    assert low < value < high and high - low < 0.02 * high
    # 2.1130865 without any rounding (one contour over all ten thousand, half a minute).
    assert 2.1130865 <= value <= 2.1130865 * 1.003
    assert RDP().epsilon(ledger, 1e-5) > value and math.isfinite(value)
