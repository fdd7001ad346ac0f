"""The founding experiment: what it draws is what it charges, and it costs what the paper read."""

import math
from dataclasses import replace

import pytest
import torch

import dpkit as dp
from dpkit import abadi
from dpkit.gradients import Engine, PerLayer

MNIST = 60_000
SMALL = abadi.Experiment(noise_multiplier=2.0, lot=60, hidden=30)


@pytest.fixture(scope="module")
def digits():
    return dp.datasets.load("digits")


def test_the_paper_s_run_costs_what_the_paper_read():
    """Abadi et al. 2016, section 5.1: E = 100 and 400 at q = .01, sigma = 4."""
    run = abadi.Experiment(noise_multiplier=4.0, components=0)
    assert round(abadi.prices(run, MNIST, 10_000).moments, 2) == 1.26
    assert abadi.prices(run, MNIST, 40_000).moments == pytest.approx(2.55, abs=0.03)
    floor = abadi.prices(replace(run, noise_multiplier=1000.0), MNIST, 1).moments
    assert floor == pytest.approx(math.log(1e5) / 32, rel=1e-3)


@pytest.mark.parametrize("row", abadi.ROWS, ids=lambda row: str(row.epsilon))
def test_a_row_spends_its_epsilon_and_every_variant_costs_the_same(row):
    run = abadi.Experiment.of(row)
    steps = run.length(row.epsilon, MNIST)
    spent = [run.plan(MNIST, more).epsilon() for more in (steps, steps + 1)]
    assert spent[0] <= row.epsilon < spent[1]
    for variant in abadi.VARIANTS:
        other = abadi.Experiment.of(row, variant)
        assert other.length(row.epsilon, MNIST) == steps
        assert other.plan(MNIST, steps).epsilon() == pytest.approx(spent[0], rel=1e-12)
    found = abadi.prices(run, MNIST, steps)
    assert found.exact == spent[0] < found.layers < found.strong and found.moments < found.layers


def test_each_layer_is_clipped_and_noised_as_the_paper_says_and_both_are_charged(digits):
    """The joint release is C on each layer and sigma C on each coordinate, at sigma / sqrt 2."""
    projected = SMALL.projected(digits, 0)
    plan, model = SMALL.plan(projected.num_examples, 10), SMALL.model(projected, 0)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "2.weight"]
    engine = Engine(model, torch.nn.functional.cross_entropy, PerLayer())
    bound = plan.method.max_grad_norm
    for record in range(5):
        inputs = projected.inputs[record : record + 1] * 100
        worst = model(inputs).argmin(1)
        total = engine.clipped_sum(inputs, worst, bound).total
        first = torch.linalg.vector_norm(total[: model[0].weight.numel()])
        second = torch.linalg.vector_norm(total[model[0].weight.numel() :])
        assert first <= 4 * (1 + 1e-5) and second <= 4 * (1 + 1e-5)
        assert max(first, second) > 3.99, "a large gradient is cut to C, not below"
    (release,) = plan.method.releases(0)
    noise = release.mechanism.draw(torch.zeros(200_000), bound, dp.noise.Noise(0))
    assert float(noise.std()) == pytest.approx(2.0 * 4.0, rel=0.01)
    assert release.mechanism.noise_multiplier == pytest.approx(2.0 / math.sqrt(2))
    charged = plan.ledger().entries
    assert len(charged) == 2 and sum(count for _, count in charged) == 11
    covariance = dp.Gaussian(7.0).pair(dp.Neighbours.ADD_REMOVE)
    assert (covariance, 1) in charged, "the components are paid for"


def test_layers_add_up_to_one_release():
    """Two Gaussians of sigma in a step are one of sigma / sqrt 2: unsampled, by a closed form."""
    run = replace(SMALL, lot=1000, components=0)
    add = dp.Neighbours.ADD_REMOVE
    pair = dp.Gaussian(2.0).pair(add)
    assert run.plan(1000, 5).epsilon() == pytest.approx(
        dp.PLD().epsilon(dp.Ledger.of([(pair, 2 * 5)], add), 1e-5), rel=1e-6
    )


def test_a_run_spends_what_its_plan_says_and_learns(digits):
    projected = SMALL.projected(digits, 0)
    assert projected.shape == (60,) and "private" in projected.note
    model = SMALL.model(projected, 0)
    steps = SMALL.steps(projected.num_examples, 8)
    *_, last = SMALL.run(model, projected, steps, 0)
    assert last.epsilon == SMALL.plan(projected.num_examples, steps).epsilon()
    assert abadi.hits(model, projected.test_inputs, projected.test_targets) > 0.6
    pixels = abadi.as_pixels(digits)
    assert 0 <= float(pixels.inputs.min()) and float(pixels.inputs.max()) <= 1 + 1e-6
    assert abadi.as_pixels(pixels) is pixels
    whole = replace(SMALL, components=0)
    assert whole.projected(digits, 0).shape == (64,) and whole.before == ()


def test_calibration_keeps_the_ratio_of_both_noises():
    for together in (False, True):
        run = replace(SMALL, together=together).calibrated(2.0, 1437, 200)
        assert 1.99 < run.plan(1437, 200).epsilon() <= 2.0


def test_what_cannot_be_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"lot \(L, expected records in a lot\) must be .* 6000"):
        abadi.Experiment(lot=6000).plan(1437, 10)
    with pytest.raises(ValueError, match="the first step and the components cost, got 0.1"):
        abadi.Experiment().length(0.1, MNIST)
    with pytest.raises(ValueError, match=r"components \(k, .*in \[1, 64\].* got 65"):
        replace(SMALL, components=65).projected(dp.datasets.load("digits"), 0)
    with pytest.raises(ValueError, match="hidden"):
        abadi.Experiment(hidden=0)
