"""One request on its way through the tiers, and how its answer is heard. Makes no decision and knows no ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from corea.policy.base import Hedge, Policy
from corea.tier import AS_CONFIGURED, Hear, Sampling, Tier
from corea.types import Attempt, Reason, Request, Trace

#: Characters of a piece of an answer that was kept whole.
PIECE_CHARS = 400
#: Events that wait for a slow listener before the model has to wait as well.
BUFFERED_EVENTS = 16
#: How long an answer that is kept waits for a model that was stopped to say so.
STOPPING_S = 0.1
NOTHING: Mapping[str, Any] = MappingProxyType({})

Event = TypeVar("Event")

logger = logging.getLogger("corea.run")


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
    tiers: Sequence[Tier]
    deadline_s: float
    clock: Callable[[], float]
    started_s: float
    started_at_unix_s: float
    metadata: Mapping[str, Any]
    hear: Callable[[Text], Awaitable[object]] | None
    sampling: Sampling = AS_CONFIGURED
    policies: Sequence[Policy] = ()
    attempts: list[Attempt] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    abandoned: bool = False
    #: The next tier's attempt, where it was begun before that of the tier in hand had ended.
    _ahead: _Ahead | None = field(default=None, init=False)

    @property
    def broken_off(self) -> bool:
        """Whether there is nobody, or nothing else, to hand an answer to: the caller left, or has heard half of one."""
        return self.abandoned or bool(self.heard)

    async def attempt(self, index: int) -> Attempt:
        """What the tier at ``index`` did, kept in ``attempts``: even where the caller goes away meanwhile.

        It is asked, unless it was asked beside the one before it already.
        """
        tier, now_s = self.tiers[index], self.clock()
        begun, self._ahead = self._ahead, None
        try:
            attempt = await (self._raced(index, now_s) if begun is None else begun.end(self._hears(tier)))
        except BaseException:
            self.abandoned = True
            self._add(tier.abandoned(latency_s=self.clock() - now_s))
            if self._ahead is not None and self._ahead.stop():
                self._add(self._ahead.ended(self.tiers[index + 1].abandoned(latency_s=self.clock() - now_s)))
            raise
        attempt = self._add(attempt)
        await self._look_ahead(attempt, is_end=attempt.decision.keep or tier.fails_request(attempt))
        return attempt

    async def ask(
        self, index: int, hear: Hear | None, *, now_s: float, hedged: Callable[[Hedge], object] | None = None
    ) -> Attempt:
        """What the tier does. ``hear`` is told its words, ``hedged`` that the next one is wanted too."""
        tier, left_s = self.tiers[index], self.deadline_s - (now_s - self.started_s)
        return await tier.attempt(
            self.request,
            # An equal share of what is left: a tier that hangs cannot eat the time of those after it.
            time_left_s=left_s / (len(self.tiers) - index) if tier.timeout_s is None else left_s,
            clock=self.clock,
            sampling=self.sampling,
            hear=hear,
            policies=self.policies,
            elapsed_s=now_s - self.started_s,
            hedged=hedged,
        )

    async def _raced(self, index: int, now_s: float) -> Attempt:
        """The tier's attempt; stopped where a policy had the next one asked beside it, whose answer is there first."""
        tier = self.tiers[index]
        if not self.policies or index + 1 == len(self.tiers):
            return await self.ask(index, self._hears(tier), now_s=now_s)
        self._ahead = ahead = _Ahead(self, index + 1)
        try:
            async with asyncio.timeout(None) as race:
                # A time that is over ends it now.
                first = partial(race.reschedule, 0.0)
                hedged = partial(ahead.plan, first=first)
                return await self.ask(index, self._hears(tier), now_s=now_s, hedged=hedged)
        except TimeoutError:
            if not race.expired():
                raise
            why = f"{self.tiers[index + 1].name}, asked beside it after {ahead.after_s:.3g} s, answered first"
            return tier.outrun(why, policy=ahead.policy, latency_s=self.clock() - now_s)

    async def _look_ahead(self, attempt: Attempt, *, is_end: bool) -> None:
        """The next tier's attempt goes on only if it is needed; one that failed is not gone by, but asked anew."""
        ahead = self._ahead
        if ahead is None or (ahead.begun and not is_end and not ahead.failed):
            return
        self._ahead = None
        if not ahead.stop():
            return
        why = f"it was asked beside {attempt.tier} after {ahead.after_s:.3g} s, and its answer was not needed"
        try:
            await ahead.stopped()
        finally:
            self._add(ahead.ended(ahead.tier.outrun(why, policy=ahead.policy, latency_s=ahead.elapsed_s)))

    def _hears(self, tier: Tier) -> Hear | None:
        listener = self.hear
        if listener is None:
            return None

        async def hear(text: str) -> None:
            self.heard.append(text)
            await listener(Text(text=text, tier=tier.name))

        return hear

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


