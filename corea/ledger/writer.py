"""Writes traces: an async front, one thread behind it. Knows nothing of questions about them; see ``queries``.

Whatever queued while one commit ran goes into the next one, so the dearer a commit is, the more traces share it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, ProgrammingError

from corea.errors import LedgerError
from corea.ledger import feedback, postgres, rollups, spending
from corea.ledger.batches import MAX_BATCH, MAX_PENDING, Batches
from corea.ledger.database import BUSY_TIMEOUT_S, explain, identity, open_engine, turn
from corea.ledger.records import attempt_rows, trace_row
from corea.ledger.redaction import Redactor
from corea.ledger.schema import attempts, traces
from corea.types import Trace

#: Pauses between tries while a server is away: short first, because most are back at once.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5

_INSERT_TRACES = insert(traces)
_INSERT_ATTEMPTS = insert(attempts)


class Ledger:
    """The ledger, open for writing. ``write`` may be called from any event loop in any thread.

    Close it, or use it as a (sync or async) context manager; unclosed, the process may end before the last traces are
    written, though never before one whose ``write`` has returned.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        store_texts: bool = True,
        redact: Iterable[str] = (),
        max_pending: int = MAX_PENDING,
        patience_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Takes over an engine from ``database.open_engine``. ``patience_s``: how long a server may be away."""
        self.engine = engine
        redact = tuple(redact)
        self._redactor = Redactor(redact)
        #: Whether what was asked and answered may be kept as it is.
        self.stores_texts_whole = store_texts and not redact

        def worker() -> _Writer:
            return _Writer(engine, redactor=self._redactor, store_texts=store_texts, patience_s=patience_s)

        self._batches: Batches[Trace, None] = Batches(
            worker, name="corea-ledger", max_batch=MAX_BATCH, max_pending=max_pending
        )

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        store_texts: bool = True,
        redact: Iterable[str] = (),
        max_pending: int = MAX_PENDING,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Self:
        """The ledger at ``url``, by default ``corea.paths.ledger_url()``. Created or upgraded where needed.

        ``store_texts=False`` keeps messages, replies and answers out of it; ``redact`` are regular expressions, whose
        matches are kept out of all that is stored. A database that is busy or away is waited for ``busy_timeout_s``.
        Raises LedgerError, and ConfigError for a pattern that is none.
        """
        redact = tuple(redact)
        Redactor(redact)
        engine = open_engine(url, create=True, busy_timeout_s=busy_timeout_s)
        return cls(engine, store_texts=store_texts, redact=redact, max_pending=max_pending, patience_s=busy_timeout_s)

    async def write(self, trace: Trace) -> None:
        """Returns when the trace is committed: kill -9 can't lose it. A trace whose id is there is not written again.

        Raises LedgerError when it could not be written. Once queued, a cancelled write still happens: the money it
        tells of is spent. With ``max_pending`` traces queued, waits for room first.
        """
        await self._batches.submit(trace)

    async def add_feedback(
        self, trace_id: str, correct: float, note: str | None = None, *, source: str = "user"
    ) -> None:
        """Records whether the answer handed out was right: 1.0, 0.0 or between. Said again, it replaces the first.

        Raises InputError for what is no probability and for a trace that is not there, LedgerError where it failed.
        """
        said = feedback.Feedback(
            trace_id=trace_id,
            source=source,
            correct=correct,
            note=None if note is None else self._redactor.text(note),
            at_unix_s=time.time(),
        )
        await asyncio.to_thread(feedback.add, self.engine, said)

    def close(self) -> None:
        """Writes what is queued, then ends the thread. Closing twice is fine."""
        self._batches.close()
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


class _Writer:
    """The thread's side: one connection, one transaction a batch. Never raises."""

    def __init__(self, engine: Engine, *, redactor: Redactor, store_texts: bool, patience_s: float) -> None:
        self._engine = engine
        self._redactor = redactor
        self._store_texts = store_texts
        self._patience_s = patience_s
        #: The last batch waited in vain; the next ones don't, or a long queue would wait for hours.
        self._is_away = False
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None

    def work(self, batch: Sequence[Trace]) -> list[LedgerError | None]:
        """Commits the batch and says for each trace what went wrong, if anything did."""
        try:
            return self._store([self._redactor.trace(trace) for trace in batch])
        except Exception as exc:  # noqa: BLE001  Whatever it is, somebody waits for the answer.
            return [explain(self._engine, exc) for _ in batch]

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(DBAPIError):
            # After an error, a pooled connection could bring the same error back.
            connection.invalidate()
            connection.close()

    def _store(self, batch: Sequence[Trace]) -> list[LedgerError | None]:
        give_up_at, pause_s = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            try:
                self._insert(batch)
            except Exception as exc:  # noqa: BLE001
                self.close()
                if not postgres.is_passing(exc):
                    return self._store_rest(batch, exc)
                # A commit whose answer was lost may have happened: then the next try finds the traces there.
                if self._is_away or time.monotonic() + pause_s > give_up_at:
                    self._is_away = True
                    return [explain(self._engine, exc) for _ in batch]
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            self._is_away = False
            return [None] * len(batch)

    def _insert(self, batch: Sequence[Trace]) -> None:
        trace_rows = [trace_row(trace, store_texts=self._store_texts) for trace in batch]
        rows = [row for trace in batch for row in attempt_rows(trace, store_texts=self._store_texts)]
        sums = rollups.summed(rollups.facts_of(trace) for trace in batch)
        with turn(self._engine):
            connection = self._connect()
            with connection.begin():
                connection.execute(_INSERT_TRACES, trace_rows)
                if rows:
                    connection.execute(_INSERT_ATTEMPTS, rows)
                rollups.add(connection, sums)
                spending.charge(connection, batch)

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
            return [failure for trace in batch for failure in self._store([trace])]
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
