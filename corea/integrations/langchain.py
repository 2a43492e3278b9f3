"""A cascade as a LangChain chat model. Knows no tools: those are one model's business, through ``corea serve``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from corea.extras import extra
from corea.integrations.bridge import Bridge, conversation, facts, final, sampling_of
from corea.run import Done, Text
from corea.tier import Sampling
from corea.types import Request, Trace

with extra("langchain"):
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
    from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


class ChatCorea(BaseChatModel):
    """``ChatCorea(config="corea.toml")``, or ``ChatCorea(cascade=…)``; without either the configuration is found.

    A message's ``response_metadata`` holds the tier, its confidence, the cost and what was saved (nano-USD).
    """

    config: str | Path | None = None
    cascade: Any = Field(default=None, exclude=True, repr=False)
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    _bridge: Bridge = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._bridge = Bridge.to(self.config, self.cascade)

    @property
    def _llm_type(self) -> str:
        return "corea"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        # LangChain's caches tell models apart by it.
        return {
            "model_name": "corea",
            "fingerprint": self._bridge.cascade.fingerprint,
            **{name: getattr(self, name) for name in ("max_tokens", "temperature", "seed")},
        }

    def close(self) -> None:
        """Close the cascade."""
        self._bridge.close()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(self._bridge.ask(_request(messages), sampling=self._sampling(stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(await self._bridge.aask(_request(messages), sampling=self._sampling(stop, kwargs)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for event in self._bridge.stream(_request(messages), sampling=self._sampling(stop, kwargs)):
            chunk = _chunk(event)
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for event in self._bridge.astream(_request(messages), sampling=self._sampling(stop, kwargs)):
            chunk = _chunk(event)
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _sampling(self, stop: list[str] | None, more: dict[str, Any]) -> Sampling:
        own = {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed}
        return sampling_of({**own, "stop": stop, **more})


def _request(messages: list[BaseMessage]) -> Request:
    return conversation((message.type, _text(message)) for message in messages)


def _text(message: BaseMessage) -> object:
    """The text, or what the message holds instead."""
    if isinstance(message.content, str):
        return message.content
    other = [block for block in message.content if not isinstance(block, str) and block.get("type") != "text"]
    return other or str(message.text)


def _result(trace: Trace) -> ChatResult:
    message = AIMessage(content=trace.text or "", usage_metadata=_usage(trace), response_metadata=_told(trace))
    return ChatResult(generations=[ChatGeneration(message=message)])


def _chunk(event: Text | Done) -> ChatGenerationChunk:
    if isinstance(event, Text):
        return ChatGenerationChunk(message=AIMessageChunk(content=event.text))
    trace = event.trace
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content="", usage_metadata=_usage(trace), response_metadata=_told(trace), chunk_position="last"
        )
    )


def _told(trace: Trace) -> dict[str, Any]:
    return {**facts(trace), "model_name": final(trace).model, "finish_reason": final(trace).finish_reason}


def _usage(trace: Trace) -> UsageMetadata | None:
    """Tokens of the answer handed out. What all attempts cost is in ``response_metadata``."""
    usage = final(trace).usage
    if usage is None:
        return None
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_prompt_tokens),
        output_token_details=OutputTokenDetails(reasoning=usage.reasoning_tokens),
    )
