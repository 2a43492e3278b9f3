"""Replies that did not come to their end."""

from __future__ import annotations

import pytest

from corea.confidence.protocol import parse
from corea.guards.base import Judged
from corea.guards.ending import confidence_missing, cut_off, no_answer, options_of
from corea.types import Confidence, Kind

CHOICES = "Which is wet?\nA) the sea\nB) the sun\nC) none of these"


def judged(
    text: str, *, kind: Kind | None = "number", question: str = "?", finish_reason: str | None = "stop"
) -> Judged:
    """As a cascade would hand it over: the answer is what the protocol finds."""
    answer = parse(text, kind).answer
    return Judged(question=question, text=text, answer=answer, kind=kind, finish_reason=finish_reason)


@pytest.mark.parametrize(
    "text,finish_reason",
    [
        ("So it is \\boxed{5}.", "length"),
        ("So it is \\boxed{5}.", "content_filter"),
        ("So it is \\boxed{5", "stop"),
        ("```python\nprint(5)\n```\n```output\n5\n", None),
    ],
)
def test_a_reply_that_is_cut_off_is_deferred(text: str, finish_reason: str | None) -> None:
    assert cut_off(judged(text, finish_reason=finish_reason)) is not None


@pytest.mark.parametrize("text", ["It is \\boxed{\\frac{1}{2}}.", "5", "", "a } b \\boxed{3}", "```\n5\n```\nSo 5."])
def test_a_reply_that_is_whole_is_not(text: str) -> None:
    assert cut_off(judged(text)) is None


def test_a_program_may_end_with_its_block_open() -> None:
    assert cut_off(judged("```python\nprint(5)", kind="code")) is None


@pytest.mark.parametrize(
    "kind,text",
    [
        ("number", ""),
        ("number", "I would have to think about that."),
        ("number", "The answer is \\boxed{x}."),
        ("choice", "Answer: perhaps the moon"),
        ("choice", "All of them are plausible to a degree."),
        ("boolean", "Answer: it depends on the circumstances"),
        ("boolean", "That is hard to say."),
        ("expression", "There is none that I can see"),
        (None, "  \n"),
    ],
)
def test_what_cannot_be_read_as_an_answer_is_deferred(kind: Kind | None, text: str) -> None:
    assert no_answer(judged(text, kind=kind, question=CHOICES)) is not None


@pytest.mark.parametrize(
    "kind,text",
    [
        ("number", "Answer: 12 apples"),
        ("number", "Answer: 3/4 of 5"),
        ("number", "Answer: twelve"),
        ("choice", "Answer: B"),
        ("choice", "Answer: the sea"),
        ("choice", "The answer is (C) none of these."),
        ("boolean", "Answer: Yes, it is."),
        ("expression", "\\boxed{x^2}"),
        ("code", "```python\nprint(1)\n```"),
        ("text", "Answer: Paris"),
        (None, "Anything goes."),
    ],
)
def test_what_can_be_read_is_not(kind: Kind | None, text: str) -> None:
    assert no_answer(judged(text, kind=kind, question=CHOICES)) is None


def test_a_confidence_that_was_asked_for_and_did_not_come_is_deferred() -> None:
    unknown = Confidence.unknown("logprob", "the server gave none")
    asked = Judged(question="?", text="5", answer="5", confidence=unknown)
    assert confidence_missing(asked) == "the server gave none"
    sure = Confidence(value=0.0, source="logprob")
    assert confidence_missing(Judged(question="?", text="5", answer="5", confidence=sure)) is None
    assert confidence_missing(Judged(question="?", text="5", answer="5")) is None


def test_options_are_read_from_the_question() -> None:
    assert options_of(CHOICES) == {"A": "the sea", "B": "the sun", "C": "none of these"}
