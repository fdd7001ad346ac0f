"""Whole runs, not steps: Abadi's MNIST run beside plain SGD, and the panel beside a bare loop.

`python benchmarks/loops.py abadi` (needs DPKIT_DATA or a network), `... panel`. Both contestants
take turns of a few hundred steps in one process; what is told is the median over turns of the
ratio of their times, and the time of the whole run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import dpkit as dp

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
BATCH, EPOCHS = 600, 100


def network() -> nn.Module:
    """Abadi et al. 2016, 5.1: 60 components, 1,000 hidden units."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(60, 1000), nn.ReLU(), nn.Linear(1000, 10))


def components(inputs: Tensor) -> Tensor:
    """The first 60 principal components; not private, since only the time counts here."""
    flat = inputs.flatten(1)
    flat = flat - flat.mean(0)
    return flat @ torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -60:]


def plain(inputs: Tensor, targets: Tensor) -> Iterator[None]:
    """SGD over shuffled epochs as a careful user writes it, with the loss that he plots."""
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, foreach=True)
    while True:
        order = torch.randperm(len(inputs))
        for index in order.split(BATCH):
            optimiser.zero_grad()
            batch = inputs.index_select(0, index), targets.index_select(0, index)
            loss = functional.cross_entropy(model(batch[0]), batch[1])
            loss.backward()
            optimiser.step()
            loss.item()
            yield


def private(inputs: Tensor, targets: Tensor, steps: int) -> Iterator[object]:
    """The same through `train`, with all that a step tells."""
    method = dp.DPSGD(noise_multiplier=4.0, max_grad_norm=4.0, learning_rate=0.05)
    plan = dp.Plan(method, dp.Poisson(BATCH / len(inputs), steps), delta=1e-5)
    return dp.train(network(), (inputs, targets), plan, evaluate_every=0, device="cpu")


def abadi(turn: int, clock: Callable[[], float]) -> dict[str, float]:
    """60,000 records, batch 600, 100 epochs: 10,000 steps of each, by turns."""
    data = dp.datasets.load("mnist")
    inputs, targets = components(data.inputs), data.targets
    steps = EPOCHS * len(inputs) // BATCH
    ours, theirs = private(inputs, targets, steps), plain(inputs, targets)
    return _by_turns(ours, theirs, steps, turn, clock, "private", "plain SGD")


def panel(turn: int, clock: Callable[[], float]) -> dict[str, float]:
    """MNIST in the playground, its curves and pictures included, beside the bare loop."""
    words = "data=mnist model=mlp noise=1.1 batch=600 epochs=60"
    board = dp.widgets.Playground(settings=words)
    data, plan, session = dp.datasets.load("mnist"), board.plan, board.session
    for _ in range(2):  # what earlier runs leave in the plots is drawn again and again
        board.load(words.replace("epochs=60", "epochs=5"))
        board.start()
        board.join()
    board.load(words)
    assert board.plan == plan, "the panel and the loop do the same"
    runner, held = session.runner, threading.Event()
    shown, told = runner._on_step, runner._on_hold

    def step_of(step: dp.Step) -> None:
        shown(step)
        if step.step % turn == 0:
            runner.pause()

    runner._on_step, runner._on_hold = step_of, lambda: (told(), held.set())

    def live() -> Iterator[None]:
        board.start()
        while runner.busy:
            held.wait(60)
            yield from [None] * turn
            held.clear()
            runner.resume()

    bare = dp.train(dp.zoo.mlp(data, seed=0), data, plan, seed=0)
    found = _by_turns(live(), bare, plan.steps // turn * turn, turn, clock, "panel", "bare loop")
    runner.stop()
    board.join()
    board.check()
    board.close()
    return found


def _by_turns(
    ours: Iterator, theirs: Iterator, steps: int, turn: int, clock: Callable, *names: str
) -> dict[str, float]:
    ratios, whole = [], [0.0, 0.0]
    for _ in range(steps // turn):
        took = []
        for number, runner in enumerate((ours, theirs)):
            start = clock()
            for _ in range(turn):
                next(runner)
            took.append(clock() - start)
            whole[number] += took[-1]
        ratios.append(took[0] / took[1])
    told = {f"{name} s": seconds for name, seconds in zip(names, whole, strict=True)}
    return {"median ratio": statistics.median(ratios), "ratio": whole[0] / whole[1], **told}


def main() -> None:
    """Read the command line, run the parts, print them and write the JSON."""
    parts = {"abadi": abadi, "panel": panel}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts))
    parser.add_argument("--turn", type=int, default=250, help="steps in a turn")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "torch": torch.__version__,
    }
    for part in options.parts:
        found[part] = parts[part](options.turn, CLOCKS[options.clock])
        print(part, json.dumps(found[part], indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
