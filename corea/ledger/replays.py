"""Keeps answers by the key under which a client may ask for them again. Knows no HTTP: names and bodies are hashes.

One transaction claims a key, so of many replicas on one database only one works on it. Time is the database's on
PostgreSQL, so that the replicas' clocks may differ, and this machine's on SQLite.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from corea.ledger.database import explained, turn
from corea.ledger.schema import replays

#: Expired ones are deleted when somebody claims, at most this often.
SWEEP_S = 60.0
_CLOCK = select(func.extract("epoch", func.clock_timestamp()))
_NEW = {
    "sqlite": sqlite.insert(replays).on_conflict_do_nothing().returning(replays.c.id),
    "postgresql": postgresql.insert(replays).on_conflict_do_nothing().returning(replays.c.id),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Somebody who wants to work on a request. ``id`` and ``fingerprint`` are hashes; ``holder`` is theirs alone."""

    id: str
    #: Of the request: the same id with another one is another request.
    fingerprint: str
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer as it went out."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a claim ran into. ``kept=None``: it is being worked on."""

    fingerprint: str
    kept: Kept | None


class StoredReplays:
    """Blocking; one for any number of threads. Every method raises LedgerError where there is no database."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] | None = None) -> None:
        """``clock`` (unix seconds) replaces the database's, for tests."""
        self._engine = engine
        self._clock = clock
        self._swept_at_unix_s = 0.0

    def claim(self, claim: Claim, *, lease_s: float) -> Found | None:
        """None: the key is the claimant's for ``lease_s``. Else what is there."""
        with explained(self._engine), turn(self._engine), self._engine.begin() as connection:
            now = self._now(connection)
            self._sweep(connection, now)
            row: dict[str, object] = {"id": claim.id, "fingerprint": claim.fingerprint, "holder": claim.holder}
            row |= {"status": None, "headers": None, "body": None, "expires_at_unix_s": now + lease_s}
            if connection.scalar(_NEW[connection.dialect.name], row) is not None:
                return None
            # Expired, it is nobody's; and only one of those who see that can take it.
            is_dead = (replays.c.id == claim.id, replays.c.expires_at_unix_s <= now)
            if connection.execute(update(replays).where(*is_dead).values(row)).rowcount == 1:
                return None
            found = connection.execute(select(replays).where(replays.c.id == claim.id)).one_or_none()
            # Given up this very moment by its holder: whoever asks next gets it.
            return Found(fingerprint=claim.fingerprint, kept=None) if found is None else _found(found)

    def keep(self, claim: Claim, kept: Kept, *, keep_s: float) -> None:
        """The answer, for ``keep_s``; unless the claim was lost to somebody else meanwhile."""
        with explained(self._engine), turn(self._engine), self._engine.begin() as connection:
            until = self._now(connection) + keep_s
            values = {"status": kept.status, "headers": dict(kept.headers), "body": kept.body}
            values |= {"expires_at_unix_s": until}
            connection.execute(update(replays).where(*_held(claim)).values(values))

    def release(self, claim: Claim) -> None:
        """There is no answer to keep: the key is free again."""
        with explained(self._engine), turn(self._engine), self._engine.begin() as connection:
            connection.execute(delete(replays).where(*_held(claim)))

    def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        if connection.dialect.name == "sqlite":
            return time.time()
        return float(connection.scalar(_CLOCK) or 0.0)

    def _sweep(self, connection: Connection, now: float) -> None:
        if now < self._swept_at_unix_s + SWEEP_S:
            return
        self._swept_at_unix_s = now
        dead = select(replays.c.id).where(replays.c.expires_at_unix_s <= now).limit(1000)
        ids = list(connection.scalars(dead.with_for_update(skip_locked=True)))
        connection.execute(delete(replays).where(replays.c.id.in_(ids)))


def _held(claim: Claim) -> tuple[Any, Any]:
    return replays.c.id == claim.id, replays.c.holder == claim.holder


def _found(row: Row[Any]) -> Found:
    if row.status is None:
        return Found(fingerprint=row.fingerprint, kept=None)
    return Found(fingerprint=row.fingerprint, kept=Kept(status=row.status, headers=row.headers, body=row.body))
