"""An answer that is not what the reasoning came to, and many that are though they look otherwise."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.confidence.protocol import parse
from corea.guards.base import Judged
from corea.guards.contradiction import contradiction, results
from corea.types import Kind


def said(text: str, kind: Kind = "number") -> str | None:
    return contradiction(Judged(question="?", text=text, answer=parse(text, kind).answer, kind=kind))


@pytest.mark.parametrize(
    "text",
    [
        "20 + 60 = 80, 80 - 140 = -60. As it cannot be negative, the answer is \\boxed{0}.",
        "\\[ 3 \\times 4 = 12 \\]\nTherefore, she has \\(\\boxed{21}\\) left.",
        "\\[ \\frac{36}{3} = 12 \\text{ km} \\]\nAnswer: 9",
        "```python\nprint(6 * 7)\n```\n```output\n42\n```\nAnswer: 24",
        "1{,}000 + 5 = 1{,}005 in all.\nAnswer: 150",
    ],
)
def test_an_answer_that_is_not_what_was_worked_out_is_deferred(text: str) -> None:
    assert said(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "\\[ 3 \\times 4 = 12 \\]\nAnswer: 12",
        "3 + 4 = 7, check: 7 - 4 = 3.\nAnswer: 7",
        "\\[ 35 / 15 = 2.33 \\]\nOne cannot have part of a set, so \\boxed{2} are left.",
        "1000 / 3 = 333.33, rounded up:\nAnswer: 334",
        "3 / 4 = 0.75\nAnswer: 75%",
        "2 / 3 = 0.667\nAnswer: \\boxed{\\frac{2}{3}}",
        "16 is a number n with n \\equiv 1 (mod 5), and 3 + 13 = 16.\nThe remainder of 16 by 7 is \\boxed{2}.",
        "Solving gives a = -20 or a = 4, so the sum is \\boxed{-16}.",
        "```python\nx = 3\ny = 4\nprint(x * y)\n```\n```output\n12.0\n```\nAnswer: 12",
        "180^\\circ - 158^\\circ = 22^\\circ\nAnswer: 22",
        "There is nothing to work out.\nAnswer: 5",
        "The cost is $4 + $5 = $9.00.\nAnswer: 9",
        "x^2 + 1 = 5\nAnswer: 2",
    ],
)
def test_an_answer_that_may_follow_is_not(text: str) -> None:
    assert said(text) is None


@pytest.mark.parametrize(
    "kind,text",
    [
        ("choice", "The correct answer is B) the sun.\n\nAnswer: C"),
        ("boolean", "So the answer is no, it never was.\n\nAnswer: yes"),
    ],
)
def test_an_answer_that_was_stated_otherwise_before_is_deferred(kind: Kind, text: str) -> None:
    assert said(text, kind) is not None


@pytest.mark.parametrize(
    "kind,text",
    [
        ("choice", "The answer is not A) the sea. The correct answer is B) the sun.\n\nAnswer: B"),
        ("choice", "At first the answer is A. On reflection the answer is B.\nAnswer: B"),
        ("choice", "Option A is right about the sea.\nAnswer: B"),
        ("boolean", "The answer is yes.\nAnswer: Yes"),
        ("text", "The answer is A.\nAnswer: B"),
    ],
)
def test_a_change_of_mind_that_ends_in_the_answer_is_not(kind: Kind, text: str) -> None:
    assert said(text, kind) is None


def test_results_are_told_from_the_parts_of_longer_sums() -> None:
    found = results("3 + 4 = 7, then 10 = 2 * 5, \\[ x = \\frac{3}{4} \\] and 1 + 1 = 2 + 0 = 2.")
    assert [result.value for result in found] == [7, Fraction(3, 4), 2]
    assert [result.worked_out for result in found] == [True, False, True]


@given(st.text(alphabet="0123456789=+-*/\\boxed{}frac$ .,`\nAnswer:output", max_size=300))
def test_no_text_makes_it_raise(text: str) -> None:
    kinds: tuple[Kind, ...] = ("number", "choice", "boolean")
    for kind in kinds:
        contradiction(Judged(question=text, text=text, answer=text[:20], kind=kind))
