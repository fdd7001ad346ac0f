"""The pictures of the privacy lessons say what the mathematics says, and Plotly accepts them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.integrate import trapezoid

import dpkit as dp
from dpkit.accountants import PLD
from dpkit.figures import abadi, anatomy, as_plotly, basics, batching, curves, privacy, votes
from dpkit.figures.base import log_axis
from dpkit.mechanisms import Gaussian, Laplace, Ledger
from dpkit.plan import Curve
from dpkit.runs import Run

GRID = np.linspace(-60.0, 60.0, 24_001)


def bell(x, sigma=2.0):
    return np.exp(-0.5 * (x / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))


def named(figure, name):
    (trace,) = [t for t in figure["data"] if t.get("name", "").startswith(name)]
    return trace


def area(figure, name):
    """The size of a shaded band: its upper line less the floor that stands before it."""
    top = named(figure, name)
    floor = figure["data"][figure["data"].index(top) - 1]
    rise = np.array(top["y"]) - np.array(floor["y"])
    return float(trapezoid(rise, top["x"]))


def sound(figure):
    """Plotly takes it, and it survives the journey as JSON."""
    as_plotly(figure)
    json.dumps(figure)
    return figure


@pytest.mark.parametrize("epsilon", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("mechanism", [Gaussian(2.0), Laplace(2.0)])
def test_the_shaded_area_between_two_worlds_is_delta(mechanism, epsilon):
    shape = bell if isinstance(mechanism, Gaussian) else lambda x: np.exp(-abs(x) / 2) / 4
    delta = float(mechanism.profile(epsilon))
    picture = sound(basics.outputs(GRID, shape(GRID), shape(GRID - 1), math.exp(epsilon), delta))
    assert area(picture, "not covered") == pytest.approx(delta, abs=3e-6)


def test_the_two_shaded_errors_of_a_test_are_its_rates():
    threshold = 0.7
    picture = sound(basics.test_of(GRID, bell(GRID), bell(GRID - 1), threshold))
    upper = 0.5 * math.erfc(threshold / 2 / math.sqrt(2))
    lower = 0.5 * math.erfc((1 - threshold) / 2 / math.sqrt(2))
    assert area(picture, "false alarm") == pytest.approx(upper, abs=2e-3)
    assert area(picture, "miss") == pytest.approx(lower, abs=2e-3)
    assert picture["layout"]["shapes"][0]["x0"] == threshold


def test_an_answer_moves_the_odds_by_e_to_the_epsilon_and_no_more():
    picture = sound(basics.belief(1.1))
    before = np.array(named(picture, "after a yes")["x"][1:-1]) / 100
    for name, factor in (("after a yes", math.exp(1.1)), ("after a no", math.exp(-1.1))):
        after = np.array(named(picture, name)["y"][1:-1]) / 100
        moved = after / (1 - after) / (before / (1 - before))
        assert moved == pytest.approx(factor, rel=1e-3)


def test_everyone_of_the_crowd_has_a_place_and_liars_a_cross():
    truth = np.arange(130) % 3 == 0
    said = np.where(np.arange(130) % 10 == 0, ~truth, truth)
    picture = sound(basics.crowd(truth, said))
    places = [p for t in picture["data"] for p in zip(t["x"], t["y"], strict=True)]
    assert len(places) == len(set(places)) == 100
    crossed = [t for t in picture["data"] if t["marker"]["symbol"] == "x-thin"]
    assert sum(len(t["x"]) for t in crossed) == int((truth != said)[:100].sum())
    truly_yes = int(truth[:100].sum())
    yes = [t for t in picture["data"] if (t["name"] == "said yes") != (t in crossed)]
    assert max(5 * x + y for t in yes for x, y in zip(t["x"], t["y"], strict=True)) < truly_yes


def test_all_surveys_are_in_the_histogram_also_those_beyond_its_ends():
    found = np.array([-0.9, 0.2, 0.304, 0.306, 1.7])
    picture = sound(basics.estimates(found, 0.3, 0.28))
    bars = picture["data"][0]
    assert sum(bars["y"]) == 5
    assert dict(zip(bars["x"], bars["y"], strict=True))[30.0] == 1
    assert picture["layout"]["annotations"][1]["xanchor"] == "right"
    assert not sound(basics.estimates(found, 0.3, None))["data"]


def test_a_profile_ends_where_delta_is_nothing():
    epsilon = np.linspace(0, 5, 101)
    deltas = {"Laplace": Laplace(2.0).profile(epsilon), "Gaussian": Gaussian(2.0).profile(epsilon)}
    picture = basics.profiles(epsilon, deltas, "Laplace", (1.0, 0.0))
    shown = np.array(named(picture, "Laplace")["y"])
    assert np.isfinite(shown).sum() == (epsilon < 0.5).sum()
    assert "δ = 0" in picture["layout"]["annotations"][0]["text"]
    moving = basics.profiles(epsilon, deltas, "Gaussian", (1.0, 0.01))["data"][-1]
    assert (moving["x"], moving["y"]) == ([1.0], [0.01])


def lines(*ends):
    steps = np.array([1, 10, 100])
    return [
        privacy.Priced(f"way {look}", look, steps, np.array([0.0, end / 2, end]))
        for look, end in enumerate(ends)
        if end is not None
    ]


def test_a_line_has_its_look_whoever_else_is_drawn():
    full = privacy.accountants(lines(1, 2, 3, 4, 5), x_range=(1, 1e3), y_range=(0.1, 10))
    some = sound(
        privacy.accountants(lines(1, None, 3, None, 5), x_range=(1, 1e3), y_range=(0.1, 10))
    )
    for name in ("way 0", "way 2", "way 4"):
        assert named_line(some, name)["line"] == named_line(full, name)["line"]
    looks = [(look.colour, look.dash) for look in privacy.LOOKS]
    assert len({c for c, _ in looks}) == len(looks) and len({d for _, d in looks}) >= 6


def named_line(figure, name):
    (trace,) = [t for t in figure["data"] if t.get("name") == name and t["mode"] == "lines"]
    return trace


def test_what_leaves_the_plot_is_named_with_its_end():
    picture = privacy.accountants(lines(2, math.inf, 4321), x_range=(1, 1e3), y_range=(0.1, 10))
    (note,) = picture["layout"]["annotations"]
    assert "way 1 ∞" in note["text"] and "way 2 4,321" in note["text"]
    assert "way 0" not in note["text"]
    dots = [t for t in picture["data"] if t["mode"] == "markers"]
    assert [t["y"] for t in dots] == [[2.0]]
    assert np.isnan(named_line(picture, "way 0")["y"][0])  # 0 has no place on a log axis


def test_the_histogram_keeps_all_mass_and_turns_colour_at_epsilon():
    edges = np.linspace(-2, 3, 51)
    upper = bell((edges[1:] + edges[:-1]) / 2, 0.8) / 10
    picture = sound(privacy.losses(edges, upper, 0.9 * upper, 1.0))
    inside, beyond, below = picture["data"]
    assert sum(inside["y"]) + sum(beyond["y"]) == pytest.approx(upper.sum(), rel=1e-5)
    assert max(inside["x"]) < 1.0 < min(beyond["x"])
    assert below["y"][::2] == pytest.approx((0.9 * upper).tolist(), rel=1e-5)
    assert picture["layout"]["xaxis"]["range"] == [-4, 4]
    infinite = privacy.losses(edges, upper, upper, math.inf)
    assert not infinite["layout"]["shapes"] and not infinite["data"][1]["x"]
    assert not privacy.losses(edges, 0 * upper, 0 * upper, 1.0)["data"]


@pytest.mark.parametrize("mechanism", [Gaussian(0.7), Laplace(0.7)])
def test_what_epsilon_and_delta_rule_out_is_below_the_best_attacker(mechanism):
    ledger, fpr = Ledger(((mechanism, 1),)), np.linspace(0, 1, 401)
    fnr, best = PLD().tradeoff(ledger, fpr), PLD().advantage(ledger)
    epsilon = PLD().epsilon(ledger, 1e-3)
    picture = sound(privacy.tradeoff(fpr, fnr, epsilon, 1e-3, best, at=(0.1, 0.5)))
    attacker, corner = named(picture, "best attacker"), named(picture, "ruled out")
    reached = np.interp(corner["x"], attacker["x"], attacker["y"])
    assert np.all(np.array(corner["y"]) <= reached + 0.01)
    assert np.all(reached <= 100 - np.array(corner["x"]) + 1e-6)
    drop = picture["data"][-3]  # from guessing down to the attacker's best point
    assert drop["y"][0] - drop["y"][1] == pytest.approx(100 * best, abs=0.2)
    assert picture["data"][-1]["x"] == [10.0] and picture["data"][-1]["y"] == [50.0]


def test_answers_stand_in_their_order_with_labels_turned_away_from_the_exact_one():
    found = [
        privacy.Answer("loose", 3.0, "upper bound", ""),
        privacy.Answer("tight", 2.0, "exact", ""),
        privacy.Answer("guess", 1.9, "estimate", ""),
        privacy.Answer("other", 4.0, "another promise", ""),
    ]
    picture = sound(privacy.answers(found))
    marks = {y: x for t in picture["data"] for x, y in zip(t["x"], t["y"], strict=True)}
    assert marks == {0: 3.0, 1: 2.0, 2: 1.9, 3: 4.0}
    assert [n["xanchor"] for n in picture["layout"]["annotations"]] == [
        "left",
        "left",
        "right",
        "left",
    ]
    assert len({t["marker"]["symbol"] for t in picture["data"]}) == 4


def test_round_numbers():
    assert [privacy.nice(v) for v in (0.0, 0.9, 1.0, 1.2, 7.0, 10.2, math.inf)] == [
        1.0, 1.0, 1.0, 1.5, 8.0, 15.0, 1.0,
    ]  # fmt: skip
    assert [basics.short(v) for v in (1e-5, 0.0123, 0.5)] == ["1e-5", "0.012", "0.5"]


@pytest.mark.parametrize("low, high, texts", [
    (0.1, 12.0, ["0.1", "0.2", "0.5", "1", "2", "5", "10"]),
    (2.0, 7.0, ["2", "3", "4", "5", "6", "7"]),
    (0.05, 900.0, ["0.1", "1", "10", "100"]),
    (1e-9, 1.0, ["10<sup>−9</sup>", "10<sup>−8</sup>", "10<sup>−7</sup>", "10<sup>−6</sup>",
                 "10<sup>−5</sup>", "10<sup>−4</sup>", "0.001", "0.01", "0.1", "1"]),
    (3e4, 3e6, ["50,000", "100,000", "200,000", "500,000", "10<sup>6</sup>", "2,000,000"]),
])  # fmt: skip
def test_a_logarithmic_axis_writes_its_marks_out(low, high, texts):
    axis = log_axis(low, high)
    assert axis["ticktext"] == texts and len(axis["tickvals"]) == len(texts)
    assert all(low <= mark <= high * (1 + 1e-9) for mark in axis["tickvals"])
    assert 10 ** axis["range"][0] == pytest.approx(low)


DEAR = [0.123412, 1.00001, 2.3801]


def drawn_with_prices():
    """Every figure whose lines are promised epsilons, each drawn with the same ones."""
    steps = np.array([1, 2, 3])
    run = Run(dp.Plan(dp.DPSGD(), dp.Poisson(0.1, 3)), "data", "model", 100, "", 0)
    run.spent_steps, run.spent = [1, 2, 3], DEAR
    level = abadi.Level("low", (), (), (), steps, DEAR, steps, DEAR)
    planned = Curve(steps, np.array(DEAR))
    return {
        "curves": curves.epsilon(planned, [run]), "abadi": abadi.spent([level], 3.0),
        "anatomy": anatomy.price(steps, DEAR), "votes": votes.spending([("plain", DEAR)], 3, 1, 2),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["curves", "abadi", "anatomy", "votes"])
def test_no_promised_epsilon_is_read_below_what_it_is(name):
    lines = [line for line in drawn_with_prices()[name]["data"] if len(line["x"]) == 3]
    assert len(lines) >= (2 if name in ("curves", "abadi") else 1)
    for line in lines:
        assert "%{customdata}" in line["hovertemplate"] and "%{y" not in line["hovertemplate"]
        assert line["customdata"] == ["0.124", "1.01", "2.39"]


def test_a_band_is_read_as_wide_as_it_is_and_a_foreign_claim_no_smaller():
    band, claim = batching.bands([batching.Band("shuffled", 1.0099, 2.3801, 1.00001)], (0.1, 9))[
        "data"
    ]
    assert band["customdata"] == ["1", "2.39"] and claim["customdata"] == ["1.01"]
    assert all("ε %{customdata}" in line["hovertemplate"] for line in (band, claim))


def test_no_epsilon_under_the_mouse_or_in_a_label_is_below_the_computed_one():
    end = 1.2341
    line = privacy.Priced("PLD", 0, [1, 10], [0.50001, end])
    figure = privacy.accountants([line], x_range=(1, 10), y_range=(0.1, 10))
    trace, point = figure["data"]
    assert trace["customdata"] == ["0.501", "1.24"] and "customdata" in trace["hovertemplate"]
    assert "1.24" in str(point) and "1.23" not in str(point).replace("1.2341", "")
    told = [privacy.losses([0, 1, 2], [0.5, 0.5], [0.5, 0.5], end),
            privacy.tradeoff([0, 1], [1, 0], end, 1e-5)]  # fmt: skip
    assert all("1.24" in str(found) and "1.23" not in str(found).replace("1.2341", "")
               for found in told)  # fmt: skip
