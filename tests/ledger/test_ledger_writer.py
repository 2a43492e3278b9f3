from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from corea.errors import LedgerError
from corea.ledger import Ledger, get_trace
from corea.ledger import writer as writer_module
from ledger.samples import sql, trace, url_of
from ledger.stores import Place


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with Ledger.open(place.url, busy_timeout_s=0.1) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def in_file(path: Path) -> Iterator[Ledger]:
    with Ledger.open(url_of(path), busy_timeout_s=0.1) as opened:
        yield opened


def stored_ids(place: Place) -> set[str]:
    return {id for (id,) in place.sql("SELECT id FROM traces")}


def commits_of(ledger: Ledger) -> list[int]:
    """Grows by one with each commit."""
    seen: list[int] = []
    event.listen(ledger.engine, "commit", lambda _: seen.append(1))
    return seen


def in_path(path: Path) -> set[str]:
    return {id for (id,) in sql(path, "SELECT id FROM traces")}


async def write_all(ledger: Ledger, traces: list[Any]) -> list[BaseException | None]:
    return await asyncio.gather(*(ledger.write(one) for one in traces), return_exceptions=True)


def test_a_written_trace_is_there_for_others_when_write_returns(ledger: Ledger, place: Place) -> None:
    async def go() -> None:
        one = trace(tiers=("small", "large"))
        await ledger.write(one)
        assert stored_ids(place) == {one.id}
        assert place.sql("SELECT position, tier FROM attempts ORDER BY 1") == [(0, "small"), (1, "large")]

    asyncio.run(go())


def test_a_trace_without_attempts_is_written(ledger: Ledger, place: Place) -> None:
    asyncio.run(ledger.write(trace(id="empty", tiers=())))
    assert stored_ids(place) == {"empty"}


def test_concurrent_writes_share_commits(ledger: Ledger, place: Place) -> None:
    commits = commits_of(ledger)
    failures = asyncio.run(write_all(ledger, [trace() for _ in range(300)]))
    assert failures == [None] * 300
    assert len(stored_ids(place)) == 300
    assert len(commits) < 30


def test_a_batch_is_never_larger_than_the_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH", 10)
    with Ledger.open(place.url) as ledger:
        commits = commits_of(ledger)
        assert asyncio.run(write_all(ledger, [trace() for _ in range(100)])) == [None] * 100
        assert len(commits) >= 10


def test_writing_a_trace_twice_keeps_the_first(ledger: Ledger, place: Place) -> None:
    async def go() -> None:
        await ledger.write(trace(id="one", task="first"))
        await ledger.write(trace(id="one", task="second", tiers=("small", "large")))
        assert await write_all(ledger, [trace(id="one"), trace(id="two"), trace(id="two")]) == [None] * 3

    asyncio.run(go())
    assert place.sql("SELECT id, task FROM traces ORDER BY id") == [("one", "first"), ("two", "maths")]
    assert place.sql("SELECT trace_id, count(*) FROM attempts GROUP BY 1 ORDER BY 1") == [("one", 1), ("two", 1)]


@pytest.mark.parametrize(
    "metadata",
    [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}],
    ids=["nan", "object", "set"],
)
def test_a_trace_that_cannot_be_stored_fails_alone(ledger: Ledger, place: Place, metadata: dict[str, Any]) -> None:
    good = [trace() for _ in range(5)]
    bad = trace(metadata=metadata)
    failures = asyncio.run(write_all(ledger, [*good, bad]))
    assert failures[:5] == [None] * 5
    assert isinstance(failures[5], LedgerError)
    assert stored_ids(place) == {one.id for one in good}


def test_a_number_too_large_for_any_database_fails_alone(ledger: Ledger, place: Place) -> None:
    good = trace()
    failures = asyncio.run(write_all(ledger, [good, trace(cost_nano_usd=2**63)]))
    assert failures[0] is None
    assert isinstance(failures[1], LedgerError)
    assert stored_ids(place) == {good.id}


def test_a_locked_database_fails_the_batch_and_the_next_one_is_written(ledger: Ledger, place: Place) -> None:
    async def go() -> None:
        await ledger.write(trace(id="before"))
        with place.stalled():
            failures = await write_all(ledger, [trace() for _ in range(3)])
        told = {str(failure) for failure in failures}
        assert len(told) == 1
        assert told.pop().endswith(": another process holds it; stop that one or try again")
        await ledger.write(trace(id="after"))

    asyncio.run(go())
    assert stored_ids(place) == {"before", "after"}


