"""Tasks told from a question's words: learned from labels, kept in a file, and none named where it is not sure."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from corea import Cascade
from corea.batch.rows import Question
from corea.cli.app import app
from corea.errors import InputError
from corea.evaluate.tasks import fit
from corea.policy.base import Policies
from corea.policy.tasks import Tasks, load, save
from corea.types import Request
from gateway.running import large, small
from policy.test_policies import Says

_WORDS = {
    "cooking": ["stir", "simmer", "butter", "onion", "oven", "recipe", "salt", "dough", "pan", "bake"],
    "law": ["court", "clause", "plaintiff", "contract", "statute", "appeal", "tort", "lease", "verdict", "judge"],
    "maths": ["integral", "matrix", "prime", "triangle", "sum", "equation", "root", "angle", "digit", "square"],
}

_ANY = ["how", "long", "does", "the", "in", "with", "can", "of", "a", "is", "and", "its", "what", "my", "an", "stay"]


def labelled(each: int = 40, *tasks: str) -> list[Question]:
    rng = random.Random(1)
    return [
        Question(id=f"{task}{i}", question=_question(rng, task), task=task)
        for task in tasks or _WORDS
        for i in range(each)
    ]


def _question(rng: random.Random, task: str) -> str:
    words = rng.sample(_WORDS[task], rng.choice([2, 3, 4])) + rng.sample(_ANY, rng.choice([2, 4, 6]))
    rng.shuffle(words)
    return " ".join(words)


@pytest.fixture(scope="module")
def known() -> Tasks:
    return fit(labelled(), precision=0.95, created_at="").tasks


def test_a_question_is_told_by_its_words(known: Tasks) -> None:
    assert known.of("How long does the dough stay in the oven with butter?") == "cooking"
    assert known.of("Can the plaintiff appeal the verdict of the court?") == "law"


def test_what_is_like_none_of_them_is_of_no_task(known: Tasks) -> None:
    assert known.of("Quelle heure est-il?") is None
    assert known.of("") is None


def test_two_tasks_are_told_apart_too() -> None:
    made = fit(labelled(40, "law", "maths"), precision=0.95, created_at="")
    assert made.tasks.of("the root of an equation") == "maths"
    assert made.tasks.of("the contract and its clause") == "law"
    assert (made.recognised > 0.9, made.right >= 0.95) == (True, True)


def test_labels_that_mean_nothing_name_no_task() -> None:
    rng = random.Random(2)
    rows = [
        Question(id=row.id, question=row.question, task=rng.choice(["a", "b"])) for row in labelled(60)
    ]  # fmt: skip
    assert fit(rows, precision=1.0, created_at="").recognised < 0.1


@pytest.mark.parametrize(
    "rows,words",
    [
        ([*labelled(), Question(id="x", question="?")], '"x" has no "task"; label it'),
        (labelled(30, "law"), "at least two tasks"),
        ([*labelled(30, "law"), *labelled(5, "maths")], 'the task "maths" has 5 questions; label at least 20'),
    ],
)
def test_labels_that_will_not_do_are_told_as_such(rows: list[Question], words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit(rows, precision=0.95, created_at="")


def test_a_file_brings_back_what_was_saved_and_an_altered_one_is_refused(known: Tasks, tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    save(known, path)
    assert load(path) == known
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, "least": 0.0}))
    with pytest.raises(InputError, match="altered: its checksum does not fit; make it again with: corea eval tasks"):
        load(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="holds no tasks to recognise"):
        load(path)


def test_a_request_that_does_not_say_its_task_goes_by_the_policy_of_the_one_it_is_told_to_be_of(known: Tasks) -> None:
    policies = Policies(named={"exam": (Says(0.99),)}, by_task={"law": "exam"}, recogniser=known)

    async def asked(request: Request) -> tuple[str | None, str | None]:
        async with Cascade([small(), large()], policies=policies) as cascade:
            trace = await cascade.ask(request)
            return trace.request.task, trace.tier

    question = "Can the plaintiff appeal the verdict of the court?"
    assert asyncio.run(asked(Request.of(question))) == ("law", "large")
    assert asyncio.run(asked(Request.of(question, task="cooking"))) == ("cooking", "small")
    assert asyncio.run(asked(Request.of("Quelle heure est-il?"))) == (None, "small")


def test_the_command_writes_the_file_and_says_how_to_use_it(tmp_path: Path) -> None:
    rows, out = tmp_path / "labels.jsonl", tmp_path / "tasks.json"
    rows.write_text(
        "".join(json.dumps({"id": q.id, "question": q.question, "task": q.task}) + "\n" for q in labelled())
    )
    ran = CliRunner().invoke(app, ["eval", "tasks", str(rows), "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "120 questions of 3 tasks" in ran.output
    assert "recognise = " in ran.output
    assert load(out).of("the integral of a prime matrix") == "maths"
