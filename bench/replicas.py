"""What sizing a cluster needs to know of this code: replicas that write to one PostgreSQL, and requests that wait.

Several ledgers, each with its writer, as so many replicas have them, all with the same key and task, so that they add
to the same sums; the server is that of the tests, beside them on the same cores and without fsync. Then one gateway
with 2,000 requests in progress, whose model takes its time. Takes half a minute; runs only when it is named.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from bench.gateway.load import request
from bench.gateway.processes import cpu_s, pss_mb, started
from bench.gateway.servers import KEY
from bench.ledger_summary import _traces
from bench.measure import Figure
from corea.ledger import Ledger
from corea.ledger.database import open_engine
from corea.types import Trace

TRACES, AT_ONCE = 4_000, 64
IN_PROGRESS, ANSWER_AFTER_S, BODY_BYTES = 2_000, 15.0, 2_000


def measure() -> list[Figure]:
    with _postgres() as server:
        figures = [figure for replicas in (1, 4, 8) for figure in asyncio.run(_written(server, replicas))]
    return [*figures, *_waiting()]


@contextmanager
def _postgres() -> Iterator[Any]:
    # By name, because tests are no package of ours: pytest and mypy know this module as ledger.postgres.
    postgres = import_module("tests.ledger.postgres")
    server = postgres.Server(postgres.binaries())
    server.start()
    try:
        yield server
    finally:
        server.remove()


async def _written(server: Any, replicas: int) -> list[Figure]:
    url, pid = server.url(server.new_database()), server._process.pid
    open_engine(url, create=True).dispose()
    ledgers = [Ledger.open(url, store_texts=False) for _ in range(replicas)]
    turns = [asyncio.Semaphore(AT_ONCE) for _ in ledgers]
    made, now_s = _traces(Random(1)), time.time()
    alike = {"key": "k", "model": "corea"}
    traces = [
        replace(one, request=replace(one.request, task=None), started_at_unix_s=now_s, metadata=alike)
        for one in (next(made) for _ in range(TRACES))
    ]

    async def write(number: int, trace: Trace) -> None:
        async with turns[number % replicas]:
            await ledgers[number % replicas].write(trace)

    for number, ledger in enumerate(ledgers):  # Connected, before anything counts.
        await ledger.write(replace(traces[0], id=f"first-{number}"))
    before = time.perf_counter(), time.process_time(), cpu_s(pid)
    await asyncio.gather(*(write(number, trace) for number, trace in enumerate(traces)))
    took = time.perf_counter() - before[0], time.process_time() - before[1], cpu_s(pid) - before[2]
    for ledger in ledgers:
        await ledger.aclose()
    name = f"{replicas} replicas, {AT_ONCE} traces at once each"
    return [
        Figure(name=f"{name}: traces", value=TRACES / took[0], unit="/s", limit=None),
        Figure(name=f"{name}: CPU of the writers", value=took[1] / TRACES * 1e3, unit="ms a trace", limit=None),
        Figure(name=f"{name}: CPU of PostgreSQL", value=took[2] / TRACES * 1e3, unit="ms a trace", limit=None),
    ]


_CONFIG = """
[[tiers]]
name = "large"
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
model = "slow"
max_connections = 4096
prices = {{ input = 1, output = 2 }}

[ledger]
url = "sqlite:///{file}"

[gateway]
api_key_env = "COREA_API_KEY"
max_active = 4096
"""


def _waiting() -> list[Figure]:
    with (
        TemporaryDirectory(prefix="corea-bench-") as name,
        started([sys.executable, "-m", "bench.replicas", "PORT"]) as (
            upstream,
            _,
        ),
    ):
        folder = Path(name)
        config = folder / "corea.toml"
        config.write_text(_CONFIG.format(port=upstream, file=folder / "l.db"))
        command = [sys.executable, "-m", "corea", "serve", "--config", str(config), "--port", "PORT"]
        env = {"COREA_HOME": str(folder), "COREA_API_KEY": KEY}
        with started(command, env=env, log=folder / "log") as (port, pid):
            asyncio.run(_ask(port, 16))
            idle_mb = pss_mb(pid)
            busy_mb = asyncio.run(_ask(port, IN_PROGRESS, pid))
    each_kb = (busy_mb - idle_mb) * 1e3 / IN_PROGRESS
    detail = f"{busy_mb:.0f} MB with {IN_PROGRESS:,} of {BODY_BYTES:,} bytes each, {idle_mb:.0f} MB with none"
    return [Figure(name="memory of a request in progress", value=each_kb, unit="kB", limit=None, detail=detail)]


async def _ask(port: int, count: int, pid: int | None = None) -> float:
    """Asks so many at once, and says how much memory the gateway has while all of them wait."""
    body = {"model": "large", "messages": [{"role": "user", "content": "?" * BODY_BYTES}]}
    message = request(body, {"Authorization": f"Bearer {KEY}"})
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for _, writer in pairs:
        writer.write(message)
    await asyncio.sleep(ANSWER_AFTER_S * 0.6)
    used = pss_mb(pid) if pid is not None else 0.0
    for reader, writer in pairs:
        status = await reader.readline()
        assert b" 200 " in status, status
        writer.close()
    return used


async def _slow(port: int) -> None:
    """A model that takes its time, whatever it is asked."""
    message = {"role": "assistant", "content": "Answer: 42"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "slow", "choices": choices, "usage": usage}
    text = json.dumps(reply).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text) + text

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(None, 1)[0]))
                await asyncio.sleep(ANSWER_AFTER_S)
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=IN_PROGRESS)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_slow(int(sys.argv[1])))
