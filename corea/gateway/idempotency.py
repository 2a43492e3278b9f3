"""``Idempotency-Key``: a request that is sent again gets the answer of the first, and is not billed again.

After draft-ietf-httpapi-idempotency-key-header-07: the same key with another body is 422, one whose first request is
still worked on 409. Knows no model; answers are kept as they went out, a stream's bytes too.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from corea.errors import ConfigError, LedgerError
from corea.gateway.auth import Caller
from corea.gateway.connection import Connection, Send
from corea.gateway.errors import ApiError, bad_request
from corea.gateway.keys import Pepper
from corea.gateway.shapes import KEEP_ALIVE
from corea.ledger.replays import Claim, Found, Kept, StoredReplays

logger = logging.getLogger("corea.gateway.idempotency")

HEADER = "idempotency-key"
REPLAYED = "x-corea-idempotent-replay"
#: An answer larger than this is not kept: asked for again, it is worked on again.
MOST_BYTES = 1024 * 1024
_LONGEST_KEY = 255
#: Of answers kept in memory, the oldest are forgotten beyond that.
_MOST_KEPT, _MOST_KEPT_BYTES = 10_000, 64 * 1024 * 1024
#: Said anew with each answer.
_OWN_HEADERS = frozenset({"x-request-id", "content-length"})


class Replays(Protocol):
    """Where answers are kept; see :class:`corea.ledger.replays.StoredReplays`."""

    async def claim(self, claim: Claim, *, lease_s: float) -> Found | None: ...

    async def keep(self, claim: Claim, kept: Kept, *, keep_s: float) -> None: ...

    async def release(self, claim: Claim) -> None: ...


class InLedger:
    """In the ledger's database: for all replicas on it."""

    def __init__(self, stored: StoredReplays) -> None:
        self._stored = stored

    async def claim(self, claim: Claim, *, lease_s: float) -> Found | None:
        return await asyncio.to_thread(self._stored.claim, claim, lease_s=lease_s)

    async def keep(self, claim: Claim, kept: Kept, *, keep_s: float) -> None:
        await asyncio.to_thread(self._stored.keep, claim, kept, keep_s=keep_s)

    async def release(self, claim: Claim) -> None:
        await asyncio.to_thread(self._stored.release, claim)


@dataclass(slots=True, kw_only=True)
class _Entry:
    claim: Claim
    expires_s: float
    kept: Kept | None = None


