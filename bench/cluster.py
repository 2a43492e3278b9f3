"""A cluster that is simulated event by event, from 100 to 10,000 requests a second, beside what arithmetic says of it.

    python -m bench.cluster [--rates 100 1000 10000] [--deferral-rate 0.4] … [--out bench/results/cluster.json]

Requests come at random (``poisson``), or in bursts besides: twice as many for 5 of 25 seconds. Each takes a replica's
one core, then a server of the small tier, then perhaps one of the large tier, then the ledger's commit; only then it is
answered. Model servers batch: all replies at once, each slower the more there are. Nothing is measured here: what a
server does is assumed (:class:`bench.sizing.Assumptions`). No failures, no retries, no limits of keys, no prefix cache.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from heapq import heappop, heappush
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from bench.sizing import Assumptions, Plan, plan

RESULTS = Path(__file__).parent / "results" / "cluster.json"
#: Seconds: before anything counts, of arrivals that count, and of bursts that come once in a period.
WARM_S, COUNTED_S, BURST_S, PERIOD_S, BURST = 25.0, 25.0, 5.0, 25.0, 2.0
#: corea.ledger.batches.MAX_BATCH
MAX_BATCH = 500
SEED = 27
#: How fully a model server may be planned, tried at this rate.
LADDER, LADDER_PER_S = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95), 1000.0
TIERS = ("small", "large")
#: Kinds of events after those of the tiers, whose kinds are 0 and 1.
_LEFT, _LOCK, _COMMITTED = range(2, 5)


@dataclass(slots=True)
class Server:
    """A model server. ``done``: how many tokens any reply that was there all the time would have by now."""

    alone: float
    most: float
    max_seqs: int
    now_s: float = 0.0
    done: float = 0.0
    version: int = 0
    busy: float = 0.0
    writing: list[tuple[float, int]] = field(default_factory=list)
    waiting: deque[tuple[float, int]] = field(default_factory=deque)

    def go_on(self, now_s: float) -> None:
        if self.writing:
            speed = min(self.alone, self.most / len(self.writing))
            self.done += (now_s - self.now_s) * speed
            self.busy += (now_s - self.now_s) * speed * len(self.writing)
        self.now_s = now_s

    def take(self, work: float, request: int) -> None:
        if len(self.writing) < self.max_seqs:
            heappush(self.writing, (self.done + work, request))
        else:
            self.waiting.append((work, request))

    def finished(self) -> int:
        _, request = heappop(self.writing)
        if self.waiting:
            self.take(*self.waiting.popleft())
        return request

    def next_s(self) -> float:
        return self.now_s + (self.writing[0][0] - self.done) / min(self.alone, self.most / len(self.writing))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Of the requests that count. ``ledger_s``: between the answer and its commit."""

    requests: int
    refused: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    small_use: float
    large_use: float
    gateway_use: float
    commit_use: float
    ledger_mean_s: float
    ledger_p99_s: float
    traces_per_commit: float


