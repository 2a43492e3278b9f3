"""How many servers a rate of requests needs, by arithmetic: what docs/cluster.md works through by hand.

Knows no random numbers (:mod:`bench.cluster` simulates what is planned here) and measures nothing: each figure of
:class:`Assumptions` is the reader's to put in. Where one of ours was measured in this repository, its ``help`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any


def _figure(default: float, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What one server does, what one request takes, what it costs. Plausible, and yours to replace."""

    deferral_rate: float = _figure(0.4, "share of requests that go on to the large tier (corea eval report)")
    prompt_tokens: float = _figure(300, "of a request")
    small_reply_tokens: float = _figure(300, "mean of the small tier's replies (corea ledger summary --by tier)")
    large_reply_tokens: float = _figure(400, "mean of the large tier's replies")
    max_tokens: float = _figure(1024, "no reply is longer")
    reply_spread: float = _figure(0.7, "sigma of the replies' lengths, which are log-normal")
    prompt_weight: float = _figure(0.1, "work of reading a token, in tokens written")
    small_tokens_per_s: float = _figure(8000, "written by one server of the small tier, as many at once as it likes")
    small_alone_tokens_per_s: float = _figure(100, "heard by one request that has such a server to itself")
    small_gpus: float = _figure(1, "of one server")
    large_tokens_per_s: float = _figure(4000, "written by one server of the large tier")
    large_alone_tokens_per_s: float = _figure(50, "heard by one request that has such a server to itself")
    large_gpus: float = _figure(2, "of one server")
    max_seqs: float = _figure(256, "replies that a server writes at once (vLLM's --max-num-seqs); the others wait")
    gateway_cpu_ms: float = _figure(2.0, "of one core for a request (a mix, measured: gateway_soak.json)")
    max_active: float = _figure(4096, "gateway.max_active of corea.toml")
    commit_ms: float = _figure(4.0, "for which one commit keeps the others from the hour's sums: 4 round trips, a sync")
    row_ms: float = _figure(0.2, "of a replica's writer for a trace (CPU alone: bench/results/replicas.json)")
    database_cpu_ms: float = _figure(0.1, "of PostgreSQL for a trace (measured: bench/results/replicas.json)")
    model_use: float = _figure(0.7, "share of its tokens/s that a model server is planned for")
    gateway_use: float = _figure(0.6, "share of its core that a replica is planned for, as the autoscaler's target")
    usd_per_gpu_hour: float = _figure(2.5, "what you pay")
    usd_per_core_hour: float = _figure(0.05, "of the gateway's replicas and the database")

    def work(self, tier: str) -> float:
        """Tokens written, or as good as, for one request."""
        reply: float = getattr(self, f"{tier}_reply_tokens")
        return reply + self.prompt_weight * self.prompt_tokens

    def alone_s(self, tier: str) -> float:
        """Mean time of an attempt on an idle server."""
        speed: float = getattr(self, f"{tier}_alone_tokens_per_s")
        return self.work(tier) / speed

    def usd_per_million(self, tier: str) -> float:
        """Of tokens written, on servers that are used as planned. A token read costs ``prompt_weight`` of it."""
        gpus: float = getattr(self, f"{tier}_gpus")
        per_s: float = getattr(self, f"{tier}_tokens_per_s")
        return gpus * self.usd_per_gpu_hour / (per_s * self.model_use * 3600) * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rate needs, and what is then expected of it."""

    per_s: float
    small_work_per_s: float
    large_work_per_s: float
    small_servers: int
    large_servers: int
    gpus: int
    in_progress: float
    gateways: int
    gateways_by_cpu: int
    gateways_by_active: int
    database_cores: float
    #: Between an answer and its commit, at most, and the whole request.
    ledger_s: float
    mean_s: float
    traces_per_commit: float
    usd_per_day: float
    large_alone_gpus: int
    large_alone_usd_per_day: float
    saving: float


def plan(given: Assumptions, per_s: float) -> Plan:
    """The guide's steps, in its order."""
    small_work = per_s * given.work("small")
    large_work = per_s * given.deferral_rate * given.work("large")
    small = servers(small_work, given.small_tokens_per_s, given.model_use)
    large = servers(large_work, given.large_tokens_per_s, given.model_use)
    gpus = ceil(small * given.small_gpus + large * given.large_gpus)
    small_s = attempt_s(given, "small", small_work / small)
    large_s = attempt_s(given, "large", large_work / large)
    models_s = small_s + given.deferral_rate * large_s
    by_cpu = ceil(per_s * given.gateway_cpu_ms / 1e3 / given.gateway_use)
    by_active = ceil(per_s * models_s / given.max_active / given.gateway_use)
    gateways = max(by_cpu, by_active)
    # The replicas commit one after the other, and each writes at once all that came meanwhile. An answer waits half a
    # turn until that of its replica begins, and a whole one until it is done.
    turn_s = gateways * given.commit_ms / 1e3
    ledger_s = 1.5 * turn_s
    gateway_s = queue_s(given.gateway_cpu_ms / 1e3, per_s / gateways)
    cores = per_s * given.database_cpu_ms / 1e3
    usd = 24 * (gpus * given.usd_per_gpu_hour + (gateways + ceil(cores)) * given.usd_per_core_hour)
    alone = servers(per_s * given.work("large"), given.large_tokens_per_s, given.model_use)
    alone_gpus = ceil(alone * given.large_gpus)
    alone_usd = 24 * (alone_gpus * given.usd_per_gpu_hour + (gateways + ceil(cores)) * given.usd_per_core_hour)
    return Plan(
        per_s=per_s,
        small_work_per_s=small_work,
        large_work_per_s=large_work,
        small_servers=small,
        large_servers=large,
        gpus=gpus,
        in_progress=per_s * (models_s + ledger_s),
        gateways=gateways,
        gateways_by_cpu=by_cpu,
        gateways_by_active=by_active,
        database_cores=cores,
        ledger_s=ledger_s,
        mean_s=gateway_s + models_s + ledger_s,
        traces_per_commit=max(per_s * turn_s / gateways, 1.0),
        usd_per_day=usd,
        large_alone_gpus=alone_gpus,
        large_alone_usd_per_day=alone_usd,
        saving=1 - usd / alone_usd,
    )


