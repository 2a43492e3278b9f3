"""Metrics equal slow, readable ones; intervals cover the truth as often as they say; nothing is left out silently."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from corea.errors import InputError
from corea.evaluate import metrics
from corea.evaluate.metrics import (
    EXACT_MAX,
    Estimate,
    Resamples,
    Settings,
    SignalMetrics,
    measure,
    pass_at_1,
    rank,
    signal_metrics,
)
from corea.evaluate.outcomes import Floats, Pair

FEW = Settings(resamples=50)
NAN = float("nan")


def data(
    n: int, seed: int, *, ties: bool = True, unknown: float = 0.1, fractions: bool = False
) -> tuple[Floats, Floats]:
    """Grades and confidences that go together somewhat."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    correct = (rng.random(n) < confidence**1.5).astype(np.float64)
    if fractions:
        correct = np.round(np.clip(correct * 0.7 + rng.random(n) * 0.3, 0, 1) * 4) / 4
    if ties:
        confidence = np.where(rng.random(n) < 0.7, np.round(confidence, 1), confidence)
    confidence[rng.random(n) < unknown] = NAN
    return correct, confidence


def metrics_of(correct: Floats, confidence: Floats, given: Settings = FEW, seed: int = 0) -> SignalMetrics:
    resamples = Resamples(len(correct), rng=np.random.default_rng(seed), count=given.resamples)
    return signal_metrics(correct, rank(confidence), resamples, given)


def known(correct: Floats, confidence: Floats) -> list[tuple[float, float]]:
    return [(float(c), float(y)) for c, y in zip(confidence, correct, strict=True) if not np.isnan(c)]


def slow_auroc(rows: list[tuple[float, float]]) -> float:
    won = pairs = 0.0
    for c, y in rows:
        for d, z in rows:
            pairs += y * (1 - z)
            won += y * (1 - z) * (1.0 if c > d else 0.5 if c == d else 0.0)
    return won / pairs


def slow_aurc(rows: list[tuple[float, float]]) -> float:
    risks = []
    for c, _ in rows:
        kept = [y for d, y in rows if d >= c]
        risks.append(1 - sum(kept) / len(kept))
    return sum(risks) / len(risks)


def slow_brier(rows: list[tuple[float, float]]) -> float:
    return sum(y * (c - 1) ** 2 + (1 - y) * c**2 for c, y in rows) / len(rows)


def slow_ece(rows: list[tuple[float, float]], bins: int) -> float:
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        held = [(c, y) for c, y in rows if low < round(c, 12) <= high or (b == 0 and c == 0)]
        total += abs(sum(y - c for c, y in held))
    return total / len(rows)


def slow_ece_equal_mass(rows: list[tuple[float, float]], bins: int) -> float:
    gaps = [0.0] * bins
    for value in {c for c, _ in rows}:
        above = sum(c > value for c, _ in rows)
        tied = [y for c, y in rows if c == value]
        place = int((above + len(tied) / 2) / len(rows) * bins + 1e-9)
        gaps[place] += sum(y - value for y in tied)
    return sum(map(abs, gaps)) / len(rows)


@pytest.mark.parametrize("fractions", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 7, 60, 200])
def test_every_metric_equals_its_slow_reading(n: int, ties: bool, fractions: bool) -> None:
    correct, confidence = data(n, seed=n, ties=ties, fractions=fractions)
    correct[0], correct[1], confidence[:2] = 1, 0, (0.6, 0.5)
    found, rows = metrics_of(correct, confidence), known(correct, confidence)
    assert found.auroc.value == pytest.approx(slow_auroc(rows))
    assert found.aurc.value == pytest.approx(slow_aurc(rows))
    assert found.brier.value == pytest.approx(slow_brier(rows))
    assert found.ece.value == pytest.approx(slow_ece(rows, 10))
    assert found.ece_equal_mass.value == pytest.approx(slow_ece_equal_mass(rows, 10))
    values = [c for c, _ in rows]
    assert found.distinct_values.value == len(set(values))
    assert found.tie_rate.value == pytest.approx(sum(values.count(c) > 1 for c in values) / len(values))
    assert found.coverage.value == pytest.approx(len(rows) / n)
    assert found.coverage.n == n
    assert {found.auroc.n, found.aurc.n, found.brier.n, found.ece.n, found.tie_rate.n} == {len(rows)}


