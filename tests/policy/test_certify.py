"""The walk: validity on populations that would break a promise, what it keeps, and the certificate as a file."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import InputError
from corea.policy.certificate import Certificate, Certified, Promise, check_applies, dump, load
from corea.policy.certify import certify, certify_by_task
from corea.policy.exact import p_value
from corea.policy.rules import RULES, Sample
from corea.policy.ties import fraction, keeps
from corea.policy.walk import Floats, Strings


def names(n: int, prefix: str = "question") -> Strings:
    return np.array([f"{prefix}-{index}" for index in range(n)], dtype=object)


def graded(
    rng: np.random.Generator, confidence: Floats, harm: Floats, gain: Floats, both_right: float = 0.6
) -> tuple[Floats, Floats]:
    """Correctness of both models, where each question harms and gains with its own probability."""
    u, v = rng.random(len(confidence)), rng.random(len(confidence))
    is_harm, is_gain = u < harm, (u >= harm) & (u < harm + gain)
    same = (v < both_right).astype(np.float64)
    return np.where(is_harm, 0.0, np.where(is_gain, 1.0, same)), np.where(is_harm, 1.0, np.where(is_gain, 0.0, same))


def easy(n: int, seed: int = 0) -> tuple[Floats, Floats, Floats, Strings]:
    """Harm rises as confidence falls: something can be certified, not everything."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    small, large = graded(rng, confidence, 0.3 * (1 - confidence) ** 2, np.full(n, 0.01))
    return confidence, small, large, names(n)


def slow_certify(
    confidence: Floats, small: Floats, large: Floats, ids: Strings, max_drop: float, delta: float
) -> set[str]:
    """The ids kept, by the definition: one question more at a time, one test each, stop for good at a failure."""
    n = len(confidence)
    known = [row for row in range(n) if not math.isnan(confidence[row])]
    known.sort(key=lambda row: (-confidence[row], fraction(str(ids[row]))))
    kept: list[int] = []
    harm = gain = 0
    if p_value(n, 0, 0, max_drop) > delta:
        return set()
    for row in known:
        harm += small[row] < large[row]
        gain += small[row] > large[row]
        if p_value(n, int(harm), int(gain), max_drop) > delta:
            break
        kept.append(row)
    return {str(ids[row]) for row in kept}


def kept_by(certified: Certified, confidence: Floats, ids: Strings) -> set[str]:
    return {
        name
        for value, name in zip(confidence, ids, strict=True)
        if keeps(float(value), name, threshold=certified.threshold, tie_fraction=certified.tie_fraction)
    }


@given(st.integers(0, 2**32 - 1), st.integers(100, 500), st.sampled_from([3, 10, 10_000]))
@settings(max_examples=40, deadline=None)
def test_the_walk_keeps_what_a_slow_direct_walk_keeps(seed: int, n: int, levels: int) -> None:
    confidence, small, large, ids = easy(n, seed)
    confidence = np.round(confidence * levels) / levels
    confidence[np.random.default_rng(seed).random(n) < 0.1] = np.nan
    certified = certify(confidence, small, large, ids, delta=0.1)
    expected = slow_certify(confidence, small, large, ids, 0.02, 0.1)
    assert kept_by(certified, confidence, ids) == expected
    assert certified.kept == len(expected)
    assert (certified.threshold is None) == (not expected)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    confidence, small, large, ids = easy(400, seed)
    confidence = np.round(confidence, 1)
    costs = np.random.default_rng(seed).uniform(1, 2, size=(2, 400)) * [[1], [20]]
    shuffled = np.random.default_rng(seed + 1).permutation(400)
    one = certify(confidence, small, large, ids, small_cost=costs[0], large_cost=costs[1])
    other = certify(
        confidence[shuffled], small[shuffled], large[shuffled], np.asarray(ids)[shuffled],
        small_cost=costs[0][shuffled], large_cost=costs[1][shuffled],
    )  # fmt: skip
    assert replace(other, expected_saving=0.0) == replace(one, expected_saving=0.0)
    assert other.expected_saving == pytest.approx(one.expected_saving)


