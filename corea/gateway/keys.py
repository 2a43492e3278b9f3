"""Virtual keys: made, hashed, and looked up while requests wait. Knows neither SQL nor headers.

A key is ``corea-`` and 43 characters, of which the first eight are public: by them the stored hash is found. The hash
is an HMAC with a secret of the server, so a stolen database neither tells keys nor lets anybody make one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from corea import paths
from corea.errors import ConfigError, LedgerError
from corea.ledger import keys as stored
from corea.ledger.keys import Key, Limits, StoredSecret
from corea.ledger.queries import HasEngine

logger = logging.getLogger("corea.gateway.keys")

PREFIX = "corea-"
SECRET_ENV = "COREA_KEYS_SECRET"  # noqa: S105  The variable's name.
#: For how long a replica believes what it read: a revoked key works at most this much longer.
TTL_S = 10.0

_NO_LIMITS = Limits()
_PUBLIC, _BYTES = 8, 32
_LENGTH = len(PREFIX) + 43
_MOST_CACHED = 10_000
_LOOKUPS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Pepper:
    """The server's secret that all hashes are made with. Never shown."""

    _secret: bytes

    def __repr__(self) -> str:
        return f"Pepper(id={self.id!r})"

    @property
    def id(self) -> str:
        """Tells one server secret from another, and nothing else of it."""
        return hashlib.sha256(b"corea pepper id" + self._secret).hexdigest()[:16]

    def hash(self, key: str) -> str:
        return hmac.digest(self._secret, key.encode(), "sha256").hex()

    @classmethod
    def load(cls, path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Pepper:
        """From ``COREA_KEYS_SECRET``, else from a file in COREA_HOME, made at first use and readable by its owner only.

        Raises ConfigError for a secret that is short, or a file that others can read.
        """
        given = environ.get(SECRET_ENV, "")
        if given:
            if len(given) < _BYTES:
                raise ConfigError(f"{SECRET_ENV} is shorter than {_BYTES} characters; make one: openssl rand -hex 32")
            return cls(given.encode())
        path = path or paths.home() / "keys.secret"
        try:
            return cls(_read_or_make(path))
        except OSError as exc:
            raise ConfigError(
                f"the keys' secret {path} can't be used ({exc.strerror}); make its folder writable or set {SECRET_ENV}"
            ) from exc


def create(
    source: HasEngine,
    pepper: Pepper,
    *,
    name: str,
    limits: Limits = _NO_LIMITS,
    profiles: tuple[str, ...] | None = None,
    task: str | None = None,
    expires_at_unix_s: float | None = None,
    clock: Callable[[], float] = time.time,
) -> tuple[Key, str]:
    """A new key and its secret, which nobody can be told again. Raises LedgerError where the name is taken."""
    now = clock()
    secret = _new_secret()
    key = Key(
        # Not the secret's public part: it stays when the secret is rotated.
        id=f"key-{secrets.token_hex(5)}",
        name=name,
        profiles=profiles,
        task=task,
        limits=limits,
        created_at_unix_s=now,
        expires_at_unix_s=expires_at_unix_s,
    )
    stored.add_key(source, key, _hashed(secret, pepper, key.id, now))
    return key, secret


def rotate(
    source: HasEngine,
    pepper: Pepper,
    id_or_name: str,
    *,
    grace_s: float = 0.0,
    clock: Callable[[], float] = time.time,
) -> tuple[Key, str]:
    """Another secret for the same key; the old one works for ``grace_s`` more. Raises LedgerError for no such key."""
    now = clock()
    secret = _new_secret()
    key = stored.rotate(source, id_or_name, _hashed(secret, pepper, "", now), others_until_unix_s=now + grace_s)
    return key, secret


class Changes(TypedDict, total=False):
    """What of a key may be changed. What is not named stays; None takes a limit away, and ``profiles=None`` is all."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    day_nano_usd: int | None
    month_nano_usd: int | None
    profiles: tuple[str, ...] | None
    task: str | None
    expires_at_unix_s: float | None


def change(source: HasEngine, id_or_name: str, changes: Changes) -> Key:
    """The key as it is now. Replicas go by it once they have looked again: within :data:`TTL_S`.

    What was used so far counts against the new limits. Raises LedgerError for no such key; an expired one may live on.
    """
    values: dict[str, Any] = {**changes}
    if values.get("profiles") is not None:
        values["profiles"] = list(values["profiles"])
    return stored.change(source, id_or_name, values)


def public_part(secret: str) -> str | None:
    """The part by which a key is found; None for what can't be one of ours."""
    if len(secret) != _LENGTH or not secret.startswith(PREFIX) or not secret.isascii():
        return None
    return secret[len(PREFIX) : len(PREFIX) + _PUBLIC]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What was read of one public part; no key is an answer too, and remembered."""

    found: tuple[Key, StoredSecret] | None
    at_s: float


class KeyStore:
    """Says whose key it is. One for each event loop; it asks the database at most once in ``ttl_s`` for each key."""

    def __init__(
        self,
        source: HasEngine,
        pepper: Pepper,
        *,
        ttl_s: float = TTL_S,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``source`` is an open ledger."""
        self._source = source
        self._pepper = pepper
        self._ttl_s = ttl_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._reading: dict[str, asyncio.Task[_Entry]] = {}
        # Strangers with made-up keys are not to keep every thread busy.
        self._lookups = asyncio.Semaphore(_LOOKUPS_AT_ONCE)

    async def authorize(self, secret: str) -> Key | None:
        """The key, if it is known, not revoked and not expired. Raises LedgerError where the database is away."""
        prefix = public_part(secret)
        if prefix is None:
            return None
        entry = self._entries.get(prefix)
        if entry is None or self._clock() - entry.at_s >= self._ttl_s:
            entry = await self._fresh(prefix)
        if entry.found is None:
            return None
        key, known = entry.found
        now = self._wall_clock()
        if not hmac.compare_digest(known.hash, self._pepper.hash(secret)):
            return None
        if known.expires_at_unix_s is not None and now >= known.expires_at_unix_s:
            return None
        return key if key.works_at(now) else None

    async def _fresh(self, prefix: str) -> _Entry:
        """Many requests with one key read it once. The reading goes on when the one who began it is cancelled."""
        task = self._reading.get(prefix)
        if task is None:
            task = self._reading[prefix] = asyncio.create_task(self._read(prefix))
            task.add_done_callback(lambda _: self._reading.pop(prefix, None))
        return await asyncio.shield(task)

    async def _read(self, prefix: str) -> _Entry:
        async with self._lookups:
            at_s = self._clock()
            found = await asyncio.to_thread(self._look_up, prefix)
        entry = self._entries[prefix] = _Entry(found, at_s)
        self._entries.move_to_end(prefix)
        if len(self._entries) > _MOST_CACHED:
            self._entries.popitem(last=False)
        return entry

    def _look_up(self, prefix: str) -> tuple[Key, StoredSecret] | None:
        found = stored.find_secret(self._source, prefix)
        if found is None:
            return None
        key, secret = found
        if secret.pepper_id != self._pepper.id:
            logger.error(
                'key "%s" was made with another server secret; give all replicas the same %s', key.name, SECRET_ENV
            )
            return None
        self._mark_used(key)
        return found

    def _mark_used(self, key: Key) -> None:
        now = self._wall_clock()
        if key.last_used_at_unix_s is not None and key.last_used_at_unix_s >= now - stored.USED_S:
            return
        try:
            stored.mark_used(self._source, key.id, at_unix_s=now)
        except LedgerError as exc:
            logger.warning("when key %s was used could not be noted: %s", key.id, exc)


def _new_secret() -> str:
    while True:
        secret = PREFIX + secrets.token_urlsafe(_BYTES)
        # A public part that begins with a dash would look like an option.
        if secret[len(PREFIX)].isalnum():
            return secret


def _hashed(secret: str, pepper: Pepper, key_id: str, now: float) -> StoredSecret:
    prefix = public_part(secret)
    assert prefix is not None  # noqa: S101
    return StoredSecret(
        prefix=prefix, key_id=key_id, hash=pepper.hash(secret), pepper_id=pepper.id, created_at_unix_s=now
    )


def _read_or_make(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        _make(path)
        mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"others can read the keys' secret {path}; run: chmod 600 {path}")
    secret = path.read_bytes().strip()
    if len(secret) < _BYTES:
        raise ConfigError(f"the keys' secret {path} is cut off; put it back from a backup, or delete it and all keys")
    return secret


def _make(path: Path) -> None:
    """Whole or not at all: two processes that make it at once end with the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_BYTES).encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()


__all__ = ["Changes", "Key", "KeyStore", "Limits", "Pepper", "change", "create", "public_part", "rotate"]
