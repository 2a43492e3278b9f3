"""Traces and summaries as plain dictionaries, for ``--json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from corea.batch.run import Summary
from corea.policy.explain import explain, explain_trace
from corea.types import Trace


def trace_json(trace: Trace) -> dict[str, Any]:
    """Every field of the trace, what is derived from them, and the decisions in words."""
    attempts = [{**asdict(attempt), "explanation": explain(attempt)} for attempt in trace.attempts]
    return {
        "id": trace.id,
        "answer": trace.answer,
        "text": trace.text,
        "tier": trace.tier,
        "confidence": trace.confidence,
        "deferred": trace.deferred,
        "cost_nano_usd": trace.cost_nano_usd,
        "baseline_nano_usd": trace.baseline_nano_usd,
        "saved_nano_usd": trace.saved_nano_usd,
        "elapsed_s": trace.elapsed_s,
        "started_at_unix_s": trace.started_at_unix_s,
        "request": asdict(trace.request),
        "attempts": attempts,
        "fingerprint": trace.fingerprint,
        "prices_version": trace.prices_version,
        "explanation": explain_trace(trace),
    }


def summary_json(summary: Summary) -> dict[str, Any]:
    return {
        **{name: value for name, value in asdict(summary).items() if name != "bad_line_samples"},
        "answered": summary.answered,
        "accuracy": summary.accuracy,
        "deferral_rate": summary.deferral_rate,
        "saving": summary.saving,
        "bad_line_samples": [str(bad) for bad in summary.bad_line_samples],
    }
