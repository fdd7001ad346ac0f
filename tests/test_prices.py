"""Prices that must hold: whatever plan, sampler or mechanism is handed in, in whatever form."""

import dataclasses
import functools
import math
import os
import re
import threading
import warnings

import numpy as np
import pytest

import dpkit as dp
from dpkit import cli, schedules
from dpkit.accountants.base import told
from dpkit.auditing import leaky
from dpkit.auditing.bounds import Errors
from dpkit.checkpoint import plan_hash
from dpkit.mechanisms import EpsilonDelta, Ledger, Mechanism, Neighbours, Refused, Subsampled
from dpkit.mechanisms.gaussian import gaussian_profile
from dpkit.samplers import Sampler
from dpkit.samplers.base import Blocks
from dpkit.settings import Settings
from dpkit.spending import price
from dpkit.stored import whole
from dpkit.sweeping.composition import Total
from dpkit.widgets.budget import Budget

TWO = (dp.Release(dp.Gaussian(2.0)), dp.Release(dp.Gaussian(1.0)))


def plan(method=None, sampler=None, **changes):
    return dp.Plan(method or dp.DPSGD(4.0), sampler or dp.Poisson(0.1, 20), 1e-3, **changes)


@pytest.mark.parametrize("form", [list, iter, lambda two: (release for release in two)])
def test_what_comes_before_is_priced_in_whatever_form_it_comes(form):
    known = plan(before=TWO)
    assert plan(before=form(TWO)).epsilon() == known.epsilon() > plan().epsilon()


@dataclasses.dataclass(frozen=True)
class Yielding(dp.DPSGD):
    """A method of one's own whose releases can be read but once."""

    varies = True

    def releases(self, step, history=()):
        return iter(super().releases(step))


def test_releases_and_ledgers_that_are_read_but_once_are_priced():
    for sampler in (
        dp.Poisson(0.1, 20),
        dp.Shuffle(5, 4),
        dp.Partition(5, 4),
        dp.FixedSize(5, 50, 20),
    ):
        assert plan(Yielding(4.0), sampler).ledger() == plan(sampler=sampler).ledger()
    assert finished(plan(Yielding(4.0), dp.Shuffle(5, 4)))[-1].epsilon > 0.1
    best = dp.accountants.BestOfRandom(0.5)
    assert best.epsilon(iter([plan().ledger()]), 1e-5) == best.epsilon([plan().ledger()], 1e-5) > 0


def test_a_list_that_grows_later_changes_nothing():
    before = [TWO[0]]
    held = plan(before=before)
    before.append(TWO[1])
    assert held.before == TWO[:1] and held.ledger() == plan(before=TWO[:1]).ledger()


@dataclasses.dataclass(frozen=True)
class Drawn(Sampler):
    """All records at every step, charged by groups of the lengths that are told."""

    lengths: tuple[int, ...]
    shift: int = 0

    relations = (Neighbours.ZERO_OUT,)
    describe = "all records"

    @property
    def steps(self):
        return sum(self.lengths)

    def batches(self, num_examples, rng):
        return (np.arange(num_examples) for _ in range(self.steps))

    def expected_batch(self, num_examples):
        return float(num_examples)

    def groups(self):
        stops = np.cumsum([0, *self.lengths]).tolist()
        return [range(a, b + self.shift) for a, b in zip(stops, stops[1:], strict=False)]

    def charge(self, group, relation):
        return [(group[0][0].mechanism.pair(relation), 1)]


@pytest.mark.parametrize("lengths", [(5, 1, 1, 1), (2, 3, 2), (2, 2, 3), (1, 4), (3, 3, 1), (4,)])
def test_groups_of_any_lengths_are_priced_each(lengths):
    data = dp.datasets.load("blobs", num_examples=50)
    priced = plan(sampler=Drawn(lengths))
    assert priced.ledger().counts == (len(lengths),)
    *_, last = dp.train(dp.zoo.logistic(data, seed=0), data, priced, seed=0)
    assert last.ledger == priced.ledger() and last.epsilon == priced.epsilon()


