"""The lessons in their order: title, question, objectives, minutes; and how far you have come."""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dpkit.course import record
from dpkit.course.exercises import book
from dpkit.words import say

INDEX = "index.ipynb"
"""The notebook with the table of contents."""


@dataclass(frozen=True)
class Lesson:
    """A notebook of the course; `objectives` go on from "you can", `after` names lessons."""

    notebook: str
    title: str
    question: str
    objectives: tuple[str, ...]
    minutes: int
    needs_torch: bool = True
    after: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """Its place in the course, such as 03."""
        return self.notebook[:2]

    @property
    def exercises(self) -> tuple[str, ...]:
        """The names of its exercises."""
        return tuple(name for name in book() if name.startswith(f"{self.number}."))

    @property
    def heading(self) -> str:
        """The line under its title: minutes, what comes before, objectives."""
        before = f", after {_listed(self.after)}" if self.after else ""
        return f"*{self.minutes} minutes{before}. Afterwards you can {_listed(self.objectives)}.*"

    @property
    def onward(self) -> str:
        """The line that leads to the lesson that follows, or back to the table of contents."""
        place = LESSONS.index(self) + 1
        if place == len(LESSONS):
            return f"**Next:** [the table of contents]({INDEX}), with your progress."
        following = LESSONS[place]
        return f"**Next:** [{following.number} {following.title}]({following.notebook})."


LESSONS = (
    Lesson(
        "00_playground.ipynb",
        "The playground: how much does privacy cost?",
        "Can a model learn from all patients and yet say next to nothing about any one of them?",
        ("train a private model with a few keys", "say what moves epsilon and what does not",
         "tell what is private from what is not"),
        25,
    ),
    Lesson(
        "01_what_is_dp.ipynb",
        "What is differential privacy?",
        "Did you ever cheat in an exam?",
        ("say what epsilon and delta promise", "choose noise for a count",
         "price many looks at the same data"),
        45, needs_torch=False, after=("00",),
    ),
    Lesson(
        "02_dpsgd_anatomy.ipynb",
        "The anatomy of a private step",
        "What does a private step do to a gradient?",
        ("clip and noise a gradient by hand", "weigh bias against noise when you choose $C$",
         "find the noise for a price"),
        45, after=("01",),
    ),
    Lesson(
        "03_accountants.ipynb",
        "Accountants: one run, five published answers",
        "How private is that?",
        ("tell a bound from an estimate", "read a price off the privacy loss",
         "solve for noise and for steps"),
        50, needs_torch=False, after=("01",),
    ),
    Lesson(
        "04_batching.ipynb",
        "Batching: the slider that most libraries lie about",
        "Does it matter how batches are drawn?",
        ("say how batches are drawn and what each way costs", "catch a false claim",
         "price a shuffled run"),
        50, after=("03",),
    ),
    Lesson(
        "05_abadi_reproduced.ipynb",
        "The founding paper, reproduced",
        "What does the run that founded the field cost, read with today's eyes?",
        ("price the table of 2016 anew", "charge every layer and component",
         "say which settings matter"),
        55, after=("02", "03"),
    ),
    Lesson(
        "06_budget_schedules.ipynb",
        "Spend the budget where it helps",
        "Should every step have the same noise?",
        ("shape the noise of a run under a budget", "compare two schedules fairly",
         "pay for looking at validation data"),
        50, after=("03", "04"),
    ),
    Lesson(
        "07_pruning.ipynb",
        "Move fewer weights",
        "Must every weight move?",
        ("say what a mask costs and what it saves", "judge a claim by paired seeds",
         "tell which masks are free"),
        50, after=("02",),
    ),
    Lesson(
        "08_neuraldp.ipynb",
        "Private activations, and where the promise ends",
        "Is a network private if one of its layers is noisy?",
        ("price a release of every record", "say where the promise ends",
         "compare it with DP-SGD"),
        50, after=("02", "03"),
    ),
    Lesson(
        "09_attack_and_audit.ipynb",
        "Attack and audit",
        "What can an attacker find out?",
        ("rebuild a record from a gradient", "find out who was in the training data",
         "refute a false epsilon"),
        50, after=("02", "03"),
    ),
    Lesson(
        "10_datalens.ipynb",
        "Let teachers vote on images",
        "Can private records be replaced by made-up ones that anybody may look at?",
        ("price a vote", "say why shards must not overlap",
         "compare a method with the plainest one"),
        50, after=("03",),
    ),
    Lesson(
        "11_tradeoff_explorer.ipynb",
        "The trade-off explorer",
        "How much accuracy does ε = 1 buy at best?",
        ("sweep many plans and read their frontier", "say what looking at many runs costs",
         "repeat any run"),
        45, after=("02", "03"),
    ),
)  # fmt: skip
"""The course in its order; `question` stands in the lesson's first cell, word for word."""


