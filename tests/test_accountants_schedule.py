"""Long schedules: blends of a few noises against every noise as it is."""

import math
import time

import numpy as np
import pytest
from scipy.special import ndtr

from dpkit.accountants import PLD, RDP, contour, schedule
from dpkit.mechanisms import (
    FixedSizeGaussian,
    Gaussian,
    Laplace,
    Ledger,
    ReplacedGaussian,
    SubsampledGaussian,
)

DELTA = 1e-5


def noises(count, low, high, rate=0.01):
    return tuple(SubsampledGaussian(rate, float(s)) for s in np.geomspace(low, high, count))


def once(mechanisms):
    return np.ones((1, len(mechanisms)), dtype=np.int64)


def sides(mechanisms, counts, delta=DELTA):
    return tuple(float(schedule.epsilons(mechanisms, counts, delta, up)[0]) for up in (False, True))


@pytest.mark.parametrize(
    "rate, low, high, count, times, delta",
    [
        (0.02, 0.7, 3.0, 120, 4, 1e-5),
        (0.01, 1.0, 1.2, 60, 10, 1e-6),
        (0.005, 0.5, 0.9, 80, 10, 1e-5),
        (0.2, 2.0, 10.0, 100, 5, 1e-5),
        (0.001, 0.4, 0.6, 50, 40, 1e-5),
        (0.01, 1.0, 8.0, 120, 10, 1e-9),
        (0.5, 30.0, 90.0, 60, 20, 1e-3),
    ],
)
def test_both_sides_hold_the_schedule_as_it_is(rate, low, high, count, times, delta):
    mechanisms = noises(count, low, high, rate)
    counts = times * once(mechanisms)
    exact = PLD().epsilon(Ledger(tuple((m, times) for m in mechanisms)), delta)
    below, above = sides(mechanisms, counts, delta)
    assert below <= exact <= above
    assert above <= exact * 1.005 and below >= exact * 0.98


@pytest.mark.parametrize("backward", [False, True])
def test_each_direction_alone_lies_between_its_blends(backward):
    mechanisms = noises(80, 0.6, 1.5, 0.01)
    counts = 10 * once(mechanisms)
    turned = tuple(m.reverse if backward else m for m in mechanisms)
    exact = contour.epsilons(turned, counts, DELTA)[0]
    for upper, sign in ((True, 1), (False, -1)):
        blends = schedule.blended(mechanisms, counts, upper)
        blends = blends.reverse() if backward else blends
        found = contour.epsilons(blends, blends.weight, DELTA)[0]
        assert sign * (found - exact) > 0


@pytest.mark.parametrize("sigma", np.geomspace(schedule._LEAST, 40, 37))
@pytest.mark.parametrize("rate", [0.003, 0.6])
def test_a_blends_profile_lies_above_or_below(sigma, rate):
    """The theorem, release by release: chords above, chords prolonged below, in both directions."""
    eps = np.linspace(-3, 12, 400)
    for nudge in (1.0, 1.003, 1.007, 1.013, 1.018, 1.0215):
        pair = SubsampledGaussian(rate, float(sigma * nudge))
        for upper, sign in ((True, 1), (False, -1)):
            ((first, second),), _, (share,) = schedule._cells([pair], upper)
            for one, a, b in ((pair, first, second), *_turned(pair, first, second)):
                blend = (1 - share) * a.profile(eps) + share * b.profile(eps)
                assert np.all(sign * (blend - one.profile(eps)) >= -1e-13)
            assert (0 <= share <= 1) if upper else (-1 - 1e-9 <= share <= 0)
            if not upper:  # the prolonged chord is a pair: (1 - w) p_a >= -w p_b everywhere
                a, b = first.noise_multiplier, second.noise_multiplier
                most = b / a * math.exp((a**-2 - b**-2) / 8)
                assert -share * most <= 1 - share


def _turned(*pairs):
    return (tuple(pair.reverse for pair in pairs),)


def test_the_ratio_of_two_noises_loss_densities_is_bounded():
    """... by b/a e^((1/a^2 - 1/b^2)/8), against the masses of small cells of the loss."""
    rate, a, b = 0.05, 0.5, 0.5 * 2 ** (1 / schedule.CELLS)
    loss = np.linspace(math.log1p(-rate) + 1e-3, 6, 2000)

    def mass(sigma):
        x = sigma**2 * np.log1p(np.expm1(loss) / rate) + 0.5
        return np.diff(ndtr(x / sigma))

    most = b / a * math.exp((a**-2 - b**-2) / 8)
    kept = mass(a) > 1e-10
    ratio = mass(b)[kept] / mass(a)[kept]
    assert most * 0.99 < ratio.max() <= most * (1 + 1e-6)


