"""Keep or defer: one pure function."""

from __future__ import annotations

from corea.types import Confidence, Decision, Failure, Reason

#: Failures that say the question is too long for this model, not that the model is ill.
TOO_LONG = "ContextOverflow"


def decide(
    *,
    threshold: float | None,
    confidence: Confidence,
    finish_reason: str | None = None,
    failure: Failure | None = None,
) -> Decision:
    """Keep the attempt if its confidence reaches the threshold; ``threshold=None`` marks the last tier, always kept.

    A failed attempt defers. So does a reply that was cut off, whatever its confidence, and an unknown confidence.
    """
    if failure is not None:
        reason = Reason.TOO_LONG if failure.kind == TOO_LONG else Reason.FAILED
        return Decision(keep=False, reason=reason, threshold=threshold)
    if threshold is None:
        return Decision(keep=True, reason=Reason.LAST_TIER)
    if finish_reason == "length":
        return Decision(keep=False, reason=Reason.CUT_OFF, threshold=threshold)
    if confidence.value is None:
        return Decision(keep=False, reason=Reason.UNKNOWN_CONFIDENCE, threshold=threshold)
    keep = confidence.value >= threshold
    return Decision(keep=keep, reason=Reason.CONFIDENT if keep else Reason.BELOW_THRESHOLD, threshold=threshold)
