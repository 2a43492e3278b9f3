"""A text request to the cascade, its answer to the client: buffered or streamed, in whichever dialect it was asked.

Knows the cascade and the connection; how an answer is written is the dialect's business (:mod:`shapes`, ``responses``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from corea.gateway.connection import Connection
from corea.gateway.directory import Target
from corea.gateway.served import first_word
from corea.gateway.shapes import corea_field, corea_headers
from corea.run import Text
from corea.tier import Sampling
from corea.types import Message, Request, Trace

Shape = dict[str, Any]


class Writer(Protocol):
    """Writes one streamed answer in a dialect."""

    def first(self) -> bytes: ...

    def text(self, text: str) -> bytes: ...

    def last(self, trace: Trace, *, corea: Shape | None) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One text request, whoever asks it in whatever dialect."""

    target: Target
    messages: tuple[Message, ...]
    sampling: Sampling
    #: For the trace: who asks, and what for.
    metadata: Shape
    task: str | None
    #: The policy that was chosen; None leaves it to the task.
    policy: str | None
    #: Whether the answer's body says what COREA knows of it.
    corea_body: bool
    #: The gateway's clock when the request came in.
    started_s: float
    clock: Callable[[], float]

    def overhead_s(self, trace: Trace) -> float:
        """The time that was not spent waiting for models."""
        return max(0.0, self.clock() - self.started_s - sum(attempt.latency_s for attempt in trace.attempts))

    def field(self, trace: Trace) -> Shape | None:
        if not self.corea_body:
            return None
        return corea_field(trace, route=trace.tier or "", overhead_s=self.overhead_s(trace))

    def headers(self, trace: Trace) -> dict[str, str]:
        return corea_headers(trace, route=trace.tier or "", overhead_s=self.overhead_s(trace))

    def request(self, id: str) -> Request:
        return Request(messages=self.messages, id=id, task=self.task, policy=self.policy)


async def answer_whole(connection: Connection, asking: Asking, whole: Callable[[Trace, Shape | None], Shape]) -> None:
    async with connection.watched():
        trace = await asking.target.cascade.ask(
            asking.request(connection.request_id), sampling=asking.sampling, metadata=asking.metadata
        )
    await connection.answer_json(200, whole(trace, asking.field(trace)), asking.headers(trace))


async def answer_streamed(connection: Connection, asking: Asking, writer: Writer, *, keep_alive_s: float) -> None:
    """Nothing goes out before the first word, or the first sign of life: until then, a failure is a plain error."""
    first_tier = asking.target.cascade.tiers[0].name
    begun = False

    async def hear(text: Text) -> None:
        nonlocal begun
        data = writer.text(text.text)
        if not begun:
            begun, data = True, writer.first() + data
            first_word(asking.clock() - asking.started_s)
            connection.stream_headers = (
                {"x-corea-route": text.tier, "x-corea-deferred": "false" if text.tier == first_tier else "true"}
                if text.trace is None
                else asking.headers(text.trace)
            )
        await connection.write(data)

    async with connection.watched(keep_alive_s=keep_alive_s):
        trace = await asking.target.cascade.ask(
            asking.request(connection.request_id), sampling=asking.sampling, metadata=asking.metadata, hear=hear
        )
        last = writer.last(trace, corea=asking.field(trace))
        await connection.end(last if begun else writer.first() + last)
