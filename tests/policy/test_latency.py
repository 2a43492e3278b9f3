"""A latency target: leave the tier out, or keep more of it, and only as often as is needed."""

from __future__ import annotations

import random

import pytest

from corea.policy.base import Bar, Policy
from corea.policy.certified import Certified
from corea.policy.latency import Latency, Means
from corea.types import Trace
from policy.driven import Driven, deferred


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
