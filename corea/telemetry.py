"""Headers that tell an upstream which trace a call belongs to: put here by whoever traces, sent by models over HTTP.

Knows no OpenTelemetry, and no request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})
_CARRIED: ContextVar[Mapping[str, str]] = ContextVar("corea_carried", default=_NOTHING)


def carried() -> Mapping[str, str]:
    """What a call made now is to carry, e.g. ``traceparent``; nothing where nobody traces."""
    return _CARRIED.get()


@contextmanager
def carrying(headers: Mapping[str, str]) -> Iterator[None]:
    """Calls made inside, in this task and those begun in it, carry these headers."""
    token = _CARRIED.set(headers)
    try:
        yield
    finally:
        _CARRIED.reset(token)
