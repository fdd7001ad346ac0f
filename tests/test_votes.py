"""Votes: published accounting to the last aggregation, shards, ballots, a generator that learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit.knobs import every_knob
from dpkit.runs import plan_from_json, plan_to_json
from dpkit.votes import (
    ClassMeans,
    Discriminator,
    Generator,
    Judge,
    Shards,
    VotePlan,
    frechet,
    generate,
    stroke_basis,
)
from dpkit.votes.ballot import direction, votes

PUBLISHED = VotePlan(4000, 200, 5000.0, 15, 0.7, 1.0, 1e-5)
"""MNIST at epsilon 1 in Wang et al. 2021."""


def test_the_published_setting_affords_1300_images_by_the_classic_conversion():
    """Whole orders and ln(1/delta)/(alpha - 1), as the published code does."""
    classic = replace(PUBLISHED, accountant=dp.Moments())
    assert (classic.affordable, classic.steps) == (1300, 86)
    rho = 2 * 200 / 5000**2
    by_hand = min(1301 * rho * a + math.log(1e5) / (a - 1) for a in range(2, 64))
    assert by_hand > 1.0 >= min(1300 * rho * a + math.log(1e5) / (a - 1) for a in range(2, 64))


def test_the_exact_gaussian_affords_2245():
    assert (PUBLISHED.affordable, PUBLISHED.steps) == (2245, 149)
    assert PUBLISHED.release.mechanism.noise_multiplier == pytest.approx(353.553, abs=1e-3)
    assert PUBLISHED.charged.noise_multiplier == pytest.approx(353.553 / 2, abs=1e-3)
    assert PUBLISHED.charged.rdp(8.0) == pytest.approx(2 * 200 * 8 / 5000**2)
    mu = math.sqrt(2245) * 2 * math.sqrt(200) / 5000
    assert dp.Gaussian(1 / mu).profile(1.0) <= 1e-5 < dp.Gaussian(
        1 / mu / math.sqrt(2246 / 2245)).profile(1.0)  # fmt: skip


def test_records_in_two_teachers_cost_204_instead_of_1():
    """1,056 MNIST images sit in two teachers of the published code."""
    twice = replace(PUBLISHED, copies=2, accountant=dp.Moments())
    ledger = dp.Ledger.of([(twice.charged, 1300)], dp.Neighbours.REPLACE_ONE)
    assert dp.Moments().epsilon(ledger, 1e-5) == pytest.approx(2.04, abs=0.005)
    assert twice.affordable == 1300 // 4, "twice the sensitivity, a quarter of the images"


@pytest.mark.parametrize("accountant", [dp.PLD(), dp.RDP(), dp.Moments(), dp.ZCDP()], ids=repr)
@pytest.mark.parametrize("images", [1, 7, 40])
def test_a_run_stops_before_the_step_that_would_exceed(images, accountant):
    plan = VotePlan(100, 8, 300.0, images, 0.5, 1.0, 1e-5, accountant=accountant)
    assert plan.epsilon() <= 1.0
    beyond = dp.Ledger.of(plan.entries(plan.steps + 1), dp.Neighbours.REPLACE_ONE)
    assert accountant.epsilon(beyond, 1e-5) > 1.0
    assert plan.ledger().steps == plan.steps * images
    assert plan.epsilon(1) == accountant.epsilon(plan.ledger(1), 1e-5) < plan.epsilon()


def test_noise_is_solved_for_a_number_of_steps():
    plan = replace(PUBLISHED, budget=3.0).calibrated(200)
    assert plan.steps == 200 and 2.98 < plan.epsilon() <= 3.0
    overlapping = replace(PUBLISHED, budget=3.0, copies=3).calibrated(200)
    assert overlapping.noise == pytest.approx(3 * plan.noise, rel=0.01)
    assert "3 teachers" in overlapping.guarantee() and "one teacher" in plan.guarantee()
    assert plan.guarantee(seeded=True).startswith("Teaching run: whoever knows the seed")
    assert plan.guarantee().startswith(f"({dp.plan.round_up(plan.epsilon())}, 1e-05)")


def test_a_plan_has_a_stored_form_and_sliders():
    plan = replace(PUBLISHED, accountant=dp.RDP(), stochastic=0.1, most_steps=7, copies=2)
    assert plan_from_json(plan_to_json(plan)) == plan
    for name, declared, _ in every_knob(plan):
        low, high = declared.slider or (declared.low, declared.high)
        assert math.isfinite(low) and math.isfinite(high), name
    assert plan.curve()[-1] == pytest.approx(plan.epsilon()) and len(plan.curve()) == 7


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"teachers": 0}, r"teachers \(N, .*\) must be a whole number in \[1, 1000000\], got 0"),
        ({"top_k": 1.5}, r"top_k \(k, "),
        ({"noise": 0.0}, r"noise \(σ, .*\) must lie in \(0, "),
        ({"noise": math.nan}, "noise"),
        ({"images": -1}, r"images \(B, "),
        ({"threshold": 1.2}, r"threshold \(β, .*\[0, 1\], got 1.2"),
        ({"budget": 0.0}, r"budget \(ε, "),
        ({"delta": 1.0}, r"delta \(δ, "),
        ({"copies": 0}, r"copies \(r, "),
        ({"copies": 5000, "budget": 1e4}, "copies"),
        ({"stochastic": 0.0}, r"stochastic \(b, "),
        ({"most_steps": 0}, r"most_steps \(T, "),
        ({"noise": 10.0}, r"A generator step on 15 images would exceed epsilon 1 .* allow more"),
        ({"accountant": dp.GDP()}, r"an estimate, not a bound.*choose PLD\(\) or RDP\(\)"),
        ({"accountant": "PLD"}, r"accountant must be such as PLD\(\), got 'PLD'"),
    ],
)
def test_a_plan_refuses_in_one_sentence(changed, words):
    with pytest.raises((ValueError, TypeError), match=words):
        replace(PUBLISHED, **changed)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"plan": replace(PUBLISHED, top_k=65)}, r"top_k .* \[1, 64\], the coordinates .* got 65"),
        ({"ids": [0, 0, 1, 2]}, "ids must name each of the 4 records once, got 4 names, 3 of them"),
        ({"ids": [0, 1]}, "ids must name each of the 4 records once, got 2"),
        ({"seed": -1}, r"seed \(s, "),
        ({"num_examples": 0}, r"num_examples \(N, "),
        ({"seed": 1, "secure": True}, "secure=True .* seed=1"),
    ],
)
def test_a_run_refuses_before_anything_is_drawn(options, words):
    data = dp.datasets.Dataset.of(torch.rand(4, 1, 8, 8), [0, 1, 0, 1])
    plan = options.pop("plan", VotePlan(4, 20, 5000.0, 2, 0.5, 1.0, 1e-5))
    with pytest.raises(ValueError, match=words):
        generate(data, plan, **options)


def test_a_large_delta_is_told():
    data = dp.datasets.Dataset.of(torch.rand(4, 1, 8, 8), [0, 1, 0, 1])
    with pytest.warns(UserWarning, match="delta 0.5 is not below 1/N = 0.25"):
        generate(data, VotePlan(4, 20, 5000.0, 2, 0.5, 1.0, 0.5))


def test_ballots_are_signs_of_the_largest_coordinates():
    rows = torch.randn(4, 9)
    rows[3, 2] = math.nan
    cast = votes(rows, 4)
    assert cast[:3].abs().sum(1).tolist() == [4.0] * 3 and not cast[3].any()
    largest = rows[:3].abs().topk(4, dim=1).indices
    assert torch.equal(cast[:3].gather(1, largest), rows[:3].gather(1, largest).sign())


def test_stochastic_signs_are_right_on_average():
    g, b = torch.tensor([[0.3, -0.6, 2.0, 0.0, 1e-9]]), 1.0
    chance = torch.rand(20_000, 5, generator=torch.Generator().manual_seed(0))
    cast = votes(g.expand(20_000, 5), 4, b, chance)
    assert set(cast.abs().sum(1).tolist()) == {4.0}, "a coordinate of zero votes too"
    share = (cast[:, :3] > 0).double().mean(0)
    wanted = torch.tensor([0.65, 0.2, 1.0]).double()
    assert ((share - wanted).abs() < 5 * math.sqrt(0.25 / 20_000)).all()


def test_the_direction_is_what_reaches_the_threshold():
    noisy = torch.tensor([-9.0, -2.0, 0.0, 2.9, 3.0])
    assert direction(noisy, 3.0).tolist() == [-1, 0, 0, 0, 1]


def test_a_generator_finds_the_classes():
    """Two clouds far apart, with hardly any noise: its images lie where the records do."""
    rng = np.random.default_rng(0)
    targets = torch.arange(400) % 2
    centres = torch.tensor([[3.0, -2.0, 0.0], [-3.0, 2.0, 1.0]])
    inputs = centres[targets] + 0.3 * torch.from_numpy(rng.standard_normal((400, 3))).float()
    data = dp.datasets.Dataset.of(inputs, targets)
    plan = VotePlan(50, 3, 1.0, 4, 0.2, 1e4, 1e-4).calibrated(80)
    *_, last = generate(data, plan, discriminator=Discriminator(64, 5.0), seed=0)
    labels = torch.arange(200) % 2
    made = last.painter.drawn(labels)[1]
    for c in (0, 1):
        assert (made[labels == c].mean(0) - centres[c]).norm() < 0.5
    again = list(generate(data, plan, discriminator=Discriminator(64, 5.0), seed=0))[-1]
    assert torch.equal(again.painter.output, last.painter.output), "a seed repeats the run"
    other = list(generate(data, plan, discriminator=Discriminator(64, 5.0)))[-1]
    assert not torch.equal(other.painter.output, last.painter.output)


def test_shards_refuse_what_they_cannot_deal():
    with pytest.raises(ValueError, match=r"copies .* whole number in \[1, 3\]"):
        Shards(3, 4)
    with pytest.raises(ValueError, match="key .* 16 to 64 bytes"):
        Shards(3, key=b"short")
    assert Shards(3).key != Shards(3).key, "a key is a fresh secret"
    assert all(0.0 < settings.distance(t, 9) for settings in (Generator(),) for t in range(9))


def clouds(count, seed, apart=4.0):
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = apart * torch.eye(3, 5)
    return centres[labels] + torch.randn(count, 5, generator=stream), labels


def test_a_classifier_of_generated_records_meets_real_ones_once():
    """What it learns and which epoch is kept depend on the generated records alone."""
    made, test = clouds(600, 0), clouds(300, 1)
    found = Judge(epochs=20).worth(made, test, 3, seed=5)
    assert found.accuracy > 0.95 and 1 <= found.epochs <= 20
    wrong = test[0], (test[1] + 1) % 3
    other = Judge(epochs=20).worth(made, wrong, 3, seed=5)
    assert other.accuracy < 0.05
    assert (other.generated, other.epochs) == (found.generated, found.epochs)
    for a, b in zip(found.classifier.parameters(), other.classifier.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_frechet_distance_has_its_closed_form():
    """Of two normal laws: |m - n|^2 + tr(A + B - 2 (A B)^(1/2)), here with unit matrices."""
    units = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Identity(), torch.nn.Identity())
    stream = torch.Generator().manual_seed(0)
    left, right = torch.randn(20_000, 4, generator=stream), torch.randn(20_000, 4, generator=stream)
    assert frechet(units, left, left) == pytest.approx(0.0, abs=1e-6)
    assert frechet(units, left, 2 * right + 3) == pytest.approx(4 * 9 + 4 * (2 - 1) ** 2, rel=0.05)


@pytest.mark.parametrize("value", [1e6, -1e38, math.nan, math.inf, 0.0])
def test_class_means_move_by_what_is_charged(value, monkeypatch):
    """One record of another class, or of no finite value: at most 2 C in all sums together."""
    seen = []
    draw = dp.Gaussian.draw
    monkeypatch.setattr(
        dp.Gaussian, "draw", lambda *a: (seen.append((a[1].clone(), a[2])), draw(*a))[1]
    )
    plain = ClassMeans(2.0, 1.5)
    records, labels = clouds(30, 0)
    plain.means(records, labels, 3, 30, seed=0)
    records[4], labels[4] = value, 2
    assert torch.isfinite(plain.means(records, labels, 3, 30, seed=0)).all()
    (before, norm), (after, _) = seen
    implied = plain.noise_multiplier / plain.ledger.mechanisms[0].noise_multiplier
    assert float((before - after).norm()) <= implied * norm * (1 + 1e-6) == 2 * 1.5 * (1 + 1e-6)


def test_class_means_are_priced_and_right():
    plain = ClassMeans(1.0, 50.0).calibrated(2.0, 1e-5)
    assert 1.98 < dp.PLD().epsilon(plain.ledger, 1e-5) <= 2.0
    records, labels = clouds(9000, 0)
    found = plain.means(records, labels, 3, 9000, seed=0)
    assert (found - 4 * torch.eye(3, 5)).abs().max() < 0.3


def test_a_basis_of_strokes_needs_square_grey_images_and_gives_images_back():
    data = dp.datasets.load("digits")
    basis = stroke_basis(data, 63)
    assert basis.images(basis.features(data.inputs[:9])).shape == (9, 64)
    again = basis.features(basis.images(basis.features(data.inputs[:9])))
    assert torch.allclose(again, basis.features(data.inputs[:9]), atol=1e-3)
    with pytest.raises(ValueError, match=r"square grey images .* have shape \(2,\): vote pixel by"):
        stroke_basis(dp.datasets.load("moons"), 4)
