"""Server-sent events ↔ a reply that grows. Knows no HTTP client: bytes come in, texts and then a reply go out."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from corea.errors import UpstreamGarbage
from corea.models.wire import error_in, excerpt, tokens_of, usage_of, whole_characters
from corea.types import Reply, Token, Usage

_fast_loads: Callable[[bytes], Any] = json.loads
with suppress(ImportError):
    # Five times as fast, which a stream of a thousand chunks feels. Comes with the gateway; nothing else needs it.
    import orjson

    _fast_loads = orjson.loads

DONE = b"[DONE]"


#: An event of a chat completion has a few hundred bytes; one with a whole image in it, a few million.
MAX_EVENT_BYTES = 16 * 1024 * 1024


class EventReader:
    """Cuts a stream of bytes into the data of its events, however the bytes were split on the way.

    Comments, names and ids of events are left out; lines end as the standard allows: LF, CRLF or CR
    (WHATWG HTML, section 9.2.6). Raises :class:`UpstreamGarbage` for an event, or a line, that does not end.
    """

    def __init__(self, model: str = "the endpoint", *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._model = model
        self._most_bytes = max_event_bytes
        #: A line that has not ended. Bytes are added to it in place: their number may be large, and so may the parts'.
        self._rest = bytearray()
        #: The data of an event that has not ended; almost always one line, which is left as it is.
        self._data: bytes | bytearray | None = None
        self._started = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Data of the events that are whole now."""
        if self._rest:
            if not _ends_a_line(chunk) and not self._rest.endswith(b"\r"):
                self._rest += chunk
                self._check(len(self._rest) + len(self._data or b""))
                return []
            chunk = bytes(self._rest + chunk)
            self._rest.clear()
        # A CR at the very end may be half of a CRLF.
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r", 0, len(chunk) - 1)) + 1
        if end < len(chunk):
            self._rest += chunk[end:]
            self._check(len(self._rest))
            chunk = chunk[:end]
        return self._events(chunk)

    def finish(self) -> list[bytes]:
        """What the bytes end with. An event without its blank line counts: some servers save themselves the last."""
        rest, self._rest = bytes(self._rest), bytearray()
        return self._events(rest + b"\n\n")

    def _events(self, lines: bytes) -> list[bytes]:
        if lines and not self._started:
            self._started, lines = True, lines.removeprefix(b"\xef\xbb\xbf")
        events = []
        for line in lines.splitlines():
            if line.startswith(b"data:"):
                self._add(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line and self._data is not None:
                events.append(bytes(self._data))
                self._data = None
        return events

    def _add(self, line: bytes) -> None:
        if self._data is None:
            self._data = line
        else:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += b"\n" + line
        self._check(len(self._data))

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._most_bytes:
            message = f"{self._model}: an event of the stream is larger than {self._most_bytes} bytes; check base_url"
            raise UpstreamGarbage(message)


def _ends_a_line(chunk: bytes) -> bool:
    return b"\n" in chunk or chunk.find(b"\r", 0, len(chunk) - 1) >= 0


class GrowingReply:
    """A reply put together from the chunks of a chat completion, without pydantic on the way."""

    def __init__(self, model: str, *, secret: str | None = None) -> None:
        self._name = model
        self._secret = secret
        self._texts: list[str] = []
        self._tokens: list[Token] | None = None
        self._finish_reason: str | None = None
        self._model = model
        self._usage: Usage | None = None
        self._choices = False
        self.done = False

    def add(self, data: bytes) -> str:
        """The text that this event's data adds. Raises :class:`UpstreamGarbage`, :class:`ContextOverflow`."""
        if self.done:
            return ""
        if data.strip() == DONE:
            self.done = True
            return ""
        payload = self._payload(data)
        if payload.get("error"):
            raise error_in(payload, self._name, secret=self._secret)
        if isinstance(name := payload.get("model"), str) and name:
            self._model = whole_characters(name)
        if (usage := payload.get("usage")) is not None:
            self._usage = usage_of(usage, self._name) or self._usage
        choices = payload.get("choices") or []
        if not isinstance(choices, list):
            raise self._garbage("choices is not a list")
        text = "".join([self._added(choice) for choice in choices])
        if text:
            self._texts.append(text)
        return text

    def reply(self) -> Reply:
        """The whole. Raises :class:`UpstreamGarbage` where the stream ended before the reply did."""
        if not self._choices:
            raise self._garbage("it ended without a choice" if self.done else "it was cut off before the first word")
        if not self.done and self._finish_reason is None:
            raise UpstreamGarbage(f"{self._name}: the stream was cut off in the middle of the answer; try again")
        return Reply(
            text="".join(self._texts),
            finish_reason=self._finish_reason or "unknown",
            model=self._model,
            usage=self._usage,
            tokens=None if self._tokens is None else tuple(self._tokens),
        )

    def _payload(self, data: bytes) -> dict[str, Any]:
        try:
            payload = _loads(data)
        except (ValueError, RecursionError):
            what = excerpt(data.decode(errors="replace"), self._secret)
            # The cause would hold the whole of it.
            raise self._garbage(f"an event is cut or broken JSON: {what}") from None
        if not isinstance(payload, dict):
            raise self._garbage("an event is not an object")
        return payload

    def _added(self, choice: object) -> str:
        if not isinstance(choice, dict):
            raise self._garbage("a choice is not an object")
        # Only one answer was asked for.
        if choice.get("index") not in (0, None):
            return ""
        self._choices = True
        delta, reason = choice.get("delta") or {}, choice.get("finish_reason")
        content = delta.get("content") if isinstance(delta, dict) else 0
        if not isinstance(content, str | None) or not isinstance(reason, str | None):
            raise self._garbage("delta.content or finish_reason is not text")
        if reason:
            self._finish_reason = whole_characters(reason)
        if (logprobs := choice.get("logprobs")) is not None:
            self._tokens = (self._tokens or []) + list(tokens_of(logprobs, self._name))
        return whole_characters(content) if content else ""

    def _garbage(self, problem: str) -> UpstreamGarbage:
        return UpstreamGarbage(f"{self._name}: not a stream of a chat completion: {problem}; check base_url")


def _loads(data: bytes) -> Any:
    try:
        return _fast_loads(data)
    except ValueError:
        # The fast one refuses half a surrogate pair, which some servers send for half an emoji.
        return json.loads(data)
