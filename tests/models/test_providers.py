"""any-llm's real SDK over real HTTP, against a server that misbehaves: our errors come out, without the key."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import sys
import traceback
from typing import Any

import pytest

from corea.errors import (
    ConfigError,
    ContextOverflow,
    ExtraMissing,
    ModelError,
    RateLimited,
    Unauthorized,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamTimeout,
)
from corea.models.base import Model
from corea.models.providers import ProviderModel
from corea.types import Message, Prompt, Reply, Usage
from faults.endpoint import TEXT, FaultyEndpoint, served_from_a_thread

CANARY = "sk-canary-0123456789abcdef"
PROMPT = Prompt(messages=(Message(role="user", content="What is 6 × 7?"),), max_tokens=64, seed=3, top_logprobs=2)


async def no_pause(pause_s: float) -> None:
    """Pauses between tries are not slept."""


def model_of(endpoint: FaultyEndpoint, **options: Any) -> ProviderModel:
    settings = {"provider": "openai", "api_key": CANARY, "api_key_env": "THE_KEY", "rng": random.Random(1), **options}
    return ProviderModel("large", model="asked-model", base_url=endpoint.base_url, sleep=no_pause, **settings)


def run(*faults: str, timeout_s: float = 5.0, **options: Any) -> tuple[Reply | ModelError, FaultyEndpoint]:
    """One call through the SDK to a scripted server."""

    async def main() -> tuple[Reply | ModelError, FaultyEndpoint]:
        async with FaultyEndpoint(*faults) as endpoint:
            model = model_of(endpoint, **options)
            outcome = await outcome_of(model, timeout_s)
            await model.aclose()
        return outcome, endpoint

    return asyncio.run(main())


async def outcome_of(model: ProviderModel, timeout_s: float) -> Reply | ModelError:
    try:
        return await model.complete(PROMPT, timeout_s=timeout_s)
    except ModelError as error:
        return error


async def collect() -> None:
    """What is left over is collected while a loop runs: an open client of the SDK would then make trouble in it."""
    gc.collect()
    await asyncio.sleep(0.01)


def test_it_is_a_model() -> None:
    assert isinstance(model_of(FaultyEndpoint()), Model)


def test_a_completion_comes_through_the_sdk_whole() -> None:
    reply, endpoint = run("ok")
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason, reply.model) == (TEXT, "stop", "served-model")
    assert reply.usage == Usage(prompt_tokens=25, cached_prompt_tokens=5, completion_tokens=12, reasoning_tokens=3)
    assert reply.tokens is not None
    assert reply.tokens[-1].top == (("9", -0.1), ("2", -2.4))
    (request,) = endpoint.requests
    assert request.key == CANARY
    assert (request.body["model"], request.body["seed"], request.body["top_logprobs"]) == ("asked-model", 3, 2)


ERRORS: list[tuple[str, type[ModelError], str]] = [
    ("refuse", UpstreamRefused, "no answer from http://127.0.0.1:"),
    ("reset", UpstreamRefused, "check base_url"),
    ("hang_up", UpstreamRefused, "check base_url"),
    ("hang", UpstreamTimeout, "gave no answer in"),
    ("hang_after_headers", UpstreamTimeout, "gave no answer in"),
    ("drip", UpstreamTimeout, "gave no answer in"),
    ("status_401", Unauthorized, "HTTP 401, the key was not accepted; check THE_KEY"),
    ("status_403", Unauthorized, "HTTP 403"),
    ("status_404", UpstreamStatus, "HTTP 404"),
    ("status_429", RateLimited, "(it asks to wait 1 s): refused for key [key]"),
    ("status_429_date", RateLimited, "(it asks to wait 2 s)"),
    ("status_429_ms", RateLimited, "(it asks to wait 0.25 s)"),
    ("status_500", UpstreamStatus, "HTTP 500: refused for key [key]"),
    ("html_200", UpstreamGarbage, "not a chat completion"),
    ("html_502", UpstreamStatus, 'HTTP 502: an HTML page titled "Bad gateway for [key]"'),
    ("truncated_json", UpstreamGarbage, "not a chat completion"),
    ("cut_body", UpstreamGarbage, "cut its answer off"),
    ("reset_in_body", UpstreamRefused, "check base_url"),
    ("not_http", UpstreamGarbage, "does not speak HTTP"),
    ("garbage", UpstreamGarbage, "not a chat completion"),
    ("empty", UpstreamGarbage, "not a chat completion"),
    ("overflow_llama", ContextOverflow, "too many tokens"),
    ("overflow_openai", ContextOverflow, "Too long."),
    ("overflow_vllm", ContextOverflow, "maximum context length is 4096"),
]


@pytest.mark.parametrize("fault, kind, said", ERRORS)
def test_a_fault_becomes_its_error_in_one_line_without_the_key(
    fault: str, kind: type[ModelError], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    # At DEBUG the SDK's HTTP library logs, byte for byte, whatever a server sends instead of HTTP.
    caplog.set_level(logging.INFO)
    error, _ = run(fault, timeout_s=0.3 if kind is UpstreamTimeout else 5.0, max_retries=0)
    assert isinstance(error, ModelError)
    assert type(error) is kind
    assert said in str(error)
    assert str(error).startswith("large")
    assert str(error).isprintable()
    assert CANARY not in "".join(traceback.format_exception(error))
    assert CANARY not in caplog.text


def test_our_retries_are_the_only_ones() -> None:
    reply, endpoint = run("status_503", "reset", "ok")
    assert isinstance(reply, Reply)
    assert len(endpoint.requests) == 3
    error, endpoint = run("status_503", max_retries=0)
    assert isinstance(error, UpstreamStatus)
    assert len(endpoint.requests) == 1


def test_a_hang_up_closes_the_upstream_connection() -> None:
    async def main() -> None:
        async with FaultyEndpoint("hang") as endpoint:
            model = model_of(endpoint)
            call = asyncio.create_task(model.complete(PROMPT))
            await endpoint.asked()
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            assert await endpoint.disconnected(within_s=1.0)
            await model.aclose()

    asyncio.run(main())


def test_it_works_from_one_event_loop_after_another(caplog: pytest.LogCaptureFixture) -> None:
    with served_from_a_thread("ok") as endpoint:
        model = model_of(endpoint)
        for _ in range(2):
            reply = asyncio.run(model.complete(PROMPT, timeout_s=5.0))
            assert reply.text == TEXT
        asyncio.run(model.aclose())
        asyncio.run(collect())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_another_dialect_answers_the_same_without_what_it_does_not_take(caplog: pytest.LogCaptureFixture) -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "served-claude",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 12},
    }

    async def main() -> Reply:
        async with FaultyEndpoint("ok", payload=message) as endpoint:
            model = model_of(endpoint, provider="anthropic")
            await model.complete(PROMPT, timeout_s=5.0)
            reply = await model.complete(PROMPT, timeout_s=5.0)
            await model.aclose()
        assert [request.path.rpartition("/")[2] for request in endpoint.requests] == ["messages", "messages"]
        return reply

    reply = asyncio.run(main())
    assert (reply.text, reply.finish_reason, reply.model, reply.tokens) == (TEXT, "length", "served-claude", None)
    assert reply.usage == Usage(prompt_tokens=25, completion_tokens=12)
    assert sorted(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING) == [
        "large: anthropic does not take logprobs and top_logprobs; asking without",
        "large: anthropic does not take seed; asking without",
    ]


def test_a_missing_key_names_the_providers_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    error, _ = run("ok", api_key=None)
    assert isinstance(error, Unauthorized)
    assert str(error) == "large: no API key; set OPENAI_API_KEY"


def test_a_key_that_the_sdk_finds_by_itself_is_kept_out_of_messages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    error, endpoint = run("status_401", api_key=None, api_key_env=None)
    assert endpoint.requests[0].key == CANARY
    assert "check OPENAI_API_KEY: refused for key [key]" in str(error)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "any_llm", None)
    with pytest.raises(ExtraMissing, match=r"any-llm-sdk is not installed; run: pip install 'corea\[providers\]'"):
        model_of(FaultyEndpoint())


def test_an_unknown_provider_is_a_config_error_with_a_guess() -> None:
    with pytest.raises(ConfigError, match='any-llm knows no provider "antropic"; did you mean "anthropic"'):
        model_of(FaultyEndpoint(), provider="antropic")


def test_a_provider_without_its_own_package_is_a_config_error() -> None:
    pytest.importorskip("any_llm")
    with pytest.raises(ConfigError, match=r'needs its own package; run: pip install "any-llm-sdk\[watsonx\]"'):
        model_of(FaultyEndpoint(), provider="watsonx")


def test_its_repr_does_not_show_the_key() -> None:
    assert repr(model_of(FaultyEndpoint())) == "ProviderModel('large', provider='openai', model='asked-model')"
