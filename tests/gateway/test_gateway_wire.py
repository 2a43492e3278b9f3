"""What goes over the wire when a request is wrong, too large, or from nobody we know: always OpenAI's error shape."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from corea import Cascade
from corea.errors import ConfigError, ContextOverflow, LedgerError
from corea.gateway.app import OPEN_PATHS, Gateway
from corea.gateway.auth import Caller, OneKey, authorizer_of
from corea.gateway.errors import ApiError
from corea.gateway.openapi import document
from corea.gateway.shapes import usd
from corea.gateway_config import GatewayConfig, check_exposure
from corea.models.scripted import ScriptedModel, Step, scripted_answer
from corea.prices import FixedPrice
from corea.types import Trace
from gateway.running import UNSURE, Kept, large, small

MESSAGES = [{"role": "user", "content": "What is 6 × 7?"}]
PLAIN = {"model": "corea", "messages": MESSAGES}
CANARY = "sk-canary-0123456789abcdef"
POSTS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/corea/feedback"]

KEYS = (
    *("model", "messages", "prompt", "input", "stream", "stream_options", "n", "tools", "stop", "seed", "text"),
    *("response_format", "max_tokens", "instructions", "trace_id", "correct", "temperature", "top_k", "é\r\n"),
)


def gateway_of(*tiers: Any, authorizer: Any = None, ledger: Any = None, **options: Any) -> Gateway:
    ledger = Kept() if ledger is None else ledger
    cascade = Cascade(tiers or (small(), large()), ledger=ledger)
    return Gateway(cascade, GatewayConfig(**options), authorizer=authorizer, feedback=ledger)


def ask(gateway: Gateway, method: str = "POST", path: str = "/v1/chat/completions", **request: Any) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, **request)

    return asyncio.run(main())


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error, once it is sure that it has OpenAI's shape."""
    assert answer.headers["x-should-retry"] in ("true", "false")
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert "Traceback" not in answer.text
    return dict(body["error"])


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    return gateway_of()


@pytest.mark.parametrize(
    "change,param",
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"messages": MESSAGES * 9}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"presence_penalty": 9}, "presence_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": 5}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 5}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"n": 99}, "n"),
        ({"tools": {}}, None),
        ({"tools": [{}] * 4}, "tools"),
        ({"tools": 5}, "tools"),
        ({"user": 5}, "user"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], param: str | None) -> None:
    answer = ask(gateway_of(max_messages=8, max_tools=3), json={**PLAIN, **change})
    if param is None:
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


@pytest.mark.parametrize(
    "body,code",
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"x"', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": "\\ud800"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "too_deep"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "too_deep"),
    ],
)
@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_no_json_object_or_too_deep_is_refused(
    gateway: Gateway, path: str, body: bytes, code: str
) -> None:
    answer = ask(gateway, path=path, content=body)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == code


def test_a_body_of_known_length_that_is_too_large_is_refused_unread() -> None:
    answer = ask(gateway_of(max_body_bytes=2000), json={**PLAIN, "user": "x" * 3000})
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "request_too_large"


