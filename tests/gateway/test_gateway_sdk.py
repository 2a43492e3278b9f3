"""OpenAI's own Python client against the running gateway: nothing changes but ``base_url``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from corea.errors import RateLimited, UpstreamGarbage, UpstreamRefused, UpstreamStatus
from corea.gateway.auth import OneKey
from corea.models.scripted import After, Hang, ScriptedModel, Written, scripted_answer, scripted_reply
from corea.types import Prompt
from gateway.running import UNSURE, Running, large, serving, small

MESSAGES: Any = [{"role": "user", "content": "What is 6 × 7?"}]
LIVE = scripted_reply("The answer is 42")


def client(running: Running, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", **{"api_key": "unused", "max_retries": 0, **options})


@pytest.fixture(scope="module")
def plain() -> Iterator[Running]:
    """A small model that keeps everything."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def unsure() -> Iterator[Running]:
    """A small model that keeps nothing, and a large one that is heard live."""
    with serving(small(UNSURE), large(LIVE)) as running:
        yield running


def test_a_kept_answer_comes_with_what_it_cost_and_why(plain: Running) -> None:
    raw = client(plain).chat.completions.with_raw_response.create(model="corea", messages=MESSAGES)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Let me think.\nAnswer: 42"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    headers = raw.headers
    assert (headers["x-corea-route"], headers["x-corea-deferred"]) == ("small", "false")
    assert headers["x-corea-confidence"] == "0.95"
    trace = plain.trace
    assert headers["x-corea-trace-id"] == trace.id
    assert float(headers["x-corea-cost-usd"]) * 1e9 == pytest.approx(trace.cost_nano_usd)
    assert float(headers["x-corea-saved-usd"]) * 1e9 == pytest.approx(trace.saved_nano_usd)
    assert float(headers["x-corea-overhead-ms"]) >= 0
    assert trace.request.id == headers["x-request-id"]
    assert answer.model_extra is not None
    corea = answer.model_extra["corea"]
    assert corea["trace_id"] == trace.id
    assert "reaches the threshold" in corea["explanation"]


def test_the_corea_field_can_be_left_out_by_header(plain: Running) -> None:
    answer = client(plain).chat.completions.create(
        model="corea", messages=MESSAGES, extra_headers={"x-corea-body": "off"}
    )
    assert "corea" not in (answer.model_extra or {})


def test_the_corea_field_can_be_left_out_by_configuration() -> None:
    with serving(corea_body=False) as running:
        answer = client(running).chat.completions.create(model="corea", messages=MESSAGES)
        assert "corea" not in (answer.model_extra or {})


def test_a_deferred_answer_says_so(unsure: Running) -> None:
    raw = client(unsure).chat.completions.with_raw_response.create(model="corea", messages=MESSAGES)
    assert raw.parse().choices[0].message.content == LIVE.text
    assert (raw.headers["x-corea-route"], raw.headers["x-corea-deferred"]) == ("large", "true")
    assert "x-corea-confidence" not in raw.headers
    assert raw.headers["x-corea-saved-usd"].startswith("-")


