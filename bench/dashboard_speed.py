"""Every page of the dashboard over a million traces in SQLite: CPU time, beside that of the least answer, a small file.

Thirty days, 2 tiers, 4 tasks, 20 keys, 2 profiles, an attempt or two each, feedback on one in fifty; one task has three
requests only. Traces go in by plain inserts with their roll-ups, without texts. Takes some minutes and a gigabyte of
disk, so it runs only when it is named.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median

from sqlalchemy import insert
from starlette.testclient import TestClient

from bench.measure import Figure
from corea.dashboard.pages import Dashboard
from corea.ledger import Ledger
from corea.ledger.records import attempt_rows, trace_row
from corea.ledger.rollups import add, facts_of, summed
from corea.ledger.schema import attempts, feedback, traces
from corea.types import Attempt, Confidence, Decision, Reason, Request, Trace, Usage

TRACES, BATCH, DAYS, ROUNDS = 1_000_000, 20_000, 30, 7
NOW = 1_767_225_600.0
PAGES = {
    "overview, 24 hours": "/dashboard?period=24h",
    "overview, 7 days": "/dashboard",
    "overview, 30 days": "/dashboard?period=30d",
    "overview, all time": "/dashboard?period=all",
    "overview, one task of one key": "/dashboard?period=30d&task=law&key=key7",
    "calibration, 30 days": "/dashboard/calibration?period=30d",
    "traces": "/dashboard/traces?period=30d",
    "traces, one key and failed": "/dashboard/traces?period=30d&key=key7&outcome=failed",
    "traces, a task of three requests": "/dashboard/traces?period=30d&task=rare",
    "traces, in the middle": f"/dashboard/traces?period=30d&after={NOW - 15 * 86_400}~x",
    "one trace": "/dashboard/traces/000000000000000000500000",
}


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{Path(folder) / 'l.db'}") as ledger:
        _fill(ledger)
        client = TestClient(Dashboard(ledger, sign_in=None, clock=lambda: NOW), base_url="http://localhost")
        least_s = _seconds(client, "/dashboard/static/icon.svg?v=1")
        found = [Figure(name="the least answer", value=least_s * 1e3, unit="ms")]
        for name, path in PAGES.items():
            took_s = _seconds(client, path)
            detail = f"{took_s / least_s:.0f} × the least answer"
            found.append(Figure(name=name, value=took_s * 1e3, unit="ms", limit=500, detail=detail))
        started, lines = time.process_time(), 0
        with client.stream("GET", "/dashboard/traces.csv?period=24h") as answer:
            lines = sum(part.count(b"\n") for part in answer.iter_raw())
        each_us = (time.process_time() - started) / lines * 1e6
        found.append(Figure(name="CSV of a day, a line", value=each_us, unit="µs", detail=f"{lines:,} lines"))
        return found


def _seconds(client: TestClient, path: str) -> float:
    def once() -> float:
        started = time.process_time()
        answer = client.get(path, headers={"accept": "text/html"})
        assert answer.status_code == 200, (path, answer.status_code)
        return time.process_time() - started

    once()
    return median(once() for _ in range(ROUNDS))


def _fill(ledger: Ledger) -> None:
    rng = Random(1)
    made = _traces(rng)
    with ledger.engine.connect() as connection:
        for _ in range(TRACES // BATCH):
            some = [next(made) for _ in range(BATCH)]
            connection.execute(insert(traces), [trace_row(one, store_texts=False) for one in some])
            connection.execute(insert(attempts), [row for one in some for row in attempt_rows(one, store_texts=False)])
            add(connection, summed(map(facts_of, some)))
            said = [one for one in some if one.final is not None and rng.random() < 0.02]
            rows = [_said(one, rng) for one in said]
            connection.execute(insert(feedback), rows)
            connection.commit()


def _said(one: Trace, rng: Random) -> dict[str, object]:
    right = rng.random() < (one.confidence or 0.9)
    return {"trace_id": one.id, "source": "user", "correct": float(right), "note": None, "at_unix_s": NOW}


def _traces(rng: Random) -> Iterator[Trace]:
    """Oldest first, as they are written."""
    for number in range(TRACES):
        confidence = rng.betavariate(4, 2)
        kept = confidence >= 0.6
        decision = Decision(keep=kept, reason=Reason.CONFIDENT if kept else Reason.BELOW_THRESHOLD, threshold=0.6)
        first = _attempt("small", decision, confidence)
        failed = not kept and rng.random() < 0.01
        tried = (first,) if kept else (first, _attempt("large", _FAILED if failed else _LAST, None))
        task = "rare" if number % 400_000 == 77 else rng.choice(("maths", "law", "code", None))
        yield Trace(
            id=f"{number:024}",
            request=Request(messages=(), task=task),
            attempts=tried,
            final=None if failed else len(tried) - 1,
            started_at_unix_s=NOW - DAYS * 86_400 * (1 - number / TRACES),
            elapsed_s=rng.lognormvariate(0.5, 1.0),
            cost_nano_usd=sum(one.cost_nano_usd or 0 for one in tried),
            baseline_nano_usd=None if failed else 10_000,
            metadata={"key": f"key{rng.randrange(20)}", "model": rng.choice(("corea", "corea:careful"))},
        )


_LAST = Decision(keep=True, reason=Reason.LAST_TIER)
_FAILED = Decision(keep=False, reason=Reason.FAILED)


def _attempt(tier: str, decision: Decision, confidence: float | None) -> Attempt:
    return Attempt(
        tier=tier,
        model="m",
        decision=decision,
        confidence=Confidence(value=confidence, source="fitted"),
        usage=Usage(prompt_tokens=200, completion_tokens=300),
        cost_nano_usd=1_000 if tier == "small" else 10_000,
    )
