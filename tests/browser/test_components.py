"""The plot and the controls, alone, in real JupyterLab: what a person sees, types and hears."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path

import pytest
from harness import summary
from layout import axe

pytestmark = pytest.mark.browser

START = """
import sys, threading, time
import numpy as np
import ipywidgets
from dpkit.widgets.board import Board, Box
from dpkit.widgets.controls import (
    Buttons, Check, Choice, Entry, Note, Progress, Slider, guarded)
from dpkit.widgets.plot import LivePlot, PlotlyBundle

def wave(k=1.0, n=200, **layout):
    x = np.linspace(0, 10, n)
    lines = [("sine", np.sin(k * x), "#0072B2"), ("cosine", np.cos(k * x), "#000000")]
    data = [dict(type="scatter", mode="lines", x=x, y=y, name=name, line=dict(color=colour))
            for name, y, colour in lines]
    return {"data": data, "layout": layout}

def alive():
    return len(ipywidgets.widgets.widget._instances)
"""
SIX = """
plots = [LivePlot(title=f"Plot {i}", height=200) for i in range(6)]
for i, plot in enumerate(plots):
    plot.show(wave(1 + i), summary=f"wave number {i}")
speed = Slider(label="Speed", value=1.0, low=0.1, high=10, log=True)
speed.observe(lambda change: plots[1].show(wave(change["new"])), "value")
board = Board([speed, Box(plots, "dpk-grid")])
board
"""
ALL = """
note = Note("**Bold** and `code` and <img src=x onerror=alert(1)>", kind="warning")
heard = Note(label="heard")
clip = Slider(label="Clip norm C", value=1.0, low=0.1, high=100, log=True, unit="norms",
              help="What one example may add", ends=("more private", "more accurate"))
epochs = Slider(label="Epochs", value=10, low=1, high=50, integer=True)
data = Choice(label="Data", options=["digits", ("two moons", "moons")])
text = Entry(label="Settings", value="abc")
check = Check(label="Planned curve", value=True)
buttons = Buttons(actions=[("train", "Train", "primary"), ("stop", "Stop", "danger")],
                  disabled=["stop"], label="Run")
progress = Progress(label="Progress", value=0.25, text="step 1 of 4")
plot = LivePlot(title="Waves", height=220)
plot.show(wave(), summary="two waves")
@guarded(heard)
def clicked(name):
    if name == "stop":
        raise ValueError("Nothing runs, so nothing can stop.")
    heard.show("clicked " + name)
buttons.on_click(clicked)
parts = [clip, epochs, data, text, check, buttons, progress, note, heard, plot]
board = Board(parts)
board
"""
DRAWN = "n => document.querySelectorAll('.dpk-plot[data-drawn]').length === n"
LINES = """title => [...document.querySelector(`[data-title="${title}"] .js-plotly-plot`)._fullData]
    .map(trace => Array.from(trace.y).map(y => Math.round(1e6 * y) / 1e6))"""
LINE_OF_PLOT_1 = '[data-title="Plot 1"] .scatterlayer .js-line'
STREAM = """
halt = threading.Event()
def stream():
    count = 0
    while not halt.wait(1 / 8):
        count += 1
        for plot in plots:
            plot.show(wave(1 + count / 100, 1000), summary=f"frame {count}")
