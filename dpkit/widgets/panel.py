"""The playground's controls: made from the knobs, turned into settings and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traitlets import TraitError

from dpkit import zoo
from dpkit.knobs import every_knob
from dpkit.settings import ACCOUNTANTS, BATCHING, Settings
from dpkit.widgets import words
from dpkit.widgets.controls import Choice, Entry, Slider
from dpkit.words import marked, say

TOYS = ("moons", "circles", "spiral", "blobs")
FIRST = ("num_examples", "method.noise_multiplier", "epsilon", "method.max_grad_norm", "delta")


class Controls:
    """One native control for each knob, and choices of data, model, accountant and mode.

    `changed(settings)` is called with new settings whenever a person turns something; a value
    that cannot be used is told by `failed(error)` and the settings stay as they were.
    """

    def __init__(
        self,
        settings: Settings,
        changed: Callable[[Settings], None],
        failed: Callable[[Exception], None],
        *,
        own_data: bool = False,
        own_model: bool = False,
    ) -> None:
        """Make the controls and show `settings` on them."""
        self.settings, self._changed, self._failed = settings, changed, failed
        self._silent = False
        self._solved = 3.0
        self.widgets: dict[str, Any] = self._choices(own_data, own_model)
        for path, knob, _ in every_knob(settings):
            if path != "seed":
                low, high = knob.slider or (knob.low, knob.high)
                left, right = words.ENDS.get(path, ("", ""))
                self.widgets[path] = Slider(
                    label=say(words.LABELS.get(path) or _plain(path, knob.symbol)),
                    value=low, low=low, high=high, log=knob.log,
                    integer=knob.integer, help=f"{knob.symbol}: {say(knob.meaning)}",
                    ends=(say(left), say(right)),
                )  # fmt: skip
        self.widgets["seed"] = Entry(
            label=say(words.LABELS["seed"]),
            value=_seed_text(settings.seed),
            help=say(words.SEED_HELP),
        )
        self.show(settings)
        for path, widget in self.widgets.items():
            widget.observe(lambda change, path=path: self._heard(path, change["new"]), "value")

    def show(self, settings: Settings) -> None:
        """Put settings on the controls without telling anyone; all of them, or none."""
        before, self._silent = self.settings, True
        try:
            self._put(settings)
        except TraitError as error:
            self._put(before)
            raise ValueError(str(error)) from None
        finally:
            self._silent = False

    def _put(self, settings: Settings) -> None:
        self.settings = settings
        values = {path: value for path, _, value in every_knob(settings)}
        for path, widget in self.widgets.items():
            if path in ("data", "model", "accountant", "batching", "sends"):
                widget.value = getattr(settings, path)
            elif path == "mode":
                widget.value = "noise" if settings.epsilon is None else "epsilon"
            elif path == "seed":
                widget.value = _seed_text(settings.seed)
            elif (value := values[path]) is not None:
                # What was typed into the settings may lie beyond the slider's usual reach.
                widget.low, widget.high = min(widget.low, value), max(widget.high, value)
                widget.value = value
        self._arrange()

    @property
    def data_side(self) -> list[Any]:
        """Controls of data, model and privacy, in reading order."""
        names = ("data", "model", "mode", *FIRST, "accountant", "batching")
        return [self.widgets[name] for name in names]

    @property
    def training_side(self) -> list[Any]:
        """Controls of the training, in reading order."""
        seen = {"data", "model", "mode", *FIRST, "accountant", "batching", "seed"}
        return [w for name, w in self.widgets.items() if name not in seen] + [self.widgets["seed"]]

    def _choices(self, own_data: bool, own_model: bool) -> dict[str, Any]:
        data = {self.settings.data: marked("your data")} if own_data else words.DATA
        model = {self.settings.model: marked("your model")} if own_model else zoo.TITLES
        menus = {
            "data": data,
            "model": model,
            "mode": words.MODES,
            "accountant": {a.__name__: a.__name__ for a in ACCOUNTANTS},
            "batching": {name: words.BATCHING[name] for name in BATCHING},
            "sends": words.SENDS,
        }
        return {
            name: Choice(
                label=say(words.LABELS[name]),
                options=[(say(text), key) for key, text in menu.items()],
            )
            for name, menu in menus.items()
        }

    def _heard(self, path: str, value: Any) -> None:
        if self._silent:
            return
        try:
            self.settings = self._with(path, value)
        except (ValueError, TypeError) as error:
            self._failed(error)
            return
        self._arrange()
        self._changed(self.settings)

    def _with(self, path: str, value: Any) -> Settings:
        settings = self.settings
        if path == "mode":
            if value == "noise":
                self._solved = settings.epsilon or self._solved
                return settings.turned("epsilon", None)
            return settings.turned("epsilon", self._solved)
        if path == "seed":
            return settings.turned("seed", _seed(value))
        if path == "kept" and not value:
            settings = settings.turned("threshold", 0.0).turned("sends", "numbers")
        if path == "data":
            size = settings.num_examples or 1000 if value in TOYS else None
            settings = settings.turned("num_examples", size)
            if value in TOYS and settings.model == "cnn":
                settings = settings.turned("model", "mlp")
        return settings.turned(path, value)

    def _arrange(self) -> None:
        """Show the noise or the epsilon slider, and N where the data set can have any size."""
        solved = self.settings.epsilon is not None
        toy = self.settings.data in TOYS and len(self.widgets["data"].options) > 1
        keeps = bool(self.settings.kept)
        shown = {"method.noise_multiplier": not solved, "epsilon": solved, "num_examples": toy}
        shown |= {"threshold": keeps, "sends": keeps}
        for path, visible in shown.items():
            self.widgets[path].shown = visible


def _plain(path: str, symbol: str) -> str:
    return f"{path.rpartition('.')[2].replace('_', ' ').capitalize()} {symbol}"


def _seed_text(seed: int | None) -> str:
    return "" if seed is None else str(seed)


def _seed(text: str) -> int | None:
    word = text.strip()
    if not word:
        return None
    if not word.isdigit():
        sentence = marked(
            "seed must be a whole number >= 0, or empty for secret noise, got {seed!r}."
        )
        raise ValueError(say(sentence, seed=text))
    return int(word)
