"""A program written with LangChain against the running gateway: nothing changes but ``base_url``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from corea.errors import RateLimited, UpstreamGarbage
from corea.gateway.auth import OneKey
from corea.models.scripted import ScriptedModel, Written, scripted_reply
from faults.endpoint import TEXT
from gateway.running import UNSURE, Running, large, serving, small
from gateway.upstream_like_openai import relaying

LIVE = scripted_reply("The answer is 42")


class Solution(BaseModel):
    """The answer and how it was found."""

    steps: list[str]
    answer: int


def multiply(a: int, b: int) -> int:
    """The product of two numbers."""
    return a * b


def chat(running: Running, **options: Any) -> ChatOpenAI:
    settings = {"model": "corea", "api_key": SecretStr("unused"), "max_retries": 0, **options}
    return ChatOpenAI(base_url=f"{running.url}/v1", **settings)


@pytest.fixture(scope="module")
def relayed() -> Iterator[Running]:
    with relaying() as (running, _):
        yield running


@pytest.fixture(scope="module")
def unsure() -> Iterator[Running]:
    with serving(small(UNSURE), large(LIVE)) as running:
        yield running


def test_a_conversation_is_answered_with_its_usage(relayed: Running) -> None:
    turns = [SystemMessage("Be brief."), HumanMessage("6 × 6?"), AIMessage("36"), HumanMessage("6 × 7?")]
    answer = chat(relayed, temperature=0.2, max_tokens=50).invoke(turns)
    assert answer.content == "Let me think.\nAnswer: 42"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0
    assert [turn.role for turn in relayed.trace.request.messages] == ["system", "user", "assistant", "user"]
    assert relayed.trace.tier == "small"


def test_a_stream_is_the_answer_in_pieces(unsure: Running) -> None:
    pieces = list(chat(unsure, stream_usage=True).stream("6 × 7?"))
    assert "".join(str(piece.content) for piece in pieces) == LIVE.text
    assert [piece.usage_metadata for piece in pieces if piece.usage_metadata]


def test_tools_are_called_and_their_results_answered(relayed: Running) -> None:
    asking = chat(relayed).bind_tools([multiply])
    question = HumanMessage("6 × 7?")
    calling = asking.invoke([question])
    (call,) = calling.tool_calls
    assert (call["name"], call["args"]) == ("multiply", {"a": 6, "b": 7})
    result = ToolMessage(str(multiply(**call["args"])), tool_call_id=call["id"])
    assert asking.invoke([question, calling, result]).content == TEXT


def test_streamed_tool_calls_are_put_together(relayed: Running) -> None:
    whole: AIMessageChunk | None = None
    for piece in chat(relayed).bind_tools([multiply]).stream("6 × 7?"):
        assert isinstance(piece, AIMessageChunk)
        whole = piece if whole is None else whole + piece
    assert whole is not None
    assert whole.tool_calls[0]["args"] == {"a": 6, "b": 7}


def test_structured_output_is_parsed(relayed: Running) -> None:
    assert chat(relayed).with_structured_output(Solution).invoke("6 × 7?") == Solution(steps=["6 × 7"], answer=42)


def test_a_batch_is_answered_in_order(unsure: Running) -> None:
    answers = chat(unsure).batch([f"{number} × 7?" for number in range(8)], config={"max_concurrency": 4})
    assert [answer.content for answer in answers] == [LIVE.text] * 8


def test_the_asynchronous_calls_work(unsure: Running) -> None:
    async def main() -> tuple[Any, str]:
        asking = chat(unsure)
        whole = await asking.ainvoke("6 × 7?")
        pieces = [str(piece.content) async for piece in asking.astream("6 × 7?")]
        return whole.content, "".join(pieces)

    assert asyncio.run(main()) == (LIVE.text, LIVE.text)


def test_the_responses_api_works(unsure: Running) -> None:
    asking = chat(unsure, use_responses_api=True)
    assert asking.invoke("6 × 7?").text == LIVE.text
    assert "".join(piece.text for piece in asking.stream("6 × 7?")) == LIVE.text


def test_errors_have_the_clients_classes() -> None:
    with serving(authorizer=OneKey("sk-right")) as running:
        with pytest.raises(openai.AuthenticationError):
            chat(running).invoke("6 × 7?")
        right = {"api_key": SecretStr("sk-right")}
        with pytest.raises(openai.NotFoundError):
            chat(running, model="gpt-4", **right).invoke("6 × 7?")
        with pytest.raises(openai.BadRequestError):
            chat(running, **right).bind_tools([multiply]).invoke("6 × 7?")


def test_it_comes_back_after_a_429() -> None:
    last = large(RateLimited("large: HTTP 429", status=429), LIVE)
    with serving(small(UNSURE), last) as running:
        assert chat(running, max_retries=1).invoke("6 × 7?").content == LIVE.text
        assert isinstance(last.model, ScriptedModel)
        assert last.model.calls == 2


def test_a_stream_that_breaks_is_an_error() -> None:
    broken = Written(reply=LIVE, error=UpstreamGarbage("large: the stream was cut off"))
    with serving(small(UNSURE), large(broken)) as running, pytest.raises(openai.APIError, match="cut off"):
        list(chat(running).stream("6 × 7?"))
