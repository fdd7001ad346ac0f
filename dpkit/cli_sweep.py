"""`dpkit sweep`: the runs of a file with a progress bar, and what came of them."""

from __future__ import annotations

import argparse
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = """\
# dpkit sweep this.toml: every combination of the lists, with every seed, in one store
data = "digits"
model = "mlp"
seeds = [0, 1, 2]
store = "sweep.sqlite"

[settings]        # as the playground writes them
epochs = 5
rate = 0.5

[grid]            # a list each; "epsilon" asks for noise that is calibrated to a price
noise = [0.8, 1.1, 2.0, 4.0]
clip = [0.3, 1.0, 3.0]

# To compare methods, add a table for each; it has settings of its own, a list is turned as well:
# [[methods]]
# name = "plain"
# [[methods]]
# name = "less noise towards the end"
# noise = { type = "TimeDecay", start = 3.0, decay = 0.05 }
# [[methods]]
# name = "half of the weights frozen"
# frozen = 0.5
# [[methods]]
# name = "top-k"
# kept = [100, 400]
# [[methods]]
# name = "private activations"
# model = "released"
# method = { type = "NeuralDP", labels = { type = "RandomisedResponse", epsilon = 1.0, k = 10 } }
"""


def options(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.description = (
        "Train every plan of a TOML file with every seed. What is in the store is not made again: "
        "the same command goes on where it stopped."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, nargs="?", help="the sweep file")
    parser.add_argument("--example", action="store_true", help="print a sweep file to begin with")
    parser.add_argument("--workers", type=int, help="worker processes (one a core)")
    parser.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler, tcp://host:port")
    parser.add_argument("--device", help="cpu or cuda (found by itself)")
    parser.add_argument("--csv", type=Path, help="write the finished runs to this table")
    parser.add_argument("--parquet", type=Path, help="the same as Parquet")
    parser.add_argument("--html", type=Path, help="write the privacy-utility plane as a page")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Make the runs; exit code 1 if some had to be set aside."""
    if given.example:
        print(EXAMPLE, end="")
        return 0
    if given.file is None:
        raise ValueError("Give a sweep file, or --example to see one.")
    from dpkit.sweeping import Store, sweep
    from dpkit.sweeping.asked import read

    asked = read(given.file)
    workers = given.workers if given.workers is not None else asked.workers
    with _executor(given.dask) as executor, Store(asked.store) as store:
        with _notes(), sweep(
            asked.points, asked.data, asked.model, seeds=asked.seeds, store=store,
            executor=executor, workers=workers, device=given.device,
        ) as runs:  # fmt: skip
            _watched(runs, given.quiet)
        _told(runs, store)
        _exported(given, store)
    return 1 if runs.set_aside else 0


def _watched(runs: Any, quiet: bool) -> None:
    from tqdm import tqdm

    from dpkit.plan import round_up

    with tqdm(total=runs.total, unit="run", disable=quiet, file=sys.stderr) as bar:
        for record in runs:
            bar.update()
            if record.accuracy is not None:
                bar.set_postfix_str(f"ε {round_up(record.epsilon)}, accuracy {record.accuracy:.1%}")


def _told(runs: Any, store: Any) -> None:
    from dpkit.accountants.base import told
    from dpkit.figures import sweeps
    from dpkit.plan import round_up
    from dpkit.sweeping.composition import total
    from dpkit.sweeping.export import points

    print(f"{runs.finished} of {runs.total} runs in {store.path}, {runs.set_aside} set aside")
    asked = [r for r in store.records("finished") if r.key in runs.keys and r.accuracy is not None]
    for record in sorted(asked, key=lambda r: (-r.accuracy, r.epsilon))[:3]:
        print(f"accuracy {record.accuracy:.2%} at epsilon {round_up(record.epsilon)}, delta "
              f"{told(record.plan.delta)} ({record.plan.neighbours.value}), seed {record.seed}: "
              f"{record.settings}")  # fmt: skip
    unlike = sweeps.Cloud(points(asked)).unlike()
    for sentence in filter(None, (unlike, total(store).sentence)):
        print(sentence)


def _exported(given: argparse.Namespace, store: Any) -> None:
    from dpkit import figures
    from dpkit.figures import sweeps
    from dpkit.sweeping import export
    from dpkit.sweeping.composition import total

    records = list(store.records("finished"))
    if given.csv:
        export.to_csv(records, given.csv)
    if given.parquet:
        export.to_parquet(records, given.parquet)
    if given.html:
        found = sweeps.Cloud(export.points(records))
        plane = [("Test accuracy against epsilon", sweeps.plane(found))]
        words = f"{found.in_words}. {found.unlike()} {total(store).sentence}"
        given.html.write_text(figures.as_html(plane, "dpkit sweep", words))


@contextmanager
def _notes() -> Iterator[None]:
    """Warnings as plain lines, as other commands write them."""

    def told(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = told
        yield


@contextmanager
def _executor(address: str | None) -> Iterator[Any]:
    """The executor of a Dask cluster that exists already, or None."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ImportError('Dask is not installed: pip install "dask[distributed]".') from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise OSError(
            f"No Dask scheduler answers at {address} ({error}); start one by `dask scheduler`, or "
            f"leave --dask away."
        ) from None
    with client:
        yield client.get_executor()