@given(st.integers(0, 2**32 - 1), st.sampled_from([150, 300, 600]))
@settings(max_examples=40, deadline=None)
def test_what_is_certified_passes_the_test_and_counts_what_it_keeps(seed: int, n: int) -> None:
    confidence, small, large, ids = easy(n, seed)
    certified = certify(confidence, small, large, ids, delta=0.1)
    if certified.threshold is None:
        assert (certified.kept, certified.harm, certified.gain, certified.p_value) == (0, 0, 0, None)
        return
    kept = confidence >= certified.threshold
    assert certified.kept == kept.sum()
    assert certified.harm == (kept & (small < large)).sum()
    assert certified.gain == (kept & (small > large)).sum()
    assert certified.drop == (certified.harm - certified.gain) / n
    assert certified.expected_deferral_rate == pytest.approx(1 - certified.kept / n)
    assert certified.p_value is not None
    assert certified.p_value <= 0.1
    assert certified.needed_n is None


def _false_certifications(
    harm_of: Callable[[Floats], Floats], gain: float, drop_at: Callable[[float, float], float], *, n: int, delta: float,
    runs: int, levels: int | None, seed: int,
) -> float:  # fmt: skip
    """Share of runs whose certified threshold really loses more than 2 points."""
    rng = np.random.default_rng(seed)
    broken = 0
    for run in range(runs):
        confidence = rng.random(n)
        if levels:
            confidence = np.ceil(confidence * levels) / levels
        small, large = graded(rng, confidence, harm_of(confidence), np.full(n, gain))
        ids = [f"{run}-{index}" for index in range(n)]
        certified = certify(confidence, small, large, ids, delta=delta)
        if certified.threshold is not None:
            broken += drop_at(certified.threshold, certified.tie_fraction) > 0.02 * (1 + 1e-9)
    return broken / runs


@pytest.mark.parametrize("gain", [0.0, 0.02])
def test_a_population_that_loses_too_much_is_certified_with_probability_at_most_delta(gain: float) -> None:
    # Half of the questions are harmless; all harm beyond gain lies just below them, so the drop exceeds 2 points from
    # a kept share of 0.6 on. Nothing before warns the walk: this is the hardest there is.
    def harm(confidence: Floats) -> Floats:
        return np.where(confidence > 0.5, gain, np.where(confidence > 0.4, gain + 0.2, gain + 0.01))

    def drop(threshold: float, _: float) -> float:
        return 0.2 * float(np.clip(0.5 - threshold, 0, 0.1)) + 0.01 * max(0.0, 0.4 - threshold)

    rate = _false_certifications(harm, gain, drop, n=300, delta=0.1, runs=1500, levels=None, seed=5)
    assert rate <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 1500)


def test_ties_split_by_hash_are_certified_falsely_with_probability_at_most_delta() -> None:
    # Two levels of confidence; 5 % of the questions at the lower one are harmed: 2 points are lost at 0.8 of it.
    def harm(confidence: Floats) -> Floats:
        return np.where(confidence > 0.5, 0.0, 0.05)

    def drop(threshold: float, tie_fraction: float) -> float:
        return 0.0 if threshold > 0.5 else 0.5 * 0.05 * tie_fraction

    rate = _false_certifications(harm, 0.0, drop, n=300, delta=0.1, runs=1500, levels=2, seed=6)
    assert rate <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 1500)


def test_an_unknown_confidence_is_never_kept() -> None:
    n = 400
    confidence = np.full(n, 0.9)
    confidence[::2] = np.nan
    certified = certify(confidence, np.ones(n), np.ones(n), names(n))
    assert certified.kept == n // 2
    assert certified.n == n
    assert not keeps(None, "any", threshold=certified.threshold, tie_fraction=certified.tie_fraction)
    assert not keeps(math.nan, "any", threshold=certified.threshold, tie_fraction=certified.tie_fraction)
    assert certify(np.full(n, np.nan), np.ones(n), np.ones(n), names(n)).threshold is None


def test_a_threshold_amid_ties_keeps_the_same_questions_at_run_time() -> None:
    rng = np.random.default_rng(2)
    n = 1000
    confidence = np.where(rng.random(n) < 0.73, 1.0, 0.5)
    small, large = graded(rng, confidence, np.full(n, 0.05), np.full(n, 0.005))
    certified = certify(confidence, small, large, names(n))
    assert certified.threshold == 1.0
    assert 0 < certified.tie_fraction < 1
    assert len(kept_by(certified, confidence, names(n))) == certified.kept
    fresh = [keeps(1.0, f"new-{i}", threshold=1.0, tie_fraction=certified.tie_fraction) for i in range(20_000)]
    assert np.mean(fresh) == pytest.approx(certified.tie_fraction, abs=0.02)