threading.Thread(target=stream, daemon=True).start()
"""


def shown_by_kernel(notebook, plot):
    """The y values that the kernel last showed in a plot, rounded like LINES."""
    lines = f"[np.round(trace['y'], 6).tolist() for trace in {plot}.figure['data']]"
    return json.loads(notebook.kernel(f"import json; print(json.dumps({lines}))"))


def settled(notebook, plots="plots"):
    """Wait until the page has reported the present revision of every plot."""
    # asked from outside: ipykernel 6 hears the page only between two executions
    notebook.until_kernel(f"all(p.drawn == p.revision for p in {plots})", seconds=30)


def test_six_plots_follow_a_slider_and_come_back_as_they_are(lab, browser):
    with lab.open(browser, [START, SIX]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=6)
        assert notebook.page.evaluate(LINES, "Plot 3") == shown_by_kernel(notebook, "plots[3]")
        times = notebook.latencies("Speed", LINE_OF_PLOT_1, 40)
        print(f"slider to plot: {summary(times)}")
        # the bar is 60 ms on a quiet machine; the test leaves room for a busy one
        assert statistics.median(times) < 300
        received = []
        notebook.page.on(
            "websocket",
            lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))),
        )
        notebook.kernel("plots[3].show(wave(9.0), summary='after the cell')")
        notebook.reload()
        notebook.page.wait_for_function(DRAWN, arg=6, timeout=60_000)
        for number in range(6):
            here = notebook.page.evaluate(LINES, f"Plot {number}")
            assert here == shown_by_kernel(notebook, f"plots[{number}]"), number
        image = notebook.page.locator("[data-title='Plot 3'] [role=img]")
        assert image.get_attribute("aria-label") == "Plot 3: after the cell"
        assert sum(received) < 3e6, "plotly.js travels once for a page"
        # a Plotly that the page has, or has not, stays as it was
        assert notebook.page.evaluate("() => window.Plotly === undefined")
        notebook.assert_clean()


def test_reload_in_mid_stream_ends_with_the_last_figure(lab, browser):
    with lab.open(browser, [START, SIX]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=6)
        notebook.kernel(STREAM)
        busy = notebook.latencies("Speed", LINE_OF_PLOT_1, 3)
        assert busy
        notebook.reload()
        notebook.page.wait_for_function(DRAWN, arg=6, timeout=60_000)
        first = int(notebook.page.locator(".dpk-plot").first.get_attribute("data-drawn"))
        notebook.page.wait_for_function(
            "n => Number(document.querySelector('.dpk-plot').dataset.drawn) > n", arg=first + 5
        )
        notebook.kernel("halt.set()")
        settled(notebook)
        for number in range(6):
            here = notebook.page.evaluate(LINES, f"Plot {number}")
            assert here == shown_by_kernel(notebook, f"plots[{number}]"), number
        notebook.assert_clean()


RINGED = """
def ringed(place, lift=0.0, colour=1.0):
    x, y = np.linspace(0.1, 10, 100), np.linspace(5, 50, 100) % 7
    y[40] += lift
    dots = dict(type="scatter", mode="markers", x=x, y=y, meta="choices", name="runs",
                marker=dict(color=colour * np.linspace(1, 2, 100), colorscale="Viridis"))
    ring = dict(type="scatter", mode="markers", x=[x[place]], y=[y[place]], meta="marks",
                name="selected", marker=dict(size=17, color="#D55E00", line=dict(width=3)))
    axes = dict(xaxis=dict(type="log", range=[-1.1, 1.1]), yaxis=dict(range=[-1, 15]))
    gap = ring | dict(x=[None, x[place]], y=[3.0, float("nan")], name="gap")
    odd = [dict(type="scatter", mode="markers", meta="marks", name=f"odd {i}", **more)
           for i, more in enumerate([dict(y=[3]), dict(x=[1], y=[3]), dict(),
                                     dict(x=[1], y=[3], marker=dict(size=[5]))])]
    return {"data": [dots, ring, gap, *odd], "layout": axes}

