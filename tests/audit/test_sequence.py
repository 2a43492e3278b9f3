"""Bounds that hold at all times: simulated at the edge, under drift, and with propensities that change."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from corea.audit.detector import Detector
from corea.audit.sequence import Bounds, HarmSequence, Scope, bets
from corea.errors import InputError

Floats = NDArray[np.float64]
DROP = Scope(least=-1, most=1, min_propensity=0.05)
DIFFERS = Scope(least=0, most=1, min_propensity=0.05)
DELTA = 0.05
RUNS, STEPS = 1_000, 2_000


def ever_missed(values: Floats, means: Floats, scope: Scope) -> float:
    """Share of the runs, (runs, steps) both, in which the running mean is ever outside bounds at DELTA, two-sided."""
    missed = np.zeros(len(values), dtype=bool)
    counts = np.arange(1, values.shape[1] + 1)
    for sign, least in ((1, scope.least), (-1, -scope.most)):
        mixed = bets(least, scope.min_propensity)
        running = sign * np.cumsum(means, axis=1) / counts
        log_e = np.full(values.shape, -np.inf)
        for size, weight in zip(mixed.sizes, mixed.log_weights, strict=True):
            grown = np.cumsum(np.log1p(size * sign * values), axis=1) - counts * np.log1p(size * running)
            np.logaddexp(log_e, grown + weight, out=log_e)
        missed |= (log_e >= math.log(2 / DELTA)).any(axis=1)
    return float(missed.mean())


def audited(rng: np.random.Generator, harm: Floats, gain: Floats, propensity: Floats) -> Floats:
    """Weighted values of simulated questions; all four of shape (runs, steps)."""
    drawn = rng.random(harm.shape)
    true = (drawn < harm).astype(float) - ((drawn >= harm) & (drawn < harm + gain))
    return np.where(rng.random(harm.shape) < propensity, true / propensity, 0.0)


def full(value: float) -> Floats:
    return np.full((RUNS, STEPS), value)


@pytest.mark.parametrize("harm,gain,share", [(0.02, 0.0, 0.05), (0.3, 0.0, 0.5), (0.1, 0.0, 1.0), (0.2, 0.15, 0.5)])
def test_whoever_may_stop_at_any_time_is_misled_with_probability_delta_at_most(
    harm: float, gain: float, share: float
) -> None:
    rng = np.random.default_rng(7)
    scope = Scope(least=-1 if gain else 0, most=1, min_propensity=share)
    values = audited(rng, full(harm), full(gain), full(share))
    assert ever_missed(values, full(harm - gain), scope) <= DELTA
    # And the bounds say something: a mean of twice the harm is out of them in many more runs.
    assert share < 0.5 or ever_missed(values, full(2 * harm), scope) > 0.5


def test_bounds_hold_where_the_propensity_follows_the_confidence_and_the_past() -> None:
    rng = np.random.default_rng(8)
    unsure = rng.random((RUNS, STEPS)) < 0.3
    harm = np.where(unsure, 0.1, 0.01)
    # After each harmed answer found, more are looked at for a while: allowed, for it is known before the lot is drawn.
    values = np.empty((RUNS, STEPS))
    alert = np.zeros(RUNS, dtype=bool)
    for step in range(STEPS):
        propensity = np.where(unsure[:, step], 0.5, 0.25) * np.where(alert, 2.0, 1.0)
        drawn = audited(rng, harm[:, step], np.zeros(RUNS), propensity)
        values[:, step] = drawn
        alert = (drawn > 0) | (alert & (rng.random(RUNS) < 0.95))
    scope = Scope(least=0, most=1, min_propensity=0.25)
    assert ever_missed(values, harm, scope) <= DELTA
    # And the weights do their work: with one weight for all, the unsure ones would count too much.
    one_weight = np.where(values > 0, 1 / 0.3, 0.0)
    assert ever_missed(one_weight, harm, scope) > DELTA


def test_bounds_hold_for_the_running_mean_of_a_harm_that_drifts() -> None:
    rng = np.random.default_rng(9)
    wave = 0.05 * (1 + np.sin(np.arange(STEPS) / 150))
    jump = np.where(np.arange(STEPS) < STEPS // 2, 0.005, 0.2)
    harm = np.where(np.arange(RUNS)[:, None] % 2 == 0, wave, jump)
    scope = Scope(least=0, most=1, min_propensity=0.5)
    values = audited(rng, harm, full(0.0), full(0.5))
    assert ever_missed(values, harm, scope) <= DELTA
    # Of the running mean, not of the harm right now.
    last = np.repeat(harm[:, [-1]], STEPS, axis=1)
    assert ever_missed(values, last, scope) > 0.5


@given(
    seed=st.integers(0, 2**32 - 1),
    scope=st.sampled_from([DROP, DIFFERS]),
    propensity=st.floats(0.05, 1),
    delta=st.floats(0.001, 0.5),
)
def test_bounds_are_where_the_evidence_reaches_one_in_delta(
    seed: int, scope: Scope, propensity: float, delta: float
) -> None:
    rng = np.random.default_rng(seed)
    sequence = HarmSequence.of(scope)
    for value in rng.choice([0.0, 1.0, scope.least], size=60, p=[0.8, 0.15, 0.05]):
        sequence = sequence.after(value, value, propensity).after_unaudited(3)
    found = sequence.bounds(delta)
    assert scope.least <= found.low <= found.high <= scope.most
    wanted = math.log(2 / delta)
    if found.low > scope.least:
        assert sequence.below.log_e(found.low, found.n) >= wanted > sequence.below.log_e(found.low + 1e-9, found.n)
    if found.high < scope.most:
        assert sequence.above.log_e(-found.high, found.n) >= wanted > sequence.above.log_e(1e-9 - found.high, found.n)


def test_nothing_seen_bounds_nothing() -> None:
    assert HarmSequence.of(DROP).bounds(DELTA) == Bounds(n=0, mean=None, low=-1, high=1)


def test_without_harm_the_upper_bound_follows_the_rule_of_three() -> None:
    sequence = HarmSequence.of(DIFFERS)
    for _ in range(200):
        sequence = sequence.after(0, 0, 0.05).after_unaudited(19)
    found = sequence.bounds(DELTA)
    # ln(2/δ) ÷ 200 = 0.018 is the best one look could do; all looks cost half as much again.
    assert found.low == 0
    assert 0.018 < found.high < 0.03


def test_a_million_questions_leave_bounds_that_are_close_and_exact() -> None:
    rng = np.random.default_rng(11)
    sequence = HarmSequence.of(DIFFERS)
    harmed = 0
    for gap in rng.geometric(0.05, size=50_000):
        harm = float(rng.random() < 0.02)
        harmed += int(harm)
        sequence = sequence.after_unaudited(int(gap) - 1).after(harm, harm, 0.05)
    found = sequence.bounds(DELTA)
    assert found.n > 950_000
    assert found.mean == pytest.approx(harmed / 0.05 / found.n)
    assert 0.0175 < found.low < 0.02 < found.high < 0.0225
    # Each step's rounding could add up: against the same sum done once.
    for grown, size in zip(sequence.below.growth, sequence.below.bets.sizes, strict=True):
        assert grown == pytest.approx(harmed * math.log1p(size * 20), rel=1e-11)


@given(order=st.permutations([0.0] * 5 + [1.0] * 4 + [-1.0] * 2))
def test_the_order_of_the_answers_changes_no_bound(order: list[float]) -> None:
    found = HarmSequence.of(DROP)
    for value in order:
        found = found.after(value, value, 0.5)
    first = HarmSequence.of(DROP)
    for value in sorted(order):
        first = first.after(value, value, 0.5)
    assert found.bounds(DELTA).low == pytest.approx(first.bounds(DELTA).low, abs=1e-12)
    assert found.bounds(DELTA).high == pytest.approx(first.bounds(DELTA).high, abs=1e-12)


def test_what_is_known_less_of_bounds_less() -> None:
    known = unknown = HarmSequence.of(DROP)
    for at in range(300):
        known = known.after(at % 10 == 0, at % 10 == 0, 0.5)
        unknown = unknown.after(0, at % 10 == 0, 0.5)
    assert unknown.bounds(DELTA).low < known.bounds(DELTA).low
    assert unknown.bounds(DELTA).high == known.bounds(DELTA).high


def test_nothing_out_of_scope_is_taken_in() -> None:
    sequence = HarmSequence.of(DIFFERS)
    for least, most, propensity in ((0, 1, 0.049), (0, 1, 1.01), (0, 1, 0), (-0.5, 0, 0.5), (0, 1, float("nan"))):
        with pytest.raises(InputError):
            sequence.after(least, most, propensity)
    for scope in ((0.1, 1, 0.5), (-1, 0, 0.5), (0, 2, 0.5), (0, 1, 0), (0, 1, 1.5), (0, 1, float("nan"))):
        with pytest.raises(InputError):
            Scope(least=scope[0], most=scope[1], min_propensity=scope[2])


@given(seed=st.integers(0, 2**32 - 1), scope=st.sampled_from([DROP, DIFFERS]), limit=st.floats(0, 0.3))
def test_the_alarm_rings_at_the_latest_when_the_lower_bound_passes_the_limit(
    seed: int, scope: Scope, limit: float
) -> None:
    rng = np.random.default_rng(seed)
    sequence, detector = HarmSequence.of(scope), Detector.of(scope, limit)
    for value in (rng.random(200) < rng.random()).astype(float):
        sequence, detector = sequence.after(value, value, 0.5), detector.after(value / 0.5)
        if sequence.below.log_e(limit, sequence.n) >= math.log(2 / DELTA):
            assert detector.log_e >= math.log(1 / DELTA) - 1e-9
            return


def test_numbers_far_from_one_overflow_nothing() -> None:
    sequence = replace(HarmSequence.of(DIFFERS), n=10**9)
    assert sequence.bounds(DELTA).high < 1e-6
    for _ in range(5_000):
        sequence = sequence.after(1, 1, 0.05)
    assert math.isfinite(sequence.below.log_e(0.0, sequence.n))
