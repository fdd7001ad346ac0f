"""Time and memory of private steps: plain SGD, dpkit and Opacus, side by side in one run.

Each contestant lives in a process of its own, so that none inherits another's allocator, and the
processes take turns: a round asks each for a few steps, and what is reported is the median over
rounds of the ratio to plain SGD in the same round. `python benchmarks/engine.py --help`.

On a GPU, which is taken if there is one: `python benchmarks/engine.py --device cuda --batches 4096
--models mnist_cnn cifar_cnn resnet8 transformer --contestants sgd dpkit opacus opacus_ghost`. Times
are then taken by the wall, after waiting for the device, and memory is that of its tensors.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

Step = Callable[[Tensor, Tensor], None]
C, SIGMA, RATE = 1.0, 1.0, 1e-3
BATCHES_HELD = 4


class Residual(nn.Module):
    """Two 3x3 convolutions with GroupNorm and a skip."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        """Channels in and out, and the stride of the first convolution."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(8, out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(8, out)
        same = stride == 1 and channels == out
        self.skip = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """relu(skip(x) + f(x))."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.skip(x))


class Block(nn.Module):
    """A pre-norm transformer block with four heads."""

    def __init__(self, width: int) -> None:
        """The width of the residual stream."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attention, then the two-layer perceptron."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Two blocks over 32 tokens of a vocabulary of 1,000; ten classes."""

    def __init__(self) -> None:
        """166,794 parameters."""
        super().__init__()
        self.tokens, self.places = nn.Embedding(1000, 64), nn.Embedding(32, 64)
        self.blocks = nn.Sequential(Block(64), Block(64))
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Mean of the last stream, then the head."""
        places = torch.arange(x.shape[1], device=x.device).expand_as(x)
        y = self.blocks(self.tokens(x) + self.places(places))
        return self.head(self.norm(y).mean(1))


def mlp(width: int) -> nn.Module:
    """One hidden layer of 1,000."""
    return nn.Sequential(nn.Linear(width, 1000), nn.ReLU(), nn.Linear(1000, 10))


def mnist_cnn() -> nn.Module:
    """The tanh network of Papernot et al. 2021 for MNIST, 26,010 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 8, 2, 2), nn.Tanh(), nn.MaxPool2d(2, 1)),
        *(nn.Conv2d(16, 32, 4, 2), nn.Tanh(), nn.MaxPool2d(2, 1)),
        *(nn.Flatten(), nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, 10)),
    )


def cifar_cnn() -> nn.Module:
    """The tanh network of Papernot et al. 2021 for CIFAR-10, 550,570 parameters."""
    layers: list[nn.Module] = []
    channels = 3
    for out in (32, 64, 128):
        layers += [nn.Conv2d(channels, out, 3, 1, 1), nn.Tanh()]
        layers += [nn.Conv2d(out, out, 3, 1, 1), nn.Tanh(), nn.MaxPool2d(2, 2)]
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 128), nn.Tanh(), nn.Linear(128, 10))


def resnet8() -> nn.Module:
    """Three residual blocks of 16, 32 and 64 channels with GroupNorm."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU()),
        *(Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp60": (lambda: mlp(60), (60,)),
    "mlp784": (lambda: mlp(784), (784,)),
    "mnist_cnn": (mnist_cnn, (1, 28, 28)),
    "cifar_cnn": (cifar_cnn, (3, 32, 32)),
    "resnet8": (resnet8, (3, 32, 32)),
    "transformer": (Transformer, (32,)),
}


