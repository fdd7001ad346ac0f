"""A learner's settings: one value that makes a plan, a short string and the Python of a run."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

from dpkit import accountants
from dpkit.accountants import Accountant
from dpkit.knobs import check_knobs, every_knob, knob, turned
from dpkit.methods import DPSGD, Freeze, Method, TopAgg
from dpkit.plan import Plan
from dpkit.samplers import BallsInBins, FixedSize, Poisson, Sampler, Shuffle

if TYPE_CHECKING:
    from dpkit.datasets import Dataset

ACCOUNTANTS: tuple[type[Accountant], ...] = (
    accountants.PLD,
    accountants.RDP,
    accountants.Moments,
    accountants.GDP,
)
BATCHING = ("Poisson", "Shuffle", "BallsInBins", "FixedSize")
"""The schemes that a learner may choose from; see `sampler`."""
SENDS = ("numbers", "signs")
"""What a record sends of the coordinates that it keeps."""
_TEXT = ("data", "model", "accountant", "batching", "sends")
_USUAL = {"batching": "Poisson", "sends": "numbers"}
_UNTOLD_AT_ZERO = ("frozen", "kept", "threshold")
_NAMES = {
    "noise": "method.noise_multiplier",
    "clip": "method.max_grad_norm",
    "rate": "method.learning_rate",
    "momentum": "method.momentum",
    "frozen": "frozen",
    "kept": "kept",
    "threshold": "threshold",
    "batch": "batch_size",
    "epochs": "epochs",
    "delta": "delta",
    "epsilon": "epsilon",
    "examples": "num_examples",
    "seed": "seed",
}


@dataclass(frozen=True)
class Settings:
    """What a learner sets in the playground or on the command line.

    `epsilon` None means that the noise multiplier is set and the price follows; a number means
    that the noise is solved for that price. `num_examples` is for data sets of any size.
    """

    data: str = "digits"
    model: str = "mlp"
    method: Method = field(default_factory=lambda: DPSGD(1.0, 1.0, 0.5, 0.0))
    batch_size: int = knob(
        128, "L", "expected records in a batch", 1, 10_000_000, integer=True, log=True,
        slider=(8, 2048),
    )  # fmt: skip
    epochs: float = knob(
        10.0, "E", "expected passes over the data", 0, 100_000, open_low=True, log=True,
        slider=(1, 100),
    )  # fmt: skip
    delta: float = knob(
        1e-5, "δ", "added probability that e^epsilon does not cover", 0, 1,
        open_low=True, open_high=True, log=True, slider=(1e-8, 1e-2),
    )  # fmt: skip
    epsilon: float | None = knob(
        None, "ε", "price to solve the noise for", 0, 1e6, open_low=True, optional=True, log=True,
        slider=(0.1, 20.0),
    )  # fmt: skip
    frozen: float = knob(
        0.0, "p", "share of the parameters that is frozen, by lot", 0, 1, open_high=True,
        slider=(0.0, 0.99),
    )  # fmt: skip
    kept: int = knob(
        0, "k", "coordinates of its gradient that a record keeps, 0 for all", 0, 10_000_000,
        integer=True, slider=(0, 1000),
    )  # fmt: skip
    threshold: float = knob(
        0.0, "τ", "noise deviations below which a coordinate of the sum is set to zero", 0, 100,
        slider=(0.0, 5.0),
    )  # fmt: skip
    sends: str = "numbers"
    accountant: str = "PLD"
    batching: str = "Poisson"
    num_examples: int | None = knob(
        None, "N", "records in a made data set", 1, 10_000_000, integer=True, optional=True,
        log=True, slider=(20, 5000),
    )  # fmt: skip
    seed: int | None = knob(
        0, "seed", "makes a teaching run", 0, 2**53, integer=True, optional=True
    )

    def __post_init__(self) -> None:
        """Check every knob, and the names of accountant and batching scheme."""
        check_knobs(self)
        choose(self.accountant, {a.__name__: a for a in ACCOUNTANTS}, "accountant")
        choose(self.batching, dict.fromkeys(BATCHING), "batching scheme")
        choose(self.sends, dict.fromkeys(SENDS), "way to send what is kept")

    def plan(self, num_examples: int) -> Plan:
        """The plan for a data set of `num_examples` records; calibrated if epsilon is set."""
        if self.batch_size > num_examples:
            raise ValueError(
                f"batch_size (L, expected records in a batch) must be at most the "
                f"{num_examples:,} records of the data, got {self.batch_size:,}."
            )
        cls = choose(self.accountant, {a.__name__: a for a in ACCOUNTANTS}, "accountant")
        plan = Plan(self.thinned, self.sampler(num_examples), self.delta, accountant=cls())
        return plan if self.epsilon is None else plan.calibrated(self.epsilon)

    @property
    def thinned(self) -> Method:
        """The method with what a record keeps of its gradient, or with a mask, if there is one."""
        if not self.kept:
            if self.threshold or self.sends != "numbers":
                raise ValueError(
                    f"threshold (τ) and sends concern the coordinates that a record keeps, got "
                    f"{self.threshold:g} and {self.sends!r} beside kept = 0: set kept above 0."
                )
            return self.pruned
        if self.frozen or type(self.method) is not DPSGD:
            raise ValueError(
                f"kept (k, coordinates of its gradient that a record keeps) is for DPSGD without "
                f"a mask, got frozen = {self.frozen:g} and {self.method!r}: set one of them to 0."
            )
        same = {f.name: getattr(self.method, f.name) for f in fields(DPSGD)}
        signs = self.sends == "signs"
        return TopAgg(**same, top_k=self.kept, signs=signs, threshold=self.threshold)

    @property
    def pruned(self) -> Method:
        """The method with the mask of `frozen`, if there is one."""
        if not self.frozen:
            return self.method
        if type(self.method) is not DPSGD or self.method.mask is not None:
            raise ValueError(
                f"frozen (p, share of the parameters that is frozen, by lot) is for DPSGD without "
                f"a mask of its own, got {self.frozen:g} beside {self.method!r}: set it to 0."
            )
        return replace(self.method, mask=Freeze(self.frozen))

    def sampler(self, num_examples: int) -> Sampler:
        """The batching scheme: whole epochs of whole batches where it knows no others."""
        steps = max(1, round(self.epochs * num_examples / self.batch_size))
        whole = max(1, round(num_examples / self.batch_size)), max(1, round(self.epochs))
        if self.batching == "Shuffle":
            return Shuffle(*whole)
        if self.batching == "BallsInBins":
            return BallsInBins(*whole)
        if self.batching == "FixedSize":
            return FixedSize(self.batch_size, num_examples, steps)
        return Poisson(self.batch_size / num_examples, steps)

    def turned(self, path: str, value: Any) -> Self:
        """A checked copy with one field changed; `path` may be dotted, as method.momentum."""
        return turned(self, path, value)

    def to_string(self) -> str:
        """A short string that `from_string` loads again, such as `data=digits noise=1.1`."""
        values = {path: present for path, _, present in every_knob(self)}
        words = [f"{name}={getattr(self, name)}" for name in _TEXT[:3]]
        words += [f"{k}={getattr(self, k)}" for k, v in _USUAL.items() if getattr(self, k) != v]
        told = {k: values[p] for k, p in _NAMES.items() if k not in _UNTOLD_AT_ZERO or values[p]}
        words += [f"{k}={value!r}" for k, value in told.items() if value is not None]
        return " ".join(words + (["seed=secret"] if self.seed is None else []))

    @classmethod
    def from_string(cls, text: str) -> Self:
        """The settings in a short string; what it does not name keeps its default."""
        settings = cls()
        for word in text.split():
            name, equals, value = word.partition("=")
            if not equals:
                known = ", ".join((*_TEXT, *_NAMES))
                raise ValueError(f"{word!r} is no setting; write name=value with {known}.")
            check_name(name)
            settings = settings.told(name, value if name in _TEXT else _number(name, value))
        return settings

    def told(self, name: str, value: Any) -> Self:
        """A checked copy with one field changed by its short name, such as noise or clip."""
        check_name(name)
        return self.turned(_NAMES.get(name, name), value)

    def to_python(self, plan: Plan) -> str:
        """The lines of Python that repeat the run exactly."""
        n = "" if self.num_examples is None else f", num_examples={self.num_examples}"
        method = ", ".join(
            f"{path}={value!r}"
            for path, _, value in every_knob(plan.method)
            if "." not in path and (value or getattr(type(plan.method), path))
        ) + (f", mask=dp.Freeze({self.frozen!r})" if self.frozen else "")
        method += ", signs=True" if getattr(plan.method, "signs", False) else ""
        sampler = plan.sampler
        rate = ", ".join(f"{path}={value!r}" for path, _, value in every_knob(sampler))
        seeds = f"seed={self.seed!r}"
        return (
            "import dpkit as dp\n"
            f"data = dp.datasets.load({self.data!r}{n})\n"
            f"plan = dp.Plan(dp.{type(plan.method).__name__}({method}), "
            f"dp.{type(sampler).__name__}({rate}), delta={plan.delta!r}, "
            f"accountant=dp.{self.accountant}())\n"
            f"for step in dp.train(dp.zoo.{self.model}(data, {seeds}), data, plan, {seeds}):\n"
            "    if step.peek.accuracy is not None: "
            "print(step.step, step.epsilon, step.peek.accuracy)\n"
        )


def choose(name: str, known: dict[str, Any], what: str) -> Any:
    """The entry of a given name, or one sentence that names the closest and all there are."""
    if name in known:
        return known[name]
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"There is no {what} {name!r}{hint}; there are: {', '.join(known)}.")


def check_name(name: str) -> None:
    """Refuse what is no short name of a setting, with the closest that is."""
    choose(name, dict.fromkeys((*_TEXT, *_NAMES)), "setting")


def fitting(settings: Settings, data: Dataset) -> Settings:
    """Settings whose batch fits the data: a change of data set must not end in a refusal."""
    return replace(settings, batch_size=min(settings.batch_size, data.num_examples))


def _number(name: str, text: str) -> float | int | None:
    if name == "seed" and text == "secret":
        return None
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}.") from None
    whole = name in ("batch", "examples", "seed") and number == number and abs(number) < 2**53
    return int(number) if whole and number == int(number) else number
