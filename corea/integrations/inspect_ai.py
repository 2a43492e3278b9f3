"""A cascade as a model of Inspect AI, and a solver that keeps what the cascade knows of its answer with the sample.

Knows no scorer: a cascade's answers are scored like any other model's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from corea.cascade import Cascade
from corea.errors import InputError
from corea.extras import extra
from corea.integrations.bridge import Bridge, conversation, facts, final, sampling_of
from corea.types import Trace

with extra("inspect"):
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessage,
        ChatMessageAssistant,
        ContentText,
        GenerateConfig,
        ModelAPI,
        ModelOutput,
        ModelUsage,
        get_model,
        modelapi,
    )
    from inspect_ai.solver import Generate, Solver, TaskState, solver
    from inspect_ai.tool import ToolChoice, ToolInfo

#: Settings that would change what comes back, and that no cascade can honour.
_REFUSED = ("best_of", "logit_bias", "logprobs", "num_choices", "response_schema", "top_k")

StopReason = Literal["stop", "max_tokens", "content_filter"]
_STOPPED: Mapping[str, StopReason] = {"length": "max_tokens", "content_filter": "content_filter"}


@modelapi(name="corea")
class CoreaAPI(ModelAPI):
    """``--model corea/NAME -M config_file=corea.toml``; without it the configuration is found. NAME is a label.

    ``output.metadata["corea"]`` holds the tier, its confidence, the cost and what was saved.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self._config: str | Path | None = model_args.pop("config_file", None)
        self._cascade: Cascade | None = model_args.pop("cascade", None)
        if model_args:
            raise InputError(f"a cascade takes no {', '.join(sorted(model_args))}; -M config_file=PATH is all it takes")
        self._bridge: Bridge | None = Bridge.to(self._config, self._cascade)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        if tools:
            raise InputError("a cascade calls no tools; give tools to one model, or go through corea serve")
        request = conversation((message.role, _text(message)) for message in input)
        trace = await self._open().aask(request, sampling=sampling_of(_settings(config)))
        return _output(trace)

    async def aclose(self) -> None:
        # Inspect keeps models and may ask a closed one again; a ready cascade is closed once and for all.
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            await asyncio.to_thread(bridge.close)

    def _open(self) -> Bridge:
        if self._bridge is None:
            self._bridge = Bridge.to(self._config, self._cascade)
        return self._bridge


@solver
def cascade(config_file: str | None = None) -> Solver:
    """Ask the cascade, and keep what it tells in ``state.metadata["corea"]``, where logs and data frames find it.

    ``config_file=None`` asks the model under evaluation, which is then to be ``corea/…``.
    """
    model = None if config_file is None else f"corea/{Path(config_file).stem}"

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        asked = get_model() if model is None else get_model(model, config_file=config_file)
        state.output = await asked.generate(state.messages)
        told = (state.output.metadata or {}).get("corea")
        if told is None:
            raise InputError("the model under evaluation is no cascade; use --model corea/NAME, or name a config_file")
        state.messages.append(state.output.message)
        state.metadata["corea"] = told
        return state

    return solve


def _settings(config: GenerateConfig) -> dict[str, Any]:
    """What of Inspect's settings shapes an answer, by the cascade's names; those for one vendor are left out."""
    shared = ("max_tokens", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")
    return {
        **{name: getattr(config, name) for name in (*shared, *_REFUSED)},
        "stop": config.stop_seqs,
    }


def _text(message: ChatMessage) -> object:
    """The text, or what the message holds instead."""
    if isinstance(message.content, str) or all(isinstance(part, ContentText) for part in message.content):
        return message.text
    return message.content


def _output(trace: Trace) -> ModelOutput:
    attempt = final(trace)
    reply = ChatMessageAssistant(content=attempt.text, model=attempt.model, source="generate")
    return ModelOutput(
        model=attempt.model,
        choices=[ChatCompletionChoice(message=reply, stop_reason=_STOPPED.get(attempt.finish_reason or "", "stop"))],
        usage=_usage(trace),
        time=trace.elapsed_s,
        metadata={"corea": facts(trace)},
    )


def _usage(trace: Trace) -> ModelUsage | None:
    """Tokens of the answer handed out; the cost is that of all attempts."""
    usage, cost_nano_usd = final(trace).usage, trace.cost_nano_usd
    if usage is None:
        return None
    return ModelUsage(
        input_tokens=usage.prompt_tokens - usage.cached_prompt_tokens,
        input_tokens_cache_read=usage.cached_prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        total_cost=None if cost_nano_usd is None else cost_nano_usd / 1e9,
    )