rings = LivePlot.of(ringed(3), "Rings")
board = Board([rings])
board
"""
RING = """place => {
    const plot = document.querySelector('.js-plotly-plot');
    const middle = (el) => { const b = el.getBoundingClientRect();
        return [b.left + b.width / 2, b.top + b.height / 2] };
    const dots = [...plot.querySelectorAll('.scatterlayer .point')], at = dots.map(middle);
    const rings = [...plot.querySelectorAll('.shapelayer path')].map(middle);
    const same = dots.length === window.__dots?.length && dots.every((d, i) => d === __dots[i]);
    const kept = plot.calcdata === window.__calculated && same;
    [window.__dots, window.__calculated] = [dots, plot.calcdata];
    const far = rings.map((r) => Math.hypot(r[0] - at[place][0], r[1] - at[place][1]));
    return {rings: rings.length, far, kept, y: Array.from(plot._fullData[0].y)[40]} }"""


def test_a_ring_moves_alone_and_a_dot_that_moves_is_drawn(lab, browser):
    with lab.open(browser, [START, RINGED]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_selector("[data-drawn='1']")

        def after(place, lift, drawn):
            notebook.kernel(f"rings.show(ringed({place}, {lift}))")
            notebook.page.wait_for_selector(f"[data-drawn='{drawn}']")
            found = notebook.page.evaluate(RING, place)
            assert found["rings"] == 1 and found["far"][0] < 1, found
            return found["kept"], round(found["y"] - at_first, 6)

        notebook.page.evaluate(RING, 3)
        at_first = notebook.page.evaluate(RING, 3)["y"]
        assert after(70, 0.0, 2) == (True, 0.0), "the dots were built again for a ring"
        assert after(70, 1.5, 3) == (False, 1.5), "a dot moved and the picture did not"
        assert after(40, 1.5, 4) == (True, 1.5)
        assert after(40, 2.5, 5)[1] == 2.5
        scale = "() => { const {cmin, cmax} = document.querySelector('.js-plotly-plot')"
        scale += "._fullData[0].marker; return [cmin, cmax] }"
        assert notebook.page.evaluate(scale) == [1, 2]
        notebook.kernel("rings.show(ringed(40, 2.5, 0.01))")
        notebook.page.wait_for_selector("[data-drawn='6']")
        assert notebook.page.evaluate(scale) == pytest.approx([0.01, 0.02]), "the old scale"
        notebook.page.get_by_role("button", name="selected").click()
        notebook.page.wait_for_function("() => !document.querySelector('.shapelayer path')")
        notebook.assert_clean()


def test_a_picture_enlarged_by_the_mouse_is_reset_to_what_was_sent(lab, browser):
    with lab.open(browser, [START, RINGED]) as notebook:
        notebook.run_all()
        page = notebook.page
        page.wait_for_selector("[data-drawn='1']")
        ranges = """() => { const full = document.querySelector('.js-plotly-plot')._fullLayout;
            return [...full.xaxis.range, ...full.yaxis.range] }"""
        sent = page.evaluate(ranges)
        box = page.locator(".js-plotly-plot .nsewdrag").bounding_box()

        def enlarge():
            page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 10)
            page.mouse.down()
            page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
            page.mouse.up()
            page.wait_for_function(f"sent => String(({ranges})()) !== String(sent)", arg=sent)
            return page.evaluate(ranges)

        near = enlarge()
        notebook.kernel("rings.show(ringed(70))")
        page.wait_for_selector("[data-drawn='2']")
        assert page.evaluate(ranges) == near, "an update takes the reader's view away"
        notebook.kernel("rings.show(ringed(70, 1.0))")
        page.wait_for_selector("[data-drawn='3']")
        assert page.evaluate(ranges) == near
        page.locator("[data-tool='reset']").click()
        page.wait_for_function(f"sent => String(({ranges})()) === String(sent)", arg=sent)
        notebook.assert_clean()


def test_an_update_that_the_page_missed_is_sent_again(lab, browser):
    lose = """
