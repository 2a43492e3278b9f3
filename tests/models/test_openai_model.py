"""The HTTP model against a server that misbehaves: the right error, one line, no key, no wait longer than allowed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import socket
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Any

import pytest

from corea.errors import (
    ConfigError,
    ContextOverflow,
    ModelError,
    RateLimited,
    Unauthorized,
    UpstreamGarbage,
    UpstreamRefused,
    UpstreamStatus,
    UpstreamTimeout,
)
from corea.models.base import Model
from corea.models.openai import OpenAIModel
from corea.models.retrying import pause_before_retry
from corea.types import Message, Prompt, Reply, Usage
from faults.endpoint import TEXT, Fault, FaultyEndpoint, served_from_a_thread, status

CANARY = "sk-canary-0123456789abcdef"
PROMPT = Prompt(messages=(Message(role="user", content="What is 6 × 7?"),), max_tokens=64, top_logprobs=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one call came to."""

    outcome: Reply | ModelError
    endpoint: FaultyEndpoint
    pauses_s: list[float]
    elapsed_s: float

    @property
    def reply(self) -> Reply:
        assert isinstance(self.outcome, Reply), self.outcome
        return self.outcome

    @property
    def error(self) -> ModelError:
        assert isinstance(self.outcome, ModelError), self.outcome
        return self.outcome