def test_a_full_disk_fails_the_batch_whole_and_the_next_one_is_written(in_file: Ledger, path: Path) -> None:
    pages = 40

    def limit(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    # SQLite then answers SQLITE_FULL as it does when the disk is full.
    in_file.engine.dispose()
    event.listen(in_file.engine, "connect", limit)

    async def go() -> None:
        nonlocal pages
        failures = await write_all(in_file, [trace(metadata={"filling": "x" * 5_000}) for _ in range(50)])
        assert any(failures)
        refused = [failure for failure in failures if failure is not None]
        assert all(isinstance(failure, LedgerError) and "make room on its disk" in str(failure) for failure in refused)
        assert len(in_path(path)) == 50 - len(refused)
        pages = 1_000_000
        in_file.engine.dispose()
        await in_file.write(trace(id="after"))

    asyncio.run(go())
    assert "after" in in_path(path)


def test_a_trace_and_its_attempts_are_written_together_or_not_at_all(ledger: Ledger, place: Place) -> None:
    def fail_late(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO attempts"):
            raise OSError(5, "Input/output error")

    event.listen(ledger.engine, "before_cursor_execute", fail_late)
    failures = asyncio.run(write_all(ledger, [trace(), trace()]))
    assert ["Input/output error" in str(failure) for failure in failures] == [True, True]
    assert stored_ids(place) == set()


def test_an_error_names_no_private_text(ledger: Ledger) -> None:
    with pytest.raises(LedgerError) as caught:
        asyncio.run(ledger.write(trace(metadata={"secret": {"hunter2"}})))
    assert "6 × 7" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cancelled_write_leaves_the_batch_alone_and_still_happens(ledger: Ledger, place: Place) -> None:
    async def go() -> None:
        with place.stalled():
            tasks = [asyncio.create_task(ledger.write(trace(id=str(i)))) for i in range(5)]
            await asyncio.sleep(0)
            tasks[2].cancel()
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for i, result in enumerate(results) if i != 2] == [type(None)] * 4
        assert isinstance(results[2], asyncio.CancelledError)

    asyncio.run(go())
    assert stored_ids(place) == {"0", "1", "2", "3", "4"}


def test_a_full_queue_makes_writers_wait_and_then_all_are_written(place: Place) -> None:
    async def go() -> None:
        async with Ledger.open(place.url, max_pending=3) as ledger:
            with place.stalled():
                tasks = [asyncio.create_task(ledger.write(trace(id=str(i)))) for i in range(20)]
                await asyncio.sleep(0.05)
                # Those who wait for room have not been queued: a cancelled one is not written, and blocks nobody.
                tasks[5].cancel()
                await asyncio.sleep(0)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[5], asyncio.CancelledError)
        assert results[:5] + results[6:] == [None] * 19

    asyncio.run(go())
    assert stored_ids(place) == {str(i) for i in range(20)} - {"5"}


def test_event_loops_in_several_threads_share_a_ledger(ledger: Ledger, place: Place) -> None:
    failures: list[BaseException | None] = []

    def run() -> None:
        failures.extend(asyncio.run(write_all(ledger, [trace() for _ in range(50)])))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [None] * 200
    assert len(stored_ids(place)) == 200


def test_a_loop_that_ended_meanwhile_does_not_stop_the_writer(ledger: Ledger, place: Place) -> None:
    async def leave() -> None:
        task = asyncio.create_task(ledger.write(trace(id="left behind")))
        await asyncio.sleep(0)
        task.cancel()

    with place.stalled():
        asyncio.run(leave())
    asyncio.run(ledger.write(trace(id="after")))
    assert stored_ids(place) == {"left behind", "after"}


def test_closing_writes_what_is_queued_and_ends_the_thread(place: Place) -> None:
    async def go() -> None:
        ledger = Ledger.open(place.url)
        tasks = [asyncio.create_task(ledger.write(trace())) for _ in range(100)]
        await asyncio.sleep(0)
        await ledger.aclose()
        await asyncio.gather(*tasks)

    asyncio.run(go())
    assert len(stored_ids(place)) == 100
    assert not [thread for thread in threading.enumerate() if thread.name == "corea-ledger"]
    assert place.kind != "sqlite" or not place.path.with_name("ledger.db-wal").exists()


def test_closing_wakes_those_who_wait_for_room(place: Place) -> None:
    async def go() -> None:
        ledger = Ledger.open(place.url, max_pending=1)
        with place.stalled():
            tasks = [asyncio.create_task(ledger.write(trace())) for _ in range(5)]
            await asyncio.sleep(0.02)
            closing = asyncio.create_task(ledger.aclose())
            await asyncio.sleep(0.02)
        await closing
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] is None
        assert ["the ledger is closed" in str(result) for result in results[1:]] == [True] * 4

    asyncio.run(go())


def test_a_closed_ledger_refuses_writes_and_may_be_closed_again(place: Place) -> None:
    ledger = Ledger.open(place.url)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="the ledger is closed"):
        asyncio.run(ledger.write(trace()))


def test_opening_starts_no_thread(ledger: Ledger) -> None:
    assert not [thread for thread in threading.enumerate() if thread.name == "corea-ledger"]
    asyncio.run(ledger.write(trace(id="x")))
    assert get_trace(ledger, "x").id == "x"
    assert [thread for thread in threading.enumerate() if thread.name == "corea-ledger"]