def test_ties_kept_to_the_last_are_kept_whole() -> None:
    certified = certify(np.full(200, 0.8), np.ones(200), np.ones(200), names(200))
    assert (certified.threshold, certified.tie_fraction, certified.kept) == (0.8, 1.0, 200)


def test_the_hash_of_a_question_is_fixed_for_good_and_uniform() -> None:
    assert fraction("gsm8k-test-0") == 0.0762785939780466
    values = np.array([fraction(f"q{i}") for i in range(20_000)])
    assert np.histogram(values, bins=10, range=(0, 1))[0] == pytest.approx(2000, abs=200)


def test_questions_drawn_twice_are_kept_or_deferred_together() -> None:
    confidence, small, large, ids = easy(200)
    rows = np.random.default_rng(0).integers(200, size=800)
    certified = certify(confidence[rows], small[rows], large[rows], np.asarray(ids)[rows])
    assert certified.threshold is not None
    assert certified.kept == (confidence[rows] >= certified.threshold).sum()


def test_too_few_questions_certify_nothing_and_say_how_many_are_needed() -> None:
    certified = certify(np.linspace(0, 1, 100), np.ones(100), np.ones(100), names(100))
    assert certified.threshold is None
    assert certified.needed_n == 150
    assert certified.promise == "Nothing can be promised with these 100 questions: about 50 more are needed."


def test_a_threshold_that_saves_nothing_is_none_and_more_questions_do_not_help() -> None:
    n = 400
    certified = certify(
        np.linspace(0, 1, n), np.ones(n), np.ones(n), names(n), small_cost=np.full(n, 3.0), large_cost=np.full(n, 2.0)
    )
    assert (certified.threshold, certified.expected_saving, certified.needed_n) == (None, 0.0, None)
    assert "more would not help" in certified.promise


def test_no_number_of_questions_helps_a_small_model_that_loses_too_much() -> None:
    n = 600
    costs = np.full(n, 1.0), np.full(n, 20.0)
    certified = certify(
        np.linspace(0, 1, n), np.zeros(n), np.ones(n), names(n), small_cost=costs[0], large_cost=costs[1]
    )
    assert certified.threshold is None
    assert certified.needed_n is None


def test_needed_questions_let_the_walk_through_in_most_repetitions() -> None:
    def sample(n: int, seed: int) -> Certified:
        rng = np.random.default_rng(seed)
        confidence = rng.random(n)
        small, large = graded(rng, confidence, np.where(confidence > 0.7, 0.02, 0.5), np.full(n, 0.01))
        costs = np.full(n, 1.0), np.full(n, 4.0)
        return certify(confidence, small, large, names(n), small_cost=costs[0], large_cost=costs[1])

    first = sample(140, 1)
    assert first.threshold is None
    assert first.needed_n is not None
    assert first.needed_n > 140
    certified = [sample(first.needed_n, seed).threshold is not None for seed in range(2, 42)]
    assert np.mean(certified) >= 0.5, "rates seen in 140 questions are rough, but not this rough"


def test_saving_is_net_of_the_small_models_calls() -> None:
    confidence, small, large, ids = easy(2000)
    certified = certify(
        confidence, small, large, ids, small_cost=np.full(2000, 1.0), large_cost=np.full(2000, 10.0), delta=0.1
    )
    assert certified.expected_saving == pytest.approx(certified.kept / 2000 - 0.1)


def test_questions_of_unknown_cost_do_not_count_for_the_saving() -> None:
    confidence, small, large, ids = easy(2000)
    large_cost = np.full(2000, 10.0)
    large_cost[::3] = np.nan
    certified = certify(confidence, small, large, ids, small_cost=np.full(2000, 1.0), large_cost=large_cost)
    known = ~np.isnan(large_cost)
    assert certified.threshold is not None
    kept_share = (confidence >= certified.threshold)[known].mean()
    assert certified.expected_saving == pytest.approx(kept_share - 0.1)
    assert (
        certify(confidence, small, large, ids, small_cost=np.full(2000, np.nan), large_cost=large_cost).expected_saving
        is None
    )


