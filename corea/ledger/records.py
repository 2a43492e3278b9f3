"""A trace as rows, and rows as a trace. Knows the columns' names, not how they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from corea.types import Attempt, Confidence, Decision, Failure, Message, Reason, Request, Trace, Usage

Row = dict[str, Any]

#: What the gateway says of a trace, in its metadata: whose key it was, what was asked for as ``model``, what was set
#: aside. Nothing of a client may be in the metadata under these names, or it could charge another one's key.
KEY, MODEL, RESERVATION, RESERVED = "key", "model", "reservation", "reserved_nano_usd"


def trace_row(trace: Trace, *, store_texts: bool) -> Row:
    """The row of ``traces``. What follows from the attempts is stored too, so lists and sums need no join.

    ``metadata`` must be JSON: string keys, no NaN. A tuple in it comes back as a list.
    """
    key_id, profile = attribution(trace)
    return {
        "id": trace.id,
        "request_id": trace.request.id,
        "task": trace.request.task,
        "kind": trace.request.kind,
        "messages": [{"role": m.role, "content": m.content} for m in trace.request.messages] if store_texts else None,
        "answer": trace.answer if store_texts else None,
        "text": trace.text if store_texts else None,
        "tier": trace.tier,
        "confidence": trace.confidence,
        "deferred": trace.deferred,
        "error": trace.final is None,
        "final": trace.final,
        "cost_nano_usd": trace.cost_nano_usd,
        "baseline_nano_usd": trace.baseline_nano_usd,
        "saved_nano_usd": trace.saved_nano_usd,
        "started_at_unix_s": trace.started_at_unix_s,
        "elapsed_s": trace.elapsed_s,
        "fingerprint": trace.fingerprint,
        "prices_version": trace.prices_version,
        "metadata": dict(trace.metadata),
        "key_id": key_id,
        "profile": profile,
        "rolled_up": True,
    }


def attribution(trace: Trace) -> tuple[str | None, str | None]:
    """The virtual key and the profile that the request came by, where the gateway said so."""
    key_id, profile = trace.metadata.get(KEY), trace.metadata.get(MODEL)
    return key_id if isinstance(key_id, str) else None, profile if isinstance(profile, str) else None


def attempt_rows(trace: Trace, *, store_texts: bool) -> list[Row]:
    """The rows of ``attempts``, in order."""
    return [_attempt_row(trace.id, i, attempt, store_texts) for i, attempt in enumerate(trace.attempts)]


def to_trace(row: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]) -> Trace:
    """The trace that was written. Texts that were not stored read as no messages, ``""`` and no answer."""
    messages = tuple(Message(role=m["role"], content=m["content"]) for m in row["messages"] or ())
    return Trace(
        id=row["id"],
        request=Request(messages=messages, id=row["request_id"], task=row["task"], kind=row["kind"]),
        attempts=tuple(_to_attempt(attempt) for attempt in attempts),
        final=row["final"],
        started_at_unix_s=row["started_at_unix_s"],
        elapsed_s=row["elapsed_s"],
        cost_nano_usd=row["cost_nano_usd"],
        baseline_nano_usd=row["baseline_nano_usd"],
        fingerprint=row["fingerprint"],
        prices_version=row["prices_version"],
        metadata=row["metadata"],
    )


def _attempt_row(trace_id: str, position: int, attempt: Attempt, store_texts: bool) -> Row:
    failure = attempt.failure
    return {
        "trace_id": trace_id,
        "position": position,
        "tier": attempt.tier,
        "model": attempt.model,
        "keep": attempt.decision.keep,
        "reason": attempt.decision.reason.value,
        "threshold": attempt.decision.threshold,
        "guard": attempt.decision.guard,
        "policy": attempt.decision.policy,
        "note": attempt.decision.note,
        "confidence": attempt.confidence.value,
        "confidence_source": attempt.confidence.source,
        "confidence_note": attempt.confidence.note,
        "text": attempt.text if store_texts else None,
        "answer": attempt.answer if store_texts else None,
        "finish_reason": attempt.finish_reason,
        **_usage_columns("", attempt.usage),
        **_usage_columns("confidence_", attempt.confidence_usage),
        "cost_nano_usd": attempt.cost_nano_usd,
        "latency_s": attempt.latency_s,
        "failure_kind": failure.kind if failure else None,
        "failure_message": failure.message if failure else None,
    }


def _to_attempt(row: Mapping[str, Any]) -> Attempt:
    return Attempt(
        tier=row["tier"],
        model=row["model"],
        decision=Decision(
            keep=row["keep"],
            reason=Reason(row["reason"]),
            threshold=row["threshold"],
            guard=row["guard"],
            policy=row["policy"],
            note=row["note"],
        ),
        confidence=Confidence(value=row["confidence"], source=row["confidence_source"], note=row["confidence_note"]),
        text=row["text"] or "",
        answer=row["answer"],
        finish_reason=row["finish_reason"],
        usage=_to_usage(row),
        confidence_usage=_to_usage(row, "confidence_"),
        cost_nano_usd=row["cost_nano_usd"],
        latency_s=row["latency_s"],
        failure=_to_failure(row),
    )


_COUNTS = tuple(field.name for field in fields(Usage))


def _usage_columns(prefix: str, usage: Usage | None) -> Row:
    return {prefix + name: getattr(usage, name) if usage else None for name in _COUNTS}


def _to_usage(row: Mapping[str, Any], prefix: str = "") -> Usage | None:
    counts = {name: row[prefix + name] for name in _COUNTS}
    return None if counts["prompt_tokens"] is None else Usage(**counts)


def _to_failure(row: Mapping[str, Any]) -> Failure | None:
    if row["failure_kind"] is None:
        return None
    return Failure(kind=row["failure_kind"], message=row["failure_message"])