class Simulation:
    """One run. An event is (second, kind, place, version); place is a request, a server or a replica, by its kind."""

    def __init__(self, given: Assumptions, wanted: Plan, rng: np.random.Generator, *, bursts: bool) -> None:
        arrivals = arrivals_of(wanted.per_s, bursts, rng)
        count = len(arrivals)
        self.given = given
        self.start_s: list[float] = arrivals.tolist()
        self.first, self.last = (int(np.searchsorted(arrivals, at)) for at in (WARM_S, WARM_S + COUNTED_S))
        self.work: list[list[float]] = [works(given, tier, count, rng).tolist() for tier in TIERS]
        self.deferred: list[bool] = (rng.random(count) < given.deferral_rate).tolist()
        numbers = wanted.small_servers, wanted.large_servers
        self.servers = [[_server(given, tier) for _ in range(many)] for tier, many in zip(TIERS, numbers, strict=True)]
        # By chance, as a Service spreads connections.
        self.asked: list[list[int]] = [rng.integers(many, size=count).tolist() for many in numbers]
        self.replica: list[int] = rng.integers(wanted.gateways, size=count).tolist()
        self.free_s, self.active = [0.0] * wanted.gateways, [0] * wanted.gateways
        self.pending: list[list[int]] = [[] for _ in self.free_s]
        self.batch: list[list[int]] = [[] for _ in self.free_s]
        self.answered_s, self.took_s, self.ledger_s = [0.0] * count, [nan] * count, [0.0] * count
        self.events: list[tuple[float, int, int, int]] = []
        self.now_s, self.lock_free_s = 0.0, 0.0
        self.came, self.commits, self.written, self.refused = 0, 0, 0, 0
        self.missing = self.last - self.first
        self.looks: list[dict[str, float]] = []

    def run(self) -> Seen:
        """Arrivals go on until the last request that counts is answered, so that it meets as many as the others."""
        handle = {_LEFT: self._left, _LOCK: self._at_lock, _COMMITTED: self._committed}
        while self.missing:
            if self.came < len(self.start_s) and (not self.events or self.start_s[self.came] <= self.events[0][0]):
                if self.came in (self.first, self.last):
                    self._look()
                self._arrived(self.came)
                self.came += 1
                continue
            self.now_s, kind, place, version = heappop(self.events)
            if kind < len(TIERS):
                self._written_out(kind, place, version)
            else:
                handle[kind](place)
        return self._seen()

    def _arrived(self, request: int) -> None:
        self.now_s = self.start_s[request]
        place = self.replica[request]
        if self.active[place] >= self.given.max_active:
            counts = self.first <= request < self.last
            self.refused, self.missing = self.refused + counts, self.missing - counts
            return
        self.active[place] += 1
        self.free_s[place] = max(self.free_s[place], self.now_s) + self.given.gateway_cpu_ms / 1e3
        heappush(self.events, (self.free_s[place], _LEFT, request, 0))

    def _left(self, request: int) -> None:
        self._ask(0, request)

    def _ask(self, tier: int, request: int) -> None:
        place = self.asked[tier][request]
        server = self.servers[tier][place]
        server.go_on(self.now_s)
        server.take(self.work[tier][request], request)
        self._foresee(tier, place)

    def _foresee(self, tier: int, place: int) -> None:
        """The event of the next reply that is done; those that were foreseen before are void."""
        server = self.servers[tier][place]
        server.version += 1
        if server.writing:
            heappush(self.events, (server.next_s(), tier, place, server.version))

    def _written_out(self, tier: int, place: int, version: int) -> None:
        server = self.servers[tier][place]
        if server.version != version:
            return
        server.go_on(self.now_s)
        request = server.finished()
        self._foresee(tier, place)
        if tier == 0 and self.deferred[request]:
            self._ask(1, request)
            return
        self.answered_s[request] = self.now_s
        self.pending[self.replica[request]].append(request)
        if not self.batch[self.replica[request]]:
            self._write(self.replica[request])

    def _write(self, place: int) -> None:
        self.batch[place], self.pending[place] = self.pending[place][:MAX_BATCH], self.pending[place][MAX_BATCH:]
        rows_s = self.given.row_ms / 1e3 * len(self.batch[place])
        heappush(self.events, (self.now_s + rows_s, _LOCK, place, 0))

    def _at_lock(self, place: int) -> None:
        self.lock_free_s = max(self.lock_free_s, self.now_s) + self.given.commit_ms / 1e3
        heappush(self.events, (self.lock_free_s, _COMMITTED, place, 0))

    def _committed(self, place: int) -> None:
        done, self.batch[place] = self.batch[place], []
        self.commits, self.written = self.commits + 1, self.written + len(done)
        self.active[place] -= len(done)
        for request in done:
            self.took_s[request] = self.now_s - self.start_s[request]
            self.ledger_s[request] = self.now_s - self.answered_s[request]
            self.missing -= self.first <= request < self.last
        if self.pending[place]:
            self._write(place)

    def _look(self) -> None:
        """What was done until now, at the beginning and at the end of what counts."""
        for server in (one for pool in self.servers for one in pool):
            server.go_on(self.start_s[self.came])
        small, large = (sum(one.busy for one in pool) for pool in self.servers)
        done = {"small": small, "large": large, "came": self.came, "commits": self.commits, "written": self.written}
        self.looks.append({"s": self.start_s[self.came], **done})

    def _seen(self) -> Seen:
        took, waits = np.array(self.took_s[self.first : self.last]), np.array(self.ledger_s[self.first : self.last])
        answered = ~np.isnan(took)
        took, waits = took[answered], waits[answered]
        before, after = self.looks
        done = {name: after[name] - before[name] for name in after}
        per_s = {name: value / done["s"] for name, value in done.items()}
        small, large = (len(pool) * pool[0].most for pool in self.servers)
        return Seen(
            requests=self.last - self.first,
            refused=self.refused,
            mean_s=float(took.mean()),
            p50_s=float(np.quantile(took, 0.5)),
            p95_s=float(np.quantile(took, 0.95)),
            p99_s=float(np.quantile(took, 0.99)),
            small_use=per_s["small"] / small,
            large_use=per_s["large"] / large,
            gateway_use=per_s["came"] * self.given.gateway_cpu_ms / 1e3 / len(self.free_s),
            commit_use=per_s["commits"] * self.given.commit_ms / 1e3,
            ledger_mean_s=float(waits.mean()),
            ledger_p99_s=float(np.quantile(waits, 0.99)),
            traces_per_commit=done["written"] / max(done["commits"], 1),
        )


