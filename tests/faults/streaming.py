"""Streamed answers for :class:`faults.endpoint.FaultyEndpoint`: whole, and broken in every way we have seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from faults.endpoint import TEXT, Fault, Received, completion, hang

USAGE = completion()["usage"]


def chunk(text: str | None = None, *, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk of a chat completion, as OpenAI sends it."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "served-model",
        "choices": [choice],
    } | fields


def events_of(text: str = TEXT, *, usage: object = USAGE) -> list[bytes]:
    """The events of a whole answer, one a line of the text, its usage and ``[DONE]`` last."""
    chunks = [chunk(""), *(chunk(line) for line in text.splitlines(keepends=True)), chunk(finish_reason="stop")]
    chunks.append({"object": "chat.completion.chunk", "choices": [], "usage": usage})
    return [b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in chunks] + [
        b"data: [DONE]\n\n"
    ]


def stream(parts: Sequence[bytes], *, pause_s: float = 0.0, then: str = "end") -> Fault:
    """Sends the parts, and then ends properly, cuts the connection, or hangs."""

    async def send(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(pause_s)
        if then == "cut":
            assert request.transport is not None
            request.transport.close()
        if then in ("cut", "hang"):
            return await hang(request, received)
        return response

    return send


def whole(text: str = TEXT, *, pause_s: float = 0.0) -> Fault:
    return stream(events_of(text), pause_s=pause_s)


def event(payload: object) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"
