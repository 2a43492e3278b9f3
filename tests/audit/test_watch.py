"""A task's watch: what it says, when it rings, what it falls back to, and what cannot disturb it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.audit.harm import Between, disagreement, drop_between
from corea.audit.steps import ALWAYS_DEFER, Step
from corea.audit.watch import Plan, Seen, Watch
from corea.errors import InputError

STEPS = (Step(threshold=0.8), Step(threshold=0.9))
PLAN = Plan(task="maths", limit=0.02, min_propensity=0.1, measure="disagreement", steps=STEPS)
DROP = replace(PLAN, measure="drop")


def seen(differs: bool | None = None, *, audited: bool = True, epoch: int = 0, at: float = 1e9) -> Seen:
    harm = disagreement(None if differs is None else not differs) if audited else None
    return Seen(propensity=0.1, harm=harm, at_unix_s=at, epoch=epoch)


def traffic(rate: float, count: int, *, seed: int = 1, epoch: int = 0) -> list[Seen]:
    rng = random.Random(seed)
    return [
        seen(rng.random() < rate, epoch=epoch) if rng.random() < 0.1 else seen(audited=False, epoch=epoch)
        for _ in range(count)
    ]


def rung(watch: Watch, rate: float) -> Watch:
    """Harm that is so frequent until the alarm goes off."""
    for one in traffic(rate, 20_000, epoch=watch.epoch):
        after = watch.after(one)
        if after.epoch != watch.epoch:
            return after
        watch = after
    raise AssertionError("no alarm")


def test_quiet_traffic_keeps_the_certified_step() -> None:
    watch = Watch.of(PLAN)
    for one in traffic(0.01, 20_000):
        watch = watch.after(one)
    status = watch.status
    assert (status.state, status.step, status.epoch) == ("ok", STEPS[0], 0)
    assert status.bounds is not None
    assert status.bounds.n == 20_000
    assert status.bounds.low <= 0.01 <= status.bounds.high < 0.03


def test_harm_above_the_limit_rings_once_and_the_next_step_is_in_force() -> None:
    watch = rung(Watch.of(PLAN), 0.1)
    alarm = watch.alarm
    assert alarm is not None
    assert alarm.tightened_to == STEPS[1]
    assert alarm.message.startswith('task "maths": disagreement has passed 2 % after ')
    assert "answers are kept from a confidence of 0.9" in alarm.message
    assert (watch.step, watch.epoch) == (STEPS[1], 1)
    after = watch.after(seen(True, epoch=1))
    assert after.alarm is alarm
    assert (after.status.state, after.status.audited) == ("alarm", 1)


def test_the_last_step_always_defers_and_stays() -> None:
    last = rung(rung(Watch.of(PLAN), 0.1), 0.1)
    assert last.alarm is not None
    assert last.alarm.tightened_to == last.step == ALWAYS_DEFER
    assert "every question is deferred" in last.alarm.message
    assert rung(last, 0.1).step == ALWAYS_DEFER


def test_answers_of_an_earlier_threshold_say_nothing_about_this_one() -> None:
    watch = rung(Watch.of(PLAN), 0.1)
    later = watch
    for one in traffic(1.0, 1_000, epoch=0):
        later = later.after(one)
    assert later == replace(watch, stale=1_000)


def test_several_questions_at_once_are_as_many_one_by_one() -> None:
    one_by_one = Watch.of(PLAN)
    for _ in range(7):
        one_by_one = one_by_one.after(seen(audited=False))
    assert Watch.of(PLAN).after(replace(seen(audited=False), questions=7)) == one_by_one


def test_while_auditing_is_paused_the_bounds_stand_still() -> None:
    watch = Watch.of(PLAN)
    for one in traffic(0.01, 400):
        watch = watch.after(one)
    later = watch
    for _ in range(1_000):
        later = later.after(Seen(propensity=0.0, at_unix_s=2e9))
    assert later.status == replace(watch.status, paused=1_000)


@given(times=st.lists(st.floats(), min_size=1, max_size=30))
def test_a_clock_that_jumps_changes_nothing_but_what_is_written_down(times: list[float]) -> None:
    steady = jumping = Watch.of(PLAN)
    for number, at in enumerate(times):
        steady = steady.after(seen(number % 2 == 0))
        jumping = jumping.after(seen(number % 2 == 0, at=at))
    assert steady.sequence == jumping.sequence
    assert steady.detector == jumping.detector


@pytest.mark.parametrize("at", [math.nan, math.inf])
def test_a_clock_that_makes_no_sense_is_written_down_as_unknown(at: float) -> None:
    watch = Watch.of(PLAN)
    while watch.alarm is None:
        watch = watch.after(seen(True, at=at))
    assert watch.alarm.at_unix_s is None


def test_failed_audits_widen_the_bounds_and_never_hide_harm() -> None:
    watch = Watch.of(PLAN)
    for _ in range(400):
        watch = watch.after(seen(None))
    bounds = watch.status.bounds
    assert bounds is not None
    assert watch.alarm is None
    assert bounds.low == 0
    assert bounds.high > 0.9


def test_without_feedback_a_disagreement_proves_no_drop_and_with_it_does() -> None:
    blind = told = Watch.of(DROP)
    for _ in range(200):
        blind = blind.after(Seen(propensity=0.1, harm=drop_between(agrees=False), at_unix_s=1e9))
        if told.alarm is None:
            harm = drop_between(agrees=False, small_right=False, large_right=True)
            told = told.after(Seen(propensity=0.1, harm=harm, at_unix_s=1e9))
    assert blind.alarm is None
    assert told.alarm is not None
    assert told.alarm.measure == "drop"


def test_an_audit_with_a_probability_below_the_plans_is_refused() -> None:
    with pytest.raises(InputError, match="begin new ones"):
        Watch.of(PLAN).after(Seen(propensity=0.05, harm=Between(least=0, most=0), at_unix_s=1e9))


@pytest.mark.parametrize(
    "change",
    [{"delta": 0.0}, {"delta": 1.0}, {"limit": -0.1}, {"limit": 1.0}, {"min_propensity": 0.0}]
    + [{"steps": steps} for steps in (STEPS[::-1], (STEPS[0], STEPS[0]), (STEPS[0], ALWAYS_DEFER))],
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        replace(PLAN, **change)  # type: ignore[arg-type]


def test_a_plan_without_steps_always_defers() -> None:
    assert Watch.of(replace(PLAN, steps=())).step == ALWAYS_DEFER