real = plot.comm.send, note.comm.send
plot.comm.send = note.comm.send = lambda *arguments, **options: None
plot.show(wave(7.0), summary="lost on the way")
note.show("lost too", "info")
plot.comm.send, note.comm.send = real
plot._heard(plot, {"drawn": 1, "settled": True}, None)
note._heard(note, {"have": {"text": "old", "kind": "plain", "label": "", "value": None}}, None)
"""
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        settled(notebook, "[plot]")
        notebook.kernel(lose)
        notebook.page.wait_for_function(
            "() => document.querySelector('.dpk-plot').dataset.drawn === '2'"
            " && /lost too/.test(document.querySelector('.dpk-note-info')?.innerText)"
        )
        assert notebook.page.evaluate(LINES, "Waves") == shown_by_kernel(notebook, "plot")
        notebook.assert_clean()


def test_controls_send_what_is_typed_and_refuse_in_a_sentence(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        box = notebook.control("Clip norm C", ".dpk-number")
        box.fill("2.75")
        box.press("Enter")
        notebook.until_kernel("clip.value == 2.75")
        track = notebook.control("Clip norm C", "input[type=range]")
        assert track.get_attribute("aria-valuetext") == "2.75 norms"
        row = notebook.page.locator(".dpk:has(.dpk-label:text-is('Clip norm C'))")
        for typed, sentence in {
            "250": "Clip norm C must lie between 0.1 and 100; 250 was not used.",
            "much": "Clip norm C needs a number; “much” was not used.",
        }.items():
            box.fill(typed)
            box.press("Enter")
            assert row.locator(".dpk-trouble").inner_text() == sentence
            assert box.get_attribute("aria-invalid") == "true"
        box.press("Escape")
        assert (box.input_value(), row.locator(".dpk-trouble").inner_text()) == ("2.75", "")
        whole = notebook.control("Epochs", ".dpk-number")
        whole.fill("2.5")
        whole.press("Enter")
        assert "whole number" in notebook.page.locator(".dpk-trouble:not(:empty)").inner_text()
        notebook.control("Data", "select").select_option("moons")
        notebook.control("Settings").fill("xyz")
        notebook.control("Settings").press("Enter")
        notebook.control("Planned curve").uncheck()
        notebook.until_kernel("(data.value, text.value, check.value) == ('moons', 'xyz', False)")
        assert notebook.kernel("print(clip.value, epochs.value)") == "2.75 10"
        notebook.kernel("clip.value = 50; data.offer(['a', 'b'], 'b'); progress.show(1.0, 'done')")
        notebook.page.wait_for_function(
            """() => document.querySelector('.dpk-number').value === '50'
                && document.querySelector('.dpk-select').value === 'b'
                && document.querySelector('progress').value === 1"""
        )
        notebook.assert_clean()


def test_keys_act_on_the_control_and_not_on_the_notebook(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        # in Lab's command mode d d deletes the cell, b inserts one, arrows move between headings
        select = notebook.control("Data", "select")
        select.focus()
        for key in ("d", "d", "b", "ArrowDown"):
            notebook.page.keyboard.press(key)
        track = notebook.control("Epochs", "input[type=range]")
        track.focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            notebook.page.keyboard.press(key)
        notebook.until_kernel("epochs.value == 11 and data.value == 'moons'")
        assert notebook.page.locator(".jp-Notebook .jp-CodeCell").count() == 2
        notebook.page.locator("button", has_text="Train").focus()
        notebook.page.keyboard.press("Enter")
        notebook.page.keyboard.press(" ")
        notebook.until_kernel("buttons.clicked == 2 and heard.text == 'clicked train'")
        notebook.page.keyboard.press("Control+s")
        notebook.page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty")
        notebook.assert_clean()


def test_words_are_never_markup_and_errors_in_callbacks_are_seen(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        note = notebook.page.locator(".dpk-note-warning")
        assert note.inner_text() == "Warning: Bold and code and <img src=x onerror=alert(1)>"
        assert note.locator("img").count() == 0 and note.locator("code").inner_text() == "code"
        stop = notebook.page.locator("button", has_text="Stop")
        stop.click(force=True)
        assert notebook.kernel("print(buttons.clicked)") == "0", "a disabled button was pressed"
        notebook.kernel("buttons.disable('train')")
        notebook.page.wait_for_selector("button[aria-disabled=false]:text-is('Stop')")
        stop.click()
        seen = notebook.page.locator(".dpk-note-error")
        seen.wait_for()
        assert "Nothing runs, so nothing can stop." in seen.inner_text()
        assert notebook.kernel("print(type(heard.error).__name__)") == "ValueError"
        with pytest.raises(AssertionError, match="Nothing runs"):
            notebook.kernel("heard.check()")


def test_a_plot_that_cannot_be_drawn_says_so(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        notebook.kernel("plot.show({'data': 'nonsense', 'layout': {}})")
        broken = notebook.page.locator(".dpk-broken")
        broken.wait_for()
        assert "could not be drawn" in broken.inner_text()
        notebook.until_kernel("plot.error is not None")
        notebook.kernel("plot.show(wave(2))")
        broken.wait_for(state="hidden")
        with pytest.raises(AssertionError, match="could not draw"):
            notebook.kernel("plot.check()")


def test_a_fast_drag_leaves_one_message_in_flight_and_never_snaps_back(lab, browser):
    slow = """
