"""One million scripted questions through the local engine: how long, how fast, and whether memory stays what it was.

``python -m bench million``: a million against 100,000, each in a process of its own, ledger off; about ten minutes.
``python -m bench.million COUNT`` is one of them. The models are scripted, so all time is COREA's.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Figure, child

SMALL, BIG = 100_000, 1_000_000
#: Of each id a key is remembered, in 12 to 24 bytes, and while their table grows there are two of it.
BYTES_OF_A_ROW = 40


def measure() -> list[Figure]:
    small, big = (json.loads(child("bench.million", str(count))) for count in (SMALL, BIG))
    grown_bytes = (big["peak_mib"] - small["peak_mib"]) * 2**20 / (BIG - SMALL)
    return [
        Figure(
            name=f"{BIG:,} questions", value=big["wall_s"], unit="s", detail=f"{BIG / big['wall_s']:.0f} questions/s"
        ),
        Figure(
            name=f"rate of {BIG:,} ÷ rate of {SMALL:,}",
            value=(BIG / big["wall_s"]) / (SMALL / small["wall_s"]),
            limit=0.9,
            at_least=True,
            detail=f"{SMALL / small['wall_s']:.0f} questions/s",
        ),
        Figure(
            name="memory per question more",
            value=grown_bytes,
            unit="bytes",
            limit=BYTES_OF_A_ROW,
            detail=f"peak {small['peak_mib']:.0f} MiB and {big['peak_mib']:.0f} MiB",
        ),
    ]


def _run(count: int) -> dict[str, float]:
    from bench.scripted import cascade
    from corea.batch.run import run_batch

    with tempfile.TemporaryDirectory() as name:
        source, sink = Path(name) / "in.jsonl", Path(name) / "out.jsonl"
        with source.open("w") as file:
            file.writelines(f'{{"id": "q{n}", "question": "What is {n} + 1?", "answer": 42}}\n' for n in range(count))

        async def run() -> None:
            async with cascade() as asked:
                summary = await run_batch(asked, source, sink, concurrency=64)
                assert (summary.rows, summary.correct) == (count, count)

        started = time.perf_counter()
        asyncio.run(run())
        wall_s = time.perf_counter() - started
        with sink.open("rb") as lines:
            assert sum(1 for _ in lines) == count
    return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "wall_s": wall_s}


if __name__ == "__main__":
    print(json.dumps(_run(int(sys.argv[1]))))
