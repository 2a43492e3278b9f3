"""Writes traces: ``python -m ledger.child URL CONCURRENCY COUNT``. Prints each id once its write returned."""

from __future__ import annotations

import asyncio
import sys

from corea.ledger import Ledger
from ledger.samples import trace


async def write_some(ledger: Ledger, count: int) -> None:
    for i in range(count):
        tiers = ("small", "middle", "large")[: i % 3 + 1]
        one = trace(tiers=tiers, metadata={"attempts": len(tiers)})
        await ledger.write(one)
        print(one.id, flush=True)  # noqa: T201


async def main(url: str, concurrency: int, count: int) -> None:
    async with Ledger.open(url) as ledger:
        await asyncio.gather(*(write_some(ledger, count) for _ in range(concurrency)))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
