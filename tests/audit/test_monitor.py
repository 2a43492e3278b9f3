"""A task's watch: what it says, when it rings, what it falls back to, and what cannot disturb it."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.audit.harm import Between, disagreement, drop_between
from corea.audit.monitor import UNWATCHED, Monitor
from corea.audit.steps import ALWAYS_DEFER, Step
from corea.audit.watch import Alarm, Plan, Seen, Watch
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


def rung(monitor: Monitor, rate: float, *, task: str | None = "maths") -> Alarm:
    """Drive the harm up until the alarm goes off."""
    epoch = monitor.step(task)[1]
    for one in traffic(rate, 20_000, epoch=epoch):
        if (alarm := monitor.see(task, one)) is not None:
            return alarm
    raise AssertionError("no alarm")


def test_quiet_traffic_keeps_the_certified_step() -> None:
    monitor = Monitor([PLAN])
    assert not any(monitor.see("maths", one) for one in traffic(0.01, 20_000))
    status = monitor.status("maths")
    assert (status.state, status.step, status.epoch) == ("ok", STEPS[0], 0)
    assert status.bounds is not None
    assert status.bounds.n == 20_000
    assert status.bounds.low <= 0.01 <= status.bounds.high < 0.03


def test_harm_above_the_limit_rings_once_and_the_next_step_is_in_force() -> None:
    monitor = Monitor([PLAN])
    alarm = rung(monitor, 0.1)
    assert alarm.tightened_to == STEPS[1]
    assert alarm.message.startswith('task "maths": disagreement has passed 2 % after ')
    assert "answers are kept from a confidence of 0.9" in alarm.message
    assert monitor.step("maths") == (STEPS[1], 1)
    assert monitor.see("maths", seen(True, epoch=1)) is None
    assert (monitor.status("maths").state, monitor.status("maths").audited) == ("alarm", 1)


def test_the_last_step_always_defers_and_stays() -> None:
    monitor = Monitor([PLAN])
    rung(monitor, 0.1)
    last = rung(monitor, 0.1)
    assert last.tightened_to == ALWAYS_DEFER
    assert "every question is deferred" in last.message
    assert rung(monitor, 0.1).tightened_to == ALWAYS_DEFER


def test_approval_goes_back_to_the_certified_step_with_nothing_held_against_it() -> None:
    monitor = Monitor([PLAN])
    rung(monitor, 0.1)
    status = monitor.approve("maths")
    assert (status.state, status.step, status.epoch, status.audited) == ("ok", STEPS[0], 2, 0)


def test_approval_where_nothing_rang_forgets_nothing() -> None:
    monitor = Monitor([PLAN])
    for one in traffic(0.01, 500):
        monitor.see("maths", one)
    before = monitor.dump()
    monitor.approve("maths")
    assert monitor.dump() == before


def test_answers_of_an_earlier_threshold_say_nothing_about_this_one() -> None:
    monitor = Monitor([PLAN])
    rung(monitor, 0.1)
    for one in traffic(1.0, 1_000, epoch=0):
        assert monitor.see("maths", one) is None
    assert monitor.status("maths").stale == 1_000
    assert monitor.status("maths").audited == 0


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
    monitor = Monitor([PLAN])
    alarms = [alarm for _ in range(200) if (alarm := monitor.see("maths", seen(True, at=at))) is not None]
    assert [alarm.at_unix_s for alarm in alarms] == [None]
    assert json.dumps(monitor.dump(), allow_nan=False)


@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.0, 0.02, 0.3]), cut=st.integers(0, 300))
def test_a_restart_goes_on_with_the_same_numbers(seed: int, rate: float, cut: int) -> None:
    stream = traffic(rate, 300, seed=seed)
    straight, first = Monitor([PLAN]), Monitor([PLAN])
    for one in stream:
        straight.see("maths", one)
    for one in stream[:cut]:
        first.see("maths", one)
    second = Monitor([PLAN])
    second.restore(json.loads(json.dumps(first.dump(), allow_nan=False)))
    for one in stream[cut:]:
        second.see("maths", one)
    assert second.dump() == straight.dump()


def test_evidence_gathered_under_another_plan_is_refused() -> None:
    saved = Monitor([PLAN]).dump()
    with pytest.raises(InputError, match="under another plan"):
        Monitor([replace(PLAN, limit=0.03)]).restore(saved)


@pytest.mark.parametrize("damage", [{"epoch": "many"}, {"plan": None}, {"rumour": 1}, {"detector": {"limit": 1}}])
def test_damaged_evidence_is_refused_and_nothing_is_taken_over(damage: dict[str, object]) -> None:
    monitor = Monitor([PLAN])
    saved = Monitor([PLAN]).dump()
    with pytest.raises(InputError, match="replay the ledger"):
        monitor.restore([{**saved[0], **damage}])
    assert monitor.dump() == saved


@pytest.mark.parametrize("damage", [{"at_step": 3}, {"at_step": -1}, {"detector": {"logs": []}}])
def test_evidence_that_contradicts_itself_is_refused(damage: dict[str, Any]) -> None:
    saved = Monitor([PLAN]).dump()[0]
    bad = {name: {**saved[name], **value} if isinstance(value, dict) else value for name, value in damage.items()}
    with pytest.raises(InputError, match="contradicts itself"):
        Monitor([PLAN]).restore([{**saved, **bad}])


def test_a_task_that_nobody_planned_for_is_deferred() -> None:
    monitor = Monitor([PLAN])
    assert monitor.step("law") == (ALWAYS_DEFER, 0)
    assert monitor.status("law") == UNWATCHED
    assert monitor.see("law", seen(True)) is None
    with pytest.raises(InputError, match='approve one of: "maths"'):
        monitor.approve("law")


def test_a_plan_for_all_watches_tasks_without_their_own() -> None:
    monitor = Monitor([PLAN, replace(PLAN, task=None)])
    monitor.see("law", seen(True))
    assert monitor.status("law").audited == 1
    assert monitor.status("maths").audited == 0


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


def test_two_plans_for_a_task_are_one_too_many() -> None:
    with pytest.raises(InputError, match="two plans"):
        Monitor([PLAN, PLAN])


def test_a_plan_without_steps_always_defers() -> None:
    assert Monitor([replace(PLAN, steps=())]).step("maths") == (ALWAYS_DEFER, 0)
