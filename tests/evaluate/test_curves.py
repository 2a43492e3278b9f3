"""Curves equal a slow reading, threshold by threshold; their ends are the tiers alone; unknown costs stay unknown."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import InputError
from corea.evaluate.curves import (
    DeferralCurve,
    area_under,
    curve_of,
    deferral_curve,
    oracle_kept,
    reliability,
    risk_coverage,
    share_of_oracle_saving,
    spread,
)
from corea.evaluate.metrics import Resamples, rank, signal_metrics
from corea.evaluate.outcomes import Floats, Pair

NAN = float("nan")


def pair_of(
    small: list[float], large: list[float], confidence: list[float], *, small_cost: float = 10, large_cost: float = 100
) -> Pair:
    n = len(small)
    return Pair(
        small="s",
        large="l",
        ids=np.array([f"q{i}" for i in range(n)], dtype=object),
        tasks=np.full(n, "t", dtype=object),
        small_correct=np.array(small, dtype=float),
        large_correct=np.array(large, dtype=float),
        small_cost_nano_usd=np.full(n, float(small_cost)) + np.arange(n) % 3,
        large_cost_nano_usd=np.full(n, float(large_cost)) + np.arange(n) % 7,
        confidence={"c": np.array(confidence, dtype=float)},
    )


def random_pair(n: int, seed: int, *, unknown: float = 0.1) -> Pair:
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(n), 2)
    small = (rng.random(n) < confidence).astype(float)
    large = (rng.random(n) < 0.8).astype(float)
    confidence[rng.random(n) < unknown] = NAN
    return pair_of(list(small), list(large), list(confidence))


rows = st.lists(
    st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 1.0]), st.integers(0, 6) | st.just(-1)),
    min_size=1,
    max_size=40,
)


def pair_from(drawn: list[tuple[float, float, int]]) -> Pair:
    return pair_of([s for s, _, _ in drawn], [g for _, g, _ in drawn], [NAN if c < 0 else c / 6 for _, _, c in drawn])


def slow_point(pair: Pair, threshold: float) -> tuple[float, float, float]:
    """Accuracy, cost and deferral rate at one threshold, question by question."""
    right = cost = deferred = 0.0
    for i in range(len(pair)):
        cost += pair.small_cost_nano_usd[i]
        # NaN ≥ anything is false: an unknown confidence defers.
        if pair.confidence["c"][i] >= threshold:
            right += pair.small_correct[i]
            continue
        right += pair.large_correct[i]
        cost += pair.large_cost_nano_usd[i]
        deferred += 1
    return right / len(pair), cost / len(pair), deferred / len(pair)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_every_point_is_what_its_threshold_does(drawn: list[tuple[float, float, int]]) -> None:
    pair = pair_from(drawn)
    curve = curve_of(pair, "c")
    known = {c for c in pair.confidence["c"] if not np.isnan(c)}
    assert list(curve.thresholds) == [np.inf, *sorted(known, reverse=True)]
    assert curve.cost_nano_usd is not None
    assert curve.saving is not None
    for i, threshold in enumerate(curve.thresholds):
        accuracy, cost, deferred = slow_point(pair, threshold)
        assert curve.accuracy[i] == pytest.approx(accuracy)
        assert curve.cost_nano_usd[i] == pytest.approx(cost)
        assert curve.deferral_rate[i] == pytest.approx(deferred)
        assert curve.saving[i] == pytest.approx(1 - cost / pair.large_cost_nano_usd.mean())


@given(rows)
@settings(max_examples=60, deadline=None)
def test_costs_fall_as_the_threshold_falls(drawn: list[tuple[float, float, int]]) -> None:
    curve = curve_of(pair_from(drawn), "c")
    assert curve.cost_nano_usd is not None
    assert np.all(np.diff(curve.cost_nano_usd) <= 0)
    assert np.all(np.diff(curve.thresholds) < 0)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_the_ends_are_the_tiers_alone(drawn: list[tuple[float, float, int]]) -> None:
    pair = pair_from([(s, g, max(c, 0)) for s, g, c in drawn])
    curve = curve_of(pair, "c")
    assert curve.cost_nano_usd is not None
    assert curve.accuracy[0] == pytest.approx(pair.large_correct.mean())
    # A cascade pays the small model for every question, deferred or not.
    assert curve.cost_nano_usd[0] == pytest.approx((pair.small_cost_nano_usd + pair.large_cost_nano_usd).mean())
    assert curve.accuracy[-1] == pytest.approx(pair.small_correct.mean())
    assert curve.cost_nano_usd[-1] == pytest.approx(pair.small_cost_nano_usd.mean())
    assert (curve.deferral_rate[0], curve.deferral_rate[-1]) == (1, 0)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_the_oracle_is_at_least_as_accurate_and_no_dearer_at_its_accuracy(
    drawn: list[tuple[float, float, int]],
) -> None:
    pair = pair_from(drawn)
    curve, kept = curve_of(pair, "c"), oracle_kept(pair)
    accuracy = np.where(kept, pair.small_correct, pair.large_correct).mean()
    cost = (pair.small_cost_nano_usd + np.where(kept, 0, pair.large_cost_nano_usd)).mean()
    assert curve.cost_nano_usd is not None
    assert np.all(curve.accuracy <= accuracy + 1e-12)
    as_good = curve.accuracy >= accuracy - 1e-12
    assert np.all(curve.cost_nano_usd[as_good] >= cost - 1e-9)


def test_an_unknown_confidence_is_deferred_at_every_threshold() -> None:
    pair = pair_of([1, 1, 1], [0, 0, 0], [0.9, NAN, 0.2])
    curve = curve_of(pair, "c")
    assert list(curve.deferral_rate) == pytest.approx([1, 2 / 3, 1 / 3])
    assert curve.note == "unknown for 1 of 3 (33.3%), always deferred"


def test_all_unknown_defers_everything() -> None:
    curve = curve_of(pair_of([1, 1], [1, 0], [NAN, NAN]), "c")
    assert list(curve.thresholds) == [np.inf]
    assert list(curve.accuracy) == [0.5]
    assert np.isnan(curve.kept_accuracy[0])


def test_a_threshold_never_splits_equal_confidences() -> None:
    curve = curve_of(pair_of([1, 0, 1, 0], [1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]), "c")
    assert list(curve.deferral_rate) == [1, 0]


@pytest.mark.parametrize("whose", ["small_cost_nano_usd", "large_cost_nano_usd"])
def test_an_unknown_cost_is_unknown_and_never_zero(whose: str) -> None:
    pair = random_pair(50, seed=1)
    costs = getattr(pair, whose).copy()
    costs[3] = NAN
    pair = replace(pair, **{whose: costs})
    curve = curve_of(pair, "c")
    assert (curve.cost_nano_usd, curve.saving) == (None, None)
    assert "cost unknown for 1 of 50" in str(curve.note)
    for estimate in (area_under(curve), share_of_oracle_saving(curve, pair)):
        assert estimate.value is None
        assert "cost unknown" in str(estimate.note)
    assert curve.accuracy[0] == pytest.approx(pair.large_correct.mean())


def test_a_large_model_that_costs_nothing_leaves_no_saving() -> None:
    pair = replace(random_pair(20, seed=1), large_cost_nano_usd=np.zeros(20))
    curve = curve_of(pair, "c")
    assert curve.saving is None
    assert share_of_oracle_saving(curve, pair).value is None
    assert area_under(curve).note == "the small model costs no less than the large one"


def test_a_router_does_not_pay_the_small_model_for_what_it_defers() -> None:
    pair = random_pair(80, seed=2, unknown=0)
    curve = deferral_curve(pair, rank(pair.confidence["c"]), small_first=False)
    assert curve.cost_nano_usd is not None
    for i in (0, 5, len(curve.thresholds) - 1):
        kept = pair.confidence["c"] >= curve.thresholds[i]
        cost = np.where(kept, pair.small_cost_nano_usd, pair.large_cost_nano_usd).mean()
        assert curve.cost_nano_usd[i] == pytest.approx(cost)
    assert curve.saving is not None
    assert curve.saving[0] == pytest.approx(0)


def slow_area(curve: DeferralCurve, points: int = 20_001) -> float:
    """Mean over a fine grid of budgets, each spent by mixing the two thresholds next to it."""
    assert curve.cost_nano_usd is not None
    assert curve.small.cost_nano_usd is not None
    assert curve.large.cost_nano_usd is not None
    known = sorted(
        zip([*curve.cost_nano_usd, curve.small.cost_nano_usd], [*curve.accuracy, curve.small.accuracy], strict=True)
    )
    budgets = np.linspace(curve.small.cost_nano_usd, curve.large.cost_nano_usd, points)
    return float(np.interp(budgets, [c for c, _ in known], [a for _, a in known]).mean())


@pytest.mark.parametrize("unknown", [0, 0.3])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_area_is_the_mean_accuracy_over_budgets(seed: int, unknown: float) -> None:
    curve = curve_of(random_pair(120, seed, unknown=unknown), "c")
    assert area_under(curve).value == pytest.approx(slow_area(curve), abs=1e-4)


def test_the_area_of_a_routers_curve_takes_costs_that_rise_and_fall() -> None:
    pair = random_pair(100, seed=4, unknown=0)
    costs = np.random.default_rng(0).random(100) * 150
    curve = deferral_curve(replace(pair, small_cost_nano_usd=costs), rank(pair.confidence["c"]), small_first=False)
    value = area_under(curve).value
    assert value is not None
    assert curve.accuracy.min() <= value <= curve.accuracy.max()


def test_a_better_signal_has_the_larger_area_and_share() -> None:
    pair = random_pair(400, seed=5, unknown=0)
    sharp = np.where(oracle_kept(pair), 0.9, 0.1)
    both = replace(pair, confidence={"c": pair.confidence["c"], "sharp": sharp})
    areas = [area_under(curve_of(both, signal)).value for signal in ("c", "sharp")]
    shares = [share_of_oracle_saving(curve_of(both, signal), both, epsilon=0).value for signal in ("c", "sharp")]
    assert areas[0] is not None
    assert areas[1] is not None
    assert areas[0] < areas[1]
    assert shares[0] is not None
    assert shares[1] is not None
    assert 0 <= shares[0] < shares[1]


def test_the_oracles_own_signal_takes_the_whole_of_its_saving() -> None:
    pair = random_pair(200, seed=6, unknown=0)
    sharp = replace(pair, confidence={"c": np.where(oracle_kept(pair), 0.9, 0.0)})
    # At no loss allowed against the oracle itself: keeping more would cost accuracy that the large model has.
    share = share_of_oracle_saving(curve_of(sharp, "c"), sharp, epsilon=-0.05).value
    assert share == pytest.approx(1)


@given(rows)
@settings(max_examples=40, deadline=None)
def test_risk_and_coverage_are_those_of_every_threshold(drawn: list[tuple[float, float, int]]) -> None:
    pair = pair_from(drawn)
    found = risk_coverage(pair.small_correct, rank(pair.confidence["c"]))
    for threshold, coverage, risk in zip(found.thresholds, found.coverage, found.risk, strict=True):
        kept = pair.confidence["c"] >= threshold
        assert coverage == pytest.approx(kept.mean())
        assert risk == pytest.approx(1 - pair.small_correct[kept].mean())
    if len(found.coverage):
        assert found.coverage[-1] == pytest.approx(np.mean(~np.isnan(pair.confidence["c"])))


@pytest.mark.parametrize("points", [2, 3, 17, 1000])
def test_a_thinned_curve_keeps_its_ends_and_its_points(points: int) -> None:
    pair = random_pair(300, seed=7)
    curve, risks = curve_of(pair, "c"), risk_coverage(pair.small_correct, rank(pair.confidence["c"]))
    thin, thin_risks = curve.thin(points), risks.thin(points)
    assert len(thin.thresholds) <= max(points, len(curve.thresholds))
    assert len(thin.thresholds) == min(points, len(curve.thresholds)) or points == 17
    for ends, whole in ((thin.accuracy, curve.accuracy), (thin.thresholds, curve.thresholds)):
        assert (ends[0], ends[-1]) == (whole[0], whole[-1])
    assert set(zip(thin.thresholds, thin.accuracy, strict=True)) <= set(
        zip(curve.thresholds, curve.accuracy, strict=True)
    )
    assert (thin_risks.coverage[0], thin_risks.coverage[-1]) == (risks.coverage[0], risks.coverage[-1])
    # Nothing is lost but points: gaps in the deferral rate stay about even.
    assert np.abs(np.diff(thin.deferral_rate)).max() < 2.5 / (min(points, len(curve.thresholds)) - 1) or points == 2


def test_thinning_without_costs_leaves_them_unknown() -> None:
    pair = random_pair(60, seed=8)
    thin = curve_of(replace(pair, small_cost_nano_usd=np.full(60, NAN)), "c").thin(5)
    assert thin.cost_nano_usd is None
    assert thin.saving is None


def test_a_curve_of_one_point_is_an_input_error() -> None:
    with pytest.raises(InputError, match="2 ends"):
        spread(np.array([0.0, 1.0]), 1)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_reliability_bins_add_up_to_the_ece(equal_mass: bool) -> None:
    pair = random_pair(250, seed=9)
    ranked = rank(pair.confidence["c"])
    bins = reliability(pair.small_correct, ranked, equal_mass=equal_mass)
    found = signal_metrics(pair.small_correct, ranked, Resamples(250, rng=np.random.default_rng(0), count=10))
    total = sum(one.n for one in bins)
    ece = sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / total
    assert total == len(ranked.order)
    assert ece == pytest.approx(found.ece_equal_mass.value if equal_mass else found.ece.value)
    assert all(a.most < b.least for a, b in pairwise(bins))
    assert all(one.least - 1e-12 <= one.confidence <= one.most + 1e-12 for one in bins)
    assert all(one.low - 1e-12 <= one.accuracy <= one.high + 1e-12 for one in bins)


def test_reliability_of_unknown_confidences_is_empty() -> None:
    assert reliability(np.array([1.0, 0.0]), rank(np.array([NAN, NAN]))) == []


def test_wilsons_interval_is_the_published_one() -> None:
    (one,) = reliability(np.array([1.0] * 8 + [0.0] * 2), rank(np.full(10, 0.75)))
    # statsmodels: proportion_confint(8, 10, method="wilson")
    assert (one.low, one.high) == pytest.approx((0.490162, 0.943318), abs=1e-6)


def test_a_signal_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(InputError, match="'p_true'; they hold: c"):
        curve_of(random_pair(10, seed=1), "p_true")


def test_questions_and_confidences_must_be_as_many() -> None:
    with pytest.raises(InputError, match="10 questions but 3"):
        deferral_curve(random_pair(10, seed=1), rank(np.array([0.1, 0.2, 0.3])))


def empty() -> Floats:
    return np.empty(0)


def test_no_questions_are_an_input_error() -> None:
    with pytest.raises(InputError, match="no questions"):
        curve_of(random_pair(10, seed=1).where(np.zeros(10, dtype=bool)), "c")
    with pytest.raises(InputError, match="no questions"):
        risk_coverage(empty(), rank(np.array([0.5])))
