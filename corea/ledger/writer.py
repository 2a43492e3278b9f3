"""Writes traces: an async front, one thread behind it. Knows nothing of questions about them; see ``queries``.

Whatever queued while one commit ran goes into the next one, so the dearer a commit is, the more traces share it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from corea.errors import LedgerError
from corea.ledger.database import BUSY_TIMEOUT_S, explain, identity, open_engine
from corea.ledger.records import attempt_rows, trace_row
from corea.ledger.schema import attempts, traces
from corea.types import Trace

MAX_BATCH = 500
MAX_PENDING = 10_000

_INSERT_TRACES = insert(traces)
_INSERT_ATTEMPTS = insert(attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    trace: Trace
    loop: asyncio.AbstractEventLoop
    written: asyncio.Future[None]


class Ledger:
    """The ledger, open for writing. ``write`` may be called from any event loop in any thread.

    Close it, or use it as a (sync or async) context manager; unclosed, the process may end before the last traces are
    written, though never before one whose ``write`` has returned.
    """

    def __init__(self, engine: Engine, *, store_texts: bool = True, max_pending: int = MAX_PENDING) -> None:
        """Takes over an engine from ``database.open_engine``."""
        self.engine = engine
        self._store_texts = store_texts
        self._max_pending = max_pending
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        # Guards the fields below.
        self._lock = threading.Lock()
        self._pending = 0
        self._waiting_for_room: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        store_texts: bool = True,
        max_pending: int = MAX_PENDING,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Self:
        """The ledger at ``url``, by default ``corea.paths.ledger_url()``. Created or upgraded where needed.

        ``store_texts=False`` keeps messages, replies and answers out of it. Raises LedgerError.
        """
        engine = open_engine(url, create=True, busy_timeout_s=busy_timeout_s)
        return cls(engine, store_texts=store_texts, max_pending=max_pending)

    async def write(self, trace: Trace) -> None:
        """Returns when the trace is committed: kill -9 can't lose it. A trace whose id is there is not written again.

        Raises LedgerError when it could not be written. Once queued, a cancelled write still happens: the money it
        tells of is spent. With ``max_pending`` traces queued, waits for room first.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(trace=trace, loop=loop, written=loop.create_future())
        while (room := self._enqueue(entry)) is not None:
            await room
        await entry.written

    def close(self) -> None:
        """Writes what is queued, then ends the thread. Closing twice is fine."""
        with self._lock:
            thread, self._thread, self._closed = self._thread, None, True
        if thread is not None:
            self._queue.put(None)
            thread.join()
        self.engine.dispose()

    async def aclose(self) -> None:
        """``close`` without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _enqueue(self, entry: _Entry) -> asyncio.Future[None] | None:
        """Queues the entry, or returns a future that ends when it is worth trying again."""
        with self._lock:
            if self._closed:
                raise LedgerError("the ledger is closed; open it again to write")
            if self._pending >= self._max_pending:
                room = entry.loop.create_future()
                self._waiting_for_room.append((entry.loop, room))
                return room
            self._pending += 1
            self._queue.put(entry)
            if self._thread is None:
                # A daemon, or a ledger that nobody closes would keep the process alive.
                self._thread = threading.Thread(target=self._run, name="corea-ledger", daemon=True)
                self._thread.start()
        return None

    def _run(self) -> None:
        writer = _Writer(self.engine, store_texts=self._store_texts)
        while batch := self._next_batch():
            self._announce(batch, writer.store([entry.trace for entry in batch]))
        writer.close()

    def _next_batch(self) -> list[_Entry]:
        """Waits for an entry and takes what else is there; empty at the end."""
        batch: list[_Entry] = []
        entry = self._queue.get()
        while entry is not None:
            batch.append(entry)
            if len(batch) == MAX_BATCH:
                return batch
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return batch
        if batch:
            self._queue.put(None)
        return batch

    def _announce(self, batch: Sequence[_Entry], failures: Sequence[LedgerError | None]) -> None:
        with self._lock:
            self._pending -= len(batch)
            waiting, self._waiting_for_room = self._waiting_for_room, []
        endings: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], LedgerError | None]]]
        endings = defaultdict(list)
        for entry, failure in zip(batch, failures, strict=True):
            endings[entry.loop].append((entry.written, failure))
        # Everyone who waits for room is woken: one who was cancelled meanwhile can't take another's turn with it.
        for loop, room in waiting:
            endings[loop].append((room, None))
        for loop, futures in endings.items():
            # RuntimeError: the loop is closed, and with it everyone who waited.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_end, futures)


def _end(futures: Sequence[tuple[asyncio.Future[None], LedgerError | None]]) -> None:
    for future, failure in futures:
        if future.done():
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)


class _Writer:
    """The thread's side: one connection, one transaction a batch. Never raises."""

    def __init__(self, engine: Engine, *, store_texts: bool) -> None:
        self._engine = engine
        self._store_texts = store_texts
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None

    def store(self, batch: Sequence[Trace]) -> list[LedgerError | None]:
        """Commits the batch and says for each trace what went wrong, if anything did."""
        try:
            self._insert(batch)
        except Exception as exc:  # noqa: BLE001  Whatever it is, somebody waits for the answer.
            self.close()
            return self._store_rest(batch, exc)
        return [None] * len(batch)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(DBAPIError):
            # After an error, a pooled connection could bring the same error back.
            connection.invalidate()
            connection.close()

    def _insert(self, batch: Sequence[Trace]) -> None:
        trace_rows = [trace_row(trace, store_texts=self._store_texts) for trace in batch]
        rows = [row for trace in batch for row in attempt_rows(trace, store_texts=self._store_texts)]
        connection = self._connect()
        with connection.begin():
            connection.execute(_INSERT_TRACES, trace_rows)
            if rows:
                connection.execute(_INSERT_ATTEMPTS, rows)

    def _connect(self) -> Connection:
        """The open connection, or a new one. SQLite writes into a deleted file without a word, so that is checked."""
        if self._connection is not None and identity(self._engine) != self._file:
            self.close()
            self._engine.dispose()
        if self._connection is None:
            self._connection, self._file = self._engine.connect(), identity(self._engine)
        return self._connection

    def _store_rest(self, batch: Sequence[Trace], exc: Exception) -> list[LedgerError | None]:
        if not _lies_in_a_trace(exc):
            return [explain(self._engine, exc) for _ in batch]
        if len(batch) > 1:
            # One of them is there already or can't be stored; the others are not to suffer for it.
            return [failure for trace in batch for failure in self.store([trace])]
        if isinstance(exc, IntegrityError) and self._is_stored(batch[0].id):
            return [None]
        return [explain(self._engine, exc)]

    def _is_stored(self, trace_id: str) -> bool:
        with suppress(DBAPIError), self._engine.connect() as connection:
            return connection.scalar(select(traces.c.id).where(traces.c.id == trace_id)) is not None
        return False


def _lies_in_a_trace(exc: Exception) -> bool:
    """True if another trace could be written where this error came up; False if it is the database's own trouble."""
    if not isinstance(exc, DBAPIError):
        return True
    return isinstance(exc, IntegrityError | DataError | InterfaceError | ProgrammingError)
