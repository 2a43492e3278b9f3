"""A budget is spent to the end of its window and no faster; where it cannot be, that is said, on the safe side."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import InputError
from corea.policy.base import Bar, Policy, View
from corea.policy.budget import Budget, Per
from corea.policy.certified import Certified
from corea.policy.dual import Cut, Seen, drop, solve, spend
from corea.policy.order import in_order
from corea.policy.recent import Recent
from corea.policy.spent import HOUR_S, Counted, Spent
from corea.types import Trace
from policy.driven import LARGE_NANO_USD, SMALL_NANO_USD, Driven, Wall, deferred

TIERS = ("small", "large")
DAY_S = 24 * HOUR_S
#: A request that is kept costs 1,000, one that is deferred 11,000: so much lies halfway.
HALFWAY = 6_000


def budget(
    nano_usd: int,
    wall: Wall,
    *,
    per: Per = "day",
    spent: Spent | None = None,
    floored: bool = False,
    tightens: bool = True,
) -> Budget:
    return Budget(
        nano_usd=nano_usd,
        per=per,
        tiers=TIERS,
        spent=spent or Counted(),
        wall_clock=wall,
        floored=floored,
        tightens=tightens,
    )


def driven(
    nano_usd: int, *, own: float = 0.5, floored: bool = False, per: Per = "day", tightens: bool = True
) -> Driven:
    wall = Wall()
    policies: list[Policy] = [budget(nano_usd, wall, per=per, floored=floored, tightens=tightens)]
    if floored:
        policies.append(Certified())
    return Driven(in_order(policies), wall=wall, own=Bar(threshold=own), certified=floored)


def plan_of(day: Driven) -> Budget:
    found = day.policies[0]
    assert isinstance(found, Budget)
    return found


# The dual


def test_the_price_of_money_is_harm_saved_for_a_nano_usd_at_the_margin() -> None:
    sure = Recent(512)
    for one in range(100):
        sure.add((one + 0.5) / 100)
    cost = Recent(10)
    cost.add(1_000)
    found = solve([Seen(sure=sure, cost_nano_usd=cost)], 10_000, pace_nano_usd=1_000 + 0.3 * 10_000, accuracy=0.9)
    assert found is not None
    # Three in ten are deferred: those below 0.3, where one deferred saves 0.9 − 0.3 for 10,000.
    assert found.cuts[0].deferred(sure) == pytest.approx(0.3, abs=0.011)
    assert found.price == pytest.approx(0.6 / 10_000, rel=0.03)


@given(
    st.lists(st.sampled_from([-1.0, 0.05, 0.35, 0.65, 0.95, 1.0]), min_size=5, max_size=60),
    st.floats(0, 13_000),
)
def test_of_confidences_in_lumps_just_so_many_are_deferred_that_the_money_lasts(told: list[float], pace: float) -> None:
    sure, cost = Recent(512), Recent(10)
    for value in told:
        sure.add(value)
    cost.add(1_000)
    seen = [Seen(sure=sure, cost_nano_usd=cost)]
    found = solve(seen, 10_000, pace_nano_usd=pace, accuracy=1.0)
    assert found is not None
    least = spend([Cut(threshold=0.0)], seen, 10_000)
    most = spend([Cut(threshold=1.0, tie_fraction=0.0)], seen, 10_000)
    assert spend(found.cuts, seen, 10_000) == pytest.approx(min(max(pace, least), most), rel=1e-3)


def test_three_tiers_have_one_price() -> None:
    rng = random.Random(7)
    seen = []
    for each in (100, 1_000):
        sure, cost = Recent(512), Recent(10)
        cost.add(each)
        for _ in range(400):
            sure.add(rng.random())
        seen.append(Seen(sure=sure, cost_nano_usd=cost))
    found = solve(seen, 20_000, pace_nano_usd=3_000, accuracy=1.0)
    assert found is not None
    assert found.nano_usd == pytest.approx(3_000, rel=0.02)
    # To defer from the middle tier costs a large answer; from the first, a middle one and sometimes a large one.
    assert found.cuts[1].threshold < found.cuts[0].threshold
    assert 0 < drop(found.cuts, seen, 1.0) < 0.5


def test_where_deferring_is_free_money_decides_nothing() -> None:
    sure, cost = Recent(5), Recent(5)
    sure.add(0.5)
    assert solve([Seen(sure=sure, cost_nano_usd=cost)], 0.0, pace_nano_usd=10.0, accuracy=1.0) is None


# Days


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_steady_day_ends_on_its_budget(share: float) -> None:
    n = 1_500
    day = driven(round(n * (SMALL_NANO_USD + share * LARGE_NANO_USD)))
    day.asked(n, random.Random(1), for_s=DAY_S)
    assert day.spent_nano_usd == pytest.approx(plan_of(day).nano_usd, rel=0.02)
    assert deferred(day.traces) == pytest.approx(share, abs=0.03)


def test_bursts_and_lulls_end_on_the_budget_too() -> None:
    day = driven(3_000 * HALFWAY)
    rng = random.Random(2)
    for requests, hours in ((800, 8), (1_000, 2), (20, 4), (1_000, 10)):
        day.asked(requests, rng, for_s=hours * HOUR_S)
    assert day.spent_nano_usd == pytest.approx(plan_of(day).nano_usd, rel=0.02)


def test_a_price_that_doubles_ends_on_the_budget_too() -> None:
    day = driven(3_000 * HALFWAY)
    rng = random.Random(3)
    day.asked(1_500, rng, for_s=DAY_S / 2)
    day.large_nano_usd = 2 * LARGE_NANO_USD
    day.asked(1_500, rng, for_s=DAY_S / 2)
    assert day.spent_nano_usd == pytest.approx(plan_of(day).nano_usd, rel=0.02)


def test_an_hours_budget_is_held_hour_by_hour() -> None:
    day = driven(600 * HALFWAY, per="hour")
    rng = random.Random(4)
    for _ in range(3):
        hour = day.asked(600, rng, for_s=HOUR_S)
        assert sum(trace.cost_nano_usd or 0 for trace in hour) == pytest.approx(600 * HALFWAY, rel=0.02)


def test_it_defers_the_least_sure_first() -> None:
    day = driven(2_000 * HALFWAY)
    day.asked(2_000, random.Random(5), for_s=DAY_S)
    later = day.traces[1_000:]
    kept = [t.attempts[0].confidence.value or 0 for t in later if t.attempts[0].decision.keep]
    given_up = [t.attempts[0].confidence.value or 0 for t in later if not t.attempts[0].decision.keep]
    assert sum(kept) / len(kept) > 0.7
    assert sum(given_up) / len(given_up) < 0.3


def test_too_much_money_defers_everything_and_is_left_over() -> None:
    day = driven(10**9)
    day.asked(300, random.Random(6), for_s=DAY_S)
    assert deferred(day.traces[-100:]) == 1.0
    assert plan_of(day).plan is not None
    assert day.spent_nano_usd < plan_of(day).nano_usd


def test_told_not_to_tighten_it_leaves_bars_where_they_are() -> None:
    day = driven(10**9, own=0.5, tightens=False)
    day.asked(300, random.Random(6), for_s=DAY_S)
    assert {trace.attempts[0].decision.threshold for trace in day.traces} == {0.5}


def test_before_it_has_seen_enough_nothing_is_moved() -> None:
    day = driven(1)
    day.asked(31, random.Random(7), for_s=60)
    assert {trace.attempts[0].decision.threshold for trace in day.traces} == {0.5}


def test_what_is_unknown_is_deferred_even_with_no_money_left() -> None:
    day = driven(100 * SMALL_NANO_USD)
    day.asked(400, random.Random(8), for_s=DAY_S / 2)
    assert deferred(day.traces[-100:]) == 0.0
    assert day.ask(None).tier == "large"


def test_the_trace_says_what_was_spent_and_what_it_is_paid_with() -> None:
    day = driven(1_000 * 2_000, own=0.9)
    day.asked(500, random.Random(9), for_s=DAY_S / 2)
    decision = day.traces[-1].attempts[0].decision
    assert decision.policy == "budget"
    assert decision.note is not None
    assert "of the day's budget spent at 50% of it; expected to cost" in decision.note


def test_the_expected_drop_is_what_calibrated_confidences_say() -> None:
    day = driven(3_000 * HALFWAY)
    day.asked(2_000, random.Random(10), for_s=DAY_S * 2 / 3)
    plan = plan_of(day).plan
    assert plan is not None
    # Confidences are even, so of the surer half one in four is expected to be wrong: an eighth of all.
    assert plan.drop == pytest.approx(1 / 8, abs=0.03)
    assert plan.paid == pytest.approx(plan.drop - 1 / 8, abs=0.03)


# A latency policy before it


class Lowered:
    name = "latency"

    def before(self, view: View, bar: Bar) -> Bar:
        return replace(bar, threshold=0.1)

    def after(self, trace: Trace) -> None:
        """Nothing is learned."""


def test_what_latency_lowered_is_not_raised_again() -> None:
    day = driven(10**9)
    day.policies = [Lowered(), *day.policies]
    day.asked(200, random.Random(11), for_s=DAY_S)
    assert {trace.attempts[0].decision.threshold for trace in day.traces} == {0.1}


# What cannot be held


@pytest.mark.parametrize("nothing", [0, -5])
def test_a_budget_of_nothing_is_refused(nothing: int) -> None:
    with pytest.raises(InputError, match="a budget of nothing pays for no answer at all"):
        budget(nothing, Wall())


def test_a_budget_that_the_certificate_forbids_is_overspent_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    day = driven(1_000 * HALFWAY, own=0.9, floored=True)
    with caplog.at_level(logging.WARNING):
        day.asked(1_000, random.Random(12), for_s=DAY_S)
    assert all((t.attempts[0].confidence.value or 0) >= 0.9 for t in day.traces if t.attempts[0].decision.keep)
    assert day.spent_nano_usd > 1.2 * plan_of(day).nano_usd
    said = [record for record in caplog.records if "the certificate forbids the thresholds" in record.message]
    assert len(said) == 1
    assert "or give up the promise with certified = false" in said[0].message
    late = day.traces[-10].attempts[0].decision
    assert late.policy == "certified"
    assert late.note is not None
    assert "it cannot be held: the certificate forbids" in late.note


def test_it_knows_long_before_the_money_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    day = driven(1_000 * HALFWAY, own=0.9, floored=True)
    with caplog.at_level(logging.WARNING):
        day.asked(100, random.Random(13), for_s=DAY_S / 10)
    assert day.spent_nano_usd < plan_of(day).nano_usd / 5
    assert "will not be held" in caplog.text


def test_more_requests_than_the_money_can_keep_are_kept_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    day = driven(500 * SMALL_NANO_USD)
    with caplog.at_level(logging.WARNING):
        day.asked(2_000, random.Random(14), for_s=DAY_S)
    assert deferred(day.traces[200:]) < 0.01
    assert "even keeping every answer costs more; raise it" in caplog.text


def test_where_nothing_may_be_kept_the_overspending_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    wall = Wall()
    asked = budget(5 * LARGE_NANO_USD, wall)
    day = Driven([Certified()], wall=wall)
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            # As where no promise covers the task: no policy is ever asked for a bar.
            wall.now_s += 60
            asked.after(day.ask(0.0))
    assert "nothing could be kept so far" in caplog.text


# Clocks


def test_a_clock_that_jumps_back_and_forth_over_midnight_gets_two_budgets_and_no_more() -> None:
    day = driven(600 * HALFWAY)
    rng = random.Random(15)
    # Half an hour is as far from its end as from the beginning, so each jump would be worth a new budget.
    for turn in range(40):
        day.wall.now_s = DAY_S + (HOUR_S if turn % 2 else -HOUR_S) + turn
        for _ in range(100):
            day.ask(rng.random())
    by_day = [sum(t.cost_nano_usd or 0 for t in day.traces if t.started_at_unix_s // DAY_S == one) for one in (0, 1)]
    keeping_all = 4_000 / 2 * SMALL_NANO_USD
    assert all(spent <= plan_of(day).nano_usd + keeping_all for spent in by_day)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 30)), min_size=1, max_size=15), st.integers(0, 1000))
def test_however_the_clock_jumps_it_decides_and_counts_every_request(jumps: list[tuple[float, int]], seed: int) -> None:
    day = driven(100 * HALFWAY)
    day.wall.now_s = 1e7
    rng = random.Random(seed)
    for by_s, requests in jumps:
        day.wall.now_s += by_s
        for _ in range(requests):
            day.ask(rng.random())
    hours = plan_of(day)._spent.hours()
    assert sum(hour.nano_usd for hour in hours.values()) == day.spent_nano_usd


# Replicas


@dataclass
class Shared:
    """What all replicas wrote, as they see it at once; ``lost``: one that died leaves what it wrote."""

    counted: Counted = field(default_factory=Counted)

    def replica(self) -> Spent:
        return self.counted


def test_replicas_share_one_budget_and_one_that_dies_takes_none_of_it() -> None:
    shared, wall = Shared(), Wall()
    rng = random.Random(16)
    first, second = (Driven([budget(3_000 * HALFWAY, wall, spent=shared.replica())], wall=wall) for _ in range(2))
    for at in range(3_000):
        wall.now_s = DAY_S * at / 3_000
        # The second one dies at noon; the first has all of the traffic from then on.
        (second if at % 2 and wall.now_s < DAY_S / 2 else first).ask(rng.random(), question=str(at))
    both = first.spent_nano_usd + second.spent_nano_usd
    assert both == pytest.approx(3_000 * HALFWAY, rel=0.02)


def test_a_process_that_begins_anew_goes_on_with_what_is_left() -> None:
    shared, wall = Counted(), Wall()
    rng = random.Random(17)
    before = Driven([budget(2_000 * HALFWAY, wall, spent=shared)], wall=wall)
    before.asked(1_000, rng, for_s=DAY_S / 2)
    after = Driven([budget(2_000 * HALFWAY, wall, spent=shared)], wall=wall)
    after.asked(1_000, rng, for_s=DAY_S / 2)
    assert before.spent_nano_usd + after.spent_nano_usd == pytest.approx(2_000 * HALFWAY, rel=0.02)