def servers(work_per_s: float, tokens_per_s: float, use: float) -> int:
    # A millionth less, so that 7.000000001 is seven.
    return max(ceil(work_per_s / (tokens_per_s * use) - 1e-6), 1)


def attempt_s(given: Assumptions, tier: str, work_per_s: float) -> float:
    """Mean time of an attempt on a server that is given so much work: M/M/c.

    A server that gives each of n replies the lesser of ``alone`` and ``tokens_per_s / n`` is a processor-sharing queue
    with the rates of M/M/c, c = tokens_per_s / alone; its mean does not depend on how lengths are distributed (Kelly
    1979, *Reversibility and Stochastic Networks*, §3.3). Infinite where there is more work than tokens.
    """
    most: float = getattr(given, f"{tier}_tokens_per_s")
    alone: float = getattr(given, f"{tier}_alone_tokens_per_s")
    if work_per_s >= most:
        return float("inf")
    places = max(round(most / alone), 1)
    waits = erlang_c(places, work_per_s / alone)
    return given.alone_s(tier) + waits * given.work(tier) / (most - work_per_s)


def queue_s(service_s: float, per_s: float) -> float:
    """Mean time in a queue whose every service takes as long, with its own: M/D/1 (Pollaczek–Khinchine)."""
    use = service_s * per_s
    return service_s * (1 + use / (2 * (1 - use)))


def erlang_c(places: int, load: float) -> float:
    """Share of those who find all places taken (Erlang 1917), by the recursion for Erlang's B; load in Erlang."""
    blocked = 1.0
    for taken in range(1, places + 1):
        blocked = load * blocked / (taken + load * blocked)
    return blocked / (1 - load / places * (1 - blocked))
