"""Traces for the ledger's tests."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path
from typing import Any

from corea.ledger import new_trace_id
from corea.types import Attempt, Confidence, Decision, Message, Reason, Request, Trace, Usage

_counter = itertools.count()


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def attempt(*, tier: str = "small", keep: bool = True, confidence: float | None = 0.9) -> Attempt:
    return Attempt(
        tier=tier,
        model=f"model-{tier}",
        decision=Decision(
            keep=keep, reason=Reason.CONFIDENT if keep else Reason.BELOW_THRESHOLD, threshold=0.8 if keep else 0.95
        ),
        confidence=Confidence(value=confidence, source="verbalized"),
        text="6 times 7 is 42.\nAnswer: 42",
        answer="42",
        finish_reason="stop",
        usage=Usage(prompt_tokens=20, completion_tokens=12),
        cost_nano_usd=1_000,
        latency_s=0.25,
    )


def trace(
    *,
    id: str | None = None,
    tiers: tuple[str, ...] = ("small",),
    task: str | None = "maths",
    started_at_unix_s: float | None = None,
    cost_nano_usd: int | None = 1_000,
    baseline_nano_usd: int | None = 5_000,
    metadata: dict[str, Any] | None = None,
) -> Trace:
    """A trace that went through ``tiers`` and was answered by the last of them. Each one is newer than the last."""
    return Trace(
        id=new_trace_id() if id is None else id,
        request=Request(messages=(Message(role="user", content="6 × 7?"),), id="r-1", task=task, kind="number"),
        attempts=tuple(attempt(tier=tier, keep=tier == tiers[-1]) for tier in tiers),
        final=len(tiers) - 1 if tiers else None,
        started_at_unix_s=1_700_000_000.0 + next(_counter) if started_at_unix_s is None else started_at_unix_s,
        elapsed_s=0.3,
        cost_nano_usd=cost_nano_usd,
        baseline_nano_usd=baseline_nano_usd,
        fingerprint="f00d",
        prices_version="2026-01-01",
        metadata={} if metadata is None else metadata,
    )


def sql(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """The answer of plain sqlite3, which knows nothing of our code."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()
