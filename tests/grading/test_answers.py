"""Grading: properties, and the processes that compare expressions. The hard cases are in test_hard_cases.py."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.errors import InputError
from corea.grading import algebra
from corea.grading.algebra import equivalent
from corea.grading.answers import boolean_of, choice_of, grade, number_of, same_answer
from corea.grading.dress import undress
from corea.grading.quantities import quantity_of, same_quantity
from corea.types import Kind

HOSTILE = "\\sum_{n=1}^{10^{9}} \\sqrt{\\sin(n^{n})}" * 3


def test_a_hostile_expression_is_killed_and_the_next_one_still_works() -> None:
    assert not equivalent("1", HOSTILE, limit_s=0.2)
    assert not equivalent("1", "9^{9^{9^{9}}}", limit_s=0.2)
    assert equivalent("x+1", "1+x")


def test_a_process_that_somebody_else_kills_is_replaced() -> None:
    assert equivalent("x+1", "1+x")
    for worker in algebra._pool._idle:
        os.kill(worker._process.pid, signal.SIGKILL)
        # A killed process may still look alive for a moment; it is found out either way.
        os.waitid(os.P_PID, worker._process.pid, os.WEXITED | os.WNOWAIT)
    assert equivalent("x+1", "1+x")
    assert not equivalent("x+1", "2+x")


def test_many_threads_share_the_processes() -> None:
    with ThreadPoolExecutor(8) as threads:
        pairs = [("x+1", "1+x"), ("x+1", "2+x")] * 10
        found = list(threads.map(lambda pair: equivalent(*pair), pairs))
    assert found == [True, False] * 10
    assert 1 <= len(algebra._pool._idle) <= algebra.MOST


def test_where_math_verify_does_not_start_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="math-verify does not start; see why with: python -m"):
        algebra._Pool(1).ask("1", "1", 1.0)


def test_programs_are_run_only_by_permission() -> None:
    with pytest.raises(InputError, match="programs are run only with --allow-code"):
        grade("def f(): return 1", "assert f() == 1", "code")
    with pytest.raises(InputError, match="programs are run only with --allow-code"):
        grade(None, "", "code")
    assert grade("def f(): return 1" + " " * 3000, "assert f() == 1", "code", allow_code=True)
    assert not grade("def f(): return 2", "assert f() == 1", "code", allow_code=True)
    assert grade("    return 1", "assert f() == 1", "code", allow_code=True, prompt="def f():\n")


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


@given(st.fractions(-1000, 1000), st.sampled_from(["{}", "${}$", "\\boxed{{{}}}", "x = {}", "**{}**", "{} km", "{}."]))
def test_a_fraction_in_any_dress_is_itself_and_nothing_else(value: Fraction, dress: str) -> None:
    top, bottom = value.numerator, value.denominator
    for text in (f"{top}/{bottom}", f"\\frac{{{top}}}{{{bottom}}}"):
        assert grade(dress.format(text), str(value), "number"), text
        assert not grade(dress.format(text), str(value + 1), "number"), text


@given(st.text(max_size=80), st.sampled_from(["5", "1/2", "50%", "5 km"]))
def test_reading_a_number_out_of_odd_text_never_raises(answer: str, gold: str) -> None:
    one, two = quantity_of(answer), quantity_of(gold)
    assert two is not None
    if one is not None:
        same_quantity(one, two)


@given(st.text(max_size=80))
def test_undressing_is_done_in_one_go(text: str) -> None:
    assert undress(undress(text)) == undress(text)
