"""Keep or defer: one pure function, each reason in its turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.policy.thresholds import NOT_CERTIFIED, TOO_LONG, decide
from corea.policy.ties import fraction, keeps
from corea.types import Confidence, Decision, Failure, Reason

UNKNOWN = Confidence.unknown("logprob", "the server gave no log-probabilities")


def sure(value: float) -> Confidence:
    return Confidence(value=value, source="logprob")


@pytest.mark.parametrize(
    "value,threshold,reason",
    [
        (0.9, 0.8, Reason.CONFIDENT),
        (0.8, 0.8, Reason.CONFIDENT),
        (0.8 - 1e-16, 0.8, Reason.BELOW_THRESHOLD),
        (0.0, 0.0, Reason.CONFIDENT),
        (1.0, 1.0, Reason.CONFIDENT),
        (0.0, 1.0, Reason.BELOW_THRESHOLD),
    ],
)
def test_a_confidence_that_reaches_the_threshold_is_kept(value: float, threshold: float, reason: Reason) -> None:
    decision = decide(threshold=threshold, confidence=sure(value))
    assert decision == Decision(keep=reason is Reason.CONFIDENT, reason=reason, threshold=threshold)


@pytest.mark.parametrize("confidence", [sure(0.0), UNKNOWN])
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_the_last_tier_is_always_kept(confidence: Confidence, finish_reason: str) -> None:
    decision = decide(threshold=None, confidence=confidence, finish_reason=finish_reason)
    assert decision == Decision(keep=True, reason=Reason.LAST_TIER)


def test_an_unknown_confidence_defers_even_at_threshold_zero() -> None:
    assert decide(threshold=0.0, confidence=UNKNOWN).reason is Reason.UNKNOWN_CONFIDENCE


def test_a_reply_that_is_cut_off_never_passes() -> None:
    assert decide(threshold=0.0, confidence=sure(1.0), finish_reason="length").reason is Reason.CUT_OFF


@pytest.mark.parametrize(
    "kind,reason",
    [("UpstreamTimeout", Reason.FAILED), (TOO_LONG, Reason.TOO_LONG), (NOT_CERTIFIED, Reason.NOT_CERTIFIED)],
)
@pytest.mark.parametrize("threshold", [None, 0.0])
def test_a_failure_defers_whatever_the_confidence_and_says_of_what_kind_it_is(
    kind: str, reason: Reason, threshold: float | None
) -> None:
    failed = Failure(kind=kind, message="no answer")
    decision = decide(threshold=threshold, confidence=sure(1.0), failure=failed)
    assert decision == Decision(keep=False, reason=reason, threshold=threshold)


@given(question=st.text(), tie_fraction=st.floats(0, 1))
def test_at_the_threshold_the_hash_of_the_question_decides(question: str, tie_fraction: float) -> None:
    decision = decide(threshold=0.5, confidence=sure(0.5), tie_fraction=tie_fraction, question=question)
    kept = tie_fraction == 1 or fraction(question) <= tie_fraction
    assert decision.reason is (Reason.CONFIDENT if kept else Reason.TIED)
    assert decision.keep == kept


@given(question=st.text(), value=st.floats(0, 1), threshold=st.floats(0, 1), tie_fraction=st.floats(0, 1))
def test_a_cascade_decides_as_the_certificate_counted(
    question: str, value: float, threshold: float, tie_fraction: float
) -> None:
    decision = decide(threshold=threshold, confidence=sure(value), tie_fraction=tie_fraction, question=question)
    assert decision.keep == keeps(value, question, threshold=threshold, tie_fraction=tie_fraction)
    assert (decision.reason is Reason.BELOW_THRESHOLD) == (value < threshold)


@given(question=st.text(), values=st.tuples(st.floats(0, 1), st.floats(0, 1)), threshold=st.floats(0, 1))
def test_whoever_is_surer_is_not_deferred_for_it(question: str, values: tuple[float, float], threshold: float) -> None:
    low, high = (
        decide(threshold=threshold, confidence=sure(value), tie_fraction=0.5, question=question).keep
        for value in sorted(values)
    )
    assert high or not low
