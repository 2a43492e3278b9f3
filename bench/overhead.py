"""CPU that the cascade adds to a request, with scripted models: everything but the models themselves."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.measure import Figure
from bench.scripted import cascade
from corea.cascade import Cascade
from corea.ledger.writer import Ledger

QUESTION = "Janet has 16 eggs, eats three and bakes with four. How many are left?"
BATCHES = 20
PER_BATCH = 100


def measure() -> list[Figure]:
    figures = []
    for concurrency in (1, 64):
        off = asyncio.run(_ms_per_request(cascade(), concurrency))
        with tempfile.TemporaryDirectory() as folder:
            on = asyncio.run(_ms_per_request(cascade(Ledger.open(f"sqlite:///{Path(folder) / 'l.db'}")), concurrency))
        name = f"CPU added to a request, {concurrency} at once, ledger"
        figures.append(Figure(name=f"{name} off", value=off, unit="ms", limit=1))
        figures.append(Figure(name=f"{name} on", value=on, unit="ms", limit=1))
    return figures


async def _ms_per_request(cascade: Cascade, concurrency: int) -> float:
    """Median over batches of process CPU time (all threads, the ledger's too) per request."""
    async with cascade:
        await _batch(cascade, concurrency)
        return median([await _batch(cascade, concurrency) for _ in range(BATCHES)])


async def _batch(cascade: Cascade, concurrency: int) -> float:
    started = time.process_time()
    async for _ in cascade.map((QUESTION for _ in range(PER_BATCH)), concurrency=concurrency):
        pass
    return (time.process_time() - started) / PER_BATCH * 1e3
