"""Who is audited, with which probability, and for whose money."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.audit.sampler import PAUSED, Lot, Purse, Sampler, affordable_share
from corea.errors import InputError

DAY = 86_400.0


def test_about_the_share_is_audited_and_replicas_draw_alike() -> None:
    one, other = Sampler(share=0.05, seed="s"), Sampler(share=0.05, seed="s")
    lots = [one.draw(f"trace-{number}", 0.9) for number in range(20_000)]
    assert lots == [other.draw(f"trace-{number}", 0.9) for number in range(20_000)]
    # Four standard errors.
    assert abs(sum(lot.audited for lot in lots) - 1_000) < 4 * math.sqrt(950)


def test_another_seed_draws_others() -> None:
    drawn = [{n for n in range(2_000) if Sampler(share=0.1, seed=seed).draw(str(n), None).audited} for seed in "ab"]
    assert len(drawn[0] & drawn[1]) < 45


def test_unsure_answers_are_audited_more_often_and_say_so() -> None:
    sampler = Sampler(share=0.02, seed="s", unsure_share=0.2, unsure_below=0.8)
    assert [sampler.draw("x", one).propensity for one in (0.9, 0.8, 0.7, None)] == [0.02, 0.02, 0.2, 0.2]
    assert sampler.min_propensity == 0.02
    assert Sampler(share=0.1, seed="s", unsure_share=0.05).min_propensity == 0.05


@given(trace=st.text(), confidence=st.floats(0, 1), low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_whoever_is_audited_at_a_share_is_audited_at_a_larger_one(
    trace: str, confidence: float, low: float, high: float
) -> None:
    small, large = (Sampler(share=share, seed="s").draw(trace, confidence) for share in sorted((low, high)))
    assert large.audited or not small.audited


def test_without_money_kept_and_deferred_questions_are_left_out_alike() -> None:
    sampler = Sampler(share=1.0, seed="s")
    assert sampler.draw("x", 0.5, can_pay=False) == sampler.deferred(can_pay=False) == PAUSED
    assert sampler.deferred() == Lot(audited=False, propensity=1.0)


@pytest.mark.parametrize("share,unsure", [(0.0, None), (1.1, None), (0.5, 0.0), (float("nan"), None), (-1, 0.5)])
def test_a_share_that_audits_nothing_is_refused(share: float, unsure: float | None) -> None:
    with pytest.raises(InputError, match="bounds nothing"):
        Sampler(share=share, seed="s", unsure_share=unsure)


@given(
    costs=st.lists(st.none() | st.integers(0, 10), max_size=60),
    cap=st.integers(10, 200),
    replicas=st.integers(1, 3),
    days=st.lists(st.integers(-3, 3), min_size=1, max_size=5),
)
def test_no_day_costs_more_than_its_cap_however_the_clock_jumps(
    costs: list[int | None], cap: int, replicas: int, days: list[int]
) -> None:
    if cap // replicas < 10:
        return
    purse = Purse(cap_nano_usd=cap, reserve_nano_usd=10, replicas=replicas)
    for number, cost in enumerate(costs):
        now = days[number % len(days)] * DAY
        if purse.can_pay(now):
            purse.settle(purse.reserve(now), cost)
    assert all(replicas * purse.spent(day * DAY) <= cap for day in days)


def test_what_is_set_aside_is_spent_until_the_cost_is_known() -> None:
    purse = Purse(cap_nano_usd=100, reserve_nano_usd=60)
    day = purse.reserve(0.0)
    assert not purse.can_pay(0.0)
    purse.settle(day, 15)
    assert purse.spent(0.0) == 15
    assert purse.can_pay(0.0)


def test_a_cost_that_nobody_knows_stays_at_its_reserve() -> None:
    purse = Purse(cap_nano_usd=100, reserve_nano_usd=60)
    purse.settle(purse.reserve(0.0), None)
    assert purse.spent(0.0) == 60


def test_a_new_day_has_new_money_and_the_old_one_does_not() -> None:
    purse = Purse(cap_nano_usd=10, reserve_nano_usd=10)
    purse.reserve(0.0)
    assert purse.can_pay(DAY)
    assert not purse.can_pay(DAY - 1)


def test_what_the_ledger_has_spent_today_counts() -> None:
    purse = Purse(cap_nano_usd=10, reserve_nano_usd=4)
    purse.found_spent(0.0, 7)
    assert not purse.can_pay(1.0)


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
def test_a_clock_that_makes_no_sense_pays_nothing(now: float) -> None:
    purse = Purse(cap_nano_usd=10, reserve_nano_usd=4)
    assert not purse.can_pay(now)
    assert purse.spent(now) == 0
    with pytest.raises(InputError, match="is no time"):
        purse.reserve(now)


@pytest.mark.parametrize("cap,reserve,replicas", [(0, 0, 1), (9, 10, 1), (25, 10, 3), (10, -1, 1), (10, 1, 0)])
def test_a_budget_that_cannot_pay_one_audit_is_refused(cap: int, reserve: int, replicas: int) -> None:
    with pytest.raises(InputError, match="audit"):
        Purse(cap_nano_usd=cap, reserve_nano_usd=reserve, replicas=replicas)


def test_the_share_that_a_budget_pays_is_told() -> None:
    assert affordable_share(cap_nano_usd=500, kept_a_day=1_000, cost_nano_usd=10) == 0.05
    assert affordable_share(cap_nano_usd=500, kept_a_day=10, cost_nano_usd=10) == 1.0
    assert affordable_share(cap_nano_usd=500, kept_a_day=0, cost_nano_usd=10) == 1.0
