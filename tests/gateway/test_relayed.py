"""What a trace says of a relayed request: that nobody judged the answer, and which tools were to be called."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from corea.ledger import Ledger, get_trace
from corea.ledger.redaction import Redactor
from corea.models.openai import OpenAIModel
from corea.policy.explain import explain_trace
from corea.tier import Tier
from corea.types import Reason
from faults.endpoint import Fault, FaultyEndpoint, completion, sends, served_from_a_thread, status
from faults.streaming import chunk, event, stream
from gateway.running import Running, serving, small

MESSAGES: Any = [{"role": "user", "content": "What is 6 × 7?"}]
TOOL: Any = {"type": "function", "function": {"name": "multiply", "parameters": {"type": "object", "properties": {}}}}
ARGUMENTS = '{"a": 6, "b": 7.0, "why": "é"}'


@contextmanager
def relaying(fault: str | Fault) -> Iterator[tuple[Running, FaultyEndpoint]]:
    """A gateway whose last tier is a server that answers so."""
    with served_from_a_thread(fault) as endpoint:
        model = OpenAIModel("large", base_url=endpoint.base_url, model="m", max_retries=0, rng=random.Random(1))
        with serving(small(), Tier(name="large", model=model, price=None)) as running:
            yield running, endpoint


def ask(running: Running, *, streamed: bool = False) -> httpx.Response:
    body = {"model": "corea", "messages": MESSAGES, "tools": [TOOL], "stream": streamed}
    return httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=10)


def calling(*calls: dict[str, Any], content: str | None = None) -> Fault:
    payload = completion()
    message = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    payload["choices"][0] |= {"message": message, "finish_reason": "tool_calls"}
    return sends(payload)


def call(id: str, arguments: str, name: str = "multiply") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_relayed_answer_does_not_claim_that_the_last_tier_was_asked_last() -> None:
    with relaying("ok") as (running, _):
        said = ask(running).json()["corea"]
        (attempt,) = running.trace.attempts
        assert (attempt.decision.keep, attempt.decision.reason) == (True, Reason.RELAYED)
        words = "Relayed the answer of large: the request went to it as it is, and nobody judged the answer."
        assert explain_trace(running.trace) == words
        assert said["reason"] == "relayed"
        metrics = httpx.get(f"{running.url}/metrics", timeout=10).text
        assert 'corea_attempts_total{reason="relayed",tier="large"} 1.0' in metrics
        assert 'reason="last_tier"' not in metrics


def test_a_relayed_request_that_fails_says_so() -> None:
    with relaying(status(400)) as (running, _):
        assert ask(running).status_code == 400
        assert running.trace.attempts[0].decision.reason is Reason.FAILED


def test_the_ledger_gives_the_reason_back(tmp_path: Path) -> None:
    with relaying("ok") as (running, _), Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ask(running)
        asyncio.run(ledger.write(running.trace))
        assert get_trace(ledger, running.trace.id).attempts[0].decision.reason is Reason.RELAYED


def test_tool_calls_are_in_the_attempts_text_as_the_model_wrote_them() -> None:
    with relaying(calling(call("c1", ARGUMENTS), call("c2", "{not json"), content="Let me see.")) as (running, _):
        assert ask(running).status_code == 200
        words, told = running.trace.attempts[0].text.split("\n")
        assert words == "Let me see."
        assert ARGUMENTS in told, "not as a text in a text, where a pattern of ledger.redact would miss it"
        assert json.loads(told) == {
            "tool_calls": [
                {"id": "c1", "name": "multiply", "arguments": json.loads(ARGUMENTS)},
                {"id": "c2", "name": "multiply", "arguments": "{not json"},
            ]
        }


@pytest.mark.parametrize("size", [1, 3, 100])
def test_tool_calls_of_a_stream_are_put_together_from_their_pieces(size: int) -> None:
    pieces = [
        {"tool_calls": [{"index": at, **call(f"c{at}", "")}]} for at in range(2)
    ] + [
        {"tool_calls": [{"index": at, "function": {"arguments": ARGUMENTS[begin : begin + size]}}]}
        for begin in range(0, len(ARGUMENTS), size)
        for at in range(2)
    ]  # fmt: skip
    events = [chunk(None) | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in pieces]
    last = chunk(None) | {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    with relaying(stream([event(one) for one in [*events, last]])) as (running, _):
        assert ask(running, streamed=True).text.rstrip().endswith("data: [DONE]")
        (attempt,) = running.trace.attempts
        assert (attempt.decision.reason, attempt.finish_reason) == (Reason.RELAYED, "tool_calls")
        told = json.loads(attempt.text)["tool_calls"]
        assert [(one["id"], one["name"], one["arguments"]) for one in told] == [
            (f"c{at}", "multiply", json.loads(ARGUMENTS)) for at in range(2)
        ]


@pytest.mark.parametrize("odd", [None, "x", [None, 3, {}], [{"function": "f"}], [{"index": "0", "id": 5}]])
def test_odd_tool_calls_are_relayed_all_the_same(odd: Any) -> None:
    payload = completion()
    payload["choices"][0]["message"]["tool_calls"] = odd
    with relaying(sends(payload)) as (running, _):
        assert ask(running).json()["choices"][0]["message"]["tool_calls"] == odd
        assert running.trace.final == 0


def test_what_is_redacted_is_redacted_in_tool_calls_and_where_no_texts_are_kept_no_call_is(tmp_path: Path) -> None:
    secret = '{"card": "4111 1111 1111 1111", "note": "a \\"b\\""}'
    with relaying(calling(call("c1", secret))) as (running, _):
        ask(running)
        kept = Redactor([r'"card": "[\d ]+"']).trace(running.trace).attempts[0].text
        assert "4111" not in kept
        assert "multiply" in kept
        with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", store_texts=False) as ledger:
            asyncio.run(ledger.write(running.trace))
            assert get_trace(ledger, running.trace.id).attempts[0].text == ""


def test_the_sdk_sees_the_same_calls_as_before() -> None:
    with relaying(calling(call("c1", ARGUMENTS))) as (running, _):
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0)
        answer = client.chat.completions.create(model="corea", messages=MESSAGES, tools=[TOOL])
        calls = answer.choices[0].message.tool_calls
        assert calls is not None
        assert [one.to_dict() for one in calls] == [call("c1", ARGUMENTS)]
