"""Peak memory of a batch of 100,000 questions against one of 10,000, ledger on, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Figure, child

SMALL, BIG = 10_000, 100_000


def measure() -> list[Figure]:
    small, big = (json.loads(child("bench.memory", str(count))) for count in (SMALL, BIG))
    detail = f"{big['peak_mib']:.0f} MiB and {small['peak_mib']:.0f} MiB; {BIG / big['wall_s']:.0f} questions/s"
    ratio = big["peak_mib"] / small["peak_mib"]
    return [Figure(name=f"peak memory of {BIG:,} questions ÷ {SMALL:,}", value=ratio, limit=1.2, detail=detail)]


def _run(count: int) -> dict[str, float]:
    from bench.scripted import cascade
    from corea.batch.run import run_batch
    from corea.ledger.writer import Ledger

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "in.jsonl").open("w") as file:
            for index in range(count):
                file.write(json.dumps({"id": f"q{index}", "question": f"What is {index} + 1?", "answer": 42}) + "\n")
        ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")

        async def run() -> None:
            async with cascade(ledger) as asked:
                summary = await run_batch(asked, folder / "in.jsonl", folder / "out.jsonl", concurrency=64)
                assert summary.rows == count

        started = time.perf_counter()
        asyncio.run(run())
        wall_s = time.perf_counter() - started
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "wall_s": wall_s}


if __name__ == "__main__":
    print(json.dumps(_run(int(sys.argv[1]))))
