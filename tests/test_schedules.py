"""Schedules as values: their formulas, their range, their stored form, their calibration."""

import math

import numpy as np
import pytest
import torch

import dpkit as dp
from dpkit import schedules
from dpkit.checkpoint import plan_hash
from dpkit.knobs import every_knob, turned
from dpkit.runs import plan_from_json, plan_to_json

SHAPES = [
    (schedules.Uniform(8.0), lambda e: 8.0),
    (schedules.TimeDecay(10.0, 0.05), lambda e: 10 / (1 + 0.05 * e)),
    (schedules.ExponentialDecay(10.0, 0.01), lambda e: 10 * np.exp(-0.01 * e)),
    (schedules.StepDecay(10.0, 0.6, 10), lambda e: 10 * 0.6 ** np.floor(e / 10)),
    (
        schedules.PolynomialDecay(10.0, 2.0, 3.0, 100),
        lambda e: 8 * (1 - min(e, 100) / 100) ** 3 + 2,
    ),
    (schedules.ConstantThenDecay(6.0, 20, 0.1), lambda e: 6 * np.exp(-0.1 * max(e - 20, 0))),
    (
        schedules.Knots((9.0, 5.0, 4.0), 40),
        lambda e: float(np.interp(e, [0, 20, 40], [9.0, 5.0, 4.0])),
    ),
]
REACTING = schedules.ValidationDecay(10.0, 0.7, 10, 5, 0.01)
named = pytest.mark.parametrize(
    ("shape", "formula"), SHAPES, ids=[type(shape).__name__ for shape, _ in SHAPES]
)


