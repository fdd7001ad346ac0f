"""The command line: `dpkit lab`, `lecture`, `epsilon`, `train`, `sweep`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from dpkit import cli_lab, cli_sweep
from dpkit.knobs import Knob, every_knob, knobs_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; bad input ends in one sentence on standard error and exit code 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"dpkit {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dpkit {options.command}: interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    from dpkit import __version__

    parser = argparse.ArgumentParser(
        "dpkit", description="Differentially private deep learning that you can watch."
    )
    parser.add_argument("--version", action="version", version=f"dpkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    cli_lab.lab_options(commands.add_parser("lab", help="open JupyterLab on the notebooks"))
    cli_lab.lecture_options(
        commands.add_parser("lecture", help="show a lesson's panels on a big screen, without code")
    )
    _epsilon_options(
        commands.add_parser(
            "epsilon",
            help="print lower bound, estimate and upper bound of epsilon",
            epilog="example: dpkit epsilon --sample-rate .01 --noise-multiplier 4 --steps 10000",
        )
    )
    _train_options(
        commands.add_parser(
            "train",
            help="train privately without a notebook and write the run as JSON",
            epilog="example: dpkit train --data digits --epsilon 3 --output run.json",
        )
    )
    cli_sweep.options(
        commands.add_parser("sweep", help="train every plan of a file, and go on where it stopped")
    )
    return parser


def _epsilon_options(parser: argparse.ArgumentParser) -> None:
    from dpkit.settings import ACCOUNTANTS

    parser.description = "Price a DP-SGD run (Gaussian noise) before it runs."
    parser.add_argument("--noise-multiplier", type=float, required=True, help="sigma")
    kinds = _samplers()
    parser.add_argument(
        "--sampler", choices=kinds, default="poisson", help="how batches are formed (poisson)"
    )
    of: dict[str, tuple[Knob, list[str]]] = {}
    for kind, sampler in kinds.items():
        for name, declared in knobs_of(sampler).items():
            of.setdefault(name, (declared, []))[1].append(kind)
    for name, (declared, whose) in of.items():
        parser.add_argument(
            "--" + _option(name), type=_reader(name, declared), dest=name,
            metavar=declared.symbol.upper(), help=f"{declared.meaning} ({', '.join(whose)})",
        )  # fmt: skip
    parser.add_argument("--delta", type=float, default=1e-5, help="delta, in (0, 1)")
    names = [accountant.__name__ for accountant in ACCOUNTANTS]
    parser.add_argument("--accountant", choices=names, default="PLD")
    relations = ["add-remove", "zero-out", "replace-one"]
    parser.add_argument("--relation", choices=relations, help="the sampler's own by default")
    parser.set_defaults(run=_epsilon)


def _samplers() -> dict[str, Any]:
    """Every sampler by the name that a command takes, such as balls-in-bins."""
    from dpkit import samplers

    kinds = [getattr(samplers, name) for name in samplers.__all__]
    return {
        re.sub("(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower(): kind
        for kind in kinds
        if issubclass(kind, samplers.Sampler) and kind is not samplers.Sampler
    }


def _sampler(options: argparse.Namespace) -> Any:
    """The sampler that is named, from all of its numbers and no others."""
    kinds = _samplers()
    every = {name for kind in kinds.values() for name in knobs_of(kind)}
    given = {name: getattr(options, name) for name in sorted(every)
             if getattr(options, name) is not None}  # fmt: skip
    needed = [f.name for f in fields(kinds[options.sampler])]
    if set(given) != set(needed):
        told, got = (" ".join(f"--{_option(name)}" for name in some) for some in (needed, given))
        raise ValueError(f"--sampler {options.sampler} takes {told}, got {got or 'none of them'}.")
    return kinds[options.sampler](**given)


def _epsilon(options: argparse.Namespace) -> int:
    from dpkit.accountants.base import printed, told
    from dpkit.mechanisms import Neighbours
    from dpkit.methods import DPSGD
    from dpkit.plan import Plan
    from dpkit.settings import ACCOUNTANTS

    accountant = next(a for a in ACCOUNTANTS if a.__name__ == options.accountant)
    relation = options.relation
    plan = Plan(
        DPSGD(noise_multiplier=options.noise_multiplier),
        _sampler(options),
        options.delta,
        relation=relation and Neighbours[relation.replace("-", "_").upper()],
        accountant=accountant(),
    )
    bounds = plan.bounds()
    print(f"lower     {printed(bounds.lower, 8, -1)}")
    print(f"estimate  {bounds.estimate:.8g}")
    print(f"upper     {printed(bounds.upper, 8, 1)}")
    print(f"relation  {plan.neighbours.name} ({plan.neighbours.value})")
    print(f"sampling  {plan.sampler.describe}, {plan.steps:,} steps, delta {told(plan.delta)}")
    print(f"method    {plan.accountant.name}: {bounds.method}")
    if not plan.accountant.is_bound:
        print("note      an estimate, not a bound: it may be too small")
    return 0


def _train_options(parser: argparse.ArgumentParser) -> None:
    from dpkit.settings import Settings

    parser.description = "Train a model privately and print its accuracy, epsilon and guarantee."
    default = Settings()
    parser.add_argument("--settings", default="", help="a short string from the playground")
    parser.add_argument("--data", help=f"data set ({default.data})")
    parser.add_argument("--model", help=f"logistic, mlp or cnn ({default.model})")
    parser.add_argument("--accountant", help=f"PLD, RDP, Moments or GDP ({default.accountant})")
    for path, knob, present in every_knob(default):
        parser.add_argument(
            "--" + _option(path), type=_reader(path, knob), dest=path, metavar=knob.symbol.upper(),
            help=f"{knob.meaning}, in {knob.interval} ({present})",
        )  # fmt: skip
    parser.add_argument("--secret", action="store_true", help="secret noise: no seed, private")
    parser.add_argument("--output", type=Path, help="write the run to this JSON file")
    parser.add_argument("--weights", type=Path, help="write the final weights, and only them")
    parser.add_argument("--device", help="cpu or cuda (found by itself)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_train)


def _option(path: str) -> str:
    return path.rpartition(".")[2].replace("_", "-")


def _reader(path: str, knob: Knob) -> Any:
    def read(text: str) -> float | int:
        value = float(text)
        if knob.integer and value == int(value):
            return int(value)
        return value

    read.__name__ = "number"
    return read


def _train(options: argparse.Namespace) -> int:
    from dpkit import datasets, zoo
    from dpkit.settings import choose, fitting

    settings = _settings(options)
    size = {} if settings.num_examples is None else {"num_examples": settings.num_examples}
    data = datasets.load(settings.data, **size)
    settings = settings if options.batch_size else fitting(settings, data)
    factory = choose(settings.model, zoo.MODELS, "model")
    plan = settings.plan(data.num_examples)
    for target in (options.output, options.weights):
        if target is not None and not os.access(target.resolve().parent, os.W_OK):
            raise OSError(f"The folder {target.resolve().parent} cannot be written to.")
    for caution in plan.cautions(data.num_examples):
        print(f"note: {caution}", file=sys.stderr)
    model = factory(data, seed=settings.seed)
    run = _run(model, data, plan, settings, options)
    last = f"accuracy {run.accuracy[-1]:.2%}" if run.accuracy else "no test data"
    print(f"{run.status} after {run.done:,} steps in {run.seconds:.1f} s: {last}")
    print(run.guarantee)
    if options.output is not None:
        run.save(options.output)
    if options.weights is not None:
        import torch

        torch.save(model.state_dict(), options.weights)
    return 0 if run.status == "done" else 130


def _settings(options: argparse.Namespace) -> Any:
    from dataclasses import replace

    from dpkit.settings import Settings

    settings = Settings.from_string(options.settings)
    for name in ("data", "model", "accountant"):
        if getattr(options, name) is not None:
            settings = replace(settings, **{name: getattr(options, name)})
    for path, _, _ in every_knob(settings):
        value = getattr(options, path)
        if value is not None:
            settings = settings.turned(path, value)
    return settings.turned("seed", None) if options.secret else settings


def _run(model: Any, data: Any, plan: Any, settings: Any, options: argparse.Namespace) -> Any:
    from tqdm import tqdm

    from dpkit.plan import round_up
    from dpkit.runs import Run
    from dpkit.training import train

    run = Run(plan, settings.data, settings.model, data.num_examples, data.fingerprint,
              settings.seed, settings.to_string())  # fmt: skip
    steps = train(model, data, plan, seed=settings.seed, device=options.device)
    with tqdm(total=plan.steps, unit="step", disable=options.quiet, file=sys.stderr) as bar:
        try:
            for step in steps:
                tested = step.peek.accuracy is not None
                run.add(step, spend=tested)
                bar.update()
                if tested:
                    bar.set_postfix_str(
                        f"ε {round_up(step.epsilon)}, accuracy {run.accuracy[-1]:.1%}"
                    )
            run.status = "done"
        except KeyboardInterrupt:
            run.status = "stopped"
    return run


if __name__ == "__main__":
    sys.exit(main())
