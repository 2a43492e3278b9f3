"""The request that is worked on, for what is told of it beside its answer: logs, spans.

Knows neither logging nor OpenTelemetry; an :class:`Observer` that is one is only loaded where it is configured.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from corea.cascade import Cascade
from corea.errors import ExtraMissing
from corea.tier import Tier
from corea.types import Trace

if TYPE_CHECKING:
    from corea.config import Config
    from corea.gateway_config import GatewayConfig

#: Not worth a line in the log, nor a span: asked every few seconds by machines.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


@dataclass(slots=True, kw_only=True)
class Served:
    """What is known of one request so far. ``route`` is the template, never what a client wrote."""

    request_id: str
    method: str
    route: str
    #: Whose key it came with: the key's id.
    key: str | None = None
    status: int = 0
    #: The code of the error it was answered with.
    error: str | None = None
    #: What became of the question, once that is in the ledger.
    trace: Trace | None = None
    #: Seconds until the first word of a stream went out.
    first_token_s: float | None = None
    #: Hexadecimal, where spans are made.
    otel_trace_id: str | None = None
    otel_span_id: str | None = None


_SERVED: ContextVar[Served | None] = ContextVar("corea_served", default=None)


def served_now() -> Served | None:
    """The request that this task works on; None outside of any."""
    return _SERVED.get()


def first_word(elapsed_s: float) -> None:
    """The first word of a stream went out; later ones change nothing."""
    served = _SERVED.get()
    if served is not None and served.first_token_s is None:
        served.first_token_s = elapsed_s


class serving:  # noqa: N801 - a context manager, written as a class because that costs a third
    """Everything inside, in this task and those begun in it, is done for this request."""

    __slots__ = ("_served", "_token")

    def __init__(self, served: Served) -> None:
        self._served = served

    def __enter__(self) -> None:
        self._token = _SERVED.set(self._served)

    def __exit__(self, *exc_info: object) -> None:
        _SERVED.reset(self._token)


class Observer(Protocol):
    """Watches requests from outside: what it does changes no answer."""

    def request(self, served: Served, headers: Mapping[str, str]) -> AbstractContextManager[object]:
        """Surrounds one request; on leaving, ``served`` is complete. ``headers`` have lower-case names."""
        ...

    def over(self, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        """The tiers, every attempt of theirs watched."""
        ...

    def close(self) -> None:
        """Hand over what was seen. May block for some seconds."""
        ...


class Unobserved:
    """Nobody watches."""

    _NOTHING = nullcontext()

    def request(self, served: Served, headers: Mapping[str, str]) -> AbstractContextManager[object]:
        return self._NOTHING

    def over(self, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        return tiers

    def close(self) -> None:
        """Nothing was seen."""


def observer_of(settings: GatewayConfig, config: Config | None = None) -> Observer:
    """As configured; ``config`` says where tiers are. Raises :class:`ExtraMissing`, :class:`ConfigError`."""
    if not settings.otel:
        return Unobserved()
    try:
        from corea.gateway.endpoints import endpoints_of
        from corea.gateway.telemetry import from_environment
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise ExtraMissing(package="opentelemetry", extra="serve,otel") from exc
    return from_environment({} if config is None else endpoints_of(config))


def watched(cascade: Cascade, observer: Observer) -> Cascade:
    """The same cascade, over watched tiers. Closing it stays with the first."""
    like = copy.copy(cascade)
    like.tiers = observer.over(cascade.tiers)
    return like
