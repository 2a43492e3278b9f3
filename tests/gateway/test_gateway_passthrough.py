"""What the cascade cannot judge goes to a tier as it is, is billed to the nano-dollar, and leaves a trace."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from corea.models.openai import OpenAIModel
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Usage
from faults.endpoint import TEXT, Fault, FaultyEndpoint, completion, sends, served_from_a_thread, status
from faults.streaming import chunk, event, events_of, stream, whole
from gateway.running import Running, serving, small

MESSAGES: Any = [{"role": "user", "content": "What is 6 × 7?"}]
CANARY = "sk-canary-0123456789abcdef"
PRICE = FixedPrice.per_million(10.0, 20.0)
TOOL: Any = {"type": "function", "function": {"name": "multiply", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "multiply", "arguments": '{"a": 6, "b": 7}'}}
COST = PRICE.cost_nano_usd(Usage(prompt_tokens=25, cached_prompt_tokens=5, completion_tokens=12))


@contextmanager
def relaying(*faults: str | Fault, **settings: Any) -> Iterator[tuple[Running, FaultyEndpoint, openai.OpenAI]]:
    """A gateway whose last tier is a server, and a client."""
    with served_from_a_thread(*faults) as endpoint:
        model = OpenAIModel(
            "large",
            base_url=endpoint.base_url,
            model="upstream-model",
            api_key=CANARY,
            max_retries=0,
            extra_body={"top_k": 7},
            rng=random.Random(1),
        )
        with serving(small(), Tier(name="large", model=model, price=PRICE), **settings) as running:
            yield running, endpoint, openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)


def calling() -> dict[str, Any]:
    payload = completion()
    payload["choices"][0] |= {
        "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
        "finish_reason": "tool_calls",
    }
    return payload


def test_tools_go_to_the_last_tier_and_come_back() -> None:
    with relaying(sends(calling())) as (running, endpoint, client):
        raw = client.chat.completions.with_raw_response.create(model="corea", messages=MESSAGES, tools=[TOOL])
        answer = raw.parse()
        calls = answer.choices[0].message.tool_calls
        assert calls is not None
        assert calls[0].id == "call_1"
        assert answer.model == "corea"
        (asked,) = endpoint.requests
        assert (asked.body["model"], asked.body["tools"], asked.body["top_k"]) == ("upstream-model", [TOOL], 7)
        assert asked.key == CANARY
        assert raw.headers["x-corea-route"] == "passthrough:tools"
        assert float(raw.headers["x-corea-cost-usd"]) * 1e9 == pytest.approx(COST)
        trace = running.trace
        assert (trace.tier, trace.cost_nano_usd, trace.metadata["passthrough"]) == ("large", COST, "tools")


@pytest.mark.parametrize(
    "asked,why",
    [
        ({"tools": [TOOL]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
            "content",
        ),
        ({"messages": [*MESSAGES, {"role": "assistant", "tool_calls": [CALL]}, *MESSAGES]}, "tools"),
        ({"messages": [*MESSAGES, {"role": "tool", "tool_call_id": "call_1", "content": "42"}]}, "tools"),
        ({"extra_body": {"top_a": 3}}, "top_a"),
        ({"extra_body": {"x-evil\r\nset-cookie": 3}}, "other"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
    ],
)
def test_each_reason_to_relay_is_named(asked: dict[str, Any], why: str) -> None:
    with relaying("ok") as (_, endpoint, client):
        raw = client.chat.completions.with_raw_response.create(**{"model": "corea", "messages": MESSAGES, **asked})
        assert raw.headers["x-corea-route"] == f"passthrough:{why}"
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "text"}},
        {"n": 1, "logprobs": False, "tool_choice": "none", "store": True, "metadata": {"a": "b"}},
        {"extra_body": {"top_a": None, "modalities": ["text"]}},
    ],
)
def test_what_changes_nothing_is_still_plain_text(asked: dict[str, Any]) -> None:
    with relaying("ok") as (_, endpoint, client):
        raw = client.chat.completions.with_raw_response.create(model="corea", messages=MESSAGES, **asked)
        assert raw.headers["x-corea-route"] == "small"
        assert endpoint.requests == []


def test_a_tier_that_cannot_relay_refuses_by_the_parameters_name() -> None:
    with serving() as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x")
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(model="corea", messages=MESSAGES, tools=[TOOL])
    assert (raised.value.param, raised.value.code) == ("tools", "unsupported_parameter")


def test_relaying_can_be_switched_off() -> None:
    with relaying("ok", passthrough="refuse") as (_, endpoint, client):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="corea", messages=MESSAGES, n=2)
        assert endpoint.requests == []


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_relayed_stream_is_billed_and_shows_its_usage_only_if_asked(include_usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    with relaying(whole()) as (running, endpoint, client):
        chunks = list(
            client.chat.completions.create(model="corea", messages=MESSAGES, tools=[TOOL], stream=True, **options)
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
        assert endpoint.requests[0].body["stream_options"] == {"include_usage": True}
        assert any(chunk.usage for chunk in chunks) is include_usage
        assert {chunk.model for chunk in chunks if chunk.model} == {"corea"}
        last = [chunk for chunk in chunks if chunk.choices][-1]
        assert last.model_extra is not None
        assert last.model_extra["corea"]["cost_usd"] == f"0.{COST:09d}"
        assert (running.trace.cost_nano_usd, running.trace.text) == (COST, TEXT)


@pytest.mark.parametrize(
    "fault,said",
    [
        (stream([event(chunk("Six "))]), "cut off"),
        (stream([event(chunk("Six "))], then="cut"), "cut its answer off"),
        (stream([event(chunk("Six ")), event({"error": {"message": "overloaded"}})]), "overloaded"),
        (stream([event(chunk("Six ")), b"data: {\n\n"]), "no JSON object"),
    ],
)
def test_a_relayed_stream_that_breaks_ends_in_an_error(fault: Fault, said: str) -> None:
    with relaying(fault) as (running, _, client):
        answer = client.chat.completions.create(model="corea", messages=MESSAGES, tools=[TOOL], stream=True)
        assert next(answer).choices[0].delta.content == "Six "
        with pytest.raises(openai.APIError, match=said):
            next(answer)
        assert (running.trace.final, running.trace.cost_nano_usd) == (None, None)


@pytest.mark.parametrize(
    "fault,kind,code",
    [
        (status(400), openai.BadRequestError, "upstream_refused"),
        (status(422), openai.UnprocessableEntityError, "upstream_refused"),
        (
            sends({"object": "error", "message": "bad tool", "code": 400}, 400),
            openai.BadRequestError,
            "upstream_refused",
        ),
        ("html_502", openai.InternalServerError, "upstream_error"),
        ("status_401", openai.InternalServerError, "upstream_unauthorized"),
        ("status_429", openai.RateLimitError, "rate_limit_exceeded"),
        ("hang_up", openai.InternalServerError, "upstream_unreachable"),
        ("truncated_json", openai.InternalServerError, "upstream_garbage"),
        ("error_200", openai.InternalServerError, "upstream_garbage"),
    ],
)
def test_an_upstreams_refusal_has_its_class_and_never_the_key(
    fault: str | Fault, kind: type[openai.APIStatusError], code: str
) -> None:
    with relaying(fault) as (running, _, client):
        with pytest.raises(kind) as raised:
            client.chat.completions.create(model="corea", messages=MESSAGES, tools=[TOOL])
        assert raised.value.code == code
        assert CANARY not in raised.value.response.text
        assert CANARY not in repr(running.trace)
        assert running.trace.attempts[0].failure is not None


def test_embeddings_come_from_a_tier_by_name() -> None:
    answer = {
        "object": "list",
        "model": "upstream-model",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    with relaying(sends(answer)) as (running, endpoint, client):
        got = client.embeddings.create(model="large", input="hello", encoding_format="float")
        assert got.data[0].embedding == [0.1, 0.2]
        assert endpoint.requests[0].path == "/v1/embeddings"
        assert running.trace.tier == "large"
        # Nothing is written, so the prompt's tokens are the whole cost.
        assert running.trace.cost_nano_usd == running.gateway.cascade.tiers[-1].cost_nano_usd(
            Usage(prompt_tokens=3, completion_tokens=0)
        )
        assert running.trace.cost_nano_usd
        for model in ("corea", "small"):
            with pytest.raises(openai.BadRequestError):
                client.embeddings.create(model=model, input="hello")


def test_old_completions_with_odd_parameters_are_relayed() -> None:
    answer = {
        "object": "text_completion",
        "model": "m",
        "choices": [{"index": 0, "text": "42", "finish_reason": "stop"}],
    }
    with relaying(sends(answer)) as (running, endpoint, client):
        assert client.completions.create(model="corea", prompt="6 × 7 =", suffix="!").choices[0].text == "42"
        assert endpoint.requests[0].path == "/v1/completions"
        assert (running.trace.text, running.trace.cost_nano_usd) == ("42", None)


@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["through the cascade", "relayed"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("begun", [[], [event(chunk("Six "))]], ids=["before the first word", "after it"])
def test_a_client_who_leaves_closes_the_upstream(tools: Any, streamed: bool, begun: list[bytes]) -> None:
    body = {"model": "large", "messages": MESSAGES, "tools": tools, "stream": streamed}
    with relaying(stream(begun, then="hang")) as (running, endpoint, _):

        async def main() -> None:
            async with httpx.AsyncClient() as client:
                call = asyncio.create_task(client.post(f"{running.url}/v1/chat/completions", json=body, timeout=5))
                await asyncio.to_thread(_arrived, endpoint)
                await asyncio.sleep(0.05)
                call.cancel()
                await asyncio.wait([call])

        asyncio.run(main())
        assert _within(endpoint, 1.0)
        trace = running.trace
        assert (trace.final, trace.cost_nano_usd) == (None, None)
        assert trace.attempts[0].failure is not None
        assert trace.attempts[0].failure.kind == "Abandoned"


def test_events_split_anywhere_are_relayed_whole() -> None:
    sent = b"".join(events_of())
    with relaying(stream([sent[at : at + 11] for at in range(0, len(sent), 11)])) as (_, _, client):
        chunks = client.chat.completions.create(model="corea", messages=MESSAGES, tools=[TOOL], stream=True)
        assert "".join(piece.choices[0].delta.content or "" for piece in chunks) == TEXT


def _arrived(endpoint: FaultyEndpoint) -> None:
    while not endpoint.requests:
        time.sleep(0.005)


def _within(endpoint: FaultyEndpoint, seconds: float) -> bool:
    ends_s = time.monotonic() + seconds
    while not endpoint.disconnects and time.monotonic() < ends_s:
        time.sleep(0.002)
    return endpoint.disconnects > 0
