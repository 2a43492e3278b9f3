"""Requests and upstream answers of every kind: never a fault of ours, always OpenAI's error shape."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.gateway.app import Gateway
from corea.models.openai import OpenAIModel
from faults.endpoint import Received, completion, sends
from faults.streaming import chunk, event, stream
from gateway.running import Running
from gateway.upstream_like_openai import CALL, TOOL, relaying, schema

MESSAGES: Any = [{"role": "user", "content": "What is 6 × 7?"}]
PLAIN: dict[str, Any] = {"model": "corea", "messages": MESSAGES}
#: By path, requests that have everything in them that we read.
FULL: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "corea",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "42"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
        ],
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": schema(),
        "n": 1,
        "stop": ["x"],
        "seed": 1,
        "temperature": 0.5,
        "max_tokens": 5,
        "user": "ann",
        "stream": True,
        "stream_options": {"include_usage": True},
        "metadata": {"a": "b"},
        "logit_bias": {"5": 1},
    },
    "/v1/completions": {
        **{"model": "corea", "prompt": ["6 × 7 ="], "suffix": None, "best_of": 1, "n": 1, "logprobs": None},
        **{"stream": True, "stream_options": {"include_usage": True}, "stop": "x", "echo": False},
    },
    "/v1/responses": {
        "model": "corea",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "6 × 7?"}]}],
        "instructions": "Be brief.",
        "text": {"format": {"type": "text"}},
        "max_output_tokens": 5,
        "metadata": {},
        "stream": False,
    },
    "/v1/embeddings": {"model": "large", "input": ["hello"], "encoding_format": "float"},
    "/v1/corea/feedback": {"trace_id": "t", "correct": True},
}
_ODD = st.one_of(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    st.sampled_from(
        [1e308, -1, 0, 2**53, -(2**63), 2**64 - 1, "", " ", "\x00", "x" * 300, [], {}, [[]], [None], {"": None}]
    ),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
).map(copy.deepcopy)  # Of its own for each place: what is put into itself has no end.


def ask(gateway: Gateway, path: str, **request: Any) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=gateway)
        async with _here(gateway), httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post(path, **request)

    return asyncio.run(main())


@asynccontextmanager
async def _here(gateway: Gateway) -> AsyncGenerator[None, None]:
    """Connections of this loop end with it."""
    try:
        yield
    finally:
        for tier in gateway.cascade.tiers:
            if isinstance(tier.model, OpenAIModel):
                session = tier.model._sessions.pop(asyncio.get_running_loop(), None)
                if session is not None:
                    await session.close()


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer, once it is sure that a failure has OpenAI's shape and tells nothing of ours."""
    assert answer.status_code != 500, answer.text
    if answer.status_code < 400:
        return answer
    assert answer.headers["x-should-retry"] in ("true", "false")
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert isinstance(error["param"], str | None)
    assert isinstance(error["code"], str | None)
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text
    return answer


@pytest.fixture(scope="module")
def relayed() -> Iterator[Running]:
    with relaying(max_tools=8) as (running, _):
        yield running


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FULL)), st.data())
def test_a_request_with_something_odd_in_it_is_answered_or_refused(
    relayed: Running, path: str, data: st.DataObject
) -> None:
    body = copy.deepcopy(FULL[path])
    for _ in range(data.draw(st.integers(1, 3))):
        place, key = data.draw(st.sampled_from(_places(body)))
        if data.draw(st.booleans()) or isinstance(place, list):
            place[key] = data.draw(_ODD)
        else:
            del place[key]
        if not body:
            break
    checked(ask(relayed.gateway, path, json=body))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FULL)), st.data())
def test_a_request_with_damaged_bytes_is_answered_or_refused(relayed: Running, path: str, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(FULL[path]).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    checked(ask(relayed.gateway, path, content=bytes(raw)))


@pytest.mark.parametrize("path", sorted(FULL))
@pytest.mark.parametrize(
    "raw,code",
    [
        (b'{"model": "corea", "x": ' + b"[" * 50 + b"]" * 50 + b"}", "too_deep"),
        (b'{"model": ' + b'{"a":' * 900 + b"1" + b"}" * 901, "too_deep"),
        (b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": 1e999}', "invalid_json"),
        (b'{"model": "\\ud83d"}', "invalid_json"),
        (b'{"model": "\xed\xa0\xbd"}', "invalid_json"),
        (b'{"model": "corea"}{"model": "large"}', "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b"\x00", "invalid_json"),
    ],
    ids=["deep", "deeper", "deepest", "NaN", "infinite", "half a pair", "half in UTF-8", "two", "BOM", "NUL"],
)
def test_a_body_that_no_client_sends_is_refused(relayed: Running, path: str, raw: bytes, code: str) -> None:
    answer = checked(ask(relayed.gateway, path, content=raw))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_of_two_values_with_one_name_the_last_counts_everywhere() -> None:
    with relaying() as (running, endpoint):
        raw = b'{"model": "small", "model": "large", "n": 9999, "n": 2, "messages": [{"role": "user", "content": "?"}]}'
        assert checked(ask(running.gateway, "/v1/chat/completions", content=raw)).status_code == 200
        assert (running.trace.tier, endpoint.requests[0].body["n"]) == ("large", 2)


@pytest.mark.parametrize(
    "path,body,param",
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "n": 17}, "n"),
        ("/v1/completions", {"prompt": "?", "n": 17}, "n"),
        ("/v1/completions", {"prompt": "?", "n": "x"}, "n"),
        ("/v1/completions", {"prompt": "?", "best_of": 10**6}, "best_of"),
        ("/v1/completions", {"prompt": ["?"] * 3000}, "prompt"),
        ("/v1/completions", {"prompt": " "}, "prompt"),
        ("/v1/completions", {"prompt": "?", "stream": True, "stream_options": 5}, "stream_options"),
        ("/v1/completions", {"prompt": "?", "stream_options": {"include_usage": True}}, "stream_options"),
        ("/v1/responses", {"input": " "}, "input"),
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1.5}, "max_tokens"),
    ],
)
def test_every_path_keeps_to_the_same_limits(relayed: Running, path: str, body: dict[str, Any], param: str) -> None:
    answer = checked(ask(relayed.gateway, path, json={"model": "corea", **body}))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_whole_number_may_be_written_with_a_point(relayed: Running) -> None:
    answer = ask(relayed.gateway, "/v1/chat/completions", json={**PLAIN, "max_tokens": 9.0, "seed": 4.0})
    assert checked(answer).status_code == 200
    assert relayed.trace.metadata["sampling"] == {"max_tokens": 9, "seed": 4}


