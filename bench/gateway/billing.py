"""An upstream that fails in one way, now and then, and keeps an invoice of what it worked, to the nano-dollar.

It bills as unkindly as a provider may: a question that was taken in, and every word that was written, whether or not
anybody got to read them. Only a refusal (429, 500) is free. Knows nothing of the gateway.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from corea.prices import Price
from corea.types import Usage

BEFORE, MIDWAY = "before", "midway"
LATENCY_S = 0.05


@dataclass(slots=True, kw_only=True)
class Call:
    """One call as the upstream saw it. ``words`` were written."""

    question: str
    prompt_tokens: int
    stream: bool
    faulted: bool
    words: int = 0
    is_refusal: bool = False

    def nano_usd(self, price: Price) -> int:
        if self.is_refusal:
            return 0
        return price.cost_nano_usd(Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.words))


Answer = Callable[["Exchange"], Awaitable[web.StreamResponse]]


class BillingUpstream:
    """``async with BillingUpstream("reset", rate=0.2, where=MIDWAY, …)``. Its first call fails, of the others a share.

    ``last_line`` ends every answer: how sure the model is, for instance.
    """

    def __init__(
        self,
        fault: str | None = None,
        *,
        rate: float = 1.0,
        where: str = BEFORE,
        price: Price,
        last_line: str = "",
        latency_s: float = 0.0,
        rng: random.Random,
    ) -> None:
        self._fault = fault
        self._rate = rate
        self._where = where
        self._price = price
        self._last_line = last_line
        self._latency_s = latency_s
        self._rng = rng
        self.calls: list[Call] = []
        self.base_url = ""

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve, handler_cancellation=True), shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runner.cleanup()

    def invoice(self) -> dict[str, int]:
        """Nano-USD by question."""
        billed: dict[str, int] = {}
        for call in self.calls:
            billed[call.question] = billed.get(call.question, 0) + call.nano_usd(self._price)
        return billed

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.json()
        call = Call(
            question=body["messages"][-1]["content"],
            prompt_tokens=self._rng.randint(10, 90),
            stream=bool(body.get("stream")),
            faulted=self._fault is not None and (not self.calls or self._rng.random() < self._rate),
        )
        self.calls.append(call)
        await asyncio.sleep(self._latency_s)
        said = f"{'word ' * self._rng.randint(4, 30)}\nAnswer: 42{self._last_line}"
        exchange = Exchange(request=request, call=call, words=said.split(" "))
        if not call.faulted or self._fault is None:
            return await exchange.answered()
        return await FAULTS[self._fault](exchange, self._where)


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A call on its way to its answer, or to a part of it."""

    request: web.BaseRequest
    call: Call
    words: list[str]
    response: web.StreamResponse | None = None

    async def answered(self) -> web.StreamResponse:
        await self.write(len(self.words))
        return await self.end()

    async def half(self) -> None:
        await self.write(len(self.words) // 2)

    async def write(self, words: int) -> None:
        """Words up to this one, as events or as that part of the JSON body."""
        response = await self._begun()
        for word in self.words[self.call.words : words]:
            self.call.words += 1
            if self.call.stream:
                await response.write(_event(_choices({"content": word + " "})))
        if not self.call.stream:
            whole = self._whole()
            await response.write(whole if words == len(self.words) else whole[: len(whole) // 2])

    async def end(self) -> web.StreamResponse:
        response = await self._begun()
        if self.call.stream:
            counted = {"choices": [], "usage": self._usage(self.call.words)}
            await response.write(_event(_choices({}, "stop")) + _event(counted) + b"data: [DONE]\n\n")
        return response

    async def send(self, data: bytes) -> None:
        await (await self._begun()).write(data)

    @property
    def transport(self) -> asyncio.Transport:
        assert self.request.transport is not None
        return self.request.transport

    async def _begun(self) -> web.StreamResponse:
        if self.response is None:
            kind = "text/event-stream" if self.call.stream else "application/json"
            self.response = web.StreamResponse(headers={"Content-Type": kind})
            if not self.call.stream:
                self.response.content_length = len(self._whole())
            await self.response.prepare(self.request)
        return self.response

    def _whole(self) -> bytes:
        message = {"role": "assistant", "content": " ".join(self.words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = self._usage(len(self.words))
        return json.dumps({"model": "mock", "choices": [choice], "usage": usage}).encode()

    def _usage(self, words: int) -> dict[str, int]:
        prompt = self.call.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}


def _choices(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"model": "mock", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _event(payload: object) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


async def _latency(exchange: Exchange, where: str) -> web.StreamResponse:
    if where == MIDWAY and exchange.call.stream:
        await exchange.half()
    await asyncio.sleep(LATENCY_S)
    return await exchange.answered()


async def _reset(exchange: Exchange, where: str) -> web.StreamResponse:
    if where == MIDWAY:
        await exchange.half()
        # What was written is to arrive first.
        await asyncio.sleep(0.01)
    connection = exchange.transport.get_extra_info("socket")
    # Lingering zero seconds sends RST instead of FIN.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.transport.abort()
    return await _silence()


async def _hang(exchange: Exchange, where: str) -> web.StreamResponse:
    if where == MIDWAY:
        await exchange.half()
    return await _silence()


async def _cut(exchange: Exchange, where: str) -> web.StreamResponse:
    if where == MIDWAY or not exchange.call.stream:
        await exchange.half()
    else:
        await exchange.send(b": here it comes\n\n")
    exchange.transport.close()
    return await _silence()


async def _garbage(exchange: Exchange, where: str) -> web.StreamResponse:
    if where == MIDWAY and exchange.call.stream:
        await exchange.half()
        await exchange.send(b'data: {"choices": [{"delta": <html>\n\n')
        return await exchange.end()
    exchange.call.words = len(exchange.words)
    return web.Response(text="<html><title>Welcome</title></html>", content_type="text/html")


def _refusal(status: int, **headers: str) -> Callable[[Exchange, str], Awaitable[web.StreamResponse]]:
    async def refuse(exchange: Exchange, where: str) -> web.StreamResponse:
        error = {"error": {"message": f"mock refuses with {status}", "type": "server_error"}}
        if where == MIDWAY and exchange.call.stream:
            await exchange.half()
            await exchange.send(_event(error))
            return await exchange.end()
        exchange.call.is_refusal = True
        return web.json_response(error, status=status, headers=headers)

    return refuse


async def _silence() -> web.StreamResponse:
    return await asyncio.Event().wait() and web.Response()


FAULTS: dict[str, Callable[[Exchange, str], Awaitable[web.StreamResponse]]] = {
    "latency": _latency,
    "reset": _reset,
    "hang": _hang,
    "cut": _cut,
    "garbage": _garbage,
    "429": _refusal(429, **{"retry-after-ms": "20"}),
    "500": _refusal(500),
}