@pytest.mark.parametrize("route", ["plain", "unsure"])
def test_a_stream_is_the_buffered_answer_in_pieces(route: str, request: pytest.FixtureRequest) -> None:
    running: Running = request.getfixturevalue(route)
    whole = client(running).chat.completions.create(model="corea", messages=MESSAGES)
    chunks = list(
        client(running).chat.completions.create(
            model="corea", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    extra = chunks[-2].model_extra
    assert extra is not None
    assert extra["corea"]["trace_id"] == running.trace.id


def test_a_stream_without_include_usage_has_a_choice_in_every_chunk(unsure: Running) -> None:
    chunks = list(client(unsure).chat.completions.create(model="corea", messages=MESSAGES, stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert len(chunks) == 6


def test_a_kept_stream_has_all_headers_and_a_live_one_its_route(plain: Running, unsure: Running) -> None:
    with client(plain).chat.completions.with_streaming_response.create(
        model="corea", messages=MESSAGES, stream=True
    ) as kept:
        assert (kept.headers["x-corea-route"], kept.headers["x-corea-confidence"]) == ("small", "0.95")
    with client(unsure).chat.completions.with_streaming_response.create(
        model="corea", messages=MESSAGES, stream=True
    ) as live:
        assert (live.headers["x-corea-route"], live.headers["x-corea-deferred"]) == ("large", "true")


def test_the_streaming_helper_of_the_sdk_works(unsure: Running) -> None:
    with client(unsure).chat.completions.stream(model="corea", messages=MESSAGES) as stream:
        assert stream.get_final_completion().choices[0].message.content == LIVE.text


def test_the_asynchronous_client_works(unsure: Running) -> None:
    async def main() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=f"{unsure.url}/v1", api_key="unused", max_retries=0) as asking:
            whole = await asking.chat.completions.create(model="corea", messages=MESSAGES)
            stream = await asking.chat.completions.create(model="corea", messages=MESSAGES, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return whole.choices[0].message.content, "".join(pieces)

    assert asyncio.run(main()) == (LIVE.text, LIVE.text)


def test_sampling_reaches_the_models_and_the_trace(plain: Running) -> None:
    client(plain).chat.completions.create(
        model="corea", messages=MESSAGES, temperature=0.5, max_completion_tokens=9, seed=4, stop="\n\n", top_p=0.9
    )
    model = plain.gateway.cascade.tiers[0].model
    assert isinstance(model, ScriptedModel)
    prompt = model.prompts[-1]
    assert isinstance(prompt, Prompt)
    assert (prompt.max_tokens, prompt.temperature, prompt.seed) == (9, 0.5, 4)
    assert prompt.sampling == {"stop": ("\n\n",), "top_p": 0.9}
    assert plain.trace.metadata["sampling"]["seed"] == 4


def test_a_tier_and_a_profile_may_be_named() -> None:
    with serving(profiles={"strict": {"threshold": 0.99, "task": "maths"}}) as running:
        asking = client(running)
        assert [model.id for model in asking.models.list()] == ["corea", "corea:strict", "small", "large"]
        assert asking.models.retrieve("corea:strict").id == "corea:strict"
        for name, tier in (("corea", "small"), ("corea:strict", "large"), ("large", "large"), ("small", "small")):
            answer = asking.chat.completions.create(model=name, messages=MESSAGES)
            assert (answer.model, running.trace.tier) == (name, tier)
        asking.chat.completions.create(model="corea:strict", messages=MESSAGES)
        assert running.trace.request.task == "maths"


def test_text_parts_and_developer_messages_are_plain_text(plain: Running) -> None:
    parts: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "6 × 7?"}, {"type": "text", "text": "Quick!"}]},
    ]
    client(plain).chat.completions.create(model="corea", messages=parts)
    request = plain.trace.request
    assert [(m.role, m.content) for m in request.messages] == [("system", "Be brief."), ("user", "6 × 7?\nQuick!")]


def test_the_completions_api_works(unsure: Running) -> None:
    asking = client(unsure)
    whole = asking.completions.create(model="corea", prompt="6 × 7?")
    assert whole.choices[0].text == LIVE.text
    pieces = [chunk.choices[0].text for chunk in asking.completions.create(model="corea", prompt="?", stream=True)]
    assert "".join(pieces) == LIVE.text


def test_the_responses_api_works(unsure: Running) -> None:
    asking = client(unsure)
    whole = asking.responses.create(model="corea", input="6 × 7?", instructions="Be brief.")
    assert (whole.output_text, whole.status) == (LIVE.text, "completed")
    assert whole.usage is not None
    assert whole.usage.output_tokens == 4
    assert [message.role for message in unsure.trace.request.messages] == ["system", "user"]
    turns: Any = [{"role": "user", "content": [{"type": "input_text", "text": "6 × 7?"}]}]
    with asking.responses.stream(model="corea", input=turns) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert "".join(pieces) == stream.get_final_response().output_text == LIVE.text


def test_feedback_is_kept(plain: Running) -> None:
    answer = client(plain).chat.completions.create(model="corea", messages=MESSAGES)
    assert answer.model_extra is not None
    trace_id = answer.model_extra["corea"]["trace_id"]
    said = client(plain).post("/corea/feedback", body={"trace_id": trace_id, "correct": True}, cast_to=object)
    assert said == {"object": "corea.feedback", "trace_id": trace_id, "correct": True}
    assert plain.ledger.feedback == [(trace_id, 1.0)]
    with pytest.raises(openai.NotFoundError):
        client(plain).post("/corea/feedback", body={"trace_id": "nope", "correct": True}, cast_to=object)


# Errors, as the SDK's classes


def test_an_unknown_model_is_not_found(plain: Running) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client(plain).chat.completions.create(model="gpt-4", messages=MESSAGES)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert "corea" in str(raised.value)


def test_a_wrong_key_is_an_authentication_error() -> None:
    with serving(authorizer=OneKey("sk-right")) as running:
        for key in ("sk-wrong", "sk-right "[:-2]):
            with pytest.raises(openai.AuthenticationError) as raised:
                client(running, api_key=key).chat.completions.create(model="corea", messages=MESSAGES)
            assert raised.value.code == "invalid_api_key"
        assert client(running, api_key="sk-right").chat.completions.create(model="corea", messages=MESSAGES)
        assert running.trace.metadata["key"] == "key"


