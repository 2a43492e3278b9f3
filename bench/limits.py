"""What a key's limits add to a request: one to be let in and one to be settled, by the clock and in CPU.

On PostgreSQL too where the environment names one: COREA_BENCH_POSTGRES=postgresql://…
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.measure import Figure
from corea.gateway.limits import Limiter
from corea.ledger import Ledger
from corea.ledger.keys import Key, Limits
from corea.ledger.quota import Granted

BATCHES, PER_BATCH = 5, 200
RATE = Limits(requests_per_minute=10**9, tokens_per_minute=10**12)
MONEY = Limits(requests_per_minute=10**9, tokens_per_minute=10**12, day_nano_usd=10**18, month_nano_usd=10**18)


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        figures = _of("SQLite", f"sqlite:///{Path(folder) / 'l.db'}")
    url = os.environ.get("COREA_BENCH_POSTGRES")
    return figures + (_of("PostgreSQL", url) if url else [])


def _of(name: str, url: str) -> list[Figure]:
    figures = []
    for limits, of in ((RATE, "rate"), (MONEY, "rate and money")):
        for concurrency in (1, 16):
            wall_us, cpu_us = asyncio.run(_us_per_request(url, limits, concurrency))
            label = f"{name}, limits of {of}, {concurrency} at once"
            figures.append(Figure(name=f"{label}: to be let in", value=wall_us, unit="µs", limit=None))
            figures.append(Figure(name=f"{label}: CPU, settled too", value=cpu_us, unit="µs", limit=None))
    return figures


async def _us_per_request(url: str, limits: Limits, concurrency: int) -> tuple[float, float]:
    """Medians over batches: the wait for ``reserve``, and the process's CPU for ``reserve`` and ``settle``."""
    keys = [Key(id=f"k{i}", name=f"k{i}", limits=limits, created_at_unix_s=0.0) for i in range(4)]
    waits: list[float] = []

    async def request(limiter: Limiter, i: int) -> None:
        started = time.perf_counter()
        decision = await limiter.reserve(keys[i % 4], tokens=500, nano_usd=1_000)
        waits.append(time.perf_counter() - started)
        assert isinstance(decision, Granted)
        await limiter.settle(decision, tokens=300)

    async def stream(limiter: Limiter, first: int) -> None:
        for i in range(first, PER_BATCH, concurrency):
            await request(limiter, i)

    async with Ledger.open(url) as ledger, Limiter(ledger) as limiter:
        cpus = []
        for _ in range(BATCHES):
            started = time.process_time()
            await asyncio.gather(*(stream(limiter, first) for first in range(concurrency)))
            cpus.append((time.process_time() - started) / PER_BATCH)
    return median(waits) * 1e6, median(cpus) * 1e6
