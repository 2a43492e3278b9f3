"""Programming tasks: rows of HumanEval and MBPP are read as questions; a pass over programs collects their signal."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from corea.confidence import Logprob
from corea.errors import InputError
from corea.evaluate.data import read_graded
from corea.evaluate.outcomes import read
from corea.evaluate.pairs import pair_of
from corea.evaluate.run import Plan, run
from corea.grading.programs import grade_program
from corea.grading.sandbox import Limits
from corea.models.scripted import ScriptedModel, Step, scripted_reply
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Prompt

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="programs are shut in with Linux's means")

HUMAN_EVAL: dict[str, Any] = {
    "task_id": "HumanEval/900",
    "prompt": 'def triple(x: int) -> int:\n    """ Three times x.\n    >>> triple(2)\n    6\n    """\n',
    "entry_point": "triple",
    "canonical_solution": "    return 3 * x\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2) == 6\n    assert candidate(0) == 0\n",
}
MBPP: dict[str, Any] = {
    "text": "Write a function to triple a number.",
    "code": "def triple(x):\n  return 3 * x",
    "task_id": 901,
    "test_setup_code": "",
    "test_list": ["assert triple(2) == 6", "assert triple(0) == 0", "assert math.isclose(triple(0.5), 1.5)"],
    "challenge_test_list": [],
}
SANITIZED: dict[str, Any] = {
    "source_file": "a.ipynb",
    "task_id": 902,
    "prompt": "Write a function to triple a number.",
    "code": "def triple(x):\n  return 3 * x",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(triple(0.5), 1.5)", "assert triple(2) == 6"],
}


def data(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


# Reading --------------------------------------------------------------------------------------------------------------


def test_rows_of_humaneval_are_known_by_their_fields(tmp_path: Path) -> None:
    (found,) = read_graded([data(tmp_path / "humaneval.jsonl", HUMAN_EVAL)])
    assert (found.id, found.kind, found.task) == ("HumanEval/900", "code", "humaneval")
    assert found.question == HUMAN_EVAL["prompt"]
    assert str(found.gold).endswith("\n\ncheck(triple)\n")


@pytest.mark.parametrize("row", [MBPP, SANITIZED], ids=["full", "sanitized"])
def test_rows_of_mbpp_are_known_by_their_fields_and_show_one_test(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = read_graded([data(tmp_path / "mbpp.jsonl", row)])
    assert (found.id, found.kind, found.task) == (f"mbpp/{row['task_id']}", "code", "mbpp")
    assert found.question.startswith("Write a function to triple a number.\n")
    assert [test in found.question for test in row["test_list"]] == [True] + [False] * (len(row["test_list"]) - 1)
    assert row["code"] not in found.question


@needs_linux
@pytest.mark.parametrize("row", [HUMAN_EVAL, MBPP, SANITIZED], ids=["HumanEval", "MBPP", "sanitized"])
def test_right_replies_pass_and_wrong_ones_do_not(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = read_graded([data(tmp_path / "tasks.jsonl", row)])
    assert found.gold is not None
    right = row.get("canonical_solution") or f"```python\n{row['code']}\n```"
    limits = Limits(timeout_s=20.0)
    assert grade_program(right, found.gold, prompt=found.question, limits=limits).passed
    assert not grade_program(right.replace("3", "4"), found.gold, prompt=found.question, limits=limits).passed


def test_an_array_a_packed_file_and_parquet_are_read_too(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    array, packed, table = tmp_path / "a.json", tmp_path / "b.jsonl.gz", tmp_path / "c.parquet"
    array.write_text(json.dumps([SANITIZED, {**SANITIZED, "task_id": 903}], indent=2))
    packed.write_bytes(gzip.compress(json.dumps(MBPP).encode()))
    pq.write_table(pa.Table.from_pylist([HUMAN_EVAL]), table)
    ids = [question.id for question in read_graded([array, packed, table])]
    assert ids == ["mbpp/902", "mbpp/903", "mbpp/901", "HumanEval/900"]
    assert len(read_graded([array], limit=1)) == 1


@pytest.mark.parametrize(
    "row,words",
    [
        (without(HUMAN_EVAL, "test"), 'line 2: a task of HumanEval needs "test", a string; add it, or'),
        (without(HUMAN_EVAL, "entry_point"), 'a task of HumanEval needs "entry_point"'),
        ({**HUMAN_EVAL, "prompt": " "}, 'a task of HumanEval needs "prompt"'),
        ({**HUMAN_EVAL, "test": "def check(candidate"}, "its tests are not Python"),
        ({**HUMAN_EVAL, "test": "import numpy as np\n" + HUMAN_EVAL["test"]}, "its tests import numpy, and"),
        (without(MBPP, "text"), 'a task of MBPP needs "prompt"'),
        ({**MBPP, "test_list": []}, '"test_list" of an MBPP task must be a list of assert statements'),
        ({**MBPP, "test_list": "assert True"}, '"test_list" of an MBPP task must be a list'),
        ({**MBPP, "task_id": None}, '"task_id" must be a string or a whole number'),
        ({"id": "a", "question": "b", "answer": "c"}, "line 2: neither HumanEval's fields"),
        (dict(HUMAN_EVAL, task_id="HumanEval/1"), 'line 2: id "HumanEval/1" was used before; ids must differ'),
    ],
)  # fmt: skip
def test_half_a_task_is_refused_with_its_line(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    first = {**HUMAN_EVAL, "task_id": "HumanEval/1"}
    with pytest.raises(InputError, match=re.escape(words)):
        read_graded([data(tmp_path / "tasks.jsonl", first, row)])


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = data(tmp_path / "tasks.jsonl", HUMAN_EVAL)
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(InputError, match="line 2: not JSON"):
        read_graded([path])


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    rows = [{**MBPP, "task_id": at, "text": f"{at * 7919} {at * at}"} for at in range(2000)]
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    for kept in (20, len(whole) // 2):
        (tmp_path / "cut.jsonl.gz").write_bytes(whole[:kept])
        with pytest.raises(InputError, match="cannot read .*cut.jsonl.gz"):
            read_graded([tmp_path / "cut.jsonl.gz"])


def test_our_own_rows_are_read_as_before(tmp_path: Path) -> None:
    ours = {"id": "a", "question": "double x", "answer": "assert f(1) == 2", "kind": "code", "entry_point": "f"}
    (found,) = read_graded([data(tmp_path / "ours.jsonl", ours)])
    assert (found.id, found.gold) == ("a", "assert f(1) == 2\n\ncheck(f)\n")
    for text in ("", "not JSON\n", "[1]\n", "[]\n"):
        (tmp_path / "odd.jsonl").write_text(text)
        with pytest.raises(InputError):
            read_graded([tmp_path / "odd.jsonl"])


def test_the_sample_has_a_name() -> None:
    sample = read_graded(["programs-sample"])
    assert len(sample) == 40
    assert {question.kind for question in sample} == {"code"}


# A pass over programs -------------------------------------------------------------------------------------------------

PRICE = FixedPrice.per_million(1, 1)
TESTS = "```python\nassert f(1) == 2\nassert f(3) == 6\nassert f(0) == 0\nassert f(5) == 10\n```"


def small(prompt: Prompt, index: int) -> Step:
    """Right on "easy", wrong on "hard"; the tests it writes are right."""
    last = prompt.messages[-1].content
    if "Do not solve the task" in last:
        return scripted_reply(TESTS if "silent" not in last else "None come to mind.")
    if "one digit" in last or "True or False" in last:
        return scripted_reply("7", distribution={"7": 1.0})
    return scripted_reply(f"```python\ndef f(x):\n    return {'2 * x' if 'hard' not in last else 'x + 1'}\n```")


def outcomes(tmp_path: Path, *, allow_code: bool = True) -> Path:
    tests = "assert f(2) == 4"
    rows = [
        {"id": name, "question": f"{name}: double x with f(x)", "answer": tests, "kind": "code"}
        for name in ("easy", "hard", "silent")
    ]
    rows.append({"id": "sum", "question": "8 + 9", "answer": "17", "kind": "number"})
    out = tmp_path / "o.parquet"
    tiers = [
        Tier(
            name="small", model=ScriptedModel("small", replies=small), price=PRICE, threshold=0.5, estimator=Logprob()
        ),
        Tier(name="large", model=ScriptedModel("large", replies=small), price=PRICE),
    ]
    plan = Plan(questions=read_graded([data(tmp_path / "q.jsonl", *rows)]), tiers=tiers, out=out, allow_code=allow_code)
    asyncio.run(run(plan, on_start=lambda total, done: None, on_row=lambda row: None))
    return out


@needs_linux
def test_a_pass_over_programs_collects_their_signal_and_its_cost(tmp_path: Path) -> None:
    found = read(outcomes(tmp_path))
    rows = {row["id"]: row for row in found.table.to_pylist() if row["tier"] == "small"}
    told = {id: row["confidence.generated_tests"] for id, row in rows.items()}
    assert told == {"easy": 1.0, "hard": 0.25, "silent": None, "sum": None}
    assert {id: row["correct"] for id, row in rows.items()} == {"easy": 1.0, "hard": 0.0, "silent": 1.0, "sum": 0.0}
    assert rows["easy"]["signal_cost_nano_usd.generated_tests"] > 20_000
    assert rows["sum"]["signal_cost_nano_usd.generated_tests"] is None
    pair, _ = pair_of(found)
    paid = pair.judged_by("generated_tests")
    assert paid.small_cost_nano_usd[0] > pair.small_cost_nano_usd[0]


def test_without_leave_no_program_is_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="programs are run only with --allow-code"):
        outcomes(tmp_path, allow_code=False)
