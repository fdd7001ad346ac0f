"""Accuracy against epsilon: the best that dpkit reaches, with every condition of a run in JSON.

`python benchmarks/frontier.py` runs all rows with five seeds (MNIST needs DPKIT_DATA or a network),
`... mnist-3 --seeds 1` one row with one seed. `... mnist-3 --validate` trains on five sixths of the
training set and measures on the rest: all that was tuned was tuned so, never on the test set.
`--set learning_rate=4` tries another value, with `--validate` only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

import dpkit as dp
from dpkit.datasets import Dataset, PublicPCA, Scattering, Strokes, components, scattering, strokes
from dpkit.datasets.fetch import cache_folder

DELTA = 1e-5
HELD_OUT = 1 / 6
"""Share of the training records that `--validate` measures on."""
TUNED = (
    "learning rate, evenness, components and epochs on a sixth of the training records, held out, "
    "with one seed of noise; then fixed, and trained on all of them"
)
PNEUMONIA = (
    "learning rate and epochs on a sixth of the training records, held out, with two seeds of "
    "noise; then fixed, and trained on all of them"
)
AS_TUNED = "none of its own: the recipe tuned for epsilon 3"


@dataclass(frozen=True)
class Recipe:
    """All that is fixed before a run, and where each choice comes from."""

    data: str
    epsilon: float
    batch: int
    epochs: float
    learning_rate: float
    max_grad_norm: float
    averaging: float
    source: str
    tuning: str
    momentum: float = 0.9
    components: int = 2048
    """Directions of public strokes that the scattering is projected on; 0 is the CNN on pixels."""
    evenness: float = 0.25

    def plan(self, num_examples: int, whole: int) -> dp.Plan:
        """The plan, calibrated to epsilon; a held-out part keeps the sample rate of the whole."""
        steps = max(1, round(self.epochs * whole / self.batch))
        method = dp.DPSGD(
            2.0, self.max_grad_norm, self.learning_rate, self.momentum, averaging=self.averaging
        )
        plan = dp.Plan(method, dp.Poisson(self.batch / whole, steps), DELTA)
        return plan.calibrated(self.epsilon)


FEATURES = (
    "batch 4096, C .1, momentum .9 and 40 epochs: Tramèr and Boneh 2021, linear ScatterNet on "
    "MNIST; averaging: De et al. 2022; the rest is tuned"
)
SMALL = (
    "C, momentum and averaging as on MNIST; a batch of a tenth of the records; the rest is tuned"
)
PAPERNOT = (
    "Papernot et al. 2021, tanh CNN on MNIST: batch 512, learning rate .5, C .1, momentum .9, "
    "40 epochs; averaging as in De et al. 2022"
)
ROWS = {
    "mnist-1": Recipe("mnist", 1, 4096, 20, 2.5, 0.1, 0.9, FEATURES, TUNED),
    "mnist-2": Recipe("mnist", 2, 4096, 40, 2.5, 0.1, 0.9, FEATURES, AS_TUNED),
    "mnist-3": Recipe("mnist", 3, 4096, 40, 2.5, 0.1, 0.9, FEATURES, TUNED),
    "mnist-8": Recipe("mnist", 8, 4096, 40, 6.0, 0.1, 0.9, FEATURES, TUNED),
    "mnist-cnn-3": Recipe("mnist", 3, 512, 40, 0.5, 0.1, 0.99, PAPERNOT, "none", components=0),
    "pneumonia-3": Recipe("pneumonia", 3, 256, 20, 0.1, 0.1, 0.9, SMALL, PNEUMONIA),
    "fashion-3": Recipe("fashion-mnist", 3, 4096, 40, 2.5, 0.1, 0.9, FEATURES, AS_TUNED),
    "cifar10-cnn-3": Recipe("cifar10", 3, 512, 40, 0.5, 0.1, 0.99, PAPERNOT, "none", components=0),
}


def features(data: Dataset, recipe: Recipe, folder: Path) -> Dataset:
    """Scattering, projected on directions of public strokes; from the cache where it is there."""
    rules = Scattering(), Strokes(), PublicPCA(recipe.components, recipe.evenness)
    digest = hashlib.sha256(repr((rules, data.fingerprint, data.scaling)).encode())
    for module in (scattering, strokes, components):
        digest.update(Path(str(module.__file__)).read_bytes())
    kept = folder / f"{data.name}-{digest.hexdigest()[:16]}.pt"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(_computed(data, *rules), kept)
    train, test = torch.load(kept, weights_only=True)
    note = f"scattering on {recipe.components} directions of public strokes"
    return replace(data, inputs=train, test_inputs=test, public_inputs=train[:0], note=note)


def _computed(
    data: Dataset, rule: Scattering, drawn: Strokes, directions: PublicPCA
) -> tuple[torch.Tensor, ...]:
    pictures = (drawn.images(8_000) - data.scaling.centre) / data.scaling.spread
    projection = directions.learnt(rule.features(pictures))

    def projected(images: torch.Tensor) -> torch.Tensor:
        found = torch.empty(len(images), directions.components)  # in parts: memory is a condition
        for some in torch.arange(len(images)).split(2_000):
            found[some] = projection.features(rule.features(images[some]))
        return found

    return projected(data.inputs), projected(data.test_inputs)


def held_out(data: Dataset) -> Dataset:
    """Five sixths of the training records, and the last sixth in the place of the test set."""
    order = torch.randperm(data.num_examples, generator=torch.Generator().manual_seed(123))
    test, train = order.tensor_split([round(HELD_OUT * data.num_examples)])
    return replace(
        data,
        inputs=data.inputs[train],
        targets=data.targets[train],
        test_inputs=data.inputs[test],
        test_targets=data.targets[test],
        note=f"{data.note}, validation".strip(", "),
    )


def run(recipe: Recipe, data: Dataset, plan: dp.Plan, seed: int) -> dict[str, float]:
    """One run: accuracy once, at the end, on what the data set calls its test records."""
    start, busy = time.perf_counter(), time.process_time()
    factory = dp.zoo.logistic if recipe.components else dp.zoo.cnn
    model = factory(data, seed=seed)
    for step in dp.train(model, data, plan, seed=seed, evaluate_every=plan.steps, device="cpu"):
        last = step
    assert last.peek.accuracy is not None and last.epsilon == plan.epsilon()
    return {
        "seed": seed,
        "accuracy": round(100 * last.peek.accuracy, 3),
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
    }


def row(recipe: Recipe, options: argparse.Namespace) -> dict[str, object]:
    """All seeds of a recipe, and all conditions."""
    data = dp.datasets.load(recipe.data)
    note, whole = data.note, data.num_examples
    start = time.perf_counter()
    if recipe.components:
        data = features(data, recipe, options.cache)
    prepared = time.perf_counter() - start
    if options.validate:
        data = held_out(data)
    plan = recipe.plan(data.num_examples, whole)
    runs = []
    for seed in range(options.seeds):
        runs.append(run(recipe, data, plan, seed))
        print(runs[-1], flush=True)
    accuracies = [one["accuracy"] for one in runs]
    return {
        "accuracy_mean": round(statistics.mean(accuracies), 3),
        "accuracy_deviation": round(statistics.stdev(accuracies), 3) if len(runs) > 1 else None,
        "measured_on": "held-out training records" if options.validate else "the test set",
        "records": note or "as published",
        "num_examples": data.num_examples,
        "recipe": asdict(recipe),
        "features": data.note if recipe.components else "pixels",
        "public_data": "none; strokes drawn by a program" if recipe.components else "none",
        "epsilon": plan.epsilon(),
        "delta": plan.delta,
        "relation": plan.neighbours.name,
        "sampler": plan.sampler.describe,
        "accountant": plan.accountant.name,
        "noise_multiplier": plan.method.noise_multiplier,
        "steps": plan.steps,
        "guarantee": plan.guarantee(seeded=True),
        "features_seconds": round(prepared, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **_machine(),
        "runs": runs,
    }


def _machine() -> dict[str, object]:
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads used, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def _changed(recipe: Recipe, words: list[str]) -> Recipe:
    for word in words:
        name, _, value = word.partition("=")
        kind = type(getattr(recipe, name))
        recipe = replace(recipe, **{name: kind(value)})
    return recipe


def main() -> None:
    """Read the command line, run the rows, print their means, write the JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="row", help=", ".join(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--validate", action="store_true", help="measure on held-out records")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "frontier")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.set and not options.validate:
        parser.error("--set is for tuning, which --validate alone allows.")
    torch.set_num_threads(options.threads)
    found = {}
    if options.json and options.json.is_file():  # rows of other calls stay
        found = json.loads(options.json.read_text())
    for name in options.rows:
        try:
            found[name] = row(_changed(ROWS[name], options.set), options)
        except (ConnectionError, ImportError) as reason:
            print(reason)  # with folders, which are nobody else's business
            told = "is not at hand: put its files in a folder and name that in DPKIT_DATA"
            found[name] = {"skipped": f"{ROWS[name].data} {told}"}
        print(name, {k: v for k, v in found[name].items() if "accuracy" in k or k == "skipped"})
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
