"""Any OpenAI-compatible endpoint over HTTP: OpenAI, vLLM, SGLang, Ollama, llama-server.

Knows nothing of prices or confidence. One overall time bound spans all retries, a cancelled call hangs up, and the
key appears in one place only: the request's header.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from corea.errors import (
    ConfigError,
    ModelError,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamTimeout,
)
from corea.models.base import Delta
from corea.models.retrying import Answer, RetryBudget, Sleep, retried
from corea.models.streams import EventReader, GrowingReply
from corea.models.wire import error_of, excerpt, payload_of, reply_of, request_body
from corea.telemetry import carried
from corea.types import Prompt, Reply

Client = TypeVar("Client")

#: What goes wrong before the request is on its way. After that, the server may have worked before it hung up.
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
#: What is said of the body, not of the server, its key or its load.
_CALLERS_FAULT = frozenset({400, 409, 413, 415, 422})
_CONNECT_TIMEOUT_S = 10.0
_ERROR_BYTES = 64 * 1024
_ACCEPT = "application/json, text/event-stream"
#: How long a connection whose stream has said [DONE] may take to end, so that the next call can use it.
_LAST_BYTES_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """An answer that is handed on: ``read`` it whole, or hear the data of its ``events``; once.

    ``may_be_billed_twice``: an earlier try broke off, and may have been billed as well.
    """

    status: int
    content_type: str
    read: Callable[[], Awaitable[bytes]]
    events: Callable[[], AsyncGenerator[bytes, None]]
    may_be_billed_twice: bool = False


class OpenAIModel:
    """A model behind ``POST {base_url}/chat/completions``. Use ``aclose`` to close its connections.

    ``api_key_env`` is only named in messages. ``extra_body`` is laid over every request; None there removes a field,
    and ``max_completion_tokens`` there replaces ``max_tokens``, which OpenAI's reasoning models refuse. Works from
    several event loops: each gets its own connections; call ``aclose`` before one ends, or its sockets wait for the
    garbage collector. Raises :class:`ConfigError` for a URL or key that cannot work.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        model: str,
        api_key: str | None = None,
        api_key_env: str | None = None,
        max_retries: int = 2,
        retry_budget: RetryBudget | None = None,
        max_connections: int = 100,
        max_response_bytes: int = 64 * 1024 * 1024,
        extra_body: Mapping[str, Any] | None = None,
        rng: random.Random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.name = name
        self._model = model
        self._url = _endpoint(base_url)
        self._key = _checked_key(api_key, api_key_env)
        self._key_env = api_key_env
        self._max_retries = max_retries
        self.retry_budget = retry_budget or RetryBudget()
        self._max_connections = max_connections
        self._max_response_bytes = max_response_bytes
        self._extra_body = _checked_body(extra_body or {})
        self._rng = rng
        self._sleep = sleep
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"OpenAIModel({self.name!r}, model={self._model!r}, url={str(self._url.with_query(None))!r})"

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        """Ask for a completion, within ``timeout_s`` for all tries together. Raises only :class:`ModelError`.

        Usage is unknown where an earlier try broke off half-way: it may have been billed too.
        """
        body = self._body(prompt)
        reply, billed_twice = await self._retried(lambda: self._ask(body), timeout_s)
        return replace(reply, usage=None) if billed_twice else reply

    async def stream(self, prompt: Prompt, *, timeout_s: float | None = None) -> AsyncGenerator[Delta, None]:
        """The completion as it is written, within ``timeout_s``. Raises only :class:`ModelError`.

        Tries again only until the first word is here. Closing the generator hangs up. A server that does not know
        ``stream_options`` is asked without by ``extra_body = { stream_options = None }``; then usage is unknown.
        """
        body = self._body(prompt, stream=True)
        clock = asyncio.get_running_loop().time
        started_s = clock()
        (delta, rest), billed_twice = await self._retried(lambda: self._begin(body), timeout_s)
        async with aclosing(rest):
            while delta.reply is None:
                yield delta
                try:
                    async with asyncio.timeout_at(None if timeout_s is None else started_s + timeout_s):
                        delta = await anext(rest)
                except TimeoutError as exc:
                    raise UpstreamTimeout(model=self.name, elapsed_s=clock() - started_s) from exc
            yield Delta(text=delta.text, reply=replace(delta.reply, usage=None)) if billed_twice else delta

    @asynccontextmanager
    async def relay(
        self, path: str, body: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> AsyncGenerator[Relayed, None]:
        """Another call of the API, e.g. ``embeddings``: the body as it is but for the model's name and ``extra_body``.

        A refusal that is the body's fault is an answer like any other; the rest raises :class:`ModelError`, after the
        usual tries. Leaving the block hangs up. ``timeout_s`` bounds the wait for the answer's beginning.
        """
        said = {**body, "model": self._model, **self._extra_body}
        sent = json.dumps({key: value for key, value in said.items() if value is not None}).encode()
        url = self._url.parent.parent.joinpath(*path.split("/")).with_query(self._url.query)
        response, billed_twice = await self._retried(lambda: self._accepted(sent, url), timeout_s)
        whole = False
        try:
            yield Relayed(
                status=response.status,
                content_type=response.content_type,
                read=lambda: self._scrubbed(response),
                events=lambda: self._events(response),
                may_be_billed_twice=billed_twice,
            )
            whole = True
        finally:
            self._let_go(response, whole=whole)

    async def aclose(self) -> None:
        """Close all connections. Those of a loop that runs elsewhere are closed there."""
        sessions, self._sessions = self._sessions, {}
        await close_each(sessions, lambda session: session.close())

    def _body(self, prompt: Prompt, *, stream: bool = False) -> bytes:
        body = {**request_body(prompt, self._model, stream=stream), **self._extra_body}
        if "max_completion_tokens" in body:
            body["max_tokens"] = None
        return json.dumps({key: value for key, value in body.items() if value is not None}).encode()

    async def _retried(self, ask: Callable[[], Awaitable[Answer]], timeout_s: float | None) -> tuple[Answer, bool]:
        return await retried(
            ask,
            model=self.name,
            max_retries=self._max_retries,
            budget=self.retry_budget,
            timeout_s=timeout_s,
            rng=self._rng,
            sleep=self._sleep,
        )

    async def _ask(self, body: bytes) -> Reply:
        response = await self._post(body)
        try:
            return await self._reply(response)
        finally:
            # Hangs up where the body was not read to its end; otherwise the connection is already back in the pool.
            response.close()

    async def _begin(self, body: bytes) -> tuple[Delta, AsyncGenerator[Delta, None]]:
        """The first piece of a streamed reply, and the rest to come."""
        deltas = self._deltas(await self._post(body))
        try:
            return await anext(deltas), deltas
        except BaseException:
            await deltas.aclose()
            raise

    async def _deltas(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Delta, None]:
        growing = GrowingReply(self.name, secret=self._key)
        try:
            if response.status // 100 != 2 or response.content_type != "text/event-stream":
                reply = await self._reply(response)
                yield Delta(text=reply.text, reply=reply)
                return
            async with aclosing(self._events(response)) as events:
                async for data in events:
                    if text := growing.add(data):
                        yield Delta(text=text)
                    if growing.done:
                        break
            yield Delta(reply=growing.reply())
        finally:
            self._let_go(response, whole=growing.done)

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The data of each event. Raises :class:`UpstreamGarbage` for a stream that is cut, or too long."""
        reader, size_bytes = EventReader(self.name), 0
        try:
            async for chunk in response.content.iter_any():
                size_bytes += len(chunk)
                if size_bytes > self._max_response_bytes:
                    raise self._too_large()
                for data in reader.feed(chunk):
                    yield data
        except (aiohttp.ClientError, OSError) as exc:
            raise self._cut_off() from exc
        for data in reader.finish():
            yield data

    def _let_go(self, response: aiohttp.ClientResponse, *, whole: bool) -> None:
        """Hang up; but a stream that has said [DONE] gets a moment to end, and its connection is used again."""
        if not whole or response.connection is None:
            response.close()
            return
        ending = asyncio.ensure_future(_ended(response))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _accepted(self, body: bytes, url: URL) -> aiohttp.ClientResponse:
        """An answer that may be handed on: no fault of ours, and none of the server's."""
        response = await self._post(body, url)
        if response.status // 100 == 2 or response.status in _CALLERS_FAULT:
            return response
        try:
            raise await self._refusal(response)
        finally:
            response.close()

    async def _scrubbed(self, response: aiohttp.ClientResponse) -> bytes:
        body = await self._body_of(response)
        return body.replace(self._key.encode(), b"[key]") if self._key and response.status != 200 else body

    async def _post(self, body: bytes, url: URL | None = None) -> aiohttp.ClientResponse:
        """Send the request and wait for the answer's headers."""
        session = await self._session()
        try:
            return await session.post(url or self._url, data=body, headers=self._headers(), allow_redirects=False)
        except aiohttp.ClientResponseError:
            # Its repr holds the request's headers, and so the key.
            message = f"{self.name}: {self._host} does not speak HTTP; check base_url"
            raise UpstreamGarbage(message) from None
        except (aiohttp.ClientError, OSError) as exc:
            message = (
                f"{self.name}: no answer from {self._host}: {_reason(exc)}; check base_url and that the server is up"
            )
            refused = UpstreamRefused(message)
            refused.may_be_billed = not isinstance(exc, _NEVER_SENT)
            raise refused from exc

    async def _reply(self, response: aiohttp.ClientResponse) -> Reply:
        if not 200 <= response.status < 300:
            raise await self._refusal(response)
        payload = payload_of(await self._body_of(response), self.name, secret=self._key)
        return reply_of(payload, self.name, secret=self._key)

    async def _refusal(self, response: aiohttp.ClientResponse) -> ModelError:
        # A refusal whose text is cut is still that refusal.
        try:
            text = (await _read(response, _ERROR_BYTES)).decode(errors="replace")
        except (aiohttp.ClientError, OSError):
            text = ""
        return error_of(response.status, response.headers, text, self.name, secret=self._key, api_key_env=self._key_env)

    async def _body_of(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            body = await _read(response, self._max_response_bytes)
        except (aiohttp.ClientError, OSError) as exc:
            raise self._cut_off() from exc
        if len(body) > self._max_response_bytes:
            raise self._too_large()
        return body

    def _cut_off(self) -> UpstreamGarbage:
        return UpstreamGarbage(f"{self.name}: {self._host} cut its answer off; try again")

    def _too_large(self) -> UpstreamGarbage:
        return UpstreamGarbage(f"{self.name}: the answer is larger than {self._max_response_bytes} bytes; refused")

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": _ACCEPT, "User-Agent": "corea", **carried()}
        return {**headers, "Authorization": f"Bearer {self._key}"} if self._key else headers

    @property
    def _host(self) -> str:
        return f"{self._url.host}:{self._url.port}"

    async def _session(self) -> aiohttp.ClientSession:
        """This loop's session. Those of loops that have ended meanwhile are closed."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            session = self._sessions[loop] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
                proxy=_proxy_for(self._url),
            )
        for ended in [other for other in self._sessions if other.is_closed()]:
            await self._sessions.pop(ended).close()
        return session


async def close_each(
    clients: Mapping[asyncio.AbstractEventLoop, Client], close: Callable[[Client], Coroutine[Any, Any, None]]
) -> None:
    """Close what each event loop opened: here, unless its loop runs elsewhere; then there."""
    here = asyncio.get_running_loop()
    for loop, client in clients.items():
        if loop is here or loop.is_closed():
            await close(client)
        else:
            asyncio.run_coroutine_threadsafe(close(client), loop)


async def _ended(response: aiohttp.ClientResponse) -> None:
    """Read what follows [DONE]: nothing, or we hang up."""
    with suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(_LAST_BYTES_S):
            await response.content.readany()
    response.close()


async def _read(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The body; or, where it is longer than the limit, somewhat more than the limit of it."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            break
    return bytes(body)


def _proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for this URL; none for this machine, where no proxy could find it."""
    host = url.host or ""
    if host in {"localhost", "::1"} or host.startswith("127.") or proxy_bypass(host):
        return None
    return getproxies().get(url.scheme)


def _endpoint(base_url: str) -> URL:
    try:
        url = URL(base_url)
        port = url.port
    except ValueError as exc:
        raise ConfigError(f"{excerpt(str(exc))}; write it like https://host/v1", field="base_url") from None
    if url.scheme not in ("http", "https") or not url.host or port is None:
        raise ConfigError("is not an http or https URL; write it like https://host/v1", field="base_url")
    if url.user is not None or url.password is not None:
        raise ConfigError("must not hold a user or password; use api_key_env", field="base_url")
    return (url / "chat" / "completions").with_query(url.query)


def _checked_key(api_key: str | None, api_key_env: str | None) -> str | None:
    """The key without the line break that files and shells leave; None for an empty one."""
    key = (api_key or "").strip()
    if not all(character.isprintable() for character in key):
        where = api_key_env or "the API key"
        raise ConfigError(f"{where} holds a line break or control character", field="api_key_env")
    return key or None


def _checked_body(extra_body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(dict(extra_body))
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"cannot be sent as JSON: {excerpt(str(exc))}", field="extra_body") from None
    return dict(extra_body)


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return f"no connection within {_CONNECT_TIMEOUT_S:g} s"
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "the host's name cannot be resolved"
    if isinstance(exc, aiohttp.ClientSSLError):
        return f"the TLS handshake failed ({excerpt(str(exc))})"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return "connection refused" if isinstance(exc.os_error, ConnectionRefusedError) else excerpt(str(exc.os_error))
    if isinstance(exc, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "the connection was closed before an answer"
    return excerpt(str(exc) or type(exc).__name__)
