"""The mock upstream: answers after 20 ms, whole or as 32 words: ``python -m bench.gateway.upstream PORT``."""

from __future__ import annotations

import asyncio
import json
import sys

from aiohttp import web

FIRST_BYTE_S = 0.02
WORDS = [f" word{index}" for index in range(32)]
USAGE = {"prompt_tokens": 25, "completion_tokens": 32, "total_tokens": 57}


def _chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


CHUNKS = [
    _chunk({"role": "assistant", "content": ""}),
    *(_chunk({"content": word}) for word in WORDS),
    _chunk({}, "stop"),
]
COUNTED = b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": USAGE}).encode() + b"\n\n"
MESSAGE = {"role": "assistant", "content": "".join(WORDS)}
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()


async def chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    await asyncio.sleep(FIRST_BYTE_S)
    if not body.get("stream"):
        return web.Response(body=WHOLE, content_type="application/json")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for chunk in CHUNKS:
        await response.write(chunk)
    await response.write(COUNTED + b"data: [DONE]\n\n")
    return response


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