def arrivals_of(per_s: float, bursts: bool, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds, in order: Poisson, thinned to the rate of the moment where there are bursts. Three periods."""
    most = per_s * (BURST if bursts else 1.0)
    until_s = WARM_S + COUNTED_S + 2 * PERIOD_S
    times = np.sort(rng.random(rng.poisson(most * until_s)) * until_s)
    if not bursts:
        return times
    quiet = (PERIOD_S - BURST * BURST_S) / (PERIOD_S - BURST_S)
    share = np.where(times % PERIOD_S < BURST_S, 1.0, quiet / BURST)
    return np.asarray(times[rng.random(len(times)) < share])


def works(given: Assumptions, tier: str, count: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Tokens of each request, whose mean is ``given.work(tier)``: what the limit cuts off is added to all."""
    mean: float = getattr(given, f"{tier}_reply_tokens")
    sigma = given.reply_spread
    tokens = np.minimum(rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, count), given.max_tokens)
    return np.asarray(tokens * (mean / tokens.mean()) + given.prompt_weight * given.prompt_tokens)


def _server(given: Assumptions, tier: str) -> Server:
    alone, most = getattr(given, f"{tier}_alone_tokens_per_s"), getattr(given, f"{tier}_tokens_per_s")
    return Server(alone=alone, most=most, max_seqs=int(given.max_seqs))


def compared(given: Assumptions, per_s: float, *, bursts: bool) -> dict[str, Any]:
    wanted = plan(given, per_s)
    seen = Simulation(given, wanted, np.random.default_rng([SEED, int(per_s)]), bursts=bursts).run()
    return {"arrivals": "bursts" if bursts else "poisson", "planned": asdict(wanted), "simulated": asdict(seen)}


def tables(body: Mapping[str, Any]) -> list[str]:
    """What docs/cluster.md shows of it: the runs, the ladder, and what was assumed."""
    runs = [
        "| requests/s | arrivals | servers small + large | GPUs | gateways | mean, by arithmetic | mean | p50 | p95 "
        "| p99 | of that the ledger, mean | traces a commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in body["runs"]:
        wanted, seen = run["planned"], run["simulated"]
        runs.append(
            f"| {wanted['per_s']:,.0f} | {run['arrivals']} | {wanted['small_servers']:,} + {wanted['large_servers']:,} "
            f"| {wanted['gpus']:,} | {wanted['gateways']} | {wanted['mean_s']:.2f} s | {seen['mean_s']:.2f} s "
            f"| {seen['p50_s']:.1f} s | {seen['p95_s']:.1f} s | {seen['p99_s']:.1f} s "
            f"| {seen['ledger_mean_s'] * 1e3:.0f} ms | {seen['traces_per_commit']:.0f} |"
        )
    ladder = [
        "| planned for | GPUs | mean, by arithmetic | mean | p95 | mean in bursts | p95 in bursts |",
        "|---|---|---|---|---|---|---|",
    ]
    for calm, bursts in zip(body["ladder"][::2], body["ladder"][1::2], strict=True):
        one, other = calm["simulated"], bursts["simulated"]
        ladder.append(
            f"| {calm['model_use']:.0%} | {calm['planned']['gpus']:,} | {calm['planned']['mean_s']:.2f} s "
            f"| {one['mean_s']:.2f} s | {one['p95_s']:.1f} s | {other['mean_s']:.2f} s | {other['p95_s']:.1f} s |"
        )
    assumed = ["| option | assumed | |", "|---|---|---|"]
    for figure in fields(Assumptions):
        option = f"--{figure.name.replace('_', '-')}"
        assumed.append(f"| `{option}` | {body['assumptions'][figure.name]:g} | {figure.metadata['help']} |")
    return ["\n".join(rows) for rows in (runs, ladder, assumed)]


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[100.0, 1000.0, 10_000.0], help="requests a second")
    parser.add_argument("--out", type=Path, default=RESULTS)
    for one in fields(Assumptions):
        option = f"--{one.name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=one.default, help=f"{one.metadata['help']} (%(default)s)")
    chosen = parser.parse_args(words)
    given = Assumptions(**{one.name: getattr(chosen, one.name) for one in fields(Assumptions)})
    started_s = time.process_time()
    runs = [compared(given, per_s, bursts=bursts) for per_s in chosen.rates for bursts in (False, True)]
    ladder = [
        {"model_use": use} | compared(replace(given, model_use=use), LADDER_PER_S, bursts=bursts)
        for use in LADDER for bursts in (False, True)
    ]  # fmt: skip
    body = {"assumptions": asdict(given), "runs": runs, "ladder": ladder, "cpu_s": time.process_time() - started_s}
    print("\n\n".join(tables(body)))
    chosen.out.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
