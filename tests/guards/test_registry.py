"""All guards together: by name, in order, and on the real replies that the repository keeps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.errors import InputError
from corea.guards.base import Judged
from corea.guards.domain import Unlike, fit
from corea.guards.registry import GUARDS, NAMES, UNLIKE, Objection, first_objection, guards
from corea.types import Confidence, Kind

OUTCOMES = Path(__file__).parents[2] / "bench" / "outcomes"


def unlike(questions: list[str], *, alpha: float = 0.01) -> Unlike:
    return Unlike(domain=fit(questions, data_hash="", created_at=""), alpha=alpha)


def test_guards_are_asked_in_their_own_order_whatever_order_they_are_named_in() -> None:
    assert [guard.name for guard in guards(["repetition", "cut_off"])] == ["cut_off", "repetition"]
    assert guards() == GUARDS
    assert [guard.name for guard in guards(unlike=unlike(["a b"] * 2, alpha=0.9))] == list(NAMES)


def test_an_unknown_guard_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no guard 'moderation'; there are: cut_off"):
        guards(["moderation"])
    with pytest.raises(InputError, match="needs the certifying questions' domain"):
        guards([UNLIKE])


def test_the_first_objection_counts() -> None:
    bad = Judged(question="?", text="I'm sorry, but I can't help.", answer=None, kind="number", finish_reason="length")
    assert first_objection(GUARDS, bad) == Objection(guard="cut_off", why="it ran into the token limit")
    assert first_objection((), bad) is None


def test_a_plain_right_answer_meets_no_objection() -> None:
    good = Judged(question="What is 3 + 4?", text="3 + 4 = 7\nAnswer: 7", answer="7", kind="number",
                  confidence=Confidence(value=0.9, source="logprob"))  # fmt: skip
    assert first_objection(GUARDS, good) is None


@given(
    question=st.text(max_size=80),
    text=st.text(max_size=300),
    answer=st.none() | st.text(max_size=40),
    kind=st.sampled_from([None, "number", "expression", "choice", "boolean", "text", "code"]),
)
def test_no_guard_ever_raises(question: str, text: str, answer: str | None, kind: Kind | None) -> None:
    domain = unlike(["How many apples are left?"], alpha=0.9)
    for guard in guards(unlike=domain):
        guard.check(Judged(question=question, text=text, answer=answer, kind=kind))


@pytest.mark.parametrize(
    "hostile",
    [
        "\\boxed{" * 5_000,
        "=" * 20_000,
        "= $" * 8_000,
        "I'm sorry " * 3_000,
        "```\n" * 5_000,
        "\\(" * 9_000,
        "$" * 20_000,
        "1," * 10_000,
        "the answer is " * 2_000,
        "\\text{" * 4_000,
    ],
)
def test_no_text_takes_longer_than_its_length_allows(hostile: str) -> None:
    # The suite's time limit is the assertion: a pattern that backtracks would take hours.
    for guard in GUARDS:
        guard.check(Judged(question=hostile, text=hostile, answer=hostile, kind="number"))


@pytest.fixture(scope="module")
def replies() -> list[dict[str, Any]]:
    return [row for name in ("gsm8k", "nonmaths") for row in pq.read_table(OUTCOMES / f"{name}.parquet").to_pylist()]


def test_on_real_replies_no_guard_is_too_eager(replies: list[dict[str, Any]]) -> None:
    graded, fired = Counter[bool](), Counter[tuple[str, bool]]()
    for row in replies:
        right = row["correct"] == 1
        graded[right] += 1
        one = Judged(question=row["question"], text=row["text"], answer=row["answer"], kind=row["kind"],
                     finish_reason=row["finish_reason"])  # fmt: skip
        objecting = [guard.name for guard in GUARDS if guard.check(one) is not None]
        fired.update((name, right) for name in objecting)
        fired["any", right] += bool(objecting)
    assert min(graded.values()) > 300
    for name in (*NAMES, "any"):
        assert fired[name, True] <= 0.02 * graded[True]
    # And they do find something: one wrong reply in ten.
    assert fired["any", False] > 0.1 * graded[False]


def test_questions_of_another_kind_are_unlike_and_held_out_ones_are_not(replies: list[dict[str, Any]]) -> None:
    maths = list(dict.fromkeys(row["question"] for row in replies if row["task"] == "gsm8k"))
    guard = unlike(maths[:200])
    others = {row["question"]: row["task"] for row in replies if row["task"] != "gsm8k"}
    called = Counter(task for question, task in others.items() if guard(_asked(question)) is not None)
    total = Counter(others.values())
    assert all(called[task] > 0.7 * total[task] for task in total)
    assert sum(guard(_asked(question)) is not None for question in maths[200:]) <= 3


def _asked(question: str) -> Judged:
    return Judged(question=question, text="", answer=None)
