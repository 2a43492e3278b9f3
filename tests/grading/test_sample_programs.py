"""The programming tasks that ship: each solution passes its tests in the sandbox, and its wrong one does not."""

from __future__ import annotations

import ast
import json
import sys
from typing import Any

import pytest

from corea.grading.programs import entry_point_of, grade_program, subject_of
from corea.grading.sandbox import Limits, values
from corea.samples import PROGRAMS

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="programs are shut in with Linux's means")
TASKS: list[dict[str, Any]] = [json.loads(line) for line in PROGRAMS.read_text(encoding="utf-8").splitlines()]


def test_there_are_forty_tasks_half_of_them_begun_functions() -> None:
    assert len(TASKS) == len({task["id"] for task in TASKS}) == 40
    assert {task["kind"] for task in TASKS} == {"code"}
    assert sum(task["question"].startswith(("def ", "from ")) for task in TASKS) == 20


@needs_linux
def test_every_solution_passes_and_every_wrong_one_fails_by_its_tests() -> None:
    # All in one process: each has names of its own.
    asked = [f"verdict({task[of]!r}, {task['answer']!r})" for task in TASKS for of in ("solution", "wrong")]
    told = values(VERDICT, asked, limits=Limits(timeout_s=60.0))
    verdicts = dict(zip([(task["id"], of) for task in TASKS for of in ("right", "wrong")], told, strict=True))
    assert {one for one, said in verdicts.items() if one[1] == "right" and said != "'passed'"} == set()
    assert {one for one, said in verdicts.items() if one[1] == "wrong" and said != "'AssertionError'"} == set()


VERDICT = """
def verdict(program, tests):
    names = {}
    try:
        exec(program, names)
        exec(tests, names)
    except Exception as exc:
        return type(exc).__name__
    return "passed"
"""


@needs_linux
@pytest.mark.parametrize("task", [TASKS[0], TASKS[20], TASKS[-1]], ids=lambda task: str(task["id"]))
def test_graded_as_a_reply_it_is_the_same(task: dict[str, Any]) -> None:
    limits = Limits(timeout_s=20.0)
    for of in ("solution", "wrong"):
        reply = f"Here it is:\n\n```python\n{task[of]}```\n"
        verdict = grade_program(reply, task["answer"], prompt=task["question"], limits=limits)
        assert verdict.passed == (of == "solution"), verdict.why


@pytest.mark.parametrize("task", TASKS, ids=lambda task: str(task["id"]))
def test_what_is_asked_for_is_told_from_the_question_and_the_reply(task: dict[str, Any]) -> None:
    subject = subject_of(f"```python\n{task['solution']}```", task["question"])
    assert subject is not None
    called = entry_point_of(task["answer"])
    assert subject.name == called or (called is None and f"{subject.name}(" in task["answer"])


def test_no_question_shows_its_solution_or_all_of_its_tests() -> None:
    for task in TASKS:
        hidden = ast.parse(task["answer"])
        asserts = [ast.unparse(node) for node in ast.walk(hidden) if isinstance(node, ast.Assert)]
        assert sum(one in task["question"] for one in asserts) <= 1 < len(asserts)
        assert task["solution"] not in task["question"]
