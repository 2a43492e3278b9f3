"""A summary over a million traces in SQLite: by roll-ups, and what the same question costs of the traces themselves.

Thirty days, 2 tiers, 4 tasks, 20 keys, 2 profiles. The rows are made by plain inserts, without attempts, which no
summary reads. Takes about two minutes, so it runs only when it is named.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median

from sqlalchemy import insert

from bench.measure import Figure
from corea.ledger import Ledger, summary, totals
from corea.ledger.records import trace_row
from corea.ledger.rollups import add, facts_of, summed
from corea.ledger.schema import traces
from corea.types import Attempt, Confidence, Decision, Reason, Request, Trace, Usage

TRACES, BATCH, DAYS = 1_000_000, 20_000, 30
START = 1_767_225_600.0


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{Path(folder) / 'l.db'}") as ledger:
        _fill(ledger)
        month = START + DAYS * 86_400
        return [
            Figure(name="summary of all", value=_ms(lambda: summary(ledger)), unit="ms", limit=100),
            Figure(name="summary by tier", value=_ms(lambda: summary(ledger, by=["tier"])), unit="ms", limit=100),
            Figure(name="summary by key", value=_ms(lambda: summary(ledger, by=["key_id"])), unit="ms", limit=100),
            Figure(name="summary by day", value=_ms(lambda: summary(ledger, by=["day"])), unit="ms", limit=100),
            Figure(
                name="last seven days and a half by task",
                value=_ms(lambda: summary(ledger, by=["task"], since_unix_s=month - 7.5 * 86_400)),
                unit="ms",
                limit=100,
            ),
            Figure(
                name="last day by hour",
                value=_ms(lambda: summary(ledger, by=["hour"], since_unix_s=month - 86_400)),
                unit="ms",
                limit=100,
            ),
            Figure(name="totals without roll-ups", value=_ms(lambda: totals(ledger)), unit="ms", limit=None),
        ]


def _ms(ask: Callable[[], object]) -> float:
    def once() -> float:
        started = time.perf_counter()
        ask()
        return (time.perf_counter() - started) * 1e3

    return median([once() for _ in range(5)])


def _fill(ledger: Ledger) -> None:
    made = _traces(Random(1))
    with ledger.engine.connect() as connection:
        for _ in range(TRACES // BATCH):
            some = [next(made) for _ in range(BATCH)]
            connection.execute(insert(traces), [trace_row(one, store_texts=False) for one in some])
            add(connection, summed(map(facts_of, some)))
            connection.commit()


def _traces(rng: Random) -> Iterator[Trace]:
    attempt = Attempt(
        tier="small",
        model="m",
        decision=Decision(keep=True, reason=Reason.CONFIDENT),
        confidence=Confidence(value=0.9, source="logprob"),
        usage=Usage(prompt_tokens=200, completion_tokens=300),
        cost_nano_usd=1_000,
    )
    large = replace(attempt, tier="large")
    number = 0
    while True:
        number += 1
        attempts = (attempt, large) if rng.random() < 0.4 else (attempt,)
        yield Trace(
            id=f"{number:024}",
            request=Request(messages=(), task=rng.choice(("maths", "law", "code", None))),
            attempts=attempts,
            final=len(attempts) - 1,
            started_at_unix_s=START + rng.random() * DAYS * 86_400,
            elapsed_s=rng.lognormvariate(0.5, 1.0),
            cost_nano_usd=1_000 * len(attempts),
            baseline_nano_usd=10_000,
            metadata={"key": f"key{rng.randrange(20)}", "model": rng.choice(("fast", "safe"))},
        )
