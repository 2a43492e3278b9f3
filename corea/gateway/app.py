"""The gateway as an ASGI app: routes, and what surrounds each of them (who asks, how many at once, errors, counts).

Knows no dialect by itself: requests are read in ``reading``, answered in ``answering`` and ``passthrough``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from starlette.routing import Route, Router

from corea.cascade import Cascade, Recorder
from corea.errors import CoreaError, InputError
from corea.gateway import completions, responses
from corea.gateway.admission import Admission
from corea.gateway.answering import Asking, answer_streamed, answer_whole
from corea.gateway.auth import Authorizer, Caller, Open
from corea.gateway.budgets import Policed
from corea.gateway.choosing import chosen
from corea.gateway.connection import ClientGone, Connection, Receive, Scope, Send
from corea.gateway.directory import Directory, Target, expected
from corea.gateway.errors import ApiError, api_error, bad_request, internal, unsupported
from corea.gateway.idempotency import HEADER, Idempotency
from corea.gateway.logs import log_access
from corea.gateway.metrics import CONTENT_TYPE, Metrics
from corea.gateway.openapi import document
from corea.gateway.passthrough import relay
from corea.gateway.reading import Body, flag, read_chat, read_include_usage, read_json, read_sampling, text
from corea.gateway.recording import Recording
from corea.gateway.served import Observer, Served, observer_of, serving, watched
from corea.gateway.shapes import ChunkWriter, completion, text_completion
from corea.gateway.upstreams import Upstreams
from corea.gateway_config import GatewayConfig
from corea.ledger.ids import new_trace_id
from corea.tier import AS_CONFIGURED, Sampling
from corea.types import Message

if TYPE_CHECKING:
    from corea.audit.auditor import Auditor

logger = logging.getLogger("corea.gateway")

Handler = Callable[[Connection, Caller, float], Awaitable[None]]

#: Probes cannot carry keys, and learn nothing here. Every other path needs one, where keys are configured.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_LAST_TRACES_S = 5.0
#: What a request may take beyond its waiting and its deadline: the ledger's and the limits' own patience.
_SLACK_S = 30.0
#: What nginx calls it; no client sees it, only the metrics.
_CLIENT_CLOSED_REQUEST = 499


@runtime_checkable
class FeedbackStore(Protocol):
    """Keeps what users say of an answer. Raises :class:`InputError` for a trace that is not there."""

    async def add_feedback(self, trace_id: str, correct: float) -> None: ...


class Pages(Protocol):
    """An ASGI app for people at ``path`` and below, which lets in whom it knows: keys of the API do not count there."""

    @property
    def path(self) -> str: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Gateway:
    """``uvicorn.run(Gateway(cascade))``. Closes the cascade when the server ends."""

    def __init__(
        self,
        cascade: Cascade,
        settings: GatewayConfig | None = None,
        *,
        authorizer: Authorizer | None = None,
        feedback: FeedbackStore | None = None,
        observer: Observer | None = None,
        auditor: Auditor | None = None,
        pages: Pages | None = None,
        clock: Callable[[], float] = time.perf_counter,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``feedback``: by default the ledger, if it keeps any. ``observer``: by default as ``settings`` say.
        ``auditor`` looks at every trace, and its word is the last on every bar.

        Raises :class:`ConfigError` for names that clash.
        """
        self.settings = settings or GatewayConfig()
        self.cascade = cascade
        self.authorizer = authorizer or Open()
        self.admission = Admission(
            max_active=self.settings.max_active,
            max_queued=self.settings.max_queued,
            max_wait_s=self.settings.max_wait_s,
        )
        self.metrics = Metrics(active=lambda: self.admission.active, queued=lambda: self.admission.queued)
        self.metrics.registry.register(Upstreams(cascade.tiers))
        self.metrics.registry.register(Policed(cascade.policies))
        recording: Recorder = Recording(cascade.ledger, self.authorizer, self.metrics)
        self.observer = observer or observer_of(self.settings)
        over = watched(cascade, self.observer)
        self.auditor = auditor
        if auditor is not None:
            # It knows the ledger, and with it the database's library.
            from corea.audit.policy import joined
            from corea.gateway.audit_metrics import Audits

            self.metrics.registry.register(Audits(auditor))
            recording, over.policies = auditor.over(recording), joined(over.policies, auditor.policy)
        self.directory = Directory.of(over, self.settings.profiles, recording)
        self.idempotency = self._idempotency(clock)
        self.draining = False
        self._in_progress = 0
        self._idle = asyncio.Event()
        self._idle.set()
        kept = cascade.ledger if isinstance(cascade.ledger, FeedbackStore) else None
        self._feedback = feedback or kept
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_at_unix_s = wall_clock()
        self.routes = [
            self._route("/v1/chat/completions", "POST", self._chat, works=True),
            self._route("/v1/completions", "POST", self._completions, works=True),
            self._route("/v1/responses", "POST", self._responses, works=True),
            self._route("/v1/embeddings", "POST", self._embeddings, works=True),
            self._route("/v1/models", "GET", self._models),
            self._route("/v1/models/{model:path}", "GET", self._model),
            self._route("/v1/corea/feedback", "POST", self._take_feedback),
            self._route("/healthz", "GET", self._healthz),
            self._route("/readyz", "GET", self._readyz),
            self._route("/metrics", "GET", self._metrics),
            self._route("/openapi.json", "GET", self._openapi),
        ]
        if pages is not None:
            door = _Pages(self, pages)
            self.routes += [Route(pages.path, door), Route(f"{pages.path}/{{page:path}}", door)]
        self._router = Router(self.routes, redirect_slashes=False, default=_Endpoint(self, "unknown", None, _unknown))
        self._router.lifespan_context = self._lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        await self._router(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: object) -> AsyncGenerator[None, None]:
        async with self.cascade:
            if self.auditor is not None:
                await self.auditor.start()
            yield
            # Requests that were cancelled at the end of a drain still have a trace to write.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_TRACES_S):
                    await self._idle.wait()
            if self.auditor is not None:
                await self.auditor.aclose()
            await self.authorizer.aclose()
            await asyncio.to_thread(self.observer.close)

    def _begin(self) -> None:
        self._in_progress += 1
        self._idle.clear()

    def _end(self) -> None:
        self._in_progress -= 1
        if not self._in_progress:
            self._idle.set()

    def _idempotency(self, clock: Callable[[], float]) -> Idempotency | None:
        settings = self.settings
        if not settings.idempotency_s:
            return None
        deadlines = [profile.deadline_s for profile in settings.profiles.values() if profile.deadline_s is not None]
        longest_s = max([self.cascade.deadline_s, *deadlines]) + settings.max_wait_s + _SLACK_S
        return Idempotency(self.cascade.ledger, keep_s=settings.idempotency_s, lease_s=longest_s, clock=clock)

    def _route(self, path: str, method: str, handler: Handler, *, works: bool = False) -> Route:
        return Route(path, _Endpoint(self, path, method, self._in_turn(handler) if works else handler))

    def _in_turn(self, handler: Handler) -> Handler:
        async def handle(connection: Connection, caller: Caller, started_s: float) -> None:
            # Read first: a client that sends slowly must not hold a place.
            body = await connection.read(self.settings.max_body_bytes)

            async def work() -> None:
                waits_since_s = self._clock()
                async with self.admission.turn(connection.watched):
                    self.metrics.waited(self._clock() - waits_since_s)
                    await handler(connection, caller, started_s)

            if self.idempotency is not None and HEADER in connection.headers:
                await self.idempotency.answer(connection, caller, body, work)
            else:
                await work()

        return handle

    async def _chat(self, connection: Connection, caller: Caller, started_s: float) -> None:
        body = await self._body(connection)
        chat = read_chat(body, self.settings)
        target = self.directory.find(chat.model, caller)
        asking = await self._asking(connection, caller, target, chat.messages, chat.sampling, started_s)
        if chat.relay is not None:
            await self._relay(connection, asking, body, "chat/completions", chat.relay, chat.stream, chat.include_usage)
        elif chat.stream:
            writer = ChunkWriter(
                id=connection.request_id,
                created_s=self._wall_clock(),
                model=chat.model,
                include_usage=chat.include_usage,
            )
            await answer_streamed(connection, asking, writer, keep_alive_s=self.settings.keep_alive_s)
        else:
            await answer_whole(
                connection, asking, lambda trace, corea: completion(trace, model=chat.model, corea=corea)
            )

    async def _completions(self, connection: Connection, caller: Caller, started_s: float) -> None:
        body = await self._body(connection)
        model, stream = text(body, "model"), flag(body, "stream")
        messages, why = completions.read_prompt(body, self.settings)
        include_usage = read_include_usage(body, stream)
        target = self.directory.find(model, caller)
        asking = await self._asking(connection, caller, target, messages, read_sampling(body), started_s)
        if why is not None:
            await self._relay(connection, asking, body, "completions", why, stream, include_usage)
        elif stream:
            writer = completions.TextWriter(
                id=connection.request_id, created_s=self._wall_clock(), model=model, include_usage=include_usage
            )
            await answer_streamed(connection, asking, writer, keep_alive_s=self.settings.keep_alive_s)
        else:
            await answer_whole(
                connection, asking, lambda trace, corea: text_completion(trace, model=model, corea=corea)
            )

    async def _responses(self, connection: Connection, caller: Caller, started_s: float) -> None:
        body = await self._body(connection)
        messages = responses.read_input(body, self.settings)
        target = self.directory.find(text(body, "model"), caller)
        sampling = read_sampling(body, length="max_output_tokens")
        asking = await self._asking(connection, caller, target, messages, sampling, started_s)
        id = connection.request_id
        if flag(body, "stream"):
            writer = responses.ResponseWriter(id=id, created_s=self._wall_clock(), body=body)
            await answer_streamed(connection, asking, writer, keep_alive_s=self.settings.keep_alive_s)
        else:
            await answer_whole(
                connection, asking, lambda trace, corea: responses.whole(trace, body=body, id=id, corea=corea)
            )

    async def _embeddings(self, connection: Connection, caller: Caller, started_s: float) -> None:
        body = await self._body(connection)
        target = self.directory.find(text(body, "model"), caller)
        if not target.single:
            raise bad_request("embeddings come from one tier; name it as the model", "model")
        asking = await self._asking(connection, caller, target, (), AS_CONFIGURED, started_s)
        await self._relay(connection, asking, body, "embeddings", "embeddings", False, False)

    async def _relay(
        self,
        connection: Connection,
        asking: Asking,
        body: Body,
        path: str,
        why: str,
        stream: bool,
        include_usage: bool,
    ) -> None:
        if self.settings.passthrough == "refuse" and path != "embeddings":
            raise unsupported(why, f"{why} is not supported: this gateway takes plain text only")
        await relay(
            connection,
            asking,
            body,
            path=path,
            why=why,
            stream=stream,
            include_usage=include_usage,
            keep_alive_s=self.settings.keep_alive_s,
        )

    async def _models(self, connection: Connection, caller: Caller, started_s: float) -> None:
        data = [self._card(name) for name in self.directory.names(caller)]
        await connection.answer_json(200, {"object": "list", "data": data}, {})

    async def _model(self, connection: Connection, caller: Caller, started_s: float) -> None:
        target = self.directory.find(connection.path.removeprefix("/v1/models/"), caller)
        await connection.answer_json(200, self._card(target.name), {})

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": int(self._started_at_unix_s), "owned_by": "corea"}

    async def _take_feedback(self, connection: Connection, caller: Caller, started_s: float) -> None:
        body = await self._body(connection)
        trace_id, correct = text(body, "trace_id"), body.get("correct")
        if not isinstance(correct, bool | int | float) or not 0 <= correct <= 1:
            raise bad_request("correct must be true, false, or a number between 0 (wrong) and 1 (right)", "correct")
        if self._feedback is None:
            raise ApiError("this gateway keeps no feedback; enable its ledger", status=501, code="feedback_disabled")
        try:
            await self._feedback.add_feedback(trace_id, float(correct))
        except InputError as exc:
            raise ApiError(str(exc), status=404, param="trace_id", code="trace_not_found") from None
        await connection.answer_json(200, {"object": "corea.feedback", "trace_id": trace_id, "correct": correct}, {})

    async def _healthz(self, connection: Connection, caller: Caller, started_s: float) -> None:
        await connection.answer_json(200, {"status": "ok"}, {})

    async def _readyz(self, connection: Connection, caller: Caller, started_s: float) -> None:
        status = 503 if self.draining else 200
        await connection.answer_json(status, {"status": "draining" if self.draining else "ready"}, {})

    async def _metrics(self, connection: Connection, caller: Caller, started_s: float) -> None:
        await connection.answer(200, self.metrics.text(), CONTENT_TYPE, {})

    async def _openapi(self, connection: Connection, caller: Caller, started_s: float) -> None:
        await connection.answer_json(200, document(), {})

    async def _body(self, connection: Connection) -> Body:
        return read_json(await connection.read(self.settings.max_body_bytes), self.settings)

    async def _asking(
        self,
        connection: Connection,
        caller: Caller,
        target: Target,
        messages: tuple[Message, ...],
        sampling: Sampling,
        started_s: float,
    ) -> Asking:
        task, policy = chosen(connection.headers, caller, target)
        tokens, nano_usd = expected(target.cascade.tiers, messages, sampling)
        connection.reserved = await self.authorizer.reserve(
            caller, profile=target.name, tokens=tokens, nano_usd=nano_usd
        )
        return Asking(
            target=target,
            messages=messages,
            sampling=sampling,
            metadata={"model": target.name, **connection.reserved},
            task=task,
            policy=policy,
            corea_body=self.settings.corea_body and connection.headers.get("x-corea-body", "").lower() != "off",
            started_s=started_s,
            clock=self._clock,
        )


