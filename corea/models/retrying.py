"""Trying again, as long as it can help and the retry budget allows. Knows no HTTP client and no endpoint.

The budget is a token bucket after gRPC's retry throttling (github.com/grpc/proposal, A6): a retry takes a token, an
answer brings back a share of one. It is answers that fill it, not requests: while nothing is answered, nothing is
tried again, however many ask.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp

from corea.errors import ModelError, UpstreamGarbage, UpstreamRefused, UpstreamStatus, UpstreamTimeout

Sleep = Callable[[float], Awaitable[object]]
Answer = TypeVar("Answer")

#: Retries that an answer earns, unless told otherwise.
SHARE = 0.2
#: Retries that a budget holds at most, and to begin with: those of an endpoint that is seldom asked.
RESERVE = 10.0

_RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
#: Longest wait that an endpoint may ask for when the call itself has no time bound.
_PATIENCE_S = 60.0


class RetryBudget:
    """How many retries an endpoint may still get: never more than ``reserve`` + ``share`` × its answers, over all time.

    ``retries`` and ``refused`` count those that were made, and those that were not for want of a token.
    """

    def __init__(self, *, share: float = SHARE, reserve: float = RESERVE) -> None:
        self._share = share
        self._reserve = reserve
        self._tokens = reserve
        self.retries = 0
        self.refused = 0

    def earn(self) -> None:
        """An answer was got."""
        self._tokens = min(self._reserve, self._tokens + self._share)

    def spend(self) -> bool:
        """Whether there may be a retry; then it is counted as made."""
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        self.retries += 1
        return True


async def retried(
    ask: Callable[[], Awaitable[Answer]],
    *,
    model: str,
    max_retries: int,
    budget: RetryBudget,
    timeout_s: float | None,
    rng: random.Random,
    sleep: Sleep,
) -> tuple[Answer, bool]:
    """What ``ask`` returns, tried again while that can help; and whether an earlier try may have been billed as well.

    Waits between tries grow exponentially with full jitter, on top of what the endpoint asked for. An error whose wait
    would outlast the time left, or the budget, is raised at once. ``timeout_s`` bounds all of it; raises
    :class:`UpstreamTimeout` when the time is up.
    """
    clock = asyncio.get_running_loop().time
    started_s = clock()
    may_be_billed = False

    async def pause_after(error: ModelError, tries: int) -> None:
        nonlocal may_be_billed
        # What an earlier try may have cost is no less unknown if the last one cost nothing.
        may_be_billed = error.may_be_billed = may_be_billed or error.may_be_billed
        pause_s = pause_before_retry(error, tries, rng)
        left_s = _PATIENCE_S if timeout_s is None else timeout_s - (clock() - started_s)
        if pause_s is None or tries > max_retries or pause_s >= left_s or not budget.spend():
            raise error
        await sleep(pause_s)

    async def persist() -> Answer:
        for tries in itertools.count(1):
            try:
                return await ask()
            except ModelError as error:
                await pause_after(error, tries)
        raise AssertionError("unreachable: the count does not end")

    try:
        async with asyncio.timeout(timeout_s):
            answer = await persist()
    except TimeoutError as exc:
        raise UpstreamTimeout(model=model, elapsed_s=clock() - started_s) from exc
    budget.earn()
    return answer, may_be_billed


def pause_before_retry(error: ModelError, tries: int, rng: random.Random) -> float | None:
    """Seconds to wait before trying again after the ``tries``-th try; None where another try cannot help."""
    backoff_s = rng.uniform(0.0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (tries - 1)))
    if isinstance(error, UpstreamRefused):
        return backoff_s
    if isinstance(error, UpstreamStatus) and error.status in _RETRIED_STATUSES:
        return (error.retry_after_s or 0.0) + backoff_s
    # A body that was cut is bad luck the first time, and the endpoint's habit the second.
    if isinstance(error, UpstreamGarbage) and isinstance(error.__cause__, aiohttp.ClientError | OSError) and tries == 1:
        return backoff_s
    return None
