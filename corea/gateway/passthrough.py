"""Requests that the cascade cannot judge, handed to one tier as they are. They cost money too, so they leave a trace.

What is relayed: the JSON, but for the model's name and the usage we need. Knows no dialect but chat's usage and text.
"""

from __future__ import annotations

import asyncio
import json
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
from corea.gateway.reading import is_deeper
from corea.gateway.served import first_word
from corea.gateway.shapes import DONE, corea_field, corea_headers, event
from corea.ledger.ids import new_trace_id
from corea.models.openai import OpenAIModel, Relayed
from corea.models.wire import error_in, error_of, usage_of
from corea.tier import Tier
from corea.types import Attempt, Confidence, Decision, Failure, Reason, Trace, Usage

Body = dict[str, Any]

#: Deeper than any answer, and less deep than what cannot be written as JSON again.
_MOST_DEPTH = 200


@dataclass(slots=True, kw_only=True)
class _ToolCall:
    """One call that the model wants made; ``arguments`` as it wrote them."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class _ToolCalls:
    """Those of a whole message, or of a stream's pieces put together."""

    def __init__(self) -> None:
        self._calls: dict[int, _ToolCall] = {}

    def hear(self, said: Body) -> None:
        for place, piece in enumerate(_dicts(said.get("tool_calls"))):
            index = piece.get("index")
            call = self._calls.setdefault(index if isinstance(index, int) else place, _ToolCall())
            function = piece.get("function")
            function = function if isinstance(function, dict) else {}
            call.id = _text(piece.get("id")) or call.id
            call.name += _text(function.get("name"))
            call.arguments += _text(function.get("arguments"))

    def as_json(self) -> str:
        """``{"tool_calls": [{"id", "name", "arguments"}, …]}`` for the trace; empty where there are none."""
        if not self._calls:
            return ""
        calls = [
            {"id": call.id, "name": call.name, "arguments": _verbatim(call.arguments)}
            for _, call in sorted(self._calls.items())
        ]
        return orjson.dumps({"tool_calls": calls}).decode()


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
    tool_calls: _ToolCalls = field(default_factory=_ToolCalls)
    usage: Usage | None = None
    finish_reason: str | None = None
    #: An earlier try broke off, and may have been billed as well.
    billed_twice: bool = False

    @property
    def route(self) -> str:
        return f"passthrough:{self.why}"

    def trace(self, failure: Failure | None = None, *, billed: bool = True) -> Trace:
        cascade, tier = self.asking.target.cascade, self.tier
        cost = tier.cost_nano_usd(None if self.billed_twice else self.usage) if billed else 0
        elapsed_s = self.asking.clock() - self.started_s
        attempt = Attempt(
            tier=tier.name,
            model=tier.model.name,
            decision=Decision(keep=failure is None, reason=Reason.FAILED if failure else Reason.RELAYED),
            confidence=Confidence.unknown("none", "the request was handed to this tier as it is"),
            text="\n".join(filter(None, ["".join(self.texts), self.tool_calls.as_json()])),
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
            said = said if isinstance(said, dict) else {}
            content = said.get("content", said.get("text"))
            if isinstance(content, str):
                self.texts.append(content)
            self.tool_calls.hear(said)
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
            _guarded(tier, deadline_s),
            tier.model.relay(path, body, timeout_s=deadline_s) as relayed,
        ):
            call.billed_twice = relayed.may_be_billed_twice
            if relayed.status // 100 != 2:
                raise _refusal(relayed.status, await relayed.read(), tier.name)
            if stream:
                await _relay_events(connection, call, relayed, include_usage=include_usage)
            else:
                await _relay_whole(connection, call, await relayed.read())
    except ApiError as error:
        await call.keep(Failure(kind="UpstreamStatus", message=str(error)), billed=False)
        raise
    except ModelError as error:
        failure = Failure(kind=type(error).__name__, message=str(error))
        await call.keep(failure, billed=error.may_be_billed)
        raise
    except BaseException:
        if connection.status == 0 or connection.streaming:
            await call.keep(Failure(kind="Abandoned", message="the caller went away before the answer was there"))
        raise


