"""Finished runs for others: as a table, or as one small file that the explorer opens."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from dpkit import datasets
from dpkit.figures.sweeps import Point
from dpkit.knobs import every_knob
from dpkit.methods import Method
from dpkit.plan import Plan
from dpkit.runs import Run, plan_from_json, plan_to_json
from dpkit.stored import whole
from dpkit.sweeping.store import FINISHED, Record
from dpkit.written import written


def knobs_of_plan(plan: Plan) -> dict[str, Any]:
    """Every knob of a plan by its dotted path, a schedule in words, and the kinds of its parts."""
    found: dict[str, Any] = {
        "method": kind(plan.method), "sampler": type(plan.sampler).__name__,
        "accountant": plan.accountant.name, "relation": plan.neighbours.name,
        "unit": plan.method.unit,
    }  # fmt: skip
    for path, _, value in every_knob(plan):
        number = value is None or isinstance(value, int | float)
        found[path] = value if number else _in_words(value)
    return found


def kind(method: Method) -> str:
    """What tells methods apart: the class, with its mask and its schedule of the noise."""
    parts = [getattr(method, name, None) for name in ("mask", "noise_multiplier")]
    also = [type(part).__name__ for part in parts if is_dataclass(part)]
    return " with ".join([type(method).__name__, *([" and ".join(also)] if also else [])])


def rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """A flat row for each finished run: what it was, what it cost, what it reached."""
    found = []
    for record in records:
        if record.state != "finished":
            continue
        found.append(
            {"key": record.key, "data": record.data, "model": record.model, "seed": record.seed,
             "epsilon": record.epsilon, "accuracy": record.accuracy, "steps": record.plan.steps,
             "seconds": record.seconds, **knobs_of_plan(record.plan),
             "guarantee": record.run.guarantee,
             **{f"{name} version": number for name, number in record.versions.items()}}
        )  # fmt: skip
    return found


def to_csv(records: Iterable[Record], path: str | os.PathLike[str]) -> Path:
    """Write the table as CSV; columns that a run does not have stay empty."""
    table = rows(records)
    heads = list(dict.fromkeys(name for row in table for name in row))
    with whole(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, heads)
        writer.writeheader()
        writer.writerows(table)
    return Path(path)


def to_parquet(records: Iterable[Record], path: str | os.PathLike[str]) -> Path:
    """Write the table as Parquet; a column of numbers and schedules is text throughout."""
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Parquet needs pandas and pyarrow, but {error.name} is not installed: pip install "
            f"pandas pyarrow, or write CSV."
        ) from None
    table = pandas.DataFrame(rows(records))
    for name in table:
        if len({isinstance(value, str) for value in table[name].dropna()}) > 1:
            table[name] = table[name].map(str, na_action="ignore")  # numbers beside a schedule
    with whole(path) as part:
        table.to_parquet(part, index=False)
    return Path(path)


def to_json(
    records: Iterable[Record], path: str | os.PathLike[str], *, made_by: str = "",
    digits: int | None = None,
) -> Path:  # fmt: skip
    """Write finished runs whole, curves included, what several share once; `from_json` reads it.

    `digits` rounds test losses and seconds, which else take up half of the file.
    """
    settings: dict[str, int] = {}
    heads: dict[str, int] = {}
    found = []
    for record in records:
        if record.state != "finished":
            continue
        run = json.loads(record.run_json or "")
        plan, _ = run.pop("plan"), run.pop("guarantee")
        losses = [_rounded(x, digits) for x in run.pop("test_loss")]
        own = [record.key, record.place, record.failures, _rounded(record.seconds, digits)]
        own += [run.pop("seed"), run.pop("accuracy"), losses]
        about = _text({name: getattr(record, name) for name in _ABOUT})
        head = {name: value for name, value in run.items() if name not in _ABOUT}
        head |= {"about": settings.setdefault(about, len(settings)), "plan": plan,
                 "turned": record.settings, "epsilon": record.epsilon}  # fmt: skip
        found.append(_text([heads.setdefault(_text(head), len(heads)), *own]))
    parts = {"about": settings, "plans": heads, "runs": found}
    text = ",\n".join(f'"{name}": [\n' + ",\n".join(part) + "]" for name, part in parts.items())
    head_line = f'{{"dpkit": "runs", "version": {_VERSION}, "made_by": {json.dumps(made_by)}'
    with whole(path) as part:
        part.write_text(f"{head_line},\n{text}}}\n")
    return Path(path)


def from_json(path: str | os.PathLike[str]) -> list[Record]:
    """The runs that `to_json` wrote; ValueError in one sentence for anything else."""
    try:
        whole = json.loads(Path(path).read_text())
        if (whole["dpkit"], whole["version"]) != ("runs", _VERSION):
            raise ValueError(f"kind {whole['dpkit']!r} in version {whole['version']!r}")
        plans = [plan | whole["about"][plan["about"]] for plan in whole["plans"]]
        for plan in plans:
            _check_price(plan)
        return [_record(plans[n], *own) for n, *own in whole["runs"]]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(
            f"{path} is not a file of runs in version {_VERSION} ({type(error).__name__}: "
            f"{error}); write one by dpkit.sweeping.export.to_json."
        ) from None


_VERSION = 1
_ABOUT = ("data", "fingerprint", "model", "versions")
_OWN = ("seed", "accuracy", "test_loss")


def _rounded(value: float | None, digits: int | None) -> float | None:
    return value if value is None or digits is None else round(value, digits)


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _check_price(shared: dict[str, Any]) -> None:
    """Refuse an epsilon that is not the plan's."""
    from dpkit.sweeping.loop import promised

    told, true = shared["epsilon"], promised(plan_from_json(json.dumps(shared["plan"])))
    if not math.isclose(told, true, rel_tol=1e-6):
        raise ValueError(f"a plan of epsilon {true:.6g} is told to have {told!r}")


