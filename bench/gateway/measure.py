"""Interleaved rounds of load on every server: added latency, requests per second, CPU per request, memory.

``python -m bench.gateway.measure [seconds]`` prints JSON of the servers that are our own; ``bench.gateway.compare`` has
those of others. The direct line to the mock is what latency is added to. CPU is the server's own. With two cores or
more, servers run on the last one, clients and mock on the first.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.gateway import load as generator
from bench.gateway.processes import cpu_s, on_core, pss_mb, started
from bench.gateway.servers import Server, bare, corea

BODY = {"model": "large", "messages": [{"role": "user", "content": "How many eggs are left? " * 10}], "max_tokens": 64}
DIRECT = "direct"
#: The mock's port, and a folder for configurations and logs, to servers.
Servers = Callable[[int, Path], Sequence[Server]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many connections, each with the next request as soon as one is over; ``share`` of a round's time."""

    name: str
    stream: bool
    at_once: int
    share: float


LOADS = (
    Load(name="alone", stream=False, at_once=1, share=2.0),
    Load(name="16 at once", stream=False, at_once=16, share=1.0),
    Load(name="64 at once", stream=False, at_once=64, share=1.0),
    Load(name="alone, streamed", stream=True, at_once=1, share=2.0),
    Load(name="16 at once, streamed", stream=True, at_once=16, share=1.0),
    Load(name="64 at once, streamed", stream=True, at_once=64, share=1.0),
)
#: What the ledger costs is told where nothing else is waited for.
SATURATED = frozenset(load.name for load in LOADS if load.at_once == 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one load took one server. Latencies are sorted."""

    latencies_ms: list[float]
    first_words_ms: list[float]
    per_s: float
    cpu_ms: float


Summary = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """``loads``: by load and server, medians over the rounds. ``memory_mb``: after all of them."""

    loads: dict[str, dict[str, Summary]]
    memory_mb: dict[str, float]
    pinned: bool


def measure(servers_at: Servers, *, seconds: float, rounds: int) -> Measured:
    """``seconds`` of load in all, next to a short round that does not count, and the time the servers take to start."""
    cores = sorted(os.sched_getaffinity(0))
    core_of = {"clients": cores[0], "servers": cores[-1]} if len(cores) > 1 else {}
    found: dict[tuple[str, str], list[Round]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="corea-bench-")))
        stack.enter_context(on_core(core_of.get("clients")))
        mock_port, mock_pid = stack.enter_context(started([sys.executable, "-m", "bench.gateway.upstream", "PORT"]))
        servers = [Server(name=DIRECT, command=()), *servers_at(mock_port, folder)]
        places = {DIRECT: (mock_port, mock_pid)}
        for server in servers[1:]:
            with on_core(core_of.get("servers")):
                log = folder / f"{server.name}.log"
                places[server.name] = stack.enter_context(started(server.command, env=server.env, log=log))
        turns = [(load, server) for load in LOADS for server in servers if takes_part(server, load)]
        share_s = seconds / rounds / sum(load.share for load, _ in turns)
        for number in range(rounds + 1):
            for load, server in _in_order(turns, number):
                # The first round warms everything up.
                seconds_here = share_s * load.share * (1.0 if number else 0.25)
                took = _run(server, load, *places[server.name], seconds=seconds_here)
                if number:
                    found[load.name, server.name].append(took)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        memory_mb = {server.name: round(pss_mb(places[server.name][1]), 1) for server in servers[1:]}
    loads = {
        load.name: {
            server.name: summary(found[load.name, server.name], found[load.name, DIRECT])
            for server in servers
            if takes_part(server, load)
        }
        for load in LOADS
    }
    return Measured(loads=loads, memory_mb=memory_mb, pinned=bool(core_of))


def takes_part(server: Server, load: Load) -> bool:
    return server.loads is None or load.name in server.loads


def _in_order(turns: Sequence[tuple[Load, Server]], number: int) -> list[tuple[Load, Server]]:
    """Every other round the other way round, so that nobody always comes after the same one."""
    return list(turns) if number % 2 else list(reversed(turns))


def _run(server: Server, load: Load, port: int, pid: int, *, seconds: float) -> Round:
    message = generator.request({**BODY, "stream": load.stream}, server.headers)
    before_s = cpu_s(pid)
    taken = generator.drive(port, message, stream=load.stream, at_once=load.at_once, seconds=seconds)
    count = len(taken.latencies_ms)
    return Round(
        latencies_ms=sorted(taken.latencies_ms),
        first_words_ms=sorted(taken.first_words_ms),
        per_s=count / taken.elapsed_s,
        cpu_ms=(cpu_s(pid) - before_s) / count * 1e3,
    )


def summary(rounds: Sequence[Round], direct: Sequence[Round]) -> Summary:
    """Medians over the rounds; what is added, to the direct line in the same round."""

    def added(share: float, times: Callable[[Round], list[float]]) -> list[float]:
        return [
            quantile(times(one), share) - quantile(times(base), share) for one, base in zip(rounds, direct, strict=True)
        ]

    p50s, p99s = added(0.5, lambda one: one.latencies_ms), added(0.99, lambda one: one.latencies_ms)
    firsts = added(0.5, lambda one: one.first_words_ms), added(0.99, lambda one: one.first_words_ms)
    return {
        "p50_ms": round(median(quantile(one.latencies_ms, 0.5) for one in rounds), 3),
        "p99_ms": round(median(quantile(one.latencies_ms, 0.99) for one in rounds), 3),
        "added_p50_ms": round(median(p50s), 3),
        "added_p50_least_ms": round(min(p50s), 3),
        "added_p50_most_ms": round(max(p50s), 3),
        "added_p99_ms": round(median(p99s), 3),
        "added_first_word_p50_ms": round(median(firsts[0]), 3),
        "added_first_word_p99_ms": round(median(firsts[1]), 3),
        "requests_per_s": round(median(one.per_s for one in rounds), 1),
        "cpu_ms": round(median(one.cpu_ms for one in rounds), 4),
        "requests": sum(len(one.latencies_ms) for one in rounds),
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """Between the two values that it falls between, in proportion."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def own(mock_port: int, folder: Path) -> list[Server]:
    """COREA with and without its ledger, and the bare relay."""
    return [bare(mock_port), corea(mock_port, folder), corea(mock_port, folder, ledger=False, loads=SATURATED)]


if __name__ == "__main__":
    measured = measure(own, seconds=float(sys.argv[1]) if len(sys.argv) > 1 else 120.0, rounds=5)
    print(json.dumps({"loads": measured.loads, "memory_mb": measured.memory_mb}, indent=2))
