"""Programs: found in replies, and graded by their tests."""

from __future__ import annotations

import ast
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.errors import InputError
from corea.grading.programs import entry_point_of, grade_program, program_of
from corea.grading.sandbox import Limits

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="programs are shut in with Linux's means")
LIMITS = Limits(timeout_s=20.0)

DOUBLE = "def double(x):\n    return 2 * x\n"
TESTS = "assert double(2) == 4\nassert double(0) == 0\n"
#: In the shape of HumanEval: a helper, then the function to be completed; the tests' check is called by the grader.
PROMPT = '''from typing import List


def halve(x: int) -> int:
    return x // 2


def halves(values: List[int]) -> List[int]:
    """ Half of each.
    >>> halves([2, 4])
    [1, 2]
    """
'''
CHECK = "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate([2, 5]) == [1, 2]\n    assert halve(4) == 2\n"
BODY = "    return [halve(x) for x in values]\n"


def fence(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}```\n"


DRAFT = fence("def double(x):\n    return x + x + 1\n")


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(fence(DOUBLE), id="a fence"),
        pytest.param(fence(DOUBLE, ""), id="a fence with no language"),
        pytest.param(fence(DOUBLE, "Python3"), id="another name for the language"),
        pytest.param(fence(DOUBLE, "python title=x.py"), id="a fence with more words"),
        pytest.param(fence(DOUBLE).replace("```", "~~~"), id="tildes"),
        pytest.param(fence(DOUBLE).replace("```", "````"), id="four ticks"),
        pytest.param(fence(DOUBLE).replace("\n", "\r\n"), id="carriage returns"),
        pytest.param(f"```python\n{DOUBLE}", id="a fence that is not closed"),
        pytest.param(DOUBLE, id="no fence"),
        pytest.param(f"Sure! Here it is:\n\n{DOUBLE}\nIt doubles x, which is what you asked for.", id="bare, in prose"),
        pytest.param(f"Let's see.\n{fence(DOUBLE)}Done: it is `double`.", id="a fence in prose"),
        pytest.param(DRAFT + "No, that is wrong.\n" + fence(DOUBLE), id="the last one counts"),
        pytest.param(fence(DOUBLE) + "Use it so:\n" + fence("print(double(3))\n"), id="an example comes after"),
        pytest.param(fence(DOUBLE) + "It prints:\n" + fence("6\n", "text"), id="its output comes after"),
        pytest.param(fence("pip install nothing\n", "bash") + fence(DOUBLE), id="a shell's fence comes before"),
        pytest.param("1. Like this:\n   " + fence(DOUBLE).replace("\n", "\n   "), id="indented in a list"),
        pytest.param(fence("TWO = 2\n") + fence("def double(x):\n    return TWO * x\n"), id="parts in two fences"),
        pytest.param(f"<think>{DRAFT}</think>\n{fence(DOUBLE)}", id="thoughts before"),
        pytest.param(fence("from __future__ import annotations\n\n" + DOUBLE), id="a future import"),
        pytest.param(fence(DOUBLE + "\nif __name__ == '__main__':\n    print(double(int(input())))\n"), id="a script"),
        pytest.param(fence(DOUBLE + "\nprint('\\d', double(1))\n"), id="an escape that Python warns of"),
        pytest.param(fence("double = lambda x: x * 2\n"), id="a lambda"),
        pytest.param(fence("import operator, functools\ndouble = functools.partial(operator.mul, 2)\n"), id="a value"),
        pytest.param(fence("class Twice:\n    def __call__(self, x): return x * 2\ndouble = Twice()\n"), id="a class"),
    ],
)
@needs_linux
def test_the_right_program_is_found_and_passes(reply: str) -> None:
    verdict = grade_program(reply, TESTS, limits=LIMITS)
    assert verdict.passed, (verdict.why, program_of(reply, tests=TESTS))


