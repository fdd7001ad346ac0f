"""Knobs and schedules: one clear sentence for every value that cannot be used."""

import dataclasses
import math

import pytest

import dpkit as dp
from dpkit.knobs import every_knob, knobs_of, turned
from dpkit.schedules import Scaled, Tabulated, at, scaled, tabulated

BAD = [
    (lambda: dp.Poisson(1.5, 10), "sample_rate (q", "(0, 1]", "1.5"),
    (lambda: dp.Poisson(0.0, 10), "sample_rate (q", "(0, 1]", "0"),
    (lambda: dp.Poisson(math.nan, 10), "sample_rate (q", "(0, 1]", "nan"),
    (lambda: dp.Poisson(0.1, 0), "steps (T", "whole number", "0"),
    (lambda: dp.Poisson(0.1, 2.5), "steps (T", "whole number", "2.5"),
    (lambda: dp.DPSGD(noise_multiplier=-1), "noise_multiplier (σ", "[0, 10000]", "-1"),
    (lambda: dp.DPSGD(noise_multiplier=math.nan), "noise_multiplier (σ", "[0, 10000]", "nan"),
    (lambda: dp.DPSGD(max_grad_norm=0), "max_grad_norm (C", "(0, 1000000]", "0"),
    (lambda: dp.DPSGD(max_grad_norm=1e7), "max_grad_norm (C", "(0, 1000000]", "10000000"),
    (lambda: dp.DPSGD(learning_rate=math.inf), "learning_rate (η", "(0, ", "infinity"),
    (lambda: dp.DPSGD(momentum=1.0), "momentum (m", "[0, 1)", "1"),
    (lambda: dp.Plan(dp.DPSGD(), dp.Poisson(0.1, 1), delta=0), "delta (δ", "(0, 1)", "0"),
    (lambda: dp.Plan(dp.DPSGD(), dp.Poisson(0.1, 1), delta=1.0), "delta (δ", "(0, 1)", "1"),
]


@pytest.mark.parametrize(("make", "name", "allowed", "given"), BAD)
def test_bad_values_are_refused_in_one_sentence(make, name, allowed, given):
    with pytest.raises(ValueError) as caught:
        make()
    message = str(caught.value)
    assert message.startswith(name) and allowed in message and f"got {given}." in message
    assert "\n" not in message


@pytest.mark.parametrize("value", ["1", None, True, [1.0]])
def test_values_of_another_type_are_refused(value):
    with pytest.raises(TypeError, match="sample_rate .* must be a number"):
        dp.Poisson(value, 10)


def test_a_turned_copy_is_checked_and_leaves_the_original():
    plan = dp.Plan(dp.DPSGD(noise_multiplier=1.0), dp.Poisson(0.1, 10))
    other = turned(plan, "method.noise_multiplier", 2.0)
    assert other.method.noise_multiplier == 2.0
    assert plan.method.noise_multiplier == 1.0
    with pytest.raises(ValueError, match="noise_multiplier"):
        turned(plan, "method.noise_multiplier", -2.0)
    with pytest.raises(AttributeError, match="no field 'colour'"):
        turned(plan, "method.colour", 1)


def test_every_knob_walks_the_nested_plan():
    plan = dp.Plan(dp.DPSGD(), dp.Poisson(0.1, 10))
    paths = [path for path, _, _ in every_knob(plan)]
    assert {"method.noise_multiplier", "sampler.sample_rate", "delta"} <= set(paths)


def test_a_new_method_has_knobs_the_day_it_is_written():
    @dataclasses.dataclass(frozen=True)
    class Mine:
        ratio: float = dp.knob(0.5, "p", "share pruned", 0, 1)

    assert knobs_of(Mine)["ratio"].symbol == "p"


def test_schedules_scale_and_tabulate():
    def decay(step):
        return 1.0 / (1 + step)

    assert at(2.0, 7) == 2.0 and at(decay, 1) == 0.5
    assert scaled(3.0, 2.0) == 6.0
    twice = scaled(scaled(decay, 2.0), 3.0)
    assert isinstance(twice, Scaled) and twice.factor == 6.0 and at(twice, 1) == 3.0
    table = tabulated(decay, 3)
    assert table == Tabulated((1.0, 0.5, 1 / 3)) and tabulated(table, 9) is table
    with pytest.raises(IndexError, match="3 steps, asked for step 3"):
        table(3)


def test_a_whole_number_beyond_every_float_is_refused():
    with pytest.raises(TypeError, match="must be a number.*too large a number"):
        dp.DPSGD(noise_multiplier=10**400)
