"""The batching lesson: what it shows was drawn, what it claims is bounded, what it audits leaks."""

import numpy as np
import pytest
from scipy import stats

import dpkit as dp
from dpkit.auditing import BatchAttack
from dpkit.figures import batching as figures
from dpkit.widgets import batching as lesson


@pytest.fixture
def panel(request):
    made = request.param()
    yield made
    made.close()


def given(kind):
    return pytest.mark.parametrize("panel", [kind], indirect=True, ids=[kind.__name__])


@given(lesson.BatchesPanel)
def test_the_raster_is_what_the_sampler_draws(panel):
    for name in lesson.SCHEMES:
        panel.turn(scheme=name)
        panel.check()
        seen, sampler = panel.seen, panel.sampler
        assert type(sampler).__name__ == name and seen.shape == (60, sampler.steps)
        again = list(sampler.batches(60, np.random.default_rng(0)))
        assert [np.flatnonzero(column).tolist() for column in seen.T] == [b.tolist() for b in again]
        shown = np.array(panel.plots["raster"].figure["data"][0]["z"])
        assert ((shown > 0) == seen).all()
    before = panel.seen
    panel.turn(scheme="Poisson")
    panel.controls["again"].click("again")
    assert not np.array_equal(panel.seen, before)


@given(lesson.BandsPanel)
def test_four_bands_of_one_run_under_one_relation(panel):
    panel.join()
    panel.check()
    assert all(plan.neighbours is dp.Neighbours.ZERO_OUT for plan in panel.plans)
    assert len({plan.steps for plan in panel.plans}) == 1
    poisson, bins, shuffle, fixed = panel.rows
    assert poisson.high == pytest.approx(1.32968, abs=1e-4) and poisson.low > 1.32
    assert bins.high == pytest.approx(1.2886, abs=1e-3) and bins.low > 1.287
    assert shuffle.high == pytest.approx(11.48, abs=1e-2) and 1.97 < shuffle.low < 2.0
    assert fixed.low < poisson.high < fixed.high < shuffle.high
    assert shuffle.claimed == fixed.claimed == poisson.high < shuffle.low
    assert "replace one record by a null" in panel.table.value
    for text in (panel.said.text, panel.plots["bands"].summary):
        assert "1.98" in text and "11.5" in text and "1.99" not in text, "rounded outward"
    assert "dpkit can prove nothing below **11.5** for it." in panel.said.text
    assert "1.985" in panel.table.value and "11.49" in panel.table.value
    panel.turn(noise=1.0, epochs=1)
    panel.join()
    assert panel.rows[2].low > 3.5 * panel.rows[0].high and "11.49" not in panel.table.value
    figure = figures.bands(panel.rows, (0.02, 400.0))
    assert len(figure["data"]) == 6 and len(figure["layout"]["annotations"]) == 4


@given(lesson.LeakPanel)
def test_a_shuffled_run_leaks_more_than_its_poisson_claim(panel):
    panel.join()
    panel.check()
    last = panel.watched[-1]
    poisson = panel.attack.poisson_claim(0.01)
    assert len(last.present) == len(last.absent) == 4000 and last.delta == 0.01
    assert poisson < last.epsilon < panel.attack.claim(0.01)
    assert "is false" in panel.said.text
    shown = dp.plan.round_down(last.epsilon)
    assert f"**ε is at least {shown}** with 99.9% confidence." in panel.said.text
    assert [len(w.present) for w in panel.watched] == [250, 500, 1000, 2000, 4000]
    panel.turn(scheme="BallsInBins", epochs=1000)
    panel.join()
    assert panel.watched[-1].epsilon < panel.attack.claim(0.01) < poisson
    assert "is false" not in panel.said.text


def test_the_attack_sees_real_batches_and_real_noise():
    """Largest sums against their law: P(max < c) = Phi((c - 2)/s) Phi(c/s)^(t-1)."""
    attack = BatchAttack("Shuffle", 0.6)
    for present, shift in ((True, 2.0), (False, 1.0)):
        found = attack.largest(present, 3000, seed=5)

        def law(c, shift=shift):
            return stats.norm.cdf((c - shift) / 0.6) * stats.norm.cdf(c / 0.6) ** 19

        assert stats.kstest(found, law).pvalue > 1e-3
    quiet = BatchAttack("Shuffle", 0.0).largest(True, 50, seed=1)
    assert np.allclose(quiet, 2.0), "without noise the largest sum is the record's own"


def test_an_attack_on_an_honest_run_stays_below_its_claim():
    """Twenty audits each of Poisson and of balls in bins: none contradicts its claim."""
    for scheme in ("Poisson", "BallsInBins"):
        attack = BatchAttack(scheme, 0.6)
        for seed in range(20):
            *_, last = attack.watched(0.05, 250, seed)
            assert last.epsilon <= attack.claim(0.05)
