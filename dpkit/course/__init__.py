"""The course in the notebooks: lessons, exercises that are checked on the spot, progress."""

from dpkit.course.checking import check, hint
from dpkit.course.lessons import LESSONS, Lesson, contents, progress
from dpkit.course.record import forget

__all__ = ["LESSONS", "Lesson", "check", "contents", "forget", "hint", "progress"]
