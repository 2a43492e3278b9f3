"""Deletes old traces, a little at a time. The roll-ups keep their sums; what was asked and answered is gone."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, Engine, delete, func, select

from corea.ledger.database import explained, turn
from corea.ledger.queries import HasEngine, engine_of
from corea.ledger.rollups import roll_up
from corea.ledger.schema import attempts, feedback, traces

#: Traces a transaction: others write in between.
BATCH = 500


def prune(
    source: HasEngine | Engine,
    *,
    before_unix_s: float,
    batch: int = BATCH,
    on_batch: Callable[[int], None] = lambda deleted: None,
) -> int:
    """Deletes traces that started before, with their attempts and feedback, oldest first. How many it deleted.

    What roll-ups lack is added to them first. Interrupted, it has deleted whole traces, and may be run again. The
    database reuses the room; its file does not shrink. Raises LedgerError.
    """
    engine, deleted = engine_of(source), 0
    roll_up(engine)
    while True:
        with explained(engine), turn(engine), engine.begin() as connection:
            found = _delete(connection, before_unix_s, batch)
        deleted += found
        on_batch(deleted)
        if found < batch:
            return deleted


def count(source: HasEngine | Engine, *, before_unix_s: float) -> int:
    """How many traces :func:`prune` would delete. Raises LedgerError."""
    engine = engine_of(source)
    with explained(engine), engine.connect() as connection:
        query = select(func.count()).select_from(traces).where(traces.c.started_at_unix_s < before_unix_s)
        return int(connection.scalar(query) or 0)


def _delete(connection: Connection, before_unix_s: float, batch: int) -> int:
    old = select(traces.c.id).where(traces.c.started_at_unix_s < before_unix_s, traces.c.rolled_up)
    old = old.order_by(traces.c.started_at_unix_s, traces.c.id).limit(batch)
    # Two at once share the work instead of waiting for each other. (SQLite has one writer and ignores this.)
    ids = list(connection.scalars(old.with_for_update(skip_locked=True)))
    connection.execute(delete(attempts).where(attempts.c.trace_id.in_(ids)))
    connection.execute(delete(feedback).where(feedback.c.trace_id.in_(ids)))
    connection.execute(delete(traces).where(traces.c.id.in_(ids)))
    return len(ids)
