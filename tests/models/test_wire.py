"""Chat-completions JSON: what is read, what is refused, and what never leaks."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.errors import ContextOverflow, RateLimited, Unauthorized, UpstreamGarbage, UpstreamStatus
from corea.models.wire import error_of, excerpt, payload_of, reply_of, request_body, retry_after_s, usage_of
from corea.types import Message, Prompt, Reply, Token, Usage
from faults.endpoint import completion

CANARY = "sk-canary-0123456789abcdef"

# Lone surrogates too: JSON can spell them.
texts = st.text(st.characters(exclude_categories=()) | st.just("\ud83d"), max_size=12)
numbers = st.integers() | st.floats() | st.just(10**400)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
paths = st.sampled_from(
    [
        ("choices",),
        ("choices", 0),
        ("choices", 0, "message"),
        ("choices", 0, "message", "content"),
        ("choices", 0, "finish_reason"),
        ("choices", 0, "logprobs"),
        ("choices", 0, "logprobs", "content"),
        ("choices", 0, "logprobs", "content", 0),
        ("choices", 0, "logprobs", "content", 0, "logprob"),
        ("choices", 0, "logprobs", "content", 0, "top_logprobs"),
        ("choices", 0, "logprobs", "content", 0, "top_logprobs", 0, "token"),
        ("model",),
        ("usage",),
        ("usage", "prompt_tokens"),
        ("usage", "completion_tokens_details"),
        ("error",),
    ]
)
logprobs = st.floats(min_value=-1e6, max_value=0)
words = st.text(max_size=8)
tops = st.lists(st.tuples(words, logprobs), max_size=3).map(tuple)
counts = st.integers(min_value=0, max_value=10**6)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    prompt, completed = draw(counts), draw(counts)
    usage = Usage(
        prompt_tokens=prompt,
        cached_prompt_tokens=draw(st.integers(0, prompt)),
        completion_tokens=completed,
        reasoning_tokens=draw(st.integers(0, completed)),
    )
    tokens = st.lists(st.builds(Token, text=words, logprob=logprobs, top=tops), max_size=4).map(tuple)
    return Reply(
        text=draw(st.text()),
        finish_reason=draw(st.sampled_from(["stop", "length", "content_filter"])),
        model=draw(st.text(min_size=1, max_size=8)),
        usage=draw(st.none() | st.just(usage)),
        tokens=draw(st.none() | tokens),
    )


def as_json(reply: Reply) -> dict[str, Any]:
    """A reply as an endpoint would send it."""
    content = [
        {"token": t.text, "logprob": t.logprob, "top_logprobs": [{"token": text, "logprob": lp} for text, lp in t.top]}
        for t in reply.tokens or ()
    ]
    usage = reply.usage and {
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        "total_tokens": reply.usage.prompt_tokens + reply.usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.usage.cached_prompt_tokens},
        "completion_tokens_details": {"reasoning_tokens": reply.usage.reasoning_tokens},
    }
    choice = {
        "message": {"role": "assistant", "content": reply.text},
        "finish_reason": reply.finish_reason,
        "logprobs": None if reply.tokens is None else {"content": content},
    }
    return {"model": reply.model, "choices": [choice], "usage": usage}


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """A good completion with one part of it replaced."""
    payload = copy.deepcopy(completion())
    inner: Any = payload
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return payload


@given(json_values)
def test_arbitrary_json_is_a_reply_or_garbage_and_nothing_else(payload: object) -> None:
    try:
        reply_of(payload, "m")
    except UpstreamGarbage as error:
        assert_one_line(error)


@given(paths, json_values)
def test_a_damaged_completion_is_a_reply_or_garbage_and_nothing_else(
    path: tuple[str | int, ...], value: object
) -> None:
    try:
        reply = reply_of(changed(path, value), "m")
    except UpstreamGarbage as error:
        assert_one_line(error)
        return
    assert all(math.isfinite(token.logprob) and token.logprob <= 0 for token in reply.tokens or ())
    reply.text.encode()


@given(replies())
def test_a_well_formed_completion_round_trips(reply: Reply) -> None:
    over_the_wire = payload_of(json.dumps(as_json(reply)).encode(), "m")
    assert reply_of(over_the_wire, "m") == reply


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_json_or_garbage_and_nothing_else(body: bytes) -> None:
    try:
        payload_of(body, "m")
    except UpstreamGarbage as error:
        assert_one_line(error)


@given(
    st.integers(300, 599),
    st.dictionaries(st.sampled_from(["Retry-After", "retry-after-ms", "Date", "Location"]), texts),
    texts | json_values.map(json.dumps) | json_values.map(lambda value: json.dumps({"error": value})),
)
def test_any_refusal_becomes_a_model_error_of_one_line(status: int, headers: dict[str, str], body: str) -> None:
    assert_one_line(error_of(status, headers, body, "m", secret=CANARY, api_key_env="THE_KEY"))


def test_the_request_asks_only_for_what_the_prompt_asks_for() -> None:
    prompt = Prompt(messages=(Message(role="user", content="6·7?"),), max_tokens=10)
    body = request_body(prompt, "m")
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "6·7?"}],
        "max_tokens": 10,
        "temperature": 0.0,
    }


def test_the_request_carries_seed_and_logprobs_when_asked() -> None:
    prompt = Prompt(messages=(), max_tokens=10, temperature=0.7, seed=0, top_logprobs=5)
    body = request_body(prompt, "m")
    assert (body["seed"], body["logprobs"], body["top_logprobs"], body["temperature"]) == (0, True, 5, 0.7)


def test_content_null_is_an_empty_text() -> None:
    assert reply_of(changed(("choices", 0, "message", "content"), None), "m").text == ""


def test_half_a_surrogate_pair_does_not_reach_the_ledger() -> None:
    assert (
        reply_of(changed(("choices", 0, "message", "content"), "half an emoji \ud83d"), "m").text == "half an emoji ?"
    )


def test_a_missing_finish_reason_is_unknown() -> None:
    assert reply_of(changed(("choices", 0, "finish_reason"), None), "m").finish_reason == "unknown"


def test_a_missing_model_is_the_one_that_was_asked() -> None:
    assert reply_of(changed(("model",), None), "m").model == "m"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 5}, {"prompt_tokens": None, "completion_tokens": 1}])
def test_usage_that_was_not_counted_is_none_and_never_zero(usage: object) -> None:
    assert reply_of(changed(("usage",), usage), "m").usage is None


def test_a_total_that_is_the_prompt_says_that_nothing_was_written() -> None:
    # Embeddings are counted so.
    counted = usage_of({"prompt_tokens": 3, "total_tokens": 3}, "m")
    assert counted == Usage(prompt_tokens=3, completion_tokens=0)


@pytest.mark.parametrize("usage", [{"prompt_tokens": 3, "total_tokens": 8}, {"total_tokens": 3}])
def test_a_total_that_tells_neither_part_is_no_usage(usage: object) -> None:
    assert usage_of(usage, "m") is None


def test_reasoning_counted_beside_the_completion_is_added_to_it() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 130,
        "completion_tokens_details": {"reasoning_tokens": 100},
    }
    counted = reply_of(changed(("usage",), usage), "m").usage
    assert counted == Usage(prompt_tokens=10, completion_tokens=120, reasoning_tokens=100)


def test_more_cached_tokens_than_prompt_tokens_are_not_believed() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 99}}
    counted = reply_of(changed(("usage",), usage), "m").usage
    assert counted is not None
    assert counted.cached_prompt_tokens == 10


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}])
def test_absent_logprobs_are_none_and_not_empty(logprobs: object) -> None:
    assert reply_of(changed(("choices", 0, "logprobs"), logprobs), "m").tokens is None


def test_logprobs_that_are_not_finite_are_dropped() -> None:
    top = [{"token": "a", "logprob": math.nan}, {"token": "b", "logprob": -1.0}, {"token": "c", "logprob": -math.inf}]
    content = [
        {"token": "x", "logprob": math.nan},
        {"token": "y", "logprob": -0.5, "top_logprobs": top},
        {"token": "z", "logprob": None},
    ]
    reply = reply_of(changed(("choices", 0, "logprobs"), {"content": content}), "m")
    assert reply.tokens == (Token(text="y", logprob=-0.5, top=(("b", -1.0),)),)


def test_a_logprob_above_zero_is_rounding() -> None:
    content = [{"token": "x", "logprob": 1e-7}]
    reply = reply_of(changed(("choices", 0, "logprobs"), {"content": content}), "m")
    assert reply.tokens == (Token(text="x", logprob=0.0),)


@pytest.mark.parametrize(
    "path, value",
    [
        (("choices",), []),
        (("choices",), None),
        (("choices", 0, "message"), "hello"),
        (("choices", 0, "message", "content"), 5),
        (("usage", "prompt_tokens"), "12"),
        (("usage", "prompt_tokens"), -1),
        (("usage", "completion_tokens"), True),
        (("usage", "completion_tokens"), 10**12),
        (("choices", 0, "logprobs"), []),
        (("choices", 0, "logprobs", "content", 0, "token"), None),
        (("choices", 0, "logprobs", "content", 0, "logprob"), "-1"),
    ],
)
def test_a_field_of_the_wrong_type_is_garbage_and_is_named(path: tuple[str | int, ...], value: object) -> None:
    with pytest.raises(UpstreamGarbage, match=str(path[0])) as raised:
        reply_of(changed(path, value), "m")
    assert_one_line(raised.value)


@pytest.mark.parametrize("payload", [None, [], "text", 5, {}, {"data": []}])
def test_what_is_no_completion_at_all_is_garbage(payload: object) -> None:
    with pytest.raises(UpstreamGarbage, match="not a chat completion"):
        reply_of(payload, "m")


def test_an_error_dressed_as_an_answer_is_told_without_the_key() -> None:
    payload = {"error": {"message": f"no credit\nleft on {CANARY}", "code": 402}}
    with pytest.raises(UpstreamGarbage, match=r"no credit left on \[key\]") as raised:
        reply_of(payload, "m", secret=CANARY)
    assert_one_line(raised.value)


@pytest.mark.parametrize(
    "body, what",
    [
        (b"<html><title>Sign\n in</title>", 'an HTML page titled "Sign in"'),
        (b"  <!doctype html><p>hello", "an HTML page"),
        (b'{"choices": [', "cut or broken JSON"),
        (b"[" * 100_000, "cut or broken JSON"),
        (b"9" * 10_000, "cut or broken JSON"),
        (b"\xff\xfe\xff", "cut or broken JSON"),
        (b"", "nothing"),
    ],
)
def test_a_body_that_is_not_json_is_described(body: bytes, what: str) -> None:
    with pytest.raises(UpstreamGarbage) as raised:
        payload_of(body, "m")
    assert what in str(raised.value)
    assert_one_line(raised.value)


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After": "Tue, 07 Oct 2025 10:01:00 GMT", "Date": "Tue, 07 Oct 2025 10:00:00 GMT"}, 60.0),
        ({"Retry-After": "Tue, 07 Oct 2025 09:00:00 GMT", "Date": "Tue, 07 Oct 2025 10:00:00 GMT"}, 0.0),
        ({"Retry-After": "Tue, 07 Oct 2025 09:00:00 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "-1"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


def test_429_is_rate_limited_and_keeps_its_wait() -> None:
    error = error_of(429, {"Retry-After": "7"}, '{"error": {"message": "slow down"}}', "m")
    assert isinstance(error, RateLimited)
    assert (error.status, error.retry_after_s) == (429, 7.0)
    assert str(error) == "m: HTTP 429, too many requests (it asks to wait 7 s): slow down"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_variable_and_never_shown(status: int) -> None:
    error = error_of(status, {}, f'{{"error": "bad key {CANARY}"}}', "m", secret=CANARY, api_key_env="THE_KEY")
    assert isinstance(error, Unauthorized)
    assert "check THE_KEY" in str(error)
    assert CANARY not in str(error)


def test_a_refusal_without_a_key_says_to_set_one() -> None:
    assert "no key was sent; set THE_KEY" in str(error_of(401, {}, "", "m", api_key_env="THE_KEY"))


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 400, "message": "too many tokens", "type": "exceed_context_size_error"}},
        {"error": {"code": "context_length_exceeded", "message": "Too long."}},
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens"}},
    ],
)
def test_a_question_that_does_not_fit_is_an_overflow_in_every_dialect(body: object) -> None:
    error = error_of(400, {}, json.dumps(body), "m")
    assert isinstance(error, ContextOverflow)


def test_a_server_fault_that_mentions_context_is_no_overflow() -> None:
    assert isinstance(error_of(500, {}, "context window manager crashed", "m"), UpstreamStatus)


@pytest.mark.parametrize(
    "body, said",
    [
        ('{"error": {"message": "one\\ntwo"}}', "one two"),
        ('{"error": "plain"}', "plain"),
        ('{"detail": "of FastAPI"}', "of FastAPI"),
        ('{"detail": [{"loc": ["body"], "msg": "field required"}]}', "field required"),
        ('[{"error": {"message": "a list"}}]', "a list"),
        ("<html><head><title>502 Bad &amp; Gateway</title></head>", 'an HTML page titled "502 Bad & Gateway"'),
        ("plain words", "plain words"),
        ("\x1b[31mred\x07", "[31mred"),
    ],
)
def test_a_refusal_is_quoted_in_one_line(body: str, said: str) -> None:
    assert str(error_of(500, {}, body, "m")) == f"m: HTTP 500: {said}"


def test_an_excerpt_loses_the_secret_before_it_is_cut() -> None:
    text = "x" * 190 + CANARY
    assert "sk-" not in excerpt(text, CANARY)
    assert len(excerpt(text + "y" * 1000, CANARY)) == 200


def test_a_dummy_key_does_not_garble_messages() -> None:
    assert excerpt("no key", "k") == "no key"


def assert_one_line(error: Exception) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 400
