"""What the panels of the lessons share: controls above linked plots, words and numbers below."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets

from dpkit.widgets.board import Board, Box
from dpkit.widgets.cells import replace_in_cell
from dpkit.widgets.controls import Control, Note, Progress, guarded
from dpkit.widgets.plot import LivePlot

if TYPE_CHECKING:
    from dpkit.widgets.worker import Worker

_REST = 0.04  # seconds without a change after which the longer work begins


class Lesson(ipywidgets.VBox):
    """A panel whose plots follow its controls at once; a subclass says what is drawn.

    `redraw` is for what must follow the finger; `afterwards` for what may come a moment later.

    *Guarantee*
    - `redraw` runs alone, on whichever thread the kernel calls, and reads the latest values;
    - changes that pile up while it runs are drawn once;
    - `afterwards` never holds up a change: it runs when the controls rest, and is left off when
      they move again; `join` waits for it;
    - an exception is shown in the panel and raised again by `check`;
    - `join` waits for the worker's task as well, and `close` stops it.
    """

    def __init__(
        self,
        controls: Mapping[str, Control],
        plots: Mapping[str, LivePlot],
        *notes: Control,
        table: Table | None = None,
        wide: Sequence[str] = (),
        worker: Worker | None = None,
    ) -> None:
        """Lay the parts out and draw; plots named in `wide` take a row of their own.

        A `worker` does what takes long; it shows its findings under `_drawing`, unless stopped.
        """
        self.controls, self.plots = dict(controls), dict(plots)
        self.said, self._worker = Note(), worker
        self._drawing, self._counting, self._asked = threading.RLock(), threading.Lock(), 0
        self._drawer: threading.Thread | None = None
        self._rest_safely = guarded(self.trouble)(self._rest)
        first = [self.plots[name] for name in wide]
        rest = [plot for name, plot in self.plots.items() if name not in wide]
        self._board = Board([
            Box(list(self.controls.values()), "dpk-grid"), self.said, self.trouble, *first,
            Box(rest, "dpk-grid"), *notes,
        ])  # fmt: skip
        self._below: list[ipywidgets.Widget] = [table] if table else []
        super().__init__([self._board, *self._below], layout={"width": "100%"})
        self.add_class("dpkit-lesson")
        self.redraw()
        self._rest(self._asked)
        turned = guarded(self.trouble)(self._turned)
        for control in self.controls.values():
            if control.has_trait("value") and not isinstance(control, Progress):
                control.observe(turned, "value")
        replace_in_cell(self)

    @cached_property
    def trouble(self) -> Note:
        """Where an exception is shown, of the panel or of its worker."""
        return Note(kind="error")

    def redraw(self) -> None:
        """Show every plot and the words anew, from the values of the controls."""
        raise NotImplementedError  # widgets have a metaclass of their own, so no ABC

    def afterwards(self) -> Iterator[Callable[[], None]]:
        """Compute what takes longer, and yield what shows it: it is called if nothing changed."""
        yield from ()

    def join(self, timeout: float = 300.0) -> bool:
        """Wait until the worker is done and all is drawn; False if the time ran out."""
        if self._worker is not None and not self._worker.join(timeout):
            return False
        drawer = self._drawer
        if drawer is not None and drawer is not threading.current_thread():
            drawer.join(timeout)
            return not drawer.is_alive()
        return True

    def value(self, name: str) -> Any:
        """What a control stands on."""
        return self.controls[name].value

    def turn(self, **values: Any) -> None:
        """Set controls from Python, as a reader would by hand; draws once for each."""
        for name, value in values.items():
            self.controls[name].value = value

    def check(self) -> None:
        """Raise the latest error of the panel or of a page that drew it, if there was one."""
        self.trouble.check()
        for plot in self.plots.values():
            plot.check()

    def close(self) -> None:
        """Remove the panel and free all that it held."""
        if self._worker is not None:
            self._worker.close()
        self._ticket()
        self.join(5)
        for part in (self._board, *self._below):
            part.close()
        layout = self.layout
        super().close()
        layout.close()

    def _turned(self, _: Any) -> None:
        mine = self._ticket()
        with self._drawing:
            if mine == self._asked:  # else a later change waits, and draws for both
                self.redraw()
                self._go_on()

    def _ticket(self) -> int:
        """The number of the latest change; older ones need not be drawn."""
        with self._counting:
            self._asked += 1
            return self._asked

    def _go_on(self) -> None:
        """See that a drawer is about; where no thread can start, do its work here."""
        if type(self).afterwards is Lesson.afterwards:
            return
        if self._drawer is None:
            self._drawer = threading.Thread(target=self._draw_rest, daemon=True)
            try:
                self._drawer.start()
            except RuntimeError:
                self._drawer = None
                self._rest(self._asked)

    def _draw_rest(self) -> None:
        """Draw the rest whenever the controls have come to rest, then leave."""
        while True:
            ticket = self._asked
            time.sleep(_REST)
            if ticket == self._asked:
                self._rest_safely(ticket)
            with self._drawing:
                if ticket == self._asked:
                    self._drawer = None
                    return

    def _rest(self, ticket: int) -> None:
        for show in self.afterwards():
            with self._drawing:
                if ticket != self._asked:
                    return
                show()


class Table(ipywidgets.HTML):
    """A small table with a caption and row headers, for readers who want the numbers."""

    def __init__(self) -> None:
        """Make an empty table."""
        super().__init__()
        self.add_class("dpk")
        self.add_class("dpkit-table")

    def close(self) -> None:
        """Remove the table with its style and layout."""
        style, layout = self.style, self.layout
        super().close()
        style.close()
        layout.close()

    def show(self, caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Replace all; the first cell of a row names it, a row of two cells spans the rest."""
        rows = list(rows)
        wordy = [any(_kind(row[i]) for row in rows if i < len(row)) for i in range(len(heads))]
        top = "".join(
            f"<th scope='col'{_WORDS if wordy[i] else ''}>{escape(head)}</th>"
            for i, head in enumerate(heads)
        )
        body = "".join(f"<tr>{_cells(row, len(heads))}</tr>" for row in rows)
        self.value = (
            f"<style>{_STYLE}</style><div class='dpkit-scroll' tabindex='0' role='region' "
            f'aria-label="{escape(caption)}"><table><caption>{escape(caption)}</caption>'
            f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
        )