@pytest.mark.parametrize(
    "failure,kind,code",
    [
        (RateLimited("large: HTTP 429", status=429), openai.RateLimitError, "rate_limit_exceeded"),
        (UpstreamRefused("large: no connection"), openai.InternalServerError, "upstream_unreachable"),
        (UpstreamGarbage("large: HTML"), openai.InternalServerError, "upstream_garbage"),
        (Hang(), openai.InternalServerError, "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_word_is_an_error_of_the_right_class(
    failure: Any, kind: type[openai.APIStatusError], code: str, stream: bool
) -> None:
    with serving(small(UNSURE), large(failure), cascade={"deadline_s": 0.3}) as running:
        with pytest.raises(kind) as raised:
            client(running).chat.completions.create(model="corea", messages=MESSAGES, stream=stream)
        assert raised.value.code == code
        assert running.trace.final is None


def test_the_sdk_tries_again_only_where_it_helps() -> None:
    for failure, calls in ((UpstreamStatus("large: HTTP 500", status=500), 2), (UpstreamGarbage("large: HTML"), 1)):
        last = large(failure)
        with serving(small(UNSURE), last) as running, pytest.raises(openai.InternalServerError):
            client(running, max_retries=1).chat.completions.create(model="corea", messages=MESSAGES)
        assert isinstance(last.model, ScriptedModel)
        assert last.model.calls == calls


def test_a_stream_that_breaks_ends_in_an_error_never_silently() -> None:
    broken = Written(reply=LIVE, error=UpstreamGarbage("large: the stream was cut off"))
    with serving(small(UNSURE), large(broken)) as running:
        stream = client(running).chat.completions.create(model="corea", messages=MESSAGES, stream=True)
        words = 1 + len(LIVE.text.split())
        heard = [next(stream).choices[0].delta.content or "" for _ in range(words)]
        with pytest.raises(openai.APIError, match="cut off"):
            next(stream)
        assert "".join(heard) == LIVE.text
        assert running.trace.attempts[-1].text == LIVE.text


# Clients who leave, and silence


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_who_leaves_stops_the_model_and_leaves_a_trace(stream: bool) -> None:
    last = large(Written(reply=LIVE, error=Hang()))
    with serving(small(UNSURE), last) as running:

        async def main() -> None:
            async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0) as asking:
                call = asyncio.create_task(_drained(asking, stream))
                await asyncio.sleep(0.3)
                call.cancel()
                await asyncio.wait([call])

        asyncio.run(main())
        trace = running.trace
        assert (trace.final, trace.cost_nano_usd) == (None, None)
        assert trace.attempts[-1].failure is not None
        assert trace.attempts[-1].failure.kind == "Abandoned"
        assert isinstance(last.model, ScriptedModel)
        assert last.model.streams == 0


async def _drained(asking: openai.AsyncOpenAI, stream: bool) -> None:
    answer: Any = await asking.chat.completions.create(model="corea", messages=MESSAGES, stream=stream)
    async for _ in answer:
        pass


def test_a_silent_stream_says_that_it_is_alive() -> None:
    import httpx

    slow = After(delay_s=0.35, outcome=scripted_answer("42", digit=9))
    with (
        serving(small(slow), large(), keep_alive_s=0.1) as running,
        httpx.stream(
            "POST",
            f"{running.url}/v1/chat/completions",
            json={"model": "corea", "messages": MESSAGES, "stream": True},
            timeout=5,
        ) as answer,
    ):
        text = answer.read().decode()
    assert text.startswith(": keep-alive\n\n")
    assert 2 <= text.count(": keep-alive") <= 4
    assert text.endswith("data: [DONE]\n\n")


def test_a_failure_after_a_sign_of_life_is_an_event() -> None:
    slow = After(delay_s=0.2, outcome=UpstreamGarbage("large: HTML"))
    with serving(small(UNSURE), large(slow), keep_alive_s=0.05) as running, pytest.raises(openai.APIError) as raised:
        list(client(running).chat.completions.create(model="corea", messages=MESSAGES, stream=True))
    assert "HTML" in str(raised.value)


def test_too_many_requests_at_once_are_told_to_come_back() -> None:
    slow = After(delay_s=0.5, outcome=scripted_answer("42", digit=9))
    with serving(small(slow), large(), max_active=1, max_queued=1) as running:

        async def main() -> list[Any]:
            async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0) as asking:
                calls = [asking.chat.completions.create(model="corea", messages=MESSAGES) for _ in range(4)]
                return await asyncio.gather(*calls, return_exceptions=True)

        started_s = time.perf_counter()
        outcomes = asyncio.run(main())
        busy = [outcome for outcome in outcomes if isinstance(outcome, openai.RateLimitError)]
        assert len(busy) == 2
        assert {error.code for error in busy} == {"gateway_busy"}
        assert busy[0].response.headers["retry-after"] == "1"
        assert busy[0].response.headers["x-should-retry"] == "true"
        assert time.perf_counter() - started_s < 5
