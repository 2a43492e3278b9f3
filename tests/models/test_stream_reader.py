"""The reader of upstream streams against bytes of every kind: the standard's events, no surprise, bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import CoreaError, UpstreamGarbage
from corea.models.streams import EventReader, GrowingReply
from corea.types import Reply
from faults.streaming import chunk, events_of

#: Each way to end a line, comments, other fields, data in two lines, characters of two, three and four bytes, a space
#: that belongs to the data and one that does not, a colon in the data, and no blank line at the end.
EVERYTHING = (
    b"\xef\xbb\xbf: keep-alive\n\ndata: one\n\n"
    b"event: chunk\r\nid: 7\r\ndata: two\r\ndata: lines\r\n\r\n"
    b"retry: 10\rdata:\xc3\xa9\xe2\x80\xa8\xf0\x9f\x99\x82\r\r"
    b":\ndata:  a: b\n:x\ndata:\n\n\n\r\n\rdatum: no\nDATA: no\n\ndata: [DONE]"
)
EVENTS = [b"one", b"two\nlines", "é\u2028🙂".encode(), b" a: b\n", b"[DONE]"]

_PIECES = st.sampled_from(
    [b"data:", b"data: ", b"x", b"\n", b"\r", b"\r\n", b":", b"event: e", b"\xef\xbb\xbf", b"\xf0\x9f", b"\x00", b"{"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=4) | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def read(parts: list[bytes], **limits: int) -> list[bytes]:
    reader = EventReader("m", **limits)
    return [data for part in parts for data in reader.feed(part)] + reader.finish()


def by_the_standard(stream: bytes) -> list[bytes]:
    """WHATWG HTML, section 9.2.6, a byte at a time; but an event needs no blank line at the end, and a field named
    ``data`` needs its colon."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    lines, line, after_cr = [], bytearray(), False
    for byte in stream:
        if byte == 10 and after_cr:
            after_cr = False
            continue
        after_cr = byte == 13
        if byte in (10, 13):
            lines.append(bytes(line))
            line.clear()
        else:
            line.append(byte)
    events: list[bytes] = []
    data: list[bytes] = []
    for one in [*lines, bytes(line), b""]:
        field, colon, value = one.partition(b":")
        if field == b"data" and colon:
            data.append(value.removeprefix(b" "))
        elif not one and data:
            events.append(b"\n".join(data))
            data.clear()
    return events


def outcome(stream: bytes) -> str:
    """The reply that a stream is read to, or what it complains of."""
    growing = GrowingReply("m")
    try:
        for data in read([stream]):
            growing.add(data)
        return repr(growing.reply())
    except CoreaError as exc:
        complaint = str(exc)
    assert complaint.isprintable()
    assert len(complaint) < 500
    return complaint


def test_the_two_readers_agree_on_everything() -> None:
    assert read([EVERYTHING]) == by_the_standard(EVERYTHING) == EVENTS


def test_every_cut_in_two_is_the_same_events() -> None:
    for at in range(len(EVERYTHING) + 1):
        assert read([EVERYTHING[:at], EVERYTHING[at:]]) == EVENTS, at


def test_every_cut_in_three_is_the_same_events() -> None:
    # Enough of it to hold each end of a line and a character of four bytes.
    part = EVERYTHING[44:110]
    expected = by_the_standard(part)
    for first in range(len(part) + 1):
        for second in range(first, len(part) + 1):
            assert read([part[:first], part[first:second], part[second:]]) == expected, (first, second)


def test_single_bytes_with_nothing_between_them_are_the_same_events() -> None:
    single = [EVERYTHING[at : at + 1] for at in range(len(EVERYTHING))]
    assert read([part for byte in single for part in (byte, b"")]) == EVENTS


@given(st.lists(st.integers(0, len(EVERYTHING)), max_size=20))
def test_any_cuts_are_the_same_events(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(EVERYTHING)]
    assert read([EVERYTHING[start:end] for start, end in pairwise(places)]) == EVENTS


@settings(max_examples=300)
@given(st.lists(st.lists(_PIECES, max_size=5).map(b"".join), max_size=12))
def test_any_bytes_are_read_as_the_standard_says_however_they_come(parts: list[bytes]) -> None:
    assert read(parts) == by_the_standard(b"".join(parts))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_noise_is_read_as_the_standard_says(noise: bytes, at: int) -> None:
    assert read([noise[:at], noise[at:]]) == by_the_standard(noise)


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=30) | _JSON.map(lambda value: json.dumps(value).encode()), max_size=5))
def test_no_stream_is_anything_but_a_reply_or_an_error_of_ours(events: list[bytes]) -> None:
    outcome(b"".join(b"data: " + event + b"\n\n" for event in events))


@settings(max_examples=200)
@given(st.data())
def test_a_good_stream_with_something_odd_in_it_is_a_reply_or_an_error_of_ours(data: st.DataObject) -> None:
    payload: Any = chunk("Six", usage={"prompt_tokens": 1, "completion_tokens": 1})
    payload["choices"][0]["logprobs"] = {"content": [{"token": "Six", "logprob": -0.1, "top_logprobs": []}]}
    place, key = data.draw(st.sampled_from(_places(payload)))
    place[key] = data.draw(_JSON)
    odd = b"data: " + json.dumps(payload).encode() + b"\n\n"
    outcome(b"".join([odd, *events_of()]))


@settings(max_examples=200)
@given(st.data())
def test_a_stream_with_damaged_bytes_is_a_reply_or_an_error_of_ours(data: st.DataObject) -> None:
    sent = bytearray(b"".join(events_of("Grüße 🙂\nAnswer: 42")))
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    outcome(bytes(sent))


# What never ends


@pytest.mark.parametrize("piece", [b"x" * 4096, b"xy", b"data: x\n" * 512, b"data:xy\n", b"data:\r\n" * 512])
def test_an_event_that_never_ends_is_refused_and_takes_little_memory(piece: bytes) -> None:
    reader = EventReader("large", max_event_bytes=100_000)
    tracemalloc.start()
    try:
        with pytest.raises(UpstreamGarbage, match="large: an event of the stream is larger than 100000 bytes"):
            _feed_without_end(reader, piece)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def _feed_without_end(reader: EventReader, piece: bytes) -> None:
    for _ in range(1_000_000):
        reader.feed(piece)


def test_a_stream_of_many_events_and_comments_has_no_end_to_its_length() -> None:
    reader = EventReader(max_event_bytes=1000)
    events = sum(len(reader.feed(b"data: " + b"x" * 500 + b"\n\n: " + b"y" * 500 + b"\n")) for _ in range(200))
    assert events == 200


def test_a_line_in_many_parts_is_put_together_once() -> None:
    reader = EventReader()
    parts = [b"data: ", *[b"x" * 100] * 1000, b"\r", b"\n\n"]
    assert [data for part in parts for data in reader.feed(part)] == [b"x" * 100_000]


def test_an_event_as_large_as_it_may_be_is_read() -> None:
    largest = b"data: " + b"x" * 994
    assert read([largest + b"\n\n"], max_event_bytes=1000) == [b"x" * 994]
    with pytest.raises(UpstreamGarbage):
        read([largest + b"x" * 7 + b"\n\n"], max_event_bytes=1000)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value where something else could stand."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def test_whole_answers_are_read_whole() -> None:
    assert outcome(b"".join(events_of("Grüße 🙂\nAnswer: 42"))).startswith(Reply.__name__)
