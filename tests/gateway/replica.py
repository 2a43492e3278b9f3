"""Asks for requests of one key, one after another: ``python -m gateway.replica URL LIMIT COUNT``.

Prints a line when it is ready, waits for one, and prints how many were let in.
"""

from __future__ import annotations

import asyncio
import sys

from corea.gateway.limits import Limiter
from corea.ledger import Ledger
from corea.ledger.keys import Key, Limits
from corea.ledger.quota import Granted


async def main(url: str, limit: int, count: int) -> None:
    key = Key(id="k1", name="k1", limits=Limits(requests_per_minute=limit), created_at_unix_s=0.0)
    async with Ledger.open(url) as ledger, Limiter(ledger) as limiter:
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
        decisions = [await limiter.reserve(key, tokens=1, nano_usd=0) for _ in range(count)]
    print(sum(isinstance(decision, Granted) for decision in decisions))  # noqa: T201


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