@named
def test_a_shape_is_its_formula_by_epoch_and_by_step(shape, formula):
    assert [shape(e) for e in range(130)] == pytest.approx([formula(e) for e in range(130)])
    slow = turned(shape, "steps_per_epoch", 7)
    assert [slow(t) for t in range(130)] == [shape(t // 7) for t in range(130)]


@named
def test_a_shape_is_stored_by_name_and_turned_by_its_own_parameters(shape, formula):
    plan = dp.Plan(dp.DPSGD(shape, shape, shape), dp.Poisson(0.02, 30))
    text = plan_to_json(plan)
    assert text.count(f'"{type(shape).__name__}"') == 3 and "Tabulated" not in text
    assert plan_from_json(text) == plan and plan_from_json(text).epsilon() == plan.epsilon()
    for path, declared, value in every_knob(shape, "method.noise_multiplier."):
        low, high = declared.slider
        other = int(value) + 1 if declared.integer else 0.5 * (low + high)
        changed = turned(plan, path, other)
        assert getattr(changed.method.noise_multiplier, path.rpartition(".")[2]) == other
        with pytest.raises((ValueError, TypeError)):
            turned(plan, path, math.nan)
        with pytest.raises(ValueError, match=path.rpartition(".")[2]):
            turned(plan, path, declared.low - 1)


@named
@pytest.mark.parametrize("target", [0.4, 3.0])
def test_calibration_keeps_the_shape_and_solves_the_scale(shape, formula, target):
    """By Poisson steps and by shuffled epochs: the price is met within half a percent."""
    for sampler in (dp.Poisson(0.02, 60), dp.Shuffle(4, 15)):
        per = getattr(sampler, "batches_per_epoch", 3)
        plan = dp.Plan(dp.DPSGD(turned(shape, "steps_per_epoch", per)), sampler)
        priced = plan.calibrated(target)
        noise, held = plan.method.noise_multiplier, priced.method.noise_multiplier
        assert type(held) is type(shape), "still turned by its own parameters"
        assert 0.995 * target <= priced.epsilon() <= target
        ratios = [held(t) / noise(t) for t in range(60)]
        assert ratios == pytest.approx([ratios[0]] * 60)


def test_calibration_of_any_function():
    plan = dp.Plan(dp.DPSGD(lambda t: 2 - math.sin(t)), dp.Poisson(0.02, 50)).calibrated(1.0)
    assert 0.995 <= plan.epsilon() <= 1
    held = [plan.method.noise_multiplier(t) for t in range(50)]
    assert np.ptp([h / (2 - math.sin(t)) for t, h in enumerate(held)]) < 1e-9
    again = plan_from_json(plan_to_json(plan))
    assert again == plan and again.epsilon() == plan.epsilon()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.Uniform(0.0), r"start .* must lie in \(0, "),
        (lambda: schedules.TimeDecay(10.0, -0.1), r"decay .* must lie in \[0, 100\], got -0.1"),
        (lambda: schedules.ExponentialDecay(math.inf, 0.1), "start .* got infinity"),
        (lambda: schedules.StepDecay(10.0, 1.5, 10), r"factor .* must lie in \(0, 1\], got 1.5"),
        (lambda: schedules.StepDecay(10.0, 0.5, 0), "period .* whole number"),
        (lambda: schedules.StepDecay(10.0, 0.5, 2.5), "period .* whole number"),
        (lambda: schedules.PolynomialDecay(10.0, 0.0, 3.0, 10), "end .* must lie in"),
        (lambda: schedules.PolynomialDecay(10.0, 2.0, 0.0, 10), "power .* must lie in"),
        (lambda: schedules.ConstantThenDecay(10.0, -1, 0.1), "hold .* whole number"),
        (lambda: schedules.Knots((1.0,), 10), "two knots at least, got 1"),
        (lambda: schedules.Knots((1.0, -2.0), 10), r"values\[1\] .* must lie in"),
        (lambda: schedules.Uniform(1.0, steps_per_epoch=0), "steps_per_epoch .* whole number"),
        (lambda: schedules.ValidationDecay(10.0, 0.7, 10, 11), r"window .* \[1, 10\], the period"),
        (lambda: schedules.ValidationDecay(10.0, 0.7, 10, look_noise=0.0), "look_noise"),
        (lambda: schedules.Scaled(schedules.Uniform(1.0), -2.0), "factor .* got -2"),
        (lambda: dp.DPSGD(1.0, REACTING), "max_grad_norm cannot follow ValidationDecay"),
        (lambda: dp.DPSGD(1.0, 1.0, REACTING), "learning_rate cannot follow ValidationDecay"),
    ],
)
def test_a_parameter_out_of_range_is_refused_in_one_sentence(build, message):
    with pytest.raises(ValueError, match=message) as told:
        build()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda f: dp.DPSGD(f(lambda t: 1.0 - 0.1 * t)), "noise_multiplier .* got -0.9"),
        (lambda f: dp.DPSGD(1.0, f(lambda t: 5.0 - t)), "max_grad_norm .* got -14"),
        (lambda f: dp.DPSGD(1.0, 1.0, f(lambda t: math.nan if t == 7 else 1.0)), "learning_rate"),
        (lambda f: dp.DPSGD(f(lambda t: 2e4 if t == 19 else 1.0)), "noise_multiplier .* got 20000"),
    ],
)
@pytest.mark.parametrize("way", ["function", "table"])
def test_every_value_of_a_schedule_is_checked_before_anything_is_drawn(method, message, way):
    """A clip norm that turns negative at step 5 would have been used as it is."""

    def form(function):
        if way == "function":
            return function
        return schedules.Tabulated(tuple(function(t) for t in range(20)))

    with pytest.raises(ValueError, match=message):
        dp.Plan(method(form), dp.Poisson(0.1, 20))


def test_a_table_that_is_too_short_is_refused_at_once():
    with pytest.raises(ValueError, match="for each of the 12 steps: This schedule has 10 steps"):
        dp.Plan(dp.DPSGD(schedules.Tabulated((1.0,) * 10)), dp.Poisson(0.1, 12))


def test_a_function_is_read_once():
    """Noise that is turned down after it was priced, as by a callback that saw the training."""
    turned_down = []
    plan = dp.Plan(dp.DPSGD(lambda t: 0.1 if turned_down else 2.0), dp.Poisson(0.5, 6), 1e-3)
    before = plan.epsilon()
    turned_down.append("now")
    data = dp.datasets.Dataset.of(np.random.default_rng(0).standard_normal((30, 4)), [0, 1, 2] * 10)
    *_, last = dp.train(dp.zoo.logistic(data), data, plan, seed=0)
    assert last.epsilon == before == dp.Plan(dp.DPSGD(2.0), dp.Poisson(0.5, 6), 1e-3).epsilon()


