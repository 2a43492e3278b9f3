"""A LlamaIndex query over an index, chats and streams, whose LLM is a cascade."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("llama_index.core", reason="the llama-index extra is not installed: see docs/integrations.md")

from llama_index.core import Document, SummaryIndex
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.memory import ChatMemoryBuffer

from corea.errors import InputError
from corea.integrations.llama_index import CoreaLLM
from integrations.scripted import EASY, HARD, cascade, prompts

# LlamaIndex and what it stands on warn of what is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def llm() -> Iterator[CoreaLLM]:
    made = CoreaLLM(cascade=cascade())
    yield made
    made.close()


def test_a_query_is_answered_from_what_the_index_holds(llm: CoreaLLM) -> None:
    index = SummaryIndex.from_documents([Document(text="Ann has 3 pears.")])
    answer = index.as_query_engine(llm=llm).query("How many, and 2 more?")
    assert str(answer) == "Let me think.\nAnswer: 5"
    assert "Ann has 3 pears." in prompts(llm.cascade, 0)[0].messages[-1].content


def test_a_chat_keeps_its_turns_and_its_system_message(llm: CoreaLLM) -> None:
    # The default memory is an SQLite connection, which LlamaIndex leaves open.
    memory = ChatMemoryBuffer.from_defaults(token_limit=1000, tokenizer_fn=str.split)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory, system_prompt="You add.")
    engine.chat(EASY)
    assert str(engine.chat(HARD)) == "Answer: 50"
    turns = prompts(llm.cascade, 1)[0].messages
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user"]
    assert (turns[0].content, turns[-1].content) == ("You add.", HARD)


def test_a_response_tells_tier_confidence_cost_and_tokens(llm: CoreaLLM) -> None:
    told = llm.chat([ChatMessage(content=EASY)]).raw
    assert (told["corea"]["tier"], told["corea"]["confidence"], told["corea"]["deferred"]) == ("small", 0.95, False)
    assert told["corea"]["saved_nano_usd"] > 0
    assert told["usage"]["prompt_tokens"] == 20
    assert llm.complete(HARD).raw["corea"]["tier"] == "large"


def test_llamaindex_counts_the_tokens() -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm = CoreaLLM(cascade=cascade(), callback_manager=CallbackManager([counter]))
    llm.chat([ChatMessage(content=EASY)])
    llm.close()
    assert counter.prompt_llm_token_count == 20


def test_streams_grow_and_end_with_what_the_cascade_knows(llm: CoreaLLM) -> None:
    for pieces in (list(llm.stream_chat([ChatMessage(content=HARD)])), list(llm.stream_complete(HARD))):
        assert len(pieces) > 2
        assert (
            "".join(piece.delta or "" for piece in pieces)
            == str(pieces[-1]).removeprefix("assistant: ")
            == "Answer: 50"
        )
        assert pieces[-1].raw["corea"]["tier"] == "large"


def test_all_of_it_can_be_awaited(llm: CoreaLLM) -> None:
    async def ask() -> list[str]:
        chat = await llm.achat([ChatMessage(content=EASY)])
        chats = [piece async for piece in await llm.astream_chat([ChatMessage(content=HARD)])]
        texts = [piece async for piece in await llm.astream_complete(HARD)]
        return [
            chat.message.content or "",
            (await llm.acomplete(EASY)).text,
            chats[-1].message.content or "",
            texts[-1].text,
        ]

    assert asyncio.run(ask()) == ["Let me think.\nAnswer: 5"] * 2 + ["Answer: 50"] * 2


def test_settings_reach_the_tier_and_unknown_ones_are_refused() -> None:
    llm = CoreaLLM(cascade=cascade(), temperature=0.7, max_tokens=99)
    llm.complete(EASY, seed=7)
    prompt = prompts(llm.cascade, 0)[0]
    assert (prompt.temperature, prompt.max_tokens, prompt.seed) == (0.7, 99, 7)
    assert (llm.metadata.num_output, llm.metadata.context_window) == (99, 4096)
    with pytest.raises(InputError, match="cannot be told tools"):
        llm.chat([ChatMessage(content=EASY)], tools=[{}])
    llm.close()


def test_what_is_no_text_is_refused(llm: CoreaLLM) -> None:
    picture = ChatMessage(blocks=[TextBlock(text="What is this?"), ImageBlock(image=b"")])
    with pytest.raises(InputError, match="leave out images"):
        llm.chat([picture])
    with pytest.raises(InputError, match="takes no tool messages"):
        llm.chat([ChatMessage(role=MessageRole.TOOL, content="5")])
