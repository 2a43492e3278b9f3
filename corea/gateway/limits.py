"""Limits of virtual keys, while requests wait. Knows no SQL: what counts and what is kept is in ``corea.ledger``.

What queued while one transaction ran is decided by the next one, so many requests share a commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from corea.errors import LedgerError
from corea.ledger.batches import Batches
from corea.ledger.database import BUSY_TIMEOUT_S
from corea.ledger.ids import new_trace_id
from corea.ledger.keys import Key
from corea.ledger.limits import Change, Decision, LimitsWorker, Settlement
from corea.ledger.queries import HasEngine
from corea.ledger.quota import Demand, Granted, Refused

#: Longer than any request runs, so that a reservation that expires is one whose process died.
EXPIRES_S = 900.0
#: Requests that ended reach the database along with the next one let in, at the latest after this long.
FLUSH_S = 0.1
#: Requests remembered as not settled yet. The oldest are forgotten beyond that: their estimates stand.
_MOST_OPEN = 100_000

_NEVER = object()


class Limiter:
    """Lets requests in while their key's limits hold, over all replicas on one ledger. One for any number of loops."""

    def __init__(
        self,
        source: HasEngine,
        *,
        clock: Callable[[], float] | None = None,
        patience_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """``source`` is an open ledger, which outlives the limiter. ``clock`` replaces the database's, for tests."""

        def worker() -> LimitsWorker:
            return LimitsWorker(source.engine, ended=self._ended, clock=clock, patience_s=patience_s)

        self._make_worker = worker
        self._ended: deque[Settlement] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._batches: Batches[Change, Decision] = Batches(worker, name="corea-limits")
        self._open: dict[str, None] = {}

    async def reserve(self, key: Key, *, tokens: int, nano_usd: int, expires_s: float = EXPIRES_S) -> Granted | Refused:
        """Sets aside the most that a request can use: prompt and completion tokens, and their cost at the dearest.

        A key without limits costs nothing here. Refuses by an answer, not by an error; raises LedgerError where the
        database is away.
        """
        # Ids of traces have the right properties; this one is another than the trace's.
        id = new_trace_id()
        if key.limits.none:
            return Granted(id=id, key_id=key.id, tokens=tokens, nano_usd=nano_usd)
        demand = Demand(id=id, key_id=key.id, limits=key.limits, tokens=tokens, nano_usd=nano_usd, expires_s=expires_s)
        decision = await self._batches.submit(demand)
        assert decision is not None  # noqa: S101
        if isinstance(decision, Granted):
            self._open[decision.id] = None
            if len(self._open) > _MOST_OPEN:
                self._open.pop(next(iter(self._open)), None)
        return decision

    async def settle(self, granted: Granted, *, tokens: int | None) -> None:
        """Counts the tokens that were used (None: the estimate stands) and frees the money that was set aside.

        It returns before that is done; until then the estimates count. Call it after the trace was written (which
        charged the key, if ``granted.metadata`` was in it) or when nothing was spent. Where the trace could not be
        written, don't: the money stays set aside until it expires. A second call for the same request does nothing.
        """
        if self._open.pop(granted.id, _NEVER) is not _NEVER:
            self._ended.append(Settlement(granted=granted, tokens=tokens))
            if self._flushing is None or self._flushing.done():
                self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        await asyncio.sleep(FLUSH_S)
        with suppress(IndexError, LedgerError):
            # The worker takes the others along. Where there is no database, the estimates stand.
            await self._batches.submit(self._ended.popleft())

    def close(self) -> None:
        """Decides on what is queued, settles what ended, and ends the thread."""
        self._batches.close()
        if self._ended:
            worker = self._make_worker()
            worker.work([])
            worker.close()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
