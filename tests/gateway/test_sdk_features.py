"""The rest of OpenAI's Python client against the running gateway: tools, structured output, retries, responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from corea.errors import RateLimited, UpstreamGarbage
from corea.models.scripted import ScriptedModel, Written, scripted_reply
from faults.endpoint import TEXT, Fault, FaultyEndpoint, sends, status
from faults.streaming import chunk, event, stream
from gateway.running import UNSURE, Running, large, serving, small
from gateway.upstream_like_openai import ARGUMENTS, EMBEDDING, TOOL, relaying

MESSAGES: Any = [{"role": "user", "content": "What is 6 × 7?"}]
ASKED: Any = {"model": "corea", "messages": MESSAGES}
LIVE = scripted_reply("The answer is 42")


class Solution(BaseModel):
    steps: list[str]
    answer: int


def client(running: Running, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", **{"api_key": "unused", "max_retries": 0, **options})


@pytest.fixture(scope="module")
def relayed() -> Iterator[Running]:
    with relaying() as (running, _):
        yield running


@pytest.fixture(scope="module")
def unsure() -> Iterator[Running]:
    with serving(small(UNSURE), large(LIVE)) as running:
        yield running


def test_structured_output_is_parsed_into_its_model(relayed: Running) -> None:
    answer = client(relayed).chat.completions.parse(**ASKED, response_format=Solution)
    assert answer.choices[0].message.parsed == Solution(steps=["6 × 7"], answer=42)
    assert relayed.trace.metadata["passthrough"] == "response_format"


def test_structured_output_is_parsed_from_a_stream(relayed: Running) -> None:
    with client(relayed).chat.completions.stream(**ASKED, response_format=Solution) as answer:
        assert answer.get_final_completion().choices[0].message.parsed == Solution(steps=["6 × 7"], answer=42)


def test_streamed_tool_calls_are_put_together(relayed: Running) -> None:
    with client(relayed).chat.completions.stream(**ASKED, tools=[TOOL]) as answer:
        kinds = {piece.type for piece in answer}
        message = answer.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == ARGUMENTS
    assert "tool_calls.function.arguments.done" in kinds


def test_the_results_of_tools_go_back_to_the_tier_that_called_them(relayed: Running) -> None:
    asking = client(relayed)
    calling = asking.chat.completions.create(**ASKED, tools=[TOOL]).choices[0].message
    assert calling.tool_calls is not None
    result = {"role": "tool", "tool_call_id": calling.tool_calls[0].id, "content": "42"}
    turns: Any = [*MESSAGES, calling.model_dump(exclude_none=True), result]
    raw = asking.chat.completions.with_raw_response.create(model="corea", messages=turns, tools=[TOOL])
    assert raw.parse().choices[0].message.content == TEXT
    assert raw.headers["x-corea-route"] == "passthrough:tools"


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}], ids=["packed, the client's default", "floats"])
def test_embeddings_come_whichever_way_they_are_packed(relayed: Running, form: Any) -> None:
    answer = client(relayed).embeddings.create(model="large", input=["hello"], **form)
    assert answer.data[0].embedding == EMBEDDING


def test_the_asynchronous_client_does_all_of_it(relayed: Running) -> None:
    async def main() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{relayed.url}/v1", api_key="x", max_retries=0) as asking:
            answers = await asyncio.gather(
                asking.chat.completions.parse(**ASKED, response_format=Solution),
                asking.chat.completions.create(**ASKED, tools=[TOOL]),
                asking.responses.create(model="corea", input="6 × 7?"),
                asking.embeddings.create(model="large", input="hello"),
            )
            return [*answers, [model.id async for model in asking.models.list()]]

    parsed, calling, response, embedded, names = asyncio.run(main())
    assert parsed.choices[0].message.parsed.answer == 42
    assert calling.choices[0].finish_reason == "tool_calls"
    assert response.output_text == "Let me think.\nAnswer: 42"
    assert embedded.data[0].embedding == EMBEDDING
    assert names == ["corea", "small", "large"]


# Responses


def test_the_events_of_a_response_are_numbered_from_none_on(unsure: Running) -> None:
    events = list(client(unsure).responses.create(model="corea", input="6 × 7?", stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    assert [one.type for one in events[:5]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
    ]
    assert events[-1].type == "response.completed"


def test_a_response_that_was_cut_short_is_incomplete() -> None:
    with serving(small(UNSURE), large(scripted_reply("The answer", finish_reason="length"))) as running:
        response = client(running).responses.create(model="corea", input="6 × 7?", max_output_tokens=16)
        assert response.incomplete_details is not None
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        *_, last = client(running).responses.create(model="corea", input="6 × 7?", stream=True)
        assert last.type == "response.incomplete"


@pytest.mark.parametrize(
    "more,param",
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]}, "input"),
        ({"background": True}, "background"),
    ],
)
def test_what_responses_cannot_do_here_is_named(unsure: Running, more: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client(unsure).responses.create(**{"model": "corea", "input": "6 × 7?", **more})
    assert (raised.value.param, raised.value.code) == (param, "unsupported_parameter")


def test_a_streamed_response_that_breaks_is_an_error() -> None:
    broken = Written(reply=LIVE, error=UpstreamGarbage("large: the stream was cut off"))
    with serving(small(UNSURE), large(broken)) as running, pytest.raises(openai.APIError, match="cut off"):
        list(client(running).responses.create(model="corea", input="6 × 7?", stream=True))


# Errors and retries


@pytest.mark.parametrize("ask", ["chat.completions", "completions", "responses"])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_client_comes_back_after_a_429_of_its_own_accord(ask: str, streamed: bool) -> None:
    last = large(RateLimited("large: HTTP 429", status=429), LIVE)
    with serving(small(UNSURE), last) as running:
        asking: Any = client(running, max_retries=1)
        for name in ask.split("."):
            asking = getattr(asking, name)
        question = {"chat.completions": {"messages": MESSAGES}, "completions": {"prompt": "?"}}.get(ask, {"input": "?"})
        answer = asking.create(model="corea", **question, stream=streamed)
        if streamed:
            assert list(answer)
        assert isinstance(last.model, ScriptedModel)
        assert last.model.calls == 2


@pytest.mark.parametrize(
    "fault,kind,requests",
    [
        (status(400), openai.BadRequestError, 1),
        (status(422), openai.UnprocessableEntityError, 1),
        (status(429), openai.RateLimitError, 2),
        (status(503), openai.InternalServerError, 2),
        (sends({"choices": 5, "usage": 5}), openai.InternalServerError, 1),
    ],
    ids=["400", "422", "429", "503", "garbage"],
)
def test_relayed_errors_are_tried_again_only_where_it_helps(
    fault: Fault, kind: type[openai.APIStatusError], requests: int
) -> None:
    with relaying(fault) as (running, endpoint):
        with pytest.raises(kind) as raised:
            client(running, max_retries=1).chat.completions.create(**ASKED, tools=[TOOL])
        assert len(endpoint.requests) == requests
        assert raised.value.request_id == raised.value.response.headers["x-request-id"]


def test_a_body_that_is_too_large_is_refused_and_not_sent_again() -> None:
    with serving(max_body_bytes=2000) as running, pytest.raises(openai.APIStatusError) as raised:
        client(running, max_retries=2).chat.completions.create(**ASKED, user="x" * 3000)
    assert (raised.value.status_code, raised.value.code) == (413, "request_too_large")


# Clients who leave


def test_a_stream_that_is_closed_in_the_middle_closes_the_upstream() -> None:
    with relaying(stream([event(chunk("Six "))], then="hang")) as (running, endpoint):
        answer = client(running).chat.completions.create(model="large", messages=MESSAGES, stream=True)
        assert next(iter(answer)).choices[0].delta.role == "assistant"
        answer.close()
        assert _disconnected(endpoint, within_s=5.0)


def test_a_client_who_waits_no_longer_closes_the_upstream() -> None:
    with relaying("hang") as (running, endpoint):
        with pytest.raises(openai.APITimeoutError):
            client(running, timeout=0.3).chat.completions.create(model="large", messages=MESSAGES)
        assert _disconnected(endpoint, within_s=5.0)


def _disconnected(endpoint: FaultyEndpoint, *, within_s: float) -> bool:
    ends_s = time.monotonic() + within_s
    while not endpoint.disconnects and time.monotonic() < ends_s:
        time.sleep(0.005)
    return endpoint.disconnects > 0