@pytest.mark.parametrize("sampler", [Drawn((2, 0, 2)), Drawn((2, 2), shift=1), Drawn((2, 2), -1)])
def test_groups_that_do_not_hold_each_step_once_are_refused(sampler):
    with pytest.raises(Refused, match="each of the 4 steps once, in order"):
        plan(sampler=sampler)


def test_the_groups_of_every_sampler_here_are_blocks():
    for sampler in (dp.Poisson(0.1, 5), dp.Shuffle(2, 3), dp.FixedSize(2, 9, 4),
                    dp.BallsInBins(2, 3), dp.TruncatedPoisson(0.1, 5, 50, 60)):  # fmt: skip
        assert isinstance(sampler.groups(), Blocks)


class Turning:
    """A function of the step that says something else as soon as it is told to."""

    noise = 4.0

    def __call__(self, step):
        return self.noise


def test_scaled_functions_within_functions_are_read_once():
    turning = Turning()
    twice = schedules.Scaled(schedules.Scaled(turning, 0.5), 2.0)
    held = plan(dp.DPSGD(twice))
    assert isinstance(held.method.noise_multiplier, schedules.Tabulated)
    turning.noise = 0.5
    assert held.ledger() == plan(dp.DPSGD(lambda step: 4.0)).ledger()
    assert held.method.releases(0) == (dp.Release(dp.Gaussian(4.0)),)


@dataclasses.dataclass(frozen=True)
class Moody(dp.DPSGD):
    """A method of one's own whose noise is no knob, so nobody reads it once."""

    mood: Turning = dataclasses.field(default_factory=Turning)

    varies = True

    def releases(self, step, history=()):
        return (dp.Release(dp.Gaussian(self.mood(step))),)


@pytest.mark.parametrize("budget", [None, dp.RDPBudget(0.02, 8.0)])
@pytest.mark.parametrize("noise", [0.5, 40.0])
def test_what_varies_is_drawn_as_it_was_priced_or_not_at_all(budget, noise):
    data = dp.datasets.load("blobs", num_examples=50)
    moody = plan(Moody(), budget=budget)
    steps = dp.train(dp.zoo.logistic(data, seed=0), data, moody, seed=0)
    assert [next(steps).step for _ in range(3)] == [1, 2, 3]
    moody.method.mood.noise = noise
    with pytest.raises(Refused, match="Step 3 costs other than it was priced at"):
        next(steps)
    assert next(steps, None) is None


def test_cheaper_steps_beyond_a_budget_are_not_made():
    data = dp.datasets.load("blobs", num_examples=50)
    moody = plan(Moody(), budget=dp.RDPBudget(0.02, 8.0))
    assert 3 < moody.steps < 20
    found = []
    for step in dp.train(dp.zoo.logistic(data, seed=0), data, moody, seed=0):
        found.append(step)
        if step.step == moody.steps:
            moody.method.mood.noise = 1e4
    assert len(found) == moody.steps and found[-1].ledger == moody.ledger()


class Bare(Mechanism):
    """A Gaussian of somebody who never heard of dataclasses."""

    symmetric = True

    def __init__(self, sigma):
        object.__setattr__(self, "sigma", sigma)

    def profile(self, epsilon):
        return gaussian_profile(1 / self.sigma, epsilon)


def test_mechanisms_that_do_not_say_when_they_are_equal_are_never_merged():
    quiet, loud = Bare(10.0), Bare(0.5)
    assert quiet != loud and quiet == quiet
    ledger = Ledger(((quiet, 1), (loud, 1), (quiet, 1)))
    assert ledger.counts == (2, 1)
    known = Ledger(((dp.Gaussian(10.0), 2), (dp.Gaussian(0.5), 1)))
    assert dp.PLD().epsilon(ledger, 1e-5) >= dp.PLD().epsilon(known, 1e-5)
    assert dp.PLD().epsilon(Ledger(((quiet, 1),)), 1e-5) < 1 < dp.PLD().epsilon(ledger, 1e-5)


