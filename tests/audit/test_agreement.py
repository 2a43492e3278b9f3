"""Whether two answers are the same, and where nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest

from corea.audit.agreement import agreement
from corea.types import Attempt, Confidence, Decision, Failure, Kind, Reason


def attempt(answer: str | None, text: str = "…", **more: Any) -> Attempt:
    return Attempt(
        tier="t", model="m", decision=Decision(keep=True, reason=Reason.CONFIDENT),
        confidence=Confidence(value=0.9, source="s"), answer=answer, text=f"{text} {answer}", **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    "small, large, kind, same",
    [
        ("42", "42.0", None, True),
        ("42", "43", None, False),
        ("42", "42 apples", "number", True),
        ("1/2", "0.5", "expression", True),
        ("B", "B) 12 km", "choice", True),
        ("yes", "no, because", "boolean", False),
        ("Paris", "paris.", "text", True),
        ("def f(): 1", "def f(): return 1", "code", None),
        (None, "42", None, None),
        ("42", None, None, None),
    ],
)
def test_answers_are_compared_by_their_kind(small: str | None, large: str | None, kind: Kind | None, same: Any) -> None:
    assert agreement(attempt(small, "I think"), attempt(large, "Surely"), kind) is same


def test_the_same_words_agree_even_without_a_short_answer() -> None:
    assert agreement(attempt(None, "A poem."), attempt(None, "A poem."), None) is True


def test_a_failure_and_a_reply_that_is_cut_off_tell_nothing() -> None:
    failed = attempt(None, failure=Failure(kind="UpstreamTimeout", message="no"))
    assert agreement(attempt("42"), failed, "number") is None
    assert agreement(attempt("42"), attempt("42", "longer", finish_reason="length"), "number") is None
