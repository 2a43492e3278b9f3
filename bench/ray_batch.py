"""``corea batch --engine ray`` on this machine: two workers against one, and its overhead against the local engine's.

``python -m bench ray_batch`` in an environment with the extra ``ray``; about three minutes. The models are scripted:
for the first figures they wait as an endpoint would, for the last they answer at once, so that only COREA is left:
its CPU time, since that does not depend on who else is at work here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.measure import Figure, paired
from bench.scripted import cascade
from corea.batch.pools import Build
from corea.batch.run import run_batch
from corea.cascade import Cascade
from corea.models.base import Model
from corea.types import Prompt, Reply

#: Of a worker; with the delay, 75 questions a second where every second one is deferred.
CONCURRENCY, DELAY_S = 12, 0.1
#: One worker takes a minute, so that starting it is little of that.
WAITING_ROWS = 4800
INSTANT_ROWS, ROUNDS = 10_000, 3


def slow() -> Cascade:
    """The scripted cascade, its models as far away as an endpoint."""
    made = cascade()
    made.tiers = tuple(replace(tier, model=_Far(tier.model)) for tier in made.tiers)
    return made


class _Far:
    def __init__(self, model: Model) -> None:
        self._model = model
        self.name = model.name

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        await asyncio.sleep(DELAY_S)
        return await self._model.complete(prompt, timeout_s=timeout_s)

    async def aclose(self) -> None:
        await self._model.aclose()


def metered(folder: Path) -> Cascade:
    """The scripted cascade; the process writes down its CPU time, all threads, at every 500th question."""
    made = cascade()
    first, *rest = made.tiers
    made.tiers = (replace(first, model=_Metered(first.model, folder / f"cpu-{os.getpid()}")), *rest)
    return made


class _Metered:
    def __init__(self, model: Model, file: Path) -> None:
        self._model = model
        self._file = file
        self._asked = 0
        self.name = model.name

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        if self._asked % 500 == 0:
            with self._file.open("a") as marks:
                marks.write(f"{self._asked} {time.process_time()}\n")
        self._asked += 1
        return await self._model.complete(prompt, timeout_s=timeout_s)

    async def aclose(self) -> None:
        await self._model.aclose()


def cpu_ms_of_a_row(folder: Path) -> float:
    """From the first mark, when all is loaded, to the last."""
    (file,) = folder.glob("cpu-*")
    marks = [line.split() for line in file.read_text().splitlines()]
    file.unlink()
    return (float(marks[-1][1]) - float(marks[0][1])) / (int(marks[-1][0]) - int(marks[0][0])) * 1e3


def measure() -> list[Figure]:
    from corea.batch.ray import Plan, connected

    # So that workers can import this module.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as name, connected(None, Plan()):
        folder = Path(name)
        waiting, instant = (
            questions(folder / "waiting.jsonl", WAITING_ROWS),
            questions(folder / "in.jsonl", INSTANT_ROWS),
        )
        one_s, one_rate = on_ray(slow, waiting, folder / "one", workers=1, concurrency=CONCURRENCY)
        two_s, two_rate = on_ray(slow, waiting, folder / "two", workers=2, concurrency=CONCURRENCY)
        rounds = iter(range(2 * (ROUNDS + 1)))

        def ray_ms() -> float:
            on_ray(partial(metered, folder), instant, folder / f"out{next(rounds)}", workers=1, concurrency=64)
            return cpu_ms_of_a_row(folder)

        def local_ms() -> float:
            asyncio.run(locally(metered(folder), instant, folder / f"out{next(rounds)}.jsonl"))
            return cpu_ms_of_a_row(folder)

        one_ray_ms, one_local_ms, overhead = paired(ray_ms, local_ms, rounds=ROUNDS)
    return [
        Figure(
            name=f"{WAITING_ROWS:,} questions, 2 workers ÷ 1 worker, whole job",
            value=one_s / two_s,
            limit=1.8,
            at_least=True,
            detail=f"{one_s:.1f} s and {two_s:.1f} s, actors' start included",
        ),
        Figure(
            name="2 workers ÷ 1 worker, questions/s once both are at work",
            value=two_rate / one_rate,
            limit=1.8,
            at_least=True,
            detail=f"{one_rate:.0f}/s and {two_rate:.0f}/s",
        ),
        Figure(
            name="overhead of a row, 1 worker on Ray ÷ local engine",
            value=overhead,
            limit=2.0,
            detail=f"{one_ray_ms:.3f} ms and {one_local_ms:.3f} ms of CPU",
        ),
    ]


def on_ray(build: Build, source: Path, sink: Path, *, workers: int, concurrency: int) -> tuple[float, float]:
    """Seconds for the whole job, and questions a second in its middle."""
    from corea.batch.ray import Plan, run_ray

    plan = Plan(workers=workers, concurrency=concurrency, worker_cpus=0.5)
    started = time.perf_counter()
    summary = run_ray(build, source, sink, fingerprint="bench", plan=plan)
    wall_s = time.perf_counter() - started
    assert (summary.failed, summary.resumed) == (0, 0)
    return wall_s, rate(line for part in sink.glob("part-*") for line in part.open())


async def locally(made: Cascade, source: Path, sink: Path) -> None:
    async with made as asked:
        await run_batch(asked, source, sink, concurrency=64)


def rate(lines: Iterable[str]) -> float:
    """Questions a second between the first and the last fifth: a trace's id begins with when it began."""
    begun_s = sorted(_begun_s(json.loads(line)["trace_id"]) for line in lines)
    low, high = len(begun_s) // 5, len(begun_s) * 4 // 5
    return (high - low) / (begun_s[high] - begun_s[low])


def _begun_s(trace_id: str) -> float:
    return (int.from_bytes(base64.b32hexdecode(trace_id.upper()), "big") >> 72) / 1e3


def questions(path: Path, count: int) -> Path:
    with path.open("w") as file:
        file.writelines(f'{{"id": "q{n}", "question": "What is {n} + 1?", "answer": 42}}\n' for n in range(count))
    return path


if __name__ == "__main__":
    if len(sys.argv) > 1:
        WAITING_ROWS, INSTANT_ROWS = int(sys.argv[1]), int(sys.argv[2])
    for figure in measure():
        print(figure)
