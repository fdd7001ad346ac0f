"""What a learner calls in a notebook cell: check an answer, ask for a hint."""

from __future__ import annotations

import difflib
import sys
from typing import Any

from dpkit.course import record
from dpkit.course.answers import Unreadable
from dpkit.course.exercises import Verdict, book
from dpkit.words import say


def check(exercise: str, answer: Any = None) -> None:
    """Print whether an answer is right, and if it is not what may have gone wrong.

    *Guarantee*: no answer, of whatever type, ends in a traceback; nothing is sent anywhere.
    """
    name = _name(exercise)
    if name is None:
        return
    if answer is None:
        _tell(say('Not answered yet. For a hint: `course.hint("{name}")`', name=name))
        return
    told = verdict(name, answer)
    _tell(told.text)
    if told.right is not None:
        record.note(name, solved=told.right, wrong=not told.right)


def hint(exercise: str) -> None:
    """Print a hint; each call brings a stronger one."""
    name = _name(exercise)
    if name is None:
        return
    before = record.load().get(name, record.Tried()).hints
    _tell(book()[name].hint(before))
    record.note(name, hinted=True)


def verdict(exercise: str, answer: Any) -> Verdict:
    """What is to be said of an answer, given the mistakes that were made before."""
    tried = record.load().get(exercise, record.Tried())
    mistakes = tried.attempts if not tried.solved else 0
    try:
        return book()[exercise].verdict(answer, mistakes)
    except Unreadable as fault:
        return Verdict(None, str(fault))


def _name(exercise: Any) -> str | None:
    """The name of an exercise, 1.1 as well as 01.1; one that is not there is told."""
    given = str(exercise).strip()
    name, lesson = given.zfill(4), given.partition(".")[0].zfill(2)
    if name in book():
        return name
    there = [known for known in book() if known.startswith(f"{lesson}.")]
    if there:
        print(say("There is no exercise {name}; lesson {lesson} has {names}.",
                  name=given, lesson=lesson, names=", ".join(there)))  # fmt: skip
        return None
    near = difflib.get_close_matches(name, book(), 3, 0.5) or list(book())[:3]
    print(say("There is no exercise {name}; there are, for instance, {names}.",
              name=name, names=", ".join(near)))  # fmt: skip
    return None


def _tell(text: str) -> None:
    """Show a text with its emphasis in a notebook, plain elsewhere."""
    notebook = sys.modules.get("IPython")
    if notebook is None or notebook.get_ipython() is None:
        print(text.replace("*", ""))
    else:
        from IPython.display import Markdown, display

        display(Markdown(text))
