"""OpenTelemetry spans: a server span a request, a client span an attempt, one more for each call that only asks how
sure the model is. Names are those of the semantic conventions for HTTP and GenAI, or begin with ``corea.``.

Knows no exporter but OTLP and the console. Never writes a prompt, an answer, an error's words or a header into a span.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from corea import __version__
from corea.confidence.base import Estimate, Estimator, Exchange
from corea.errors import ConfigError, CoreaError
from corea.gateway.attributes import Attributes, known, of_attempt, of_endpoint, of_reply, of_request, of_sampling
from corea.gateway.connection import ClientGone
from corea.gateway.endpoints import Endpoint
from corea.gateway.errors import ApiError
from corea.gateway.served import PROBES, Served, served_now
from corea.models.base import Model
from corea.policy.base import Hedge, Policy
from corea.telemetry import carrying
from corea.tier import AS_CONFIGURED, Hear, Sampling, Tier
from corea.types import Attempt, Prompt, Reply, Request

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_OPERATIONS = {"/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}


def from_environment(endpoints: Mapping[str, Endpoint], environ: Mapping[str, str] = os.environ) -> Spans:
    """Spans that go where the standard ``OTEL_*`` variables say. Raises :class:`ConfigError` for what we cannot do."""
    exporter = _exporter(environ)
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Spans(provider, endpoints)


class Spans:
    """An :class:`Observer` that makes spans. Closing it closes the provider."""

    def __init__(self, provider: TracerProvider, endpoints: Mapping[str, Endpoint]) -> None:
        self._provider = provider
        self._endpoints = endpoints
        self._tracer = provider.get_tracer("corea", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, served: Served, headers: Mapping[str, str]) -> Iterator[None]:
        if served.route in PROBES:
            yield
            return
        method = served.method if served.method in _METHODS else "_OTHER"
        routed = served.route.startswith("/")
        attributes = {"http.request.method": method, "url.scheme": "http", "corea.request_id": served.request_id}
        name = method if method in _METHODS else "HTTP"
        with self._tracer.start_as_current_span(
            f"{name} {served.route}" if routed else name,
            context=self._propagator.extract(headers),
            kind=SpanKind.SERVER,
            attributes={**attributes, "http.route": served.route} if routed else attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            context = span.get_span_context()
            served.otel_trace_id = format_trace_id(context.trace_id)
            served.otel_span_id = format_span_id(context.span_id)
            try:
                yield
            finally:
                _tell(span, of_request(served))
                if served.status >= 500:
                    _fail(span, served.error or str(served.status))

    def over(self, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        return tuple(_Watched(**_fields(tier), spans=self) for tier in tiers)

    def close(self) -> None:
        self._provider.shutdown()

    @contextmanager
    def call(self, tier: Tier, asked: Attributes, *, operation: str = "chat") -> Iterator[Span]:
        """One call of a tier's model. What it raises is told by its kind only: its words may be a user's."""
        endpoint = self._endpoints.get(tier.name, Endpoint())
        attributes = {
            **of_endpoint(endpoint),
            **asked,
            "gen_ai.operation.name": operation,
            "corea.tier": tier.name,
        }
        with self._tracer.start_as_current_span(
            f"{operation} {endpoint.model or tier.name}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            headers: dict[str, str] = {}
            self._propagator.inject(headers)
            try:
                with carrying(headers):
                    yield span
            except BaseException as exc:
                span.set_attribute("gen_ai.response.finish_reasons", ["error"])
                _fail(span, _kind(exc))
                raise


@dataclass(frozen=True, kw_only=True)
class _Watched(Tier):
    """A tier each of whose attempts is a span; so is a call that is handed to its model as it is."""

    spans: Spans

    async def attempt(
        self,
        request: Request,
        *,
        time_left_s: float,
        clock: Callable[[], float],
        sampling: Sampling = AS_CONFIGURED,
        hear: Hear | None = None,
        policies: Sequence[Policy] = (),
        elapsed_s: float = 0.0,
        hedged: Callable[[Hedge], object] | None = None,
    ) -> Attempt:
        streams = hear is not None and self.is_heard_live
        with self.spans.call(self, of_sampling(self, sampling, streams=streams)) as span:
            attempt = await self._plain().attempt(
                request,
                time_left_s=time_left_s,
                clock=clock,
                sampling=sampling,
                hear=hear,
                policies=policies,
                elapsed_s=elapsed_s,
                hedged=hedged,
            )
            _tell(span, of_attempt(attempt))
            if attempt.failure is not None:
                _fail(span, attempt.failure.kind)
        return attempt

    @contextmanager
    def _relayed(self) -> Iterator[None]:
        """A call that only its trace tells of, which is written before the call is over."""
        served = served_now()
        operation = _OPERATIONS.get(served.route if served else "", "chat")
        with self.spans.call(self, {}, operation=operation) as span, super().guarded():
            yield
            if served is not None and served.trace is not None:
                _tell(span, of_attempt(served.trace.attempts[-1]))

    def guarded(self) -> AbstractContextManager[None]:
        return self._relayed()

    def _plain(self) -> Tier:
        """The tier itself, whose calls are those of an attempt."""
        estimator = None if self.estimator is None else _Asking(inner=self.estimator, tier=self)
        return replace(Tier(**_fields(self)), estimator=estimator)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """An estimator each of whose own calls of the model is a span."""

    inner: Estimator
    tier: _Watched

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def ask(self) -> Literal["inline", "followup", "none"]:
        return self.inner.ask

    @property
    def top_logprobs(self) -> int:
        return self.inner.top_logprobs

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        return await self.inner.estimate(exchange, _Asked(inner=model, tier=self.tier), timeout_s=timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A model that is asked how sure it is."""

    inner: Model
    tier: _Watched

    @property
    def name(self) -> str:
        return self.inner.name

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Reply:
        asked: Attributes = {
            "corea.purpose": "confidence",
            "gen_ai.request.max_tokens": prompt.max_tokens,
            "gen_ai.request.temperature": prompt.temperature,
        }
        with self.tier.spans.call(self.tier, asked) as span:
            reply = await self.inner.complete(prompt, timeout_s=timeout_s)
            _tell(span, of_reply(reply.model, reply.finish_reason, reply.usage))
        return reply

    async def aclose(self) -> None:
        await self.inner.aclose()


def _tell(span: Span, attributes: Attributes) -> None:
    span.set_attributes(known(attributes))


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _kind(exc: BaseException) -> str:
    """As the ledger calls it; an upstream's refusal by its status."""
    if isinstance(exc, ApiError):
        return str(exc.status)
    return type(exc).__name__ if isinstance(exc, CoreaError) else "Abandoned" if _is_departure(exc) else "internal"


def _is_departure(exc: BaseException) -> bool:
    return isinstance(exc, asyncio.CancelledError | ClientGone)


def _fields(tier: Tier) -> dict[str, Any]:
    return {field.name: getattr(tier, field.name) for field in fields(Tier)}


def _resource() -> Resource:
    """Called "corea" where the environment has no name for it."""
    named = Resource.create({"service.version": __version__})
    if not str(named.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        return named
    return named.merge(Resource({"service.name": "corea"}))


def _exporter(environ: Mapping[str, str]) -> SpanExporter | None:
    name = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if name == "none":
        return None
    if name == "console":
        return ConsoleSpanExporter()
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if name != "otlp" or protocol not in (None, "", "http/protobuf"):
        raise ConfigError(
            f"spans cannot be sent as {name} {protocol or ''}".rstrip()
            + "; set OTEL_TRACES_EXPORTER to otlp, console or none, and OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf"
        )
    return OTLPSpanExporter()
