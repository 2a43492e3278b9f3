"""A cascade as a LlamaIndex LLM. Knows no tools: those are one model's business, through ``corea serve``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from corea.extras import extra
from corea.integrations.bridge import Bridge, conversation, facts, final, sampling_of
from corea.run import Done, Text
from corea.tier import Sampling
from corea.types import Request, Trace

with extra("llama-index"):
    from llama_index.core.llms import (
        LLM,
        ChatMessage,
        ChatResponse,
        ChatResponseAsyncGen,
        ChatResponseGen,
        CompletionResponse,
        CompletionResponseAsyncGen,
        CompletionResponseGen,
        LLMMetadata,
        MessageRole,
        TextBlock,
    )
    from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback


class CoreaLLM(LLM):
    """``CoreaLLM(config="corea.toml")``, or ``CoreaLLM(cascade=…)``; without either the configuration is found.

    ``raw["corea"]`` of a response holds the tier, its confidence, the cost and what was saved (nano-USD).
    """

    config: str | Path | None = None
    cascade: Any = Field(default=None, exclude=True, repr=False)
    max_tokens: int | None = None
    temperature: float | None = None
    #: Tokens that fit the smallest tier, which LlamaIndex fills with what it found. A longer question defers.
    context_window: int = Field(default=4096, gt=0)
    _bridge: Bridge = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._bridge = Bridge.to(self.config, self.cascade)

    @classmethod
    def class_name(cls) -> str:
        return "corea"

    @property
    def metadata(self) -> LLMMetadata:
        shared = {"context_window": self.context_window, "is_chat_model": True, "model_name": "corea"}
        return LLMMetadata(**shared if self.max_tokens is None else {**shared, "num_output": self.max_tokens})

    def close(self) -> None:
        """Close the cascade."""
        self._bridge.close()

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _said(self._bridge.ask(_request(messages), sampling=self._sampling(kwargs)))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _said(await self._bridge.aask(_request(messages), sampling=self._sampling(kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        request, sampling = _request(messages), self._sampling(kwargs)

        def told() -> ChatResponseGen:
            heard = _Heard()
            for event in self._bridge.stream(request, sampling=sampling):
                yield heard.chat(event)

        return told()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        request, sampling = _request(messages), self._sampling(kwargs)

        async def told() -> ChatResponseAsyncGen:
            heard = _Heard()
            async for event in self._bridge.astream(request, sampling=sampling):
                yield heard.chat(event)

        return told()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _written(self._bridge.ask(Request.of(prompt), sampling=self._sampling(kwargs)))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _written(await self._bridge.aask(Request.of(prompt), sampling=self._sampling(kwargs)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        sampling = self._sampling(kwargs)

        def told() -> CompletionResponseGen:
            heard = _Heard()
            for event in self._bridge.stream(Request.of(prompt), sampling=sampling):
                yield heard.completion(event)

        return told()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        sampling = self._sampling(kwargs)

        async def told() -> CompletionResponseAsyncGen:
            heard = _Heard()
            async for event in self._bridge.astream(Request.of(prompt), sampling=sampling):
                yield heard.completion(event)

        return told()

    def _sampling(self, given: dict[str, Any]) -> Sampling:
        return sampling_of({"max_tokens": self.max_tokens, "temperature": self.temperature, **given})


class _Heard:
    """A stream so far: LlamaIndex wants all of it with every piece."""

    def __init__(self) -> None:
        self._text = ""

    def chat(self, event: Text | Done) -> ChatResponse:
        delta, raw = self._take(event)
        return ChatResponse(message=_message(self._text), delta=delta, raw=raw)

    def completion(self, event: Text | Done) -> CompletionResponse:
        delta, raw = self._take(event)
        return CompletionResponse(text=self._text, delta=delta, raw=raw)

    def _take(self, event: Text | Done) -> tuple[str, dict[str, Any] | None]:
        if isinstance(event, Done):
            return "", _raw(event.trace)
        self._text += event.text
        return event.text, None


def _request(messages: Iterable[ChatMessage]) -> Request:
    return conversation((message.role.value, _text(message)) for message in messages)


def _text(message: ChatMessage) -> object:
    """The text, or what the message holds instead."""
    other = [block for block in message.blocks if not isinstance(block, TextBlock)]
    return other or message.content or ""


def _message(text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=text)


def _said(trace: Trace) -> ChatResponse:
    return ChatResponse(message=_message(trace.text or ""), raw=_raw(trace))


def _written(trace: Trace) -> CompletionResponse:
    return CompletionResponse(text=trace.text or "", raw=_raw(trace))


def _raw(trace: Trace) -> dict[str, Any]:
    """Tokens of the answer handed out, where LlamaIndex counts them; what all attempts cost is in ``corea``."""
    usage = final(trace).usage
    counted = (
        {}
        if usage is None
        else {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
    )
    return {"corea": facts(trace), "usage": counted}
