"""The cascade: ask the cheapest tier, keep its answer if it is sure enough, else defer to the next.

Knows tiers, not models: how one is asked is :mod:`corea.tier`, how it is judged :mod:`corea.policy`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from corea.errors import CascadeExhausted, InputError
from corea.ledger.ids import new_trace_id
from corea.policy.base import Policies
from corea.run import NOTHING, Done, Run, Text, pushed
from corea.tier import AS_CONFIGURED, Sampling, Tier
from corea.types import Attempt, Request, Trace

if TYPE_CHECKING:
    from corea.config import Config
    from corea.ledger import Ledger

#: Traces that :meth:`Cascade.map` works on at once, unless told otherwise.
DEFAULT_CONCURRENCY = 8
NO_POLICIES = Policies()


class Recorder(Protocol):
    """Keeps traces. ``write`` returns once the trace is safe."""

    async def write(self, trace: Trace) -> None: ...

    async def aclose(self) -> None: ...


class Cascade:
    """N tiers, cheapest first, behind one question.

    >>> async with Cascade.from_config("corea.toml") as cascade:   # doctest: +SKIP
    ...     trace = await cascade.ask("What is 17 × 23?")
    ...     print(trace.answer, trace.tier, trace.confidence, trace.cost_nano_usd)
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        deadline_s: float = 300.0,
        on_exhausted: Literal["error", "best"] = "error",
        ledger: Recorder | None = None,
        policies: Policies = NO_POLICIES,
        fingerprint: str = "",
        prices_version: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``deadline_s``: seconds for one request, all tiers together. The cascade owns its tiers and its ledger."""
        if not tiers:
            raise InputError("a cascade needs at least one tier")
        self.tiers = tuple(tiers)
        self.deadline_s = deadline_s
        self.on_exhausted = on_exhausted
        self.ledger = ledger
        self.policies = policies
        self.fingerprint = fingerprint
        self.prices_version = prices_version
        self._clock = clock
        self._wall_clock = wall_clock
        self._runner: asyncio.Runner | None = None

    @classmethod
    def from_config(cls, config: str | Path | Config | None = None) -> Cascade:
        """A cascade from a configuration file, a :class:`Config`, or (None) the one that is found; see ``Config.load``.

        Raises :class:`ConfigError` for a bad configuration, :class:`CatalogueError` for a model file that is not here.
        """
        from corea.build import policies_of, tiers_of
        from corea.config import Config
        from corea.identity import fingerprint
        from corea.prices import prices_version

        loaded = config if isinstance(config, Config) else Config.load(config)
        tiers, ledger = tiers_of(loaded), _ledger(loaded)
        return cls(
            tiers,
            deadline_s=loaded.cascade.deadline_s,
            on_exhausted=loaded.cascade.on_exhausted,
            ledger=ledger,
            policies=policies_of(loaded, ledger),
            fingerprint=fingerprint(loaded),
            prices_version=prices_version(),
        )

    async def ask(
        self,
        question: str | Request,
        *,
        sampling: Sampling = AS_CONFIGURED,
        metadata: Mapping[str, Any] = NOTHING,
        hear: Callable[[Text], Awaitable[object]] | None = None,
    ) -> Trace:
        """Answer one question. The trace, with ``metadata`` (JSON), is in the ledger before it is returned.

        ``hear`` is called with the answer's text: as the last tier writes it, or in pieces once an earlier tier's
        reply is kept and recorded. A caller who goes away (``CancelledError``, or what ``hear`` raises) leaves a trace
        as well, with what is known of its cost.

        Raises :class:`InputError` for an empty question, :class:`CascadeExhausted` (with the trace) when no tier
        gave an answer that may be handed out, :class:`LedgerError` when the trace could not be kept.
        """
        request = self.policies.recognised(_request(question))
        run = Run(
            id=new_trace_id(self._wall_clock),
            request=request,
            tiers=self.tiers,
            deadline_s=self.deadline_s,
            clock=self._clock,
            sampling=sampling,
            policies=self.policies.of(request),
            started_s=self._clock(),
            started_at_unix_s=self._wall_clock(),
            metadata={**metadata, **_told(sampling)},
            hear=hear,
        )
        try:
            for index, tier in enumerate(self.tiers):
                attempt = await run.attempt(index)
                if attempt.decision.keep or tier.fails_request(attempt):
                    break
        except BaseException:
            await self._keep(run)
            raise
        trace = await self._keep(run)
        if trace.final is None:
            raise CascadeExhausted(_why_exhausted(trace), trace=trace)
        await run.flush(trace)
        return trace

    async def stream(
        self, question: str | Request, *, sampling: Sampling = AS_CONFIGURED, metadata: Mapping[str, Any] = NOTHING
    ) -> AsyncGenerator[Text | Done, None]:
        """:meth:`ask`, heard while it is answered: texts, then :class:`Done`. Raises what ``ask`` raises.

        Close the generator (``contextlib.aclosing``) to hang up early: the model stops, and the trace is kept.
        """

        async def answer(hear: Callable[[Text | Done], Awaitable[object]]) -> None:
            await hear(Done(trace=await self.ask(question, sampling=sampling, metadata=metadata, hear=hear)))

        async with aclosing(pushed(answer)) as events:
            async for event in events:
                yield event

    def ask_sync(self, question: str | Request) -> Trace:
        """:meth:`ask` for programs without an event loop. Call :meth:`close` at the end, or use ``with``."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self.ask(question))

    async def map(
        self,
        questions: Iterable[str | Request] | AsyncIterable[str | Request],
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> AsyncIterator[Trace | CascadeExhausted | InputError]:
        """Answer many questions, at most ``concurrency`` at once, in the order in which they finish.

        A question that cannot be answered yields its error instead of a trace, and the others go on. Questions are
        drawn only as fast as they are answered, so they may be endless.
        """
        from corea.streams import bounded_map

        async for outcome in bounded_map(self._ask_or_error, questions, concurrency=concurrency):
            yield outcome

    async def aclose(self) -> None:
        """Close every model, then the ledger, even if one of them fails to close."""
        async with AsyncExitStack() as stack:
            if self.ledger is not None:
                stack.push_async_callback(self.ledger.aclose)
            for tier in self.tiers:
                stack.push_async_callback(tier.model.aclose)

    def close(self) -> None:
        """:meth:`aclose` for programs without an event loop."""
        runner, self._runner = self._runner or asyncio.Runner(), None
        with runner:
            runner.run(self.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def _keep(self, run: Run) -> Trace:
        """What happened, told to the policies, and safe in the ledger even if the caller goes away at this moment."""
        trace = self._trace(run)
        for policy in run.policies:
            policy.after(trace)
        if self.ledger is None:
            return trace
        try:
            await self.ledger.write(trace)
        except asyncio.CancelledError:
            # It may have waited for room. If it is queued already, its id is known, and it is not written again.
            await self.ledger.write(trace)
            raise
        return trace

    async def _ask_or_error(self, question: str | Request) -> Trace | CascadeExhausted | InputError:
        try:
            return await self.ask(question)
        except (CascadeExhausted, InputError) as exc:
            return exc

    def _trace(self, run: Run) -> Trace:
        costs = [attempt.cost_nano_usd for attempt in run.attempts]
        final = self._final(run)
        return Trace(
            id=run.id,
            request=run.request,
            attempts=tuple(run.attempts),
            final=final,
            started_at_unix_s=run.started_at_unix_s,
            elapsed_s=self._clock() - run.started_s,
            cost_nano_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
            baseline_nano_usd=None if final is None else self._baseline(run.attempts[final]),
            fingerprint=self.fingerprint,
            prices_version=self.prices_version,
            metadata=run.metadata,
        )

    def _final(self, run: Run) -> int | None:
        """Which attempt's answer is handed out: the kept one; else, if the user said so, the best there is."""
        attempts = run.attempts
        kept = next((i for i, attempt in enumerate(attempts) if attempt.decision.keep), None)
        if kept is not None or self.on_exhausted == "error" or run.broken_off:
            return kept
        if any(self._tier(attempt).fails_request(attempt) for attempt in attempts):
            return None
        answered = [i for i, attempt in enumerate(attempts) if attempt.answered]
        return max(answered, key=lambda i: (_worth(attempts[i]), i), default=None)

    def _baseline(self, final: Attempt) -> int | None:
        """What the last tier alone costs: measured if it gave the answer, else its price for the same tokens."""
        last = self.tiers[-1]
        return final.cost_nano_usd if final.tier == last.name else last.cost_nano_usd(final.usage)

    def _tier(self, attempt: Attempt) -> Tier:
        return next(tier for tier in self.tiers if tier.name == attempt.tier)


def _told(sampling: Sampling) -> dict[str, Any]:
    """What the user chose, for the trace: an answer sampled otherwise is not one that was certified."""
    return {} if sampling is AS_CONFIGURED else {"sampling": sampling.set()}


def _ledger(config: Config) -> Ledger | None:
    if not config.ledger.enabled:
        return None
    from corea.ledger.writer import Ledger

    return Ledger.open(config.ledger.url, store_texts=config.ledger.store_texts, redact=config.ledger.redact)


def _request(question: str | Request) -> Request:
    request = Request.of(question) if isinstance(question, str) else question
    if not request.question.strip():
        raise InputError("the question is empty; write one")
    return request


def _worth(attempt: Attempt) -> float:
    """How good an answer is that could not be kept; unknown is worst."""
    return -1.0 if attempt.confidence.value is None else attempt.confidence.value


def _why_exhausted(trace: Trace) -> str:
    if all(attempt.decision.reason == "too_long" for attempt in trace.attempts):
        return "the question does not fit the context of any tier; shorten it, or raise context_tokens"
    told = "; ".join(f"{a.tier}: {a.failure.message if a.failure else a.decision.reason.value}" for a in trace.attempts)
    return f"no tier gave an answer that may be handed out ({told}); see: corea trace show {trace.id}"
