"""D. The fingerprint of a sampler: what it draws is told apart from what it might be taken for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest

import dpkit as dp
from tests.privacy import cases

N, T, EPOCHS = 1000, 50, 10_000 if cases.LONG else 40
FEW = 40
Q = 1 / T


@dataclass(frozen=True)
class Print:
    """Expected variance of batch sizes and of participations in an epoch, P(none), P(meet again).

    `meet` is the chance that a pair that met in one epoch meets again in the next.
    """

    sizes: float
    participations: float
    none: float
    meet: float


L = N // T
POISSON = Print(N * Q * (1 - Q), T * Q * (1 - Q), (1 - Q) ** T, 1 - (1 - Q * Q) ** T)
TOGETHER = L * (L - 1) / (N * (N - 1))
FIXED_SIZE = Print(0.0, T * Q * (1 - Q), (1 - Q) ** T, 1 - (1 - TOGETHER) ** T)
RESHUFFLE = Print(0.0, 0.0, 0.0, (L - 1) / (N - 1))
SHUFFLE_ONCE = Print(0.0, 0.0, 0.0, 1.0)
BALLS_IN_BINS = Print(N * Q * (1 - Q), 0.0, 0.0, Q)

FINGERPRINTS: list[tuple[Callable[[], dp.Sampler], Print]] = [
    (lambda: dp.Poisson(Q, T * EPOCHS), POISSON),
    (lambda: dp.Shuffle(T, EPOCHS), RESHUFFLE),
    (lambda: dp.FixedSize(L, N, T * EPOCHS), FIXED_SIZE),
    (lambda: dp.BallsInBins(T, EPOCHS), BALLS_IN_BINS),
    (lambda: dp.TruncatedPoisson(Q, T * EPOCHS, 70, N), POISSON),
    (lambda: dp.Partition(T, EPOCHS), SHUFFLE_ONCE),
]
"""Every sampler, at N = 1000 and 50 steps an epoch, and its fingerprint; long: 10,000 epochs."""


def measured(batches: Iterable[np.ndarray]) -> Print:
    """The fingerprint of batches; the steps of a record in an epoch are the bits of a number."""
    sizes, variances, none, again, met = [], [], [], 0, 0
    counts, seen, pairs = np.zeros(N), np.zeros(N, dtype=np.uint64), None
    upper = np.triu_indices(12, 1)
    found: list[np.ndarray] = []
    for step, batch in enumerate(batches):
        assert len(np.unique(batch)) == len(batch), "a record twice in a batch"
        sizes.append(len(batch))
        counts[batch] += 1
        seen[batch] |= np.uint64(1 << step % T)
        if step % 5 == 0:
            some = batch[:12]
            keep = upper[1] < len(some)
            found.append(np.stack([some[upper[0][keep]], some[upper[1][keep]]]))
        if (step + 1) % T == 0:
            if pairs is not None:
                again += int(np.count_nonzero(seen[pairs[0]] & seen[pairs[1]]))
                met += pairs.shape[1]
            variances.append(counts.var())
            none.append(np.mean(counts == 0))
            pairs, found = np.concatenate(found, axis=1), []
            counts, seen = np.zeros(N), np.zeros(N, dtype=np.uint64)
    return Print(float(np.var(sizes)), float(np.mean(variances)), float(np.mean(none)),
                 again / max(met, 1))  # fmt: skip


@pytest.mark.parametrize("made, law", FINGERPRINTS, ids=lambda v: type(v).__name__)
def test_a_sampler_leaves_its_own_fingerprint(made, law):
    sampler = made()
    found = measured(sampler.batches(N, np.random.default_rng(5)))
    fewer = np.sqrt(FEW / EPOCHS)
    assert abs(found.sizes - law.sizes) < 5 * law.sizes * np.sqrt(2 / sampler.steps) + 1e-9
    assert found.participations == pytest.approx(law.participations, rel=0.035 * fewer, abs=1e-9)
    assert found.none == pytest.approx(law.none, abs=5 * np.sqrt(0.25 / (N * EPOCHS)) + 1e-12)
    assert found.meet == pytest.approx(law.meet, abs=0.008 * fewer + 1e-12)


def _fixed(rng):
    return [rng.choice(N, N // T, replace=False) for _ in range(T * FEW)]


def _reshuffled(rng):
    return [b for _ in range(FEW) for b in np.split(rng.permutation(N), T)]


def _once(rng):
    return np.split(rng.permutation(N), T) * FEW


def _balls(rng):
    bins = [rng.integers(0, T, N) for _ in range(FEW)]
    return [np.flatnonzero(bins[e] == t) for e in range(FEW) for t in range(T)]


@pytest.mark.parametrize("draw, law", [(_fixed, FIXED_SIZE), (_reshuffled, RESHUFFLE),
                                       (_once, SHUFFLE_ONCE), (_balls, BALLS_IN_BINS)],
                         ids=lambda v: getattr(v, "__name__", ""))  # fmt: skip
def test_the_fingerprint_tells_the_schemes_apart(draw, law):
    """The measuring itself: each scheme shows its own print, and none shows Poisson's."""
    found = measured(draw(np.random.default_rng(6)))
    assert found.sizes == pytest.approx(law.sizes, abs=3.5)
    assert found.participations == pytest.approx(law.participations, abs=0.03)
    assert found.none == pytest.approx(law.none, abs=0.015)
    assert found.meet == pytest.approx(law.meet, abs=0.008)
    poisson = np.array([POISSON.sizes / 20, POISSON.participations, POISSON.none])
    distance = abs(np.array([found.sizes / 20, found.participations, found.none]) - poisson)
    assert distance.max() > 0.3


