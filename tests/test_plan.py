"""Plans: priced before they run, stored and loaded, refused in words."""

import dataclasses
import math

import numpy as np
import pytest

import dpkit as dp
from dpkit.plan import round_down, round_up
from dpkit.runs import plan_from_json, plan_to_json
from dpkit.settings import Settings


def plan(noise=1.1, steps=100, **changes):
    return dp.Plan(dp.DPSGD(noise_multiplier=noise), dp.Poisson(0.02, steps), **changes)


def decaying(step):
    return 1.5 / (1 + 0.01 * step)


def test_a_constant_plan_and_its_schedule_cost_the_same():
    assert plan(1.1).ledger() == plan(lambda step: 1.1).ledger()
    assert plan(1.1).epsilon() == plan(lambda step: 1.1).epsilon()


@pytest.mark.parametrize("noise", [1.1, decaying])
def test_the_curve_ends_at_the_price_and_rises(noise):
    p = plan(noise, 60, before=(dp.Release(dp.Gaussian(8.0), access=dp.Access.ALL),))
    curve = p.curve(20)
    assert curve.steps[0] == 1 and curve.steps[-1] == 60
    assert (np.diff(curve.epsilon) > 0).all()
    assert curve.epsilon[-1] == pytest.approx(p.epsilon(), rel=1e-6)
    for step, epsilon in zip(curve.steps[::7], curve.epsilon[::7], strict=True):
        assert epsilon == pytest.approx(
            p.accountant.epsilon(p.ledger(int(step)), p.delta), rel=1e-6
        )


def test_a_release_made_before_is_charged_once():
    paid = plan(before=(dp.Release(dp.Gaussian(4.0), access=dp.Access.ALL),))
    assert dict(paid.ledger().entries)[dp.Gaussian(4.0)] == 1
    assert paid.epsilon() > plan().epsilon()


@pytest.mark.parametrize("target", [0.3, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("noise", [1.0, decaying])
def test_calibration_never_exceeds_its_target(target, noise):
    priced = plan(noise).calibrated(epsilon=target)
    assert target * 0.995 <= priced.epsilon() <= target


@pytest.mark.parametrize("target", [0, -1, math.nan, math.inf, "3"])
def test_calibration_refuses_a_price_that_is_none(target):
    with pytest.raises(ValueError, match="epsilon .* must lie in"):
        plan().calibrated(target)


def test_an_estimate_never_sets_a_budget():
    with pytest.raises(dp.Refused, match="estimate, not a bound"):
        plan(accountant=dp.GDP()).calibrated(1.0)


def test_relations_differ_and_are_named():
    nearby = plan()
    replaced = plan(relation=dp.Neighbours.REPLACE_ONE)
    assert replaced.epsilon() > nearby.epsilon()
    assert dp.Neighbours.REPLACE_ONE.value in replaced.guarantee()
    assert dp.Neighbours.ADD_REMOVE.value in nearby.guarantee()


def test_the_guarantee_says_what_it_must():
    text = plan().guarantee()
    for part in (
        round_up(plan().epsilon()),
        "1e-05",
        "one example",
        "Poisson",
        "PLD",
        "exact real",
    ):
        assert part in text
    assert (
        plan()
        .guarantee(seeded=True)
        .startswith("Teaching run: whoever knows the seed can remove the noise")
    )
    stopped = plan().guarantee(stopped_at=10)
    assert "if this length had been fixed beforehand" in stopped
    assert round_up(plan().epsilon()) in stopped and round_up(plan(steps=10).epsilon()) in stopped
    assert "No privacy" in plan(0.0).guarantee()
    assert "estimate" in plan(accountant=dp.GDP()).guarantee()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.3701, "2.38"),
        (3.0, "3"),
        (0.0123401, "0.0124"),
        (123.01, "124"),
        (0.0, "0"),
        (math.inf, "inf"),
    ],
)
def test_a_printed_epsilon_is_never_below_the_computed_one(value, text):
    assert round_up(value) == text and float(round_up(value)) >= value


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.3799, "2.37"), (3.0, "3"), (0.0123999, "0.0123"), (1.98538, "1.98"), (0.0, "0")],
)
def test_a_printed_lower_side_is_never_above_the_computed_one(value, text):
    assert round_down(value) == text
    for near in np.geomspace(1e-4, 1e4, 400) * (1 + value):
        assert float(round_down(near)) <= near <= float(round_up(near))
        assert near - float(round_down(near)) <= 0.01 * near


def test_bounds_are_printed_outward():
    text = str(dp.accountants.Bounds(1.98599, 2.0, 11.480022, "PLD", dp.Neighbours.ZERO_OUT))
    assert "between 1.985 and 11.49 (" in text
    assert "between 0 and inf (" in str(dp.GDP().bounds(plan().ledger(), 1e-5))