class Calm(random.Random):
    """Jitter that never waits."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


def model_of(endpoint: FaultyEndpoint, **options: Any) -> OpenAIModel:
    settings = {"api_key": CANARY, "api_key_env": "THE_KEY", "rng": random.Random(1), **options}
    return OpenAIModel("large", base_url=endpoint.base_url, model="asked-model", **settings)


def run(*faults: str | Fault, timeout_s: float | None = 5.0, **options: Any) -> Run:
    """One call against a scripted server. Pauses between tries are noted, not slept."""
    pauses_s: list[float] = []

    async def note(pause_s: float) -> None:
        pauses_s.append(pause_s)

    async def main() -> Run:
        async with FaultyEndpoint(*faults) as endpoint:
            model = model_of(endpoint, **{"sleep": note, **options})
            started_s = time.perf_counter()
            outcome = await outcome_of(model, timeout_s)
            elapsed_s = time.perf_counter() - started_s
            await model.aclose()
        return Run(outcome=outcome, endpoint=endpoint, pauses_s=pauses_s, elapsed_s=elapsed_s)

    return asyncio.run(main())


async def outcome_of(model: OpenAIModel, timeout_s: float | None) -> Reply | ModelError:
    try:
        return await model.complete(PROMPT, timeout_s=timeout_s)
    except ModelError as error:
        return error


def test_it_is_a_model() -> None:
    assert isinstance(model_of(FaultyEndpoint()), Model)


def test_a_completion_is_read_whole() -> None:
    reply = run("ok").reply
    assert (reply.text, reply.finish_reason, reply.model) == (TEXT, "stop", "served-model")
    assert reply.usage == Usage(prompt_tokens=25, cached_prompt_tokens=5, completion_tokens=12, reasoning_tokens=3)
    assert reply.tokens is not None
    assert reply.tokens[-1].top == (("9", -0.1), ("2", -2.4))


def test_the_request_goes_to_chat_completions_with_the_key() -> None:
    (request,) = run("ok").endpoint.requests
    assert (request.path, request.key) == ("/v1/chat/completions", CANARY)
    assert (request.body["model"], request.body["max_tokens"]) == ("asked-model", 64)
    assert "stream" not in request.body


def test_without_a_key_no_authorization_is_sent() -> None:
    (request,) = run("ok", api_key=None).endpoint.requests
    assert "Authorization" not in request.headers


def test_a_keys_line_break_is_taken_off() -> None:
    (request,) = run("ok", api_key=f"{CANARY}\n").endpoint.requests
    assert request.key == CANARY


def test_extra_body_adds_replaces_and_removes_fields() -> None:
    (request,) = run("ok", extra_body={"temperature": None, "max_completion_tokens": 9, "top_k": 1}).endpoint.requests
    assert "temperature" not in request.body
    assert "max_tokens" not in request.body
    assert (request.body["max_completion_tokens"], request.body["top_k"]) == (9, 1)


ERRORS: list[tuple[str, type[ModelError], str]] = [
    ("refuse", UpstreamRefused, "connection refused; check base_url"),
    ("reset", UpstreamRefused, "no answer from 127.0.0.1:"),
    ("hang_up", UpstreamRefused, "the connection was closed before an answer"),
    ("hang", UpstreamTimeout, "gave no answer in"),
    ("hang_after_headers", UpstreamTimeout, "gave no answer in"),
    ("drip", UpstreamTimeout, "gave no answer in"),
    ("status_401", Unauthorized, "HTTP 401, the key was not accepted; check THE_KEY"),
    ("status_403", Unauthorized, "HTTP 403, the key was not accepted; check THE_KEY"),
    ("status_404", UpstreamStatus, "check base_url and the model's name"),
    ("status_408", UpstreamStatus, "HTTP 408: refused for key [key]"),
    ("status_409", UpstreamStatus, "HTTP 409: refused for key [key]"),
    ("status_429", RateLimited, "HTTP 429, too many requests (it asks to wait 1 s)"),
    ("status_429_date", RateLimited, "(it asks to wait 2 s)"),
    ("status_429_ms", RateLimited, "(it asks to wait 0.25 s)"),
    ("status_500", UpstreamStatus, "HTTP 500: refused for key [key]"),
    ("status_503", UpstreamStatus, "HTTP 503: refused for key [key]"),
    ("moved", UpstreamStatus, "HTTP 301, base_url redirects to https://elsewhere.example/v1"),
    ("html_200", UpstreamGarbage, 'sent an HTML page titled "Bad gateway for [key]"'),
    ("html_502", UpstreamStatus, 'HTTP 502: an HTML page titled "Bad gateway for [key]"'),
    ("truncated_json", UpstreamGarbage, "cut or broken JSON"),
    ("cut_body", UpstreamGarbage, "cut its answer off"),
    ("reset_in_body", UpstreamGarbage, "cut its answer off"),
    ("not_http", UpstreamGarbage, "does not speak HTTP"),
    ("garbage", UpstreamGarbage, "not a chat completion: choices: Field required"),
    ("error_200", UpstreamGarbage, "upstream is overloaded"),
    ("empty", UpstreamGarbage, "not a chat completion"),
    ("overflow_llama", ContextOverflow, "does not fit the model's context: too many tokens"),
    ("overflow_openai", ContextOverflow, "does not fit the model's context: Too long."),
    ("overflow_vllm", ContextOverflow, "maximum context length is 4096"),
    ("huge", UpstreamGarbage, "larger than 1000000 bytes"),
]


@pytest.mark.parametrize("fault, kind, said", ERRORS)
def test_a_fault_becomes_its_error_in_one_line_without_the_key(
    fault: str, kind: type[ModelError], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = run(
        fault, timeout_s=0.3 if kind is UpstreamTimeout else 5.0, max_retries=0, max_response_bytes=1_000_000
    ).error
    assert type(error) is kind
    assert said in str(error)
    assert str(error).startswith("large")
    assert str(error).isprintable()
    told = "".join(traceback.format_exception(error)) + caplog.text
    for cause in causes(error):
        told += str(cause) + repr(cause)
    assert CANARY not in told


def test_an_unknown_host_is_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main() -> None:
        model = OpenAIModel("large", base_url="http://no-such-host.invalid/v1", model="m", max_retries=0, rng=Calm())
        with pytest.raises(UpstreamRefused, match=r"no-such-host\.invalid:80: the host's name cannot be resolved"):
            await model.complete(PROMPT, timeout_s=5.0)
        await model.aclose()

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    asyncio.run(main())


@pytest.mark.parametrize("fault", ["status_408", "status_429", "status_500", "status_502", "status_503", "status_504"])
def test_a_passing_refusal_is_tried_again(fault: str) -> None:
    result = run(fault, fault, "ok")
    assert result.reply.text == TEXT
    assert len(result.endpoint.requests) == 3


@pytest.mark.parametrize("fault", ["reset", "hang_up", "cut_body", "reset_in_body"])
def test_a_lost_connection_is_tried_again(fault: str) -> None:
    assert run(fault, "ok").reply.text == TEXT


@pytest.mark.parametrize("fault", ["status_401", "status_404", "status_409", "garbage", "html_200", "overflow_vllm"])
def test_a_lasting_refusal_is_not_tried_again(fault: str) -> None:
    result = run(fault)
    assert len(result.endpoint.requests) == 1
    assert result.pauses_s == []


def test_a_body_that_is_always_cut_is_tried_only_twice() -> None:
    result = run("cut_body", max_retries=5)
    assert isinstance(result.error, UpstreamGarbage)
    assert len(result.endpoint.requests) == 2


def test_retries_end() -> None:
    result = run("status_503", max_retries=3)
    assert isinstance(result.error, UpstreamStatus)
    assert len(result.endpoint.requests) == 4


@pytest.mark.parametrize("fault, asked_s", [("status_429", 1.0), ("status_429_date", 2.0), ("status_429_ms", 0.25)])
def test_the_wait_asked_for_is_waited(fault: str, asked_s: float) -> None:
    (pause_s,) = run(fault, "ok").pauses_s
    assert asked_s <= pause_s <= asked_s + 0.5


def test_a_wait_longer_than_the_time_left_is_not_begun() -> None:
    result = run("status_429", "ok", timeout_s=0.9)
    assert isinstance(result.error, RateLimited)
    assert result.error.retry_after_s == 1.0
    assert result.pauses_s == []


def test_pauses_grow_and_are_jittered_and_bounded() -> None:
    rng = random.Random(7)
    error = UpstreamRefused("down")
    longest = [max(pause_before_retry(error, tries, rng) or 0.0 for _ in range(200)) for tries in (1, 2, 3, 10)]
    assert [round(pause_s) for pause_s in longest[1:]] == [1, 2, 8]
    assert 0.45 < longest[0] <= 0.5


def test_one_time_bound_spans_all_tries() -> None:
    result = run("status_500", "status_500", "hang", timeout_s=0.4, rng=Calm())
    assert isinstance(result.error, UpstreamTimeout)
    assert 0.4 <= result.error.elapsed_s < 2.0
    assert result.elapsed_s < 3.0


def test_no_time_left_is_a_timeout_at_once() -> None:
    assert isinstance(run("hang", timeout_s=0.0).error, UpstreamTimeout)


def test_without_a_time_bound_an_hours_wait_is_given_up() -> None:
    assert isinstance(run(status(429, Retry_After="3600"), timeout_s=None).error, RateLimited)


@pytest.mark.parametrize("fault", ["hang", "hang_after_headers", "drip", "huge"])
def test_a_hang_up_closes_the_upstream_connection(fault: str) -> None:
    async def main() -> None:
        async with FaultyEndpoint(fault) as endpoint:
            model = model_of(endpoint, max_response_bytes=10**10)
            call = asyncio.create_task(model.complete(PROMPT))
            await endpoint.asked()
            await asyncio.sleep(0.05)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            assert call.cancelled()
            assert await endpoint.disconnected(within_s=1.0)
            await model.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["hang", "drip", "huge"])
def test_giving_up_closes_the_upstream_connection(fault: str) -> None:
    async def main() -> None:
        async with FaultyEndpoint(fault) as endpoint:
            model = model_of(endpoint, max_retries=0, max_response_bytes=1_000_000)
            with pytest.raises(ModelError):
                await model.complete(PROMPT, timeout_s=0.2)
            assert await endpoint.disconnected(within_s=1.0)
            await model.aclose()

    asyncio.run(main())


def test_calls_in_turn_share_one_connection() -> None:
    async def main() -> None:
        async with FaultyEndpoint("ok", "status_500", "ok") as endpoint:
            model = model_of(endpoint, sleep=asyncio.sleep)
            for _ in range(3):
                await model.complete(PROMPT, timeout_s=5.0)
            assert len(endpoint.connections) == 1
            await model.aclose()

    asyncio.run(main())


def test_calls_at_once_open_no_more_connections_than_allowed() -> None:
    async def main() -> None:
        async with FaultyEndpoint("ok") as endpoint:
            model = model_of(endpoint, max_connections=2)
            await asyncio.gather(*(model.complete(PROMPT, timeout_s=5.0) for _ in range(20)))
            assert len(endpoint.requests) == 20
            assert len(endpoint.connections) <= 2
            await model.aclose()

    asyncio.run(main())


def test_it_works_from_one_event_loop_after_another(caplog: pytest.LogCaptureFixture) -> None:
    with served_from_a_thread("ok") as endpoint:
        model = model_of(endpoint)
        for _ in range(3):
            assert asyncio.run(model.complete(PROMPT, timeout_s=5.0)).text == TEXT
        asyncio.run(model.aclose())
    gc.collect()
    assert caplog.text == ""


def test_it_works_from_two_event_loops_at_once() -> None:
    with served_from_a_thread("ok") as endpoint:
        model = model_of(endpoint)

        async def main() -> None:
            elsewhere = asyncio.to_thread(asyncio.run, model.complete(PROMPT, timeout_s=5.0))
            replies = await asyncio.gather(elsewhere, *(model.complete(PROMPT, timeout_s=5.0) for _ in range(4)))
            assert {reply.text for reply in replies} == {TEXT}
            await model.aclose()

        asyncio.run(main())


def test_it_works_again_after_it_was_closed() -> None:
    async def main() -> None:
        async with FaultyEndpoint("ok") as endpoint:
            model = model_of(endpoint)
            await model.complete(PROMPT)
            await model.aclose()
            assert (await model.complete(PROMPT)).text == TEXT
            await model.aclose()

    asyncio.run(main())


def test_the_environments_proxy_is_used_for_hosts_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with FaultyEndpoint("ok") as proxy:
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
            model = OpenAIModel("large", base_url="http://elsewhere.invalid/v1", model="m", rng=random.Random(1))
            await model.complete(PROMPT, timeout_s=5.0)
            assert proxy.requests[0].headers["Host"] == "elsewhere.invalid"
            await model.aclose()

    asyncio.run(main())


def test_the_environments_proxy_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert run("ok").reply.text == TEXT


def test_its_repr_does_not_show_the_key() -> None:
    model = OpenAIModel(
        "large", base_url=f"https://host/v1?key={CANARY}", model="m", api_key=CANARY, rng=random.Random(1)
    )
    assert repr(model) == "OpenAIModel('large', model='m', url='https://host/v1/chat/completions')"


@pytest.mark.parametrize("base_url", ["", "host/v1", "ftp://host/v1", "http://", "http://host:99999/v1"])
def test_a_url_that_cannot_work_is_a_config_error(base_url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        OpenAIModel("large", base_url=base_url, model="m", rng=random.Random(1))


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="must not hold a user or password") as raised:
        OpenAIModel("large", base_url=f"https://me:{CANARY}@host/v1", model="m", rng=random.Random(1))
    assert CANARY not in str(raised.value)


def test_a_key_with_a_line_break_inside_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="THE_KEY holds a line break") as raised:
        model_of(FaultyEndpoint(), api_key=f"{CANARY}\r\nX-Other: 1")
    assert CANARY not in str(raised.value)


def test_an_extra_body_that_is_not_json_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="extra_body: cannot be sent as JSON"):
        model_of(FaultyEndpoint(), extra_body={"when": object()})


def test_the_base_module_does_not_load_the_http_client() -> None:
    code = "import sys, corea.models.base, corea.models.scripted; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


def causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None:
        found.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return found
