"""One piece of a model, from a URL into a file: resumed, retried, checked.

Knows nothing of models, of where pieces come from, or of how they make up a file.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import aiohttp

from corea.errors import ChecksumMismatch, SourceUnreachable
from corea.models.disk import append, in_thread, size_of
from corea.models.session import only_to
from corea.models.verified import sha256_of

T = TypeVar("T")

RETRIES = 5
LONGEST_PAUSE_S = 8.0
#: An attempt that brought this much was no failure, however it ended: on a bad line a large piece takes many.
WORTHWHILE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes at a URL. ``identity`` names them, whichever mirror they come from.

    ``first_byte`` and ``size_bytes`` say which part of what is at the URL; a size of None is unknown until the stream
    ends. ``ranged`` means the server serves parts. ``member`` is the pattern of the zip member that counts, None where
    the bytes count as they are. ``token`` goes to the URL's own host only.
    """

    url: str
    identity: str
    size_bytes: int | None
    ranged: bool
    first_byte: int = 0
    sha256: str | None = None
    member: str | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What a server says of a URL: its size, if it tells, and whether it serves parts of it."""

    size_bytes: int | None
    ranged: bool


class _Passing(Exception):
    """An answer that may be better in a moment."""


async def measure(
    url: str, *, session: aiohttp.ClientSession, token: str | None = None, backoff_s: float = 0.5
) -> Remote:
    """Ask for a URL's first byte. Raises SourceUnreachable when it can't be had after a few tries."""
    local = local_path(url)
    if local is not None:
        return Remote(size_bytes=_local_size(local), ranged=False)

    async def ask() -> Remote:
        async with session.get(url, headers={"Range": "bytes=0-0"}, middlewares=only_to(url, token)) as response:
            _require_good(response)
            # The body is left unread: from a server that ignores Range it is the whole model.
            response.close()
            if response.status != 206:
                return Remote(size_bytes=response.content_length, ranged=False)
            return Remote(size_bytes=_content_range(response)[1], ranged=True)

    return await _patiently(ask, url, retries=2, backoff_s=backoff_s)


async def fetch(
    piece: Piece,
    path: Path,
    *,
    session: aiohttp.ClientSession,
    advanced: Callable[[int], None],
    needed_bytes: int,
    backoff_s: float = 0.5,
) -> Path:
    """Complete ``path``, continuing what is there; returns where the piece lies (a file:// URL's file stays its own).

    ``advanced`` hears of every byte, those already on disk too, and of a negative number when some are thrown away.
    Raises SourceUnreachable when the server is silent or says no, ChecksumMismatch for wrong bytes (deleted), DiskFull
    (what was fetched stays; the message tells ``needed_bytes``).
    """
    local = local_path(piece.url)
    if local is not None:
        await _require_sha256(piece, local)
        advanced(_local_size(local))
        return local

    async def stream() -> None:
        if piece.size_bytes is None or size_of(path) > piece.size_bytes:
            _discard(path, advanced)
        if size_of(path) != piece.size_bytes:
            await _stream(piece, path, session=session, advanced=advanced, needed_bytes=needed_bytes)

    resumed = size_of(path) > 0
    advanced(size_of(path))
    while True:
        await _patiently(stream, piece.url, backoff_s=backoff_s, progress=lambda: size_of(path))
        try:
            await _require_sha256(piece, path)
        except ChecksumMismatch:
            _discard(path, advanced)
            if not resumed:
                raise
            # What an earlier run left may be what is wrong: a fresh start, once.
            resumed = False
        else:
            return path


async def _stream(
    piece: Piece, path: Path, *, session: aiohttp.ClientSession, advanced: Callable[[int], None], needed_bytes: int
) -> None:
    """One request for the missing bytes, appended as they come. Raises _Passing when the stream ends too early."""
    start = piece.first_byte + size_of(path)
    missing = None if piece.size_bytes is None else piece.size_bytes - size_of(path)
    headers = {"Range": f"bytes={start}-{'' if missing is None else start + missing - 1}"}
    if not piece.ranged and start == 0:
        headers = {}
    async with session.get(piece.url, headers=headers, middlewares=only_to(piece.url, piece.token)) as response:
        _require_good(response)
        # A server that ignores Range sends everything from byte 0 on: what we have is passed over.
        skip = start - (_content_range(response)[0] if response.status == 206 else 0)
        if skip < 0:
            raise _Passing("it answered with another part than was asked for")
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            wanted = chunk[skip:][:missing]
            skip = max(0, skip - len(chunk))
            append(path, wanted, needed_bytes)
            advanced(len(wanted))
            missing = None if missing is None else missing - len(wanted)
            if missing == 0:
                return
    if missing:
        raise _Passing(f"the stream ended {missing} bytes early")


async def _patiently(
    action: Callable[[], Awaitable[T]],
    url: str,
    *,
    backoff_s: float,
    retries: int = RETRIES,
    progress: Callable[[], int] = lambda: 0,
) -> T:
    """Repeat what fails in passing, with growing pauses. Raises SourceUnreachable after ``retries`` in vain."""
    failures = 0
    while True:
        before = progress()
        try:
            return await action()
        except (aiohttp.ClientError, ConnectionError, TimeoutError, _Passing) as exc:
            failures = 1 if progress() - before >= WORTHWHILE_BYTES else failures + 1
            if failures > retries:
                why = str(exc) or type(exc).__name__
                raise SourceUnreachable(f"{place(url)}: {' '.join(why.split())} ({failures} tries)") from exc
        await asyncio.sleep(min(backoff_s * 2 ** (failures - 1), LONGEST_PAUSE_S))


async def _require_sha256(piece: Piece, path: Path) -> None:
    if piece.sha256 is None:
        return
    try:
        digest = await in_thread(lambda stop: sha256_of(path, stop))
    except OSError as exc:
        raise SourceUnreachable(f"{path} cannot be read ({exc.strerror})") from exc
    if digest != piece.sha256:
        raise ChecksumMismatch(f"{place(piece.url)} is damaged: its sha256 is not the promised one")


def _require_good(response: aiohttp.ClientResponse) -> None:
    if response.status in (200, 206):
        return
    if response.status >= 500 or response.status in (408, 425, 429):
        raise _Passing(f"HTTP status {response.status}")
    raise SourceUnreachable(f"{place(str(response.url))}: HTTP status {response.status}")


def _content_range(response: aiohttp.ClientResponse) -> tuple[int, int | None]:
    """First byte and total size, from a 206 answer."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if found is None:
        raise _Passing("it answered with a part without saying which")
    return int(found[1]), None if found[2] == "*" else int(found[2])


def _discard(path: Path, advanced: Callable[[int], None]) -> None:
    advanced(-size_of(path))
    path.unlink(missing_ok=True)


def local_path(url: str) -> Path | None:
    """The path of a file:// URL, None for any other."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _local_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as exc:
        raise SourceUnreachable(f"{path} cannot be read ({exc.strerror})") from exc


def place(url: str) -> str:
    """File and host of a URL, for messages: what follows its ? may be a secret."""
    parts = urlsplit(url)
    return f"{unquote(parts.path.rpartition('/')[2])} from {parts.hostname or 'this disk'}"
