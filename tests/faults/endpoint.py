"""A chat-completions server on loopback that misbehaves on demand.

Each request takes the next fault of the script; the last one repeats. Wherever a server could echo the key it was
sent, this one does. ``refuse`` is not a script but a port that nobody listens on.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

TEXT = "Six times seven.\nAnswer: 42\nConfidence: 9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request, as the server saw it."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def key(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


Fault = Callable[[web.BaseRequest, Received], Awaitable[web.StreamResponse]]


class FaultyEndpoint:
    """``async with FaultyEndpoint("status_500", "ok") as endpoint`` fails once, then works.

    ``faults`` are names in :data:`FAULTS` or handlers; ``payload`` is the JSON of ``ok``. ``requests`` are all that
    arrived, ``disconnects`` counts the clients that hung up on us.
    """

    def __init__(self, *faults: str | Fault, payload: Mapping[str, Any] | None = None) -> None:
        self._faults = faults or ("ok",)
        self._payload = completion() if payload is None else payload
        self.requests: list[Received] = []
        self.disconnects = 0
        self.connections: set[object] = set()
        self.port = 0
        self._closing = False
        self._arrived = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self._deaf: socket.socket | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        if self._faults == ("refuse",):
            # Bound but not listening: refuses, and nobody else can take the port meanwhile.
            self._deaf = socket.socket()
            self._deaf.bind(("127.0.0.1", 0))
            self.port = self._deaf.getsockname()[1]
            return self
        server = web.Server(self._serve, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closing = True
        if self._deaf is not None:
            self._deaf.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def asked(self) -> None:
        """Wait for the first request."""
        await self._arrived.wait()

    async def disconnected(self, *, within_s: float) -> bool:
        """Whether a client hung up on a request in progress, waiting for it a while."""
        try:
            await asyncio.wait_for(self._hung_up.wait(), within_s)
        except TimeoutError:
            return False
        return True

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        received = Received(path=request.path_qs, headers=dict(request.headers), body=await request.json())
        fault = self._faults[min(len(self.requests), len(self._faults) - 1)]
        self.requests.append(received)
        self.connections.add(request.transport)
        self._arrived.set()
        try:
            if fault == "ok":
                return web.json_response(self._payload)
            return await (FAULTS[fault] if isinstance(fault, str) else fault)(request, received)
        except (asyncio.CancelledError, ConnectionResetError):
            if not self._closing:
                self.disconnects += 1
                self._hung_up.set()
            raise


@contextmanager
def served_from_a_thread(*faults: str | Fault, payload: Mapping[str, Any] | None = None) -> Iterator[FaultyEndpoint]:
    """The same server, for code that runs its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    endpoint = FaultyEndpoint(*faults, payload=payload)
    asyncio.run_coroutine_threadsafe(endpoint.__aenter__(), loop).result(timeout=10)
    try:
        yield endpoint
    finally:
        asyncio.run_coroutine_threadsafe(endpoint.__aexit__(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


def completion(text: str = TEXT, *, model: str = "served-model", logprobs: bool = True) -> dict[str, Any]:
    """A chat completion as OpenAI sends it: one token a line, if asked for log-probabilities."""
    top = [{"token": "9", "logprob": -0.1}, {"token": "2", "logprob": -2.4}]
    content = [
        {"token": line, "logprob": -0.2, "bytes": None, "top_logprobs": top} for line in text.splitlines(keepends=True)
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": {"content": content, "refusal": None} if logprobs else None,
            }
        ],
        "usage": {
            "prompt_tokens": 25,
            "completion_tokens": 12,
            "total_tokens": 37,
            "prompt_tokens_details": {"cached_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }


def status(code: int, **headers: str) -> Fault:
    """A refusal in OpenAI's words. It echoes the key; underscores in header names stand for dashes."""

    async def refuse(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        error = {"message": f"refused\n for key {received.key}", "type": "some_error", "code": None}
        dashed = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response({"error": error}, status=code, headers=dashed)

    return refuse


def page(code: int) -> Fault:
    """What a proxy or a wrong URL sends."""

    async def send(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        text = (
            f"<!doctype html>\n<html><head><title>Bad\n gateway for {received.key}</title></head><body>…</body></html>"
        )
        return web.Response(text=text, status=code, content_type="text/html")

    return send


def sends(payload: object, code: int = 200) -> Fault:
    """Valid JSON, whatever it says."""

    async def send(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        return web.json_response(payload, status=code)

    return send


async def hang(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    return await asyncio.Event().wait() and web.Response()


async def hang_after_headers(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    response = await _begin(request, 1000)
    await response.write(b'{"id": ')
    return await hang(request, received)


async def truncated_json(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    return web.Response(body=json.dumps(completion()).encode()[:-40], content_type="application/json")


async def cut_body(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    whole = json.dumps(completion()).encode()
    response = await _begin(request, len(whole))
    await response.write(whole[: len(whole) // 2])
    _transport(request).close()
    return await hang(request, received)


async def reset_in_body(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    response = await _begin(request, 1000)
    await response.write(b'{"id": ')
    await asyncio.sleep(0.02)
    return await reset(request, received)


async def reset(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    # Lingering zero seconds sends RST instead of FIN.
    connection = _transport(request).get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    _transport(request).abort()
    return await hang(request, received)


async def hang_up(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    _transport(request).close()
    return await hang(request, received)


async def not_http(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    _transport(request).write(f"SSH-2.0-OpenSSH_9.6 {received.key}\r\n\r\n".encode())
    _transport(request).close()
    return await hang(request, received)


async def huge(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    response = await _begin(request, None)
    while True:
        await response.write(b" " * 65536)


async def drip(request: web.BaseRequest, received: Received) -> web.StreamResponse:
    whole = json.dumps(completion()).encode()
    response = await _begin(request, len(whole))
    for position in range(len(whole)):
        await response.write(whole[position : position + 1])
        await asyncio.sleep(0.02)
    return response


async def _begin(request: web.BaseRequest, length: int | None) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = length
    await response.prepare(request)
    return response


def _transport(request: web.BaseRequest) -> asyncio.Transport:
    assert request.transport is not None
    return request.transport


_VLLM_OVERFLOW = "This model's maximum context length is 4096 tokens. However, your request has 9000 input tokens."

FAULTS: dict[str, Fault] = {
    "hang": hang,
    "hang_after_headers": hang_after_headers,
    "status_401": status(401),
    "status_403": status(403),
    "status_404": status(404),
    "status_408": status(408),
    "status_409": status(409),
    "status_429": status(429, Retry_After="1"),
    "status_429_date": status(429, Retry_After="Tue, 07 Oct 2025 10:00:02 GMT", Date="Tue, 07 Oct 2025 10:00:00 GMT"),
    "status_429_ms": status(429, retry_after_ms="250"),
    "status_500": status(500),
    "status_502": status(502),
    "status_503": status(503),
    "status_504": status(504),
    "moved": status(301, Location="https://elsewhere.example/v1"),
    "html_200": page(200),
    "html_502": page(502),
    "truncated_json": truncated_json,
    "cut_body": cut_body,
    "reset": reset,
    "reset_in_body": reset_in_body,
    "hang_up": hang_up,
    "not_http": not_http,
    "garbage": sends({"object": "list", "data": []}),
    "error_200": sends({"error": {"message": "upstream is overloaded", "code": 502}}),
    "empty": sends(None),
    "overflow_llama": sends(
        {"error": {"code": 400, "message": "too many tokens", "type": "exceed_context_size_error", "n_ctx": 4096}}, 400
    ),
    "overflow_openai": sends(
        {"error": {"code": "context_length_exceeded", "message": "Too long.", "type": "invalid_request_error"}}, 400
    ),
    "overflow_vllm": sends({"object": "error", "message": _VLLM_OVERFLOW, "type": "BadRequestError", "code": 400}, 400),
    "huge": huge,
    "drip": drip,
}
