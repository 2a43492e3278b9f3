"""What the ledger tells a budget: the money and the requests of all replicas, and those not yet written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corea.errors import LedgerError
from corea.ledger import Ledger
from corea.policy.budget import Budget
from corea.policy.hours import LedgerHours
from corea.policy.spent import HOUR_S, Hour
from corea.types import Trace
from policy.driven import LARGE_NANO_USD, SMALL_NANO_USD, Driven, Wall

NOON_S = 1_800_000 * float(HOUR_S)
EACH = SMALL_NANO_USD + LARGE_NANO_USD


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def reading(ledger: Ledger, clock: Wall, *, task: str | None = None) -> LedgerHours:
    return LedgerHours(ledger, task=task, clock=clock, wall_clock=Wall(NOON_S))


def written(ledger: Ledger, *traces: Trace) -> None:
    async def write() -> None:
        for trace in traces:
            await ledger.write(trace)

    asyncio.run(write())


def asked(n: int, *, at_s: float = NOON_S, task: str | None = None, name: str = "") -> list[Trace]:
    """Deferred ones."""
    day = Driven([], wall=Wall(at_s))
    for _ in range(n):
        day.ask(0.1, task=task)
    return [_named(trace, f"{name}{trace.id}") for trace in day.traces]


def _named(trace: Trace, id: str) -> Trace:
    return replace(trace, id=id)


def test_a_process_begins_with_what_the_ledger_holds(ledger: Ledger) -> None:
    written(ledger, *asked(3), *asked(2, at_s=NOON_S - HOUR_S, name="before"))
    found = reading(ledger, Wall()).hours()
    at = int(NOON_S // HOUR_S)
    assert dict(found) == {
        at: Hour(requests=3, nano_usd=3 * EACH),
        at - 1: Hour(requests=2, nano_usd=2 * EACH),
    }


def test_an_own_request_counts_at_once_and_once_only_when_it_is_written(ledger: Ledger) -> None:
    clock = Wall()
    hours = reading(ledger, clock)
    (trace,) = asked(1)
    hours.note(trace)
    assert sum(hour.requests for hour in hours.hours().values()) == 1
    written(ledger, trace)
    clock.now_s = 60.0
    hours.refresh()
    assert sum(hour.nano_usd for hour in hours.hours().values()) == EACH


def test_a_request_that_is_not_written_yet_is_not_forgotten_by_reading(ledger: Ledger) -> None:
    hours = reading(ledger, Wall())
    hours.note(asked(1)[0])
    hours.refresh()
    assert sum(hour.nano_usd for hour in hours.hours().values()) == EACH


def test_another_replicas_requests_count_once_they_are_read_and_stay_when_it_dies(ledger: Ledger) -> None:
    clock = Wall()
    ours, theirs = reading(ledger, clock), reading(ledger, clock)
    traces = asked(4, name="theirs")
    for trace in traces:
        theirs.note(trace)
    written(ledger, *traces)
    del theirs
    ours.refresh()
    assert sum(hour.requests for hour in ours.hours().values()) == 4


def test_what_was_read_is_read_again_in_the_background_once_it_is_old(ledger: Ledger) -> None:
    clock = Wall()
    hours = reading(ledger, clock)
    written(ledger, *asked(2))
    assert hours.hours() == {}
    clock.now_s = 5.0
    hours.hours()
    assert hours._reading is not None
    hours._reading.join(10)
    assert sum(hour.requests for hour in hours.hours().values()) == 2


def test_a_task_counts_its_own_requests_alone(ledger: Ledger) -> None:
    written(ledger, *asked(2, task="maths"), *asked(3, task="history", name="h"))
    hours = reading(ledger, Wall(), task="maths")
    hours.note(asked(1, task="history")[0])
    assert sum(hour.requests for hour in hours.hours().values()) == 2


def test_a_database_that_is_away_is_told_at_the_beginning_and_borne_later(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Wall()
    written(ledger, *asked(2))
    hours = reading(ledger, clock)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE rollups RENAME TO gone")
    with pytest.raises(LedgerError):
        reading(ledger, clock)
    clock.now_s = 10.0
    hours.hours()
    assert hours._reading is not None
    hours._reading.join(10)
    assert "the last figures are gone by" in caplog.text
    assert sum(hour.requests for hour in hours.hours().values()) == 2


def test_two_replicas_and_one_that_begins_anew_hold_one_budget_over_one_ledger(ledger: Ledger) -> None:
    n, wall, rng = 1_200, Wall(NOON_S), random.Random(1)
    nano_usd = n * (SMALL_NANO_USD + LARGE_NANO_USD // 2)

    def replica() -> Driven:
        spent = LedgerHours(ledger, clock=wall, wall_clock=wall, ttl_s=1e9)
        budget = Budget(
            nano_usd=nano_usd, per="hour", tiers=("small", "large"), spent=spent, wall_clock=wall, floored=False
        )
        return Driven([budget], wall=wall)

    replicas, total = [replica(), replica()], 0
    for at in range(n):
        wall.now_s = NOON_S + HOUR_S * at / n
        if at == n // 2:
            # Killed, and another one in its place, which knows only the ledger.
            replicas[1] = replica()
        one = replicas[at % 2]
        trace = _named(one.ask(rng.random(), question=str(at)), f"t{at}")
        total += trace.cost_nano_usd or 0
        written(ledger, trace)
        if at % 20 == 0:
            for each in replicas:
                budget = each.policies[0]
                assert isinstance(budget, Budget)
                assert isinstance(budget._spent, LedgerHours)
                budget._spent.refresh()
    assert total == pytest.approx(nano_usd, rel=0.02)