def sgd(model: nn.Module, batch: int) -> Step:
    """Plain SGD as a careful user writes it."""
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE, foreach=True)

    def step(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimiser.step()

    return step


def sgd_tuned(model: nn.Module, batch: int) -> Step:
    """Plain SGD given what dpkit gives itself: the layout, and an allocator that keeps memory."""
    keep_freed_memory()
    model = model.to(memory_format=torch.channels_last)
    inner = sgd(model, batch)

    def step(x: Tensor, y: Tensor) -> None:
        inner(x.to(memory_format=torch.channels_last) if x.ndim == 4 else x, y)

    return step


def dpkit(model: nn.Module, batch: int, std: float = SIGMA * C) -> Step:
    """The private step: clipped sum, noise, update."""
    from dpkit.gradients import Engine
    from dpkit.noise import Noise

    engine, noise = Engine(model, functional.cross_entropy), Noise(None)

    def step(x: Tensor, y: Tensor) -> None:
        total = engine.clipped_sum(x, y, C).total
        noisy = noise.add_(total, std)
        engine.parameters.add_(noisy, alpha=-RATE / batch)

    return step


def dpkit_noiseless(model: nn.Module, batch: int) -> Step:
    """The same without the noise, which is private to nobody: what is left is noise's share."""
    return dpkit(model, batch, std=0.0)


def opacus(model: nn.Module, batch: int, mode: str = "hooks") -> Step:
    """Opacus as its tutorials use it, with per-example gradients from hooks."""
    import warnings

    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    warnings.simplefilter("ignore")
    model = GradSampleModule(model)
    optimiser = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=RATE),
        noise_multiplier=SIGMA,
        max_grad_norm=C,
        expected_batch_size=batch,
    )

    def step(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimiser.step()

    return step


def opacus_ghost(model: nn.Module, batch: int) -> Step:
    """Opacus with ghost clipping: two backward passes, nothing materialised."""
    import warnings

    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    warnings.simplefilter("ignore")
    model = GradSampleModuleFastGradientClipping(model, max_grad_norm=C, use_ghost_clipping=True)
    optimiser = DPOptimizerFastGradientClipping(
        torch.optim.SGD(model.parameters(), lr=RATE),
        noise_multiplier=SIGMA,
        max_grad_norm=C,
        expected_batch_size=batch,
    )
    loss = DPLossFastGradientClipping(model, optimiser, nn.CrossEntropyLoss(), "mean")

    def step(x: Tensor, y: Tensor) -> None:
        optimiser.zero_grad()
        loss(model(x), y).backward()
        optimiser.step()

    return step


CONTESTANTS = {
    f.__name__: f for f in (sgd, sgd_tuned, dpkit, dpkit_noiseless, opacus, opacus_ghost)
}


def keep_freed_memory() -> None:
    """Free one large untouched block: glibc then keeps smaller ones instead of unmapping them."""
    torch.empty(31 * 2**20, dtype=torch.uint8)


@dataclass(frozen=True)
class Task:
    """One cell of the table for one contestant."""

    contestant: str
    model: str
    batch: int
    threads: int
    device: str
    clock: str


@dataclass
class Row:
    """One contestant's figures in one cell."""

    task: Task
    seconds: float
    ratio: float
    spread: tuple[float, float]
    peak_mb: float
    error: str = ""
    rounds: list[float] = field(default_factory=list)


def work(task: Task, pipe: Connection) -> None:
    """A contestant's process: make the model, then run as many steps as each message asks."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    asked = False
    try:
        factory, shape = MODELS[task.model]
        model = factory().to(task.device)
        held = [_batch(task, shape) for _ in range(BATCHES_HELD)]
        base = _peak(task.device)
        step = CONTESTANTS[task.contestant](model, task.batch)
        number = 0
        while asked := (steps := pipe.recv()) > 0:
            start = _now(task)
            for _ in range(steps):
                step(*held[number % BATCHES_HELD])
                number += 1
            pipe.send((_now(task) - start, _peak(task.device) - base))
    except Exception as error:  # the table shows it: one contestant must not end the run
        if not asked:
            pipe.recv()
        pipe.send(f"{type(error).__name__}: {error}")


def _batch(task: Task, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    if task.model == "transformer":
        x = torch.randint(0, 1000, (task.batch, *shape))
    else:
        x = torch.randn(task.batch, *shape)
    return x.to(task.device), torch.randint(0, 10, (task.batch,)).to(task.device)


def _now(task: Task) -> float:
    if task.device == "cuda":
        torch.cuda.synchronize()
    return time.process_time() if task.clock == "cpu" else time.perf_counter()


def _peak(device: str) -> float:
    """Peak memory in MB: of the process, or of its tensors on a GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    scale = 2**20 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def compare(names: list[str], cell: Task, rounds: int, seconds: float) -> list[Row]:
    """Run the contestants of one cell in turn."""
    context = mp.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name in names:
        mine, theirs = context.Pipe()
        task = Task(name, cell.model, cell.batch, cell.threads, cell.device, cell.clock)
        processes.append(context.Process(target=work, args=(task, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        pipes[name] = mine
    try:
        return _rounds(names, cell, pipes, rounds, seconds)
    finally:
        for pipe in pipes.values():
            try:
                pipe.send(0)
            except OSError:
                pass
        for process in processes:
            process.join(5)
            process.terminate()


def _ask(pipe: Connection, steps: int) -> tuple[float, float] | str:
    try:
        pipe.send(steps)
        return pipe.recv()
    except (EOFError, OSError):
        return "the process ended (out of memory?)"


def _rounds(
    names: list[str], cell: Task, pipes: dict[str, Connection], rounds: int, seconds: float
) -> list[Row]:
    warm = {name: _ask(pipes[name], 3) for name in names}
    errors = {name: got for name, got in warm.items() if isinstance(got, str)}
    alive = [name for name in names if name not in errors]
    again = {name: _ask(pipes[name], 3) for name in alive}
    steps = {name: max(1, round(seconds / (again[name][0] / 3))) for name in alive}
    times: dict[str, list[float]] = {name: [] for name in alive}
    peaks: dict[str, float] = {}
    for _ in range(rounds):
        for name in alive:
            took, peaks[name] = _ask(pipes[name], steps[name])
            times[name].append(took / steps[name])
    rows = []
    for name in names:
        task = Task(name, cell.model, cell.batch, cell.threads, cell.device, cell.clock)
        if name in errors:
            rows.append(Row(task, 0.0, 0.0, (0.0, 0.0), 0.0, errors[name]))
            continue
        ratios = sorted(t / s for t, s in zip(times[name], times["sgd"], strict=True))
        quarter = len(ratios) // 4
        spread = (ratios[quarter], ratios[-1 - quarter])
        middle = statistics.median(times[name])
        rows.append(Row(task, middle, statistics.median(ratios), spread, peaks[name]))
    return rows


def table(rows: list[Row]) -> str:
    """A line for each contestant and cell."""
    lines = ["model        batch thr contestant     ms/step   ratio [quartiles]     peak MB"]
    for r in rows:
        t = r.task
        head = f"{t.model:12s} {t.batch:5d} {t.threads:3d} {t.contestant:13s}"
        lines.append(
            f"{head} {r.error[:60]}" if r.error else
            f"{head} {1e3 * r.seconds:8.2f} {r.ratio:7.2f} [{r.spread[0]:.2f} {r.spread[1]:.2f}]"
            f" {r.peak_mb:10.0f}"
        )  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Read the command line, run the cells, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--contestants", nargs="+", default=["sgd", "sgd_tuned", "dpkit"],
                        choices=list(CONTESTANTS))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.05, help="time of a turn")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall",
                        help="cpu: the process's own time, for a busy machine")  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    if args.device == "cuda" and args.clock == "cpu":
        parser.error("--clock cpu does not see a GPU's time: leave it out with --device cuda")
    names = list(dict.fromkeys(["sgd", *args.contestants]))
    rows: list[Row] = []
    for threads in args.threads:
        for model in args.models:
            for batch in args.batches:
                cell = Task("", model, batch, threads, args.device, args.clock)
                new = compare(names, cell, args.rounds, args.seconds)
                print(table(new).split("\n", 1)[1] if rows else table(new), flush=True)
                rows += new
                if args.json:
                    write(args.json, rows, args.device)


def write(path: Path, rows: list[Row], device: str) -> None:
    """All rows so far, since a long run may be cut short."""
    told = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    machine = told or platform.machine()
    about = {"torch": torch.__version__, "machine": machine, "cores": os.cpu_count()}
    load = [round(one, 1) for one in os.getloadavg()]
    path.write_text(
        json.dumps({**about, "load": load, "rows": [asdict(r) for r in rows]}, indent=1)
    )


if __name__ == "__main__":
    main()
