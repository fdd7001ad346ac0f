"""The lessons' panels show what dpkit computes, follow every control, and start without torch."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances

from dpkit.accountants import GDP, PLD, Advanced, Basic
from dpkit.mechanisms import Gaussian, Laplace, Ledger, Neighbours, RandomisedResponse
from dpkit.plan import round_up
from dpkit.widgets import pricing
from dpkit.widgets.accounting import AccountantsPanel, FiveAnswersPanel
from dpkit.widgets.controls import Slider
from dpkit.widgets.examples import COUNT, GAMES, NOISES, Composed, Count, Survey
from dpkit.widgets.lesson import Lesson, Table
from dpkit.widgets.lessons import (
    CompositionPanel,
    HypothesisPanel,
    NoisePanel,
    RandomisedResponsePanel,
)
from dpkit.widgets.plot import LivePlot
from dpkit.widgets.pricing import RUN, Prices, Setting, published_answers

EXACT = 2.379554518826
"""Epsilon of RUN in 34-digit arithmetic."""
PANELS = [RandomisedResponsePanel, NoisePanel, HypothesisPanel, CompositionPanel, AccountantsPanel]


@pytest.fixture
def make():
    """Build panels that are closed at the end."""
    made = []

    def build(panel, **options):
        made.append(panel(**options))
        return made[-1]

    yield build
    for panel in made:
        panel.join()
        panel.close()


def test_the_lessons_start_without_torch():
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "from dpkit.widgets import accounting, lessons\n"
        "panels = [lessons.RandomisedResponsePanel(), lessons.NoisePanel(),\n"
        "          lessons.HypothesisPanel(), lessons.CompositionPanel(),\n"
        "          accounting.AccountantsPanel(), accounting.FiveAnswersPanel()]\n"
        "for panel in panels:\n"
        "    panel.redraw(); panel.check(); panel.close()\n"
        "from dpkit import course; course.check('01.1', 2.2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Right")


# ---- the small worlds -------------------------------------------------------------------------


def within(share, chance, draws, deviations=5.0):
    return abs(share - chance) <= deviations * math.sqrt(chance * (1 - chance) / draws)


@pytest.mark.parametrize("keep", [0.5, 0.6, 0.75, 0.99])
def test_the_coin_lies_as_often_as_the_mechanism_is_charged_for(keep):
    survey = Survey.ask(keep, 100_000, 0.3, seed=3)
    assert survey.mechanism.keep == pytest.approx(keep)
    assert survey.mechanism.epsilon == pytest.approx(math.log(keep / (1 - keep)))
    for group in (survey.truth, ~survey.truth):
        kept = float((survey.said == survey.truth)[group].mean())
        assert within(kept, keep, int(group.sum()))


def test_the_crowd_is_read_rightly_on_average_and_not_at_all_from_fair_coins():
    survey = Survey.ask(0.7, 2000, 0.25, seed=5)
    many = survey.again(4000, seed=6)
    deviation = math.sqrt(0.7 * 0.3 / 2000) / 0.4
    assert many.mean() == pytest.approx(0.25, abs=5 * deviation / math.sqrt(4000))
    assert many.std() == pytest.approx(deviation, rel=0.06)
    assert survey.estimate(survey.said.sum()) == pytest.approx(0.25, abs=5 * deviation)
    assert math.isnan(float(Survey.ask(0.5, 100, 0.3, seed=0).estimate(50)))


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("scale", [0.4, 2.0, 9.0])
def test_a_noisy_count_is_the_mechanism_that_is_charged(name, scale):
    count = Count(NOISES[name], scale)
    x = np.linspace(COUNT - 400, COUNT + 400, 400_001)
    q, p = count.density(x, False), count.density(x, True)
    step = x[1] - x[0]
    assert q.sum() * step == pytest.approx(1, abs=1e-5)
    for epsilon in (0.0, 0.1, 0.7):
        found = np.maximum(p - math.exp(epsilon) * q, 0).sum() * step
        assert found == pytest.approx(float(count.mechanism.profile(epsilon)), abs=1e-5)


@pytest.mark.parametrize("name", NOISES)
def test_every_threshold_lies_on_the_trade_off_curve_and_games_agree(name):
    count = Count(NOISES[name], 1.5)
    ledger = Ledger(((count.mechanism, 1),))
    for threshold in (38.0, 41.9, 42.5, 43.3, 47.0):
        alarm, miss = (float(v) for v in count.errors(threshold))
        assert PLD().tradeoff(ledger, [alarm])[0] == pytest.approx(miss, abs=2e-4)
        played = count.games(threshold, seed=11)
        assert within(played[0], alarm, GAMES) and within(played[1], miss, GAMES)


@pytest.mark.parametrize("single", [Laplace(10.0), Gaussian(10.0), RandomisedResponse(0.1)])
def test_three_ways_of_adding_up_end_where_their_accountants_say(single):
    composed = Composed(single, 50, 1e-6)
    ledger = Ledger(((single, 50),))
    for line, accountant in zip(composed.lines(), (Basic(), Advanced(), PLD()), strict=True):
        epsilon = np.asarray(line.epsilon)
        assert epsilon[-1] == pytest.approx(accountant.epsilon(ledger, 1e-6), rel=1e-9)
        assert np.asarray(line.steps)[-1] == 50 and epsilon[0] == 0
        assert np.all(np.diff(epsilon) >= -1e-9)
    basic, advanced, exact = (np.asarray(line.epsilon)[-1] for line in composed.lines())
    assert exact < min(basic, advanced)


# ---- the panels of the first lesson -----------------------------------------------------------


def test_the_survey_panel_follows_its_controls(make):
    panel = make(RandomisedResponsePanel)
    assert "ε = 1.1**" in panel.said.text and "75%" in panel.said.text
    first = panel.survey.said.copy()
    panel.controls["again"].click("again")
    assert (panel.survey.said != first).any()
    panel.turn(keep=0.5)
    assert "nothing can be learned" in panel.said.text
    assert not panel.plots["estimates"].figure["data"]
    panel.turn(keep=0.9, people=200, share=100)
    assert "e<sup>ε</sup> = 9" in panel.plots["belief"].figure["layout"]["annotations"][0]["text"]
    assert panel.survey.truth.all() and len(panel.survey.truth) == 200
    panel.check()


def test_the_noise_panel_says_the_delta_of_its_mechanism(make):
    panel = make(NoisePanel)
    panel.turn(epsilon=0.5)
    assert "(0.5, 0) holds" in panel.said.text
    panel.turn(noise="Gaussian", scale=3.0, epsilon=0.7)
    delta = float(Gaussian(3.0).profile(0.7))
    assert f"{delta:.2g}".replace("e-0", "e-") in panel.said.text
    point = panel.plots["profile"].figure["data"][-1]
    assert (point["x"], point["y"]) == ([0.7], [pytest.approx(delta)])
    floor, top = panel.plots["outputs"].figure["data"][:2]
    rise = np.array(top["y"]) - np.array(floor["y"])
    shaded = float((rise[1:] + rise[:-1]) @ np.diff(top["x"]) / 2)
    reach = float(panel.count.errors(panel._grid[-1])[0])  # what lies right of the plot
    assert shaded == pytest.approx(delta, abs=reach + 1e-3)
    panel.check()


def test_the_attackers_panel_says_the_errors_of_the_threshold(make):
    panel = make(HypothesisPanel)
    panel.turn(threshold=COUNT + 2)
    alarm, miss = (float(v) for v in panel.count.errors(COUNT + 2))
    assert f"**{alarm:.1%} false alarms, {miss:.1%} misses**" in panel.said.text
    point = panel.plots["tradeoff"].figure["data"][-1]
    assert point["x"] == [pytest.approx(100 * alarm)]
    before = panel.plots["tradeoff"].figure
    panel.turn(noise="Gaussian")
    assert panel.plots["tradeoff"].figure != before
    panel.check()


def test_the_composition_panel_follows_its_controls(make):
    panel = make(CompositionPanel)
    assert "adding up gives ε = 10," in panel.said.text and "**ε = 4.23**" in panel.said.text
    for noise in ("Gaussian", "Randomised response"):
        panel.turn(noise=noise, releases=7)
        panel.check()
    exact = PLD().epsilon(Ledger(((RandomisedResponse(0.1), 7),)), 1e-5)
    assert f"**ε = {round_up(exact)}**" in panel.said.text
    panel.turn(releases=1)
    assert "After 1 releases" in panel.said.text
    panel.check()


def test_what_a_basics_panel_promises_is_rounded_up(make):
    survey, noise, repeated = map(make, (RandomisedResponsePanel, NoisePanel, CompositionPanel))
    survey.turn(keep=0.6)
    assert "**ε = 0.406**" in survey.said.text, "ln 1.5 is 0.4055"
    assert "at most 1.5 times" in survey.said.text
    survey.turn(keep=0.83)
    assert "at most 4.89 times" in survey.said.text, "83 / 17 is 4.882"
    noise.turn(scale=3.0, epsilon=0.2)
    delta = float(Laplace(3.0).profile(0.2))
    assert "pure ε = 0.334." in noise.said.text, "a third is more than 0.333"
    said = float(re.search(r"δ = \*\*([\de.-]+)\*\*", noise.said.text)[1])
    assert delta <= said <= delta * 1.1 and f"not covered: δ = {said:g}" in str(
        noise.plots["outputs"].figure
    )
    repeated.turn(releases=3, noise="Laplace", scale=10.0)
    assert "ε = 0.3," in repeated.said.text, "3 × 0.1 is 0.3, whatever its last bits"


@pytest.mark.parametrize("panel", PANELS[:4])
def test_every_end_of_every_control_is_drawn(make, panel):
    built = make(panel)
    for name, control in built.controls.items():
        if isinstance(control, Slider):
            for end in (control.low, control.high):
                built.turn(**{name: int(end) if control.integer else end})
                built.check()
                assert all(plot.summary for plot in built.plots.values())


def picture(panel):
    assert panel.join(60)
    return [panel.said.text, *(plot.figure for plot in panel.plots.values())]


@pytest.mark.parametrize("panel", PANELS)
def test_every_control_moves_the_picture(make, panel):
    built = make(panel)
    for name, control in built.controls.items():
        if not control.has_trait("value"):
            continue
        before = picture(built)
        if isinstance(control, Slider):
            built.turn(
                **{
                    name: 2 * control.value
                    if name == "people"
                    else 0.83 * control.value
                    if not control.integer
                    else int(0.8 * control.value)
                }
            )
        else:
            built.turn(**{name: control.options[-1][1]})
        after = picture(built)
        moved = [old != new for old, new in zip(before, after, strict=True)]
        assert moved[0] and sum(moved) >= 2, (name, moved)
    built.check()


# ---- all accountants at once ------------------------------------------------------------------


def test_the_run_costs_what_34_digits_say():
    prices = Prices(RUN)
    assert prices.ends["PLD"] == pytest.approx(EXACT, abs=2e-6)
    assert prices.ends["GDP: an estimate"] < EXACT < prices.ends["RDP"]
    assert not prices.refused


def test_curves_end_at_the_epsilon_of_the_whole_run_and_rise():
    setting = replace(RUN, steps=3000, noise_multiplier=1.3)
    prices = Prices(setting)
    assert not prices.grow(60.0)
    for line, (accountant, name, points, _) in zip(prices.lines, pricing.ACCOUNTANTS, strict=True):
        steps, epsilon = np.asarray(line.steps), np.asarray(line.epsilon)
        assert line.name == name and len(steps) == len(epsilon)
        assert min(points, 40) <= len(steps) <= points
        assert steps[0] == 1 and steps[-1] == 3000
        assert epsilon[-1] == pytest.approx(accountant.epsilon(setting.ledger, 1e-5), rel=1e-9)
        assert np.all(np.diff(epsilon) >= -1e-9)


def test_a_curve_that_has_no_time_still_has_its_end():
    prices = Prices(RUN)
    assert prices.grow(0.0)
    assert all(np.asarray(line.steps)[-1] == RUN.steps for line in prices.lines)


def test_what_cannot_be_accounted_is_listed_with_its_reason_and_not_drawn(make):
    panel = make(AccountantsPanel)
    assert panel.prices.refused == {} and panel.note.text == ""
    panel.turn(relation="REPLACE_ONE")
    panel.join()
    assert "**GDP: an estimate** is not drawn. GDP knows" in panel.note.text
    drawn = {trace.get("name") for trace in panel.plots["epsilon"].figure["data"]}
    assert "PLD" in drawn and "GDP: an estimate" not in drawn
    assert "cannot account this setting" in panel.table.value
    panel.check()


def test_the_panel_shows_bounds_around_the_truth_and_no_upper_side_for_an_estimate(make):
    panel = make(AccountantsPanel, setting=RUN)
    panel.turn(sample_rate=RUN.sample_rate)
    panel.join()
    assert panel.bounds.lower <= EXACT <= panel.bounds.upper
    assert panel.prices.ends["PLD"] == pytest.approx(EXACT, abs=2e-6)
    assert "below the proven minimum" in panel.said.text
    row = panel.table.value.split("GDP: an estimate")[1].split("</tr>")[0]
    assert "∞" in row and "nothing is proven" in row
    assert "<caption>" in panel.table.value and "scope='row'" in panel.table.value
    panel.turn(sample_rate=1.0, steps=10)
    panel.join()
    assert "below the proven" not in panel.said.text  # plain Gaussians: GDP is exact
    panel.check()


def test_numbers_are_rounded_outward(make):
    panel = make(AccountantsPanel)
    for _ in range(2):
        panel.turn(delta=panel.value("delta") / 7)
        panel.join()
        lower, upper = (
            float(panel.said.text.split(mark)[1].split(" ")[0].rstrip(".").replace(",", ""))
            for mark in ("between ", " and ")
        )
        assert lower <= panel.bounds.lower and panel.bounds.upper <= upper
        assert upper - lower < 0.01 * upper


CORNERS = list(product((1e-4, 1.0), (0.4, 20.0), (1, 1_000_000), (1e-12, 1e-2)))


@pytest.mark.parametrize("relation", list(Neighbours), ids=lambda r: r.name)
@pytest.mark.parametrize("corner", CORNERS, ids=lambda c: "-".join(f"{v:g}" for v in c))
def test_every_corner_of_the_panel_has_numbers(corner, relation):
    prices = Prices(Setting(*corner, relation))
    assert "PLD" in prices.ends
    assert all(end >= 0 for end in prices.ends.values())
    bounds = PLD().bounds(prices.setting.ledger, prices.setting.delta)
    assert 0 <= bounds.lower <= bounds.estimate <= bounds.upper


def test_the_panel_draws_its_far_corners(make):
    panel = make(AccountantsPanel)
    for setting in (
        {"noise_multiplier": 0.4, "steps": 1_000_000, "sample_rate": 1.0},
        {"noise_multiplier": 20.0, "steps": 1, "sample_rate": 1e-4, "delta": 1e-2},
    ):
        panel.turn(**setting)
        panel.join()
        panel.check()
        assert panel.said.text.startswith("**ε = ")


def test_five_answers_as_they_were_published(make):
    found = [round(answer.epsilon, 2) for answer in published_answers()]
    assert found == [3.01, 2.59, 2.38, 2.32, 4.22]
    panel = make(FiveAnswersPanel)
    for answer in panel.answers:
        found = re.search(rf"{answer.name}</\w+><td[^>]*>([\d.]+)<", panel.table.value)
        below = answer.epsilon if answer.kind == "estimate" else math.nan
        assert float(found[1]) >= answer.epsilon or float(found[1]) == round(below, 4)
        assert float(found[1]) < answer.epsilon + 1e-4 and answer.why in panel.table.value
    labels = [note["text"] for note in panel.plots["answers"].figure["layout"]["annotations"]]
    assert labels == ["3.01", "2.60", "2.38", "2.32", "4.22"], "a bound is rounded up"
    other = published_answers(replace(RUN, noise_multiplier=2.0))
    assert all(a.epsilon < b.epsilon for a, b in zip(other, panel.answers, strict=True))
    assert next(a for a in other if a.kind == "estimate").epsilon == GDP().epsilon(
        replace(RUN, noise_multiplier=2.0).ledger, 1e-5
    )


# ---- what all panels share --------------------------------------------------------------------


class Probe(Lesson):
    """A lesson whose longer work waits for permission."""

    def __init__(self, **plan):
        self.drawn, self.shown, self.plan = [], [], plan
        self.began, self.go = threading.Event(), threading.Event()
        self.go.set()
        slider = Slider(label="x", value=0, low=0, high=100, integer=True)
        super().__init__({"x": slider}, {"plot": LivePlot(title="a plot")})

    def redraw(self):
        if self.value("x") == self.plan.get("bad"):
            raise ValueError("This x is bad.")
        self.drawn.append(self.value("x"))

    def afterwards(self):
        value = self.value("x")
        if value == self.plan.get("worse"):
            raise ValueError("The rest is bad.")
        self.began.set()
        assert self.go.wait(20)
        yield lambda: self.shown.append(value)


def test_longer_work_is_dropped_once_the_control_has_moved_on(make):
    probe = make(Probe)
    assert probe.drawn == probe.shown == [0]  # the first picture is complete
    probe.go.clear()
    probe.began.clear()
    probe.turn(x=1)
    assert probe.began.wait(20)
    probe.turn(x=2)
    probe.turn(x=3)
    assert probe.drawn == [0, 1, 2, 3] and probe.shown == [0]
    probe.go.set()
    assert probe.join(20)
    assert probe.shown == [0, 3]


def test_changes_that_pile_up_are_drawn_once(make):
    probe = make(Probe)
    with probe._drawing:
        waiting = [threading.Thread(target=probe._turned, args=(None,)) for _ in range(5)]
        for thread in waiting:
            thread.start()
        while probe._asked < 5:
            threading.Event().wait(0.001)
    for thread in waiting:
        thread.join(20)
    assert len(probe.drawn) == 2  # the first picture, and one for all five
    assert probe.join(20)


@pytest.mark.parametrize("part", ["bad", "worse"])
def test_an_error_is_shown_and_raised_and_leaves_the_panel_alive(make, part, capsys):
    probe = make(Probe, **{part: 7})
    probe.turn(x=7)
    assert probe.join(20)
    assert "bad." in probe.trouble.text and "Traceback" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is bad"):
        probe.check()
    probe.turn(x=8)
    assert probe.join(20)
    assert probe.trouble.text == "" and probe.shown[-1] == 8


def test_where_no_thread_can_start_the_rest_is_drawn_at_once(make, monkeypatch):
    probe = make(Probe)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    probe.turn(x=5)
    assert probe.shown == [0, 5]


@pytest.mark.parametrize("panel", [*PANELS, FiveAnswersPanel])
def test_a_closed_panel_leaves_nothing_behind(panel):
    panel().close()  # the shared plotly bundle is made once
    before = set(_instances)
    built = panel()
    assert len(set(_instances) - before) > 3
    built.close()
    built.close()
    left = {k: w for k, w in _instances.items() if k not in before}
    assert not left, left


def test_a_table_escapes_what_it_shows():
    table = Table()
    table.show(
        "a <b>",
        ("x", "y & z"),
        [
            (
                "<i>",
                "1",
            ),
            ("one", "two words"),
        ],
    )
    assert "a &lt;b&gt;" in table.value and "y &amp; z" in table.value
    assert "<i>" not in table.value
    table.close()