def _cells(row: Sequence[str], columns: int) -> str:
    span = columns - len(row) + 1
    cells = [f"<th scope='row'>{escape(row[0])}</th>"]
    cells += [f"<td{_kind(cell)}>{escape(cell)}</td>" for cell in row[1:-1]]
    wide = f" colspan='{span}' class='dpkit-words'" if span > 1 else ""
    return "".join([*cells, f"<td{wide}>{escape(row[-1])}</td>"])


def _kind(cell: str) -> str:
    """Words stand to the left, numbers to the right."""
    return _WORDS if any(c.isalpha() for c in cell) else ""


_WORDS = " class='dpkit-words'"
_STYLE = """
.dpkit-lesson { overflow: visible; }
.dpkit-table { height: auto; }
.dpkit-table .widget-html-content, .dpkit-scroll { min-width: 0; max-width: 100%; }
.dpkit-scroll { overflow-x: auto; }
.dpkit-table .widget-html-content { line-height: 1.45; }
.dpkit-table table { border-collapse: collapse; font-size: 12.5px; }
.dpkit-table caption { text-align: left; color: var(--dpk-muted); padding: 2px 0 4px; }
.dpkit-table th, .dpkit-table td { padding: 3px 16px 3px 0; vertical-align: baseline;
  border-bottom: 1px solid var(--dpk-grid); text-align: right;
  font-variant-numeric: tabular-nums; }
.dpkit-table th { font-weight: 600; }
.dpkit-table thead th { color: var(--dpk-muted); font-weight: 500; }
.dpkit-table th:first-child, .dpkit-table tr .dpkit-words { text-align: left; }
.dpkit-table td:last-child, .dpkit-table thead th:last-child { text-align: left; padding-right: 0; }
"""