def test_each_task_has_its_own_certificate_and_a_shared_promise_splits_the_risk() -> None:
    confidence, small, large, ids = easy(2000)
    tasks = np.array(["maths", "law"] * 999 + [None, None], dtype=object)
    own = certify_by_task(confidence, small, large, ids, tasks)
    shared = certify_by_task(confidence, small, large, ids, tasks, split_delta=True)
    assert list(own) == ["law", "maths", None]
    assert own["law"] == certify(confidence[1:-2:2], small[1:-2:2], large[1:-2:2], np.asarray(ids)[1:-2:2])
    assert {c.delta for c in shared.values()} == {0.05 / 3}
    assert shared["maths"].kept <= own["maths"].kept
    assert own[None].threshold is None


@pytest.mark.parametrize(
    "change,said",
    [
        ({"small_correct": np.full(200, 0.5)}, "small model's correctness must be 0 or 1"),
        ({"large_correct": np.full(200, np.nan)}, "large model's correctness must be 0 or 1"),
        ({"confidence": np.full(200, 1.5)}, "lies in \\[0, 1\\]"),
        ({"confidence": np.full(199, 0.5)}, "equally long"),
        ({"delta": 0.0}, "delta"),
        ({"max_drop": 2.0}, "must lie between 0 and 1"),
        ({"small_cost": np.ones(3), "large_cost": np.ones(200)}, "one a question"),
    ],
)
def test_input_that_cannot_be_certified_is_refused_in_one_line(change: dict[str, Any], said: str) -> None:
    arguments: dict[str, Any] = {
        "confidence": np.full(200, 0.5), "small_correct": np.ones(200), "large_correct": np.ones(200), "ids": names(200)
    }  # fmt: skip
    with pytest.raises(InputError, match=said) as caught:
        certify(**{**arguments, **change})
    assert "\n" not in str(caught.value)


def test_no_question_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="at least one question"):
        certify(np.empty(0), np.empty(0), np.empty(0), names(0))


def test_booleans_will_do_for_correctness() -> None:
    right = np.ones(200, dtype=bool)
    assert certify(np.linspace(0, 1, 200), right, right, names(200)).kept == 200


# Other rules ----------------------------------------------------------------------------------------------------------


def test_walks_with_weaker_tests_keep_less_and_the_naive_rule_more() -> None:
    confidence, small, large, ids = easy(3000)
    certified = certify(confidence, small, large, ids)
    sample = Sample.of(confidence, small, large, ids)
    found = {name: rule(sample, 0.02, 0.05) for name, rule in RULES.items()}
    kept = {name: 0.0 if cut is None else float((confidence >= cut[0]).sum()) for name, cut in found.items()}
    assert kept["naive"] > certified.kept
    for name in ("harm only, exact", "betting, net", "Hoeffding–Bentkus, harm", "Hoeffding–Bentkus, net"):
        assert kept[name] < certified.kept, name
    assert kept["Hoeffding–Bentkus, net"] <= kept["Hoeffding–Bentkus, harm"] <= kept["harm only, exact"]
    assert 0 < kept["conformal risk control"] <= kept["naive"]


def test_rules_defer_always_where_no_confidence_is_known() -> None:
    sample = Sample.of(np.full(50, np.nan), np.ones(50), np.ones(50), names(50))
    assert {rule(sample, 0.02, 0.05) for rule in RULES.values()} == {None}


def test_the_papers_rule_keeps_where_the_small_model_is_as_often_right_as_the_large_one() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(20_000)
    small = (rng.random(20_000) < confidence).astype(np.float64)
    large = (rng.random(20_000) < 0.8).astype(np.float64)
    cut = RULES["paper"](Sample.of(confidence, small, large, names(20_000)), 0.02, 0.05)
    assert cut is not None
    assert cut[0] == pytest.approx(0.8, abs=0.02)


# The file -------------------------------------------------------------------------------------------------------------


