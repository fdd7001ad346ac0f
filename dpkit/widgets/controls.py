"""Native, labelled, keyboard-friendly notebook controls; what is typed or dragged is checked."""

from __future__ import annotations

import functools
import math
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import traitlets

from dpkit.widgets.board import Control
from dpkit.words import say


class Slider(Control):
    """A number by track or by typing, linear or logarithmic, with unit and named ends.

    *Guarantee*: `value` always lies in [low, high], whole where `integer`; anything else is
    refused with one sentence, in the page as in Python. While a change is being handled, only
    the latest of the next ones waits.
    """

    value = traitlets.Any().tag(sync=True)
    low = traitlets.Float().tag(sync=True)
    high = traitlets.Float().tag(sync=True)
    log = traitlets.Bool().tag(sync=True)
    integer = traitlets.Bool().tag(sync=True)
    step = traitlets.Float(None, allow_none=True).tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    ends = traitlets.Tuple(("", "")).tag(sync=True)
    _live = (*Control._live, "low", "high", "unit", "label")

    def __init__(
        self,
        *,
        label: str,
        value: float,
        low: float,
        high: float,
        log: bool = False,
        integer: bool = False,
        step: float | None = None,
        unit: str = "",
        help: str = "",
        ends: tuple[str, str] = ("", ""),
        disabled: bool = False,
    ) -> None:
        """Make a slider; `step` defaults to about a hundredth of the range, on round numbers."""
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"{label}: low must be below high, both finite; got {low}, {high}.")
        if log and low <= 0:
            raise ValueError(f"{label}: a logarithmic slider needs low > 0, got {low}.")
        super().__init__(
            label=label, low=low, high=high, log=log, integer=integer, step=step, unit=unit,
            help=help, ends=tuple(ends), disabled=disabled, value=value,
        )  # fmt: skip

    @traitlets.validate("value")
    def _checked(self, proposal: Any) -> float:
        value = proposal["value"]
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        bad = isinstance(value, bool | str) or (self.integer and number != int_or_nan(number))
        if bad or not self.low <= number <= self.high:
            sentence = (
                say("{label} must be a whole number from {low:g} to {high:g}, got {value!r}.",
                    label=self.label, low=self.low, high=self.high, value=value)
                if self.integer else
                say("{label} must be a number from {low:g} to {high:g}, got {value!r}.",
                    label=self.label, low=self.low, high=self.high, value=value)
            )  # fmt: skip
            raise traitlets.TraitError(sentence)
        return int(number) if self.integer else number


class Choice(Control):
    """One of a few named options, by the browser's own list."""

    value = traitlets.Unicode().tag(sync=True)
    options: traitlets.List = traitlets.List().tag(sync=True)
    _live = (*Control._live, "options")

    def __init__(
        self,
        *,
        label: str,
        options: Sequence[str | tuple[str, str]],
        value: str | None = None,
        help: str = "",
        disabled: bool = False,
    ) -> None:
        """Make a list of options, each a string or a pair (what is read, value)."""
        pairs = _pairs(options)
        first = pairs[0][1] if value is None else value
        super().__init__(label=label, options=pairs, value=first, help=help, disabled=disabled)

    def offer(self, options: Sequence[str | tuple[str, str]], value: str | None = None) -> None:
        """Replace the options; keeps the present value where it is still offered."""
        pairs = _pairs(options)
        keep = self.value if value is None else value
        values = [item for _, item in pairs]
        with self._guard, self.hold_sync(), self.hold_trait_notifications():
            self.options = pairs
            self.value = keep if keep in values else values[0]

    @traitlets.validate("value")
    def _checked(self, proposal: Any) -> str:
        values = [item for _, item in self.options]
        if proposal["value"] not in values:
            sentence = say(
                "{label} must be one of {values}, got {value!r}.",
                label=self.label, values=", ".join(values), value=proposal["value"],
            )  # fmt: skip
            raise traitlets.TraitError(sentence)
        return str(proposal["value"])


class Entry(Control):
    """A line of text, sent when the reader presses Enter or leaves the field."""

    value = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, *, label: str, value: str = "", help: str = "", disabled: bool = False
    ) -> None:
        """Make a labelled line of text."""
        super().__init__(label=label, value=value, help=help, disabled=disabled)


class Check(Control):
    """A yes or no."""

    value = traitlets.Bool().tag(sync=True)

    def __init__(
        self, *, label: str, value: bool = False, help: str = "", disabled: bool = False
    ) -> None:
        """Make a labelled check box."""
        super().__init__(label=label, value=value, help=help, disabled=disabled)


