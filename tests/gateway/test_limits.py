"""Limits over several replicas, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from corea.errors import LedgerError
from corea.gateway.limits import Limiter
from corea.ledger import Ledger
from corea.ledger.keys import Key, Limits
from corea.ledger.quota import Granted, Refused
from corea.ledger.spending import day_of, spent_nano_usd
from corea.types import Trace
from ledger.samples import trace
from ledger.stores import KINDS, Place, fresh

NOON = 1_772_280_000.0
ROOT = Path(__file__).parents[1]


def key(id: str = "k1", **limits: int) -> Key:
    return Key(id=id, name=id, limits=Limits(**limits), created_at_unix_s=0.0)


def of(granted: Granted, *, cost_nano_usd: int | None, at_s: float = NOON) -> Trace:
    """The trace of a request that was let in."""
    return replace(trace(cost_nano_usd=cost_nano_usd, started_at_unix_s=at_s), metadata=granted.metadata)


def granted(decision: Granted | Refused) -> Granted:
    assert isinstance(decision, Granted)
    return decision


def refused(decision: Granted | Refused) -> Refused:
    assert isinstance(decision, Refused)
    return decision


def test_a_key_without_limits_does_not_touch_the_database(place: Place) -> None:
    async def go() -> None:
        with Ledger.open(place.url) as ledger:
            limiter = Limiter(ledger)
            decision = granted(await limiter.reserve(key(), tokens=5, nano_usd=7))
            await limiter.settle(decision, tokens=5)
            assert not [thread for thread in threading.enumerate() if thread.name == "corea-limits"]
            assert decision.metadata == {"key": "k1", "reservation": decision.id, "reserved_nano_usd": 7}

    asyncio.run(go())


def test_replicas_that_let_in_at_once_let_in_exactly_the_limit(place: Place) -> None:
    """Real threads, each with an engine of its own, and time as it is."""
    decisions: list[Granted | Refused] = []

    async def ask(limiter: Limiter) -> None:
        one = key(requests_per_minute=25)
        decisions.extend(await asyncio.gather(*(limiter.reserve(one, tokens=1, nano_usd=0) for _ in range(15))))

    def replica() -> None:
        async def go() -> None:
            async with Ledger.open(place.url) as ledger, Limiter(ledger) as limiter:
                for _ in range(2):
                    await ask(limiter)

        asyncio.run(go())

    threads = [threading.Thread(target=replica) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decisions) == 120
    assert sum(isinstance(decision, Granted) for decision in decisions) == 25
    assert len({decision.id for decision in decisions if isinstance(decision, Granted)}) == 25


def test_processes_that_let_in_at_once_let_in_exactly_the_limit(place: Place) -> None:
    command = [sys.executable, "-m", "gateway.replica", place.url, "100", "60"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen(command, text=True, cwd=ROOT, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    told = [child.communicate(timeout=60)[0] for child in _all_told(children)]
    assert [child.returncode for child in children] == [0] * 3
    assert sum(int(said) for said in told) == 100


def _all_told(children: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return children


def test_money_set_aside_is_spent_by_the_trace_exactly_once(place: Place, ledger: Ledger) -> None:
    one = key(day_nano_usd=100)

    async def go() -> None:
        async with Limiter(ledger, clock=lambda: NOON) as limiter:
            first = granted(await limiter.reserve(one, tokens=1, nano_usd=60))
            assert refused(await limiter.reserve(one, tokens=1, nano_usd=41)).used == 60
            written = of(first, cost_nano_usd=30)
            await ledger.write(written)
            await ledger.write(written)
            await asyncio.gather(*(ledger.write(written) for _ in range(3)))
            assert place.sql("SELECT count(*) FROM reservations") == [(0,)]
            await limiter.settle(first, tokens=1)
            assert refused(await limiter.reserve(one, tokens=1, nano_usd=71)).used == 30
            granted(await limiter.reserve(one, tokens=1, nano_usd=70))

    asyncio.run(go())
    assert spent_nano_usd(ledger, "k1", since_day=day_of(NOON)) == 30


def test_a_cost_that_is_not_known_is_charged_as_it_was_set_aside(ledger: Ledger) -> None:
    async def go() -> None:
        async with Limiter(ledger, clock=lambda: NOON) as limiter:
            first = granted(await limiter.reserve(key(day_nano_usd=10_000), tokens=1, nano_usd=6_000))
            await ledger.write(of(first, cost_nano_usd=None))

    asyncio.run(go())
    assert spent_nano_usd(ledger, "k1", since_day=0) == 6_000


def test_a_reservation_whose_process_died_expires(ledger: Ledger) -> None:
    now = NOON
    one = key(day_nano_usd=100)

    async def go() -> None:
        nonlocal now
        async with Limiter(ledger, clock=lambda: now) as limiter:
            granted(await limiter.reserve(one, tokens=1, nano_usd=100, expires_s=50.0))
            now += 49.0
            assert refused(await limiter.reserve(one, tokens=1, nano_usd=1)).retry_after_s == 1.0
            now += 1.0
            late = granted(await limiter.reserve(one, tokens=1, nano_usd=100, expires_s=50.0))
            now += 20_000.0
            # What is written after all is charged after all.
            await ledger.write(of(late, cost_nano_usd=90))
            assert refused(await limiter.reserve(one, tokens=1, nano_usd=11)).used == 90

    asyncio.run(go())


def test_what_crashed_processes_left_is_deleted_in_time(place: Place, ledger: Ledger) -> None:
    now = NOON

    async def go() -> None:
        nonlocal now
        async with Limiter(ledger, clock=lambda: now) as limiter:
            granted(await limiter.reserve(key(day_nano_usd=100), tokens=1, nano_usd=1, expires_s=50.0))
            now += 7_300.0
            granted(await limiter.reserve(key("k2", requests_per_minute=5), tokens=1, nano_usd=1))

    asyncio.run(go())
    assert place.sql("SELECT count(*) FROM reservations") == [(0,)]


def test_settling_twice_counts_once(ledger: Ledger) -> None:
    one = key(tokens_per_minute=100)

    async def go() -> None:
        async with Limiter(ledger, clock=lambda: NOON) as limiter:
            first = granted(await limiter.reserve(one, tokens=90, nano_usd=0))
            await limiter.settle(first, tokens=50)
            await limiter.settle(first, tokens=50)
            assert refused(await limiter.reserve(one, tokens=51, nano_usd=0)).used == 50
            granted(await limiter.reserve(one, tokens=50, nano_usd=0))

    asyncio.run(go())


def test_tokens_that_nobody_counted_stay_as_estimated(ledger: Ledger) -> None:
    async def go() -> None:
        async with Limiter(ledger, clock=lambda: NOON) as limiter:
            first = granted(await limiter.reserve(key(tokens_per_minute=100), tokens=90, nano_usd=0))
            await limiter.settle(first, tokens=None)
            assert refused(await limiter.reserve(key(tokens_per_minute=100), tokens=11, nano_usd=0)).used == 90

    asyncio.run(go())


def test_keys_do_not_share_limits_and_a_batch_may_hold_many_keys(ledger: Ledger) -> None:
    keys = [key(f"k{i % 7}", requests_per_minute=2) for i in range(28)]

    async def go() -> list[Granted | Refused]:
        async with Limiter(ledger, clock=lambda: NOON) as limiter:
            return await asyncio.gather(*(limiter.reserve(one, tokens=1, nano_usd=0) for one in keys))

    assert [isinstance(decision, Granted) for decision in asyncio.run(go())] == [True] * 14 + [False] * 14


def test_a_database_that_is_away_is_an_error_and_not_a_way_in(place: Place) -> None:
    async def go() -> None:
        with Ledger.open(place.url) as ledger:
            async with Limiter(ledger, patience_s=0.1) as limiter:
                place.sql("ALTER TABLE windows RENAME TO gone")
                try:
                    with pytest.raises(LedgerError, match="windows"):
                        await limiter.reserve(key(requests_per_minute=5), tokens=1, nano_usd=0)
                finally:
                    place.sql("ALTER TABLE gone RENAME TO windows")
                granted(await limiter.reserve(key(requests_per_minute=5), tokens=1, nano_usd=0))

    asyncio.run(go())


REQUESTS, TOKENS, DAY = 4, 60, 500


class Replicas(RuleBasedStateMachine):
    """Three replicas on one ledger: they let in, end, crash and restart in any order, at any pace."""

    place: Place

    @initialize()
    def start(self) -> None:
        self.stack = ExitStack()
        for table in ("windows", "reservations", "spend", "attempts", "traces", "rollups"):
            self.place.sql(f"DELETE FROM {table}")
        self.now = NOON
        self.runner = self.stack.enter_context(asyncio.Runner())
        self.ledgers = [self.stack.enter_context(Ledger.open(self.place.url)) for _ in range(3)]
        self.limiters = [Limiter(ledger, clock=lambda: self.now) for ledger in self.ledgers]
        #: (when, tokens as estimated, and as used)
        self.let_in: list[list[float]] = []
        self.running: list[tuple[int, Granted, list[float]]] = []
        self.spent: dict[str, int] = {}

    @rule(replica=st.integers(0, 2), tokens=st.integers(1, 40), nano_usd=st.integers(0, 150), count=st.integers(1, 4))
    def ask(self, replica: int, tokens: int, nano_usd: int, count: int) -> None:
        one = key(requests_per_minute=REQUESTS, tokens_per_minute=TOKENS, day_nano_usd=DAY)

        async def go() -> list[Granted | Refused]:
            asked = (self.limiters[replica].reserve(one, tokens=tokens, nano_usd=nano_usd, expires_s=90.0)
                     for _ in range(count))  # fmt: skip
            return await asyncio.gather(*asked)

        for decision in self.runner.run(go()):
            if isinstance(decision, Granted):
                self.let_in.append([self.now, float(tokens)])
                self.running.append((replica, decision, self.let_in[-1]))

    @rule(pause_s=st.floats(0, 40) | st.sampled_from([0.999, 1.0, 59.5, 60.0, 61.0]))
    def wait(self, pause_s: float) -> None:
        """Requests have a deadline, well before their reservation expires."""
        self.now += pause_s
        self.running = [entry for entry in self.running if entry[2][0] > self.now - 80.0]

    @rule(data=st.data(), used=st.floats(0, 1))
    def end(self, data: st.DataObject, used: float) -> None:
        """As the gateway does: the trace, twice as after a lost answer, then the settlement, twice as well."""
        if not self.running:
            return
        replica, one, counted = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        cost, tokens = int(one.nano_usd * used), int(one.tokens * used)
        written = of(one, cost_nano_usd=cost, at_s=self.now)

        async def go() -> None:
            for _ in range(2):
                await self.ledgers[replica].write(written)
            for _ in range(2):
                await self.limiters[replica].settle(one, tokens=tokens)

        self.runner.run(go())
        counted[1] = float(tokens)
        self.spent[written.id] = cost

    @rule(replica=st.integers(0, 2))
    def crash(self, replica: int) -> None:
        """Whatever it had let in is never heard of again."""
        self.limiters[replica].close()
        self.limiters[replica] = Limiter(self.ledgers[replica], clock=lambda: self.now)
        self.running = [entry for entry in self.running if entry[0] != replica]

    @invariant()
    def no_limit_is_broken(self) -> None:
        for start, _ in self.let_in:
            window = [tokens for at, tokens in self.let_in if start <= at < start + 60.0]
            assert len(window) <= REQUESTS
            assert sum(window) <= TOKENS
        assert sum(self.spent.values()) <= DAY
        with_now = spent_nano_usd(self.ledgers[0], "k1", since_day=0)
        assert with_now == sum(self.spent.values())

    def teardown(self) -> None:
        for limiter in getattr(self, "limiters", []):
            limiter.close()
        if hasattr(self, "stack"):
            self.stack.close()


@pytest.mark.parametrize("kind", KINDS)
def test_no_interleaving_of_replicas_lets_in_more_than_the_limits(kind: str, tmp_path: Path) -> None:
    with fresh(kind, tmp_path) as place:
        machine = type("OnePlace", (Replicas,), {"place": place})
        run_state_machine_as_test(
            machine,
            settings=settings(
                deadline=None,
                max_examples=15 if kind == "sqlite" else 6,
                stateful_step_count=25,
                suppress_health_check=list(HealthCheck),
            ),
        )
