"""Interleaved rounds of requests against every server: added latency, requests per second, CPU per request.

``python -m bench.gateway.measure [rounds]`` prints JSON. The direct line to the mock is what latency is added to. CPU
is the server process's own, from /proc. Client, servers and mock share the machine: ratios mean more than figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

import aiohttp

from bench.gateway.servers import APPS, KEY

BODY = {"model": "large", "messages": [{"role": "user", "content": "How many eggs are left? " * 10}], "max_tokens": 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many requests, so many at once."""

    name: str
    stream: bool
    at_once: int
    requests: int


LOADS = (
    Load(name="alone", stream=False, at_once=1, requests=40),
    Load(name="16 at once", stream=False, at_once=16, requests=400),
    Load(name="64 at once", stream=False, at_once=64, requests=800),
    Load(name="alone, streamed", stream=True, at_once=1, requests=40),
    Load(name="16 at once, streamed", stream=True, at_once=16, requests=400),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    latencies_ms: list[float]
    first_bytes_ms: list[float]
    per_s: float
    cpu_ms: float


async def run(port: int, load: Load, pid: int) -> Round:
    body = json.dumps({**BODY, "stream": load.stream}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    latencies, firsts, left = [], [], iter(range(load.requests))

    async def work(session: aiohttp.ClientSession) -> None:
        for _ in left:
            started = time.perf_counter()
            async with session.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", data=body, headers=headers
            ) as answer:
                if answer.status != 200:
                    raise RuntimeError(await answer.text())
                await answer.content.readany()
                firsts.append((time.perf_counter() - started) * 1e3)
                await answer.read()
            latencies.append((time.perf_counter() - started) * 1e3)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        before_s, started = cpu_s(pid), time.perf_counter()
        await asyncio.gather(*(work(session) for _ in range(load.at_once)))
        elapsed_s = time.perf_counter() - started
    cpu_ms = (cpu_s(pid) - before_s) / load.requests * 1e3
    return Round(latencies_ms=latencies, first_bytes_ms=firsts, per_s=load.requests / elapsed_s, cpu_ms=cpu_ms)


def cpu_s(pid: int) -> float:
    """User and system time of a process, all threads."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(module: str, *args: str) -> Iterator[tuple[int, int]]:
    """A server process: its port and pid."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [arg.replace("PORT", str(port)) for arg in args]
    with subprocess.Popen([sys.executable, "-m", module, *arguments]) as process:
        try:
            _wait(port, process)
            yield port, process.pid
        finally:
            process.terminate()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError("a server did not start")


def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """By load and server, medians over the rounds."""
    found: dict[tuple[str, str], list[Round]] = defaultdict(list)
    with ExitStack() as stack:
        mock = stack.enter_context(started("bench.gateway.upstream", "PORT"))
        servers = {"direct": mock}
        for name in APPS:
            servers[name] = stack.enter_context(started("bench.gateway.servers", name, "PORT", str(mock[0])))
        for number in range(rounds + 1):
            for load in LOADS:
                for name, (port, pid) in servers.items():
                    outcome = asyncio.run(run(port, load, pid))
                    # The first round warms everything up.
                    if number:
                        found[load.name, name].append(outcome)
    return {load.name: {name: _summary(found, load.name, name) for name in servers} for load in LOADS}


def _summary(found: dict[tuple[str, str], list[Round]], load: str, name: str) -> dict[str, float]:
    rounds, direct = found[load, name], found[load, "direct"]

    def added(share: float, first: bool = False) -> float:
        def at(one: Round) -> float:
            times = sorted(one.first_bytes_ms if first else one.latencies_ms)
            return times[min(len(times) - 1, int(len(times) * share))]

        return median(at(one) - at(base) for one, base in zip(rounds, direct, strict=True))

    return {
        "added_p50_ms": round(added(0.5), 2),
        "added_p99_ms": round(added(0.99), 2),
        "added_first_byte_p50_ms": round(added(0.5, first=True), 2),
        "requests_per_s": round(median(one.per_s for one in rounds), 1),
        "cpu_ms": round(median(one.cpu_ms for one in rounds), 3),
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5), indent=2))
