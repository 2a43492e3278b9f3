"""A cascade that any thread and any event loop may ask, and the words in which frameworks ask it.

Frameworks call from worker threads, from loops that come and go, and from both at once; the cascade lives on one loop,
in a thread of its own. Knows no framework.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from corea.cascade import Cascade
from corea.errors import InputError
from corea.run import Done, Text
from corea.tier import AS_CONFIGURED, Sampling
from corea.types import Attempt, Message, Request, Role, Trace

Result = TypeVar("Result")

#: How frameworks name who speaks.
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
}
_SETTINGS = tuple(Sampling.__slots__)


class Bridge:
    """``ask`` and ``stream`` block the calling thread; ``aask`` and ``astream`` need any running asyncio loop.

    All raise what :meth:`Cascade.ask` raises. Close it at the end; what is still open when the process ends is closed
    then. The cascade is the bridge's from now on: ask and close it only here.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="corea-bridge", daemon=True)
        self._thread.start()
        self._closed = False
        self._under_way: set[asyncio.Task[Any]] = set()
        atexit.register(self._close_late)

    @classmethod
    def to(cls, config: str | Path | None = None, cascade: Cascade | None = None) -> Bridge:
        """To a ready cascade, or to one from a configuration; None finds it as the commands do."""
        if cascade is not None and config is not None:
            raise InputError("give either a configuration or a ready cascade, not both")
        if cascade is not None and not isinstance(cascade, Cascade):
            raise TypeError(f"cascade must be a corea.Cascade, not {type(cascade).__name__}")
        return cls(Cascade.from_config(config) if cascade is None else cascade)

    def ask(self, request: Request, *, sampling: Sampling = AS_CONFIGURED) -> Trace:
        return self.run(self.cascade.ask(request, sampling=sampling))

    async def aask(self, request: Request, *, sampling: Sampling = AS_CONFIGURED) -> Trace:
        return await self.arun(self.cascade.ask(request, sampling=sampling))

    def stream(self, request: Request, *, sampling: Sampling = AS_CONFIGURED) -> Generator[Text | Done, None, None]:
        """Texts, then :class:`Done`. Close the generator to hang up early."""
        pulled = _Pulled(self.cascade.stream(request, sampling=sampling))
        try:
            while (event := self.run(pulled.next())) is not None:
                yield event
        finally:
            self._hang_up(pulled)

    async def astream(
        self, request: Request, *, sampling: Sampling = AS_CONFIGURED
    ) -> AsyncGenerator[Text | Done, None]:
        pulled = _Pulled(self.cascade.stream(request, sampling=sampling))
        try:
            while (event := await self.arun(pulled.next())) is not None:
                yield event
        finally:
            if not self._closed:
                await self.arun(pulled.close())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Done on the cascade's loop, while this thread waits."""
        future = self._begin(work)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C: the model must not write on for nobody.
            future.cancel()
            raise

    async def arun(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Done on the cascade's loop, while this task waits; cancelling it cancels the work."""
        return await asyncio.wrap_future(self._begin(work))

    def close(self) -> None:
        """Break off what is under way, close the cascade, and end the thread. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result()
        finally:
            atexit.unregister(self._close_late)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _close_late(self) -> None:
        # So late no thread can be started, and what needs one for closing (ledger, llama.cpp) ends with the process.
        with suppress(RuntimeError):
            self.close()

    def _hang_up(self, pulled: _Pulled) -> None:
        """A forgotten generator is closed by the garbage collector: in any thread, even the loop's own."""
        if threading.current_thread() is self._thread:
            self._begin(pulled.close())
        elif not self._closed:
            self.run(pulled.close())

    def _begin(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        if self._closed:
            work.close()
            raise InputError("this model was closed; make a new one to ask again")
        return asyncio.run_coroutine_threadsafe(self._listed(work), self._loop)

    async def _listed(self, work: Coroutine[Any, Any, Result]) -> Result:
        task = self._loop.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await task

    async def _wind_up(self) -> None:
        # First, so that the ledger is still open for what was broken off.
        for task in (broken_off := tuple(self._under_way)):
            task.cancel()
        await asyncio.gather(*broken_off, return_exceptions=True)
        await self.cascade.aclose()


class _Pulled:
    """A stream, pulled event by event from anywhere; one that is being pulled cannot be closed, so that waits."""

    def __init__(self, events: AsyncGenerator[Text | Done, None]) -> None:
        self._events = events
        self._turn = asyncio.Lock()

    async def next(self) -> Text | Done | None:
        async with self._turn:
            return await anext(self._events, None)

    async def close(self) -> None:
        async with self._turn:
            await self._events.aclose()


def conversation(turns: Iterable[tuple[str, object]]) -> Request:
    """A request of turns, each a role and a text. Raises :class:`InputError` for anything but text."""
    messages = []
    for role, text in turns:
        if role not in _ROLES:
            raise InputError(f"a cascade takes no {role} messages; send tools to one model, or through corea serve")
        if not isinstance(text, str):
            raise InputError("a cascade answers text; leave out images, audio and files, or ask one model directly")
        messages.append(Message(role=_ROLES[role], content=text))
    return Request(messages=tuple(messages))


def sampling_of(given: Mapping[str, Any]) -> Sampling:
    """What a framework's user set; None is not set. Raises :class:`InputError` for what no tier could be told."""
    chosen = {name: value for name, value in given.items() if value is not None and value not in ((), [])}
    unknown = sorted(chosen.keys() - set(_SETTINGS))
    if unknown:
        raise InputError(f"a cascade cannot be told {', '.join(unknown)}; it takes {', '.join(_SETTINGS)}")
    if "stop" in chosen:
        chosen["stop"] = (chosen["stop"],) if isinstance(chosen["stop"], str) else tuple(chosen["stop"])
    return Sampling(**chosen) if chosen else AS_CONFIGURED


def facts(trace: Trace) -> dict[str, Any]:
    """What COREA says of an answer, as JSON: money in nano-USD, None where unknown."""
    attempt = final(trace)
    return {
        "trace_id": trace.id,
        "tier": attempt.tier,
        "model": attempt.model,
        "confidence": trace.confidence,
        "deferred": trace.deferred,
        "reason": attempt.decision.reason.value,
        "cost_nano_usd": trace.cost_nano_usd,
        "saved_nano_usd": trace.saved_nano_usd,
    }


def final(trace: Trace) -> Attempt:
    """The attempt whose answer was handed out: a cascade that has none raises."""
    if trace.attempt is None:
        raise ValueError("only a trace with an answer can be told as one")
    return trace.attempt
