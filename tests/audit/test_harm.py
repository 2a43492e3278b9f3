"""What is known of one answer's harm: exactly, or between two numbers that always hold the truth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.audit.harm import Between, disagreement, disagreement_limit, drop_between
from corea.errors import InputError

MAYBE = st.sampled_from([None, False, True])


@pytest.mark.parametrize(
    "agrees,small,large,least,most",
    [
        (True, None, None, 0, 0),
        (False, None, None, -1, 1),
        (None, None, None, -1, 1),
        (False, False, None, 0, 1),
        (False, True, None, -1, -1),
        (True, False, None, 0, 0),
        (None, True, None, -1, 0),
        (False, None, True, 1, 1),
        (False, None, False, -1, 0),
        (False, False, True, 1, 1),
        (True, False, True, 1, 1),
    ],
)
def test_harm_is_as_exact_as_what_is_known(
    agrees: bool | None, small: bool | None, large: bool | None, least: float, most: float
) -> None:
    assert drop_between(agrees=agrees, small_right=small, large_right=large) == Between(least=least, most=most)


@given(small=st.booleans(), large=st.booleans(), knows=st.tuples(st.booleans(), st.booleans()), graded=st.booleans())
def test_the_true_harm_lies_between_whatever_is_known_of_it(
    small: bool, large: bool, knows: tuple[bool, bool], graded: bool
) -> None:
    # Two wrong answers may agree or not; a right and a wrong one cannot.
    for agrees in {small == large, small and large}:
        found = drop_between(
            agrees=agrees if graded else None,
            small_right=small if knows[0] else None,
            large_right=large if knows[1] else None,
        )
        assert found.least <= large - small <= found.most


@given(agrees=MAYBE, small=MAYBE, large=MAYBE)
def test_harm_is_never_more_than_disagreement(agrees: bool | None, small: bool | None, large: bool | None) -> None:
    found = drop_between(agrees=agrees, small_right=small, large_right=large)
    if small is None or large is None:
        assert found.most <= disagreement(agrees).most


def test_an_audit_that_failed_may_hide_any_harm() -> None:
    assert disagreement(None) == Between(least=0, most=1)


@pytest.mark.parametrize("least,most", [(0.5, 0.4), (-1.1, 0), (0, 1.1), (float("nan"), 0)])
def test_a_harm_that_cannot_be_is_refused(least: float, most: float) -> None:
    with pytest.raises(InputError, match="harm lies in"):
        Between(least=least, most=most)


def test_the_disagreement_of_the_certifying_questions_is_allowed_for() -> None:
    # Of 1,000 questions 60 kept answers differed: 15 harmed, 5 gained, 40 wrong both ways.
    assert disagreement_limit(max_drop=0.02, n=1000, differing=60, harm=15, gain=5) == pytest.approx(0.07)


@pytest.mark.parametrize("n,differing,harm,gain", [(10, 2, 2, 1), (10, 11, 0, 0), (0, 0, 0, 0), (10, 5, -1, 0)])
def test_counts_that_contradict_one_another_set_no_limit(n: int, differing: int, harm: int, gain: int) -> None:
    with pytest.raises(InputError, match="count them again"):
        disagreement_limit(max_drop=0.02, n=n, differing=differing, harm=harm, gain=gain)
