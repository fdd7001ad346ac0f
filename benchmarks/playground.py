"""The playground's promises, measured: accuracy, times, memory. `python benchmarks/playground.py`.

Parts: mnist (needs DPKIT_DATA or a network), digits, browser (needs Chromium), soak (long).
Prints a table and, with --output, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))


def mnist(epsilon: float = 3.0, seeds: int = 3) -> dict[str, object]:
    """MLP 784-100-10, batch 600, 15 epochs, calibrated to epsilon; test accuracy by seed."""
    import dpkit as dp

    data = dp.datasets.load("mnist")
    method = dp.DPSGD(max_grad_norm=1.0, learning_rate=0.1, momentum=0.9)
    plan = dp.Plan(method, dp.Poisson(600 / data.num_examples, 1500), delta=1e-5)
    plan = plan.calibrated(epsilon)
    accuracies, seconds = [], []
    for seed in range(seeds):
        started = time.perf_counter()
        *_, last = dp.train(dp.zoo.mlp(data, seed=seed), data, plan, seed=seed)
        seconds.append(time.perf_counter() - started)
        accuracies.append(last.peek.accuracy)
        assert last.epsilon == plan.epsilon() <= epsilon
    return {
        "accuracy": accuracies,
        "mean accuracy": statistics.mean(accuracies),
        "seconds": seconds,
        "epsilon": plan.epsilon(),
        "noise multiplier": plan.method.noise_multiplier,
    }


def digits() -> dict[str, object]:
    """The playground's first run, without a panel."""
    import dpkit as dp
    from dpkit.settings import Settings

    data = dp.datasets.load("digits")
    settings = Settings()
    plan = settings.plan(data.num_examples)
    started = time.perf_counter()
    *_, last = dp.train(dp.zoo.mlp(data, seed=0), data, plan, seed=0)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "accuracy": last.peek.accuracy, "epsilon": last.epsilon}


def browser() -> dict[str, object]:
    """Latencies, first point, stop, reload and memory in JupyterLab and headless Chromium."""
    import psutil
    import test_playground as page
    from harness import Lab, launch
    from playwright.sync_api import sync_playwright

    found: dict[str, object] = {}
    with sync_playwright() as playwright, Lab() as lab:
        chromium = launch(playwright)
        with lab.open(chromium, [page.PANEL.format(page.LONG)]) as notebook:
            notebook.run_all()
            notebook.page.wait_for_selector(page.READOUT)
            for state in ("quiet", "training"):
                if state == "training":
                    clicked = time.perf_counter()
                    page.press(notebook, "Train")
                    page.until(notebook, r"step [\d,]+ of")
                    found["first point s"] = time.perf_counter() - clicked
                times = notebook.latencies("Noise multiplier σ", page.READOUT, 100, pause=0.05)
                found[f"slider {state} median ms"] = statistics.median(times)
                found[f"slider {state} p95 ms"] = times[94]
            page.press(notebook, "Stop")
            found["stop ms"] = page.until(notebook, "Stopped")
        for name in ("digits", "mnist"):
            with lab.open(chromium, [page.PANEL.format(f'settings="data={name} epochs=2"')]) as it:
                it.run_all()
                it.page.wait_for_selector(page.READOUT)
                page.press(it, "Train")
                peak = 0
                while "Done" not in page.progress(it):
                    tree = [psutil.Process(lab.process.pid)]
                    tree += tree[0].children(recursive=True)
                    peak = max(peak, sum(p.memory_info().rss for p in tree))
                    time.sleep(0.1)
                found[f"peak MB server and kernel, {name}"] = peak / 2**20
        chromium.close()
    return found


def soak(minutes: float = 120.0) -> dict[str, object]:
    """Train on 2-D data through the panel's own session for a long time; memory by minute."""
    import psutil

    import dpkit as dp

    panel = dp.widgets.Playground(
        settings="data=moons examples=1000 noise=1.0 batch=100 epochs=100000"
    )
    panel.start()
    started, seen = time.monotonic(), []
    while time.monotonic() - started < 60 * minutes and panel.session.runner.busy:
        time.sleep(60)
        seen.append(psutil.Process().memory_info().rss / 2**20)
        print(f"{len(seen)} min: {seen[-1]:.0f} MB, step {panel.session.last.step:,}", flush=True)
    panel.stop()
    panel.join(10)
    panel.check()
    half = seen[len(seen) // 2 :]
    return {
        "MB after warm-up": seen[min(4, len(seen) - 1)],
        "MB at the end": seen[-1],
        "drift of the second half MB": half[-1] - half[0],
        "steps": panel.session.last.step,
    }


def main() -> None:
    parts = {"mnist": mnist, "digits": digits, "browser": browser, "soak": soak}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["mnist", "digits", "browser"])
    parser.add_argument("--minutes", type=float, default=120.0, help="length of the soak")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    import numpy
    import torch

    result: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
    }
    for part in options.parts:
        result[part] = soak(options.minutes) if part == "soak" else parts[part]()
        print(part, json.dumps(result[part], indent=1), flush=True)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