def test_a_thousand_noises_and_more_are_blended():
    mechanisms = noises(1200, 0.8, 2.0)
    ledger = Ledger(tuple((m, 1) for m in mechanisms))
    value, bounds = PLD().epsilon(ledger, DELTA), PLD().bounds(ledger, DELTA)
    half = Ledger(tuple((m, 2) for m in mechanisms[::2]))  # exact, of a little less noise
    near = PLD().epsilon(half, DELTA)
    assert near * 0.999 <= value <= near * 1.003
    assert bounds.lower < bounds.estimate == value <= bounds.upper
    assert bounds.upper - bounds.lower < 0.01 * value and "blends" in bounds.method
    assert PLD().delta(ledger, value) == pytest.approx(DELTA, rel=1e-6)
    assert RDP().epsilon(ledger, DELTA) > bounds.upper
    turned = Ledger(ledger.entries[::-1])
    assert PLD().epsilon(turned, DELTA) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("upper", [True, False])
def test_the_sums_are_those_of_every_blends_logarithm(upper):
    mechanisms = noises(30, 0.9, 1.2, 0.3)
    counts = np.arange(30)[None, :] + np.array([[1], [7]])
    blends = schedule.blended(mechanisms, counts, upper)
    cells, index, share = schedule._cells(mechanisms, upper)
    for z in (np.array([0.5, 1.0, 2.0]), 1.5 + 1j * np.linspace(0, 3, 7)):
        first, second = (
            np.exp(np.array([cell[k].log_moment(z) for cell in cells]))[index] for k in (0, 1)
        )
        every = np.log((1 - share)[:, None] * first + share[:, None] * second)
        assert blends.total(blends.weight, z) == pytest.approx(counts @ every, rel=1e-11)


def test_the_dearer_direction_is_found():
    mechanisms = (*noises(20, 2.0, 3.0), SubsampledGaussian(0.05, 0.7).reverse)
    counts = np.append(np.ones(20, dtype=np.int64), 60)[None, :]
    ledger = Ledger(tuple(zip(mechanisms, counts[0].tolist(), strict=True)))
    below, above = sides(mechanisms, counts)
    assert below <= PLD().epsilon(ledger, DELTA) <= above <= below * 1.01


def test_a_curve_over_a_long_schedule():
    mechanisms = noises(1500, 2.0, 0.8)
    ends = np.array([0, 1, 40, 600, 1100, 1500])
    counts = (np.arange(1500)[None, :] < ends[:, None]).astype(np.int64)
    curve = PLD().curve(mechanisms, counts, DELTA)
    assert curve[0] == 0.0 and np.all(np.diff(curve) > -1e-12)
    for end, value in zip(ends[1:].tolist(), curve[1:], strict=True):
        alone = PLD().epsilon(Ledger(tuple((m, 1) for m in mechanisms[:end])), DELTA)
        assert alone * (1 - 1e-9) - 1e-12 <= value <= alone * 1.005 + 1e-6


def test_other_releases_are_taken_along():
    mechanisms = (
        *noises(1100, 0.9, 1.8),
        Gaussian(15.0),
        Gaussian(20.0),
        ReplacedGaussian(0.01, 3.0),
    )
    counts = np.append(np.ones(1100, dtype=np.int64), [1, 2, 900])
    value = PLD().epsilon(Ledger.of(zip(mechanisms, counts.tolist(), strict=True)), DELTA)
    few = mechanisms[:1100:10] + mechanisms[1100:]
    below = Ledger.of(zip(few, [10] * 110 + [1, 2, 900], strict=True))
    assert value == pytest.approx(PLD().epsilon(below, DELTA), rel=0.01)
    without = PLD().epsilon(Ledger(tuple((m, 1) for m in mechanisms[:1100])), DELTA)
    assert value > without * 1.02


def test_unsampled_noises_add_up_in_closed_form():
    sigmas = np.geomspace(40.0, 200.0, 3000)
    ledger = Ledger(tuple((Gaussian(float(s)), 1) for s in sigmas))
    whole = Ledger(((Gaussian(float(np.sum(sigmas**-2.0) ** -0.5)), 1),))
    bounds, exact = PLD().bounds(ledger, DELTA), PLD().epsilon(whole, DELTA)
    assert PLD().epsilon(ledger, DELTA) == pytest.approx(exact, rel=1e-12)
    assert bounds.lower <= exact <= bounds.upper <= bounds.lower * (1 + 1e-7)
    assert PLD().delta(ledger, exact) == pytest.approx(DELTA, rel=1e-9)
    assert PLD().epsilon(ledger + Ledger(((Gaussian(0.0), 1),)), DELTA) == math.inf


@pytest.mark.parametrize(
    "odd", [Laplace(3.0), FixedSizeGaussian(0.01, 2.0), SubsampledGaussian(0.01, 0.05)], ids=repr
)
def test_what_cannot_be_blended_is_left_to_others(odd):
    mechanisms = (*noises(20, 0.9, 1.8), odd)
    assert np.isnan(schedule.epsilons(mechanisms, once(mechanisms), DELTA)).all()
    assert np.isnan(
        schedule.epsilons(noises(20, 0.9, 1.8), 10**4 * once(noises(20, 1, 2)), DELTA)
    ).all()


def test_ten_thousand_noises_are_priced_in_a_moment():
    ledger = Ledger(tuple((m, 1) for m in noises(10_000, 0.8, 2.0)))
    taken = []
    for _ in range(3):
        schedule._moments.cache_clear()
        start = time.process_time()
        PLD().epsilon(ledger, DELTA)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.5  # a tenth of a second on a machine of its own
