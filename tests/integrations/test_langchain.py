"""A real LangChain chain, streamed, batched and awaited, whose model is a cascade."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("langchain_core", reason="the langchain extra is not installed: see docs/integrations.md")

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from corea.errors import InputError
from corea.integrations.langchain import ChatCorea
from integrations.scripted import EASY, HARD, Kept, cascade, prompts

PROMPT = ChatPromptTemplate.from_messages([("system", "You add."), ("human", "What is {a} + {b}?")])


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def model(kept: Kept) -> Iterator[ChatCorea]:
    made = ChatCorea(cascade=cascade(kept))
    yield made
    made.close()


def test_a_chain_of_prompt_model_and_parser_answers(model: ChatCorea) -> None:
    chain = PROMPT | model | StrOutputParser()
    assert chain.invoke({"a": 2, "b": 3}) == "Let me think.\nAnswer: 5"
    assert chain.batch([{"a": 2, "b": 3}, {"a": 20, "b": 30}]) == ["Let me think.\nAnswer: 5", "Answer: 50"]
    assert "".join(chain.stream({"a": 20, "b": 30})) == "Answer: 50"
    assert prompts(model.cascade, 1)[0].messages[0].content == "You add."


def test_a_message_tells_tier_confidence_cost_saving_and_tokens(model: ChatCorea, kept: Kept) -> None:
    message = model.invoke(EASY)
    trace = kept.traces[0]
    told = message.response_metadata
    assert (told["tier"], told["confidence"], told["deferred"]) == ("small", 0.95, False)
    assert (told["cost_nano_usd"], told["saved_nano_usd"]) == (trace.cost_nano_usd, trace.saved_nano_usd)
    assert told["saved_nano_usd"] > 0
    assert (told["trace_id"], told["finish_reason"]) == (trace.id, "stop")
    assert isinstance(message, AIMessage)
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == message.usage_metadata["output_tokens"] + 20


def test_a_stream_comes_in_pieces_and_adds_up_to_the_message(model: ChatCorea) -> None:
    chunks = list(model.stream(HARD))
    assert len(chunks) > 2
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk)
    assert whole.content == "Answer: 50"
    assert (whole.response_metadata["tier"], whole.response_metadata["deferred"]) == ("large", True)
    assert whole.usage_metadata is not None


def test_it_can_be_awaited_from_any_loop(model: ChatCorea) -> None:
    async def ask() -> tuple[str, list[str], str]:
        chain = PROMPT | model | StrOutputParser()
        one = await chain.ainvoke({"a": 2, "b": 3})
        two = await chain.abatch([{"a": 2, "b": 3}, {"a": 20, "b": 30}])
        return one, two, "".join([piece async for piece in chain.astream({"a": 20, "b": 30})])

    for _ in range(2):
        assert asyncio.run(ask()) == (
            "Let me think.\nAnswer: 5",
            ["Let me think.\nAnswer: 5", "Answer: 50"],
            "Answer: 50",
        )


def test_settings_of_the_model_and_of_the_call_reach_the_tier(kept: Kept) -> None:
    model = ChatCorea(cascade=cascade(kept), temperature=0.7)
    model.invoke(EASY, stop=["\n\n"], max_tokens=9)
    model.close()
    prompt = prompts(model.cascade, 0)[0]
    assert (prompt.temperature, prompt.max_tokens, prompt.sampling) == (0.7, 9, {"stop": ("\n\n",)})
    assert kept.traces[0].metadata["sampling"]["temperature"] == 0.7


def test_a_conversation_keeps_its_turns(model: ChatCorea) -> None:
    model.invoke(
        [SystemMessage("Add."), HumanMessage("1 + 1?"), AIMessage("2"), HumanMessage([{"type": "text", "text": EASY}])]
    )
    turns = prompts(model.cascade, 0)[0].messages[1:]
    assert [(turn.role, turn.content) for turn in turns] == [("user", "1 + 1?"), ("assistant", "2"), ("user", EASY)]


def test_what_a_cascade_cannot_do_is_refused_with_a_way_out(model: ChatCorea) -> None:
    with pytest.raises(InputError, match="corea serve"):
        model.invoke([HumanMessage(EASY), ToolMessage("5", tool_call_id="1")])
    with pytest.raises(InputError, match="leave out images"):
        model.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])])
    with pytest.raises(InputError, match="cannot be told tools"):
        model.bind(tools=[{"name": "f"}]).invoke(EASY)
    with pytest.raises(NotImplementedError):
        model.bind_tools([])
