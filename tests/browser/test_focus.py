"""The keyboard's focus in a panel: one stop for a row of buttons, never lost; what is heard."""

from __future__ import annotations

import pytest
from test_components import ALL, DRAWN, START
from test_keyboard import focus

pytestmark = pytest.mark.browser


def shown(notebook, figure):
    """Show another figure in the plot of `ALL` and wait until it is drawn."""
    revision = notebook.kernel(f"plot.show({figure}, 'another'); print(plot.revision)")
    notebook.page.wait_for_selector(f".dpk-plot[data-drawn='{revision}']")
    notebook.page.wait_for_timeout(100)


def test_a_plots_buttons_are_one_stop_with_arrow_keys_and_none_does_nothing(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        page, press = notebook.page, notebook.page.keyboard.press
        notebook.run_all()
        page.wait_for_function(DRAWN, arg=1)
        bar = page.get_by_role("toolbar", name="Waves: view and save")
        assert bar.locator("button[tabindex='0']").count() == 1
        tab = page.locator(".dpk-plot button[tabindex='0'], .dpk-plot button:not([tabindex])")
        assert tab.count() == 2, "one stop for the buttons, one for the lines"
        bar.locator("[tabindex='0']").focus()
        seen = []
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "ArrowLeft",
                    "Home", "ArrowDown", "ArrowUp"):  # fmt: skip
            press(key)
            seen.append(focus(page)["name"])
        assert seen == ["Zoom out", "Reset view", "Zoom out", "Save as SVG", "Zoom in",
                        "Save as SVG", "Zoom in", "Zoom out", "Zoom in"]  # fmt: skip
        for _ in range(3):
            press("ArrowRight")
        press("Enter")
        assert page.locator(".dpk-numbers").count() == 1
        press("Enter")
        press("Tab")
        assert focus(page)["name"] == "sine"
        press("ArrowRight")
        press(" ")
        page.wait_for_selector(".dpk-key[aria-pressed=false]:text-is('cosine')")
        press("Shift+Tab")
        assert focus(page)["name"] == "Show the numbers", "the way back forgets where one was"
        picture = (
            "{'data': [{'type': 'heatmap', 'z': [[0, 1], [1, 0]]}], 'layout': "
            "{'xaxis': {'fixedrange': True}, 'yaxis': {'fixedrange': True}}}"
        )
        shown(notebook, picture)
        assert bar.locator("button:visible").count() == 2, "a picture has no zoom and no rows"
        assert focus(page)["name"] == "Save as PNG", "its button went, and the focus with it"
        shown(notebook, "wave()")
        assert bar.locator("button:visible").count() == 6
        notebook.assert_clean()


CHOICES = (
    "{{'data': [{{'type': 'scatter', 'mode': 'markers', 'x': {0}, 'y': {0}, 'meta': 'choices'}}],"
    " 'layout': {{}}}}"
)
GOES = {
    "a line": (".dpk-key:text-is('cosine')", "plot.show({'data': wave()['data'][:1]}, 'one')"),
    "all lines": (".dpk-key", "plot.show({'data': []}, 'none')"),
    "a slider": ("[aria-label='Epochs, value']", "epochs.shown = False"),
    "the last part": (".dpk-tool[tabindex='0']", "plot.shown = False"),
    "a switched off slider": ("[aria-label='Epochs, value']", "epochs.disabled = True"),
    "a switched off choice": (".dpk-select", "data.disabled = True"),
}


@pytest.mark.parametrize("what", GOES)
def test_the_focus_is_never_lost(keys, what):
    css, code = GOES[what]
    keys.page.locator(css).first.focus()
    before = focus(keys.page)["place"]
    keys.kernel(code)
    keys.page.wait_for_timeout(300)
    now = focus(keys.page)
    keys.kernel(
        "epochs.shown = plot.shown = True; epochs.disabled = data.disabled = False; "
        "plot.show(wave(), 'two waves')"
    )
    assert now["inside"], f"it is on {now['kind']}"
    assert now["place"] != before and abs(now["place"] - before) < 8, "far from where it was"


def test_a_redraw_leaves_the_focus_where_it_is(keys):
    page = keys.page
    page.locator(".dpk-key:text-is('cosine')").focus()
    shown(keys, "{'data': wave()['data'] + [{**wave()['data'][0], 'name': 'third'}]}")
    assert focus(page)["name"] == "cosine"
    page.get_by_role("button", name="Show the numbers").press("Enter")
    page.locator(".dpk-numbers").focus()
    page.locator(".dpk-numbers").evaluate("e => e.scrollTop = 500")
    shown(keys, "wave(2)")
    assert "dpk-numbers" in page.evaluate("() => document.activeElement.className")
    assert page.locator(".dpk-numbers").evaluate("e => e.scrollTop") == 500
    shown(keys, CHOICES.format([1, 2, 3]))
    page.get_by_role("button", name="Show the numbers").press("Enter")
    page.locator(".dpk-walk").focus()
    shown(keys, CHOICES.format([1]))
    assert focus(page)["inside"], "the walk along the dots went, and the focus with it"
    keys.assert_clean()


@pytest.fixture(scope="module")
def keys(lab, browser):
    """The controls and a plot, once for the tests that leave them as they were."""
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        yield notebook


HEARD = """() => { window.heard = [];
    const listen = region => new MutationObserver(() => heard.push(region.textContent))
        .observe(region, {childList: true, subtree: true, characterData: true});
    const look = new MutationObserver(() => { const region = document.querySelector('.dpk-voice');
        if (region) { look.disconnect(); heard.push(region.textContent); listen(region) } });
    look.observe(document.body, {childList: true}) }"""


def test_a_screen_reader_hears_what_rests_and_nothing_twice(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        notebook.page.evaluate(HEARD)
        # a stream of a training run: forty lines in four seconds, then the end
        notebook.kernel(
            "for i in range(40):\n"
            "    progress.show(i / 40, f'step {i} of 40'); time.sleep(0.1)\n"
            "progress.show(1.0, 'done: 40 steps'); heard.show('epsilon is 3')"
        )
        notebook.page.wait_for_function("() => /epsilon is 3/.test(heard.at(-1))")
        spoken = notebook.page.evaluate("() => heard")
        assert len(spoken) <= 2 and "done: 40 steps" in spoken[-1], spoken
        notebook.kernel("heard.show('x'); heard.show('epsilon is 3')")
        notebook.page.wait_for_timeout(1500)
        assert notebook.page.evaluate("() => heard") == spoken, "the same words, said again"
        notebook.kernel("heard.show('Nothing runs.', 'error')")
        notebook.page.wait_for_selector("[role=alert]:has-text('Nothing runs.')")
        notebook.assert_clean()


def test_the_numbers_of_a_plot_can_be_read_as_a_table(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        notebook.page.get_by_role("button", name="Show the numbers").focus()
        notebook.page.keyboard.press("Enter")
        rows = notebook.page.locator(".dpk-numbers tbody tr")
        assert rows.count() == 400 and rows.first.inner_text().split() == ["sine", "0", "0"]
        notebook.kernel("plot.show({'data': [{'x': [1, 2], 'y': [3, 4.5]}], 'layout': {}}, 'two')")
        notebook.page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2")
        assert rows.nth(1).inner_text().split() == ["2", "4.5"]
        notebook.page.keyboard.press("Enter")
        assert notebook.page.locator(".dpk-numbers").count() == 0
        notebook.assert_clean()