def test_a_body_of_unknown_length_is_refused_while_it_is_read() -> None:
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "root_path": ""}
    asyncio.run(gateway_of(max_body_bytes=5000)(scope, receive, send))
    assert messages[0]["status"] == 413
    assert sent == 6


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(POSTS),
    st.dictionaries(
        st.sampled_from(KEYS),
        st.recursive(
            st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=4) | st.sampled_from(["corea", "user"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["role", "content", "type", "text", "format", "x"]), inner, max_size=4
                )
            ),
            max_leaves=6,
        ),
    ),
)
def test_nothing_that_is_json_is_answered_with_a_fault_of_ours(path: str, body: dict[str, Any]) -> None:
    answer = ask(gateway_of(), path=path, json=body)
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400:
        error_of(answer)


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_ours_tells_nothing_and_is_logged(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    def broken(prompt: object, index: int) -> Step:
        raise RuntimeError(f"secret {CANARY}")

    first = small()
    first.model._script = broken  # type: ignore[attr-defined]
    with caplog.at_level(logging.ERROR):
        answer = ask(gateway_of(first, large()), json={**PLAIN, "stream": stream})
    assert answer.status_code == 500
    error = error_of(answer)
    assert (error["code"], error["type"]) == ("internal_error", "server_error")
    assert CANARY not in answer.text
    assert answer.headers["x-request-id"] in caplog.text


def test_a_ledger_that_cannot_write_means_no_answer() -> None:
    class Broken(Kept):
        async def write(self, trace: Trace) -> None:
            raise LedgerError("the disk is full; free some space")

    for stream in (False, True):
        answer = ask(gateway_of(ledger=Broken()), json={**PLAIN, "stream": stream})
        assert answer.status_code == 503
        assert answer.headers["x-should-retry"] == "true"
        assert error_of(answer)["code"] == "ledger_unavailable"
        assert "42" not in answer.text


def test_a_question_too_long_for_every_tier_says_so() -> None:
    overflow = ContextOverflow("too many tokens")
    answer = ask(gateway_of(small(overflow), large(overflow)), json=PLAIN)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "context_length_exceeded"


# Who may ask


def paths(gateway: Gateway) -> list[str]:
    return [route.path for route in gateway.routes if isinstance(route, Route)]


@pytest.mark.parametrize(
    "sent", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}, {"x-api-key": "k"}]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_every_route_denies_by_default_where_there_are_keys(method: str, sent: dict[str, str]) -> None:
    gateway = gateway_of(authorizer=OneKey(CANARY))
    for path in [*paths(gateway), "/nowhere", "/v1/chat/completions/", "/docs"]:
        answer = ask(gateway, method, path, headers=sent)
        if path in OPEN_PATHS:
            assert answer.status_code in (200, 405)
            continue
        assert answer.status_code == 401, path
        assert error_of(answer)["code"] in ("missing_api_key", "invalid_api_key")


def test_the_key_opens_every_route() -> None:
    gateway = gateway_of(authorizer=OneKey(CANARY))
    for path in paths(gateway):
        answer = ask(gateway, "GET", path, headers={"authorization": f"Bearer {CANARY}"})
        assert answer.status_code != 401, path
        assert CANARY not in answer.text


def test_a_caller_sees_and_uses_only_its_profiles() -> None:
    class OnlyLarge(OneKey):
        async def authorize(self, headers: Any) -> Caller:
            return Caller(id="k7", profiles=frozenset({"large"}), task="maths")

    gateway = gateway_of(authorizer=OnlyLarge("k"))
    assert [model["id"] for model in ask(gateway, "GET", "/v1/models").json()["data"]] == ["large"]
    answer = ask(gateway, json=PLAIN)
    assert (answer.status_code, error_of(answer)["code"]) == (403, "model_not_allowed")
    assert ask(gateway, json={**PLAIN, "model": "large"}).status_code == 200


class Counting(OneKey):
    """Reserves, and remembers how each reservation ended."""

    def __init__(self, most_tokens: int = 10**6) -> None:
        super().__init__("k")
        self.most_tokens = most_tokens
        self.settled: list[Trace] = []
        self.released: list[Any] = []

    async def reserve(self, caller: Caller, *, profile: str, tokens: int, nano_usd: int) -> dict[str, Any]:
        if tokens > self.most_tokens:
            raise ApiError("over the limit", status=429, code="rate_limit_exceeded", retry=True, retry_after_s=7)
        return {"reservation": "r1", "profile": profile, "nano_usd": nano_usd}

    async def settle(self, trace: Trace) -> None:
        self.settled.append(trace)

    async def release(self, reserved: Any) -> None:
        self.released.append(reserved["reservation"])


@pytest.mark.parametrize(
    "body,traces",
    [(PLAIN, 1), ({**PLAIN, "stream": True}, 1), ({**PLAIN, "n": 2}, 0)],
    ids=["whole", "stream", "refused"],
)
def test_what_was_reserved_is_settled_with_its_trace_and_always_released(body: dict[str, Any], traces: int) -> None:
    counting = Counting()
    ask(gateway_of(authorizer=counting), json=body, headers={"authorization": "Bearer k"})
    assert [trace.metadata["reservation"] for trace in counting.settled] == ["r1"] * traces
    assert all(trace.metadata["profile"] == "corea" and trace.metadata["nano_usd"] > 0 for trace in counting.settled)
    assert counting.released == ["r1"]


