"""Keep or defer: one pure function."""

from __future__ import annotations

from corea.policy.ties import keeps
from corea.types import Confidence, Decision, Failure, Reason

#: Failures that say the question is too long for this model, not that the model is ill.
TOO_LONG = "ContextOverflow"
#: And those that say the model was not asked.
NOT_CERTIFIED, SKIPPED = "NotCertified", "TierSkipped"
#: And this one that its answer was no longer needed: of two tiers asked side by side the other one was first.
OUTRUN = "Outrun"

_REASONS = {
    TOO_LONG: Reason.TOO_LONG,
    NOT_CERTIFIED: Reason.NOT_CERTIFIED,
    SKIPPED: Reason.SKIPPED,
    OUTRUN: Reason.SKIPPED,
}


def decide(
    *,
    threshold: float | None,
    confidence: Confidence,
    finish_reason: str | None = None,
    failure: Failure | None = None,
    tie_fraction: float = 1.0,
    question: str = "",
) -> Decision:
    """Keep the attempt if its confidence reaches the threshold; ``threshold=None`` marks the last tier, always kept.

    A failed attempt defers. So does a reply that was cut off, whatever its confidence, and an unknown confidence. Of
    the questions whose confidence is exactly the threshold, a hash picks the share ``tie_fraction`` to keep
    (:mod:`corea.policy.ties`).
    """
    if failure is not None:
        return Decision(keep=False, reason=_REASONS.get(failure.kind, Reason.FAILED), threshold=threshold)
    if threshold is None:
        return Decision(keep=True, reason=Reason.LAST_TIER)
    if finish_reason == "length":
        return Decision(keep=False, reason=Reason.CUT_OFF, threshold=threshold)
    if confidence.value is None:
        return Decision(keep=False, reason=Reason.UNKNOWN_CONFIDENCE, threshold=threshold)
    if keeps(confidence.value, question, threshold=threshold, tie_fraction=tie_fraction):
        return Decision(keep=True, reason=Reason.CONFIDENT, threshold=threshold)
    below = confidence.value < threshold
    return Decision(keep=False, reason=Reason.BELOW_THRESHOLD if below else Reason.TIED, threshold=threshold)