def test_a_reacting_schedule_falls_where_accuracy_does_not_rise():
    shape = schedules.ValidationDecay(10.0, 0.5, 4, 2, 0.05, steps_per_epoch=3)
    looks = [t for t in range(37) if shape.looks_before(t)]
    assert looks == [9, 12, 21, 24, 33, 36], "after the last two epochs of every four"
    seen = (0.1, 0.3, 0.5, 0.5, 0.52, 0.5)  # means 0.2, 0.5, 0.51
    assert [shape(t, seen) for t in (0, 11, 12, 35, 36)] == [10, 10, 10, 10, 5]
    assert shape(24, seen[:4]) == 10 and shape(24, (0.5, 0.5, 0.54, 0.54)) == 5
    with pytest.raises(ValueError, match="needs 4 of them in epoch 8, got 2"):
        shape(24, seen[:2])


@named
def test_a_run_spends_exactly_what_was_planned(shape, formula):
    """Step by step and in the end, by coins and by epochs, a shorter run of the plan included."""
    rng = np.random.default_rng(1)
    data = dp.datasets.Dataset.of(rng.standard_normal((24, 3)), [0, 1, 2] * 8)
    for sampler in (dp.Poisson(0.3, 12), dp.Shuffle(3, 4)):
        plan = dp.Plan(dp.DPSGD(shape, shape, 0.1), sampler, 1e-3)
        run = list(dp.train(dp.zoo.logistic(data), data, plan, seed=0))
        assert run[-1].epsilon == plan.epsilon() and run[-1].ledger == plan.ledger()
        assert all(step.ledger == plan.ledger(step.step) for step in run)
        curve = plan.curve(12)
        found = dict(zip(curve.steps.tolist(), curve.epsilon.tolist(), strict=True))
        assert all(found[s.step] == pytest.approx(s.epsilon, rel=1e-9) for s in run)


