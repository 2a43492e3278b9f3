"""Traffic that is like the certifying questions gives no alarm, and each kind of change is found by its own test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from corea.audit.drift import Questions, compare, of_traffic
from corea.errors import InputError

WORDS = (
    "apples", "pears", "trains", "leaves", "stations", "costs", "sells", "buys", "walks", "hours", "how", "many",
    "much", "does", "it", "take", "to", "and", "the",
)  # fmt: skip


def questions(seed: int, count: int = 300, *, confidence: float = 2.0) -> Questions:
    rng = np.random.default_rng(seed)
    texts = tuple(" ".join(rng.choice(WORDS, rng.integers(8, 20))) for _ in range(count))
    tasks = tuple(rng.choice(["maths", "science"], count, p=[0.7, 0.3]).tolist())
    return Questions(confidence=rng.beta(confidence, 1, count), tasks=tasks, texts=texts)


def changed(now: Questions) -> set[str]:
    return {one.what for one in compare(questions(1), now) if one.differs}


def test_more_of_the_same_differs_in_nothing() -> None:
    found = compare(questions(1), questions(2))
    assert {one.what for one in found} == {"confidence", "tasks", "length", "unlike certified"}
    assert not any(one.differs for one in found)
    assert all(one.effect < 0.15 and one.p_value <= 1 for one in found)


def test_each_change_is_found_by_its_own_test() -> None:
    now = questions(2)
    assert changed(questions(2, confidence=5.0)) == {"confidence"}
    unknown = now.confidence.copy()
    unknown[:60] = np.nan
    assert changed(replace(now, confidence=unknown)) == {"unknown confidence"}
    assert changed(replace(now, tasks=("science",) * len(now))) == {"tasks"}
    longer = tuple(f"{text} {text}" for text in now.texts if text)
    assert "length" in changed(replace(now, texts=longer))
    other = tuple(" ".join(reversed(f"kings {text} queens".split())) + " why" for text in now.texts)
    assert "unlike certified" in changed(replace(now, texts=other))


def test_many_new_tasks_of_few_questions_are_counted_together() -> None:
    now = questions(2)
    [found] = [
        one
        for one in compare(questions(1), replace(now, tasks=tuple(f"t{i}" for i in range(len(now)))))
        if one.what == "tasks"
    ]
    assert found.differs
    assert found.effect > 0.9


def test_without_texts_the_other_tests_remain() -> None:
    rows = [{"confidence": 0.9, "task": "maths", "messages": None} for _ in range(30)]
    found = compare(questions(1), of_traffic(rows))
    assert {one.what for one in found} == {"confidence", "tasks"}


def test_few_questions_say_nothing() -> None:
    with pytest.raises(InputError, match="look further back with --since"):
        compare(questions(1), questions(2, count=5))
