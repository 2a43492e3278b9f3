"""Money that virtual keys spent: charged in the transaction that writes the trace, so never lost and never doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from corea.ledger.database import explained
from corea.ledger.queries import HasEngine, engine_of
from corea.ledger.records import RESERVATION, RESERVED, attribution
from corea.ledger.schema import reservations, spend
from corea.types import Trace

DAY_S = 86_400


def day_of(unix_s: float) -> int:
    """Days since 1970, UTC."""
    return int(min(max(unix_s, 0.0), 1e11) // DAY_S)


def charge(connection: Connection, traces: Sequence[Trace]) -> None:
    """Adds what the traces cost to their keys' days, and frees what was set aside for them.

    Where a cost is not known in full, what was set aside is charged, if that is more: a budget is not to be passed by
    models without a price.
    """
    spent: Counter[tuple[str, int]] = Counter()
    done: list[str] = []
    for trace in traces:
        key_id, _ = attribution(trace)
        if key_id is not None:
            spent[key_id, day_of(trace.started_at_unix_s)] += charged_nano_usd(trace)
        reservation = trace.metadata.get(RESERVATION)
        if isinstance(reservation, str):
            done.append(reservation)
    if spent:
        rows = [{"key_id": key_id, "day": day, "nano_usd": spent[key_id, day]} for key_id, day in sorted(spent)]
        connection.execute(_ADD[connection.dialect.name], rows)
    if done:
        connection.execute(delete(reservations).where(reservations.c.id.in_(sorted(done))))


def charged_nano_usd(trace: Trace) -> int:
    if trace.cost_nano_usd is not None:
        return trace.cost_nano_usd
    reserved = trace.metadata.get(RESERVED)
    known = sum(attempt.cost_nano_usd or 0 for attempt in trace.attempts)
    return max(known, reserved if isinstance(reserved, int) else 0)


def spent_nano_usd(source: HasEngine | Engine, key_id: str, *, since_day: int, until_day: int | None = None) -> int:
    """What a key spent from one day on, to the end or before another. Raises LedgerError."""
    engine = engine_of(source)
    query = select(func.sum(spend.c.nano_usd)).where(spend.c.key_id == key_id, spend.c.day >= since_day)
    if until_day is not None:
        query = query.where(spend.c.day < until_day)
    with explained(engine), engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def _adding(insert: Any) -> Any:
    statement = insert(spend)
    return statement.on_conflict_do_update(
        index_elements=["key_id", "day"], set_={"nano_usd": spend.c.nano_usd + statement.excluded.nano_usd}
    )


_ADD = {"sqlite": _adding(sqlite.insert), "postgresql": _adding(postgresql.insert)}
