"""Streams on the wire: however the bytes are split, the same reply; whatever is broken, an error and never a reply."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.errors import ContextOverflow, ModelError, UpstreamGarbage
from corea.models.streams import EventReader, GrowingReply
from corea.types import Reply, Token, Usage
from faults.endpoint import TEXT
from faults.streaming import chunk, event, events_of

CANARY = "sk-canary-0123456789abcdef"
#: Every way to end a line, a comment, a name, an id, data in two lines, two bytes of one character, and no last line.
AWKWARD = (
    b"\xef\xbb\xbf: hello\r\n\r\ndata: one\r\revent: x\nid: 7\ndata:two\ndata:  lines\n\n\n\r\n"
    b"data\r\ndata: \xc3\xa9\r\n\r\nretry: 5\n\ndata: last"
)
AWKWARD_EVENTS = [b"one", b"two\n lines", b"\xc3\xa9", b"last"]


def read(parts: list[bytes]) -> list[bytes]:
    reader = EventReader()
    return [data for part in parts for data in reader.feed(part)] + reader.finish()


def grown(data: list[bytes]) -> Reply:
    growing = GrowingReply("m", secret=CANARY)
    for one in data:
        growing.add(one)
    return growing.reply()


def reply_from(*payloads: Any) -> Reply:
    return grown(read([event(payload) for payload in payloads] + [b"data: [DONE]\n\n"]))


def test_events_are_read_as_the_standard_says() -> None:
    assert read([AWKWARD]) == AWKWARD_EVENTS


def test_any_two_parts_of_the_bytes_are_the_same_events() -> None:
    for at in range(len(AWKWARD) + 1):
        assert read([AWKWARD[:at], AWKWARD[at:]]) == AWKWARD_EVENTS, at


def test_single_bytes_are_the_same_events() -> None:
    assert read([AWKWARD[at : at + 1] for at in range(len(AWKWARD))]) == AWKWARD_EVENTS


@given(st.lists(st.integers(0, len(AWKWARD)), max_size=12))
def test_any_parts_of_the_bytes_are_the_same_events(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(AWKWARD)]
    parts = [AWKWARD[start:end] for start, end in pairwise(places)]
    assert read(parts) == AWKWARD_EVENTS


@given(st.lists(st.sampled_from([b"data:", b" x", b"\n", b"\r", b"\r\n", b":", b"event: e"]), max_size=30), st.data())
def test_any_bytes_at_all_are_the_same_events_however_they_are_split(pieces: list[bytes], data: st.DataObject) -> None:
    together = b"".join(pieces)
    at = data.draw(st.integers(0, len(together)))
    assert read([together[:at], together[at:]]) == read([together])


def test_a_reply_grows_whole() -> None:
    reply = grown(read(events_of()))
    usage = Usage(prompt_tokens=25, cached_prompt_tokens=5, completion_tokens=12, reasoning_tokens=3)
    assert reply == Reply(text=TEXT, finish_reason="stop", model="served-model", usage=usage)


@given(st.integers(0, len(b"".join(events_of("Grüße 🙂\nAnswer: 42")))))
def test_a_stream_that_ends_early_is_garbage_or_whole(at: int) -> None:
    text = "Grüße 🙂\nAnswer: 42"
    sent = b"".join(events_of(text))[:at]
    with suppress(UpstreamGarbage):
        assert grown(read([sent])).text == text


def test_a_stream_cut_anywhere_before_its_last_words_is_garbage() -> None:
    before_the_end = b"".join(events_of()[:-3])
    for at in range(len(before_the_end)):
        with pytest.raises(UpstreamGarbage):
            grown(read([before_the_end[:at]]))


def test_without_done_a_finished_answer_still_counts() -> None:
    assert grown(read(events_of()[:-2])).usage is None


def test_log_probabilities_are_collected() -> None:
    def sampled(token: str) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": -0.5, "top_logprobs": [{"token": "z", "logprob": -1.0}]}]}

    def part(text: str) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"content": text}, "logprobs": sampled(text)}]}

    reply = reply_from(part("a"), part("b"))
    assert reply.tokens == tuple(Token(text=text, logprob=-0.5, top=(("z", -1.0),)) for text in "ab")


def test_other_choices_and_reasoning_are_left_out() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "other"}}]}
    thought = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm", "content": None}}]}
    assert reply_from(chunk("a"), second, thought, chunk("b", finish_reason="stop")).text == "ab"


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    growing = GrowingReply("m")
    assert growing.add(json.dumps(chunk("x\ud83d")).encode()) == "x?"


def test_what_follows_done_is_ignored() -> None:
    assert grown([*read(events_of()), b"garbage"]).text == TEXT


@pytest.mark.parametrize(
    "payload",
    [
        [],
        "text",
        {"choices": 5},
        {"choices": [5]},
        {"choices": [{"index": 0, "delta": {"content": 5}}]},
        {"choices": [{"index": 0, "delta": 5}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": 5}]},
        {"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": {"content": 5}}]},
        {"choices": [], "usage": {"prompt_tokens": -1}},
        {"error": {"message": f"no credit left on {CANARY}"}},
        {"choices": [{"index": 0, "delta": {}}], "error": "overloaded"},
    ],
)
def test_a_chunk_of_the_wrong_shape_is_garbage_in_one_line_without_the_key(payload: object) -> None:
    with pytest.raises(UpstreamGarbage) as raised:
        reply_from(chunk("a"), payload)
    assert str(raised.value).isprintable()
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b"\xff", b"9" * 5000, CANARY.encode()])
def test_an_event_that_is_not_json_is_garbage_without_the_key(data: bytes) -> None:
    with pytest.raises(UpstreamGarbage) as raised:
        grown([data])
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400
    assert CANARY not in str(raised.value)


def test_an_overflow_in_a_stream_is_an_overflow() -> None:
    with pytest.raises(ContextOverflow):
        reply_from({"error": {"type": "exceed_context_size_error", "message": "too many tokens"}})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "content", "index", "usage", "error", "logprobs", "model"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_at_all_raises_anything_but_a_model_error(payload: object) -> None:
    with suppress(ModelError):
        assert isinstance(reply_from(payload), Reply)