def test_asking_for_probabilities_of_no_alternatives_is_still_asking_for_them(relayed: Running) -> None:
    answer = ask(relayed.gateway, "/v1/completions", json={"model": "corea", "prompt": "?", "logprobs": 0})
    assert checked(answer).headers["x-corea-route"] == "passthrough:logprobs"


# What comes back from upstream


@dataclass
class Echo:
    """A gateway whose upstream says what it is told to."""

    running: Running
    says: Any = None


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    async def send(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        answer = stream([event(found.says)]) if received.body.get("stream") else sends(found.says)
        return await answer(request, received)

    with relaying(send) as (running, _):
        found = Echo(running)
        yield found


@settings(max_examples=100, deadline=None)
@given(st.data(), st.booleans())
def test_a_relayed_answer_with_something_odd_in_it_is_handed_on_or_an_error(
    echo: Echo, data: st.DataObject, streamed: bool
) -> None:
    payload = chunk("Six", finish_reason="stop") if streamed else completion()
    for _ in range(data.draw(st.integers(1, 2))):
        place, key = data.draw(st.sampled_from(_places(payload)))
        place[key] = data.draw(_ODD)
    echo.says = payload
    checked(ask(echo.running.gateway, "/v1/chat/completions", json={**PLAIN, "n": 2, "stream": streamed}))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 500 + b"]" * 500,
        b'{"choices": [{"message": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}]}",
        b'{"object": "list", "data": []}',
        b'{"choices": []}',
        b'{"choices": 5}',
        b'{"choices": [{"message": {"content": "x"}}], "x": NaN}',
        b"",
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_relayed_answer_that_is_none_is_garbage(raw: bytes, streamed: bool) -> None:
    async def send(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        return web.Response(body=raw, content_type="application/json")

    with relaying(send) as (running, _):
        answer = checked(ask(running.gateway, "/v1/chat/completions", json={**PLAIN, "n": 2, "stream": streamed}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_garbage")
        assert running.trace.attempts[0].failure is not None


@pytest.mark.parametrize("streamed", [False, True])
def test_whatever_upstream_calls_its_success_it_is_one(streamed: bool) -> None:
    for code, expected in ((201, 200), (202, 200), (204, 502)):
        with relaying(sends(completion(), code)) as (running, _):
            asked = {**PLAIN, "n": 2, "stream": streamed}
            assert checked(ask(running.gateway, "/v1/chat/completions", json=asked)).status_code == expected


def test_half_an_emoji_from_upstream_becomes_a_question_mark() -> None:
    async def send(request: web.BaseRequest, received: Received) -> web.StreamResponse:
        return web.Response(body=json.dumps(completion("x\ud83d")).encode(), content_type="application/json")

    for fault in (send, stream([event(chunk("x\ud83d")), event(chunk(finish_reason="stop"))])):
        with relaying(fault) as (running, _):
            streamed = fault is not send
            for more in ({"n": 2}, {"model": "large"}):
                asked = {**PLAIN, **more, "stream": streamed}
                answer = checked(ask(running.gateway, "/v1/chat/completions", json=asked))
                assert answer.status_code == 200
                assert '"content":"x?"' in answer.text


@pytest.mark.parametrize("include_usage", [False, True])
def test_an_upstream_that_does_not_stream_is_heard_as_a_stream(include_usage: bool) -> None:
    payload = completion()
    payload["choices"][0] |= {"message": {"role": "assistant", "content": None, "tool_calls": [CALL]}}
    with relaying(sends(payload)) as (running, _):
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
        options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
        with client.chat.completions.stream(model="corea", messages=MESSAGES, tools=[TOOL], **options) as answer:
            final = answer.get_final_completion()
        (call,) = final.choices[0].message.tool_calls or []
        assert call.function.arguments == CALL["function"]["arguments"]
        assert bool(final.usage) is include_usage


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value where something else could stand."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *_places(value[key])]]