@pytest.mark.parametrize("bins", [1, 2, 5, 15])
def test_the_number_of_bins_is_a_parameter(bins: int) -> None:
    correct, confidence = data(150, seed=1)
    found, rows = metrics_of(correct, confidence, Settings(bins=bins, resamples=20)), known(correct, confidence)
    assert found.ece.value == pytest.approx(slow_ece(rows, bins))
    assert found.ece_equal_mass.value == pytest.approx(slow_ece_equal_mass(rows, bins))


def test_whole_grades_give_what_scikit_learn_gives() -> None:
    correct, confidence = data(500, seed=3, unknown=0)
    found = metrics_of(correct, confidence)
    assert found.auroc.value == pytest.approx(roc_auc_score(correct, confidence), abs=1e-12)
    assert found.brier.value == pytest.approx(brier_score_loss(correct, confidence), abs=1e-12)
    true, stated = calibration_curve(correct, confidence, n_bins=10, strategy="uniform")
    sizes = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], confidence))
    assert found.ece.value == pytest.approx((np.abs(true - stated) * sizes).sum() / 500, abs=1e-12)


def test_a_fraction_counts_as_that_share_of_right_attempts() -> None:
    fraction = metrics_of(np.array([0.75, 0.25]), np.array([0.9, 0.4]))
    attempts = metrics_of(np.array([1, 1, 1, 0, 1, 0, 0, 0.0]), np.array([0.9] * 4 + [0.4] * 4))
    for name in ("auroc", "aurc", "brier", "ece"):
        assert getattr(fraction, name).value == pytest.approx(getattr(attempts, name).value), name


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=40).filter(
        lambda rows: len({right for right, _ in rows}) == 2
    ),
    st.floats(0.2, 5),
)
@settings(max_examples=60, deadline=None)
def test_ranking_metrics_do_not_change_under_an_increasing_map(rows: list[tuple[bool, int]], power: float) -> None:
    correct = np.array([float(right) for right, _ in rows])
    confidence = np.array([c / 8 for _, c in rows])
    one, two = metrics_of(correct, confidence), metrics_of(correct, (0.1 + 0.8 * confidence) ** power)
    assert one.auroc.value == pytest.approx(two.auroc.value)
    assert one.aurc.value == pytest.approx(two.aurc.value)
    assert one.distinct_values.value == two.distinct_values.value


