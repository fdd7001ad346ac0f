"""D. The fingerprint of a sampler: what it draws is told apart from what it might be taken for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import dpkit as dp
from tests.privacy import cases

N, T, EPOCHS = 1000, 50, 40
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


POISSON = Print(N * Q * (1 - Q), T * Q * (1 - Q), (1 - Q) ** T, 1 - (1 - Q * Q) ** T)
FIXED_SIZE = Print(0.0, 0.97, 0.364, 0.019)
RESHUFFLE = Print(0.0, 0.0, 0.0, 0.019)
SHUFFLE_ONCE = Print(0.0, 0.0, 0.0, 1.0)
BALLS_IN_BINS = Print(N * Q * (1 - Q), 0.0, 0.0, 0.02)

FINGERPRINTS: list[tuple[Callable[[], dp.Sampler], Print]] = [
    (lambda: dp.Poisson(Q, T * EPOCHS), POISSON),
]
"""Every sampler, at N = 1000 and 50 steps an epoch over 40 epochs, and its fingerprint."""


def measured(batches: list[np.ndarray]) -> Print:
    """The fingerprint of batches."""
    sizes = np.array([len(b) for b in batches])
    counts = np.zeros((EPOCHS, N))
    where = [[[] for _ in range(N)] for _ in range(EPOCHS)]
    for step, batch in enumerate(batches):
        np.add.at(counts[step // T], batch, 1)
        for record in batch:
            where[step // T][record].append(step)
    again, met = 0, 0
    for epoch in range(EPOCHS - 1):
        here = [set(steps) for steps in where[epoch + 1]]
        for step in range(epoch * T, epoch * T + T, 5):
            batch = batches[step][:12]
            for i, a in enumerate(batch):
                for b in batch[:i]:
                    met += 1
                    again += bool(here[a] & here[b])
    variance = float(counts.var(axis=1).mean())
    return Print(float(sizes.var()), variance, float((counts == 0).mean()), again / max(met, 1))


@pytest.mark.parametrize("made, law", FINGERPRINTS, ids=lambda v: type(v).__name__)
def test_a_sampler_leaves_its_own_fingerprint(made, law):
    batches = list(made().batches(N, np.random.default_rng(5)))
    assert len(batches) == T * EPOCHS
    assert all(len(np.unique(b)) == len(b) for b in batches), "a record twice in a batch"
    found = measured(batches)
    assert abs(found.sizes - law.sizes) < 5 * law.sizes * np.sqrt(2 / len(batches)) + 1e-9
    assert found.participations == pytest.approx(law.participations, rel=0.035, abs=1e-9)
    assert found.none == pytest.approx(law.none, abs=5 * np.sqrt(0.25 / (N * EPOCHS)))
    assert found.meet == pytest.approx(law.meet, abs=0.008)


def _fixed(rng):
    return [rng.choice(N, N // T, replace=False) for _ in range(T * EPOCHS)]


def _reshuffled(rng):
    return [b for _ in range(EPOCHS) for b in np.split(rng.permutation(N), T)]


def _once(rng):
    return np.split(rng.permutation(N), T) * EPOCHS


def _balls(rng):
    bins = [rng.integers(0, T, N) for _ in range(EPOCHS)]
    return [np.flatnonzero(bins[e] == t) for e in range(EPOCHS) for t in range(T)]


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
    """Every record joins at the rate that the ledger states, at five sigma; so does the pair."""
    entries = sampler.charge([(dp.Release(dp.Gaussian(1.0)),)], sampler.relations[0])
    charged = getattr(entries[0][0], "sample_rate", 1.0)
    counts, runs = np.zeros(200), 400
    for seed in range(runs):
        for batch in sampler.batches(200, np.random.default_rng(seed)):
            np.add.at(counts, batch, 1)
    trials = runs * sampler.steps
    spread = np.sqrt(charged * (1 - charged) / trials)
    assert np.all(abs(counts / trials - charged) <= 5.5 * spread)
    assert abs(counts.mean() / trials - charged) <= 5 * spread / np.sqrt(200)


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