def certificate(**changes: Any) -> Certificate:
    confidence, small, large, ids = easy(1000)
    certified = certify(confidence, small, large, ids, small_cost=np.full(1000, 1.0), large_cost=np.full(1000, 9.0))
    given_values: dict[str, Any] = {
        "promises": (Promise(certified=certified),), "small": "qwen-0.5b", "large": "qwen-1.5b", "signal": "logprob",
        "tasks": ("gsm8k",), "models_hash": "m1", "prompts_hash": "p1", "data_hash": "d1",
        "created_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Certificate(**{**given_values, **changes})


def test_a_certificate_survives_the_disk(tmp_path: Path) -> None:
    written = certificate()
    dump(written, tmp_path / "c.json")
    assert load(tmp_path / "c.json") == written
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["c.json"]
    assert "at least 95 %" in written.promises[0].certified.promise
    useless = certify(np.ones(9), np.ones(9), np.ones(9), names(9))
    nothing = certificate(promises=(Promise(task="law", certified=useless), Promise(certified=useless)))
    dump(nothing, tmp_path / "c.json")
    assert load(tmp_path / "c.json") == nothing


@pytest.mark.parametrize(
    "damage,said",
    [
        (lambda text: text[: len(text) // 2], "damaged, it is not JSON"),
        (lambda text: b"\xff\xfe" + text, "damaged"),
        (lambda text: b"[]", "holds no certificate"),
        (lambda text: b"{}", "holds no certificate"),
        (lambda text: text.replace(b'"version": 1', b'"version": 2'), "newer than this corea"),
        (lambda text: text.replace(b'"signal"', b'"sgnal"'), "sgnal: unknown key|signal"),
        (lambda text: text.replace(b'"kept"', b'"keept"'), "keept: unknown key|kept"),
        (lambda text: text.replace(b'"n": 1000', b'"n": "many"'), "certified.n: "),
        (lambda text: text.replace(b'"delta": 0.05', b'"delta": NaN'), "certified.delta: "),
    ],
)
def test_a_certificate_that_is_not_what_was_written_is_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    path = tmp_path / "c.json"
    dump(certificate(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=said) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_certificate_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="corea certify"):
        load(tmp_path / "none.json")


FITS: dict[str, Any] = {"models_hash": "m1", "prompts_hash": "p1", "signal": "logprob"}


@pytest.mark.parametrize("changed", FITS)
def test_a_certificate_is_void_for_other_models_prompts_or_signals(changed: str) -> None:
    check_applies(certificate(), **FITS)
    with pytest.raises(InputError, match="void"):
        check_applies(certificate(), **{**FITS, changed: "other"})


def test_a_certificate_of_foreign_outcomes_runs_no_cascade() -> None:
    with pytest.raises(InputError, match="corea eval run"):
        check_applies(certificate(models_hash=None, prompts_hash=None), **FITS)
    with pytest.raises(InputError, match="certify outcomes with questions"):
        check_applies(certificate(tie_key="id"), **FITS)


def test_a_task_has_its_own_promise_or_that_for_all_together() -> None:
    law, every = (replace(certificate().promises[0].certified, threshold=t) for t in (0.9, 0.8))
    both = certificate(promises=(Promise(task="law", certified=law), Promise(certified=every)), tasks=("law", "art"))
    assert both.for_task("law") == law
    assert both.for_task("art") == both.for_task(None) == both.for_task("chess") == every
    assert both.warning("law") is both.warning("art") is both.warning(None) is None
    assert 'not shown for task "chess"' in str(both.warning("chess"))


def test_a_task_without_a_promise_is_deferred_with_a_warning() -> None:
    only = certificate(promises=(Promise(task="law", certified=certificate().promises[0].certified),), tasks=("law",))
    assert only.for_task("chess") is None
    assert only.for_task(None) is None
    assert 'promises nothing about task "chess"' in str(only.warning("chess"))
    assert "questions of no task" in str(only.warning(None))


def test_reading_a_certificate_and_deciding_by_it_load_no_numpy() -> None:
    code = "import sys, corea.policy.certificate, corea.policy.ties; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_file_is_plain_json_that_says_what_it_promises(tmp_path: Path) -> None:
    dump(certificate(), tmp_path / "c.json")
    data = json.loads((tmp_path / "c.json").read_text())
    assert data["version"] == 1
    assert data["promises"][0]["certified"]["method"] == "exact score-ordered net-drop test, walk"
    assert {"max_drop", "delta", "n", "threshold", "tie_fraction"} <= set(data["promises"][0]["certified"])
