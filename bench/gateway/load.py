"""A light generator of requests: so many connections, each with one request at a time, the next as soon as it is over.

Sockets and httptools, on uvloop: what it costs is paid by the core that it shares with the upstream, not by a server's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import httptools
import uvloop

from bench.gateway.upstream import WORDS

_FIRST, _LAST, _END = WORDS[0].strip().encode(), WORDS[-1].strip().encode(), b"[DONE]"
#: For those that have begun when the time is up.
_PATIENCE_S = 60.0


@dataclass(slots=True)
class Taken:
    """What the requests took. ``first_words_ms``: until the first word of the answer was there."""

    latencies_ms: list[float] = field(default_factory=list)
    first_words_ms: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0


def request(body: Mapping[str, object], headers: Mapping[str, str]) -> bytes:
    """The bytes of a chat completion's request."""
    data = json.dumps(body).encode()
    told = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + data


def drive(port: int, message: bytes, *, stream: bool, at_once: int, seconds: float) -> Taken:
    """Ask for so long, from so many connections. Raises RuntimeError for an answer that is not whole."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drive(port, message, stream, at_once, seconds))


async def _drive(port: int, message: bytes, stream: bool, at_once: int, seconds: float) -> Taken:
    loop, taken = asyncio.get_running_loop(), Taken()
    clients = [_Client(message, taken, stream=stream, over=loop.create_future()) for _ in range(at_once)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    began_s = time.perf_counter()
    for client in clients:
        client.begin(until_s=began_s + seconds)
    async with asyncio.timeout(seconds + _PATIENCE_S):
        await asyncio.gather(*(client.over for client in clients))
    taken.elapsed_s = time.perf_counter() - began_s
    for client in clients:
        client.close()
    return taken


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, message: bytes, taken: Taken, *, stream: bool, over: asyncio.Future[None]) -> None:
        self.over = over
        self._message = message
        self._taken = taken
        self._stream = stream
        self._parser = httptools.HttpResponseParser(self)
        self._until_s = self._sent_s = 0.0
        self._body = b""
        self._first_s: float | None = None

    def begin(self, *, until_s: float) -> None:
        self._until_s = until_s
        self._send()

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(RuntimeError(f"the server hung up ({exc})"))

    def on_body(self, data: bytes) -> None:
        self._body += data
        if self._first_s is None and _FIRST in self._body:
            self._first_s = time.perf_counter()

    def on_message_complete(self) -> None:
        now_s = time.perf_counter()
        whole = _LAST in self._body and (not self._stream or _END in self._body)
        if self._parser.get_status_code() != 200 or not whole or self._first_s is None:
            said = self._body.decode(errors="replace")[:1000]
            self.over.set_exception(RuntimeError(f"HTTP {self._parser.get_status_code()}: {said}"))
            return
        self._taken.latencies_ms.append((now_s - self._sent_s) * 1e3)
        self._taken.first_words_ms.append((self._first_s - self._sent_s) * 1e3)
        if now_s < self._until_s:
            self._send()
        else:
            self.over.set_result(None)

    def _send(self) -> None:
        self._body, self._first_s = b"", None
        self._sent_s = time.perf_counter()
        self._transport.write(self._message)