def test_a_caller_over_its_limits_is_told_when_to_come_back_and_no_model_is_asked() -> None:
    first = small()
    answer = ask(
        gateway_of(first, large(), authorizer=Counting(most_tokens=5)),
        json=PLAIN,
        headers={"authorization": "Bearer k"},
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert isinstance(first.model, ScriptedModel)
    assert first.model.calls == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_without_a_key_only_this_machine_may_ask(host: str) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.host.*api_key_env"):
        check_exposure(host, has_keys=False)
    check_exposure(host, has_keys=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    check_exposure(host, has_keys=False)


def test_a_key_that_is_named_must_be_set() -> None:
    with pytest.raises(ConfigError, match="export THE_KEY"):
        authorizer_of(GatewayConfig(api_key_env="THE_KEY"), environ={})
    assert authorizer_of(GatewayConfig(api_key_env="THE_KEY"), environ={"THE_KEY": "x"}).has_keys
    assert not authorizer_of(GatewayConfig(), environ={}).has_keys


def test_a_tier_that_takes_the_cascades_name_is_refused() -> None:
    from dataclasses import replace

    with pytest.raises(ConfigError, match="rename it"):
        gateway_of(replace(small(), name="corea"), large())


# The rest


def test_a_wrong_method_and_an_unknown_path_are_errors_of_the_same_shape(gateway: Gateway) -> None:
    assert error_of(ask(gateway, "GET"))["code"] == "method_not_allowed"
    assert error_of(ask(gateway, "GET", "/v2"))["code"] == "not_found"


def test_the_openapi_document_matches_the_routes(gateway: Gateway) -> None:
    described = {(path, method.upper()) for path, methods in document()["paths"].items() for method in methods}
    served = {
        (route.path.replace(":path", ""), getattr(route.endpoint, "method", None))
        for route in gateway.routes
        if isinstance(route, Route)
    }
    assert described == served
    opened = {
        path for path, methods in document()["paths"].items() for m in methods.values() if m.get("security") == []
    }
    assert opened == OPEN_PATHS
    assert ask(gateway, "GET", "/openapi.json").json() == document()


def test_it_is_ready_until_it_drains() -> None:
    gateway = gateway_of()
    assert ask(gateway, "GET", "/readyz").status_code == 200
    gateway.draining = True
    assert ask(gateway, "GET", "/readyz").status_code == 503
    assert ask(gateway, "GET", "/healthz").status_code == 200


def test_metrics_count_requests_attempts_and_money_with_bounded_labels() -> None:
    gateway = gateway_of(small(UNSURE), large(scripted_answer("42"), price=FixedPrice.per_million(10, 20)))
    ask(gateway, json=PLAIN)
    ask(gateway, json={**PLAIN, "model": "no-such-model"})
    ask(gateway, "GET", "/made-up-path")
    text = ask(gateway, "GET", "/metrics").text
    assert 'corea_requests_total{route="/v1/chat/completions",status="200"} 1.0' in text
    assert 'corea_requests_total{route="/v1/chat/completions",status="404"} 1.0' in text
    assert 'corea_requests_total{route="unknown",status="404"} 1.0' in text
    assert 'corea_attempts_total{reason="below_threshold",tier="small"} 1.0' in text
    assert 'corea_answers_total{tier="large"} 1.0' in text
    assert 'corea_cost_usd_total{tier="large"} 0.000' in text
    assert "no-such-model" not in text
    assert "made-up" not in text


def test_money_is_exact() -> None:
    assert [usd(n) for n in (0, 1, -1, 1_234_567_890_123, None)] == [
        "0.000000000",
        "0.000000001",
        "-0.000000001",
        "1234.567890123",
        None,
    ]


def test_events_of_a_stream_are_what_openai_sends(gateway: Gateway) -> None:
    answer = ask(gateway, json={**PLAIN, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
