"""The explorer: a dot is a run that was made; what is chosen is shown whole and can be repeated."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dpkit as dp
from dpkit import schedules
from dpkit.sweeping import Store, export, sweep
from dpkit.widgets import explorer_stored
from dpkit.widgets.explorer import Explorer
from dpkit.widgets.explorer_stored import stored
from dpkit.written import written
from tests.sweeps import GRID, PLAN, SEEDS, Here, linear, published


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs.sqlite"


@pytest.fixture
def panel(file):
    made = Explorer(sweep(GRID, published, linear, seeds=SEEDS, store=file, executor=Here()))
    yield made
    made.close()


def test_dots_come_while_the_sweep_goes_on_and_each_is_a_run_of_the_store(panel, file):
    assert len(panel.cloud) == 0 and "Press **Start**" in panel.said.text
    panel.PAUSE = 0.0
    assert panel.start() and not panel.start(), "one sweep at a time"
    assert panel.join(60)
    panel.check()
    with Store(file) as store:
        held = {r.key: (r.epsilon, r.accuracy) for r in store.records("finished")}
    assert {p.key: (p.epsilon, p.accuracy) for p in panel.cloud.points} == held
    assert len(held) == 12 and panel.progress.value == 1.0 and "12 of 12" in panel.progress.text
    assert list(panel.plots["plane"].figure["data"][0]["x"]) == [
        p.epsilon for p in panel.cloud.points
    ]
    assert "12 runs" in panel.said.text and "6 plans" in panel.said.text


def test_stop_keeps_what_is_finished_and_start_goes_on(panel):
    panel.PAUSE = 0.0
    shown = panel._add
    panel._add = lambda record: (shown(record), panel.stop())
    panel.start()
    assert panel.join(60) and len(panel.cloud) == 1
    panel._add = shown
    assert panel.start() and panel.join(60)
    assert len(panel.cloud) == 12


def test_the_frontier_is_walked_and_the_chosen_run_is_shown_whole(panel):
    panel.start()
    panel.join(60)
    seen = []
    for place in range(1, len(panel.cloud.frontier) + 1):
        panel.turn(run=place)
        record = panel.selected
        seen.append(record.epsilon)
        assert record.run.guarantee in panel.promise.text
        assert panel.plots["accuracy"].figure["data"][0]["x"] == record.run.tested_steps
    assert seen == sorted(seen) == [m.epsilon for m in panel.cloud.frontier]
    other = panel.cloud.points[0].key
    panel.select(other)
    assert panel.selected.key == other
    with pytest.raises(KeyError, match="no finished run"):
        panel.select("nothing")


def test_filter_colour_and_comparison_follow_any_knob(panel):
    panel.start()
    panel.join(60)
    knob = "method.noise_multiplier"
    panel.turn(colour=knob, by=knob)
    assert sorted(set(panel.plots["plane"].figure["data"][0]["marker"]["color"])) == [1, 2, 4]
    names = [line["name"] for line in panel.plots["compared"].figure["data"] if "name" in line]
    assert names == ["noise σ 1", "noise σ 2", "noise σ 4"]
    panel.turn(knob=knob)
    panel.turn(value="2.0")
    assert {p.knobs[knob] for p in panel.cloud.points} == {2.0} and len(panel.cloud) == 4
    panel.join()
    axes = panel.plots["knobs"].figure["data"][0]["dimensions"]
    assert [axis["label"] for axis in axes] == ["clip norm C", "log₁₀ ε", "accuracy (%)"]


def test_methods_are_compared_in_one_sweep_each_with_its_model_and_its_band(file):
    epsilon = {"epsilon": (2.0, 8.0)}
    plain = replace(PLAN, relation=dp.Neighbours.REPLACE_ONE)
    labels = dp.mechanisms.RandomisedResponse(1.0, 3)
    others = [
        (dp.DPSGD(schedules.TimeDecay(3.0, 0.1), 1.0, 0.5), None),
        (dp.DPSGD(1.0, 1.0, 0.5, mask=dp.Freeze(0.5)), None),
        (dp.TopAgg(1.0, 1.0, 0.5, top_k=4), None),
        (dp.NeuralDP(1.0, 1.0, 0.5, labels=labels), dp.zoo.released),
    ]
    grids = [dp.Grid(plain, epsilon)]
    grids += [dp.Grid(replace(plain, method=m), epsilon, model) for m, model in others]
    panel = Explorer(sweep(grids, published, linear, seeds=range(3), store=file, executor=Here()))
    panel.start()
    assert panel.join(60) and len(panel.cloud) == 30
    panel.turn(by="method")
    kinds = [
        "DPSGD", "DPSGD with Freeze", "DPSGD with TimeDecay", "NeuralDP", "TopAgg"
    ]  # fmt: skip
    drawn = panel.plots["compared"].figure["data"]
    assert [line["name"] for line in drawn if "name" in line] == kinds
    bands = [line for line in drawn if line.get("fill") == "toself"]
    assert len(bands) == 5 and all("3 seeds" in t for x in drawn for t in x.get("text", ()))
    models = {p.knobs["method"]: p.knobs["model"] for p in panel.cloud.points}
    assert {k for k, model in models.items() if model == "released"} == {"NeuralDP"}
    assert "not of one kind" not in panel.said.text
    panel.close()


def test_the_stored_comparison_on_mnist_is_priced_by_its_plans_and_shown_with_bands():
    runs = stored()
    kinds = {export.kind(record.plan.method) for record in runs}
    assert len(kinds) == 5 and {"NeuralDP", "TopAgg", "DPSGD with Freeze"} < kinds
    for kind in kinds:
        record = next(r for r in runs if export.kind(r.plan.method) == kind)
        assert record.epsilon == pytest.approx(record.plan.epsilon(), rel=1e-6)
        assert record.run.spent[-1] == record.epsilon and record.seed == 0
        assert "Teaching run" in record.run.guarantee and "torch" in record.versions
    panel = Explorer(runs)
    assert len(panel.cloud) == len(runs) == 135 and not panel.cloud.promises
    panel.turn(by="method")
    drawn = panel.plots["compared"].figure["data"]
    assert len([line for line in drawn if line.get("fill") == "toself"]) == 5
    assert "at least" in panel.cost.text and "135 attempts at 135 runs" in panel.cost.text
    panel.close()
    assert Path(explorer_stored.__file__).with_name("sweep_mnist.json").stat().st_size < 100_000


def test_what_promises_another_thing_is_not_passed_off_as_the_same(file):
    other = replace(PLAN, relation=dp.Neighbours.REPLACE_ONE)
    bare = replace(other, method=dp.NeuralDP(4.0, 1.0, 0.5))
    grids = [PLAN, other, dp.Grid(bare, {}, dp.zoo.released)]
    list(sweep(grids, published, linear, store=file, executor=Here()))
    panel = Explorer(file)
    said = panel.said.text
    assert "not of one kind" in said and "relation: ADD_REMOVE, REPLACE_ONE" in said
    assert "unit: one example, the input of one example, its label being public" in said
    panel.turn(knob="relation")
    panel.turn(value="'ADD_REMOVE'")
    assert {p.knobs["relation"] for p in panel.cloud.points} == {"ADD_REMOVE"}
    assert "not of one kind" not in panel.said.text
    panel.close()


def test_the_cost_of_looking_at_all_runs_is_their_composition(panel):
    panel.start()
    panel.join(60)
    assert "12 attempts at 12 runs, shown or not, cost ε = " in panel.cost.text
    entries = [e for point in GRID for e in point.plan.ledger().entries for _ in SEEDS]
    together = dp.PLD().epsilon(dp.Ledger.of(entries, PLAN.neighbours), PLAN.delta)
    assert f"ε = {dp.plan.round_up(together)} at" in panel.cost.text


def test_the_cost_counts_what_failed_and_what_is_not_shown(file):
    from tests import sweeps

    with pytest.warns(UserWarning, match="set aside after 4 failures"):
        list(sweep(PLAN, published, sweeps.failing, seeds=(0, 1), store=file, executor=Here()))
    panel = Explorer(file)
    assert len(panel.cloud) == 1 and "5 attempts at 2 runs" in panel.cost.text
    panel.close()
    with Store(file) as store:
        for state, paid in (("finished", "1 attempts at 1 runs"), (None, "5 attempts at 2 runs")):
            panel = Explorer(list(store.records(state)))
            assert "at least" in panel.cost.text and paid in panel.cost.text
            panel.close()


def test_attempts_that_all_failed_are_told_without_a_dot(file):
    from tests import sweeps

    with pytest.warns(UserWarning, match="set aside after 4 failures"):
        list(sweep(PLAN, published, sweeps.failing, seeds=(1,), store=file, executor=Here()))
    panel = Explorer(file)
    together = dp.PLD().epsilon(
        dp.Ledger.of(PLAN.ledger().entries * 4, PLAN.neighbours), PLAN.delta
    )
    assert len(panel.cloud) == 0 and "4 attempts at 1 runs" in panel.cost.text
    assert f"ε = {dp.plan.round_up(together)} at" in panel.cost.text
    panel.close()


def test_runs_without_an_accuracy_and_their_failures_are_paid_for_and_told(file, tmp_path):
    records = list(sweep(GRID, published, linear, store=file, executor=Here()))
    untested = [replace(records[0], accuracy=None, failures=2), *records[1:]]
    panel = Explorer(untested)
    assert len(panel.cloud) == 5 and "8 attempts at 6 runs" in panel.cost.text
    assert "Finished runs not shown: 1 without a test accuracy." in panel.said.text
    panel.close()
    again = export.to_json([replace(records[0], failures=2)], tmp_path / "runs.json")
    panel = Explorer(again)
    assert "3 attempts at 1 runs" in panel.cost.text and "not shown" not in panel.said.text
    panel.close()


def test_a_run_of_infinite_epsilon_is_told_and_costs_no_redraw_anything(file):
    free = replace(PLAN, method=dp.DPSGD(0.0, 1.0, 0.5))
    panel = Explorer(list(sweep([PLAN, free], published, linear, store=file, executor=Here())))
    assert "Finished runs not shown: 1 of infinite ε" in panel.said.text
    held = panel.cloud
    panel.turn(run=2)
    assert len(held) == 1 and panel.cloud is held, "the same runs are gathered once"
    panel.close()
    panel = Explorer(list(sweep(free, published, linear, store=file, executor=Here())))
    assert len(panel.cloud) == 0 and "No finished run yet" not in panel.said.text
    assert "1 of infinite ε" in panel.said.text
    for name in ("plane", "knobs"):
        (note,) = panel.plots[name].figure["layout"]["annotations"]
        assert "1 of infinite ε" in note["text"]
    assert "1 of infinite ε" in panel.plots["compared"].summary
    panel.close()


def test_an_estimate_is_drawn_as_the_bound_that_is_promised(file):
    plan = replace(PLAN, accountant=dp.GDP())
    (record,) = sweep(plan, published, linear, store=file, executor=Here(), evaluate_every=2)
    panel = Explorer([record])
    true = dp.PLD().epsilon(plan.ledger(), plan.delta)
    assert plan.epsilon() < 0.9 * true and record.run.spent[-1] < 0.9 * true
    planned, run = panel.plots["epsilon"].figure["data"]
    assert [planned["y"][-1], run["y"][-1]] == pytest.approx([true, true], rel=1e-4)
    halfway = dp.PLD().epsilon(plan.ledger(run["x"][0]), plan.delta)
    assert run["x"] == record.run.spent_steps and run["y"][0] == pytest.approx(halfway, rel=1e-4)
    told = panel.plots["epsilon"].figure["layout"]["yaxis"]["title"]
    assert "bound by PLD" in str(told) and dp.plan.round_up(true) in panel.plots["epsilon"].summary
    panel.close()


def test_the_chosen_value_stays_when_a_smaller_one_arrives(file):
    noise = (1.0, 4.0, 2.0)
    grid = dp.Grid(PLAN, {"method.noise_multiplier": noise})
    made = sweep(grid, published, linear, store=file, executor=Here())
    first, last, middle = sorted(made, key=lambda record: record.place)
    panel = Explorer([middle, last])
    panel.turn(knob="method.noise_multiplier")
    panel.turn(value="4.0")
    panel._add(first)
    panel.redraw()
    assert [p.knobs["method.noise_multiplier"] for p in panel.cloud.points] == [4.0]
    assert panel.controls["value"].options[1:] == [["1", "1.0"], ["2", "2.0"], ["4", "4.0"]]
    panel.close()


def test_no_epsilon_under_the_mouse_is_below_the_promised_one(panel):
    panel.start()
    panel.join(60)
    panel.turn(by="method.max_grad_norm")
    dots = panel.plots["plane"].figure["data"][0]
    lines = [x for x in panel.plots["compared"].figure["data"] if x.get("mode") == "lines+markers"]
    told = [dp.plan.round_up(p.epsilon) for p in panel.cloud.points]
    assert list(dots["customdata"]) == told and len(lines) == 2
    for trace in (dots, *lines):
        assert "ε %{customdata}" in trace["hovertemplate"] and "%{x" not in trace["hovertemplate"]
        pairs = zip(trace["customdata"], trace["x"], strict=True)
        assert all(float(told) >= 0.999999 * epsilon for told, epsilon in pairs)


def test_a_store_is_opened_by_its_path(file):
    list(sweep(PLAN, published, linear, store=file, executor=Here()))
    with Store(file) as store:
        for source in (file, str(file), store):
            panel = Explorer(source)
            assert len(panel.cloud) == 1 and not panel.start()
            panel.close()
    with pytest.raises(FileNotFoundError, match="There is no store"):
        Explorer(file.with_name("none.sqlite"))


def test_the_code_of_a_run_repeats_it(file, capsys):
    plan = dp.Plan(dp.DPSGD(1.1, 1.0, 0.5), dp.Poisson(0.25, 6), delta=1e-4)
    (record,) = sweep(plan, "moons", dp.zoo.logistic, seeds=(3,), store=file, executor=Here())
    panel = Explorer([record])
    exec(compile(panel.code.text, "code", "exec"), {})
    last = capsys.readouterr().out.split()[-3:]
    assert [float(x) for x in last] == [6, record.epsilon, record.accuracy]
    panel.close()


@pytest.mark.parametrize(
    "value",
    [
        PLAN,
        dp.Plan(
            dp.DPSGD(schedules.TimeDecay(3.0, 0.1), clipping=dp.gradients.PerLayer()),
            dp.Shuffle(4, 2), 1e-4, dp.Neighbours.ZERO_OUT, dp.RDP(),
            before=(dp.Release(dp.Gaussian(16.0), access=dp.Access.ALL),),
            budget=dp.RhoBudget(2.0),
        ),
        dp.Plan(dp.DPSGD(0.0, optimiser=dp.gradients.Adam()), dp.FixedSize(5, 50, 3)),
    ],
    ids=["plain", "rich", "adam"],
)  # fmt: skip
def test_written_values_are_the_same_when_read(value):
    assert eval(written(value), {"dp": dp, "float": float}) == value


def test_what_no_name_makes_is_refused():
    with pytest.raises(ValueError, match="no short form"):
        written(torch.zeros(2))
    with pytest.raises(ValueError, match="no short form"):
        written(lambda step: 1.0)
