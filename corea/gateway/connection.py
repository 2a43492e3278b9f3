"""One HTTP exchange over ASGI: a body read within its limit, an answer sent once, and a client who may hang up.

Knows no routes and no models.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from corea.gateway.errors import ApiError
from corea.gateway.shapes import KEEP_ALIVE, event

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ClientGone(Exception):
    """The client hung up; there is nobody to answer."""


class Connection:
    """One request and its answer. ``headers`` have lower-case names; ``status`` is what was answered, 0 for nothing."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, request_id: str) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.request_id = request_id
        self.status = 0
        #: Whether a stream that had begun ended in an error.
        self.failed = False
        self.stream_headers: dict[str, str] = {}
        #: What was set aside for the request, if anything was.
        self.reserved: Mapping[str, Any] | None = None
        self._body: bytes | None = None
        self._receive = receive
        self._send = send
        self._streaming = False
        self._last_sent_s = 0.0
        self._gone = False

    async def read(self, limit_bytes: int) -> bytes:
        """The body, read once. Raises :class:`ApiError` (413) as soon as it is too large, :class:`ClientGone`."""
        if self._body is None:
            self._body = await self._read(limit_bytes)
        return self._body

    async def _read(self, limit_bytes: int) -> bytes:
        too_large = ApiError(f"the body is larger than {limit_bytes} bytes", status=413, code="request_too_large")
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit_bytes:
            raise too_large
        parts, size_bytes = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size_bytes += len(part)
            if size_bytes > limit_bytes:
                raise too_large
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    @asynccontextmanager
    async def watched(self, *, keep_alive_s: float | None = None) -> AsyncGenerator[None, None]:
        """Cancels what runs inside when the client hangs up; then raises :class:`ClientGone`.

        With ``keep_alive_s``, the answer is a stream, and says that it is alive after so many seconds of silence.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ASGI apps run in tasks
        self._last_sent_s = asyncio.get_running_loop().time()
        watcher = asyncio.ensure_future(self._watch(task, keep_alive_s))
        try:
            yield
        except asyncio.CancelledError:
            if not self._gone:
                raise
            task.uncancel()
            raise ClientGone from None
        finally:
            watcher.cancel()

    def send_by(self, over: Callable[[Send], Send]) -> None:
        """From now on, what goes out passes what is put over the sending."""
        self._send = over(self._send)

    async def answer(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        """A whole answer."""
        await self._start(status, {"content-type": content_type, "content-length": str(len(body)), **headers})
        await self._send({"type": "http.response.body", "body": body})

    async def answer_json(self, status: int, payload: object, headers: Mapping[str, str]) -> None:
        await self.answer(status, orjson.dumps(payload), "application/json", headers)

    async def answer_error(self, error: ApiError) -> None:
        """An error; as an event, where a stream has begun."""
        if self._streaming:
            self.failed = True
            await self.write(event(error.body))
            await self.end()
        elif not self.status:
            await self.answer_json(error.status, error.body, error.headers)

    async def write(self, data: bytes) -> None:
        """A part of a stream. The first one sends the status and ``stream_headers``."""
        if not self._streaming:
            self._streaming = True
            await self._start(
                200,
                {
                    "content-type": "text/event-stream; charset=utf-8",
                    "cache-control": "no-cache",
                    **self.stream_headers,
                },
            )
        self._last_sent_s = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The last part of a stream."""
        if not self._streaming:
            await self.write(data)
            data = b""
        await self._send({"type": "http.response.body", "body": data})

    @property
    def streaming(self) -> bool:
        return self._streaming

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        told = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        told.append((b"x-request-id", self.request_id.encode("latin-1")))
        await self._send({"type": "http.response.start", "status": status, "headers": told})

    async def _watch(self, task: asyncio.Task[Any], keep_alive_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(None if keep_alive_s is None else self._last_sent_s + keep_alive_s):
                    message = await self._receive()
            except TimeoutError:
                if keep_alive_s is not None and loop.time() >= self._last_sent_s + keep_alive_s:
                    await self.write(KEEP_ALIVE)
                continue
            if message["type"] == "http.disconnect":
                self._gone = True
                task.cancel()
                return