@pytest.mark.parametrize(
    "reply,why",
    [
        pytest.param("I cannot do that.", "no program in the reply", id="prose"),
        pytest.param("", "no program in the reply", id="nothing"),
        pytest.param("from the list, take x\ndef, in French, is de", "no program in the reply", id="prose like code"),
        pytest.param(fence("echo 1\n", "bash"), "no program in the reply", id="another language"),
        pytest.param(DRAFT, "AssertionError: assert double(2) == 4", id="a wrong program"),
        pytest.param(fence(DOUBLE) + "Better:\n" + DRAFT, "AssertionError: assert double(2) == 4", id="worse at last"),
        pytest.param(fence("print(1)\n"), "NameError: name 'double' is not defined", id="something else"),
        pytest.param(
            fence(DOUBLE) + "Better:\n" + fence("def double(x:\n    return\n"),
            "SyntaxError: '(' was never closed (<program>, line 1)",
            id="broken at last",
        ),
    ],
)
@needs_linux
def test_other_replies_fail_and_say_why(reply: str, why: str) -> None:
    verdict = grade_program(reply, TESTS, limits=LIMITS)
    assert (verdict.passed, verdict.why) == (False, why)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(BODY, id="the body"),
        pytest.param(BODY.strip(), id="the body at the left edge"),
        pytest.param(
            "result = []\n    for x in values:\n        result.append(x // 2)\n    return result", id="no margin"
        ),
        pytest.param(fence(BODY), id="the body in a fence"),
        pytest.param(BODY + "\n\nThis halves each of them.", id="prose after"),
        pytest.param(BODY + "\n\ndef main():\n    print(halves([1]))\n\nmain(", id="more code, cut off"),
        pytest.param(PROMPT + BODY, id="all of it again"),
        pytest.param(fence(PROMPT + BODY), id="all of it in a fence"),
        pytest.param(fence(PROMPT[PROMPT.index("def halves") :] + BODY), id="the function without its helpers"),
        pytest.param(
            fence("from __future__ import annotations\n" + PROMPT[PROMPT.index("def halves") :] + BODY),
            id="the function without its helpers, with a future import",
        ),
    ],
)
@pytest.mark.parametrize(
    "asked", [PROMPT, "Complete this function.\n\n" + PROMPT, f"Complete:\n{fence(PROMPT)}Thanks."]
)
def test_a_reply_may_go_on_where_the_prompt_stopped(reply: str, asked: str) -> None:
    assert entry_point_of(CHECK, asked) == "halves"
    program = program_of(reply, entry_point="halves", tests=CHECK, prompt=asked)
    assert program is not None
    names: dict[str, object] = {}
    exec(program + "\n" + CHECK, names)
    eval("check(halves)", names)


@needs_linux
def test_check_is_called_by_the_grader_when_the_tests_leave_it_out() -> None:
    assert grade_program(BODY, CHECK, prompt=PROMPT, limits=LIMITS).passed
    assert grade_program(BODY, CHECK, prompt=PROMPT, entry_point="halves", limits=LIMITS).passed
    assert grade_program(BODY, CHECK + "\ncheck(halves)\n", prompt=PROMPT, limits=LIMITS).passed
    wrong = grade_program("    return values\n", CHECK, prompt=PROMPT, limits=LIMITS)
    assert wrong.why == "AssertionError: assert candidate([2, 5]) == [1, 2]"


def test_tests_that_test_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="without tests cannot be graded"):
        grade_program(DOUBLE, " \n")
    with pytest.raises(InputError, match='never call it; end them with "check\\(NAME\\)"'):
        grade_program(DOUBLE, CHECK)


@needs_linux
def test_a_test_of_a_function_named_like_a_builtin_is_run_on_the_programs() -> None:
    program = fence("def sum(a, b):\n    return a + b\n")
    assert grade_program(program + fence("print(sum(1, 2))\n"), "assert sum(10, 15) == 25", limits=LIMITS).passed
    assert not grade_program(program, "assert sum(10, 15) == 26", limits=LIMITS).passed


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["```", "\n", "def f(x):", " return x", "é", "python"])).map("".join)
)
def test_any_reply_gives_a_program_or_none(reply: str) -> None:
    for prompt in ("", PROMPT, reply):
        program = program_of(reply, entry_point="f", tests="assert f(1)", prompt=prompt)
        assert program is None or program.strip() or "```" in reply


@given(st.sampled_from(["a", "b", "c"]), st.integers(0, 5))
def test_code_alone_is_left_as_it_is(name: str, value: int) -> None:
    code = f"def {name}():\n    return {value}"
    program = program_of(code, entry_point=name)
    assert program is not None
    assert ast.dump(ast.parse(program)) == ast.dump(ast.parse(code))