@pytest.mark.parametrize("value", [s for s, _ in SHAPES] + [REACTING, dp.RhoBudget(1.0)])
def test_schedules_and_budgets_are_values(value):
    import dataclasses

    same = dataclasses.replace(value)
    assert value == same and hash(value) == hash(same) and "." in (type(value).__doc__ or "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.start = 1.0


RISING = schedules.Knots((0.02, 0.3), 9)


@pytest.mark.parametrize("relation", list(dp.Neighbours))
def test_batches_that_grow_cost_what_their_steps_cost(relation):
    """Step by step the pair of that step's rate; epsilon, curve, stored form, stop, all agree."""
    plan = dp.Plan(dp.DPSGD(1.5), dp.Poisson(RISING, 12), 1e-3, relation)
    rates = [RISING(step) for step in range(12)]
    pairs = [dp.Gaussian(1.5).pair(relation, dp.mechanisms.PoissonSampling(rate)) for rate in rates]
    assert plan.ledger() == dp.Ledger.of([(pair, 1) for pair in pairs], relation)
    assert plan.ledger(5) == dp.Ledger.of([(pair, 1) for pair in pairs[:5]], relation)
    curve = plan.curve(12)
    for n in (1, 5, 12):
        assert curve.epsilon[n - 1] == pytest.approx(dp.PLD().epsilon(plan.ledger(n), 1e-3))
    assert plan_from_json(plan_to_json(plan)) == plan
    assert "at rates from 0.02 to 0.3, fixed beforehand" in plan.guarantee()
    solved = plan.calibrated(1.0)
    assert solved.sampler == plan.sampler and 0.98 < solved.epsilon() <= 1.0
    found = plan.bounds()
    assert found.lower <= plan.epsilon() <= found.upper


def test_a_budget_ends_batches_that_grow():
    whole = dp.Plan(dp.DPSGD(1.5), dp.Poisson(RISING, 40), 1e-3)
    budget = dp.RDPBudget.covering(whole.ledger(7), 1e-3)
    plan = dp.Plan(dp.DPSGD(1.5), dp.Poisson(RISING, 40), 1e-3, budget=budget)
    assert plan.steps == 7 and plan.ledger() == whole.ledger(7)
    assert spent(plan).ledger == plan.ledger()


def test_a_reacting_noise_takes_batches_that_grow():
    noise = schedules.ValidationDecay(4.0, 0.7, 2, 1, 1.0)
    plan = dp.Plan(
        dp.DPSGD(noise), dp.Poisson(RISING, 60), 1e-3, budget=dp.RDPBudget(0.5, 8.0)
    )  # fmt: skip
    inputs, targets = np.random.default_rng(0).standard_normal((30, 4)), np.arange(30) % 3
    data = dp.datasets.Dataset.of(inputs, targets, public=(inputs, targets))
    *_, last = dp.train(dp.zoo.logistic(data), data, plan, seed=0)
    rates = [m.sample_rate for m, _ in last.ledger.entries]
    assert 4 < last.step < 60 and rates[:3] == [RISING(0), RISING(1), RISING(2)]
    assert dp.RDPBudget(0.5, 8.0).epsilon(1e-3) == plan.epsilon() >= last.epsilon


def test_a_rate_is_read_once():
    """A rate that says something else once the run has begun changes neither draw nor charge."""
    begun = []
    plan = dp.Plan(dp.DPSGD(1.5), dp.Poisson(lambda t: 1.0 if begun else 0.1, 12), 1e-3)
    price = plan.epsilon()
    last = spent(plan, lambda: begun.append(True))
    assert begun and last.epsilon == price == plan.epsilon() and last.peek.batch_size < 20
    assert plan_hash(plan) != plan_hash(
        dp.Plan(dp.DPSGD(1.5), dp.Poisson(lambda t: 0.1 + t / 1e9, 12), 1e-3)
    )


@pytest.mark.parametrize("make, error, words", [
    (lambda: dp.Plan(dp.DPSGD(), dp.Poisson(lambda t: 1.5 - t, 3)), ValueError, r"\(0, 1\], got"),
    (lambda: dp.Plan(dp.DPSGD(), dp.Poisson(lambda t: 0.0, 3)), ValueError, r"\(0, 1\], got 0"),
    (lambda: dp.Plan(dp.DPSGD(), dp.Poisson(lambda t: float("nan"), 3)), ValueError, "got nan"),
    (lambda: dp.Plan(dp.DPSGD(), dp.Poisson(lambda t: "many", 3)), TypeError, "one number for"),
    (lambda: dp.Plan(dp.DPSGD(), dp.Poisson(schedules.Tabulated((0.1,)), 3)), ValueError,
     "a value for each of the 3 steps"),
    (lambda: dp.Poisson(REACTING, 100), ValueError, "cannot follow ValidationDecay"),
    (lambda: dp.Plan(dp.DPSGD(), dp.Poisson(schedules.Scaled(REACTING, 0.1), 3)), TypeError,
     "as ValidationDecay alone"),
    (lambda: dp.Poisson(RISING, 9).expected_batch(50), dp.Refused, r"by at_step\(step\)"),
    (lambda: dp.Poisson(RISING, 9).charge([()], dp.Neighbours.ADD_REMOVE), dp.Refused, "at_step"),
    (lambda: dp.Shuffle(RISING, 10), TypeError, "it cannot follow a schedule"),
    (lambda: dp.FixedSize(RISING, 50, 10), TypeError, "it cannot follow a schedule"),
    (lambda: dp.TruncatedPoisson(RISING, 5, 40, 50), TypeError, "it cannot follow a schedule"),
    (lambda: dp.auditing.audit(dp.Plan(dp.DPSGD(), dp.Poisson(RISING, 9)), canaries=20), dp.Refused,
     "guesses by the law of one rate"),
])  # fmt: skip
def test_rates_are_refused_in_words(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_thousand_rates_are_priced_between_their_neighbours():
    """Rates are rounded up for a price; the truth lies between two rows of steps."""

    def price(values, **options):
        sampler = dp.Poisson(schedules.Tabulated(values), len(values))
        return dp.Plan(dp.DPSGD(2.0), sampler, 1e-5, **options)

    rates = np.geomspace(0.005, 0.01, 1200)
    fine = price(tuple(rates.tolist()))
    low, high = (np.repeat(rates[k::40], 40) for k in (0, 39))
    below, above = (price(tuple(some.tolist())).epsilon() for some in (low, high))
    assert below < fine.epsilon() < 1.002 * above and above < 1.05 * below
    bounds = fine.bounds()
    assert bounds.lower <= fine.epsilon() <= bounds.upper


def test_ten_thousand_noises_are_charged_once():
    """The charges of a varying plan are kept: ledger, price and curve read the same ones."""
    calls = []

    class Counting(dp.Poisson):
        def charge(self, group, relation):
            calls.append(1)
            return super().charge(group, relation)

    plan = dp.Plan(dp.DPSGD(lambda t: 2 - t / 1e3), Counting(0.01, 300), accountant=dp.RDP())
    assert plan.curve(20).epsilon[-1] == pytest.approx(plan.epsilon()) and plan.ledger()
    assert len(calls) <= 301


def spent(plan, change=lambda: None):
    """Train a little by a plan, changing something after the first step; the last step."""
    inputs, targets = np.random.default_rng(0).standard_normal((30, 4)), np.arange(30) % 3
    held = dp.datasets.Dataset.of(inputs, targets)
    steps = []
    for step in dp.train(dp.zoo.logistic(held), held, plan, seed=0):
        steps.append(step)
        change()
    return steps[-1]


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_a_number_that_is_changed_later_changes_nothing(make):
    """A tensor that was filled anew once let a run spend 31.8 under a price of .6."""
    sigma = make(2.0)
    plan = dp.Plan(dp.DPSGD(sigma), dp.Poisson(0.1, 12), 1e-3)
    price = plan.epsilon()
    last = spent(plan, lambda: sigma.__setitem__((), 0.3))
    assert type(plan.method.noise_multiplier) is float and float(sigma) < 1
    assert last.epsilon == price == plan.epsilon()


class Fickle(schedules.Shape):
    """A shape of a user's own that says something else once it has seen something."""

    now = 2.0

    def at_epoch(self, epoch):
        return self.now


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: schedules.Scaled(s, 1.0)])
def test_a_shape_of_ones_own_is_read_once(wrap, monkeypatch):
    plan = dp.Plan(dp.DPSGD(wrap(Fickle())), dp.Poisson(0.1, 12), 1e-3)
    price = plan.epsilon()
    last = spent(plan, lambda: monkeypatch.setattr(Fickle, "now", 0.3))
    assert last.epsilon == price == plan.epsilon()
    assert type(plan.method.noise_multiplier) is schedules.Tabulated
    assert plan_from_json(plan_to_json(plan)) == plan


class Peeking(schedules.ValidationDecay):
    """It could look at anything."""


@pytest.mark.parametrize(
    "wrong", [Peeking(10.0, 0.7, 10, 5), schedules.Scaled(REACTING, 0.5)], ids=["peeks", "scaled"]
)
def test_nothing_else_reacts(wrong):
    with pytest.raises(TypeError, match="as ValidationDecay alone"):
        dp.Plan(dp.DPSGD(wrong), dp.Poisson(0.1, 12), 1e-3, budget=dp.RDPBudget(1.0, 8.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.Tabulated("222222"), "one number for each step"),
        (lambda: schedules.Tabulated((2.0, None)), "one number for each step"),
        (lambda: schedules.Scaled(2.0, 1.0), "a function of the step"),
        (lambda: plan_of(lambda step: None), "gives none for step 0"),
    ],
)
def test_what_is_no_schedule_is_told(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def plan_of(noise):
    return dp.Plan(dp.DPSGD(noise), dp.Poisson(0.1, 6), 1e-3)


def test_a_table_may_be_a_list_or_an_array():
    for values in ([2.0] * 6, np.full(6, 2)):
        assert plan_of(schedules.Tabulated(values)) == plan_of(schedules.Tabulated((2.0,) * 6))
