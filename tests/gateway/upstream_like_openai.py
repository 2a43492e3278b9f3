"""A gateway whose last tier is a server that answers as OpenAI does: tools with calls, schemas with JSON; streams."""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from corea.models.openai import OpenAIModel
from corea.prices import FixedPrice
from corea.tier import Tier
from faults.endpoint import TEXT, Fault, FaultyEndpoint, Received, completion, served_from_a_thread
from faults.streaming import USAGE, chunk, event
from gateway.running import Running, serving, small

ARGUMENTS = '{"a": 6, "b": 7}'
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "multiply",
        "description": "The product of two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
CALL: Any = {"id": "call_1", "type": "function", "function": {"name": "multiply", "arguments": ARGUMENTS}}
#: What a request for JSON is answered with.
STRUCTURED = '{"steps": ["6 × 7"], "answer": 42}'
EMBEDDING = [0.25, -0.5, 1.0]


@contextmanager
def relaying(*faults: str | Fault, **settings: Any) -> Iterator[tuple[Running, FaultyEndpoint]]:
    """A small model that keeps everything, and a large one that is a server; by default :func:`like_openai`."""
    with served_from_a_thread(*(faults or (like_openai,))) as endpoint:
        model = OpenAIModel(
            "large", base_url=endpoint.base_url, model="served-model", max_retries=0, rng=random.Random(1)
        )
        large = Tier(name="large", model=model, price=FixedPrice.per_million(10.0, 20.0))
        with serving(small(), large, **settings) as running:
            yield running, endpoint


async def like_openai(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    body = received.body
    if received.path.endswith("/embeddings"):
        return web.json_response(_embeddings(body))
    calls = body.get("tools") and body["messages"][-1]["role"] != "tool"
    text = STRUCTURED if body.get("response_format") else TEXT
    if not body.get("stream"):
        return web.json_response(_calling() if calls else completion(text))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for piece in _called() if calls else _said(text):
        await response.write(event(piece))
    if (body.get("stream_options") or {}).get("include_usage"):
        await response.write(event({**chunk(), "choices": [], "usage": USAGE}))
    await response.write(b"data: [DONE]\n\n")
    return response


def _calling() -> dict[str, Any]:
    payload = completion(logprobs=False)
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    payload["choices"][0] |= {"message": message, "finish_reason": "tool_calls"}
    return payload


def _called() -> list[dict[str, Any]]:
    def piece(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        whole = chunk(finish_reason=reason)
        whole["choices"][0]["delta"] = delta
        return whole

    named = {**CALL, "index": 0, "function": {"name": "multiply", "arguments": ""}}
    arguments = [
        piece({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        for part in (ARGUMENTS[:5], ARGUMENTS[5:])
    ]
    return [piece({"role": "assistant", "content": None, "tool_calls": [named]}), *arguments, piece({}, "tool_calls")]


def _said(text: str) -> list[dict[str, Any]]:
    words = [chunk(text[at : at + 7]) for at in range(0, len(text), 7)]
    first = chunk("")
    first["choices"][0]["delta"]["role"] = "assistant"
    return [first, *words, chunk(finish_reason="stop")]


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    packed = base64.b64encode(struct.pack("<3f", *EMBEDDING)).decode()
    embedding = packed if body.get("encoding_format") == "base64" else EMBEDDING
    return {
        "object": "list",
        "model": "served-model",
        "data": [{"object": "embedding", "index": 0, "embedding": embedding}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


def schema() -> dict[str, Any]:
    """The schema of :data:`STRUCTURED`, as a ``response_format``."""
    shape = {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": {"type": "string"}}, "answer": {"type": "integer"}},
        "required": ["steps", "answer"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "solution", "strict": True, "schema": shape}}


def answer_in(structured: str | None) -> int:
    return int(json.loads(structured or "")["answer"])
