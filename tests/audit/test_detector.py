"""A rise of harm is found soon; where there is none, the alarm keeps still."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.audit_drift import SHARE, alarms, answers
from corea.audit.detector import AUDITS_PER_START, Detector, log_weight
from corea.audit.sequence import Scope

LIMIT, DELTA = 0.02, 0.05


def first_alarm(values: list[int], questions: list[int], scope: Scope) -> int:
    """One run through the detector itself, question by question."""
    detector = Detector.of(scope, LIMIT)
    for at, (value, count) in enumerate(zip(values, questions, strict=True), start=1):
        detector = detector.after_unaudited(count - 1).after(value / SHARE)
        if detector.log_e >= -math.log(DELTA):
            return at
    return 0


@pytest.mark.parametrize("least,gain", [(0.0, 0.0), (-1.0, 0.02)])
def test_the_simulated_alarm_is_the_detectors_own(least: float, gain: float) -> None:
    seen = answers(np.random.default_rng(3), 6, np.concatenate([np.full(150, 0.02), np.full(900, 0.12)]), gain)
    scope = Scope(least=least, most=1, min_propensity=SHARE)
    one_by_one = [
        first_alarm(values, counts, scope) for values, counts in zip(*(a.tolist() for a in seen), strict=True)
    ]
    assert one_by_one == alarms(seen, least=least).tolist()
    assert any(one_by_one)


@pytest.mark.parametrize("least,gain", [(0.0, 0.0), (-1.0, 0.02)])
def test_at_the_limit_itself_a_thousand_runs_ring_no_more_often_than_delta(least: float, gain: float) -> None:
    seen = answers(np.random.default_rng(4), 1_000, np.full(2_000, LIMIT + gain), gain)
    assert np.count_nonzero(alarms(seen, least=least)) / 1_000 <= DELTA


def test_a_rise_after_a_long_quiet_time_is_found() -> None:
    harm = np.concatenate([np.full(2_000, 0.01), np.full(1_000, 0.06)])
    first = alarms(answers(np.random.default_rng(5), 200, harm), least=0.0)
    late = first[first > 2_000]
    assert len(late) >= 195
    assert np.median(late - 2_000) < 450


def test_all_starts_together_risk_no_more_than_one() -> None:
    risk = sum(math.exp(log_weight(start)) for start in range(200_000))
    # ∫ s^(−1.25) of the rest.
    rest = 4 * 200_000**-0.25 / (2 * 3.5952)
    assert 0.999 < risk + rest <= 1.0


def test_quiet_forever_is_no_evidence_and_no_underflow() -> None:
    detector = Detector.of(Scope(least=0, most=1, min_propensity=0.05), LIMIT)
    for _ in range(20 * AUDITS_PER_START):
        detector = detector.after_unaudited(10**6).after(0.0)
    assert -30 < detector.log_e < 0