class InMemory:
    """In this process, for as long as it lives, and as many as there is room for. ``clock`` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    async def claim(self, claim: Claim, *, lease_s: float) -> Found | None:
        found = self._entries.get(claim.id)
        if found is not None and found.expires_s > self._clock():
            return Found(fingerprint=found.claim.fingerprint, kept=found.kept)
        self._forget(claim.id)
        self._entries[claim.id] = _Entry(claim=claim, expires_s=self._clock() + lease_s)
        self._make_room()
        return None

    async def keep(self, claim: Claim, kept: Kept, *, keep_s: float) -> None:
        entry = self._entries.get(claim.id)
        if entry is None or entry.claim.holder != claim.holder:
            return
        entry.kept, entry.expires_s = kept, self._clock() + keep_s
        self._bytes += len(kept.body)
        self._make_room()

    async def release(self, claim: Claim) -> None:
        entry = self._entries.get(claim.id)
        if entry is not None and entry.claim.holder == claim.holder:
            self._forget(claim.id)

    def _make_room(self) -> None:
        while len(self._entries) > _MOST_KEPT or self._bytes > _MOST_KEPT_BYTES:
            self._forget(next(iter(self._entries)))

    def _forget(self, id: str) -> None:
        entry = self._entries.pop(id, None)
        if entry is not None and entry.kept is not None:
            self._bytes -= len(entry.kept.body)


class Idempotency:
    """Around the requests that have a key."""

    def __init__(self, ledger: object, *, keep_s: float, lease_s: float, clock: Callable[[], float]) -> None:
        """In the ledger's database, if it may hold whole answers; else in memory. ``lease_s``: longer than any work."""
        self._keep_s = keep_s
        self._lease_s = lease_s
        stored = _stored(ledger)
        self._in_ledger = stored is not None
        self._replays: Replays = InMemory(clock) if stored is None else InLedger(stored)

    async def answer(
        self, connection: Connection, caller: Caller, body: bytes, work: Callable[[], Awaitable[None]]
    ) -> None:
        """What was answered before; or what ``work`` answers, kept if it succeeded before its last byte goes out.

        Raises :class:`ApiError` for a key that is in use, or was used for another request.
        """
        claim = self._claim(connection, caller, body)
        found = await self._replays.claim(claim, lease_s=self._lease_s)
        if found is not None:
            await _replay(connection, claim, found)
            return
        copy = _Copy(connection, lambda kept: self._replays.keep(claim, kept, keep_s=self._keep_s))
        connection.send_by(copy.over)
        try:
            await work()
        finally:
            if not copy.is_kept:
                with suppress(LedgerError):
                    await self._replays.release(claim)

    def _claim(self, connection: Connection, caller: Caller, body: bytes) -> Claim:
        key = connection.headers[HEADER]
        if not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
            message = f"Idempotency-Key must be 1 to {_LONGEST_KEY} printable characters, such as a UUID"
            raise bad_request(message, code="invalid_idempotency_key")
        return Claim(
            id=self._pepper.hash(f"idempotency key\0{caller.id}\0{key}"),
            fingerprint=self._pepper.hash(f"{connection.path}\0{body.decode('latin-1')}"),
            holder=connection.request_id,
        )

    @cached_property
    def _pepper(self) -> Pepper:
        """What is kept is found by hashes that a stolen database does not tell. In memory, any secret will do."""
        if not self._in_ledger:
            return Pepper(secrets.token_bytes(32))
        try:
            return Pepper.load()
        except ConfigError as exc:
            logger.warning("Idempotency-Key cannot be honoured: %s", exc)
            message = "this gateway cannot honour Idempotency-Key; its log says why"
            raise ApiError(message, status=503, code="idempotency_unavailable", type="server_error") from None


class _Copy:
    """Keeps what goes out, in full; then, and only if it is a success, hands it to ``keep``."""

    def __init__(self, connection: Connection, keep: Callable[[Kept], Awaitable[None]]) -> None:
        self._connection = connection
        self._keep = keep
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._bytes = 0
        self.is_kept = False

    def over(self, send: Send) -> Send:
        async def copied(message: Any) -> None:
            if message["type"] == "http.response.start":
                told = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
                self._headers = {name: value for name, value in told if name not in _OWN_HEADERS}
            else:
                self._add(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._end()
            await send(message)

        return copied

    def _add(self, part: bytes) -> None:
        if part == KEEP_ALIVE:
            return
        self._bytes += len(part)
        if self._bytes <= MOST_BYTES:
            self._parts.append(part)
        else:
            self._parts.clear()

    async def _end(self) -> None:
        status = self._connection.status
        if not 200 <= status < 300 or self._connection.failed or self._bytes > MOST_BYTES:
            return
        try:
            await self._keep(Kept(status=status, headers=self._headers, body=b"".join(self._parts)))
        except LedgerError as exc:
            # The answer is paid for and its trace is written: it goes out all the same.
            logger.warning("%s: the answer could not be kept: %s", self._connection.request_id, exc)
            return
        self.is_kept = True


async def _replay(connection: Connection, claim: Claim, found: Found) -> None:
    if not hmac.compare_digest(found.fingerprint, claim.fingerprint):
        message = "this Idempotency-Key was used for another request; send a new key with each new request"
        raise ApiError(message, status=422, code="idempotency_key_reused")
    if found.kept is None:
        message = "a request with this Idempotency-Key is being worked on; try again in a moment"
        raise ApiError(message, status=409, code="idempotency_key_in_use", retry=True, retry_after_s=1)
    headers = {**found.kept.headers, REPLAYED: "true"}
    content_type = headers.pop("content-type", "application/json")
    await connection.answer(found.kept.status, found.kept.body, content_type, headers)


def _stored(ledger: object) -> StoredReplays | None:
    """None where there is no database, or one that must not hold what was answered, or not all of it."""
    from corea.ledger import Ledger

    if not isinstance(ledger, Ledger) or not ledger.stores_texts_whole:
        return None
    return StoredReplays(ledger.engine)
