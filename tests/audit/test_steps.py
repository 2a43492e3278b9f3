"""Stricter thresholds to fall back to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corea.audit.steps import ALWAYS_DEFER, Step, ladder_of, stricter


def test_each_step_keeps_about_its_share_of_what_is_kept() -> None:
    confidences = [at / 100 for at in range(100)]
    found = stricter(Step(threshold=0.2), confidences)
    # 80 are kept, so 40 and 20.
    assert [step.threshold for step in found] == [0.2, 0.6, 0.8]


def test_where_all_confidences_are_one_there_is_nothing_between_keeping_and_deferring() -> None:
    certified = Step(threshold=0.9, tie_fraction=0.5)
    assert stricter(certified, [0.9] * 50 + [0.5] * 50) == (certified,)


def test_what_promises_nothing_has_no_steps() -> None:
    assert stricter(ALWAYS_DEFER, [0.9, 0.8]) == ()


@given(
    confidences=st.lists(st.none() | st.sampled_from([0.1, 0.5, 0.7, 0.9, 1.0]), max_size=40),
    threshold=st.sampled_from([0.0, 0.5, 0.6, 1.0]),
    shares=st.lists(st.floats(0.01, 0.99), max_size=4),
)
def test_steps_get_stricter_one_by_one(confidences: list[float | None], threshold: float, shares: list[float]) -> None:
    found = stricter(Step(threshold=threshold), confidences, shares=shares)
    assert ladder_of(found) == (*found, ALWAYS_DEFER)
    kept = [sum(one is not None and one >= (step.threshold or 0) for one in confidences) for step in found]
    assert kept == sorted(set(kept), reverse=True)