@given(st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_questions_does_not_matter(n: int) -> None:
    rng = np.random.default_rng(n)
    correct, confidence = data(n, seed=n)
    order = rng.permutation(n)
    one, two = metrics_of(correct, confidence), metrics_of(correct[order], confidence[order])
    for name in ("auroc", "aurc", "brier", "ece", "ece_equal_mass", "tie_rate"):
        a, b = getattr(one, name).value, getattr(two, name).value
        assert (a is None and b is None) or a == pytest.approx(b), name


def test_one_class_has_no_auroc_and_says_why() -> None:
    confidence = np.array([0.2, 0.4, NAN])
    right, wrong = metrics_of(np.ones(3), confidence), metrics_of(np.zeros(3), confidence)
    assert (right.auroc.value, wrong.auroc.value) == (None, None)
    assert "every answer is right" in str(right.auroc.note)
    assert "every answer is wrong" in str(wrong.auroc.note)
    assert right.aurc.value == 0
    assert wrong.aurc.value == 1


def test_unknown_confidences_are_counted_and_named() -> None:
    correct, confidence = data(200, seed=5, unknown=0)
    confidence[:30] = NAN
    found = metrics_of(correct, confidence)
    assert found.coverage.value == pytest.approx(0.85)
    for estimate in (found.auroc, found.aurc, found.brier, found.ece, found.tie_rate):
        assert estimate.n == 170
        assert "unknown for 30 of 200 (15.0%), left out" in str(estimate.note)


def test_all_unknown_gives_no_metric_but_a_coverage_of_zero() -> None:
    found = metrics_of(np.array([1.0, 0, 1]), np.full(3, NAN))
    assert found.coverage.value == 0
    assert found.distinct_values.value == 0
    for estimate in (found.auroc, found.aurc, found.brier, found.ece, found.ece_equal_mass, found.tie_rate):
        assert (estimate.value, estimate.n) == (None, 0)
        assert "unknown for every question" in str(estimate.note)


def test_all_equal_confidences_rank_by_chance() -> None:
    found = metrics_of(np.array([1.0, 0, 1, 0]), np.full(4, 0.9))
    assert found.auroc.value == 0.5
    assert found.aurc.value == 0.5
    assert found.tie_rate.value == 1
    assert found.distinct_values.value == 1
    assert found.ece.value == pytest.approx(0.4)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_questions_breaks_nothing(n: int) -> None:
    found = metrics_of(np.ones(n), np.linspace(0.5, 0.9, n))
    assert found.brier.value is not None
    assert (found.brier.low is None) == (n == 1)
    if n == 1:
        assert "too few" in str(found.brier.note)


def test_a_unanimous_tier_has_an_interval_all_the_same() -> None:
    resamples = Resamples(30, rng=np.random.default_rng(0))
    right, wrong = pass_at_1(np.ones(30), resamples), pass_at_1(np.zeros(30), resamples)
    # Clopper and Pearson: 0.025 ** (1 / 30).
    assert (right.value, right.high) == (1, 1)
    assert right.low == pytest.approx(0.8843, abs=1e-4)
    assert (wrong.value, wrong.low) == (0, 0)
    assert wrong.high == pytest.approx(0.1157, abs=1e-4)


@pytest.mark.parametrize(
    "correct, confidence, field",
    [
        ([], [], "no questions"),
        ([1, 2], [0.1, 0.2], "correct"),
        ([1, NAN], [0.1, 0.2], "correct"),
        ([1, 0], [0.1, 1.2], "confidence"),
        ([1, 0], [-0.1, 1], "confidence"),
        ([1, 0], [0.1], "same questions"),
    ],
)
def test_what_cannot_be_measured_is_an_input_error(correct: list[float], confidence: list[float], field: str) -> None:
    with pytest.raises(InputError, match=field):
        metrics_of(np.array(correct, dtype=float), np.array(confidence, dtype=float))


def test_the_same_seed_gives_the_same_intervals() -> None:
    correct, confidence = data(100, seed=7)
    assert metrics_of(correct, confidence, seed=4) == metrics_of(correct, confidence, seed=4)
    assert metrics_of(correct, confidence, seed=4) != metrics_of(correct, confidence, seed=5)


def test_a_wider_level_gives_a_wider_interval() -> None:
    correct, confidence = data(200, seed=7)
    narrow = metrics_of(correct, confidence, Settings(level=0.5, resamples=300)).auroc
    wide = metrics_of(correct, confidence, Settings(level=0.99, resamples=300)).auroc
    assert width(wide) > 2 * width(narrow)


def width(estimate: Estimate) -> float:
    assert estimate.high is not None
    assert estimate.low is not None
    return estimate.high - estimate.low


@pytest.mark.parametrize("fractions", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_intervals_in_cells_are_those_drawn_question_by_question(
    monkeypatch: pytest.MonkeyPatch, ties: bool, fractions: bool
) -> None:
    correct, confidence = data(EXACT_MAX, seed=2, ties=ties, fractions=fractions)
    many = Settings(resamples=2000)
    exact = metrics_of(correct, confidence, many)
    monkeypatch.setattr(metrics, "EXACT_MAX", 0)
    cells = metrics_of(correct, confidence, many)
    for name in ("auroc", "aurc", "brier", "ece", "ece_equal_mass", "coverage"):
        one, two = getattr(exact, name), getattr(cells, name)
        assert one.value == two.value, name
        assert width(two) == pytest.approx(width(one), rel=0.12), name
        assert two.low == pytest.approx(one.low, abs=0.12 * width(one)), name


def test_means_of_many_questions_are_drawn_with_their_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.random(400)
    # A cost in nano-USD beside an accuracy, a constant, and a copy.
    columns = np.column_stack([x, 1e9 * (x + rng.random(400)), np.full(400, 3.0), x])
    exact = Resamples(400, rng=rng, count=4000).means(columns)
    monkeypatch.setattr(metrics, "EXACT_MAX", 0)
    limit = Resamples(400, rng=rng, count=4000).means(columns)
    np.testing.assert_allclose(limit.mean(axis=0), columns.mean(axis=0), rtol=5e-3)
    np.testing.assert_allclose(limit.std(axis=0), exact.std(axis=0), rtol=0.06)
    np.testing.assert_allclose(np.corrcoef(limit[:, :2].T), np.corrcoef(exact[:, :2].T), atol=0.05)
    assert limit[:, 0] == pytest.approx(limit[:, 3])


# Truths of the simulated populations, by integration over c ~ U(0, 1): P(right | c) = c², c, and c − 0.05 cut at 0.
POPULATIONS: dict[str, Callable[[Floats], Floats]] = {
    "overconfident": lambda c: c**2,
    "calibrated": lambda c: c,
    "slightly overconfident": lambda c: np.clip(c - 0.05, 0, 1),
}


def truth(p: Callable[[Floats], Floats]) -> dict[str, float]:
    c = (np.arange(200_000) + 0.5) / 200_000
    right = p(c)
    wrong = 1 - right
    gaps = np.abs((right - c).reshape(10, -1).mean(axis=1))
    below = np.cumsum(wrong) - wrong / 2
    above = np.cumsum(wrong[::-1])[::-1] / np.arange(len(c), 0, -1)
    return {
        "pass": float(right.mean()),
        "ece": float(gaps.mean()),
        "brier": float((right * (1 - c) ** 2 + wrong * c**2).mean()),
        "auroc": float((right * below).sum() / right.sum() / wrong.sum()),
        "aurc": float(above.mean()),
    }


@pytest.mark.parametrize("name", POPULATIONS)
def test_intervals_cover_the_truth_about_as_often_as_they_say(name: str) -> None:
    p, runs, n = POPULATIONS[name], 400, 300
    true, hits = truth(p), dict.fromkeys(truth(p), 0)
    rng = np.random.default_rng(11)
    few = Settings(resamples=300)
    for _ in range(runs):
        confidence = rng.random(n)
        correct = (rng.random(n) < p(confidence)).astype(np.float64)
        resamples = Resamples(n, rng=rng, count=few.resamples)
        found = signal_metrics(correct, rank(confidence), resamples, few)
        estimates = {"pass": pass_at_1(correct, resamples, few)}
        estimates |= {metric: getattr(found, metric) for metric in ("ece", "brier", "auroc", "aurc")}
        for metric, estimate in estimates.items():
            assert estimate.low is not None
            assert estimate.high is not None
            hits[metric] += estimate.low - 1e-9 <= true[metric] <= estimate.high + 1e-9
    for metric, count in hits.items():
        assert 0.9 <= count / runs <= (1 if metric == "ece" else 0.985), (metric, count / runs)


def test_a_calibrated_signal_is_told_from_a_miscalibrated_one() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.random(2000)
    calibrated = metrics_of((rng.random(2000) < confidence).astype(float), confidence).ece
    off = metrics_of((rng.random(2000) < confidence**2).astype(float), confidence).ece
    assert calibrated.low == 0
    assert "calibrated signal" in str(calibrated.note)
    assert off.low is not None
    assert off.low > 0.1


def pair_of(n: int = 60) -> Pair:
    correct, confidence = data(n, seed=9)
    rng = np.random.default_rng(1)
    return Pair(
        small="s",
        large="l",
        ids=np.array([f"q{i}" for i in range(n)], dtype=object),
        tasks=np.array(["gsm8k" if i % 3 else "mmlu" for i in range(n - 1)] + [None], dtype=object),
        domains=np.array(["math"] * n, dtype=object),
        small_correct=correct,
        large_correct=(rng.random(n) < 0.8).astype(float),
        small_cost_nano_usd=np.full(n, 10.0),
        large_cost_nano_usd=np.full(n, 100.0),
        confidence={"expected": confidence, "logprob": rng.random(n)},
    )


def test_metrics_come_for_all_for_each_task_and_for_each_domain() -> None:
    pair = pair_of()
    found = measure(pair, rng=np.random.default_rng(0), settings=FEW)
    assert [(group.by, group.name, group.n) for group in found] == [
        ("all", "", 60),
        ("task", "gsm8k", 39),
        ("task", "mmlu", 20),
        ("domain", "math", 60),
    ]
    mmlu = found[2]
    taken = pair.tasks == "mmlu"
    assert mmlu.small_pass_at_1.value == pytest.approx(pair.small_correct[taken].mean())
    assert mmlu.large_pass_at_1.value == pytest.approx(pair.large_correct[taken].mean())
    rows = known(pair.small_correct[taken], pair.confidence["expected"][taken])
    assert mmlu.signals["expected"].auroc.value == pytest.approx(slow_auroc(rows))
    assert set(mmlu.signals) == {"expected", "logprob"}


def test_no_questions_are_an_input_error() -> None:
    pair = pair_of()
    with pytest.raises(InputError, match="no questions"):
        measure(pair.where(np.zeros(60, dtype=bool)), rng=np.random.default_rng(0))
