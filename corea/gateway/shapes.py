"""Traces → what OpenAI's clients read: completions, chunks, responses, and what COREA adds to them."""

from __future__ import annotations

from typing import Any

import orjson

from corea.policy.explain import explain_trace
from corea.types import Attempt, Trace, Usage

Shape = dict[str, Any]

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
#: OpenAI knows no other reasons, and clients check.
_FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls", "function_call"})


def completion(trace: Trace, *, model: str, corea: Shape | None) -> Shape:
    attempt = _handed_out(trace)
    message = {"role": "assistant", "content": attempt.text, "refusal": None}
    return {
        "id": f"chatcmpl-{trace.id}",
        "object": "chat.completion",
        "created": int(trace.started_at_unix_s),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(attempt)}],
        "usage": usage(attempt.usage),
        "system_fingerprint": trace.fingerprint or None,
        **({} if corea is None else {"corea": corea}),
    }


def text_completion(trace: Trace, *, model: str, corea: Shape | None) -> Shape:
    """The old completions API."""
    attempt = _handed_out(trace)
    choice = {"index": 0, "text": attempt.text, "logprobs": None, "finish_reason": finish_reason(attempt)}
    return {
        "id": f"cmpl-{trace.id}",
        "object": "text_completion",
        "created": int(trace.started_at_unix_s),
        "model": model,
        "choices": [choice],
        "usage": usage(attempt.usage),
        **({} if corea is None else {"corea": corea}),
    }


class ChunkWriter:
    """The events of one streamed chat completion. What all of them share is serialized once."""

    def __init__(self, *, id: str, created_s: float, model: str, include_usage: bool) -> None:
        head = {"id": f"chatcmpl-{id}", "object": "chat.completion.chunk", "created": int(created_s), "model": model}
        self._head = head
        self._before = b"data: " + orjson.dumps(head)[:-1] + b',"choices":[{"index":0,"delta":{"content":'
        after = b'},"logprobs":null,"finish_reason":null}]'
        self._after = after + (b',"usage":null}\n\n' if include_usage else b"}\n\n")
        self._include_usage = include_usage
        self._null_usage: Shape = {"usage": None} if include_usage else {}

    def first(self) -> bytes:
        return self._event(_choice({"role": "assistant", "content": "", "refusal": None}), self._null_usage)

    def text(self, text: str) -> bytes:
        return self._before + orjson.dumps(text) + self._after

    def last(self, trace: Trace, *, corea: Shape | None) -> bytes:
        """The reason why it ended, what COREA says of it, and, where asked for, the usage."""
        attempt = _handed_out(trace)
        said: Shape = {} if corea is None else {"corea": corea}
        end = self._event(_choice({}, finish_reason(attempt)), self._null_usage | said)
        counted = event({**self._head, "choices": [], "usage": usage(attempt.usage)}) if self._include_usage else b""
        return end + counted + DONE

    def _event(self, choice: Shape, more: Shape) -> bytes:
        return event({**self._head, "choices": [choice], **more})


def event(payload: object, name: str | None = None) -> bytes:
    """One server-sent event."""
    named = b"" if name is None else b"event: " + name.encode() + b"\n"
    return named + b"data: " + orjson.dumps(payload) + b"\n\n"


def corea_field(trace: Trace, *, route: str, overhead_s: float) -> Shape:
    """What COREA says of an answer, for its body. Money is USD as text: a float would round it."""
    final = trace.attempt
    return {
        "trace_id": trace.id,
        "route": route,
        "confidence": trace.confidence,
        "deferred": trace.deferred,
        "cost_usd": usd(trace.cost_nano_usd),
        "saved_usd": usd(trace.saved_nano_usd),
        "overhead_ms": round(overhead_s * 1e3, 3),
        "model": final.model if final else None,
        "reason": final.decision.reason.value if final else None,
        "explanation": explain_trace(trace),
    }


def corea_headers(trace: Trace, *, route: str, overhead_s: float) -> dict[str, str]:
    """The same, as far as headers go. What is unknown has no header."""
    confidence = trace.confidence
    headers = {
        "x-corea-trace-id": trace.id,
        "x-corea-route": route,
        "x-corea-deferred": "true" if trace.deferred else "false",
        "x-corea-confidence": None if confidence is None else f"{confidence:.6g}",
        "x-corea-cost-usd": usd(trace.cost_nano_usd),
        "x-corea-saved-usd": usd(trace.saved_nano_usd),
        "x-corea-overhead-ms": f"{overhead_s * 1e3:.3f}",
    }
    return {name: value for name, value in headers.items() if value is not None}


def usd(nano_usd: int | None) -> str | None:
    """Exact decimal USD: ``0.000012345``."""
    if nano_usd is None:
        return None
    whole, rest = divmod(abs(nano_usd), 10**9)
    return f"{'-' if nano_usd < 0 else ''}{whole}.{rest:09d}"


def usage(counted: Usage | None) -> Shape | None:
    if counted is None:
        return None
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": counted.completion_tokens,
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": counted.cached_prompt_tokens},
        "completion_tokens_details": {"reasoning_tokens": counted.reasoning_tokens},
    }


def finish_reason(attempt: Attempt) -> str:
    return attempt.finish_reason if attempt.finish_reason in _FINISH_REASONS else "stop"


def _choice(delta: Shape, reason: str | None = None) -> Shape:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _handed_out(trace: Trace) -> Attempt:
    if trace.attempt is None:
        raise ValueError("only a trace with an answer can be shown as one")
    return trace.attempt
