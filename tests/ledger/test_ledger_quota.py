"""The decision itself, without a database."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.ledger.keys import Limits
from corea.ledger.quota import DAY_S, WINDOW_S, Demand, Granted, Refused, Used, admit, month_start_day, settle

#: A Saturday, at noon UTC.
NOON = datetime(2026, 2, 28, 12, tzinfo=UTC).timestamp()
DOLLAR = 10**9


def demand(limits: Limits, *, tokens: int = 10, nano_usd: int = 0, id: str = "r") -> Demand:
    return Demand(id=id, key_id="k", limits=limits, tokens=tokens, nano_usd=nano_usd, expires_s=100.0)


def decide(used: Used, limits: Limits, now: float = NOON, *, tokens: int = 10, nano_usd: int = 0) -> Granted | Refused:
    return admit(used, demand(limits, tokens=tokens, nano_usd=nano_usd), now)[1]


steps = st.lists(
    st.tuples(st.floats(0, 20) | st.sampled_from([0.0, 0.5, 1.0, 59.5, 60.0, 61.0]), st.integers(0, 60)), max_size=60
)


@given(steps, st.integers(1, 6), st.integers(20, 120))
def test_no_minute_wherever_it_begins_holds_more_than_the_limits(
    steps: list[tuple[float, int]], requests: int, tokens: int
) -> None:
    limits = Limits(requests_per_minute=requests, tokens_per_minute=tokens)
    used, now = Used(), NOON
    admitted: list[tuple[float, int]] = []
    for pause_s, wanted in steps:
        now += pause_s
        used, decision = admit(used, demand(limits, tokens=wanted), now)
        if isinstance(decision, Granted):
            admitted.append((now, wanted))
    for start, _ in admitted:
        window = [amount for at, amount in admitted if start <= at < start + WINDOW_S]
        assert len(window) <= requests
        assert sum(window) <= tokens


@given(steps, st.integers(1, 6), st.integers(60, 120))
def test_who_waits_as_long_as_told_is_let_in(steps: list[tuple[float, int]], requests: int, tokens: int) -> None:
    limits = Limits(requests_per_minute=requests, tokens_per_minute=tokens)
    used, now = Used(), NOON
    for pause_s, wanted in steps:
        now += pause_s
        used, decision = admit(used, demand(limits, tokens=wanted), now)
        while isinstance(decision, Refused):
            assert decision.retry_after_s is not None
            assert decision.retry_after_s > 0
            # By requests first, then perhaps by tokens.
            now += decision.retry_after_s
            used, decision = admit(used, demand(limits, tokens=wanted), now)


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_the_whole_limit_may_be_used_at_once_and_no_more(limit: int, moment: float) -> None:
    used, limits = Used(), Limits(requests_per_minute=limit)
    for _ in range(limit):
        used, decision = admit(used, demand(limits), NOON + moment)
        assert isinstance(decision, Granted)
    assert isinstance(decide(used, limits, NOON + moment), Refused)


def test_a_request_larger_than_the_limit_itself_is_told_so_at_once() -> None:
    decision = decide(Used(), Limits(tokens_per_minute=100), tokens=101)
    assert isinstance(decision, Refused)
    assert decision.retry_after_s is None
    assert decision.message == "the request needs 101 and its key may use 100 tokens per minute"


def test_a_refusal_names_the_limit_and_when_to_try_again() -> None:
    used = Used(seconds=((math.floor(NOON) - 50, 2, 0),))
    decision = decide(used, Limits(requests_per_minute=2), NOON)
    assert isinstance(decision, Refused)
    assert (decision.limit, decision.used, decision.retry_after_s) == ("requests_per_minute", 2, 11.0)
    assert decision.message == "the key's limit of 2 requests per minute is used up; try again in 11 s"


def test_settling_gives_back_what_was_not_used_and_counts_what_was_used_beyond() -> None:
    limits = Limits(tokens_per_minute=100)
    used, granted = admit(Used(), demand(limits, tokens=90), NOON)
    assert isinstance(granted, Granted)
    assert isinstance(decide(used, limits, tokens=20), Refused)
    assert isinstance(decide(Used(seconds=settle(used.seconds, granted, 5)), limits, tokens=95), Granted)
    beyond = decide(Used(seconds=settle(used.seconds, granted, 130)), limits, tokens=1)
    assert isinstance(beyond, Refused)
    assert beyond.retry_after_s == WINDOW_S + 1


def test_settling_after_the_window_has_passed_changes_nothing() -> None:
    _, granted = admit(Used(), demand(Limits(tokens_per_minute=100), tokens=90), NOON)
    assert isinstance(granted, Granted)
    later = ((math.floor(NOON) + 70, 1, 10),)
    assert settle(later, granted, 5) == later


def test_money_is_what_was_spent_and_what_is_set_aside() -> None:
    limits = Limits(day_nano_usd=DOLLAR)
    used = Used(day_nano_usd=6 * DOLLAR // 10, month_nano_usd=6 * DOLLAR // 10, reserved_nano_usd=3 * DOLLAR // 10)
    assert isinstance(decide(used, limits, nano_usd=DOLLAR // 10), Granted)
    refused = decide(used, limits, nano_usd=DOLLAR // 10 + 1)
    assert isinstance(refused, Refused)
    assert refused.message.startswith("the key's limit of $1 per day is used up; try again in 43,200 s")


def test_where_only_what_is_set_aside_is_in_the_way_the_wait_is_until_it_expires() -> None:
    used = Used(reserved_nano_usd=DOLLAR, first_expiry_unix_s=NOON + 30)
    refused = decide(used, Limits(day_nano_usd=DOLLAR), nano_usd=1)
    assert isinstance(refused, Refused)
    assert refused.retry_after_s == 30.0


def test_a_budget_that_is_used_up_lets_nothing_in_not_even_what_is_free() -> None:
    used = Used(day_nano_usd=DOLLAR, month_nano_usd=DOLLAR)
    assert isinstance(decide(used, Limits(day_nano_usd=DOLLAR), nano_usd=0), Refused)
    monthly = decide(used, Limits(month_nano_usd=DOLLAR), nano_usd=0)
    assert isinstance(monthly, Refused)
    # The first of March begins twelve hours later.
    assert monthly.retry_after_s == DAY_S / 2


@given(st.integers(0, 40_000))
def test_a_month_begins_on_its_first_day(day: int) -> None:
    first = month_start_day(day)
    began = datetime.fromtimestamp(first * DAY_S, UTC)
    today = datetime.fromtimestamp(day * DAY_S, UTC)
    assert (began.year, began.month, began.day) == (today.year, today.month, 1)


@pytest.mark.parametrize("back_s", [1.0, 30.0, 3600.0])
def test_a_clock_that_is_set_back_lets_no_more_in(back_s: float) -> None:
    limits = Limits(requests_per_minute=1)
    used, _ = admit(Used(), demand(limits), NOON)
    assert isinstance(decide(used, limits, NOON - back_s), Refused)
