"""One request on its way through the tiers, and how its answer is heard. Makes no decision and knows no ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from corea.policy.base import Policy
from corea.tier import Sampling, Tier
from corea.types import Attempt, Request, Trace

#: Characters of a piece of an answer that was kept whole.
PIECE_CHARS = 400
#: Events that wait for a slow listener before the model has to wait as well.
BUFFERED_EVENTS = 16
NOTHING: Mapping[str, Any] = MappingProxyType({})

Event = TypeVar("Event")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A piece of the answer, and the tier that wrote it; ``trace`` where the answer was whole before it was told."""

    text: str
    tier: str
    trace: Trace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The answer is whole, and its trace is in the ledger."""

    trace: Trace


@dataclass(slots=True, kw_only=True)
class Run:
    """One request on its way through the tiers."""

    id: str
    request: Request
    started_s: float
    started_at_unix_s: float
    metadata: Mapping[str, Any]
    hear: Callable[[Text], Awaitable[object]] | None
    policies: Sequence[Policy] = ()
    attempts: list[Attempt] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    abandoned: bool = False

    @property
    def broken_off(self) -> bool:
        """Whether there is nobody, or nothing else, to hand an answer to: the caller left, or has heard half of one."""
        return self.abandoned or bool(self.heard)

    async def attempt(
        self, tier: Tier, *, now_s: float, time_left_s: float, clock: Callable[[], float], sampling: Sampling
    ) -> Attempt:
        """What the tier did, kept in ``attempts``: even where the caller goes away meanwhile."""

        async def hear(text: str) -> None:
            self.heard.append(text)
            if self.hear is not None:
                await self.hear(Text(text=text, tier=tier.name))

        try:
            attempt = await tier.attempt(
                self.request,
                time_left_s=time_left_s,
                clock=clock,
                sampling=sampling,
                hear=hear if self.hear else None,
                policies=self.policies,
                elapsed_s=now_s - self.started_s,
            )
        except BaseException:
            self.abandoned = True
            self._add(tier.abandoned(latency_s=clock() - now_s))
            raise
        return self._add(attempt)

    async def flush(self, trace: Trace) -> None:
        """Tell the answer, if it was not told while it was written."""
        if self.hear is None or self.heard or not trace.text:
            return
        for start in range(0, len(trace.text), PIECE_CHARS):
            piece = trace.text[start : start + PIECE_CHARS]
            await self.hear(Text(text=piece, tier=trace.tier or "", trace=trace))

    def _add(self, attempt: Attempt) -> Attempt:
        # What went out is what the ledger must show, half an answer too.
        self.attempts.append(replace(attempt, text="".join(self.heard)) if self.heard else attempt)
        return self.attempts[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    failure: Exception | None = None


async def pushed(
    work: Callable[[Callable[[Event], Awaitable[object]]], Awaitable[object]],
) -> AsyncGenerator[Event, None]:
    """What ``work`` says to the function that it is given, as an iterator. Raises what ``work`` raises.

    Closing the iterator cancels the work, and waits until it has tidied up.
    """
    queue: asyncio.Queue[Event | _End] = asyncio.Queue(BUFFERED_EVENTS)

    async def produce() -> None:
        end = _End()
        try:
            await work(queue.put)
        except Exception as exc:  # noqa: BLE001 - raised where the events are heard
            end = _End(failure=exc)
        await queue.put(end)

    producer = asyncio.ensure_future(produce())
    try:
        while not isinstance(event := await queue.get(), _End):
            yield event
        if event.failure is not None:
            raise event.failure
    finally:
        producer.cancel()
        await asyncio.wait([producer])
