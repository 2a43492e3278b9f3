"""How many requests are worked on at once, and how many may wait. The rest are told to come back: 429."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from corea.gateway.errors import ApiError


class Admission:
    """First come, first served. ``active`` and ``queued`` count."""

    def __init__(self, *, max_active: int, max_queued: int, max_wait_s: float) -> None:
        self._turns = asyncio.Semaphore(max_active)
        self._max_queued = max_queued
        self._max_wait_s = max_wait_s
        self.active = 0
        self.queued = 0

    @asynccontextmanager
    async def turn(
        self, waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    ) -> AsyncGenerator[None, None]:
        """Waits for a turn. Raises :class:`ApiError` (429) when too many wait already, or for too long.

        ``waiting`` surrounds the wait, if there is one: whoever goes away meanwhile gives up their place.
        """
        if self._turns.locked():
            async with waiting():
                await self._wait()
        else:
            await self._turns.acquire()
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1
            self._turns.release()

    async def _wait(self) -> None:
        if self.queued >= self._max_queued:
            raise _busy()
        self.queued += 1
        try:
            async with asyncio.timeout(self._max_wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self.queued -= 1


def _busy() -> ApiError:
    message = "the gateway is busy with as many requests as it may take; try again in a moment"
    return ApiError(message, status=429, code="gateway_busy", type="rate_limit_error", retry=True, retry_after_s=1)