def test_a_finished_mechanism_has_no_heirs():
    with pytest.raises(TypeError, match="derived from Gaussian, .* derive it from Mechanism"):
        type("Half", (dp.Gaussian,), {"profile": lambda self, epsilon: np.ones_like(epsilon)})
    assert type("Own", (Bare,), {})(1.0).profile(np.zeros(1)) > 0


@pytest.mark.parametrize(
    "accountant", [dp.PLD(), dp.accountants.Basic(), dp.accountants.Advanced()]
)
@pytest.mark.parametrize("of", [lambda m: m, lambda m: Subsampled(m, 0.5)])
def test_no_stated_delta_is_too_small_to_count(accountant, of):
    pair = of(EpsilonDelta(0.5, 5e-16))
    ledger = Ledger(((pair, 100_000),))  # 2.5e-11 at least
    assert accountant.epsilon(ledger, 1e-12) == math.inf
    assert accountant.epsilon(Ledger(((of(EpsilonDelta(0.5)), 3),)), 1e-12) <= 1.5


def test_more_releases_than_can_be_counted_are_refused():
    four = tuple((dp.Gaussian(1.0 + n), 2**62) for n in range(4))  # a sum of 2^64, which wraps to 0
    for entries in (four, ((dp.Gaussian(1.0), 2**53 + 1),), ((dp.Gaussian(1.0), 10**400),)):
        with pytest.raises(ValueError, match="must add up to at most 2.53"):
            Ledger(entries)
    for counts in ([[1e19]], [[2**60]], [[float("inf")]]):
        with pytest.raises(ValueError, match="must add up to at most|must be whole"):
            dp.PLD().curve([dp.Gaussian(1e6)], np.array(counts), 1e-5)
    often = plan(Told(release=dp.Release(dp.Gaussian(1e9), 10**18, dp.mechanisms.Access.ALL)))
    with pytest.raises(ValueError, match="must add up to at most"):
        often.curve(5)
    assert dp.PLD().epsilon(Ledger(((dp.Gaussian(1e6), 2**53),)), 1e-5) > 1000


def test_truncation_is_counted_however_rare_it_is():
    sampler = dp.TruncatedPoisson(0.01, 100_000, 66, 2000)
    assert 0 < sampler.overflow < 1e-15
    priced = dp.Plan(dp.DPSGD(1000.0), sampler, delta=1e-12)
    assert 100_000 * sampler.overflow > priced.delta and priced.epsilon() == math.inf


@pytest.mark.parametrize(
    ("number", "digits", "up", "down"),
    [(1e-5, 3, "1e-05", "1e-05"), (1 / 30_000, 3, "3.34e-05", "3.33e-05"),
     (4e-300, 3, "4e-300", "4e-300"),
     (1 / 3, 6, "0.333334", "0.333333"), (0.1, 3, "0.1", "0.1"), (2 / 3, 6, "0.666667", "0.666666"),
     (1e6, 6, "1e+06", "1e+06"), (0.99999999, 3, "1", "0.999")],
)  # fmt: skip
def test_what_somebody_wrote_is_told_in_few_digits_on_the_safe_side(number, digits, up, down):
    assert (told(number, digits), told(number, digits, -1)) == (up, down)


@pytest.mark.parametrize("delta", [1 / 30_000, 1.2345e-5, 0.0012349, 1e-5, 7.0004e-9])
def test_every_sentence_tells_a_delta_that_holds(delta):
    priced = dp.Plan(dp.DPSGD(4.0), dp.Poisson(0.1, 20), delta)
    votes = dp.votes.VotePlan(100, 2, 200.0, delta=delta)
    sentences = [priced.guarantee(), votes.guarantee(), Total(1, 1, 0.5, delta).sentence]
    for text in sentences:
        assert float(re.search(r"(?:, |δ = )([\d.e-]+\d)", text)[1]) >= delta, text


