"""Tests in replies: what is asked for, what of a reply is a test of it, and when a value agrees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.grading.cases import Case, cases_of
from corea.grading.programs import Subject, subject_of

#: On a crowded machine a moment may take a second.
unhurried = settings(deadline=None)

AREA = Subject(program="", name="area", head="", names=frozenset({"area", "math", "helper"}))


def fence(code: str) -> str:
    return f"Here you are:\n```python\n{code}\n```\n"


def cases(*lines: str, most: int = 50) -> list[tuple[str, Any]]:
    return [(case.call, case.expected) for case in cases_of(fence("\n".join(lines)), AREA, most=most)]


# What is asked for ----------------------------------------------------------------------------------------------------

TWO = "def first(x: int, *rest, k=1) -> int:\n    '''Doc.'''\n    return x\n\n\ndef second(x):\n    return first(x)\n"


@pytest.mark.parametrize(
    "prompt,name",
    [
        ("def first(x: int) -> int:\n    '''Doc.'''\n", "first"),
        ("def helper():\n    return 1\n\n\ndef first(x: int) -> int:\n    '''Doc.'''\n", "first"),
        ("Write `first`, please.", "first"),
        ("It should pass tests like this one:\n\nassert first(1) == 1\n", "first"),
        ("Write something that gives its argument back.", "second"),
        ("", "second"),
    ],
)
def test_what_the_prompt_asks_for_is_what_is_tested(prompt: str, name: str) -> None:
    subject = subject_of(fence(TWO), prompt)
    assert subject is not None
    assert subject.name == name
    assert {"first", "second"} <= subject.names


def test_the_head_tells_how_to_call_it_and_not_what_it_does() -> None:
    subject = subject_of(fence(TWO), "Write `first`.")
    assert subject is not None
    assert subject.head == "def first(x: int, *rest, k=1) -> int:\n    ..."
    stack = "class Stack:\n    values = []\n    def push(self, v):\n        self.values.append(v)\n"
    subject = subject_of(fence(stack), "Write a stack.")
    assert subject is not None
    assert "def push(self, v):\n        ..." in subject.head
    assert "append" not in subject.head
    assert "values" not in subject.head


def test_a_reply_that_is_only_the_body_is_joined_to_its_function() -> None:
    subject = subject_of("    return 2 * x\n", "def double(x):\n    '''Twice x.'''\n")
    assert subject is not None
    assert (subject.name, "return 2 * x" in subject.program) == ("double", True)


def test_main_and_the_replys_own_tests_are_not_what_was_asked_for() -> None:
    code = "def area(r):\n    return r\n\ndef test_area():\n    assert area(1) == 1\n\ndef main():\n    test_area()\n"
    subject = subject_of(fence(code), "Write something.")
    assert subject is not None
    assert subject.name == "area"


@pytest.mark.parametrize("reply", ["", "I can't.", fence("x = 1"), fence("print('area')"), fence("def area(")])
def test_a_reply_without_a_definition_has_nothing_to_test(reply: str) -> None:
    assert subject_of(reply, "Write area.") is None


@unhurried
@given(st.text(max_size=200), st.text(max_size=60))
def test_any_reply_has_a_subject_or_none(reply: str, prompt: str) -> None:
    for text in (reply, fence(reply), f"def f(x):\n {reply}"):
        subject = subject_of(text, prompt)
        assert subject is None or subject.name in subject.names


# What is a test of it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line,call,expected",
    [
        ("assert area(1) == 3", "area(1)", 3),
        ("assert 3 == area(1)", "area(1)", 3),
        ("assert area(1) == 3, 'three'", "area(1)", 3),
        ("assert (area(1) == 3)", "area(1)", 3),
        ("    assert area(1) == 3  # in a function", "area(1)", 3),
        ("- assert area(1) == 3", "area(1)", 3),
        ("1. `assert area(1) == 3`", "area(1)", 3),
        (">> assert area(1) == 3", "area(1)", 3),
        ("assert area([1, 2],\n    k='a') == {'a': -1.5}", "area([1, 2], k='a')", {"a": -1.5}),
        ("assert area(1)[0] == 3", "area(1)[0]", 3),
        ("assert len(area(1)) == 3", "len(area(1))", 3),
        ("assert area(helper(1)) == 3", "area(helper(1))", 3),
        ("assert area(1) is None", "area(1)", None),
        ("assert area(1) == None", "area(1)", None),
        ("assert area(1) == set()", "area(1)", set()),
        ("assert area(1)", "bool(area(1))", True),
        ("assert not area(1)", "bool(area(1))", False),
        ("assert abs(area(1) - 3.5) < 0.01", "area(1)", 3.5),
        ("assert math.isclose(area(1), 3.5)", "area(1)", 3.5),
    ],
)
def test_a_test_is_taken_apart_into_a_call_and_a_value(line: str, call: str, expected: Any) -> None:
    assert cases(line) == [(call, expected)]


@pytest.mark.parametrize(
    "line",
    [
        "area(1) == 3",
        "assert True",
        "assert other(1) == 3",
        "assert area == 3",
        "assert area(x) == 3",
        "assert area(1) == area(1)",
        "assert area(1) == math.pi",
        "assert area(1) != 3",
        "assert area(1) == 3 or True",
        "assert area(1) is not None",
        "assert isinstance(area(1), int)",
        "assert area(1) ==",
        "assert area(",
        "assertion area(1) == 3",
        "The assert area(1) == 3 holds.",
    ],
)
def test_what_proves_nothing_of_the_program_is_no_test(line: str) -> None:
    assert cases(line) == []


def test_a_call_counts_once_and_only_the_first_tests_count() -> None:
    lines = [f"assert area({i}) == {i}" for i in range(9)]
    assert cases(lines[0], "assert area(0) == 5", lines[1]) == [("area(0)", 0), ("area(1)", 1)]
    assert len(cases(*lines, most=5)) == 5


def test_tests_need_no_fence_and_a_line_that_was_cut_off_is_left_out() -> None:
    reply = "Tests:\nassert area(1) == 1\nassert area(2) == 2\nassert area(3) == ["
    assert [case.call for case in cases_of(reply, AREA, most=5)] == ["area(1)", "area(2)"]


@unhurried
@given(st.text(max_size=300))
def test_any_text_has_tests_or_none(text: str) -> None:
    for reply in (text, f"assert area({text}", f"assert {text}area(1) == 1"):
        assert len(cases_of(reply, AREA, most=3)) <= 3


# When a value agrees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expected,said",
    [(3, "3"), (3, "3.0"), ([1, (2,)], "[1, (2,)]"), ({"a": {1}}, "{'a': {1}}"), (None, "None"), (set(), "set()")],
)
def test_equal_values_agree(expected: Any, said: str) -> None:
    assert Case(call="f()", expected=expected).agrees(said)


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "4",
        "'3'",
        "[3]",
        "inf",
        "3 + 0",
        "f()",
        "<object>",
        "(" * 500,
        "__import__('os')",
        "1is 3",
        "9" * 9000,
    ],
)
def test_other_values_and_what_is_none_do_not(said: str | None) -> None:
    assert not Case(call="f()", expected=3).agrees(said)
    assert not Case(call="f()", expected=3, tolerance=0.1).agrees(said)


def test_a_tolerance_is_kept() -> None:
    case = Case(call="f()", expected=3.5, tolerance=0.01)
    assert [case.agrees(said) for said in ("3.5", "3.509", "3.52", "nan", "'3.5'")] == [True, True, False, False, False]


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@unhurried
@given(_plain)
def test_every_plain_value_agrees_with_itself_as_python_writes_it(value: Any) -> None:
    assert Case(call="f()", expected=value).agrees(repr(value))


@unhurried
@given(_plain, st.text(max_size=50))
def test_a_value_never_makes_it_raise(value: Any, said: str) -> None:
    assert Case(call="f()", expected=value, tolerance=0.5).agrees(said) in (True, False)