seen = []
clip.observe(lambda change: (time.sleep(0.2), seen.append(change["new"])), "value")
"""
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        notebook.kernel(slow)
        track = notebook.control("Clip norm C", "input[type=range]")
        box = track.bounding_box()
        middle = box["y"] + box["height"] / 2
        notebook.page.evaluate(
            """() => { window.__places = []; const t = document.querySelector('.dpk-track');
                const look = () => { __places.push(t.valueAsNumber);
                    window.__looking = requestAnimationFrame(look) }; look() }"""
        )
        notebook.page.mouse.move(box["x"] + 0.34 * box["width"], middle)
        began = time.monotonic()
        notebook.page.mouse.down()
        for step in range(100):
            notebook.page.mouse.move(box["x"] + (0.34 + 0.006 * step) * box["width"], middle)
        notebook.page.mouse.up()
        dragged = time.monotonic() - began
        last = notebook.control("Clip norm C", ".dpk-number").input_value()
        notebook.until_kernel(f"seen and seen[-1] == {last}")
        places = notebook.page.evaluate("() => (cancelAnimationFrame(__looking), __places)")
        assert places[1:] == sorted(places[1:]), "the handle jumped back"
        sent = json.loads(notebook.kernel("print(seen)"))
        # Each is answered after 0.2 s at the earliest, and only then may the next one go.
        assert sent == sorted(sent) and len(sent) <= dragged / 0.2 + 3, (len(sent), dragged)
        notebook.assert_clean()


def test_hidden_plots_wait_and_narrow_pages_do_not_scroll_sideways(lab, browser):
    with lab.open(browser, [START, ALL], width=480) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        notebook.kernel("plot.shown = False; plot.show(wave(3))")
        notebook.page.wait_for_timeout(300)
        assert notebook.page.locator(".dpk-plot").get_attribute("data-drawn") == "1"
        notebook.kernel("plot.shown = True")
        notebook.page.wait_for_function("() => document.querySelector('[data-drawn=\"2\"]')")
        overflow = notebook.page.evaluate(
            """() => [...document.querySelectorAll('.dpk, .dpk *:not(.dpk-hidden)')].filter(e =>
                !e.closest('svg') && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
                && getComputedStyle(e).overflowX !== 'hidden').map(e => e.className)"""
        )
        assert not overflow
        notebook.shot("components-480")
        notebook.assert_clean()


def test_a_plot_can_be_zoomed_saved_and_its_lines_hidden(lab, browser):
    ends = "() => document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range"
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        whole = notebook.page.evaluate(ends)
        notebook.page.get_by_role("button", name="Zoom in").click()
        notebook.page.wait_for_function(f"() => ({ends})()[1] < {whole[1]}")
        closer = notebook.page.evaluate(ends)
        notebook.kernel("plot.show(wave(2))")
        notebook.page.wait_for_selector("[data-drawn='2']")
        assert notebook.page.evaluate(ends) == closer, "an update undid the zoom"
        notebook.page.get_by_role("button", name="Reset view").click()
        notebook.page.wait_for_function(f"() => ({ends})()[1] === {whole[1]}")
        notebook.page.get_by_role("button", name="cosine").click()
        notebook.page.wait_for_function(
            "() => document.querySelectorAll('.scatterlayer .trace').length === 1"
        )
        for kind, start in {"PNG": b"\x89PNG", "SVG": b"<svg"}.items():
            with notebook.page.expect_download() as download:
                notebook.page.get_by_role("button", name=f"Save as {kind}").click()
            assert download.value.suggested_filename == f"waves.{kind.lower()}"
            assert Path(download.value.path()).read_bytes().startswith(start)
        words = notebook.page.locator(".dpk-plot").inner_html()
        assert "chart" not in words.lower(), "nothing on the page offers to upload"
        notebook.assert_clean()


def test_closing_and_running_again_leave_nothing_behind(lab, browser):
    with lab.open(browser, [START, ALL]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=1)
        counts = []
        for _ in range(3):
            ids = "[p.model_id for p in (board, *parts)]"
            comms = json.loads(notebook.kernel(f"import json, gc; print(json.dumps({ids}))"))
            notebook.kernel("board.close(); board.close(); clip.close(); gc.collect()")
            notebook.page.wait_for_function("() => !document.querySelector('.dpk')")
            open_comms = notebook.page.evaluate(
                """ids => { const kernel = jupyterapp.shell.currentWidget.context
                    .sessionContext.session.kernel; return ids.filter(i => kernel.hasComm(i)) }""",
                comms,
            )
            assert not open_comms
            counts.append(int(notebook.kernel("print(alive())")))
            notebook.run_cell(1)
            notebook.page.wait_for_function(DRAWN, arg=1)
        assert counts == [1, 1, 1], "of all widgets only the shared plotly.js stays"
        assert notebook.kernel("print(PlotlyBundle.shared() is plot.bundle)") == "True"
        notebook.assert_clean()


def test_a_stream_leaves_memory_flat(lab, browser):
    seconds = float(os.environ.get("STREAM_SECONDS", "20"))
    with lab.open(browser, [START, SIX]) as notebook:
        notebook.run_all()
        notebook.page.wait_for_function(DRAWN, arg=6)
        tools = notebook.context.new_cdp_session(notebook.page)
        tools.send("Performance.enable")

        def memory():
            tools.send("HeapProfiler.collectGarbage")
            found = {m["name"]: m["value"] for m in tools.send("Performance.getMetrics")["metrics"]}
            own = notebook.kernel(
                "import psutil, gc; gc.collect(); print(psutil.Process().memory_info().rss)"
            )
            return found["JSHeapUsedSize"] / 1e6, found["Nodes"], int(own) / 1e6

        notebook.kernel(STREAM)
        notebook.page.wait_for_timeout(6000)
        before = memory()
        notebook.page.wait_for_timeout(1000 * seconds)
        after = memory()
        notebook.kernel("halt.set()")
        print(f"heap MB, nodes, kernel MB: {before} -> {after} in {seconds:.0f} s")
        assert after[0] - before[0] < 15 and after[2] - before[2] < 15
        assert after[1] < 1.5 * before[1] + 500
        notebook.assert_clean()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_violation(lab, browser, theme):
    lab.use_theme(theme)
    try:
        with lab.open(browser, [START, ALL], scheme=theme) as notebook:
            notebook.run_all()
            notebook.page.wait_for_function(DRAWN, arg=1)
            notebook.kernel("clip.problem = 'Too large for this plan.'; heard.show('x', 'error')")
            notebook.page.wait_for_selector(".dpk-note-error")
            notebook.page.evaluate(axe())
            found = notebook.page.evaluate(
                """async () => {
                    const where = {include: [['.dpk']]}, what = {resultTypes: ['violations']};
                    const run = await axe.run(where, what);
                    return run.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 160))])
                }"""
            )
            notebook.shot(f"components-{theme}")
            assert not found, found
    finally:
        lab.use_theme("light")
