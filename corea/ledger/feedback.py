"""What users say about answers, and what follows from it for each tier.

Feedback is about the answer handed out. It tells of another tier's attempt only where the two gave the same short
answer, or where the one handed out was right and the other, of a kind with one right answer, differs. The large
model's answer to a question the small one kept is never known from feedback; see ``docs/ledger.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects import postgresql, sqlite

from corea.errors import InputError
from corea.ledger.database import explained, place, turn
from corea.ledger.queries import HasEngine, engine_of
from corea.ledger.records import Row
from corea.ledger.schema import attempts, feedback, traces

#: Kinds of questions that have one right answer, so that a different one is wrong.
_ONE_RIGHT_ANSWER = ("choice", "boolean")
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """``source`` said that the answer of a trace was right (1.0), wrong (0.0) or between."""

    trace_id: str
    source: str
    correct: float
    note: str | None
    at_unix_s: float

    def __post_init__(self) -> None:
        # NaN fails both comparisons, so it is refused too.
        if not 0.0 <= self.correct <= 1.0:
            raise InputError(f"correct lies between 0 (wrong) and 1 (right), not {self.correct!r}; correct it")


def add(source: HasEngine | Engine, said: Feedback) -> None:
    """Stores it, in place of what the same source said before. Raises InputError for a trace that is not there."""
    engine = engine_of(source)
    row = {column.name: getattr(said, column.name) for column in feedback.columns}
    with explained(engine), turn(engine), engine.begin() as connection:
        if connection.scalar(select(traces.c.id).where(traces.c.id == said.trace_id)) is None:
            raise InputError(f"no trace {said.trace_id!r} in {place(engine)}; give the id that came with the answer")
        connection.execute(_PUT[connection.dialect.name], row)


def outcomes(source: HasEngine | Engine, *, since_unix_s: float = 0.0) -> Iterator[Row]:
    """Attempts with what is known of their correctness, as lines that ``corea eval import`` reads; oldest first.

    ``known`` says how: ``told`` for the answer handed out (the mean where several sources spoke), ``same_answer`` or
    ``differs_from_right`` for another tier's. An attempt of which nothing is known has no line. Raises LedgerError.
    """
    engine = engine_of(source)
    after = ""
    while True:
        with explained(engine), engine.connect() as connection:
            ids = _judged(connection, after)
            pages = _page(connection, ids, since_unix_s) if ids else []
        yield from pages
        if len(ids) < _PAGE:
            return
        after = ids[-1]


def _judged(connection: Connection, after: str) -> list[str]:
    f = feedback.c
    query = select(f.trace_id).where(f.trace_id > after).group_by(f.trace_id).order_by(f.trace_id).limit(_PAGE)
    return list(connection.scalars(query))


def _page(connection: Connection, ids: Sequence[str], since_unix_s: float) -> list[Row]:
    t, a, f = traces.c, attempts.c, feedback.c
    said: dict[str, list[float]] = {}
    for row in connection.execute(select(f.trace_id, f.correct).where(f.trace_id.in_(ids))):
        said.setdefault(row.trace_id, []).append(row.correct)
    query = (
        select(attempts, t.final, t.task, t.kind, t.messages)
        .select_from(attempts.join(traces, t.id == a.trace_id))
        .where(t.id.in_(ids), t.started_at_unix_s >= since_unix_s, t.final.is_not(None))
        .order_by(a.trace_id, a.position)
    )
    rows = [dict(row) for row in connection.execute(query).mappings()]
    found: list[Row] = []
    for trace_id, group in groupby(rows, key=itemgetter("trace_id")):
        told = said[trace_id]
        found += _lines(list(group), sum(told) / len(told))
    return found


def _lines(tried: Sequence[Row], correct: float) -> Iterator[Row]:
    final = next(row for row in tried if row["position"] == row["final"])
    for row in tried:
        found = known(row, final, correct)
        if found is not None:
            yield _line(row, *found)


def known(row: Row, final: Row, correct: float) -> tuple[float, str] | None:
    """How right this attempt was, and how that is known; None where it is not."""
    if row is final:
        return correct, "told"
    if row["failure_kind"] is not None or row["answer"] is None or final["answer"] is None:
        return None
    if _plain(row["answer"]) == _plain(final["answer"]):
        return correct, "same_answer"
    if correct == 1.0 and row["kind"] in _ONE_RIGHT_ANSWER:
        return 0.0, "differs_from_right"
    return None


def _plain(answer: str) -> str:
    return " ".join(answer.split()).casefold()


def _line(row: Row, correct: float, known: str) -> Row:
    messages = row["messages"]
    line: dict[str, Any] = {
        "id": row["trace_id"],
        "tier": row["tier"],
        "correct": correct,
        "known": known,
        "confidence": {row["confidence_source"]: row["confidence"]} if row["confidence_source"] else {},
        "cost_usd": None if row["cost_nano_usd"] is None else row["cost_nano_usd"] / 10**9,
        "prompt_tokens": row["prompt_tokens"],
        "completion_tokens": row["completion_tokens"],
        "latency_ms": row["latency_s"] * 1000,
        "task": row["task"],
        "kind": row["kind"],
        "question": messages[-1]["content"] if messages else None,
        "answer": row["answer"],
        "text": row["text"],
        "finish_reason": row["finish_reason"],
    }
    return line


def _putting(insert: Any) -> Any:
    statement = insert(feedback)
    new = {name: statement.excluded[name] for name in ("correct", "note", "at_unix_s")}
    return statement.on_conflict_do_update(index_elements=["trace_id", "source"], set_=new)


_PUT = {"sqlite": _putting(sqlite.insert), "postgresql": _putting(postgresql.insert)}
