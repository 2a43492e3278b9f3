"""Questions unlike those certified: the promise on those alike, the file, and what is not in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea import sealed
from corea.errors import InputError
from corea.guards.base import Judged
from corea.guards.domain import Domain, Unlike, fit, load, pairs, save

WORDS = ["how", "many", "apples", "are", "left", "?", "7", "sold", "she"]
QUESTIONS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join), min_size=2, max_size=12)


def fitted(questions: list[str]) -> Domain:
    return fit(questions, data_hash="d4a7", created_at="2026-01-01T00:00:00Z")


def full_conformal(questions: list[str]) -> float:
    """p of the last question, by the definition: every one is scored against all others, the last among them."""
    seen = [pairs(question) for question in questions]
    scores = []
    for at, one in enumerate(seen):
        others = frozenset[int]().union(*(seen[:at] + seen[at + 1 :]))
        scores.append(len(one - others) / len(one))
    return sum(score >= scores[-1] for score in scores) / len(scores)


@given(QUESTIONS)
def test_no_question_is_called_unlike_that_full_conformal_prediction_would_not(questions: list[str]) -> None:
    questions = list(dict.fromkeys(questions))
    if len(questions) > 1:
        assert fitted(questions[:-1]).p_value(questions[-1]) >= full_conformal(questions) - 1e-12


def test_another_subject_is_deferred_and_the_same_one_is_not() -> None:
    domain = fitted(
        [f"Tom has {n} apples and buys {m} more. How many apples has Tom?" for n in range(9) for m in range(9)]
    )
    unlike = Unlike(domain=domain, alpha=0.05)
    why = unlike(Judged(question="Which enzyme unwinds the double helix?", text="", answer=None))
    assert why == "100 % of its word pairs are in no certified question (p = 0.012)"
    assert (
        unlike(Judged(question="Tom has 41 apples and buys 3 more. How many apples has Tom?", text="", answer=None))
        is None
    )


def test_numbers_capitals_and_spaces_make_no_question_another() -> None:
    assert pairs("How  many are 3,\nTom?") == pairs("how many are 17, tom?")
    assert pairs("有多少") == pairs("有 多 少")


def test_a_question_without_words_is_like_none() -> None:
    assert fitted(["How many?"]).score("") == 1.0


def test_too_few_questions_to_tell_are_refused() -> None:
    with pytest.raises(InputError, match="certify more"):
        Unlike(domain=fitted(["one question", "another question"]), alpha=0.01)
    with pytest.raises(InputError, match="between 0 and 1"):
        Unlike(domain=fitted(["one question"]), alpha=0.0)
    with pytest.raises(InputError, match="no certifying questions"):
        fitted([])


@given(QUESTIONS)
def test_a_file_says_what_was_fitted(tmp_path_factory: pytest.TempPathFactory, questions: list[str]) -> None:
    path = tmp_path_factory.mktemp("domain") / "domain.json"
    domain = fitted(questions)
    save(domain, path)
    assert load(path) == domain
    assert "apples" not in path.read_text()


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "domain.json"
    save(fitted(["How many apples?", "How many pears?"]), path)
    good = json.loads(path.read_text())
    body = {name: value for name, value in good.items() if name != "sha256"}
    for bad, match in (
        ("{", "not JSON"),
        ("[]", "no domain"),
        (json.dumps({**good, "scores": [0.0]}), "altered"),
        (json.dumps({**good, "version": 2}), "upgrade corea"),
        (json.dumps({**good, "format": "corea.confidence-map"}), "no domain"),
        *((_sealed({**body, "scores": scores}), "damaged") for scores in ([], [1.0, 0.0], [2.0], ["x"], None)),
        (_sealed({**body, "seen": "%%%"}), "damaged"),
        (_sealed({**body, "seen": "AAA="}), "damaged"),
        (_sealed({name: value for name, value in body.items() if name != "seen"}), "damaged"),
    ):
        path.write_text(bad)
        with pytest.raises(InputError, match=match):
            load(path)
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "nowhere.json")


def _sealed(body: dict[str, object]) -> str:
    return json.dumps({**body, "sha256": sealed.checksum(body)})