def test_budgets_are_told_no_smaller_than_they_are():
    assert "ρ = 0.333334" in dp.RhoBudget(1 / 3).describe
    assert "of 0.333334 at order 7.66666" in dp.RDPBudget(1 / 3, 23 / 3).describe


def test_an_audit_proves_no_more_than_it_found():
    audit = dp.auditing.Audit(1.4999, 3.0009, 1e-5, 0.999, Errors(0, 9, 0, 9), "by looking")
    assert "at least 1.49 " in str(audit) and "claimed 3.01 at" in str(audit)
    leak = leaky.Spotted(Errors(0, 9, 0, 9), 1.0, 1.4999, 1e-5, 0.999)
    assert "every epsilon up to 1.49 is" in str(leak)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta"),
    [(1e-6, 10, 1, 1e-9), (1e-4, 10, 100, 1e-8), (0.02, 1.0, 300, 1e-5), (1.0, 0.01, 7, 1e-5)],
)
def test_the_command_line_rounds_outward(capsys, rate, noise, steps, delta):
    asked = {"sample-rate": rate, "noise-multiplier": noise, "steps": steps, "delta": delta}
    assert cli.main(["epsilon", *(f"--{name}={value}" for name, value in asked.items())]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    bounds = dp.Plan(dp.DPSGD(noise), dp.Poisson(rate, steps), delta).bounds()
    assert 0 < float(lines["lower"]) <= bounds.lower <= bounds.upper <= float(lines["upper"])
    assert float(lines["upper"]) == pytest.approx(bounds.upper, rel=1e-6)


def test_a_running_total_is_a_bound_whatever_accountant_was_shown():
    data = dp.datasets.load("blobs", num_examples=50)
    sampled = dp.Poisson(0.01, 100)
    spent = Budget()
    spent.add(data, dp.Plan(dp.DPSGD(0.8), sampled, 1 / 30_000, accountant=dp.GDP()))
    true = dp.Plan(dp.DPSGD(0.8), sampled, 1 / 30_000).epsilon()
    assert spent.epsilon(data) == true > 1.9 * spent.plans[0][1].epsilon()
    assert "δ = 3.33334e-05" in spent.text(data)


def finished(priced, **options):
    data = dp.datasets.load("blobs", num_examples=50)
    return list(dp.train(dp.zoo.logistic(data, seed=0), data, priced, seed=0, **options))


def test_steps_of_different_runs_are_priced_each_by_its_own():
    one, two = finished(plan()), finished(dataclasses.replace(plan(), delta=1e-9))
    mixed = price([one[-1], two[-1]])
    assert mixed == [plan().epsilon(), dataclasses.replace(plan(), delta=1e-9).epsilon()]
    assert two[-1].epsilon == mixed[1] > mixed[0] and price([]) == []


@dataclasses.dataclass(frozen=True)
class Told(dp.DPSGD):
    """A method of one's own that tells another release than its steps make."""

    release: dp.Release = TWO[0]

    def releases(self, step, history=()):
        return (self.release,)


@dataclasses.dataclass(frozen=True)
class Activated(dp.NeuralDP):
    """Private activations that are said to read the batch alone."""

    def releases(self, step, history=()):
        return tuple(dp.Release(r.mechanism) for r in super().releases(step))


@pytest.mark.parametrize("count", [0, 5])
def test_a_step_makes_no_release_that_is_told_otherwise(count):
    with pytest.raises(Refused, match=f"draws each release once .* got count {count}"):
        finished(plan(Told(release=dp.Release(dp.Gaussian(4.0), count))))
    data = dp.datasets.load("blobs", num_examples=50)
    model = dp.zoo.released(data, seed=0)
    amplified = dp.Plan(Activated(4.0), dp.Poisson(0.1, 20), 1e-3)
    with pytest.raises(Refused, match=r"access SAMPLED: .* give releases of .* Access\.ALL"):
        list(dp.train(model, data, amplified, seed=0))


def interrupted(path, noise=4.0, steps=3):
    """A secret run of a method of one's own, killed after some steps; it leaves its file."""
    data = dp.datasets.load("blobs", num_examples=50)
    method = Moody()
    method.mood.noise = noise
    run = dp.train(dp.zoo.logistic(data, seed=0), data, plan(method), checkpoint=path)
    return [next(run).step for _ in range(steps)], path.read_bytes()


def test_a_checkpoint_knows_the_noise_of_ones_own_method(tmp_path):
    interrupted(tmp_path / "run")
    with pytest.raises(ValueError, match="another plan"):
        interrupted(tmp_path / "run", noise=40.0)


@pytest.mark.filterwarnings("ignore:The run was interrupted")
def test_a_copied_checkpoint_tells_that_the_plan_may_be_spent_twice(tmp_path):
    _, content = interrupted(tmp_path / "run", steps=20)
    (tmp_path / "copy").write_bytes(content)
    data = dp.datasets.load("blobs", num_examples=50)
    again = dp.zoo.logistic(data, seed=0), data, plan(Moody())
    with pytest.warns(UserWarning, match="if a run goes on from there as well, .* spent twice"):
        dp.train(*again, checkpoint=tmp_path / "copy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(dp.train(*again, checkpoint=tmp_path / "run")) == []


def test_the_python_of_a_run_without_noise_has_none():
    settings = Settings.from_string("noise=0 data=digits")
    line = settings.to_python(settings.plan(1437)).splitlines()[2].removeprefix("plan = ")
    plan = eval(line, {"dp": dp})
    assert plan.method.noise_multiplier == 0 and plan.epsilon() == math.inf


@pytest.mark.parametrize("text", ["0.1", "1e-05", "0.3", "7", "12.3"])
def test_what_is_printed_reads_back_as_no_less_and_a_short_number_as_itself(text):
    assert dp.round_up(float(text)) == dp.round_down(float(text)) == text
    above = math.nextafter(float(text), math.inf)
    assert float(dp.round_up(above)) >= above and float(dp.round_down(above)) <= above


def test_a_device_is_written_through_and_never_replaced(tmp_path):
    pipe, kept = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: kept.append(pipe.read_text()), daemon=True)
    reader.start()
    with whole(pipe) as place:
        place.write_text("a run")
    reader.join(10)
    assert kept == ["a run"] and pipe.is_fifo()
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    with whole(link) as place:
        place.write_text("a run")
    assert link.is_symlink() and file.read_text() == "a run"
    with pytest.raises(OSError), whole(tmp_path / "run.json") as place:
        place.write_text("half")
        raise OSError
    assert not (tmp_path / "run.json").exists()


@dataclasses.dataclass(frozen=True)
class Formed(Drawn):
    """Charges that come as a tuple, or can be read but once, from a sampler that varies."""

    form: type = list
    rate: float = 1.0

    varies = True

    def charge(self, group, relation):
        pair = group[0][0].mechanism.pair(relation, None)
        return self.form([(Subsampled(pair, self.rate) if self.rate < 1 else pair, 1)])


@pytest.mark.parametrize("varies", [True, False])
@pytest.mark.parametrize("form", [list, tuple, iter])
def test_charges_in_any_form_are_drawn_as_they_were_priced(form, varies, monkeypatch):
    monkeypatch.setattr(Formed, "varies", varies)
    formed = plan(sampler=Formed((2, 2), form=form))
    assert finished(formed)[-1].ledger == formed.ledger() == plan(sampler=Drawn((2, 2))).ledger()


def test_a_step_of_the_sampled_records_is_asked_for_as_such():
    with pytest.raises(Refused, match=r"reads the sampled records, .* and Access\.SAMPLED"):
        finished(plan(Told(release=dp.Release(dp.Gaussian(4.0), 2))))


@dataclasses.dataclass(frozen=True)
class Once(Moody):
    """Releases that can be read but once, of a mechanism that prints no number."""

    bare: bool = False

    def releases(self, step, history=()):
        gaussian = dp.Gaussian(self.mood(step))
        return iter([dp.Release(Plain(gaussian.noise_multiplier) if self.bare else gaussian)])


@dataclasses.dataclass(frozen=True, repr=False)
class Plain(Mechanism):
    """A Gaussian that prints nothing of itself."""

    sigma: float
    symmetric = True

    def __repr__(self):
        return "Plain"

    def profile(self, epsilon):
        return gaussian_profile(1 / self.sigma, epsilon)

    def pair(self, relation, sampling=None):
        return self


@pytest.mark.parametrize("bare", [False, True])
def test_a_checkpoint_knows_noise_that_is_told_but_once_or_prints_nothing(bare):
    quiet, loud = Once(bare=bare), Once(bare=bare)
    loud.mood.noise = 1.0
    sampler = Drawn((1, 1, 1))
    assert plan_hash(plan(quiet, sampler)) == plan_hash(plan(Once(bare=bare), sampler))
    assert plan_hash(plan(quiet, sampler)) != plan_hash(plan(loud, sampler))


def test_a_checkpoint_knows_the_rate_of_ones_own_sampler():
    rates = [plan_hash(plan(sampler=Formed((1, 1), rate=rate))) for rate in (0.5, 0.1, 0.1)]
    assert rates[0] != rates[1] == rates[2]


class Heir(Plain):
    """The same with a number that its dataclass does not know."""

    def __init__(self, sigma, factor):
        super().__init__(sigma)
        object.__setattr__(self, "factor", factor)


@dataclasses.dataclass(frozen=True)
class Blind(Bare):
    """A dataclass without a field: each equals any other."""

    def __init__(self, sigma):
        super().__init__(sigma)


@dataclasses.dataclass(frozen=True)
class Following(Plain):
    """Numbers beside the field that follow from it."""

    def __post_init__(self):
        object.__setattr__(self, "half", self.sigma / 2)

    @functools.cached_property
    def mu(self):
        return 1 / self.sigma


class Minded(Bare):
    """One that says by itself what it equals."""

    def __eq__(self, other):
        return self.sigma == other.sigma

    def __hash__(self):
        return hash(self.sigma)


@pytest.mark.parametrize(("mechanism", "name"), [(Heir(8.0, 0.1), "factor"), (Blind(8.0), "sigma")])
def test_a_mechanism_made_from_numbers_that_it_does_not_compare_is_refused(mechanism, name):
    with pytest.raises(TypeError, match=f"has {name}, .* a frozen dataclass, and {name} a field"):
        Ledger(((mechanism, 1),))


@pytest.mark.parametrize("kind", [Following, Minded, Plain])
def test_a_mechanism_that_compares_what_it_is_made_from_is_merged(kind):
    one, two = kind(8.0), kind(8.0)
    assert getattr(one, "mu", 1) and Ledger(((one, 1), (two, 1))).counts == (2,)


class Unhashed(dp.accountants.RDP):
    """An accountant of one's own that has no hash."""

    __hash__ = None


def test_steps_of_an_accountant_without_a_hash_are_priced():
    steps = finished(plan())
    mine = [dataclasses.replace(step, accountant=Unhashed()) for step in steps[-2:]]
    assert price(mine) == [dp.RDP().epsilon(step.ledger, step.delta) for step in steps[-2:]]


def test_what_comes_before_may_stand_alone_and_is_refused_in_words():
    assert plan(before=TWO[0]).epsilon() == plan(before=TWO[:1]).epsilon()
    with pytest.raises(TypeError, match="before must be such as"):
        plan(before=None)