@asynccontextmanager
async def _guarded(tier: Tier, deadline_s: float) -> AsyncGenerator[None, None]:
    with tier.guarded():
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except TimeoutError as exc:
            raise UpstreamTimeout(model=tier.name, elapsed_s=deadline_s) from exc


async def _relay_whole(connection: Connection, call: _Call, raw: bytes) -> None:
    payload = _answer(raw, call.tier, "data" if call.why == "embeddings" else "choices")
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
    async with aclosing(_payloads(relayed, call.tier)) as payloads:
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
                if call.texts:
                    first_word(call.asking.clock() - call.asking.started_s)
    if call.finish_reason is None:
        raise UpstreamGarbage(f"{call.tier.name}: the stream was cut off in the middle of the answer; try again")
    trace = await call.keep()
    if call.asking.corea_body and held:
        overhead_s = call.asking.overhead_s(trace)
        held[0] = {**held[0], "corea": corea_field(trace, route=call.route, overhead_s=overhead_s)}
    await connection.end(b"".join([event(payload) for payload in held]) + DONE)


async def _payloads(relayed: Relayed, tier: Tier) -> AsyncGenerator[Body, None]:
    if relayed.content_type != "text/event-stream":
        for payload in _as_chunks(_answer(await relayed.read(), tier, "choices")):
            yield payload
        return
    async with aclosing(relayed.events()) as events:
        async for data in events:
            if data.strip() == b"[DONE]":
                return
            payload = _object(data, tier.name)
            if payload.get("error"):
                raise error_in(payload, tier.name, secret=_secret(tier))
            yield payload


def _secret(tier: Tier) -> str | None:
    """The key that an upstream may echo: an answer of status 200 is not searched for it, only the errors in one."""
    return tier.model._key if isinstance(tier.model, OpenAIModel) else None


def _answer(raw: bytes, tier: Tier, holds: str) -> Body:
    """A whole answer. Raises :class:`ModelError` for one without the list that it is all about."""
    payload = _object(raw, tier.name)
    if payload.get("error") and holds not in payload:
        raise error_in(payload, tier.name, secret=_secret(tier))
    if not _dicts(payload.get(holds)):
        raise UpstreamGarbage(f"{tier.name}: the endpoint sent an answer without {holds}; check base_url")
    return payload


def _as_chunks(payload: Body) -> list[Body]:
    """A whole answer as a stream, for a client that asked for one: it would take the whole for an empty stream."""
    choices = []
    for choice in _dicts(payload["choices"]):
        message = choice.get("message")
        if isinstance(message, dict):
            calls = [{"index": index, **call} for index, call in enumerate(_dicts(message.get("tool_calls")))]
            choice["delta"] = {**message, **({"tool_calls": calls} if calls else {})}
            del choice["message"]
        choices.append(choice)
    kind = payload.get("object")
    head = {**payload, "object": "chat.completion.chunk" if kind == "chat.completion" else kind, "usage": None}
    return [{**head, "choices": choices}, {**head, "choices": [], "usage": payload.get("usage")}]


def _object(raw: bytes, tier: str) -> Body:
    try:
        payload = orjson.loads(raw)
    except ValueError:
        payload = _mended(raw)
    # Counting is cheap, and almost nothing has that many.
    if raw.count(b"{") + raw.count(b"[") > _MOST_DEPTH and is_deeper(payload, _MOST_DEPTH):
        payload = None
    if not isinstance(payload, dict):
        raise UpstreamGarbage(f"{tier}: the endpoint sent no JSON object; check base_url")
    return payload


def _mended(raw: bytes) -> object:
    """JSON with half a surrogate pair, which some servers send for half an emoji, as "?"; None where it is no JSON."""
    try:
        return orjson.loads(json.dumps(json.loads(raw), ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


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


def _verbatim(arguments: str) -> orjson.Fragment | str:
    """JSON within JSON as the model wrote it, not as an escaped text: a pattern of ``ledger.redact`` must find it."""
    try:
        orjson.loads(arguments)
    except ValueError:
        return arguments
    return orjson.Fragment(arguments)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dicts(value: object) -> list[Body]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