class Buttons(Control):
    """A row of named actions; a click calls every `on_click` callback with the action's name."""

    actions: traitlets.List = traitlets.List().tag(sync=True)
    off = traitlets.List(traitlets.Unicode()).tag(sync=True)
    clicked = traitlets.Int(0)
    _live = ("actions", "off", "shown")

    def __init__(
        self,
        *,
        actions: Sequence[tuple[str, str, str]],
        disabled: Sequence[str] = (),
        label: str = "",
    ) -> None:
        """Make buttons from (name, what is read, "primary" | "danger" | "")."""
        self._callbacks: list[Callable[[str], object]] = []
        super().__init__(actions=[list(a) for a in actions], off=sorted(disabled), label=label)

    def on_click(self, callback: Callable[[str], object], remove: bool = False) -> None:
        """Call `callback(name)` at each click from now on, or no longer."""
        with self._guard:
            others = [known for known in self._callbacks if known is not callback]
            self._callbacks = others if remove else [*others, callback]

    def click(self, name: str) -> bool:
        """Press a button from Python; returns False where it is disabled."""
        names = [action[0] for action in self.actions]
        if name not in names:
            raise ValueError(f"There is no button {name!r}; there are {', '.join(names)}.")
        with self._guard:
            if name in self.off:
                return False
            self.clicked += 1
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback(name)
        return True

    def disable(self, *names: str) -> None:
        """Disable exactly these buttons and enable all others."""
        with self._guard:
            self.off = sorted(names)

    def close(self) -> None:
        """Remove the buttons and forget the callbacks."""
        self._callbacks = []
        super().close()

    def _heard(self, _: Any, content: Any, buffers: Any) -> None:
        super()._heard(_, content, buffers)
        if isinstance(content, dict) and "click" in content and self.comm is not None:
            self.click(str(content["click"]))


class Progress(Control):
    """How far a run is, as a bar and in words; read aloud at most every few seconds."""

    value = traitlets.Float(0.0, allow_none=True).tag(sync=True)
    text = traitlets.Unicode().tag(sync=True)
    _live = ("value", "text", "label", "shown")

    def __init__(self, *, label: str, value: float | None = 0.0, text: str = "") -> None:
        """Make a bar for a share in [0, 1]; None means that the share is unknown."""
        super().__init__(label=label, value=value, text=text)

    def show(self, value: float | None, text: str = "") -> None:
        """Set share and words in one message, from any thread."""
        with self._guard, self.hold_sync():
            self.value, self.text = value, text


class Note(Control):
    """Words for the reader: `**bold**`, `` `code` `` and blank lines, never HTML.

    `error` keeps the latest exception that `guarded` showed here; `check` raises it again.
    """

    text = traitlets.Unicode().tag(sync=True)
    kind = traitlets.Enum(["plain", "info", "warning", "error"], "plain").tag(sync=True)
    _live = ("text", "kind", "label", "shown")

    def __init__(self, text: str = "", *, kind: str = "plain", label: str = "") -> None:
        """Make a note, shown when it has text."""
        self.error: Exception | None = None
        super().__init__(text=text, kind=kind, label=label)

    def show(self, text: str, kind: str = "plain") -> None:
        """Replace words and kind in one message, from any thread."""
        with self._guard, self.hold_sync():
            self.kind, self.text = kind, text

    def clear(self) -> None:
        """Hide the note."""
        self.show("")

    def check(self) -> None:
        """Raise the exception that was shown here, if there was one."""
        if self.error is not None:
            raise self.error


class Table(Control):
    """Rows of text; a cell may be `{"colour", "dash", "text"}`, the line of a plot and its name."""

    columns: traitlets.List = traitlets.List().tag(sync=True)
    rows: traitlets.List = traitlets.List().tag(sync=True)
    _live = ("label", "columns", "rows", "shown")

    def __init__(self, *, label: str, columns: Sequence[str]) -> None:
        """Make an empty table with a caption and column heads."""
        super().__init__(label=label, columns=list(columns))


class Code(Control):
    """Lines of code as they are, to be selected and copied; hidden while empty."""

    text = traitlets.Unicode().tag(sync=True)
    _live = ("text", "label", "shown")

    def __init__(self, text: str = "", *, label: str = "") -> None:
        """Show some lines."""
        super().__init__(text=text, label=label)


def guarded(note: Note) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a callback or a thread's body so that an exception is seen, not lost.

    *Guarantee*: the exception is shown in `note` as one sentence, kept in `note.error`, its
    traceback goes to stderr, and the caller goes on; the sentence leaves at the next success.
    """

    def decorate(callback: Callable[..., Any]) -> Callable[..., Any]:
        shown: list[str] = []

        @functools.wraps(callback)
        def safe(*args: Any) -> Any:
            try:
                result = callback(*args)
            except Exception as error:
                note.error = error
                shown[:] = [_sentence(error)]
                note.show(shown[0], "error")
                traceback.print_exc()
                return None
            if shown and note.text == shown.pop():
                note.clear()
            return result

        return safe

    return decorate


def int_or_nan(number: float) -> float:
    """The whole part of a number, NaN where there is none."""
    return math.trunc(number) if math.isfinite(number) else math.nan


def _sentence(error: Exception) -> str:
    """The first line of an exception, with its kind unless the message is a sentence itself."""
    message = (str(error).strip().splitlines() or [""])[0]
    return message if message.endswith(".") else f"{type(error).__name__}: {message}"


def _pairs(options: Sequence[str | tuple[str, str]]) -> list[list[str]]:
    if not options:
        raise ValueError("A choice needs at least one option, got none.")
    return [[o, o] if isinstance(o, str) else [str(o[0]), str(o[1])] for o in options]
