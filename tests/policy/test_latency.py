"""A latency target: leave the tier out, or keep more of it, and only as often as is needed."""

from __future__ import annotations

import random

import pytest

from corea.policy.base import Bar, Policy, settle
from corea.policy.budget import Budget
from corea.policy.certified import Certified
from corea.policy.critical import Critical
from corea.policy.latency import HEDGED, Latency, Means
from corea.policy.spent import Counted
from corea.types import Trace
from policy.driven import Driven, deferred
from policy.test_policies import second


def driven(p95_s: float, *means: Means, own: float = 0.5, small_s: float = 1.0, large_s: float = 3.0) -> Driven:
    latency = Latency(p95_s=p95_s, tiers=("small", "large"), means=means or ("skip", "keep"))
    return Driven([latency], own=Bar(threshold=own), small_s=small_s, large_s=large_s)


def late(traces: list[Trace], p95_s: float) -> float:
    return sum(trace.elapsed_s > p95_s for trace in traces) / len(traces)


def skipped(traces: list[Trace]) -> float:
    return sum(trace.attempts[0].decision.reason == "skipped" for trace in traces) / len(traces)


def run(day: Driven, n: int = 1_000, seed: int = 1) -> list[Trace]:
    return day.asked(n, random.Random(seed), for_s=3600.0)


def test_a_target_that_is_held_anyway_changes_nothing() -> None:
    traces = run(driven(4.5))
    assert skipped(traces) == 0.0
    assert {trace.attempts[0].decision.threshold for trace in traces} == {0.5}


def test_a_tier_is_left_out_where_asking_it_and_then_the_next_takes_too_long() -> None:
    traces = run(driven(3.5))
    assert late(traces[200:], 3.5) <= 0.05
    decision = next(t.attempts[0].decision for t in traces if t.attempts[0].decision.reason == "skipped")
    assert decision.policy == "latency"


def test_it_is_left_out_no_more_often_than_is_needed() -> None:
    # One in ten is deferred and late, so half of all must leave it out to make that one in twenty.
    traces = run(driven(3.5, own=0.1), n=2_500)
    assert late(traces[200:], 3.5) <= 0.052
    assert skipped(traces[200:]) == pytest.approx(0.55, abs=0.1)


def test_more_is_kept_where_the_next_tier_alone_is_too_slow() -> None:
    traces = run(driven(2.5))
    assert skipped(traces) == 0.0
    assert deferred(traces[:30]) > 0.3
    assert late(traces[200:], 2.5) <= 0.055
    note = next(t.attempts[0].decision.note for t in reversed(traces) if t.attempts[0].decision.policy == "latency")
    assert note == "more than one in twenty would take over 2.5 s, if as many were deferred"


def test_only_what_is_allowed_is_done() -> None:
    assert {trace.attempts[0].decision.policy for trace in run(driven(2.5, "skip"))} == {None}
    assert skipped(run(driven(3.5, "keep"))) == 0.0


def test_a_certificate_goes_before_a_target() -> None:
    day = driven(2.5)
    policies: list[Policy] = [*day.policies, Certified()]
    day.policies, day.certified = policies, True
    traces = run(day)
    assert all((t.attempts[0].confidence.value or 0) >= 0.5 for t in traces if t.attempts[0].decision.keep)
    assert late(traces[200:], 2.5) > 0.4


def test_an_unknown_confidence_is_deferred_however_late_it_gets() -> None:
    day = driven(2.5)
    run(day, n=400)
    assert day.ask(None).tier == "large"


def test_a_tier_that_gets_well_again_is_asked_again() -> None:
    day = driven(3.5, small_s=1.0)
    assert skipped(run(day)[200:]) > 0.5
    day.small_s = 0.1
    assert skipped(run(day, n=3_000)[-300:]) < 0.05


def test_a_slow_spell_is_noticed() -> None:
    day = driven(3.5, small_s=0.3)
    assert skipped(run(day)) == 0.0
    day.small_s = 1.0
    traces = run(day, n=2_000, seed=2)
    assert late(traces[300:], 3.5) <= 0.05


def test_requests_that_nobody_answered_are_not_measured() -> None:
    day = driven(3.5)
    trace = day.ask(0.9)
    latency = day.policies[0]
    assert isinstance(latency, Latency)
    assert latency.measured_p95_s == 1.0
    latency.after(Trace(
        id="x", request=trace.request, attempts=trace.attempts, final=None, started_at_unix_s=0.0, elapsed_s=99.0,
        cost_nano_usd=0, baseline_nano_usd=None,
    ))  # fmt: skip
    assert (latency.measured_p95_s, latency.late) == (1.0, 0.0)


# Hedging (what it comes to in a cascade: tests/test_hedging.py)


def hedging(p95_s: float = 5.0, *, small_s: float = 1.0, large_s: float = 3.0) -> Driven:
    day = driven(p95_s, "hedge", small_s=small_s, large_s=large_s)
    run(day, n=200)
    return day


def bar_of(day: Driven, *more: Policy) -> Bar:
    return settle([*day.policies, *more], day.view())


def test_the_next_tier_is_begun_at_the_last_moment_that_leaves_it_time() -> None:
    hedge = bar_of(hedging()).hedge
    assert hedge is not None
    # A tenth of the target is kept in hand: 0.9 × 5 − 3.
    assert hedge.after_s == pytest.approx(1.5)
    slower = bar_of(hedging(4.2)).hedge
    assert slower is not None
    assert slower.after_s == pytest.approx(1.0)  # not before the tier has usually answered


def test_a_hedge_that_could_not_be_in_time_is_not_begun_and_it_is_no_means_unless_it_is_named() -> None:
    assert bar_of(hedging(3.5)).hedge is None
    day = driven(5.0, "skip", "keep")
    run(day, n=200)
    assert bar_of(day).hedge is None
    assert bar_of(driven(5.0, "hedge")).hedge is None


def test_at_most_one_request_in_twenty_is_hedged_whatever_comes() -> None:
    day = hedging()
    latency, hedge = day.policies[0], bar_of(day).hedge
    assert isinstance(latency, Latency)
    assert hedge is not None
    assert [hedge.allowed() for _ in range(5)] == [True, True, False, False, False]
    begun = latency.hedges
    for seed in range(10):
        run(day, n=40, seed=seed)
        while hedge.allowed():
            pass
    assert latency.hedges - begun == 10 * 40 * HEDGED
    assert latency.refused_hedges == 3 + 10


def test_what_is_critical_is_never_hedged() -> None:
    day = hedging()
    critical = bar_of(day, Critical(second()))
    assert (critical.hedge, critical.second is not None) == (None, True)


def test_nothing_is_hedged_where_the_budget_says_no() -> None:
    day = hedging()
    poor, rich = (
        Budget(nano_usd=usd, per="day", tiers=("small", "large"), spent=Counted(), wall_clock=day.wall)
        for usd in (1, 10**12)
    )
    assert bar_of(day, rich).hedge is not None
    for trace in day.traces[-40:]:
        poor.after(trace)
        rich.after(trace)
    assert (bar_of(day, poor).hedge, bar_of(day, rich).hedge is not None) == (None, True)


def test_asking_for_a_hedge_does_not_claim_the_threshold() -> None:
    bar = bar_of(hedging())
    assert (bar.policy, bar.threshold, bar.hedge is not None) == (None, 0.5, True)
