"""Outcomes: every question to every tier once, resumed where it stopped, and read back as it was written."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from corea.confidence import Logprob, Verbalized
from corea.errors import InputError, UpstreamRefused
from corea.evaluate.data import read_graded
from corea.evaluate.outcomes import SCHEMA, read, write
from corea.evaluate.run import Plan, run
from corea.models.scripted import ScriptedModel, Step, scripted_answer, scripted_reply
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Prompt

PRICE = FixedPrice.per_million(1, 1)


def answers(prompt: Prompt, index: int) -> Step:
    """The question's own number, and, asked about it, a digit or True."""
    last = prompt.messages[-1].content
    if "one digit" in last:
        return scripted_reply("7", distribution={"7": 0.6, "3": 0.4})
    if "True or False" in last:
        return scripted_reply("True", distribution={"True": 0.8, "False": 0.2})
    return scripted_answer(last.split()[-1], digit_distribution={9: 0.5, 1: 0.5})


def tier(name: str, *, inline: bool = False, replies: Any = answers, last: bool = False) -> Tier:
    model = ScriptedModel(name, replies=replies)
    if last:
        return Tier(name=name, model=model, price=PRICE)
    return Tier(name=name, model=model, price=PRICE, threshold=0.5, estimator=Verbalized() if inline else Logprob())


