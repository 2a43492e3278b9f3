"""A cascade as the engine of a DSPy LM. Knows no signatures and no adapters.

DSPy 3.4's own interface for engines: subclassing ``BaseLM``, as of old, is to go with 3.5.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from corea.cascade import Cascade
from corea.errors import CascadeExhausted, InputError
from corea.extras import extra
from corea.integrations.bridge import Bridge, conversation, facts, final, sampling_of
from corea.run import Done, Text
from corea.tier import Sampling
from corea.types import Request, Trace

with extra("dspy"):
    import dspy
    from dspy import lm15

_SETTINGS = ("max_tokens", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "stop")
#: What would shape the answer, and no cascade can honour.
_REFUSED = ("logprobs", "probabilities", "response_format", "tool_choice", "top_k")
FinishReason = Literal["stop", "length", "content_filter"]
_FINISHED: Mapping[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


def cascade_lm(config: str | Path | None = None, *, cascade: Cascade | None = None, **settings: Any) -> dspy.LM:
    """``dspy.configure(lm=cascade_lm("corea.toml"))``; without either the configuration is found.

    ``settings`` are those of :class:`dspy.LM`. DSPy caches answers: what comes of its cache costs nothing, and is in no
    ledger; ``cache=False`` asks each time. It tells cascades apart by their fingerprint, so that one without it is
    never cached. ``response.provider_data["corea"]`` holds the tier, its confidence, the cost and what was saved.
    """
    engine = CascadeEngine(config, cascade=cascade)
    if not engine.fingerprint:
        settings["cache"] = False
    model = f"corea/{engine.fingerprint[:16] or 'cascade'}"
    return dspy.LM(model, engine=engine, async_engine=AsyncCascadeEngine(engine), **settings)


class CascadeEngine:
    """What :class:`dspy.LM` asks. With a program its configuration's path is saved; a ready cascade cannot be."""

    def __init__(self, config: str | Path | None = None, *, cascade: Cascade | None = None) -> None:
        self._config = None if config is None else str(config)
        self._cascade = cascade

    def __deepcopy__(self, memo: object) -> Self:
        # DSPy's optimizers copy programs, and their models with them: all ask one cascade.
        return self

    @cached_property
    def bridge(self) -> Bridge:
        return Bridge.to(self._config, self._cascade)

    @property
    def fingerprint(self) -> str:
        return self.bridge.cascade.fingerprint

    def complete(self, request: lm15.Request) -> lm15.Response:
        try:
            return _response(self.bridge.ask(_request(request), sampling=_sampling(request)))
        except (CascadeExhausted, InputError) as exc:
            raise _told(exc) from exc

    def stream(self, request: lm15.Request) -> Iterator[lm15.StreamEvent]:
        try:
            yield lm15.StreamStartEvent(model=request.model)
            for event in self.bridge.stream(_request(request), sampling=_sampling(request)):
                yield _event(event)
        except (CascadeExhausted, InputError) as exc:
            raise _told(exc) from exc

    def close(self) -> None:
        """Close the cascade."""
        self.bridge.close()

    def dump_state(self) -> dict[str, Any]:
        if self._cascade is not None:
            raise InputError("a ready cascade cannot be saved; make the LM from a configuration file")
        return {"config": self._config, "fingerprint": self.fingerprint}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> Self:
        """Raises :class:`InputError` where the configuration is not what it was: DSPy's cache would not notice."""
        engine = cls(state["config"])
        if engine.fingerprint != state["fingerprint"]:
            engine.close()
            raise InputError("the cascade is not the one this program was saved with; load it without its LM")
        return engine


class AsyncCascadeEngine:
    """The same cascade, for ``acall`` and ``aforward``."""

    def __init__(self, engine: CascadeEngine) -> None:
        self._engine = engine

    async def complete(self, request: lm15.Request) -> lm15.Response:
        try:
            return _response(await self._engine.bridge.aask(_request(request), sampling=_sampling(request)))
        except (CascadeExhausted, InputError) as exc:
            raise _told(exc) from exc

    async def stream(self, request: lm15.Request) -> AsyncIterator[lm15.StreamEvent]:
        try:
            yield lm15.StreamStartEvent(model=request.model)
            async for event in self._engine.bridge.astream(_request(request), sampling=_sampling(request)):
                yield _event(event)
        except (CascadeExhausted, InputError) as exc:
            raise _told(exc) from exc

    async def aclose(self) -> None:
        """The cascade is the synchronous engine's to close."""

    def dump_state(self) -> dict[str, Any]:
        return self._engine.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> Self:
        # Opened at its first question: most programs never await.
        return cls(CascadeEngine(state["config"]))


def _request(request: lm15.Request) -> Request:
    if request.tools:
        raise InputError("a cascade calls no tools; give tools to one model, or go through corea serve")
    system = [] if request.system is None else [("system", _text(request.system))]
    return conversation([*system, *((message.role, _text(message.parts)) for message in request.messages)])


def _text(parts: object) -> object:
    """The text, or what the message holds instead."""
    if isinstance(parts, str):
        return parts
    if isinstance(parts, tuple) and all(isinstance(part, lm15.TextPart) for part in parts):
        return "".join(part.text for part in parts)
    return parts


def _sampling(request: lm15.Request) -> Sampling:
    config = request.config
    more = dict(config.extensions or {})
    return sampling_of({**more, **{name: getattr(config, name) for name in (*_SETTINGS, *_REFUSED)}})


def _told(error: CascadeExhausted | InputError) -> lm15.LM15Error:
    """In DSPy's words, so that it is neither taken for a fault of its own nor tried again."""
    kind = lm15.UnsupportedFeatureError if isinstance(error, InputError) else lm15.ProviderError
    return kind(str(error), provider="corea")


def _response(trace: Trace) -> lm15.Response:
    attempt = final(trace)
    return lm15.Response(
        id=trace.id,
        model=attempt.model,
        message=lm15.Message.assistant(attempt.text),
        finish_reason=_finish_reason(trace),
        usage=_usage(trace),
        provider_data={"corea": facts(trace)},
    )


def _event(event: Text | Done) -> lm15.StreamEvent:
    if isinstance(event, Text):
        return lm15.StreamDeltaEvent(lm15.TextDelta(event.text))
    trace = event.trace
    return lm15.StreamEndEvent(_finish_reason(trace), _usage(trace), {"corea": facts(trace)})


def _finish_reason(trace: Trace) -> FinishReason:
    return _FINISHED.get(final(trace).finish_reason or "", "stop")


def _usage(trace: Trace) -> lm15.Usage:
    """Tokens of the answer handed out. What all attempts cost is in ``provider_data``."""
    usage = final(trace).usage
    if usage is None:
        return lm15.Usage()
    return lm15.Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_tokens=usage.cached_prompt_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
