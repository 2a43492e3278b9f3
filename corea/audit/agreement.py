"""Whether two tiers gave the same answer to a question. Knows not which of them is right."""

from __future__ import annotations

from corea.errors import CoreaError
from corea.grading.answers import grade, same_answer
from corea.types import Attempt, Kind


def agreement(small: Attempt, large: Attempt, kind: Kind | None) -> bool | None:
    """None where nobody can tell: no reply, no short answer in it, a program. May take a second for expressions.

    By the kind's own grading where the request has one; else as votes are counted, which errs towards "differs".
    """
    if small.failure is not None or large.failure is not None:
        return None
    if small.text == large.text and small.text.strip():
        return True
    if small.answer is None or large.answer is None or kind == "code" or large.finish_reason == "length":
        return None
    if kind is None:
        return same_answer(small.answer, large.answer)
    try:
        # Either may be the fuller one: an option's letter, or its text.
        return grade(small.answer, large.answer, kind) or grade(large.answer, small.answer, kind)
    except CoreaError:
        return None
