"""The streams that we send, as independent readers read them: whatever was said arrives as it was said.

The readers are OpenAI's own, one by the letter of the standard (below), and our own for upstreams.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.types.chat import ChatCompletionChunk

from corea.gateway.answering import Writer
from corea.gateway.completions import TextWriter
from corea.gateway.errors import ApiError
from corea.gateway.responses import ResponseWriter
from corea.gateway.shapes import KEEP_ALIVE, ChunkWriter, event
from corea.models.streams import EventReader, GrowingReply
from corea.types import Attempt, Confidence, Decision, Message, Reason, Request, Trace, Usage

#: What could be taken for the end of a line, of an event or of the stream.
AWKWARD = (
    'a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\x00\r\n\n\ndata: [DONE]\n\n: x\r\revent: error\n🙂\ufeff\x7f"\\'
)
PIECES = st.lists(st.text(min_size=1), min_size=1, max_size=6)
WRITERS: dict[str, Any] = {
    "chat": lambda: ChunkWriter(id="1", created_s=1.0, model='m"\n', include_usage=True),
    "completions": lambda: TextWriter(id="1", created_s=1.0, model='m"\n', include_usage=True),
    "responses": lambda: ResponseWriter(id="1", created_s=1.0, body={"model": 'm"\n'}),
}


def trace_of(text: str) -> Trace:
    attempt = Attempt(
        tier="large",
        model="m",
        decision=Decision(keep=True, reason=Reason.LAST_TIER),
        confidence=Confidence.unknown("none", "the last tier is not asked"),
        text=text,
        finish_reason="stop",
        usage=Usage(prompt_tokens=1, completion_tokens=1),
        cost_nano_usd=1,
        latency_s=0.1,
    )
    return Trace(
        id="t",
        request=Request(messages=(Message(role="user", content="?"),), id="r"),
        attempts=(attempt,),
        final=0,
        started_at_unix_s=1.0,
        elapsed_s=0.1,
        cost_nano_usd=1,
        baseline_nano_usd=1,
    )


def sent(writer: Writer, pieces: list[str]) -> bytes:
    """A whole stream, with signs of life in between."""
    said = KEEP_ALIVE.join(writer.text(piece) for piece in pieces)
    text = "".join(pieces)
    return KEEP_ALIVE + writer.first() + said + KEEP_ALIVE + writer.last(trace_of(text), corea={"explanation": text})


def by_openai(stream: bytes, cuts: list[int]) -> list[tuple[str | None, str]]:
    parts = [
        stream[start:end] for start, end in pairwise([0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)])
    ]
    return [(one.event, one.data) for one in SSEDecoder().iter_bytes(iter(parts))]


def by_the_standard(stream: bytes) -> list[tuple[str | None, str]]:
    """Lines end in CR, LF or CRLF and in nothing else; an empty one ends the event."""
    events: list[tuple[str | None, str]] = []
    name, data = None, []
    for line in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode().split("\n"):
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif field == "event":
            name = value.removeprefix(" ")
        elif not line and data:
            events.append((name, "\n".join(data)))
            name, data = None, []
    return events


def said_in(events: list[tuple[str | None, str]]) -> str:
    """The text of a stream, in whichever dialect."""
    texts = []
    for _, data in events:
        if data == "[DONE]":
            continue
        payload = json.loads(data)
        if "type" in payload:
            texts.append(payload["delta"] if payload["type"] == "response.output_text.delta" else "")
        for choice in payload.get("choices", []):
            texts.append(choice["text"] if "text" in choice else choice["delta"].get("content") or "")
    return "".join(texts)


@pytest.mark.parametrize("dialect", list(WRITERS))
@given(PIECES, st.lists(st.integers(0, 4000), max_size=8))
@example([AWKWARD, AWKWARD], [])
def test_every_reader_reads_what_was_said(dialect: str, pieces: list[str], cuts: list[int]) -> None:
    stream = sent(WRITERS[dialect](), pieces)
    events = by_the_standard(stream)
    assert by_openai(stream, cuts) == events
    assert said_in(events) == "".join(pieces)
    assert [data for _, data in events].count("[DONE]") == (0 if dialect == "responses" else 1)
    reader = EventReader()
    assert [data.decode() for data in [*reader.feed(stream), *reader.finish()]] == [data for _, data in events]


@given(PIECES)
@example([AWKWARD])
def test_a_stream_of_ours_is_one_that_we_could_relay_and_openai_could_have_sent(pieces: list[str]) -> None:
    events = by_the_standard(sent(WRITERS["chat"](), pieces))
    growing = GrowingReply("m")
    for _, data in events:
        growing.add(data.encode())
        if data != "[DONE]":
            ChatCompletionChunk.model_validate_json(data, strict=True)
    assert growing.reply().text == "".join(pieces)


def test_the_events_of_a_response_are_named_and_numbered_whatever_is_written_first() -> None:
    writer = ResponseWriter(id="1", created_s=1.0, body={"model": "m"})
    text = writer.text("a")
    payloads = [(name, json.loads(data)) for name, data in by_the_standard(writer.first() + text)]
    assert [payload["sequence_number"] for _, payload in payloads] == [0, 1, 2, 3, 4]
    assert all(name == payload["type"] for name, payload in payloads)


def test_an_error_in_a_stream_is_one_event() -> None:
    error = ApiError(AWKWARD, status=502)
    ((_, data),) = by_the_standard(event(error.body))
    assert json.loads(data)["error"]["message"] == AWKWARD
    assert by_openai(event(error.body), [3]) == [(None, data)]
