"""The mock upstream: answers after 20 ms, whole or as 32 words: ``python -m bench.gateway.upstream PORT``.

It shares a core with the clients, so it does little: sockets and httptools, no framework. Knows no model and no key.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
from typing import cast

import httptools

FIRST_BYTE_S = 0.02
WORDS = [f" word{index}" for index in range(32)]
USAGE = {"prompt_tokens": 25, "completion_tokens": 32, "total_tokens": 57}


def _chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


COUNTED = b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": USAGE}).encode() + b"\n\n"
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "".join(WORDS)}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()


def _json(body: bytes) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body]


BUFFERED, MODELS = _json(WHOLE), _json(b'{"object": "list", "data": []}')
STREAMED = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    _framed(_chunk({"role": "assistant", "content": ""})),
    *(_framed(_chunk({"content": word})) for word in WORDS),
    _framed(_chunk({}, "stop")),
    _framed(COUNTED + b"data: [DONE]\n\n") + b"0\r\n\r\n",
]


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        if not self._body:
            # LiteLLM asks which models there are.
            self._answer(MODELS)
            return
        pieces = STREAMED if json.loads(self._body).get("stream") else BUFFERED
        self._body = b""
        asyncio.get_running_loop().call_later(FIRST_BYTE_S, self._answer, pieces)

    def _answer(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if not self._transport.is_closing():
                self._transport.write(piece)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def precise_loop() -> asyncio.AbstractEventLoop:
    """Timers of others go by whole milliseconds; what a gateway adds would vanish between two of them."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(main(int(sys.argv[1])))
