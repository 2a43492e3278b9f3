"""What spans say: names of OpenTelemetry's GenAI conventions, or ``corea.`` ones. Knows our values, not OpenTelemetry.

Nothing here is a prompt, an answer, an error's words or a header.
"""

from __future__ import annotations

from typing import Any

from corea.gateway.endpoints import Endpoint
from corea.gateway.served import Served
from corea.tier import Sampling, Tier
from corea.types import Attempt, Trace, Usage

Attributes = dict[str, Any]

#: Of what an upstream says of itself, so much.
_LONGEST = 200


def of_endpoint(endpoint: Endpoint) -> Attributes:
    return {
        "gen_ai.provider.name": endpoint.provider,
        "gen_ai.request.model": endpoint.model,
        "server.address": endpoint.address,
        "server.port": endpoint.port,
    }


def of_sampling(tier: Tier, sampling: Sampling, *, streams: bool) -> Attributes:
    """How the reply is to be sampled; not where it is to stop, which is a user's text."""
    chosen = sampling.set()
    return known(
        {
            "corea.purpose": "answer",
            "gen_ai.request.max_tokens": chosen.get("max_tokens", tier.max_tokens),
            "gen_ai.request.temperature": float(chosen.get("temperature", tier.temperature)),
            "gen_ai.request.top_p": chosen.get("top_p"),
            "gen_ai.request.seed": chosen.get("seed"),
            "gen_ai.request.presence_penalty": chosen.get("presence_penalty"),
            "gen_ai.request.frequency_penalty": chosen.get("frequency_penalty"),
            "gen_ai.request.stream": True if streams else None,
        }
    )


def of_attempt(attempt: Attempt) -> Attributes:
    decision = attempt.decision
    reply: Attributes = {"gen_ai.response.finish_reasons": ["error"]}
    if attempt.answered:
        reply = of_reply(attempt.model, attempt.finish_reason, attempt.usage)
    return {
        **reply,
        "corea.decision": "keep" if decision.keep else "defer",
        "corea.reason": decision.reason.value,
        "corea.guard": decision.guard,
        "corea.policy": decision.policy,
        "corea.confidence": attempt.confidence.value,
        "corea.threshold": decision.threshold,
        "corea.cost_usd": _usd(attempt.cost_nano_usd),
    }


def of_reply(model: str, finish_reason: str | None, usage: Usage | None) -> Attributes:
    told: Attributes = {
        "gen_ai.response.model": model[:_LONGEST],
        "gen_ai.response.finish_reasons": None if finish_reason is None else [finish_reason[:_LONGEST]],
    }
    if usage is None:
        return told
    return {
        **told,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def of_request(served: Served) -> Attributes:
    told: Attributes = {"corea.key": served.key, "corea.error": served.error}
    # Nobody saw the status of a request whose client left.
    if served.status and served.status != 499:
        told["http.response.status_code"] = served.status
    if served.first_token_s is not None:
        told["corea.time_to_first_token_s"] = served.first_token_s
    return told if served.trace is None else {**told, **_of_trace(served.trace)}


def _of_trace(trace: Trace) -> Attributes:
    return {
        "corea.trace_id": trace.id,
        "corea.model": trace.metadata.get("model"),
        # Why is not said: that may be the name of a parameter, which a client wrote.
        "corea.passthrough": "passthrough" in trace.metadata or None,
        "corea.tier": trace.tier,
        "corea.deferred": None if trace.final is None else trace.deferred,
        "corea.confidence": trace.confidence,
        "corea.cost_usd": _usd(trace.cost_nano_usd),
        "corea.saved_usd": _usd(trace.saved_nano_usd),
    }


def known(attributes: Attributes) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _usd(nano_usd: int | None) -> float | None:
    return None if nano_usd is None else nano_usd / 1e9
