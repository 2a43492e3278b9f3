from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from corea.errors import LedgerError
from corea.ledger import Ledger, get_trace
from corea.ledger import writer as writer_module
from ledger.samples import sql, trace, url_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(url_of(path), busy_timeout_s=0.1) as opened:
        yield opened


@contextmanager
def stalled(path: Path) -> Iterator[None]:
    """Another process holds the write lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def stored_ids(path: Path) -> set[str]:
    return {id for (id,) in sql(path, "SELECT id FROM traces")}


def commits_of(ledger: Ledger) -> list[int]:
    """Grows by one with each commit."""
    seen: list[int] = []
    event.listen(ledger.engine, "commit", lambda _: seen.append(1))
    return seen


async def write_all(ledger: Ledger, traces: list[Any]) -> list[BaseException | None]:
    return await asyncio.gather(*(ledger.write(one) for one in traces), return_exceptions=True)


def test_a_written_trace_is_there_for_others_when_write_returns(ledger: Ledger, path: Path) -> None:
    async def go() -> None:
        one = trace(tiers=("small", "large"))
        await ledger.write(one)
        assert stored_ids(path) == {one.id}
        assert sql(path, "SELECT position, tier FROM attempts ORDER BY 1") == [(0, "small"), (1, "large")]

    asyncio.run(go())


def test_a_trace_without_attempts_is_written(ledger: Ledger, path: Path) -> None:
    asyncio.run(ledger.write(trace(id="empty", tiers=())))
    assert stored_ids(path) == {"empty"}


def test_concurrent_writes_share_commits(ledger: Ledger, path: Path) -> None:
    commits = commits_of(ledger)
    failures = asyncio.run(write_all(ledger, [trace() for _ in range(300)]))
    assert failures == [None] * 300
    assert len(stored_ids(path)) == 300
    assert len(commits) < 30


def test_a_batch_is_never_larger_than_the_limit(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH", 10)
    commits = commits_of(ledger)
    assert asyncio.run(write_all(ledger, [trace() for _ in range(100)])) == [None] * 100
    assert len(commits) >= 10


def test_writing_a_trace_twice_keeps_the_first(ledger: Ledger, path: Path) -> None:
    async def go() -> None:
        await ledger.write(trace(id="one", task="first"))
        await ledger.write(trace(id="one", task="second", tiers=("small", "large")))
        assert await write_all(ledger, [trace(id="one"), trace(id="two"), trace(id="two")]) == [None] * 3

    asyncio.run(go())
    assert sql(path, "SELECT id, task FROM traces ORDER BY id") == [("one", "first"), ("two", "maths")]
    assert sql(path, "SELECT trace_id, count(*) FROM attempts GROUP BY 1 ORDER BY 1") == [("one", 1), ("two", 1)]


@pytest.mark.parametrize(
    "metadata",
    [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}],
    ids=["nan", "object", "set"],
)
def test_a_trace_that_cannot_be_stored_fails_alone(ledger: Ledger, path: Path, metadata: dict[str, Any]) -> None:
    good = [trace() for _ in range(5)]
    bad = trace(metadata=metadata)
    failures = asyncio.run(write_all(ledger, [*good, bad]))
    assert failures[:5] == [None] * 5
    assert isinstance(failures[5], LedgerError)
    assert stored_ids(path) == {one.id for one in good}


def test_a_number_too_large_for_any_database_fails_alone(ledger: Ledger, path: Path) -> None:
    good = trace()
    failures = asyncio.run(write_all(ledger, [good, trace(cost_nano_usd=2**63)]))
    assert failures[0] is None
    assert isinstance(failures[1], LedgerError)
    assert stored_ids(path) == {good.id}


def test_a_locked_database_fails_the_batch_and_the_next_one_is_written(ledger: Ledger, path: Path) -> None:
    async def go() -> None:
        await ledger.write(trace(id="before"))
        with stalled(path):
            failures = await write_all(ledger, [trace() for _ in range(3)])
        assert [str(failure) for failure in failures] == [
            f"ledger {path}: database is locked: another process holds it; stop that one or try again"
        ] * 3
        await ledger.write(trace(id="after"))

    asyncio.run(go())
    assert stored_ids(path) == {"before", "after"}


def test_a_full_disk_fails_the_batch_whole_and_the_next_one_is_written(ledger: Ledger, path: Path) -> None:
    pages = 40

    def limit(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    # SQLite then answers SQLITE_FULL as it does when the disk is full.
    ledger.engine.dispose()
    event.listen(ledger.engine, "connect", limit)

    async def go() -> None:
        nonlocal pages
        failures = await write_all(ledger, [trace(metadata={"filling": "x" * 5_000}) for _ in range(50)])
        assert any(failures)
        refused = [failure for failure in failures if failure is not None]
        assert all(isinstance(failure, LedgerError) and "make room on its disk" in str(failure) for failure in refused)
        assert len(stored_ids(path)) == 50 - len(refused)
        pages = 1_000_000
        ledger.engine.dispose()
        await ledger.write(trace(id="after"))

    asyncio.run(go())
    assert "after" in stored_ids(path)


def test_a_trace_and_its_attempts_are_written_together_or_not_at_all(ledger: Ledger, path: Path) -> None:
    def fail_late(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO attempts"):
            raise OSError(5, "Input/output error")

    event.listen(ledger.engine, "before_cursor_execute", fail_late)
    failures = asyncio.run(write_all(ledger, [trace(), trace()]))
    assert ["Input/output error" in str(failure) for failure in failures] == [True, True]
    assert stored_ids(path) == set()


def test_an_error_names_no_private_text(ledger: Ledger) -> None:
    with pytest.raises(LedgerError) as caught:
        asyncio.run(ledger.write(trace(metadata={"secret": {"hunter2"}})))
    assert "6 × 7" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cancelled_write_leaves_the_batch_alone_and_still_happens(ledger: Ledger, path: Path) -> None:
    async def go() -> None:
        with stalled(path):
            tasks = [asyncio.create_task(ledger.write(trace(id=str(i)))) for i in range(5)]
            await asyncio.sleep(0)
            tasks[2].cancel()
            await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for i, result in enumerate(results) if i != 2] == [type(None)] * 4
        assert isinstance(results[2], asyncio.CancelledError)

    asyncio.run(go())
    assert stored_ids(path) == {"0", "1", "2", "3", "4"}


def test_a_full_queue_makes_writers_wait_and_then_all_are_written(path: Path) -> None:
    async def go() -> None:
        async with Ledger.open(url_of(path), max_pending=3) as ledger:
            with stalled(path):
                tasks = [asyncio.create_task(ledger.write(trace(id=str(i)))) for i in range(20)]
                await asyncio.sleep(0.05)
                # Those who wait for room have not been queued: a cancelled one is not written, and blocks nobody.
                tasks[5].cancel()
                await asyncio.sleep(0)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[5], asyncio.CancelledError)
        assert results[:5] + results[6:] == [None] * 19

    asyncio.run(go())
    assert stored_ids(path) == {str(i) for i in range(20)} - {"5"}


def test_event_loops_in_several_threads_share_a_ledger(ledger: Ledger, path: Path) -> None:
    failures: list[BaseException | None] = []

    def run() -> None:
        failures.extend(asyncio.run(write_all(ledger, [trace() for _ in range(50)])))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [None] * 200
    assert len(stored_ids(path)) == 200


def test_a_loop_that_ended_meanwhile_does_not_stop_the_writer(ledger: Ledger, path: Path) -> None:
    async def leave() -> None:
        task = asyncio.create_task(ledger.write(trace(id="left behind")))
        await asyncio.sleep(0)
        task.cancel()

    with stalled(path):
        asyncio.run(leave())
    asyncio.run(ledger.write(trace(id="after")))
    assert stored_ids(path) == {"left behind", "after"}


def test_closing_writes_what_is_queued_and_ends_the_thread(path: Path) -> None:
    async def go() -> None:
        ledger = Ledger.open(url_of(path))
        tasks = [asyncio.create_task(ledger.write(trace())) for _ in range(100)]
        await asyncio.sleep(0)
        await ledger.aclose()
        await asyncio.gather(*tasks)

    asyncio.run(go())
    assert len(stored_ids(path)) == 100
    assert not [thread for thread in threading.enumerate() if thread.name == "corea-ledger"]
    assert not path.with_name("ledger.db-wal").exists()


def test_closing_wakes_those_who_wait_for_room(path: Path) -> None:
    async def go() -> None:
        ledger = Ledger.open(url_of(path), max_pending=1)
        with stalled(path):
            tasks = [asyncio.create_task(ledger.write(trace())) for _ in range(5)]
            await asyncio.sleep(0.02)
            closing = asyncio.create_task(ledger.aclose())
            await asyncio.sleep(0.02)
        await closing
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] is None
        assert ["the ledger is closed" in str(result) for result in results[1:]] == [True] * 4

    asyncio.run(go())


def test_a_closed_ledger_refuses_writes_and_may_be_closed_again(path: Path) -> None:
    ledger = Ledger.open(url_of(path))
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="the ledger is closed"):
        asyncio.run(ledger.write(trace()))


def test_opening_starts_no_thread(ledger: Ledger) -> None:
    assert not [thread for thread in threading.enumerate() if thread.name == "corea-ledger"]
    asyncio.run(ledger.write(trace(id="x")))
    assert get_trace(ledger, "x").id == "x"
    assert [thread for thread in threading.enumerate() if thread.name == "corea-ledger"]
