"""The HTTP client that fetches models: name look-ups that can be abandoned, tokens that stay with their host.

Does not know what is fetched, nor how often it is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

#: Where users name the certificates of a proxy that reads their traffic; pip trusts these too.
CERTIFICATE_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
READ_BUFFER_BYTES = 1 << 20
CONNECTIONS = 12


def open_session() -> aiohttp.ClientSession:
    """A session that honours the environment's proxies, leaves bytes as they are on the wire and has no total timeout.

    It must be opened inside a running event loop and closed by the caller.
    """
    bundles = tuple(os.environ.get(name) for name in CERTIFICATE_VARIABLES)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, resolver=_DaemonResolver(), ssl=_trusting(bundles)),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30),
        headers={"User-Agent": "corea", "Accept-Encoding": "identity"},
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        trust_env=True,
    )


def only_to(url: str, token: str | None) -> tuple[aiohttp.ClientMiddlewareType, ...]:
    """Middleware that sends ``token`` to the origin of ``url``, and to no host that a redirect leads to.

    A header given to the request itself would clash with what the user's .netrc says of the same host.
    """
    if token is None:
        return ()
    home = URL(url).origin()

    async def add_token(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if request.url.origin() == home:
            request.headers["Authorization"] = f"Bearer {token}"
        return await send(request)

    return (add_token,)


@contextlib.asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup that raises its first error as it is: callers tell errors apart by class."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]
        raise first from first.__cause__


@functools.cache
def _trusting(bundles: tuple[str | None, ...]) -> ssl.SSLContext:
    """The system's certificates and these. Kept, because reading them takes a tenth of a second."""
    context = ssl.create_default_context()
    for bundle in bundles:
        if bundle and Path(bundle).is_file():
            with contextlib.suppress(OSError):
                context.load_verify_locations(cafile=bundle)
    return context


class _DaemonResolver(AbstractResolver):
    """Name look-ups in threads that nobody waits for.

    getaddrinfo can't be interrupted, and asyncio.run joins the threads of its own executor: a dead name server would
    hold up the end of the program for half a minute.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def look_up() -> None:
            answer = _addresses(host, port, family)
            # The loop is gone when nobody waited.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, found, answer)

        threading.Thread(target=look_up, daemon=True, name=f"resolve {host}").start()
        return await found

    async def close(self) -> None:
        """Nothing to close."""


def _settle(found: asyncio.Future[list[ResolveResult]], answer: list[ResolveResult] | OSError) -> None:
    if found.done():
        return
    if isinstance(answer, OSError):
        found.set_exception(answer)
    else:
        found.set_result(answer)


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult] | OSError:
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
    except OSError as exc:
        return exc
    except UnicodeError:
        return OSError(f"{host!r} is not a host name")
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=port,
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, address in infos
    ]
