"""Virtual keys as they are stored: what each may do, and hashes of its secrets. Knows no secret and no hashing.

They block: call them from a thread where an event loop runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, insert, or_, select, update

from corea.errors import LedgerError
from corea.ledger.database import explained, place, turn
from corea.ledger.queries import HasEngine, engine_of
from corea.ledger.schema import key_secrets, keys

#: How coarse ``last_used_at_unix_s`` is: a key in use is written to once in this time by each replica.
USED_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a key may use; None is no limit. Days and months are those of UTC."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    day_nano_usd: int | None = None
    month_nano_usd: int | None = None

    @property
    def of_money(self) -> bool:
        return self.day_nano_usd is not None or self.month_nano_usd is not None

    @property
    def none(self) -> bool:
        return not self.of_money and self.requests_per_minute is None and self.tokens_per_minute is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Who asks, and what they may do. ``profiles=None`` is every profile."""

    id: str
    name: str
    profiles: tuple[str, ...] | None = None
    task: str | None = None
    limits: Limits = Limits()
    created_at_unix_s: float
    expires_at_unix_s: float | None = None
    revoked_at_unix_s: float | None = None
    #: To the hour.
    last_used_at_unix_s: float | None = None

    def works_at(self, unix_s: float) -> bool:
        if self.revoked_at_unix_s is not None:
            return False
        return self.expires_at_unix_s is None or unix_s < self.expires_at_unix_s

    def allows(self, profile: str) -> bool:
        return self.profiles is None or profile in self.profiles


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A secret's hash. ``prefix`` is its public part; ``pepper_id`` names the server secret it was hashed with."""

    prefix: str
    key_id: str
    hash: str
    pepper_id: str
    created_at_unix_s: float
    expires_at_unix_s: float | None = None


def add_key(source: HasEngine | Engine, key: Key, secret: StoredSecret) -> None:
    """Raises LedgerError, also where a key of this name works already: names are how people revoke them."""
    engine = engine_of(source)
    with explained(engine), turn(engine), engine.begin() as connection:
        working = select(keys.c.id).where(keys.c.name == key.name, keys.c.revoked_at_unix_s.is_(None))
        if connection.scalar(working) is not None:
            raise LedgerError(f'there is a key called "{key.name}"; choose another name, or revoke that one first')
        connection.execute(insert(keys), _row(key))
        connection.execute(insert(key_secrets), _secret_row(secret))


def list_keys(source: HasEngine | Engine) -> list[Key]:
    """All of them, revoked ones too; the oldest first. Raises LedgerError."""
    engine = engine_of(source)
    with explained(engine), engine.connect() as connection:
        return [_key(row) for row in connection.execute(_ALL).mappings()]


def find_secret(source: HasEngine | Engine, prefix: str) -> tuple[Key, StoredSecret] | None:
    """The key that a secret with this public part may belong to. Raises LedgerError."""
    engine = engine_of(source)
    with explained(engine), engine.connect() as connection:
        secret = connection.execute(select(key_secrets).where(key_secrets.c.prefix == prefix)).mappings().first()
        if secret is None:
            return None
        row = connection.execute(select(keys).where(keys.c.id == secret["key_id"])).mappings().one()
    return _key(row), StoredSecret(**secret)


def revoke(source: HasEngine | Engine, id_or_name: str, *, at_unix_s: float) -> Key:
    """The key works no longer, once replicas have looked again. Raises LedgerError where no such key works."""
    return change(source, id_or_name, {"revoked_at_unix_s": at_unix_s})


def rotate(source: HasEngine | Engine, id_or_name: str, secret: StoredSecret, *, others_until_unix_s: float) -> Key:
    """Gives the key another secret; the ones before work until then. Fills in its ``key_id``. Raises LedgerError."""
    engine = engine_of(source)
    s = key_secrets.c
    with explained(engine), turn(engine), engine.begin() as connection:
        key = _working(connection, engine, id_or_name)
        outlives = or_(s.expires_at_unix_s.is_(None), s.expires_at_unix_s > others_until_unix_s)
        shorten = update(key_secrets).where(s.key_id == key.id, outlives)
        connection.execute(shorten.values(expires_at_unix_s=others_until_unix_s))
        connection.execute(insert(key_secrets), {**_secret_row(secret), "key_id": key.id})
    return key


def mark_used(source: HasEngine | Engine, key_id: str, *, at_unix_s: float) -> None:
    """Remembers that the key is in use, at most once in ``USED_S``. Raises LedgerError."""
    engine = engine_of(source)
    used = keys.c.last_used_at_unix_s
    stale = or_(used.is_(None), used < at_unix_s - USED_S)
    with explained(engine), turn(engine), engine.begin() as connection:
        connection.execute(update(keys).where(keys.c.id == key_id, stale).values(last_used_at_unix_s=at_unix_s))


def change(source: HasEngine | Engine, id_or_name: str, values: dict[str, Any]) -> Key:
    """Set columns of a key that works. Raises :class:`InputError` where there is none of that id or name."""
    engine = engine_of(source)
    with explained(engine), turn(engine), engine.begin() as connection:
        key = _working(connection, engine, id_or_name)
        connection.execute(update(keys).where(keys.c.id == key.id).values(**values))
        return _key(connection.execute(select(keys).where(keys.c.id == key.id)).mappings().one())


def _working(connection: Connection, engine: Engine, id_or_name: str) -> Key:
    """The key that is not revoked and has this id, or else this name."""
    for column in (keys.c.id, keys.c.name):
        found = _not_revoked(connection, column == id_or_name)
        if found:
            return found[0]
    names = [key.name for key in _not_revoked(connection, keys.c.id.is_not(None))]
    there_are = f"there are: {', '.join(names[:10])}" if names else "there is none; make one: corea keys create"
    raise LedgerError(f"no key {id_or_name!r} works in {place(engine)}; {there_are}")


def _not_revoked(connection: Connection, which: ColumnElement[bool]) -> Sequence[Key]:
    return [_key(row) for row in connection.execute(_ALL.where(which, keys.c.revoked_at_unix_s.is_(None))).mappings()]


_ALL = select(keys).order_by(keys.c.created_at_unix_s, keys.c.id)
_COLUMNS = tuple(column.name for column in keys.columns)
_LIMITS = tuple(field.name for field in fields(Limits))


def _row(key: Key) -> dict[str, Any]:
    limits = {name: getattr(key.limits, name) for name in _LIMITS}
    plain = {name: getattr(key, name) for name in _COLUMNS if name not in limits}
    return {**plain, **limits, "profiles": None if key.profiles is None else list(key.profiles)}


def _key(row: Any) -> Key:
    plain = {name: value for name, value in row.items() if name not in _LIMITS and name != "profiles"}
    profiles = None if row["profiles"] is None else tuple(row["profiles"])
    return Key(**plain, profiles=profiles, limits=Limits(**{name: row[name] for name in _LIMITS}))


def _secret_row(secret: StoredSecret) -> dict[str, Any]:
    return {field.name: getattr(secret, field.name) for field in fields(StoredSecret)}
