"""Requests that the cascade cannot judge, handed to one tier as they are. They cost money too, so they leave a trace.

What is relayed: the JSON, but for the model's name and the usage we need. Knows no dialect but chat's usage and text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from corea.errors import ModelError, UpstreamGarbage, UpstreamTimeout
from corea.gateway.answering import Asking
from corea.gateway.connection import Connection
from corea.gateway.errors import ApiError, unsupported
from corea.gateway.shapes import DONE, corea_field, corea_headers, event
from corea.ledger.ids import new_trace_id
from corea.models.openai import OpenAIModel, Relayed
from corea.models.wire import error_in, error_of, usage_of
from corea.tier import MAYBE_BILLED, Tier
from corea.types import Attempt, Confidence, Decision, Failure, Reason, Trace, Usage

Body = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _Call:
    """A relayed call and what is known of it so far."""

    asking: Asking
    tier: Tier
    why: str
    request_id: str
    started_s: float
    started_at_unix_s: float
    #: Fixed, so that a trace written twice is one.
    id: str = field(default_factory=new_trace_id)
    texts: list[str] = field(default_factory=list)
    usage: Usage | None = None
    finish_reason: str | None = None

    @property
    def route(self) -> str:
        return f"passthrough:{self.why}"

    def trace(self, failure: Failure | None = None, *, billed: bool = True) -> Trace:
        cascade, tier = self.asking.target.cascade, self.tier
        cost = tier.cost_nano_usd(self.usage) if billed else 0
        elapsed_s = self.asking.clock() - self.started_s
        attempt = Attempt(
            tier=tier.name,
            model=tier.model.name,
            decision=Decision(keep=failure is None, reason=Reason.FAILED if failure else Reason.LAST_TIER),
            confidence=Confidence.unknown("none", "the request was handed to this tier as it is"),
            text="".join(self.texts),
            finish_reason=self.finish_reason,
            usage=self.usage,
            cost_nano_usd=cost,
            latency_s=elapsed_s,
            failure=failure,
        )
        last = cascade.tiers[-1]
        return Trace(
            id=self.id,
            request=self.asking.request(self.request_id),
            attempts=(attempt,),
            final=None if failure else 0,
            started_at_unix_s=self.started_at_unix_s,
            elapsed_s=elapsed_s,
            cost_nano_usd=cost,
            baseline_nano_usd=None if failure else cost if tier is last else last.cost_nano_usd(self.usage),
            fingerprint=cascade.fingerprint,
            prices_version=cascade.prices_version,
            metadata={**self.asking.metadata, "passthrough": self.why},
        )

    async def keep(self, failure: Failure | None = None, *, billed: bool = True) -> Trace:
        trace = self.trace(failure, billed=billed)
        if self.asking.target.cascade.ledger is not None:
            await self.asking.target.cascade.ledger.write(trace)
        return trace

    def hear(self, payload: Body, tier: str) -> None:
        """Note what the trace needs."""
        if payload.get("usage") is not None:
            self.usage = usage_of(payload["usage"], tier)
        for choice in _dicts(payload.get("choices"))[:1]:
            said = choice.get("message") or choice.get("delta") or choice
            content = said.get("content", said.get("text")) if isinstance(said, dict) else None
            if isinstance(content, str):
                self.texts.append(content)
            if isinstance(choice.get("finish_reason"), str):
                self.finish_reason = choice["finish_reason"]


async def relay(
    connection: Connection,
    asking: Asking,
    body: Body,
    *,
    path: str,
    why: str,
    stream: bool = False,
    include_usage: bool = False,
    keep_alive_s: float = 5.0,
) -> None:
    """Hand the request on and its answer back. Raises :class:`ApiError` where no tier can take it."""
    tier = asking.target.relays
    if tier is None or not isinstance(tier.model, OpenAIModel):
        raise unsupported(why, f"{why} is not supported: {_nobody(asking)}")
    call = _Call(
        asking=asking,
        tier=tier,
        why=why,
        request_id=connection.request_id,
        started_s=asking.clock(),
        started_at_unix_s=time.time(),
    )
    if stream:
        body = {**body, "stream_options": {**(body.get("stream_options") or {}), "include_usage": True}}
    deadline_s = asking.target.cascade.deadline_s
    try:
        async with (
            connection.watched(keep_alive_s=keep_alive_s if stream else None),
            _within(deadline_s, tier.name),
            tier.model.relay(path, body, timeout_s=deadline_s) as relayed,
        ):
            if relayed.status != 200:
                raise _refusal(relayed.status, await relayed.read(), tier.name)
            if stream and relayed.content_type == "text/event-stream":
                await _relay_events(connection, call, relayed, include_usage=include_usage)
            else:
                await _relay_whole(connection, call, await relayed.read())
    except ApiError as error:
        await call.keep(Failure(kind="UpstreamStatus", message=str(error)), billed=False)
        raise
    except ModelError as error:
        failure = Failure(kind=type(error).__name__, message=str(error))
        await call.keep(failure, billed=isinstance(error, MAYBE_BILLED))
        raise
    except BaseException:
        if connection.status == 0 or connection.streaming:
            await call.keep(Failure(kind="Abandoned", message="the caller went away before the answer was there"))
        raise


@asynccontextmanager
async def _within(deadline_s: float, tier: str) -> AsyncGenerator[None, None]:
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError as exc:
        raise UpstreamTimeout(model=tier, elapsed_s=deadline_s) from exc


async def _relay_whole(connection: Connection, call: _Call, raw: bytes) -> None:
    payload = _object(raw, call.tier.name)
    if payload.get("error") and "choices" not in payload:
        raise error_in(payload, call.tier.name)
    call.hear(payload, call.tier.name)
    trace = await call.keep()
    overhead_s = call.asking.overhead_s(trace)
    if "model" in payload:
        payload["model"] = call.asking.target.name
    if call.asking.corea_body:
        payload["corea"] = corea_field(trace, route=call.route, overhead_s=overhead_s)
    await connection.answer_json(200, payload, corea_headers(trace, route=call.route, overhead_s=overhead_s))


async def _relay_events(connection: Connection, call: _Call, relayed: Relayed, *, include_usage: bool) -> None:
    """Chunks as they come. The one that says why it ended waits until the trace, with the usage, is written."""
    connection.stream_headers = {"x-corea-route": call.route}
    held: list[Body] = []
    async with aclosing(_payloads(relayed, call.tier.name)) as payloads:
        async for payload in payloads:
            call.hear(payload, call.tier.name)
            if "model" in payload:
                payload["model"] = call.asking.target.name
            if not payload.get("choices") and not include_usage:
                continue
            if call.finish_reason is not None:
                held.append(payload)
            else:
                await connection.write(event(payload))
    if call.finish_reason is None:
        raise UpstreamGarbage(f"{call.tier.name}: the stream was cut off in the middle of the answer; try again")
    trace = await call.keep()
    if call.asking.corea_body and held:
        overhead_s = call.asking.overhead_s(trace)
        held[0] = {**held[0], "corea": corea_field(trace, route=call.route, overhead_s=overhead_s)}
    await connection.end(b"".join([event(payload) for payload in held]) + DONE)


async def _payloads(relayed: Relayed, tier: str) -> AsyncGenerator[Body, None]:
    async with aclosing(relayed.events()) as events:
        async for data in events:
            if data.strip() == b"[DONE]":
                return
            payload = _object(data, tier)
            if payload.get("error"):
                raise error_in(payload, tier)
            yield payload


def _object(raw: bytes, tier: str) -> Body:
    try:
        payload = orjson.loads(raw)
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        raise UpstreamGarbage(f"{tier}: the endpoint sent no JSON object; check base_url")
    return payload


def _refusal(status: int, raw: bytes, tier: str) -> ApiError:
    """An upstream's complaint about the body, in OpenAI's shape whatever its own was."""
    try:
        said = orjson.loads(raw).get("error")
    except (ValueError, AttributeError):
        said = None
    if isinstance(said, dict) and isinstance(said.get("message"), str):
        param, code = said.get("param"), said.get("code")
        return ApiError(
            said["message"],
            status=status,
            param=param if isinstance(param, str) else None,
            code=code if isinstance(code, str) else "upstream_refused",
        )
    message = str(error_of(status, {}, raw.decode(errors="replace"), tier))
    return ApiError(message, status=status, code="upstream_refused")


def _nobody(asking: Asking) -> str:
    if asking.target.single:
        return f"the tier {asking.target.name} takes plain text chats only; name a tier of kind openai"
    return "no tier of this cascade takes it; add one of kind openai"


def _dicts(value: object) -> list[Body]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
