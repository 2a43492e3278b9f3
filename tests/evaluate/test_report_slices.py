"""Slices that fail more often are found, chance ones are not; and wrong answers are shown, the surest first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import fisher_exact

from corea.evaluate.report.gallery import SHOWN, confident_but_wrong
from corea.evaluate.report.slices import LEVEL, MIN_ANSWERS, failing_slices, holm
from evaluate.test_report import pair_of

NAN = float("nan")
WORDS = ("apple", "river", "train", "stone", "cloud", "garden", "silver", "window", "candle", "forest")


def questions_of(n: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(1, 6), replace=False)) for _ in range(n)]
    return np.array(texts, dtype=object)


def tasks_of(n: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    return np.array([f"task {i}" for i in rng.integers(0, 5, n)], dtype=object)


def test_a_false_alarm_among_all_slices_is_as_rare_as_promised() -> None:
    rng = np.random.default_rng(7)
    runs = 300
    alarms = 0
    for _ in range(runs):
        tasks, questions = tasks_of(200, rng), questions_of(200, rng)
        alarms += bool(failing_slices(tasks, questions, rng.random(200) < 0.3).found)
    # Three standard errors above the level; an uncorrected search alarms in about half of the runs.
    assert alarms / runs <= LEVEL + 3 * (LEVEL * (1 - LEVEL) / runs) ** 0.5


@pytest.mark.parametrize("by", ["task", "length", "word"])
def test_a_slice_that_does_fail_more_often_is_found(by: str) -> None:
    rng = np.random.default_rng(3)
    tasks, questions = tasks_of(400, rng), questions_of(400, rng)
    lengths = np.array([len(question) for question in questions])
    bad = {
        "task": tasks == "task 2",
        "length": lengths > np.quantile(lengths, 0.75),
        "word": np.array(["candle" in question for question in questions]),
    }[by]
    wrong = rng.random(400) < np.where(bad, 0.7, 0.1)
    first = failing_slices(tasks, questions, wrong).found[0]
    assert first.by == by
    assert (first.n, first.wrong) == (int(bad.sum()), int(wrong[bad].sum()))
    assert first.rate_elsewhere == pytest.approx(wrong[~bad].mean())
    table = [[wrong[bad].sum(), (bad & ~wrong).sum()], [wrong[~bad].sum(), (~bad & ~wrong).sum()]]
    assert first.p_value == pytest.approx(fisher_exact(table, alternative="greater").pvalue)
    assert first.adjusted_p_value <= LEVEL


def test_a_slice_that_fails_less_often_is_not_reported() -> None:
    rng = np.random.default_rng(5)
    tasks = tasks_of(400, rng)
    wrong = rng.random(400) < np.where(tasks == "task 0", 0.0, 0.4)
    assert failing_slices(tasks, questions_of(400, rng), wrong).found == ()


def test_holm_adjusts_as_in_his_paper() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, and never below the one before.
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    assert len(holm(np.empty(0))) == 0


def test_what_is_looked_at_does_not_depend_on_what_is_wrong() -> None:
    rng = np.random.default_rng(9)
    tasks, questions = tasks_of(150, rng), questions_of(150, rng)
    looked = {failing_slices(tasks, questions, rng.random(150) < rate).looked_at for rate in (0.0, 0.1, 0.5, 1.0)}
    assert len(looked) == 1


def test_a_few_answers_are_too_few_to_tell() -> None:
    rng = np.random.default_rng(1)
    n = 2 * MIN_ANSWERS - 1
    found = failing_slices(tasks_of(n, rng), questions_of(n, rng), np.ones(n, dtype=bool))
    assert (found.looked_at, found.found) == (0, ())
    assert found.note is not None
    assert "too few to tell" in found.note


def test_without_texts_only_tasks_are_looked_at() -> None:
    rng = np.random.default_rng(1)
    found = failing_slices(tasks_of(200, rng), np.array([], dtype=object), rng.random(200) < 0.2)
    assert found.looked_at == 5
    assert found.note == "there are no question texts, so only tasks could be looked at"


def test_questions_without_a_single_word_are_no_obstacle() -> None:
    rng = np.random.default_rng(1)
    questions = np.array([f"{i} + {i}" for i in range(100)], dtype=object)
    found = failing_slices(np.full(100, None, dtype=object), questions, rng.random(100) < 0.2)
    # Ten questions are shorter than the others, and no word is in any.
    assert found.looked_at == 2


def test_the_gallery_shows_the_surest_wrong_answers_and_harm_before_shared_mistakes() -> None:
    pair = pair_of(200)
    wrong = np.flatnonzero(pair.small_correct == 0)
    confidence = pair.confidence["sure"].copy()
    confidence[wrong[:2]] = 1.0
    large = pair.large_correct.copy()
    large[wrong[:2]] = [0.0, 1.0]
    pair = replace(pair, confidence={"sure": confidence}, large_correct=large)
    gallery = confident_but_wrong(pair, "sure", np.ones(200, dtype=bool))
    assert [answer.id for answer in gallery.shown[:2]] == [f"q{wrong[1]}", f"q{wrong[0]}"]
    sure = [answer.confidence for answer in gallery.shown]
    assert sure == sorted(confidence[wrong], reverse=True)[:SHOWN]
    assert (gallery.kept, gallery.wrong) == (200, len(wrong))
    assert gallery.large_right == int(large[wrong].sum())
    first = gallery.shown[0]
    at = int(first.id.removeprefix("q"))
    assert (first.question, first.answer, first.gold) == (pair.questions[at], pair.answers[at], pair.golds[at])


def test_only_kept_answers_are_in_the_gallery() -> None:
    pair = pair_of(200)
    kept = pair.confidence["sure"] >= 0.9
    gallery = confident_but_wrong(pair, "sure", kept)
    assert gallery.wrong == int((kept & (pair.small_correct == 0)).sum())
    assert all(answer.confidence is not None and answer.confidence >= 0.9 for answer in gallery.shown)


def test_where_no_confidence_is_known_no_answer_is_confident() -> None:
    pair = replace(pair_of(50), confidence={"mute": np.full(50, NAN)})
    gallery = confident_but_wrong(pair, "mute", np.ones(50, dtype=bool))
    assert gallery.shown == ()
    assert gallery.note == "no confidence is known, so none of them was a confident one"
