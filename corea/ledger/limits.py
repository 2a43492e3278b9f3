"""Keeps what keys used, so that their limits hold over all replicas on one database.

One transaction decides on a batch of requests: it locks the keys' rows (PostgreSQL) or the file (SQLite), reads what
they used, lets :mod:`corea.ledger.quota` decide, and writes. Whoever comes next sees it. Time is the database's on
PostgreSQL, so that the replicas' clocks may differ, and this machine's on SQLite.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, Select, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from corea.errors import LedgerError
from corea.ledger import postgres
from corea.ledger.database import BUSY_TIMEOUT_S, explain, turn
from corea.ledger.quota import DAY_S, Demand, Granted, Refused, Second, Used, admit, month_start_day, recent, settle
from corea.ledger.schema import reservations, spend, windows

PAUSE_S = 0.05
#: An expired reservation is deleted this much later; it counts no more from its expiry on.
SWEEP_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A request that ended. ``tokens=None``: not counted, so the estimate stands."""

    granted: Granted
    tokens: int | None


Change = Demand | Settlement
Decision = Granted | Refused | None


class LimitsWorker:
    """Decides in batches; see ``batches.Worker``. One connection, used by one thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        ended: deque[Settlement] | None = None,
        clock: Callable[[], float] | None = None,
        patience_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Each batch takes along what is in ``ended``. ``clock`` (unix seconds) replaces the database's, for tests."""
        self._engine = engine
        self._ended: deque[Settlement] = deque() if ended is None else ended
        self._clock = clock
        self._patience_s = patience_s
        self._is_away = False
        self._swept_at_unix_s = 0.0
        self._connection: Connection | None = None

    def work(self, batch: Sequence[Change]) -> Sequence[Decision | LedgerError]:
        """The decision on each demand, None for each settlement; the error, for all, where there is no database."""
        give_up_at = time.monotonic() + self._patience_s
        ended = [self._ended.popleft() for _ in range(len(self._ended))]
        while True:
            try:
                decisions = self._decide([*ended, *batch])
            except Exception as exc:  # noqa: BLE001  Whatever it is, somebody waits for the answer.
                self.close()
                # A commit whose answer was lost may have happened: then the request counts twice, for a minute.
                if postgres.is_passing(exc) and not self._is_away and time.monotonic() < give_up_at:
                    time.sleep(PAUSE_S)
                    continue
                self._is_away = postgres.is_passing(exc)
                self._ended.extendleft(reversed(ended))
                return [explain(self._engine, exc)] * len(batch)
            self._is_away = False
            return decisions[len(ended) :]

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError):
                connection.invalidate()
                connection.close()

    def _decide(self, batch: Sequence[Change]) -> list[Decision]:
        with turn(self._engine):
            connection = self._connection = self._connection or self._engine.connect()
            with connection.begin():
                if connection.dialect.name == "sqlite":
                    # The sqlite3 module would begin with the first write, after what it depends on was read.
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                return self._decide_locked(connection, batch)

    def _decide_locked(self, connection: Connection, batch: Sequence[Change]) -> list[Decision]:
        key_ids = sorted({_key_id(change) for change in batch})
        stored = _locked(connection, key_ids)
        with_money = sorted({d.key_id for d in batch if isinstance(d, Demand) and d.limits.of_money})
        now, used = self._used(connection, stored, with_money)
        before = {key_id: one.seconds for key_id, one in used.items()}
        decisions: list[Decision] = []
        for change in batch:
            key_id = _key_id(change)
            if isinstance(change, Settlement):
                if change.tokens is not None:
                    left = settle(used[key_id].seconds, change.granted, change.tokens)
                    used[key_id] = replace(used[key_id], seconds=left)
                decisions.append(None)
                continue
            used[key_id], decision = admit(used[key_id], change, now)
            decisions.append(decision)
        _write(connection, {k: one.seconds for k, one in used.items() if one.seconds != before[k]})
        _reserve(connection, batch, decisions, now)
        _free(connection, (change.granted.id for change in batch if isinstance(change, Settlement)))
        self._sweep(connection, now)
        return decisions

    def _used(
        self, connection: Connection, stored: dict[str, tuple[Second, ...]], with_money: Sequence[str]
    ) -> tuple[float, dict[str, Used]]:
        """The time, read after the locks were had, and what each key used."""
        if self._clock is not None:
            now = self._clock()
        elif connection.dialect.name == "sqlite":
            now = time.time()
        else:
            now = float(connection.scalar(_CLOCK) or 0.0)
        used = {key_id: Used(seconds=recent(seconds, now)) for key_id, seconds in stored.items()}
        for key_id in with_money:
            used[key_id] = _with_money(connection, key_id, used[key_id], now)
        return now, used

    def _sweep(self, connection: Connection, now: float) -> None:
        """Deletes what crashed processes left behind, now and then."""
        if now < self._swept_at_unix_s + SWEEP_AFTER_S:
            return
        self._swept_at_unix_s = now
        left = select(reservations.c.id).where(reservations.c.expires_at_unix_s < now - SWEEP_AFTER_S)
        ids = connection.scalars(left.limit(1000).with_for_update(skip_locked=True)).all()
        _free(connection, ids)


