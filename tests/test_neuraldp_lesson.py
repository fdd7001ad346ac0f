"""The lesson on private activations: its prices are those of plans, its words those of the runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import dpkit as dp
from dpkit.figures import activations as figures
from dpkit.widgets import leaking, neuraldp, neuraldp_stored

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "08_neuraldp.ipynb"


@pytest.fixture(scope="module")
def data():
    return neuraldp.digits()


@pytest.fixture
def panel(data):
    made = neuraldp.ActivationPanel(data)
    yield made
    made.close()


def settled(made):
    assert made.join()
    made.check()
    return made


def test_the_true_price_is_that_of_the_plan_that_is_trained(panel):
    panel.turn(sigma=4.0)
    exact = dp.PLD().epsilon(dp.Ledger.of([(dp.Gaussian(2.0), 1)]), neuraldp.DELTA)
    assert panel.plan.epsilon() == pytest.approx(exact, rel=1e-9)
    assert f"ε = {dp.plan.round_up(exact)}" in panel.said.text
    assert "label is **not** protected" in panel.said.text and "**no ε** holds" in panel.said.text
    alone = panel.claimed
    panel.turn(releases=5)
    more = dp.PLD().epsilon(dp.Ledger.of([(dp.Gaussian(2.0), 5)]), neuraldp.DELTA)
    assert panel.plan.epsilon() == pytest.approx(more, rel=1e-9)
    assert alone < panel.claimed < panel.plan.epsilon()
    panel.turn(labels="randomised", answer=2.0)
    assert panel.plan.ledger().steps == 6 and panel.plan.epsilon() > more
    assert "label included" in panel.said.text
    settled(panel)


def test_the_three_readouts_name_what_is_false_and_what_is_none(panel):
    claimed, true = panel.plots["prices"].figure["data"]
    assert claimed["x"][0] == pytest.approx(panel.claimed, rel=1e-5)
    assert true["x"][0] == pytest.approx(panel.plan.epsilon(), rel=1e-5)
    texts = [note["text"] for note in panel.plots["prices"].figure["layout"]["annotations"]]
    assert any("none: no ε holds" in text for text in texts)
    assert any("false" in text for text in texts) and any("true" in text for text in texts)
    for away in ((0.01, 5000.0), (300.0, 0.02)):
        assert len(figures.readouts(*away)["data"]) == 2


@pytest.mark.parametrize("layer", neuraldp.LAYERS)
def test_the_cloud_has_norm_one_before_and_the_noise_after(panel, layer):
    panel.turn(layer=layer, dimension=8, sigma=2.0)
    settled(panel)
    assert panel.controls["dimension"].shown == (layer != "pixels")
    before, after = panel.clouds
    assert float(before.norm(dim=1).max()) <= 1 + 1e-5
    moved = (after - before).numpy()
    assert moved.std() == pytest.approx(2.0, rel=0.1)
    shown = panel.plots["before"].figure["data"]
    assert sum(len(part["x"]) for part in shown) == neuraldp.RECORDS_SHOWN
    public = neuraldp.layer_of(panel.data, layer, 8)
    again = neuraldp.layer_of(panel.data, layer, 8)
    pairs = zip(public.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(bool((a == b).all()) for a, b in pairs), "the layer is the same for everybody"


def test_a_live_run_is_a_training_by_hand_at_the_price_of_its_rival(panel):
    panel.turn(sigma=1.09, dimension=16)
    assert panel.train()
    settled(panel)
    names = [name for name, _ in panel.runs]
    assert names == ["private activations", "DP-SGD"] * 2
    plan, rival = panel.plan, neuraldp.rival_of(panel.plan)
    assert rival.neighbours is plan.neighbours is dp.Neighbours.REPLACE_ONE
    assert rival.epsilon() == pytest.approx(plan.epsilon(), rel=0.01)
    seen = dp.datasets.PublicPCA(16).learnt(panel.data.public_inputs).of(panel.data)
    model = dp.zoo.released(seen, 0)
    *_, last = dp.train(model, seen, plan, seed=0, evaluate_every=plan.steps)
    assert panel.runs[0][1] == pytest.approx(last.peek.accuracy, abs=0.01)
    assert panel.progress.text == "4 of 4 runs"
    panel.turn(sigma=3.0)
    assert not panel.runs and panel.plots["finals"].figure["layout"]["annotations"]


def test_the_leak_panel_states_no_epsilon_and_spots_the_record(data):
    made = leaking.UpdatePanel(data)
    for sigma in (0.1, 10_000.0):
        made.turn(sigma=sigma, batch=1)
        settled(made)
        assert made.found.wrong == 0 and "cosine **1.000**" in made.said.text
        assert made.said.text.startswith("No privacy is promised")
    made.turn(batch=16)
    right, wrong = made.plots["guesses"].figure["data"]
    assert wrong["y"] == [0, 0] and right["y"] == [20, 20]
    sheet = np.asarray(made.plots["picture"].figure["data"][0]["z"])
    assert sheet.shape == (8, 18)
    made.close()


def test_the_stored_table_is_whole_and_its_unsound_column_has_no_epsilon():
    found = neuraldp_stored.stored()
    assert found.modes[-1] == neuraldp_stored.UNSOUND
    for name in ("mnist", "pneumonia"):
        for mode in found.modes:
            cells = found.row(name, mode)
            assert len(cells) == 5 and all(0 <= c.mean <= 100 and 2 <= c.seeds <= 5 for c in cells)
    assert found.conditions["relation"] == "REPLACE_ONE"
    assert found.conditions["deltas"] == {"mnist": 1e-5, "pneumonia": 1e-4}
    made = neuraldp_stored.ComparisonPanel()
    for name in neuraldp_stored.TITLES:
        made.turn(data=name)
        settled(made)
        assert "leaky (ε: none)" in made.table.value
        lines = [line["name"] for line in made.plots["bought"].figure["data"]]
        assert lines[-1] == "leaky (ε: none)" and len(lines) == len(found.modes)
    made.close()


def test_the_words_of_the_lesson_are_what_is_stored():
    """Every percentage of the finding is a cell of the table, to its last digit."""
    found = neuraldp_stored.stored()
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    (finding,) = [
        text for cell in cells if "**What we find.**" in (text := "".join(cell["source"]))
    ]
    means = {
        f"{found.cell(name, mode, epsilon).mean:.1f}"
        for name in neuraldp_stored.TITLES
        for mode in found.modes
        for epsilon in found.epsilons
    }
    said = re.findall(r"(\d+\.\d)%", finding)
    assert len(said) >= 15 and set(said) <= means
    for name in neuraldp_stored.TITLES:  # the finding itself, not its figures alone
        for epsilon in found.epsilons:
            best = found.cell(name, "DP-SGD", epsilon).mean
            for mode in ("once", "each epoch", "once, labels too"):
                assert best > found.cell(name, mode, epsilon).mean
    seeds = {found.cell(n, m, e).seeds for n in neuraldp_stored.TITLES for m in found.modes
             for e in found.epsilons}  # fmt: skip
    assert f"{min(seeds)} to {max(seeds)} seeds" in finding or f"{max(seeds)} seeds" in finding
    assert found.found["speed"]["ratio"] <= 1.05
