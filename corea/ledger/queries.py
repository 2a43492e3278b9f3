"""Questions to the ledger. Knows nothing of writing; each takes an open ``Ledger`` or an engine from ``reading``.

They block: call them from a thread where an event loop runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

from sqlalchemy import Engine, Select, and_, case, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from corea.errors import LedgerError
from corea.ledger.database import explained, place
from corea.ledger.records import Row, to_trace
from corea.ledger.schema import AnyText, attempts, escape, traces
from corea.types import Trace


class HasEngine(Protocol):
    """An open ``Ledger``."""

    @property
    def engine(self) -> Engine: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow:
    """A trace in a list. ``question`` and ``answer`` are None also where texts are not stored."""

    id: str
    started_at_unix_s: float
    elapsed_s: float
    task: str | None
    question: str | None
    answer: str | None
    tier: str | None
    confidence: float | None
    deferred: bool
    #: True when no tier answered.
    error: bool
    cost_nano_usd: int | None
    saved_nano_usd: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over traces. A sum holds what is known; how many traces it lacks stands next to it."""

    traces: int
    deferred: int
    #: Traces that no tier answered; they count as deferred too.
    errors: int
    cost_nano_usd: int
    cost_unknown: int
    saved_nano_usd: int
    saved_unknown: int

    @property
    def deferral_rate(self) -> float | None:
        return self.deferred / self.traces if self.traces else None


def list_traces(
    source: HasEngine | Engine,
    *,
    limit: int = 20,
    before: str | None = None,
    deferred: bool | None = None,
    tier: str | None = None,
    task: str | None = None,
    since_unix_s: float | None = None,
) -> list[TraceRow]:
    """The newest traces, newest first; ``before`` is the id of the last one of the page before.

    ``tier`` is the one whose answer was handed out. Raises LedgerError if the ledger can't be read or lacks ``before``.
    """
    engine = engine_of(source)
    c = traces.c
    query = select(
        c.id, c.started_at_unix_s, c.elapsed_s, c.task, c.messages, c.answer, c.tier, c.confidence, c.deferred, c.error,
        c.cost_nano_usd, c.saved_nano_usd,
    )  # fmt: skip
    query = query.order_by(c.started_at_unix_s.desc(), c.id.desc()).limit(limit)
    query = query.where(*_filters(deferred=deferred, tier=tier, task=task, since_unix_s=since_unix_s))
    if before is not None:
        query = query.where(_older_than(engine, before))
    return [_trace_row(row) for row in _rows(engine, query)]


def get_trace(source: HasEngine | Engine, id_or_prefix: str) -> Trace:
    """The trace with this id, or the only one whose id starts so.

    Raises LedgerError for an id that is unknown (naming others) or stands for several (naming them).
    """
    engine = engine_of(source)
    rows = _rows(engine, select(traces).where(traces.c.id == id_or_prefix))
    if not rows:
        rows = _rows(engine, select(traces).where(_starts_with(id_or_prefix)).order_by(traces.c.id).limit(6))
    if not rows:
        raise LedgerError(f"no trace {id_or_prefix!r} in {place(engine)}; {_suggestion(engine, id_or_prefix)}")
    if len(rows) > 1:
        names = ", ".join([row["id"] for row in rows[:5]] + ["…"] * (len(rows) > 5))
        raise LedgerError(f"{id_or_prefix!r} is the start of several traces: {names}; write more of it")
    of_trace = select(attempts).where(attempts.c.trace_id == rows[0]["id"]).order_by(attempts.c.position)
    return to_trace(rows[0], _rows(engine, of_trace))


def totals(source: HasEngine | Engine, *, task: str | None = None, since_unix_s: float | None = None) -> Totals:
    """Counts and sums over all traces, or those of a task or since a time. Raises LedgerError."""
    c = traces.c
    query = select(
        func.count().label("traces"),
        func.sum(case((c.deferred, 1), else_=0)).label("deferred"),
        func.sum(case((c.error, 1), else_=0)).label("errors"),
        func.sum(c.cost_nano_usd).label("cost_nano_usd"),
        func.sum(case((c.cost_nano_usd.is_(None), 1), else_=0)).label("cost_unknown"),
        func.sum(c.saved_nano_usd).label("saved_nano_usd"),
        func.sum(case((c.saved_nano_usd.is_(None), 1), else_=0)).label("saved_unknown"),
    ).where(*_filters(task=task, since_unix_s=since_unix_s))
    # A sum over nothing is NULL, and PostgreSQL's sum of BIGINT is a Decimal.
    return Totals(**{name: int(value or 0) for name, value in _rows(engine_of(source), query)[0].items()})


def engine_of(source: HasEngine | Engine) -> Engine:
    return source if isinstance(source, Engine) else source.engine


def _rows(engine: Engine, query: Select[*tuple[Any, ...]]) -> list[Row]:
    with explained(engine), engine.connect() as connection:
        return [row._asdict() for row in connection.execute(query)]


def _filters(
    *,
    deferred: bool | None = None,
    tier: str | None = None,
    task: str | None = None,
    since_unix_s: float | None = None,
) -> list[ColumnElement[bool]]:
    c = traces.c
    found: list[ColumnElement[bool]] = []
    if deferred is not None:
        found.append(c.deferred.is_(deferred))
    if tier is not None:
        found.append(c.tier == tier)
    if task is not None:
        found.append(c.task == task)
    if since_unix_s is not None:
        found.append(c.started_at_unix_s >= since_unix_s)
    return found


def _older_than(engine: Engine, trace_id: str) -> ColumnElement[bool]:
    c = traces.c
    rows = _rows(engine, select(c.started_at_unix_s).where(c.id == trace_id))
    if not rows:
        raise LedgerError(f"no trace {trace_id!r} in {place(engine)} to list from; start again without it")
    started = rows[0]["started_at_unix_s"]
    return or_(c.started_at_unix_s < started, and_(c.started_at_unix_s == started, c.id < trace_id))


def _starts_with(prefix: str) -> ColumnElement[bool]:
    # Not LIKE: in SQLite it ignores case and can't use the primary key.
    start = func.substr(traces.c.id, 1, len(escape(prefix)), type_=AnyText())
    return and_(traces.c.id >= prefix, start == prefix)


def _suggestion(engine: Engine, wanted: str) -> str:
    newest = select(traces.c.id).order_by(traces.c.started_at_unix_s.desc(), traces.c.id.desc()).limit(100)
    ids = [row["id"] for row in _rows(engine, newest)]
    if not ids:
        return "it has none yet"
    near = get_close_matches(wanted, ids, n=3)
    return f"did you mean {', '.join(near)}?" if near else f"the newest are {', '.join(ids[:3])}"


def _trace_row(row: Row) -> TraceRow:
    messages = row.pop("messages")
    return TraceRow(question=messages[-1]["content"] if messages else None, **row)
