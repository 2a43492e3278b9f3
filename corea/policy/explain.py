"""Decisions in words: one sentence a person understands."""

from __future__ import annotations

from corea.types import Attempt, Decision, Reason, Trace


def explain(attempt: Attempt) -> str:
    """Why this attempt was kept or deferred."""
    decision, tier = attempt.decision, attempt.tier
    match decision.reason:
        case Reason.CONFIDENT:
            return (
                f"Kept the answer of {tier}: its confidence {number(attempt.confidence.value)} "
                f"reaches the threshold {number(decision.threshold)}{_set_by(decision)}."
            )
        case Reason.LAST_TIER:
            noted = f" ({decision.note})" if decision.note else ""
            return f"Kept the answer of {tier}: it is the last tier, whose answer is final{noted}."
        case Reason.RELAYED:
            return f"Relayed the answer of {tier}: the request went to it as it is, and nobody judged the answer."
        case Reason.BELOW_THRESHOLD:
            return (
                f"Deferred from {tier}: its confidence {number(attempt.confidence.value)} "
                f"is below the threshold {number(decision.threshold)}{_set_by(decision)}."
            )
        case Reason.TIED:
            return (
                f"Deferred from {tier}: its confidence {number(attempt.confidence.value)} is exactly the threshold, "
                "where the certificate keeps only a share of the questions, and this one is not among them."
            )
        case Reason.NOT_CERTIFIED:
            return f"Skipped {tier}: its certificate promises nothing for this question."
        case Reason.UNKNOWN_CONFIDENCE:
            return f"Deferred from {tier}: its confidence is unknown ({attempt.confidence.note})."
        case Reason.GUARDED | Reason.DISAGREED:
            objected = "" if decision.guard is None else f"the guard {decision.guard} objected: "
            return f"Deferred from {tier}: {objected}{decision.note}."
        case Reason.SKIPPED:
            why = attempt.failure.message if attempt.failure else "no reason given"
            return f"Skipped {tier}, by {decision.policy}: {why}."
        case Reason.CUT_OFF:
            return f"Deferred from {tier}: its reply was cut off at the token limit before it had finished."
        case Reason.TOO_LONG:
            return f"Skipped {tier}: the question does not fit its context."
        case Reason.FAILED:
            why = attempt.failure.message if attempt.failure else "no reason given"
            return f"Deferred from {tier}: it failed ({why})."


def explain_trace(trace: Trace) -> str:
    """Every decision of a trace, in order, in one paragraph."""
    sentences = [explain(attempt) for attempt in trace.attempts]
    final = trace.attempt
    if final is None:
        sentences.append("No tier's answer could be handed out.")
    elif not final.decision.keep:
        sentences.append(f"No answer could be kept, so the best there is was handed out: that of {final.tier}.")
    return " ".join(sentences)


def _set_by(decision: Decision) -> str:
    if decision.policy is None:
        return ""
    return f" of the policy {decision.policy}" + (f" ({decision.note})" if decision.note else "")


def number(value: float | None) -> str:
    """Up to three decimals, never rounded across a threshold's edge for show: 0.9196 is not 0.92."""
    return "unknown" if value is None else f"{value:.4f}".rstrip("0").rstrip(".") or "0"
