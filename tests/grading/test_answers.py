"""Grading: hard cases in a table, and properties of agreement."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.grading.algebra import equivalent
from corea.grading.answers import boolean_of, choice_of, grade, number_of, same_answer
from corea.types import Kind


@pytest.mark.parametrize(
    "answer,gold,kind",
    [
        ("18", "18", "number"),
        ("$18", "18", "number"),
        ("18 dollars per day", "18", "number"),
        ("18.00", "18", "number"),
        ("1,450", "1450", "number"),
        ("1{,}450", "1450", "number"),
        ("1\\,450", "1450", "number"),
        ("\\$1,450.00", "1450", "number"),
        ("−5", "-5", "number"),
        ("3/4", "0.75", "number"),
        ("\\frac{3}{4}", "0.75", "number"),
        ("-\\frac{3}{4}", "-0.75", "number"),
        ("1 1/2", "1.5", "number"),
        ("50%", "50", "number"),
        ("50%", "0.5", "number"),
        ("50\\%", "50", "number"),
        ("5 + 3 = 8", "8", "number"),
        ("x = 8", "8", "number"),
        ("\\text{18 meters}", "18", "number"),
        ("**18**", "18", "number"),
        (".5", "0.5", "number"),
        ("2\\sqrt{3}", "\\sqrt{12}", "expression"),
        ("(x-1)(x+1)", "x^2-1", "expression"),
        ("(2,3]", "(2,3]", "expression"),
        ("\\frac{1}{2}", "0.5", "expression"),
        ("B", "B", "choice"),
        ("(b)", "B", "choice"),
        ("B) 12 km", "B", "choice"),
        ("Option B", "B", "choice"),
        ("yes", "yes", "boolean"),
        ("Yes, because it flies.", "yes", "boolean"),
        ("False", "no", "boolean"),
        ("The Eiffel Tower.", "eiffel tower", "text"),
        ("none of these", "None of these", "text"),
    ],
)
def test_right_answers_in_odd_clothes_are_right(answer: str, gold: str, kind: Kind) -> None:
    assert grade(answer, gold, kind)


@pytest.mark.parametrize(
    "answer,gold,kind",
    [
        (None, "18", "number"),
        ("", "18", "number"),
        ("26", "18", "number"),
        ("18 or 19", "18", "number"),
        ("0.333", "1/3", "number"),
        ("1/0", "18", "number"),
        ("5", "-5", "number"),
        ("180", "18", "number"),
        ("5 = 3 + 8", "5", "number"),
        ("(2,4]", "(2,3]", "expression"),
        ("x^2+1", "x^2-1", "expression"),
        ("C", "B", "choice"),
        ("Because", "B", "choice"),
        ("no", "yes", "boolean"),
        ("maybe", "yes", "boolean"),
        ("tower", "eiffel tower", "text"),
        ("1" * 5000, "1", "number"),
    ],
)
def test_wrong_answers_are_wrong(answer: str | None, gold: str, kind: Kind) -> None:
    assert not grade(answer, gold, kind)


def test_a_hostile_expression_is_killed_and_the_next_one_still_works() -> None:
    assert not equivalent("1", "\\sum_{n=1}^{10^{9}} \\sqrt{\\sin(n^{n})}" * 3, limit_s=0.2)
    assert equivalent("x+1", "1+x")


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_read_back_however_it_is_written(value: int) -> None:
    for text in (f"{value}", f"{value:,}", f"{value}.0", f"${value}$", f"it is {value} apples", f"**{value}**"):
        assert number_of(text) == Fraction(value), text


@given(st.text(max_size=60), st.text(max_size=60))
def test_agreement_is_reflexive_symmetric_and_never_raises(one: str, two: str) -> None:
    assert same_answer(one, one)
    assert same_answer(one, two) == same_answer(two, one)
    choice_of(one)
    boolean_of(one)


@given(st.text(max_size=80), st.sampled_from(["choice", "boolean", "text"]))
def test_grading_odd_text_never_raises(answer: str, kind: Kind) -> None:
    grade(answer, "B" if kind == "choice" else "yes", kind)