@dataclass(frozen=True)
class Table:
    """Rows under heads: HTML that a screen reader can walk through, and plain text.

    `links` lead from the rows, where there is one; `in_text` are the columns that the text has,
    all by default.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str | None, ...] = ()
    in_text: tuple[int, ...] = ()

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col" style="{_LEFT}">{_safe(h)}</th>' for h in self.heads)
        body = "".join(self._row(place) for place in range(len(self.rows)))
        return (
            f'<table><caption style="{_LEFT}">{_safe(self.caption)}</caption>'
            f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        )

    def _row(self, place: int) -> str:
        first, *rest = map(_safe, self.rows[place])
        link = self.links[place] if self.links else None
        if link:
            first = f'<a href="{_safe(link)}">{first}</a>'
        cells = "".join(f'<td style="{_LEFT}">{cell}</td>' for cell in rest)
        return f'<tr><th scope="row" style="{_LEFT}">{first}</th>{cells}</tr>'

    def __repr__(self) -> str:
        """The table as text, a row for each line."""
        columns = self.in_text or range(len(self.heads))
        table = [[row[column] for column in columns] for row in (self.heads, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)
        return "\n".join((self.caption, *lines))


_LEFT = "text-align:left;vertical-align:top"


def contents() -> Table:
    """The table of contents: every lesson with its objectives, minutes and your progress."""
    done = record.load()
    rows = tuple(
        (
            f"{lesson.number} {lesson.title}",
            lesson.question,
            _listed(lesson.objectives).replace("$", ""),
            str(lesson.minutes),
            ", ".join(lesson.after) or "-",
            say("yes") if lesson.needs_torch else say("no"),
            _solved(lesson, done),
        )
        for lesson in LESSONS
    )
    hours = sum(lesson.minutes for lesson in LESSONS) / 60
    caption = say("The course: {count} lessons, about {hours:.0f} hours", count=len(rows),
                  hours=hours)  # fmt: skip
    if None in _links():
        caption += say("; what is no link needs PyTorch and is not on this page")
    heads = (
        say("Lesson"), say("Question"), say("Afterwards you can"), say("Minutes"), say("After"),
        say("Needs PyTorch"), say("Solved"),
    )  # fmt: skip
    return Table(caption, heads, rows, _links(), (0, 3, 4, 5, 6))


def progress() -> Table:
    """Your progress: exercises solved, answers given and hints taken, lesson by lesson."""
    done = record.load()
    rows = []
    for lesson in LESSONS:
        tried = [done[name] for name in lesson.exercises if name in done]
        rows.append((
            f"{lesson.number} {lesson.title}", _solved(lesson, done),
            str(sum(t.attempts for t in tried)), str(sum(t.hints for t in tried)),
        ))  # fmt: skip
    solved = sum(done[name].solved for name in book() if name in done)
    return Table(
        say("Your progress: {solved} of {count} exercises solved; course.forget() clears it",
            solved=solved, count=len(book())),
        (say("Lesson"), say("Solved"), say("Answers"), say("Hints")),
        tuple(rows),
        _links(),
    )  # fmt: skip


def _links() -> tuple[str | None, ...]:
    """Where the lessons are; in a browser without a server those that need PyTorch are not."""
    there = sys.platform != "emscripten"
    return tuple(each.notebook if there or not each.needs_torch else None for each in LESSONS)


def _solved(lesson: Lesson, done: record.Record) -> str:
    names = lesson.exercises
    solved = sum(done[name].solved for name in names if name in done)
    return say("{solved} of {count}", solved=solved, count=len(names))


def _listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    comma = "," if len(words) > 2 else ""
    return f"{comma} and ".join(filter(None, (", ".join(words[:-1]), "".join(words[-1:]))))


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
