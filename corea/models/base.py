"""What a tier needs from a model, whoever serves it. Does not know prices, thresholds or confidence."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from corea.types import Prompt, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of a reply, as it is written. The last one has the whole ``reply``; all texts together are its text."""

    text: str = ""
    reply: Reply | None = None


@runtime_checkable
class Model(Protocol):
    """A language model that answers a prompt.

    ``complete`` raises only :class:`corea.errors.ModelError` (and lets ``CancelledError`` through); it never retries
    longer than ``timeout_s``, and a cancelled call stops the work behind it.
    """

    @property
    def name(self) -> str: ...

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class StreamingModel(Model, Protocol):
    """A model that can be heard while it writes.

    ``stream`` keeps the promises of ``complete``, and never tries again once a text has gone out: a reply that breaks
    off raises. Closing the iterator stops the work behind it.
    """

    def stream(self, prompt: Prompt, *, timeout_s: float | None = None) -> AsyncGenerator[Delta, None]: ...


async def deltas(model: Model, prompt: Prompt, *, timeout_s: float | None = None) -> AsyncGenerator[Delta, None]:
    """The reply as it is written; all at once from a model that cannot stream."""
    if not isinstance(model, StreamingModel):
        reply = await model.complete(prompt, timeout_s=timeout_s)
        yield Delta(text=reply.text, reply=reply)
        return
    async with aclosing(model.stream(prompt, timeout_s=timeout_s)) as stream:
        async for delta in stream:
            yield delta
