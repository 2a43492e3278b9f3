"""How much a request may cost: windows, the traffic to come, and clocks that jump."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corea.policy.pace import pace, profile
from corea.policy.recent import Recent
from corea.policy.spent import HOUR_S, Hour

DAY_H = 24
BUDGET = 24_000_000


def paced(hours: dict[int, Hour], now_h: float, window_h: int = DAY_H, unknown: float = 0.0) -> tuple[float, float]:
    """Money left, and requests left."""
    found = pace(hours, now_s=now_h * HOUR_S, budget_nano_usd=BUDGET, window_h=window_h, unknown_nano_usd=unknown)
    return found.left_nano_usd, found.requests_left


def even(hours: range, requests: int = 100, each: int = 1_000) -> dict[int, Hour]:
    return {hour: Hour(requests=requests, nano_usd=requests * each) for hour in hours}


def test_on_the_first_day_as_much_is_expected_as_came_so_far() -> None:
    assert paced(even(range(6)), 6.0)[1] == pytest.approx(18 * 100)


def test_a_burst_is_expected_to_last_a_while_and_then_forgotten() -> None:
    burst = even(range(10)) | even(range(10, 12), requests=500)
    during, after = paced(burst, 12.0)[1] / 12, paced(burst | even(range(12, 20)), 20.0)[1] / 4
    assert 250 < during < 500
    assert 100 <= after < 125


def test_what_is_usual_at_which_hour_is_learned_from_the_days_before() -> None:
    night, day = range(12), range(12, 24)
    yesterday = even(night, requests=10) | even(day, requests=190)
    today = {24 + hour: yesterday[hour] for hour in night}
    # Half the day is over, and nearly all of its requests are to come.
    assert paced(yesterday | today, 36.0)[1] == pytest.approx(12 * 190, rel=0.15)


def test_a_day_that_was_not_seen_from_its_beginning_teaches_no_shape() -> None:
    assert set(profile(even(range(20, 24)), 1)) == {1.0}
    assert sum(profile(even(range(24)), 1)) == pytest.approx(24)


def test_a_request_whose_cost_nobody_knows_counts_as_much_as_others() -> None:
    hours = {0: Hour(requests=10, nano_usd=4_000, unknown=6)}
    assert paced(hours, 0.5, unknown=1_000)[0] == BUDGET - 10_000


def test_a_clock_that_goes_back_brings_no_money_back() -> None:
    hours = even(range(10))
    assert paced(hours, 3.0)[0] == paced(hours, 10.0)[0] == BUDGET - 10 * 100_000


def test_a_clock_that_goes_back_over_midnight_finds_that_day_spent() -> None:
    hours = even(range(24)) | even(range(24, 26))
    assert paced(hours, 26.0)[0] == BUDGET - 2 * 100_000
    assert paced(hours, 23.9)[0] == BUDGET - 24 * 100_000


def test_a_clock_that_goes_forward_opens_one_new_window() -> None:
    assert paced(even(range(10)), 10 + 365 * 24.0)[0] == BUDGET


def test_an_hour_is_a_window_too() -> None:
    hours = even(range(3)) | {3: Hour(requests=50, nano_usd=50_000)}
    left, requests = paced(hours, 3.5, window_h=1)
    assert left == BUDGET - 50_000
    assert requests == pytest.approx(50, rel=0.1)


@example({0: Hour(requests=1)}, 2.2250738585072014e-308, 24)
@given(
    st.dictionaries(
        st.integers(0, 80), st.builds(Hour, requests=st.integers(0, 10**6), nano_usd=st.integers(0, 10**15))
    ),
    st.floats(0, 80),
    st.sampled_from([1, 24]),
)
def test_whatever_was_seen_the_pace_is_a_number_and_never_negative(
    hours: dict[int, Hour], now_h: float, window_h: int
) -> None:
    found = pace(hours, now_s=now_h * HOUR_S, budget_nano_usd=BUDGET, window_h=window_h, unknown_nano_usd=1.0)
    assert 0 <= found.per_request_nano_usd <= BUDGET
    assert found.requests_left >= 0
    assert math.isfinite(found.requests_left)
    assert 0 <= found.passed <= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 1))
def test_the_last_numbers_are_counted_right(values: list[float], at: float) -> None:
    recent = Recent(20)
    for value in values:
        recent.add(value)
    last = sorted(values[-20:])
    assert list(recent) == last
    assert recent.share_below(at) == sum(value < at for value in last) / len(last)
    assert recent.share_above(at) == pytest.approx(sum(value > at for value in last) / len(last))
    assert recent.mean == pytest.approx(sum(last) / len(last), abs=1e-9)
    assert recent.at_least(at) == min((value for value in last if value >= at), default=None)
