"""A cascade as the model ``corea`` of the ``llm`` command and its Python library: the plugin that ``llm`` finds.

Loaded whenever ``llm`` runs, so it loads no cascade before the first question.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from corea.extras import extra

if TYPE_CHECKING:
    from corea.cascade import Cascade
    from corea.integrations.bridge import Bridge
    from corea.run import Done, Text
    from corea.tier import Sampling
    from corea.types import Request

with extra("llm"):
    import llm
    from llm.parts import TextPart
    from pydantic import Field


class Settings(llm.Options):
    """What ``-o`` takes. Raises pydantic's complaint, which ``llm`` shows, for anything else."""

    config: str | None = Field(default=None, description="Configuration file; by default the one that is found")
    max_tokens: int | None = Field(default=None, ge=1, description="Most tokens a tier may write")
    temperature: float | None = Field(default=None, ge=0, le=2, description="How freely tiers choose their words")
    seed: int | None = Field(default=None, description="For tiers whose server can repeat itself")


class Cascades:
    """One bridge for each configuration that was asked for, or the ready cascade."""

    def __init__(self, cascade: Cascade | None = None) -> None:
        self._cascade = cascade
        self._bridges: dict[str | None, Bridge] = {}

    def of(self, config: str | None) -> Bridge:
        from corea.integrations.bridge import Bridge

        if config not in self._bridges:
            self._bridges[config] = Bridge.to(config, self._cascade)
        return self._bridges[config]

    def close(self) -> None:
        bridges, self._bridges = self._bridges, {}
        for bridge in bridges.values():
            bridge.close()


class CoreaModel(llm.Model):
    """``llm -m corea "What is 17 × 23?"``. What the cascade knows of the answer is in ``llm logs --json``."""

    model_id = "corea"
    can_stream = True

    class Options(Settings):
        pass

    def __init__(self, cascades: Cascades | None = None) -> None:
        self.cascades = cascades or Cascades()

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        bridge = self.cascades.of(prompt.options.config)
        request, sampling = _asked(prompt)
        yield from _texts(bridge.stream(request, sampling=sampling), response)


class AsyncCoreaModel(llm.AsyncModel):
    """The same, awaited."""

    model_id = "corea"
    can_stream = True

    class Options(Settings):
        pass

    def __init__(self, cascades: Cascades | None = None) -> None:
        self.cascades = cascades or Cascades()

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: llm.AsyncConversation | None,
    ) -> AsyncGenerator[str, None]:
        bridge = self.cascades.of(prompt.options.config)
        request, sampling = _asked(prompt)
        async for event in bridge.astream(request, sampling=sampling):
            for text in _texts([event], response):
                yield text


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    cascades = Cascades()
    register(CoreaModel(cascades), AsyncCoreaModel(cascades))


def _asked(prompt: llm.Prompt) -> tuple[Request, Sampling]:
    from corea.integrations.bridge import conversation, sampling_of

    request = conversation((message.role, _text(message.parts)) for message in prompt.messages)
    given = prompt.options
    return request, sampling_of({name: getattr(given, name) for name in ("max_tokens", "temperature", "seed")})


def _text(parts: list[Any]) -> object:
    """The text, or what the message holds instead."""
    return "".join(part.text for part in parts) if all(isinstance(part, TextPart) for part in parts) else parts


def _texts(events: Iterable[Text | Done], response: llm.Response | llm.AsyncResponse) -> Iterator[str]:
    """The answer's pieces; the end of it goes to the response, for ``llm``'s log."""
    from corea.integrations.bridge import facts, final
    from corea.run import Text

    for event in events:
        if isinstance(event, Text):
            yield event.text
            continue
        response.response_json = {"corea": facts(event.trace)}
        response.set_resolved_model(final(event.trace).model)
        usage = final(event.trace).usage
        if usage is not None:
            response.set_usage(input=usage.prompt_tokens, output=usage.completion_tokens)
