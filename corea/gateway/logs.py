"""What the gateway says while it serves: a line for each request, warning and error, as JSON or for a terminal.

Whatever a client wrote stays within its line and its field: neither a line break nor a terminal's control characters
come through. Knows no files and no rotation: lines go to one stream, usually stderr.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING, Any, Literal, TextIO
from urllib.parse import parse_qsl, unquote, urlsplit

from corea.gateway.served import PROBES, Served, served_now

if TYPE_CHECKING:
    from corea.config import Config

Format = Literal["json", "text"]

access = logging.getLogger("corea.access")

_encode = json.JSONEncoder(ensure_ascii=True, check_circular=False, default=str).encode
_INDENT = "\n    | "
#: A caller's key, in whichever words it is.
_KEYS = re.compile(r"(?i)(bearer\s+)[^\s\"']+|\bcorea-[\w-]{43}")
_REPLACEMENT = "[secret]"
#: Of a parameter in a URL.
_NAMES_A_SECRET = re.compile(r"(?i)key|token|secret|password|sig")
#: A dummy key of a letter or two is none.
_SHORTEST = 4


def log_access(served: Served, elapsed_s: float) -> None:
    """One line for a request that is over. Probes that are well get one only at level DEBUG."""
    level = logging.DEBUG if served.route in PROBES and served.status == 200 else logging.INFO
    if not access.isEnabledFor(level):
        return
    told = {"status": served.status, "duration_s": round(elapsed_s, 6), **_outcome(served)}
    access.log(level, "%s %s", served.method, served.route, extra={"told": told})


@contextmanager
def holding() -> Iterator[Iterable[logging.LogRecord]]:
    """What COREA logs inside, to be told by :func:`logging_to`."""
    logger = logging.getLogger("corea")
    before, held = logger.handlers[:], BufferingHandler(sys.maxsize)
    logger.handlers[:] = [held]
    try:
        yield held.buffer
    finally:
        logger.handlers[:] = before


@contextmanager
def logging_to(
    stream: TextIO, format: Format, *, held: Iterable[logging.LogRecord] = (), secrets: Iterable[str] = ()
) -> Iterator[None]:
    """Everything that is logged goes to ``stream``, what was ``held`` first; afterwards, logging is as it was.

    ``secrets`` and callers' keys are replaced where somebody else's exception, or warning, has them in its words.
    """
    handler = logging.StreamHandler(stream)
    handler.addFilter(_of_request)
    scrub = _scrubber(secrets)
    plain = JsonFormatter(scrub) if format == "json" else TextFormatter(scrub, colour=stream.isatty())
    handler.setFormatter(plain)
    levels = {"": logging.WARNING, "corea": logging.INFO, "uvicorn": logging.INFO if format == "json" else None}
    loggers = {logging.getLogger(name): level for name, level in levels.items()}
    before = {logger: (logger.level, logger.handlers[:]) for logger in loggers}
    for logger, level in loggers.items():
        logger.handlers[:] = [handler] if logger is logging.root else []
        logger.setLevel(logging.WARNING if level is None else level)
    logging.captureWarnings(True)
    for record in held:
        handler.handle(record)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, (level, handlers) in before.items():
            logger.setLevel(level)
            logger.handlers[:] = handlers


def secrets_of(config: Config, environ: Mapping[str, str] = os.environ) -> frozenset[str]:
    """What the configuration names, or holds, and nobody may read."""
    named = [getattr(tier, "api_key_env", None) for tier in config.tiers]
    gateway = (config.gateway.api_key_env, config.gateway.dashboard.password_env)
    values = [environ.get(name, "").strip() for name in (*named, *gateway, "COREA_KEYS_SECRET") if name]
    url = urlsplit(config.ledger.url or "")
    # As it is written in the URL, and as it is meant.
    values += [url.password or "", unquote(url.password or "")]
    queries = (urlsplit(getattr(tier, "base_url", None) or "").query for tier in config.tiers)
    pairs = (pair for query in (url.query, *queries) for pair in parse_qsl(query))
    values += [value for name, value in pairs if _NAMES_A_SECRET.search(name)]
    return frozenset(value for value in values if len(value) >= _SHORTEST)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: there is no character that any reader could take for a line's end."""

    def __init__(self, scrub: Callable[[str], str] = str) -> None:
        super().__init__()
        self._scrub = scrub

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record, self._scrub),
            **_told(record),
        }
        if record.exc_info:
            line["exception"] = self._scrub(self.formatException(record.exc_info))
        return _encode(line)


class TextFormatter(logging.Formatter):
    """Time, level, message, and what else is known; an exception's lines are set in."""

    def __init__(self, scrub: Callable[[str], str] = str, *, colour: bool = False) -> None:
        super().__init__()
        self._scrub = scrub
        self._colours = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m"} if colour else {}

    def format(self, record: logging.LogRecord) -> str:
        colour = self._colours.get(record.levelno)
        level = record.levelname.ljust(7)
        level = level if colour is None else f"{colour}{level}\x1b[0m"
        fields = "".join(f"  {name}={_plain(value)}" for name, value in _told(record).items())
        line = f"{_time(record)} {level} {_printable(_message(record, self._scrub))}{fields}"
        if record.exc_info:
            told = self._scrub(self.formatException(record.exc_info)).splitlines()
            line += _INDENT + _INDENT.join(_printable(one) for one in told)
        return line


def _message(record: logging.LogRecord, scrub: Callable[[str], str]) -> str:
    """A line about a request has nothing in it that needs scrubbing, and there are many of them."""
    message = record.getMessage()
    return message if record.name == access.name else scrub(message)


def _scrubber(secrets: Iterable[str]) -> Callable[[str], str]:
    # The longest first: one may be the beginning of another.
    ordered = sorted(set(secrets), key=len, reverse=True)

    def scrub(text: str) -> str:
        for secret in ordered:
            text = text.replace(secret, _REPLACEMENT)
        return _KEYS.sub(lambda match: f"{match[1] or ''}{_REPLACEMENT}", text)

    return scrub


def _of_request(record: logging.LogRecord) -> bool:
    """Each line says which request it is about."""
    record.served = served_now()
    return True


def _told(record: logging.LogRecord) -> dict[str, Any]:
    served: Served | None = getattr(record, "served", None)
    told: Mapping[str, Any] = getattr(record, "told", {})
    if served is None:
        return dict(told)
    line = {"request_id": served.request_id, **told}
    if served.otel_trace_id is not None:
        line |= {"otel_trace_id": served.otel_trace_id, "otel_span_id": served.otel_span_id}
    return line


def _outcome(served: Served) -> dict[str, Any]:
    told: dict[str, Any] = {"method": served.method, "route": served.route}
    if served.key is not None:
        told["key"] = served.key
    if served.error is not None:
        told["error"] = served.error
    trace = served.trace
    if trace is None:
        return told
    cost = trace.cost_nano_usd
    told |= {"trace_id": trace.id, "tier": trace.tier, "deferred": trace.deferred}
    return told | {"cost_usd": None if cost is None else cost / 1e9}


def _time(record: logging.LogRecord) -> str:
    """RFC 3339, UTC, milliseconds."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "-" if value is None else str(value).lower()
    return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else _printable(str(value))


def _printable(text: str) -> str:
    """The text on one line, without what a terminal would act on."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