class _Ahead:
    """A tier's attempt, begun beside that of the tier before it. What it writes is held back until it is its turn."""

    def __init__(self, run: Run, index: int) -> None:
        self.tier = run.tiers[index]
        self.policy, self.after_s = "", 0.0
        self._run, self._index = run, index
        # Not in the context of the attempt beside which it is begun, of which it is no part.
        self._context = copy_context()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Attempt] | None = None
        self._started_s: float | None = None
        self._first: Callable[[], object] | None = None
        self._held: list[str] = []
        self._hear: Hear | None = None

    @property
    def begun(self) -> bool:
        return self._task is not None

    @property
    def _begun(self) -> asyncio.Task[Attempt]:
        if self._task is None:
            raise RuntimeError(f"{self.tier.name} was not asked")
        return self._task

    @property
    def failed(self) -> bool:
        """Whether it has ended, without an answer."""
        task = self._task
        if task is None or not task.done():
            return False
        return task.exception() is not None or task.result().decision.reason is Reason.FAILED

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self._started_s is None else self._run.clock() - self._started_s

    def plan(self, hedge: Hedge, *, first: Callable[[], object]) -> None:
        """To be begun after its time, if it may be then. ``first`` is told once it has an answer that is kept."""
        self.policy, self.after_s, self._first = hedge.policy, hedge.after_s, first
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(hedge.after_s, self._begin, hedge, context=self._context)

    async def end(self, hear: Hear | None) -> Attempt:
        """It is its turn: what it wrote is told, and what it writes from now on. It must have begun."""
        self._first = None
        try:
            while hear is not None and self._held:
                await hear(self._held.pop(0))
            self._hear = hear
            attempt = await self._begun
        except BaseException:
            self.stop()
            raise
        decision = attempt.decision
        note = decision.note or f"asked after {self.after_s:.3g} s, beside the tier before it"
        return replace(attempt, decision=replace(decision, note=note))

    def stop(self) -> bool:
        """At once, and not begun any more; whether the model was asked at all."""
        self._first = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        return self._started_s is not None

    async def stopped(self) -> None:
        """Waits until the model has said so, but not for one that does not listen. It must have begun."""
        _STOPPING.add(self._begun)
        self._begun.add_done_callback(_STOPPING.discard)
        await asyncio.wait([self._begun], timeout=STOPPING_S)

    def ended(self, unfinished: Attempt) -> Attempt:
        """What it did: its attempt, not to be handed out, if it came to its end; else ``unfinished``."""
        task = self._task
        if task is None or not task.done() or task.cancelled():
            return unfinished
        if (error := task.exception()) is not None:
            # It was only to help: the request goes on without it.
            logger.error("%s: failed beside the tier before it", self.tier.name, exc_info=error)
            return unfinished
        attempt = task.result()
        return replace(attempt, decision=unfinished.decision) if attempt.decision.keep else attempt

    def _begin(self, hedge: Hedge) -> None:
        if hedge.allowed():
            self._task = asyncio.create_task(self._asked())

    async def _asked(self) -> Attempt:
        self._started_s = now_s = self._run.clock()
        hear = None if self._run.hear is None else self._heard
        attempt = await self._run.ask(self._index, hear, now_s=now_s)
        if attempt.decision.keep and self._first is not None:
            self._first()
        return attempt

    async def _heard(self, text: str) -> None:
        if self._hear is None:
            self._held.append(text)
        else:
            await self._hear(text)


#: Stopped, and not over yet: the event loop alone would not keep them.
_STOPPING: set[asyncio.Task[Attempt]] = set()


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
