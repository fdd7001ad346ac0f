"""Samplers: they draw what they charge."""

import numpy as np
import pytest
from scipy import stats

import dpkit as dp
from dpkit.mechanisms import Access, Gaussian, Laplace, Neighbours, Release
from dpkit.samplers import Blocks


def test_blocks_cover_all_steps_in_order():
    blocks = Blocks(10, 4)
    assert [list(b) for b in blocks] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(Blocks(10_000_000)) == 10_000_000 and blocks[-1] == range(8, 10)
    with pytest.raises(IndexError):
        blocks[3]


@pytest.mark.parametrize(
    ("num_examples", "rate"),
    [(1000, 0.02), (1000, 0.6), (50, 0.1), (7, 1.0), (1, 0.5), (300, 1e-3)],
)
def test_poisson_batches_are_independent_coins(num_examples, rate):
    steps = 4000
    rng = np.random.default_rng(1)
    counts = np.zeros(num_examples)
    sizes = []
    for batch in dp.Poisson(rate, steps).batches(num_examples, rng):
        assert len(np.unique(batch)) == len(batch)
        assert ((batch >= 0) & (batch < num_examples)).all()
        counts[batch] += 1
        sizes.append(len(batch))
    law = stats.binom(num_examples, rate)
    assert abs(np.mean(sizes) - law.mean()) <= 5 * law.std() / np.sqrt(steps) + 1e-12
    spread = np.var(sizes)
    assert abs(spread - law.var()) <= 6 * max(law.var(), 0.02) * np.sqrt(3 / steps)
    # Every record, the first and the last included, joins at the same rate.
    each = stats.binom(steps, rate)
    assert (abs(counts - each.mean()) <= 5.5 * each.std() + 1e-12).all()


def test_the_smallest_rates_do_not_overflow():
    batches = list(dp.Poisson(1e-18, 50).batches(10, np.random.default_rng(0)))
    assert [len(b) for b in batches] == [0] * 50


def test_batches_repeat_with_the_stream_and_differ_between_steps():
    sampler = dp.Poisson(0.05, 20)
    first = list(sampler.batches(500, np.random.default_rng(3)))
    again = list(sampler.batches(500, np.random.default_rng(3)))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len({tuple(b) for b in first}) == 20


def test_sampled_releases_are_amplified_and_others_are_not():
    sampler, relation = dp.Poisson(0.01, 5), Neighbours.ADD_REMOVE
    seen = (Release(Gaussian(2.0)), Release(Gaussian(7.0), count=3, access=Access.ALL))
    entries = sampler.charge([seen], relation)
    assert entries[1] == (Gaussian(7.0), 3)
    assert entries[0][0].sample_rate == 0.01 and entries[0][0].noise_multiplier == 2.0


def test_releases_on_one_batch_share_its_coin():
    sampler, relation = dp.Poisson(0.01, 5), Neighbours.ADD_REMOVE
    twice = sampler.charge([(Release(Gaussian(2.0)), Release(Gaussian(2.0)))], relation)
    counted = sampler.charge([(Release(Gaussian(2.0), count=2),)], relation)
    assert twice == counted and len(twice) == 1
    assert twice[0][0].noise_multiplier == pytest.approx(2.0 / np.sqrt(2))
    with pytest.raises(dp.Refused, match="only if all are Gaussian"):
        sampler.charge([(Release(Laplace(2.0)), Release(Gaussian(2.0)))], relation)