def _record(
    shared: dict[str, Any], key: str, place: int, failures: int, seconds: float, *own: Any
) -> Record:
    run = Run.from_json(json.dumps(_RUN | shared | dict(zip(_OWN, own, strict=True))))
    tested = len(run.tested_steps) == len(run.accuracy) == len(run.test_loss)
    if not tested or len(run.spent_steps) != len(run.spent):
        raise ValueError(f"the curves of run {key} are of unequal length")
    return Record(
        key=key, place=place, failures=failures, seconds=seconds, state=FINISHED, seed=run.seed,
        accuracy=run.accuracy[-1] if run.accuracy else None, error=None, epsilon=shared["epsilon"],
        settings=shared["turned"], plan_json=plan_to_json(run.plan), run_json=run.to_json(),
        **{name: shared[name] for name in _ABOUT},
    )  # fmt: skip


_RUN = {"dpkit": "run", "version": 1}


def _in_words(schedule: Any) -> str:
    """A schedule's kind and numbers, short enough for a cell."""
    numbers = [getattr(schedule, f.name) for f in fields(schedule)]
    shown = [f"{n:g}" for n in numbers if isinstance(n, int | float)]
    return f"{type(schedule).__name__}({', '.join(shown)})"


def point(record: Record) -> Point:
    """A finished run on the privacy-utility plane."""
    assert record.epsilon is not None and record.accuracy is not None
    knobs = {
        "data": record.data,
        "records": record.fingerprint[:6],
        "model": record.model.partition(" ")[0].rpartition(".")[2],
        **knobs_of_plan(record.plan),
    }
    group = f"{record.plan_json} {record.model} {record.fingerprint}"
    return Point(record.key, record.epsilon, record.accuracy, group, record.seed, knobs)


def points(records: Iterable[Record]) -> list[Point]:
    """Finished runs that were tested, as points."""
    return [point(r) for r in records if r.state == "finished" and r.accuracy is not None]


def python(record: Record) -> str:
    """The lines that make a run again; a comment stands where only its maker knows how."""
    try:
        plan = written(record.plan)
    except ValueError:
        plan = f"dpkit.runs.plan_from_json({record.plan_json!r})"
    known = record.data in datasets.NAMES
    data = (
        f"dp.datasets.load({record.data!r})  # as it was loaded:"
        if known
        else f"...  # {record.data},"
    )
    name, _, rest = record.model.partition(" ")
    ours = name.startswith("dpkit.zoo.") and " " not in rest
    model = f"dp.{name.removeprefix('dpkit.')}(data, {record.seed!r})" if ours else "your_model"
    note = "" if ours else f"your_model = ...  # {record.model}\n"
    return (
        "import dpkit as dp\n"
        f"data = {data} {record.run.num_examples:,} training records\n"
        f"plan = {plan}\n{note}"
        f"for step in dp.train({model}, data, plan, seed={record.seed!r}):\n"
        "    if step.peek.accuracy is not None:\n"
        "        print(step.step, step.epsilon, step.peek.accuracy)\n"
    )