@pytest.mark.parametrize("sampler", cases.SAMPLERS, ids=cases.named)
def test_the_charged_rate_is_the_rate_that_is_drawn(sampler):
    """Every record joins every step at the rate that the ledger states, at five sigma."""
    plan = dp.Plan(dp.DPSGD(1.0), sampler, 1e-3, sampler.relations[0])
    sampler, charged = plan.sampler, []
    for group in sampler.groups():
        pair = plan._charges.of(group)[0][0]
        rate = getattr(pair, "sample_rate", 1.0 / getattr(pair, "batches", len(group)))
        charged += [rate] * len(group)
    charged = np.array(charged)[:, None]
    records, runs = getattr(sampler, "num_examples", 120), 500
    counts = np.zeros((sampler.steps, records))
    for seed in range(runs):
        for step, batch in enumerate(sampler.batches(records, np.random.default_rng(seed))):
            counts[step, batch] += 1
    spread = np.sqrt(charged * (1 - charged) / runs)
    assert np.all(abs(counts / runs - charged) <= 5.5 * spread)
    assert np.all(abs(counts.mean(axis=0) / runs - charged.mean()) <= 5.5 * spread.max())
    # In the mean over records no rate is rounded: sizes that are fixed are exactly N q.
    mean = counts.mean(axis=1, keepdims=True) / runs
    assert np.all(abs(mean - charged) <= 5 * spread / np.sqrt(records))


def test_rates_are_not_rounded():
    """q N = 2.5 is 2.5 records on average, not 2 and not 3."""
    sizes = [len(b) for b in dp.Poisson(0.0025, 8000).batches(1000, np.random.default_rng(0))]
    assert np.mean(sizes) == pytest.approx(2.5, abs=5 * np.sqrt(2.5 / 8000))
    assert dp.Poisson(0.0025, 1).expected_batch(1000) == 2.5


@pytest.mark.parametrize("sampler", cases.SAMPLERS, ids=cases.named)
@pytest.mark.parametrize("accountant", cases.ACCOUNTANTS, ids=cases.named)
def test_a_pair_is_priced_or_refused_in_words(sampler, accountant):
    """What an accountant cannot do with a sampler, it says, and names what can."""
    for relation in dp.Neighbours:
        try:
            plan = dp.Plan(dp.DPSGD(1.0), sampler, 1e-5, relation, accountant=accountant)
            assert plan.epsilon() > 0
        except dp.Refused as refusal:
            assert any(word in str(refusal) for word in ("PLD", "allowed", "use ")), refusal


def test_wrong_pairs_are_refused_with_the_right_one_named():
    fixed = dp.mechanisms.FixedSizeSampling(0.1)
    with pytest.raises(dp.Refused, match="Poisson sampling, or neighbours that replace"):
        dp.Gaussian(1.0).pair(dp.Neighbours.ADD_REMOVE, fixed)
    with pytest.raises(dp.Refused, match="use Poisson"):
        dp.Laplace(1.0).pair(dp.Neighbours.REPLACE_ONE, dp.mechanisms.PoissonSampling(0.1))
    poisson = dp.Gaussian(1.0).pair(dp.Neighbours.REPLACE_ONE, dp.mechanisms.PoissonSampling(0.1))
    subset = dp.Gaussian(1.0).pair(dp.Neighbours.REPLACE_ONE, fixed)
    price = dp.PLD().epsilon
    of = dp.Ledger.of
    there = price(of([(subset, 100)], dp.Neighbours.REPLACE_ONE), 1e-5)
    assert there > 1.5 * price(of([(poisson, 100)], dp.Neighbours.REPLACE_ONE), 1e-5)


def test_no_scheme_is_charged_as_another():
    """Each scheme at N = 1000, 50 steps an epoch, 4 epochs, against Poisson's price at q = 1/50."""
    steps, method = 4 * T, dp.DPSGD(2.0)

    def price(sampler, relation):
        return dp.Plan(method, sampler, 1e-5, relation).epsilon()

    zero, replace = dp.Neighbours.ZERO_OUT, dp.Neighbours.REPLACE_ONE
    poisson = {r: price(dp.Poisson(Q, steps), r) for r in (zero, replace)}
    known = dp.PLD().epsilon(dp.Ledger.of([(dp.Gaussian(2.0), 4)]), 1e-5)
    twice = dp.PLD().epsilon(dp.Ledger.of([(dp.Gaussian(1.0), 4)]), 1e-5)
    for disjoint in (dp.Shuffle(T, 4), dp.Partition(T, 4)):
        assert price(disjoint, zero) == pytest.approx(known, rel=1e-9)
        assert price(disjoint, replace) == pytest.approx(twice, rel=1e-9)
    assert known > 5 * poisson[zero] and twice > 5 * poisson[replace]
    assert price(dp.FixedSize(L, N, steps), replace) > 1.2 * poisson[replace]
    odd = dp.FixedSize(3, 8, 1).charge([(dp.Release(dp.Gaussian(2.0)),)], replace)
    assert odd[0][0].sample_rate == 3 / 8
    bins = price(dp.BallsInBins(T, 4), zero)
    assert 0.7 * poisson[zero] < bins < 0.99 * poisson[zero]
    cut = dp.TruncatedPoisson(Q, steps, 45, N)
    assert 1e-6 < steps * cut.overflow < 1e-3
    assert dp.Plan(method, cut, 0.9 * steps * cut.overflow).epsilon() == np.inf
    waves = dp.DPSGD(lambda step: 3.0 if step % T else 2.0)
    assert dp.Plan(waves, dp.Shuffle(T, 4), 1e-5).epsilon() == pytest.approx(known, rel=1e-9)
