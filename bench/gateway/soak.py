"""Memory of a gateway process after 100,000 mixed requests, against that after 10,000.

``python -m bench.gateway.soak [requests]`` keeps its figures in bench/results/gateway_soak.json. Buffered and streamed,
kept, deferred and relayed; clients who leave, upstreams that fail, wrong bodies and wrong keys; virtual keys, limits,
ledger, metrics and Idempotency-Key on. Memory is the server process's own (PSS), a moment after the last request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from aiohttp import web

from bench.gateway.processes import cpu_s, pss_mb, started
from bench.measure import Figure

RESULT = Path(__file__).parents[1] / "results" / "gateway_soak.json"
AT_ONCE = 16
FIRST, ALL = 10_000, 100_000
#: 0.4 × what LiteLLM 1.109.1 uses.
MOST_MB = 160.0
_CALM_S = 2.0
_SELF = (sys.executable, "-m", "bench.gateway.soak")
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
_WORDS = [f" word{index}" for index in range(16)]
_USAGE = {"prompt_tokens": 25, "completion_tokens": 16, "total_tokens": 41}


# The upstream of both tiers: does at once what the question names


async def upstream(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    asked = str(body["messages"][-1]["content"]).split()[0]
    if asked == "fail":
        return web.json_response({"error": {"message": "overloaded"}}, status=500)
    if asked == "hang":
        await asyncio.sleep(3600)
    sure = asked != "unsure" or body["model"] == "large"
    text = "".join(_WORDS) + f"\nAnswer: 42\nConfidence: {9 if sure else 1}"
    if not body.get("stream"):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({"id": "c", "object": "chat.completion", "choices": [choice], "usage": _USAGE})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for word in _WORDS:
        await response.write(_event({"index": 0, "delta": {"content": word}, "finish_reason": None}))
    if asked == "cut":
        return response
    await response.write(_event({"index": 0, "delta": {}, "finish_reason": "stop"}))
    await response.write(b"data: " + json.dumps({"choices": [], "usage": _USAGE}).encode() + b"\n\ndata: [DONE]\n\n")
    return response


def _event(choice: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


# The gateway


def gateway(folder: Path, upstream_url: str) -> Any:
    from corea import Cascade
    from corea.confidence import Verbalized
    from corea.gateway.app import Gateway
    from corea.gateway.auth import authorizer_of
    from corea.gateway_config import GatewayConfig
    from corea.ledger import Ledger
    from corea.models.openai import OpenAIModel
    from corea.prices import FixedPrice
    from corea.tier import Tier

    def model(name: str) -> OpenAIModel:
        return OpenAIModel(
            name, base_url=upstream_url, model=name, max_connections=0, max_retries=0, rng=random.Random(1)
        )

    small = Tier(name="small", model=model("small"), estimator=Verbalized(), threshold=0.5, price=_price(0.1))
    large = Tier(name="large", model=model("large"), price=FixedPrice.per_million(1, 2))
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")
    settings = GatewayConfig(virtual_keys=True, max_body_bytes=100_000)
    return Gateway(
        Cascade([small, large], ledger=ledger, fingerprint="soak"),
        settings,
        authorizer=authorizer_of(settings, ledger),
    )


def _price(usd: float) -> Any:
    from corea.prices import FixedPrice

    return FixedPrice.per_million(usd, 2 * usd)


def _keys(folder: Path, count: int) -> list[str]:
    from corea.gateway import keys
    from corea.ledger import Ledger

    limits = keys.Limits(requests_per_minute=10**6, tokens_per_minute=10**9, day_nano_usd=10**15)
    with Ledger.open(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        pepper = keys.Pepper.load()
        return [keys.create(ledger, pepper, name=f"key-{n}", limits=limits)[1] for n in range(count)]


# The clients


class Clients:
    """One session of many requests; each takes the next kind in turn, so that both halves are the same mix."""

    def __init__(self, session: aiohttp.ClientSession, url: str, keys: list[str]) -> None:
        self._session = session
        self._url = url
        self._keys = keys
        self.statuses: Counter[str] = Counter()
        self._kinds: list[tuple[str, Callable[[int], Awaitable[int]]]] = [
            ("kept", lambda n: self._chat(n, "sure")),
            ("deferred", lambda n: self._chat(n, "unsure")),
            ("kept, streamed", lambda n: self._chat(n, "sure", stream=True)),
            ("deferred, streamed", lambda n: self._chat(n, "unsure", stream=True)),
            ("relayed", lambda n: self._chat(n, "sure", tools=[_TOOL])),
            ("relayed, streamed", lambda n: self._chat(n, "sure", tools=[_TOOL], stream=True)),
            ("left before the answer", lambda n: self._left(n, "hang", stream=False)),
            ("left in a stream", lambda n: self._left(n, "unsure", stream=True)),
            ("upstream fails", lambda n: self._chat(n, "fail", model="large")),
            ("stream is cut", lambda n: self._chat(n, "cut", model="large", stream=True)),
            ("no JSON", lambda n: self._post(n, "/v1/chat/completions", b'{"model": ')),
            ("too large", lambda n: self._post(n, "/v1/chat/completions", b" " * 200_000)),
            ("unknown model", lambda n: self._chat(n, "sure", model=f"model-{n}")),
            ("wrong key", lambda n: self._chat(n, "sure", key=f"sk-wrong-{n}")),
            ("response, streamed", self._response),
            ("sent twice", self._twice),
            ("models", lambda n: self._get(n, "/v1/models")),
            ("made-up path", lambda n: self._get(n, f"/made/up/{n}")),
        ]

    async def ask(self, number: int) -> None:
        name, kind = self._kinds[number % len(self._kinds)]
        self.statuses[f"{name}: {await kind(number)}"] += 1

    async def _chat(self, number: int, asked: str, *, key: str | None = None, **more: Any) -> int:
        message = {"role": "user", "content": f"{asked} {number} " + "How many eggs are left? " * 8}
        body = json.dumps({"model": "corea", "messages": [message], "max_tokens": 64, **more}).encode()
        return await self._post(number, "/v1/chat/completions", body, key=key)

    async def _response(self, number: int) -> int:
        body = {"model": "corea", "input": f"unsure {number}", "stream": True}
        return await self._post(number, "/v1/responses", json.dumps(body).encode())

    async def _twice(self, number: int) -> int:
        header = {"Idempotency-Key": f"once-{number}"}
        body = json.dumps({"model": "corea", "messages": [{"role": "user", "content": f"sure {number}"}]}).encode()
        first = await self._post(number, "/v1/chat/completions", body, headers=header)
        second = await self._post(number, "/v1/chat/completions", body, headers=header)
        return first if first == second else second

    async def _left(self, number: int, asked: str, *, stream: bool) -> int:
        try:
            async with asyncio.timeout(None if stream else 0.02), self._sent(number, asked, stream=stream) as answer:
                await answer.content.readany()
                answer.close()
                return int(answer.status)
        except TimeoutError:
            return 499

    def _sent(self, number: int, asked: str, *, stream: bool) -> Any:
        message = {"role": "user", "content": f"{asked} {number}"}
        body = {"model": "corea", "messages": [message], "stream": stream}
        return self._session.post(f"{self._url}/v1/chat/completions", json=body, headers=self._headers(number))

    async def _post(
        self, number: int, path: str, body: bytes, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> int:
        told = {**self._headers(number, key), **(headers or {})}
        async with self._session.post(self._url + path, data=body, headers=told) as answer:
            await answer.read()
            return answer.status

    async def _get(self, number: int, path: str) -> int:
        async with self._session.get(self._url + path, headers=self._headers(number)) as answer:
            await answer.read()
            return answer.status

    def _headers(self, number: int, key: str | None = None) -> dict[str, str]:
        secret = key or self._keys[number % len(self._keys)]
        return {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}


async def soak(url: str, pid: int, keys: list[str], stops: list[int]) -> tuple[list[float], Counter[str]]:
    """PSS in MB after so many requests, for each of ``stops``; and what the requests were answered with."""
    connector = aiohttp.TCPConnector(limit=0)
    # A failure of the connection itself ends the run.
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        clients, done, found = Clients(session, url, keys), 0, []
        for stop in stops:
            left = iter(range(done, stop))

            async def work(numbers: Any = left) -> None:
                for number in numbers:
                    await clients.ask(number)

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
            async with session.get(f"{url}/metrics", headers={"Authorization": f"Bearer {keys[0]}"}) as answer:
                await answer.read()
            await asyncio.sleep(_CALM_S)
            done = stop
            found.append(pss_mb(pid))
            print(f"{stop:>7} requests: {found[-1]:.1f} MB", file=sys.stderr, flush=True)
        return found, clients.statuses


def measure(requests: int = ALL, first: int = FIRST) -> tuple[list[Figure], dict[str, int]]:
    with TemporaryDirectory(prefix="corea-soak-") as name:
        os.environ["COREA_HOME"] = name
        keys = _keys(Path(name), 8)
        with (
            started([*_SELF, "upstream", "PORT"]) as (mock, _),
            started([*_SELF, "gateway", "PORT", str(mock), name]) as (port, pid),
        ):
            begun_s, cpu_before_s = time.perf_counter(), cpu_s(pid)
            stops = sorted({first, *range(requests // 5, requests + 1, requests // 5)})
            found, statuses = asyncio.run(soak(f"http://127.0.0.1:{port}", pid, keys, stops))
            elapsed_s, spent_s = time.perf_counter() - begun_s, cpu_s(pid) - cpu_before_s
    after = dict(zip(stops, found, strict=True))
    detail = ", ".join(f"{mb:.1f} MB after {stop:,}" for stop, mb in after.items())
    pace = f"{requests / elapsed_s:.0f} requests/s, {spent_s / requests * 1e3:.2f} ms CPU a request; PSS"
    figures = [
        Figure(
            name=f"memory after {requests:,} requests ÷ {first:,}",
            value=found[-1] / after[first],
            limit=1.05,
            detail=detail,
        ),
        Figure(name=f"memory after {requests:,} requests", value=found[-1], unit="MB", limit=MOST_MB, detail=pace),
    ]
    return figures, dict(sorted(statuses.items()))


def main(arguments: list[str]) -> int:
    requests = int(arguments[0]) if arguments else ALL
    figures, statuses = measure(requests, min(FIRST, requests // 10))
    machine = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    record = {"machine": machine, "figures": [figure.record for figure in figures], "statuses": statuses}
    if requests == ALL:
        RESULT.write_text(json.dumps(record, indent=2) + "\n")
    else:
        print(json.dumps(statuses, indent=1))
    for figure in figures:
        print(figure)
    return int(any(figure.met is False for figure in figures))


def _serve(name: str, port: int, *more: str) -> None:
    import uvicorn

    if name == "upstream":
        # Every client that hangs up would be told of.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        mock = web.Application()
        mock.router.add_post("/v1/chat/completions", upstream)
        web.run_app(mock, host="127.0.0.1", port=port, access_log=None, print=None)
        return
    # Every request that fails is logged; here they are counted.
    logging.getLogger("corea").setLevel(logging.ERROR)
    app = gateway(Path(more[1]), f"http://127.0.0.1:{more[0]}/v1")
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False, loop="uvloop", http="httptools")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _serve(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))
