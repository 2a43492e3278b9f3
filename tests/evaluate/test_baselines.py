"""Every baseline equals a slow reading on the same outcomes, and nothing is scored by what has seen it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import InputError
from corea.evaluate import metrics
from corea.evaluate.baselines import Baseline, Options, Point, compare, router_scores
from corea.evaluate.curves import curve_of
from corea.evaluate.maps import apply, fit_parameters, folds
from corea.evaluate.metrics import Settings
from corea.evaluate.outcomes import REPLIES, Floats, Pair

NAN = float("nan")
FEW = Settings(resamples=100)


def pair_of(n: int = 300, seed: int = 0, *, unknown: float = 0.1) -> Pair:
    """Sums are easy for the small model and stories are not, and both confidences know something of it."""
    rng = np.random.default_rng(seed)
    easy = rng.random(n) < 0.5
    small = (rng.random(n) < np.where(easy, 0.85, 0.25)).astype(float)
    confidence = np.clip(np.round(0.3 * small + 0.2 * easy + 0.5 * rng.random(n), 2), 0, 1)
    agreement = np.round(0.5 * small + 0.5 * rng.random(n), 1)
    confidence[rng.random(n) < unknown] = NAN
    sums = [f"What is {rng.integers(99)} + {rng.integers(99)}?" for _ in range(n)]
    stories = [f"Why did the {animal} cross road number {i}, and who saw it?" for i, animal in enumerate(["hen"] * n)]
    return Pair(
        small="s",
        large="l",
        ids=np.array([f"q{i}" for i in range(n)], dtype=object),
        tasks=np.full(n, "t", dtype=object),
        questions=np.array([a if e else b for a, b, e in zip(sums, stories, easy, strict=True)], dtype=object),
        small_correct=small,
        large_correct=(rng.random(n) < 0.8).astype(float),
        small_cost_nano_usd=rng.integers(5, 15, n).astype(float),
        large_cost_nano_usd=rng.integers(50, 150, n).astype(float),
        confidence={"expected": confidence, "self_consistency": agreement},
    )


def compared(pair: Pair, options: Options | None = None, seed: int = 0) -> dict[str, Baseline]:
    found = compare(pair, rng=np.random.default_rng(seed), options=options, settings=FEW)
    return {baseline.name: baseline for baseline in found}


def only(baseline: Baseline) -> Point:
    (point,) = baseline.points
    return point


def slow(pair: Pair, kept: Floats, asked: Floats) -> tuple[float, float, float, float]:
    """Accuracy, cost, saving and deferral rate, question by question."""
    right = cost = large = 0.0
    for i in range(len(pair)):
        right += pair.small_correct[i] if kept[i] else pair.large_correct[i]
        cost += pair.small_cost_nano_usd[i] if asked[i] else 0
        cost += 0 if kept[i] else pair.large_cost_nano_usd[i]
        large += pair.large_cost_nano_usd[i]
    return right / len(pair), cost / len(pair), 1 - cost / large, 1 - sum(kept) / len(pair)


def values(point: Point) -> tuple[float | None, ...]:
    return (point.accuracy.value, point.cost_nano_usd.value, point.saving.value, point.deferral_rate.value)


def test_the_baselines_are_all_there() -> None:
    assert set(compared(pair_of())) == {
        "always small", "always large", "random", "oracle", "oracle router", "router",
        "expected", "naive: expected", "paper: expected",
        "self_consistency", "naive: self_consistency", "paper: self_consistency",
    }  # fmt: skip


def test_bounds_are_what_they_say() -> None:
    pair = pair_of()
    found, one, none = compared(pair), np.ones(len(pair)), np.zeros(len(pair))
    kept = ((pair.small_correct == 1) | (pair.large_correct == 0)).astype(float)
    for name, plan in {
        "always small": (one, one),
        "always large": (none, none),
        "oracle": (kept, one),
        "oracle router": (kept, kept),
    }.items():
        assert values(only(found[name])) == pytest.approx(slow(pair, *plan)), name


def test_random_is_a_line_between_the_two_tiers() -> None:
    pair = pair_of()
    points = compared(pair)["random"].points
    accuracies = [point.accuracy.value for point in points]
    costs = [point.cost_nano_usd.value for point in points]
    assert accuracies == pytest.approx(list(np.linspace(pair.large_correct.mean(), pair.small_correct.mean(), 11)))
    small, large = pair.small_cost_nano_usd.mean(), pair.large_cost_nano_usd.mean()
    assert costs == pytest.approx(list(np.linspace(small + large, small, 11)))


def test_a_signals_points_lie_on_its_curve() -> None:
    pair = pair_of()
    curve = curve_of(pair, "expected")
    assert curve.cost_nano_usd is not None
    points = compared(pair)["expected"].points
    assert len(points) == 21
    assert points[0].threshold == np.inf
    assert points[-1].threshold == curve.thresholds[-1]
    for point in points:
        at = list(curve.thresholds).index(point.threshold)
        assert point.accuracy.value == pytest.approx(curve.accuracy[at])
        assert point.cost_nano_usd.value == pytest.approx(curve.cost_nano_usd[at])
        assert point.deferral_rate.value == pytest.approx(curve.deferral_rate[at])


def test_self_consistency_pays_for_every_reply() -> None:
    pair = pair_of()
    recorded = replace(pair, signal_cost_nano_usd={"self_consistency": 3 * pair.small_cost_nano_usd})
    keeps_all = compared(recorded)["self_consistency"].points[-1]
    assert keeps_all.deferral_rate.value == pytest.approx(0)
    assert keeps_all.cost_nano_usd.value == pytest.approx(4 * pair.small_cost_nano_usd.mean())
    assert compared(pair)["self_consistency"].points[-1].cost_nano_usd.value == pytest.approx(
        6 * pair.small_cost_nano_usd.mean()
    )


def test_the_oracle_is_as_accurate_as_any_and_cheapest_at_that() -> None:
    found = compared(pair_of())
    best, router = only(found["oracle"]), only(found["oracle router"])
    assert best.accuracy.value is not None
    assert router.cost_nano_usd.value is not None
    for baseline in found.values():
        for point in baseline.points:
            assert point.accuracy.value is not None
            assert point.accuracy.value <= best.accuracy.value + 1e-12
            if point.accuracy.value >= best.accuracy.value - 1e-12:
                assert point.cost_nano_usd.value is not None
                assert point.cost_nano_usd.value >= router.cost_nano_usd.value - 1e-9


def test_the_router_tells_sums_from_stories_without_asking_anybody() -> None:
    pair = pair_of(600)
    found = compared(pair)
    points = found["router"].points
    # All routed to the large model: nobody asked the small one.
    assert values(points[0]) == pytest.approx(values(only(found["always large"])))
    assert values(points[-1]) == pytest.approx(values(only(found["always small"])))
    middle = min(points, key=lambda point: abs((point.deferral_rate.value or 0) - 0.5))
    small, large = pair.small_correct.mean(), pair.large_correct.mean()
    assert middle.accuracy.value is not None
    assert middle.accuracy.value > (small + large) / 2 + 0.08


def test_a_router_never_scores_a_question_it_was_fitted_on() -> None:
    pair = pair_of(200)
    fold = folds(pair.ids, 5, salt="router")
    scores = router_scores(pair.questions, pair.small_correct, fold)
    # Turn the grades of one fold round: its own scores stay, all others may change.
    held = fold == 2
    turned = np.where(held, 1 - pair.small_correct, pair.small_correct)
    again = router_scores(pair.questions, turned, fold)
    np.testing.assert_array_equal(scores[held], again[held])
    assert not np.allclose(scores[~held], again[~held])


def test_odd_questions_do_not_break_the_router() -> None:
    pair = pair_of(60)
    texts = pair.questions.copy()
    texts[:4] = ["", None, "\x00\u202e", "é" * 5000]
    scores = router_scores(texts, pair.small_correct, folds(pair.ids, 5, salt="router"))
    assert np.all((scores > 0) & (scores < 1))


def test_the_papers_rule_is_platt_on_the_other_folds_against_the_large_models_accuracy() -> None:
    pair = pair_of()
    kept, fold = np.zeros(len(pair)), folds(pair.ids, 5, salt="rule")
    for number in range(5):
        past, new = fold != number, fold == number
        platt = fit_parameters("platt", pair.confidence["expected"][past][:, None], pair.small_correct[past])
        for i in np.flatnonzero(new):
            sure = platt([None if np.isnan(c := pair.confidence["expected"][i]) else float(c)])
            kept[i] = sure is not None and sure >= pair.large_correct[past].mean()
        np.testing.assert_array_equal(
            kept[new] > 0, apply(platt, pair.confidence["expected"][new][:, None]) >= pair.large_correct[past].mean()
        )
    assert 0 < kept.sum() < len(pair)
    assert values(only(compared(pair)["paper: expected"])) == pytest.approx(slow(pair, kept, np.ones(len(pair))))


def test_the_naive_rule_is_the_cheapest_threshold_within_two_points_on_the_other_folds() -> None:
    pair = pair_of()
    signal, fold = pair.confidence["expected"], folds(pair.ids, 5, salt="rule")
    kept, asked = np.zeros(len(pair)), np.zeros(len(pair))
    for number in range(5):
        past, new = pair.where(fold != number), fold == number
        least, best = 0.0, None
        for threshold in sorted({c for c in past.confidence["expected"] if not np.isnan(c)}):
            keep = (past.confidence["expected"] >= threshold).astype(float)
            accuracy, _, saving, _ = slow(past, keep, np.ones(len(past)))
            if accuracy >= past.large_correct.mean() - 0.02 - 1e-9 and saving > least:
                least, best = saving, threshold
        if best is not None:
            kept[new], asked[new] = signal[new] >= best, 1
    assert kept.any()
    assert values(only(compared(pair)["naive: expected"])) == pytest.approx(slow(pair, kept, asked))


def test_a_naive_rule_with_nothing_to_gain_asks_the_large_model_alone() -> None:
    pair = replace(pair_of(), small_cost_nano_usd=np.full(300, 1e6))
    found = compared(pair)
    assert values(only(found["naive: expected"])) == values(only(found["always large"]))


def test_points_carry_intervals_and_sure_things_have_none_to_speak_of() -> None:
    found = compared(pair_of())
    for baseline in found.values():
        for point in baseline.points:
            for estimate in (point.accuracy, point.cost_nano_usd, point.saving, point.deferral_rate):
                assert estimate.value is not None
                assert estimate.low is not None
                assert estimate.high is not None
                assert estimate.low - 1e-9 <= estimate.value <= estimate.high + 1e-9
                assert estimate.n == 300
    always = only(found["always large"])
    assert (always.deferral_rate.low, always.deferral_rate.high) == (1, 1)
    assert (always.saving.low, always.saving.high) == (0, 0)


def test_intervals_of_many_questions_are_those_of_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, options = pair_of(1000), Options(points=4)
    many = Settings(resamples=1500)
    exact = compare(pair, rng=np.random.default_rng(0), options=options, settings=many)
    monkeypatch.setattr(metrics, "EXACT_MAX", 0)
    limit = compare(pair, rng=np.random.default_rng(0), options=options, settings=many)
    for one, two in zip(exact, limit, strict=True):
        for a, b in zip(one.points, two.points, strict=True):
            for name in ("accuracy", "cost_nano_usd", "saving", "deferral_rate"):
                x, y = getattr(a, name), getattr(b, name)
                wide = x.high - x.low
                assert y.value == pytest.approx(x.value)
                assert (y.low, y.high) == pytest.approx((x.low, x.high), abs=0.15 * wide + 1e-9), (one.name, name)


def test_an_unknown_cost_leaves_accuracies_and_what_does_not_need_it() -> None:
    pair = pair_of()
    costs = pair.large_cost_nano_usd.copy()
    costs[:7] = NAN
    found = compared(replace(pair, large_cost_nano_usd=costs))
    for name in ("always large", "oracle", "naive: expected", "expected"):
        for point in found[name].points[:1]:
            assert point.accuracy.value is not None
            assert (point.cost_nano_usd.value, point.saving.value) == (None, None) or name == "oracle"
            assert point.saving.value is None
            assert point.saving.note == "cost unknown for 7 of 300"
    # The small model's cost is known, so what asks nobody else has one; but no saving to compare it by.
    assert only(found["always small"]).cost_nano_usd.value == pytest.approx(pair.small_cost_nano_usd.mean())
    assert only(found["always small"]).saving.value is None


def test_a_large_model_that_costs_nothing_leaves_no_saving() -> None:
    found = compared(replace(pair_of(), large_cost_nano_usd=np.zeros(300)))
    assert only(found["oracle"]).saving.note == "the large model costs nothing: no saving"


def test_without_texts_there_is_no_router_and_it_says_so() -> None:
    found = compared(replace(pair_of(), questions=np.array([], dtype=object)))["router"]
    assert found.points == ()
    assert "no question texts" in str(found.note)


def test_a_handful_of_questions_gives_bounds_but_nothing_learned() -> None:
    found = compared(pair_of(8))
    assert only(found["oracle"]).accuracy.value is not None
    for name in ("router", "naive: expected", "paper: expected"):
        assert found[name].points == ()
        assert "fewer than 20 questions" in str(found[name].note)


def test_a_single_question_breaks_nothing() -> None:
    assert only(compared(pair_of(1))["always small"]).accuracy.low is None


def test_all_unknown_confidences_always_defer() -> None:
    pair = replace(pair_of(), confidence={"expected": np.full(300, NAN)})
    found = compared(pair)
    assert values(only(found["expected"]))[3] == 1
    assert values(only(found["naive: expected"])) == values(only(found["always large"]))
    assert "only 0 questions with a known confidence" in str(found["paper: expected"].note)


@pytest.mark.parametrize("grade", [0.0, 1.0])
def test_one_class_is_compared_all_the_same(grade: float) -> None:
    found = compared(replace(pair_of(), small_correct=np.full(300, grade)))
    assert only(found["always small"]).accuracy.value == grade
    assert found["router"].points


@given(st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_the_same_seed_gives_the_same_comparison(seed: int) -> None:
    pair = pair_of(60, seed)
    assert compared(pair, seed=seed) == compared(pair, seed=seed)


def test_no_questions_are_an_input_error() -> None:
    with pytest.raises(InputError, match="no questions"):
        compared(pair_of().where(np.zeros(300, dtype=bool)))


def test_samples_that_vote_are_counted_by_default_with_the_answer_they_vote_on() -> None:
    from corea.confidence import SelfConsistency

    assert REPLIES["self_consistency"] == SelfConsistency().samples + 1
