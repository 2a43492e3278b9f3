"""What is trained on is read, made, split and cleaned; what is wrong with it is named."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.batch.rows import Question
from corea.confidence.protocol import INLINE_PROMPT
from corea.errors import InputError
from corea.train import data
from corea.train.config import DataConfig, TaskConfig, TrainConfig
from corea.train.data import conversation, load, made_by
from corea.train.decontaminate import COMMON, decontaminate
from corea.train.difficulty import MOST, mixed, plain


def question(id: str, text: str, gold: str | None = "1") -> Question:
    return Question(id=id, question=text, gold=gold, kind="number")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return path


LONG = "Ann has seven red apples and gives three of them to her brother Tom on Monday."


def test_a_question_that_shares_eight_words_in_a_row_is_taken_out_and_named() -> None:
    train = [
        question("copy", LONG),
        question("reworded", "Listen. ANN HAS SEVEN RED APPLES, and gives three of them away."),
        question("seven words", "Bob has seven red apples and gives three back."),
        question("other", "What is 3 + 4?"),
    ]
    result = decontaminate(train, [question("t1", LONG)], ngram=8)
    assert [one.id for one in result.kept] == ["seven words", "other"]
    assert [(one.id, one.test_id) for one in result.removed] == [("copy", "t1"), ("reworded", "t1")]
    assert result.removed[0].shared == "ann has seven red apples and gives three"
    assert result.summary == (
        "2 of 4 training questions share 8 words in a row with one of 1 test questions, and were taken out."
    )


def test_short_questions_are_compared_whole() -> None:
    train = [question("same", "What is 3+4 ?"), question("sign", "What is 3-4?"), question("more", "What is 3+4+5?")]
    assert [one.id for one in decontaminate(train, [question("t", "what is 3 + 4")], ngram=8).removed] == ["same"]


def test_wording_that_many_tests_share_is_no_overlap_but_a_whole_question_is() -> None:
    def sum_of(a: int, b: int) -> str:
        return f"State the final answer to the following arithmetic problem: {a} + {b} ="

    tests = [question(f"t{i}", sum_of(i, 1)) for i in range(COMMON + 2)]
    repeated = [question(f"r{i}", sum_of(50, 50)) for i in range(COMMON + 2)]
    train = [question("new", sum_of(90, 2)), question("old", sum_of(50, 50))]
    result = decontaminate(train, [*tests, *repeated], ngram=8)
    assert [one.id for one in result.kept] == ["new"]


def test_without_tests_nothing_is_taken_out_and_the_report_says_so() -> None:
    result = decontaminate([question("a", LONG)], [], ngram=8)
    assert (len(result.kept), result.removed) == (1, ())
    assert "nothing was checked" in result.summary


@given(st.lists(st.text(alphabet="abc ", max_size=30), max_size=8), st.lists(st.text(alphabet="abc ", max_size=30)))
@settings(max_examples=60, deadline=None)
def test_every_question_is_either_kept_or_named(train: list[str], tests: list[str]) -> None:
    asked = [question(str(i), text) for i, text in enumerate(train)]
    result = decontaminate(asked, [question(f"t{i}", text) for i, text in enumerate(tests)], ngram=3)
    assert sorted([one.id for one in result.kept] + [one.id for one in result.removed]) == sorted(q.id for q in asked)
    words = {" ".join(text.split()) for text in tests}
    assert all(" ".join(one.question.split()) not in words for one in result.kept)


def test_files_are_read_cleaned_and_split_alike_every_time(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": 2 * i} for i in range(200)
    ]
    file = write(tmp_path / "q.jsonl.gz", rows)
    test = write(tmp_path / "t.jsonl.gz", [{"id": "x", "question": "What is 7 + 7?"}])
    data = load(DataConfig(questions=(file,), tests=(test,), held_out=0.2))
    assert [one.id for one in data.decontaminated.removed] == ["q7"]
    assert len(data.train) + len(data.held_out) == 199
    assert 20 <= len(data.held_out) <= 60
    assert data == load(DataConfig(questions=(file,), tests=(test,), held_out=0.2))
    # A question stays where it is when others leave.
    fewer = load(DataConfig(questions=(file,), limit=100, held_out=0.2))
    assert {one.id for one in fewer.held_out} - {"q7"} <= {one.id for one in data.held_out}
    assert data.hash != fewer.hash


def test_a_question_without_a_gold_answer_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl.gz", [{"id": "a", "question": "?", "answer": 1}, {"id": "b", "question": "?"}])
    with pytest.raises(InputError, match='"b" has no "answer", so a reply to it cannot be rewarded'):
        load(DataConfig(questions=(file,)))


def test_ids_must_differ_over_files(tmp_path: Path) -> None:
    files = tuple(write(tmp_path / f"{n}.gz", [{"id": "a", "question": n, "answer": 1}]) for n in ("one", "two"))
    with pytest.raises(InputError, match='the id "a"; ids must differ over all files'):
        load(DataConfig(questions=files))


def test_when_nothing_is_left_it_is_said_why(tmp_path: Path) -> None:
    file = write(tmp_path / "q.gz", [{"id": "a", "question": LONG, "answer": 1}])
    test = write(tmp_path / "t.gz", [{"id": "x", "question": LONG}])
    with pytest.raises(InputError, match="of 1, 1 overlap with the tests"):
        load(DataConfig(questions=(file,), tests=(test,)))


def test_the_model_is_asked_in_training_what_a_tier_asks() -> None:
    asked = conversation(Question(id="a", question="What is 3 + 4?", gold="7", kind="number"))
    assert asked == [
        {"role": "system", "content": INLINE_PROMPT},
        {"role": "user", "content": "What is 3 + 4?"},
    ]


def test_tasks_are_as_hard_as_their_settings_say() -> None:
    pytest.importorskip("reasoning_gym", reason="the train extra is not installed: see docs/training.md")
    easy = made_by(TaskConfig(name="chain_sum", count=5, settings={"min_terms": 2, "max_terms": 2, "max_digits": 1}))
    hard = made_by(TaskConfig(name="chain_sum", count=5, settings={"min_terms": 6, "max_terms": 6, "min_digits": 4}))
    assert len(easy) == 5
    assert all(one.kind == "number" and one.gold for one in easy)
    assert max(len(one.question) for one in easy) < min(len(one.question) for one in hard)
    assert easy == made_by(
        TaskConfig(name="chain_sum", count=5, settings={"min_terms": 2, "max_terms": 2, "max_digits": 1})
    )
    assert easy != made_by(TaskConfig(name="chain_sum", count=5, seed=1, settings={"min_terms": 2, "max_terms": 2}))


@pytest.mark.parametrize(
    "task, told",
    [
        (TaskConfig(name="chain_sums"), "did you mean chain_sum"),
        (TaskConfig(name="chain_sum", settings={"min_terms": 9, "max_terms": 2}), "refuses its settings"),
        (TaskConfig(name="chain_sum", settings={"how_hard": 2}), "refuses its settings"),
    ],
)
def test_a_task_that_cannot_be_made_is_explained(task: TaskConfig, told: str) -> None:
    pytest.importorskip("reasoning_gym", reason="the train extra is not installed: see docs/training.md")
    with pytest.raises(InputError, match=told):
        made_by(task)


def test_every_stretch_of_a_mixed_order_holds_every_difficulty() -> None:
    asked = [question(str(i), str(i)) for i in range(100)]
    rates = {str(i): rate for i, rate in enumerate([0.0] * 60 + [0.2] * 10 + [0.6] * 10 + [1.0] * 20)}
    order = mixed(asked, rates, length=80, rng=random.Random(0))
    for start in range(0, 80, 8):
        assert {rates[one.id] for one in order[start : start + 8]} == {0.0, 0.2, 0.6, 1.0}


@given(st.lists(st.sampled_from([None, 0.0, 0.1, 0.4, 0.6, 0.9, 1.0]), min_size=1, max_size=40), st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_no_question_is_asked_much_more_often_than_others(rates: list[float | None], length: int) -> None:
    asked = [question(str(i), str(i)) for i in range(len(rates))]
    measured = {str(i): rate for i, rate in enumerate(rates) if rate is not None}
    order = mixed(asked, measured, length=length, rng=random.Random(0))
    assert len(order) == length
    if order:
        most = max(Counter(one.id for one in order).values())
        assert most <= MOST * length / len(asked) + 2
    assert order == mixed(asked, measured, length=length, rng=random.Random(0))


def test_a_plain_order_asks_everything_once_before_it_repeats() -> None:
    asked = [question(str(i), str(i)) for i in range(5)]
    order = plain(asked, length=12, rng=random.Random(0))
    assert len(order) == 12
    assert sorted(one.id for one in order[:5]) == sorted(one.id for one in order[5:10]) == ["0", "1", "2", "3", "4"]


def test_a_text_that_is_asked_twice_is_trained_on_or_held_out_never_both(tmp_path: Path) -> None:
    blanks = [" ", "  ", " \n "]
    rows: list[dict[str, object]] = [
        {"id": f"q{i}", "question": f"{i % 20} and{blanks[i // 20]}{i % 20}?", "answer": "1"} for i in range(60)
    ]
    loaded = load(DataConfig(questions=(write(tmp_path / "q.jsonl.gz", rows),), held_out=0.4))
    assert len(loaded.train) + len(loaded.held_out) == 20
    assert loaded.held_out
    assert "40 repeated questions were left out" in loaded.summary
    assert [(one.name, one.questions) for one in loaded.sources] == [("q.jsonl.gz", 60)]
    data.write(loaded.held_out, tmp_path / "again.jsonl")
    assert load(DataConfig(questions=(tmp_path / "again.jsonl",), held_out=0)).train == loaded.held_out


def test_the_smoke_run_has_enough_questions_on_both_sides() -> None:
    pytest.importorskip("reasoning_gym", reason="the train extra is not installed: see docs/training.md")
    config = TrainConfig.load(Path(__file__).parents[2] / "examples" / "train-smoke.toml")
    loaded = load(config.data)
    assert min(len(loaded.train), len(loaded.held_out)) >= 100
    assert not {one.question for one in loaded.train} & {one.question for one in loaded.held_out}