class _Endpoint:
    """What surrounds every handler."""

    def __init__(
        self, gateway: Gateway, route: str, method: str | None, handler: Handler, *, own_door: bool = False
    ) -> None:
        self.method = method
        self._own_door = own_door
        self._gateway = gateway
        self._route = route
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        started_s = gateway._clock()
        connection = Connection(scope, receive, send, request_id=new_trace_id(gateway._wall_clock))
        served = Served(request_id=connection.request_id, method=connection.method[:20], route=self._route)
        with serving(served), gateway.observer.request(served, connection.headers):
            gateway._begin()
            try:
                await self._answer(connection, served, started_s)
            finally:
                if connection.reserved is not None:
                    await gateway.authorizer.release(connection.reserved)
                gateway._end()
                served.status = connection.status or _CLIENT_CLOSED_REQUEST
                elapsed_s = gateway._clock() - started_s
                gateway.metrics.answered(served, elapsed_s)
                log_access(served, elapsed_s)

    async def _answer(self, connection: Connection, served: Served, started_s: float) -> None:
        try:
            await self._handle(connection, served, started_s)
        except asyncio.CancelledError:
            await self._refuse(connection, served, _shutting_down())
            raise
        except ClientGone:
            connection.status = _CLIENT_CLOSED_REQUEST
        except ApiError as error:
            await self._refuse(connection, served, error)
        except InputError as error:
            # The client's, who is told. The access log has a line of it.
            await self._refuse(connection, served, api_error(error))
        except CoreaError as error:
            logger.warning("%s: %s", connection.request_id, error)
            await self._refuse(connection, served, api_error(error))
        except Exception:
            logger.exception("%s: %s failed", connection.request_id, self._route)
            await self._refuse(connection, served, internal())

    async def _refuse(self, connection: Connection, served: Served, error: ApiError) -> None:
        # An upstream's code is handed on, however long it is.
        served.error = (error.code or error.type)[:100]
        await connection.answer_error(error)

    async def _handle(self, connection: Connection, served: Served, started_s: float) -> None:
        caller = _NOBODY
        if self._route not in OPEN_PATHS and not self._own_door:
            caller = await self._gateway.authorizer.authorize(connection.headers)
            served.key = caller.id
        if self.method is not None and connection.method != self.method:
            message = f"{self._route} takes {self.method}, not {connection.method[:20]}"
            raise ApiError(message, status=405, code="method_not_allowed", allow=self.method)
        await self._handler(connection, caller, started_s)


class _Pages:
    """Logged and counted like every request, but with a door of its own."""

    def __init__(self, gateway: Gateway, pages: Pages) -> None:
        self._gateway = gateway
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def show(connection: Connection, caller: Caller, started_s: float) -> None:
            async def sent(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    connection.status = message["status"]
                    message["headers"].append((b"x-request-id", connection.request_id.encode("latin-1")))
                await send(message)

            await self._pages(scope, receive, sent)

        endpoint = _Endpoint(self._gateway, self._pages.path, None, show, own_door=True)
        await endpoint(scope, receive, send)


_NOBODY = Caller(id="nobody", profiles=frozenset())


def _shutting_down() -> ApiError:
    message = "the gateway is shutting down; try again"
    return ApiError(message, status=503, code="shutting_down", type="server_error", retry=True)


async def _unknown(connection: Connection, caller: Caller, started_s: float) -> None:
    raise ApiError(f"there is no {connection.path[:200]} here; see /openapi.json", status=404, code="not_found")