def test_cautions_are_words():
    assert "delta" in plan(delta=0.03).cautions(50)[0]
    assert "next to nothing" in plan(0.3, 4000).cautions(10**4)[0]
    assert plan().cautions(10_000) == ()


@pytest.mark.parametrize("noise", [1.1, decaying])
def test_a_plan_survives_storing(noise):
    p = plan(noise, 30, before=(dp.Release(dp.Gaussian(8.0), access=dp.Access.ALL),))
    again = plan_from_json(plan_to_json(p))
    assert again.ledger() == p.ledger() and again.epsilon() == p.epsilon()
    assert plan_from_json(plan_to_json(again)) == again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace('"DPSGD"', '"Hack"'), "Unknown type 'Hack'"),
        (lambda t: t.replace('"version": 1', '"version": 99'), "version 99"),
        (lambda t: t.replace('"dpkit": "plan"', '"dpkit": "ledger"'), "not a stored plan"),
        (lambda t: t[:-5], "must be JSON"),
        (lambda t: t.replace('"momentum"', '"speed"'), "exactly its fields"),
        (lambda t: t.replace('"sample_rate": 0.02', '"sample_rate": 2.0'), "sample_rate"),
    ],
)
def test_a_stored_plan_that_cannot_be_known_is_refused(change, message):
    text = plan_to_json(plan())
    assert change(text) != text
    with pytest.raises(ValueError, match=message):
        plan_from_json(change(text))


def test_settings_travel_as_a_short_string():
    settings = Settings().turned("method.noise_multiplier", 1.75).turned("seed", None)
    assert Settings.from_string(settings.to_string()) == settings
    solved = Settings(epsilon=3.0, num_examples=500, data="moons", accountant="RDP")
    assert Settings.from_string(solved.to_string()) == solved
    assert solved.plan(500).epsilon() <= 3.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise", "is no setting"),
        ("loudness=3", "is no setting"),
        ("noise=loud", "must be a number"),
        ("noise=-1", "noise_multiplier"),
        ("noise=nan", "noise_multiplier"),
        ("batch=2.5", "whole number"),
        ("accountant=PDL", "did you mean 'PLD'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Settings.from_string(text)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="at most the 100 records"):
        Settings(batch_size=101).plan(100)


def test_noise_beyond_the_methods_range_is_refused_in_words():
    """The knob of the noise ends at 1e4: what to change is said, not what a factor was."""
    plan = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.1, 10_000), 1e-5)
    with pytest.raises(dp.Refused, match=r"No noise that DPSGD allows .* larger epsilon or delta"):
        plan.calibrated(1e-4)
    close = dp.Plan(dp.DPSGD(1.0), dp.Poisson(0.1, 100), 1e-5).calibrated(1e-3)
    assert close.method.noise_multiplier < 1e4 and 0.995e-3 <= close.epsilon() <= 1e-3


@pytest.mark.parametrize(
    ("wrong", "example"),
    [
        ({"relation": "ADD_REMOVE"}, "Neighbours.ADD_REMOVE"),
        ({"accountant": None}, r"PLD\(\)"),
        ({"before": (dp.Gaussian(1.0),)}, r"\(Release\(Gaussian"),
    ],
)
def test_what_is_nothing_of_the_kind_is_told_with_an_example(wrong, example):
    with pytest.raises(TypeError, match=f"must be such as {example}"):
        dp.Plan(dp.DPSGD(), dp.Poisson(0.1, 5), **wrong)


@dataclasses.dataclass(frozen=True)
class Careless(dp.DPSGD):
    """A method whose noise falls at some steps, and which does not say so."""

    falls: tuple[int, ...] = ()

    def releases(self, step, history=()):
        return (dp.Release(dp.Gaussian(0.5 if step in self.falls else self.noise_multiplier)),)


@pytest.mark.parametrize("step", [0, 50, 99])
def test_a_method_that_varies_unsaid_is_refused_at_once(step):
    with pytest.raises(dp.Refused, match="costs other than step 0, .* `varies`"):
        dp.Plan(Careless(4.0, falls=(step,)), dp.Poisson(0.1, 100))


def test_a_step_that_costs_more_than_it_was_priced_at_is_never_drawn():
    careless = dp.Plan(Careless(4.0, falls=(3,)), dp.Poisson(0.1, 10), 1e-3)
    data = dp.datasets.load("blobs", num_examples=50)
    steps = dp.train(dp.zoo.logistic(data, seed=0), data, careless, seed=0)
    assert [next(steps).step for _ in range(3)] == [1, 2, 3]
    with pytest.raises(dp.Refused, match="Step 3 costs other than step 0"):
        next(steps)
    assert next(steps, None) is None
