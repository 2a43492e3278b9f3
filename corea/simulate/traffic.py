"""Recorded traffic: the ledger's traces, oldest first, with what is known of each tier's answer.

Reads page by page, so a ledger of any size takes the same memory. Knows no policy and no money. Blocks: call it from a
thread where an event loop runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from corea.ledger.database import explained
from corea.ledger.queries import HasEngine, engine_of
from corea.ledger.records import attribution, to_trace
from corea.ledger.schema import attempts, audits, feedback, traces
from corea.types import Attempt, Reason, Trace

_PAGE = 500
#: A tier that has such an attempt was not asked.
UNASKED = frozenset({Reason.NOT_CERTIFIED, Reason.SKIPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A request, with all that is known of it.

    ``right``: by tier, whether its answer is right, 0 to 1; a tier of which nobody said so is not in it.
    ``audit_agrees``: whether an audit found the last tier's answer to be the one that was handed out. The attempts of
    the trace may be more than its policy would have asked for, where outcomes stand in for traffic.
    """

    trace: Trace
    right: Mapping[str, float] = field(default_factory=dict)
    audit_agrees: bool | None = None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return self.trace.attempts

    @property
    def tiers(self) -> tuple[str, ...]:
        return tuple(attempt.tier for attempt in self.trace.attempts)

    @property
    def relayed(self) -> bool:
        """Whether it was handed to one tier as it was, so that no policy had a say in it."""
        return any(attempt.decision.reason is Reason.RELAYED for attempt in self.attempts) or not self.attempts

    @property
    def profile(self) -> str | None:
        return attribution(self.trace)[1]

    @property
    def question(self) -> str | None:
        """What ties are split by; None where texts are not stored."""
        return self.trace.request.question or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which traces: from ``since`` up to and without ``until``, of a task, of a virtual key (its id). None is all."""

    since_unix_s: float | None = None
    until_unix_s: float | None = None
    task: str | None = None
    key_id: str | None = None


def recorded(source: HasEngine, window: Window | None = None, *, page: int = _PAGE) -> Iterator[Past]:
    """The traces, by the time they began. Raises LedgerError if the ledger can't be read."""
    engine, window = engine_of(source), window or Window()
    last: tuple[float, str] = (-math.inf, "")
    while True:
        with explained(engine), engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(_query(window, last, page)).mappings()]
            ids = [row["id"] for row in rows]
            tried = _attempts(connection, ids)
            said = _said(connection, ids)
            agree = _agree(connection, ids)
        for row in rows:
            past = _past(row, tried.get(row["id"], []), said.get(row["id"]))
            yield past if row["id"] not in agree else replace(past, audit_agrees=agree[row["id"]])
        if len(rows) < page:
            return
        last = (rows[-1]["started_at_unix_s"], rows[-1]["id"])


def _query(window: Window, last: tuple[float, str], page: int) -> Any:
    c = traces.c
    started, id = last
    query = traces.select().order_by(c.started_at_unix_s, c.id).limit(page)
    if started > -math.inf:
        # The first half is implied by the second, and what an index can be walked by.
        query = query.where(c.started_at_unix_s >= started, (c.started_at_unix_s > started) | (c.id > id))
    if window.since_unix_s is not None:
        query = query.where(c.started_at_unix_s >= window.since_unix_s)
    if window.until_unix_s is not None:
        query = query.where(c.started_at_unix_s < window.until_unix_s)
    if window.task is not None:
        query = query.where(c.task == window.task)
    if window.key_id is not None:
        query = query.where(c.key_id == window.key_id)
    return query


def _attempts(connection: Any, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    query = attempts.select().where(attempts.c.trace_id.in_(ids)).order_by(attempts.c.trace_id, attempts.c.position)
    rows = (dict(row) for row in connection.execute(query).mappings())
    return {id: list(group) for id, group in groupby(rows, key=itemgetter("trace_id"))}


def _said(connection: Any, ids: Sequence[str]) -> dict[str, float]:
    """What was said of a trace's answer: right or wrong where all agree, and nothing where they don't."""
    found: dict[str, set[float]] = {}
    for row in connection.execute(feedback.select().where(feedback.c.trace_id.in_(ids))):
        found.setdefault(row.trace_id, set()).add(row.correct)
    return {id: min(told) for id, told in found.items() if told in ({0.0}, {1.0})}


def _agree(connection: Any, ids: Sequence[str]) -> dict[str, bool]:
    """What audits found out."""
    c = audits.c
    query = audits.select().where(c.trace_id.in_(ids), c.state == "done", c.agrees.is_not(None))
    return {row.trace_id: row.agrees for row in connection.execute(query)}


def _past(row: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], said: float | None) -> Past:
    trace = to_trace(row, tried)
    final = trace.attempt
    return Past(trace=trace, right={} if said is None or final is None else {final.tier: said})