def _key_id(change: Change) -> str:
    return change.key_id if isinstance(change, Demand) else change.granted.key_id


def _locked(connection: Connection, key_ids: Sequence[str]) -> dict[str, tuple[Second, ...]]:
    """What the keys used, read under their locks, which are taken in one order by everybody."""
    found = {row.key_id: row.seconds for row in connection.execute(_LOCK, {"ids": key_ids})}
    missing = [key_id for key_id in key_ids if key_id not in found]
    if missing:
        # A key's first request: two replicas may get here at once, and the second waits for the first.
        connection.execute(_NEW[connection.dialect.name], [{"key_id": key_id, "seconds": []} for key_id in missing])
        found = {row.key_id: row.seconds for row in connection.execute(_LOCK, {"ids": key_ids})}
    return {key_id: tuple((at, requests, tokens) for at, requests, tokens in found[key_id]) for key_id in key_ids}


def _with_money(connection: Connection, key_id: str, used: Used, now: float) -> Used:
    day = int(now // DAY_S)
    row = connection.execute(_MONEY, {"key": key_id, "today": day, "first": month_start_day(day), "now": now}).one()
    return replace(
        used,
        day_nano_usd=int(row.today),
        month_nano_usd=int(row.month),
        reserved_nano_usd=int(row.reserved),
        first_expiry_unix_s=row.expiry,
    )


def _write(connection: Connection, changed: dict[str, tuple[Second, ...]]) -> None:
    rows = [{"at": key_id, "now": [list(second) for second in changed[key_id]]} for key_id in sorted(changed)]
    if rows:
        connection.execute(_UPDATE, rows)


def _reserve(connection: Connection, batch: Sequence[Change], decisions: Sequence[Decision], now: float) -> None:
    rows = [
        {"id": d.id, "key_id": d.key_id, "nano_usd": d.nano_usd, "expires_at_unix_s": now + d.expires_s}
        for d, decision in zip(batch, decisions, strict=True)
        if isinstance(d, Demand) and isinstance(decision, Granted) and d.limits.of_money
    ]
    if rows:
        connection.execute(_SET_ASIDE[connection.dialect.name], rows)


def _free(connection: Connection, ids: Iterable[str]) -> None:
    found = sorted(ids)
    if found:
        connection.execute(_DELETE, {"ids": found})


# Built once: to build a statement takes longer than to run it.
_LOCK = (
    select(windows.c.key_id, windows.c.seconds)
    .where(windows.c.key_id.in_(bindparam("ids", expanding=True)))
    .order_by(windows.c.key_id)
    .with_for_update()
)
_DELETE = delete(reservations).where(reservations.c.id.in_(bindparam("ids", expanding=True)))
_CLOCK = select(func.extract("epoch", func.clock_timestamp()))
_UPDATE = (
    update(windows)
    .where(windows.c.key_id == bindparam("at"))
    .values(seconds=bindparam("now", type_=windows.c.seconds.type))
)
_NEW = {
    "sqlite": sqlite.insert(windows).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(windows).on_conflict_do_nothing(),
}
# A second try after a lost answer finds it there.
_SET_ASIDE = {
    "sqlite": sqlite.insert(reservations).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(reservations).on_conflict_do_nothing(),
}


def _money() -> Select[Any]:
    """One statement, one snapshot: a trace written meanwhile is either still reserved or already spent."""
    key = bindparam("key", type_=spend.c.key_id.type)
    spent = select(func.coalesce(func.sum(spend.c.nano_usd), 0)).where(spend.c.key_id == key)
    running = (reservations.c.key_id == key, reservations.c.expires_at_unix_s > bindparam("now"))
    this_month = spend.c.day.between(bindparam("first"), bindparam("today"))
    return select(
        spent.where(spend.c.day == bindparam("today")).scalar_subquery().label("today"),
        spent.where(this_month).scalar_subquery().label("month"),
        select(func.coalesce(func.sum(reservations.c.nano_usd), 0)).where(*running).scalar_subquery().label("reserved"),
        select(func.min(reservations.c.expires_at_unix_s)).where(*running).scalar_subquery().label("expiry"),
    )


_MONEY = _money()