def data(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = ({"id": f"q{i}", "question": f"say {i}", "answer": i + (i == 3), "dataset": "toy"} for i in range(5))
    return data(tmp_path / "toy.jsonl", *rows)


def outcomes(path: Path, out: Path, *tiers: Tier, samples: int = 0, shapes: tuple[str, ...] = ()) -> tuple[int, int]:
    """Runs the plan; gives the rows made and the rows that failed."""
    made: list[dict[str, Any]] = []
    plan = Plan(
        questions=read_graded([path]),
        tiers=tiers,
        out=out,
        samples=samples,
        shapes=[{"shape": shape} for shape in shapes or [t.name for t in tiers]],
    )
    failed = asyncio.run(run(plan, on_start=lambda total, done: None, on_row=made.append))
    return len(made), failed


def test_every_tier_answers_every_question_with_every_signal(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    assert outcomes(questions, out, tier("small", inline=True), tier("large", last=True), samples=2) == (10, 0)
    found = read(out)
    assert found.tiers == ("small", "large")
    assert set(found.signals) == {
        "logprob", "p_true", "verbalized", "expected", "verbalized_followup", "expected_followup", "self_consistency",
    }  # fmt: skip
    rows = found.table.to_pylist()
    first = next(row for row in rows if row["id"] == "q0" and row["tier"] == "small")
    assert first["correct"] == 1.0
    assert first["task"] == "toy"
    assert first["confidence.p_true"] == pytest.approx(0.8)
    assert first["confidence.verbalized_followup"] == pytest.approx(0.75)
    assert first["confidence.expected_followup"] == pytest.approx(0.6 * 0.75 + 0.4 * 0.35)
    assert first["confidence.expected"] == pytest.approx(0.5 * 0.95 + 0.5 * 0.15)
    assert first["confidence.self_consistency"] == 1.0
    assert sum(row["correct"] for row in rows) == 8
    assert next(row for row in rows if row["tier"] == "large")["confidence.p_true"] is None


def test_one_reply_and_two_short_turns_serve_all_signals(questions: Path, tmp_path: Path) -> None:
    small = tier("small", inline=True)
    outcomes(questions, tmp_path / "o.parquet", small)
    assert isinstance(small.model, ScriptedModel)
    assert small.model.calls == 5 * 3


def test_a_rerun_asks_only_what_is_missing_and_failed_rows_again(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    broken = tier("large", last=True, replies=[UpstreamRefused("no connection")])
    assert outcomes(questions, out, tier("small"), broken) == (10, 5)
    errors = [row for row in read(out).table.to_pylist() if row["error"]]
    assert len(errors) == 5
    assert all(row["correct"] == 0.0 for row in errors)
    assert outcomes(questions, out, tier("small"), tier("large", last=True)) == (5, 0)
    assert outcomes(questions, out, tier("small"), tier("large", last=True)) == (0, 0)
    assert read(out).table.num_rows == 10


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"not JSON\n", b"[]\n", b"\n"])
def test_a_damaged_row_is_asked_again(questions: Path, tmp_path: Path, damage: bytes) -> None:
    out = tmp_path / "o.parquet"
    outcomes(questions, out, tier("small"))
    out.unlink()
    journal = tmp_path / "o.parquet.rows.jsonl"
    _, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(damage + b"".join(rest))
    assert outcomes(questions, out, tier("small"))[1] == 0
    assert sorted(read(out).table["id"].to_pylist()) == [f"q{i}" for i in range(5)]


def test_a_half_written_row_is_asked_again(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    outcomes(questions, out, tier("small"))
    out.unlink()
    journal = tmp_path / "o.parquet.rows.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert outcomes(questions, out, tier("small")) == (1, 0)
    assert read(out).table.num_rows == 5


def test_a_question_that_was_edited_is_asked_again(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    outcomes(questions, out, tier("small"))
    questions.write_text(questions.read_text().replace('"say 1"', '"please say 1"'))
    assert outcomes(questions, out, tier("small")) == (1, 0)
    assert "please say 1" in read(out).table["question"].to_pylist()


def test_rows_of_other_models_never_mix(questions: Path, tmp_path: Path) -> None:
    outcomes(questions, tmp_path / "o.parquet", tier("small"))
    with pytest.raises(InputError, match="other models, prompts or settings"):
        outcomes(questions, tmp_path / "o.parquet", tier("small"), shapes=("another model",))


@pytest.mark.parametrize(
    "rows,words",
    [
        ([{"id": "a", "question": "?"}], 'no "answer"'),
        ([{"id": "a", "question": "?", "answer": 1}, {"id": "a", "question": "?", "answer": 1}], "line 2"),
        ([{"question": "?"}], '"id" is missing'),
        ([], "no questions"),
    ],
)
def test_data_that_cannot_be_graded_is_refused_before_anything_is_asked(
    tmp_path: Path, rows: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_graded([data(tmp_path / "bad.jsonl", *rows)])


def test_two_files_may_not_share_an_id(questions: Path, tmp_path: Path) -> None:
    other = data(tmp_path / "other.jsonl", {"id": "q1", "question": "?", "answer": 1})
    with pytest.raises(InputError, match="in another source too"):
        read_graded([questions, other])


def test_outcomes_without_their_journal_are_gone_on_with(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    outcomes(questions, out, tier("small"), tier("large", last=True))
    before = read(out).table
    (tmp_path / "o.parquet.rows.jsonl").unlink()
    with questions.open("a") as file:
        file.write('{"id": "new", "question": "say 9", "answer": 9}\n')
    assert outcomes(questions, out, tier("small"), tier("large", last=True)) == (2, 0)
    after = read(out).table
    old = after.filter([id != "new" for id in after["id"].to_pylist()])
    assert old.to_pylist() == before.to_pylist()


def test_a_smaller_run_loses_no_row_of_a_larger_one(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    outcomes(questions, out, tier("small"))
    (tmp_path / "o.parquet.rows.jsonl").unlink()
    fewer = data(tmp_path / "fewer.jsonl", *map(json.loads, questions.read_text().splitlines()[:2]))
    assert outcomes(fewer, out, tier("small")) == (0, 0)
    assert len(read(out).table) == 2
    assert outcomes(questions, out, tier("small")) == (0, 0)
    assert len(read(out).table) == 5


def test_outcomes_of_other_models_are_not_written_over(questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    outcomes(questions, out, tier("small"), shapes=("a",))
    (tmp_path / "o.parquet.rows.jsonl").unlink()
    (tmp_path / "o.parquet.rows.jsonl.run.json").unlink()
    with pytest.raises(InputError, match="other models, prompts or settings"):
        outcomes(questions, out, tier("small"), shapes=("b",))


def test_a_limit_takes_so_many_of_each_file(questions: Path, tmp_path: Path) -> None:
    other = data(tmp_path / "other.jsonl", *({"id": f"r{i}", "question": "?", "answer": 1} for i in range(9)))
    assert [q.id for q in read_graded([questions, other], limit=2)] == ["q0", "q1", "r0", "r1"]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {"id": "a", "tier": "s", "correct": 0.5}
    row |= {"confidence.x": 0.25, "signal_cost_nano_usd.x": 7}
    write(tmp_path / "o.parquet", [row], metadata={"tiers": ["s"]}, signals=["x"])
    found = read(tmp_path / "o.parquet")
    assert found.table.to_pylist() == [row]
    assert found.signals == ("x",)


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really", b"\x00" * 100])
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "o.parquet").write_bytes(content)
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read(tmp_path / "o.parquet")


def test_a_parquet_file_of_something_else_is_told(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), tmp_path / "o.parquet")
    with pytest.raises(InputError, match="holds no outcomes"):
        read(tmp_path / "o.parquet")


def a_program(prompt: Prompt, index: int) -> Step:
    wrong = "two" in prompt.messages[-1].content
    return scripted_reply(f"Here:\n```python\ndef add(a, b):\n    return a {'-' if wrong else '+'} b\n```\n")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    tests = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"
    humaneval = "def check(candidate):\n    assert candidate(2, 2) == 4\n"
    return data(
        tmp_path / "code.jsonl",
        {"id": "one", "question": "Write add.", "answer": tests, "kind": "code"},
        {"id": "two", "question": "Write add, two ways.", "answer": tests, "kind": "code"},
        {"id": "three", "question": "Write add.", "answer": humaneval, "kind": "code", "entry_point": "add"},
    )


def test_programs_are_graded_by_their_tests_with_permission(programs: Path, tmp_path: Path) -> None:
    small = tier("small", replies=a_program)
    plan = Plan(questions=read_graded([programs]), tiers=[small], out=tmp_path / "o.parquet", allow_code=True)
    asyncio.run(run(plan, on_start=lambda total, done: None, on_row=lambda row: None))
    rows = {row["id"]: row["correct"] for row in read(tmp_path / "o.parquet").table.to_pylist()}
    assert rows == {"one": 1.0, "two": 0.0, "three": 1.0}


def test_programs_are_not_run_without_permission_and_no_model_is_asked(programs: Path, tmp_path: Path) -> None:
    small = tier("small", replies=a_program)
    plan = Plan(questions=read_graded([programs]), tiers=[small], out=tmp_path / "o.parquet")
    with pytest.raises(InputError, match="--allow-code"):
        asyncio.run(run(plan, on_start=lambda total, done: None, on_row=lambda row: None))
    assert isinstance(small.model, ScriptedModel)
    assert small.model.prompts == []
