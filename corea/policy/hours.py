"""Spend and requests by the hour, from the roll-ups: what a budget goes by, for all replicas on one ledger together.

Read every few seconds in a thread of its own, so that no request waits; what this process did since then is added.
Knows nothing of budgets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from corea.errors import LedgerError
from corea.ledger.queries import HasEngine
from corea.ledger.rollups import summary
from corea.policy.spent import HOUR_S, REMEMBERED_H, Hour, hour_of
from corea.types import Trace

#: For how long what was read is believed. A replica that dies leaves what it wrote; others see it this late.
TTL_S = 5.0
#: A trace may be noted so long before it is in the ledger. Meanwhile it counts twice rather than never.
_WRITTEN_S = 2.0

logger = logging.getLogger("corea.policy.hours")


class LedgerHours:
    """A :class:`corea.policy.spent.Spent`. ``source`` is an open ledger and outlives this.

    ``task``: only its requests count. Reads once at the beginning, and raises LedgerError if that fails; later, what
    was read last is gone by.
    """

    def __init__(
        self,
        source: HasEngine,
        *,
        task: str | None = None,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._task = task
        self._ttl_s = ttl_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._reading: threading.Thread | None = None
        #: Own requests: when each was noted, its hour, what it adds.
        self._own: deque[tuple[float, int, Hour]] = deque()
        self._hours: dict[int, Hour] = {}
        self._read_at_s = 0.0
        self.refresh()

    def hours(self) -> Mapping[int, Hour]:
        with self._lock:
            idle = self._reading is None or not self._reading.is_alive()
            if idle and self._clock() - self._read_at_s >= self._ttl_s:
                self._reading = threading.Thread(target=self._refreshed, name="corea-hours", daemon=True)
                self._reading.start()
            return self._hours

    def note(self, trace: Trace) -> None:
        if self._task is not None and trace.request.task != self._task:
            return
        at, hour = hour_of(trace)
        with self._lock:
            self._own.append((self._clock(), at, hour))
            # A new mapping: whoever holds the old one goes on reading it.
            self._hours = {**self._hours, at: self._hours.get(at, Hour()) + hour}

    def refresh(self) -> None:
        """Read now. Raises LedgerError."""
        began_s = self._clock()
        since_s = self._wall_clock() - REMEMBERED_H * HOUR_S
        found = summary(self._source, since_unix_s=max(since_s, 0.0), by=("hour",), task=self._task)
        read = {
            int(one.group["hour"]) // HOUR_S: Hour(
                requests=one.traces, nano_usd=one.cost_nano_usd, unknown=one.cost_unknown
            )
            for one in found
        }
        with self._lock:
            while self._own and self._own[0][0] < began_s - _WRITTEN_S:
                self._own.popleft()
            self._read_at_s = began_s
            self._hours = read
            for _, at, hour in self._own:
                read[at] = read.get(at, Hour()) + hour

    def _refreshed(self) -> None:
        try:
            self.refresh()
        except LedgerError as exc:
            logger.warning("what was spent could not be read, so the last figures are gone by: %s", exc)
            with self._lock:
                self._read_at_s = self._clock()
