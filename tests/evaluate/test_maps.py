"""Maps make confidence mean what it says, on questions they were not fitted on, and never turn a ranking round."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.confidence.fitted import Combination, ConfidenceMap, Kind, Sigmoid, Steps, Term, load, save
from corea.errors import InputError
from corea.evaluate.maps import CheckedMap, apply, fit, fit_parameters, folds, mapped, split
from corea.evaluate.metrics import Settings
from corea.evaluate.outcomes import Floats, Pair

NAN = float("nan")
SINGLE: tuple[Kind, ...] = ("platt", "isotonic", "temperature")
KINDS: tuple[Kind, ...] = (*SINGLE, "fitted")
FEW = Settings(resamples=100)


def pair_of(n: int, seed: int = 0) -> Pair:
    """An overconfident signal, one that is only at times there, and one of noise."""
    rng = np.random.default_rng(seed)
    right = rng.random(n)
    correct = (rng.random(n) < right).astype(float)
    second = np.clip(correct * 0.3 + rng.random(n) * 0.6, 0, 1)
    # Where it is unknown, the answer is more often wrong.
    second[rng.random(n) < np.where(correct > 0, 0.1, 0.4)] = NAN
    return Pair(
        small="s",
        large="l",
        ids=np.array([f"q{i}" for i in range(n)], dtype=object),
        tasks=np.full(n, "t", dtype=object),
        small_correct=correct,
        large_correct=np.ones(n),
        small_cost_nano_usd=np.ones(n),
        large_cost_nano_usd=np.ones(n),
        confidence={"over": right**0.25, "second": second, "noise": rng.random(n)},
    )


def fitted(kind: Kind, pair: Pair, *signals: str, **more: Any) -> CheckedMap:
    given = {"model": "m", "prompt": "p", "created_at": "2026-01-01T00:00:00Z", "rng": np.random.default_rng(0), **more}
    return fit(kind, pair, signals, settings=FEW, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_makes_an_overconfident_signal_calibrated_on_other_questions(kind: Kind) -> None:
    done = fitted(kind, pair_of(2000), "over")
    before, after = done.before["over"], done.after
    assert before.ece.value is not None
    assert after.ece.value is not None
    assert before.ece.value > 0.2
    # A temperature draws all towards one half, and moves nothing across it: it mends little here.
    assert after.ece.value < (before.ece.value if kind == "temperature" else 0.06)
    assert before.brier.value is not None
    assert after.brier.value is not None
    assert after.brier.value < before.brier.value
    assert after.auroc.value == pytest.approx(before.auroc.value, abs=0.02)


def test_several_signals_rank_better_than_the_best_of_them() -> None:
    done = fitted("fitted", pair_of(2000), "over", "second", "noise")
    best = max(one.auroc.value or 0 for one in done.before.values())
    assert done.after.auroc.value is not None
    assert done.after.auroc.value > best + 0.02
    assert done.after.coverage.value == 1
    assert isinstance(done.map.parameters, Combination)
    over, second, noise = done.map.parameters.terms
    assert over.weight > abs(noise.weight) * 3
    assert second.missing is not None
    assert second.missing < 0
    assert (over.missing, noise.missing) == (None, None)


def test_a_map_is_checked_on_no_question_it_was_fitted_on() -> None:
    pair = pair_of(400)
    done = fitted("platt", pair, "over")
    assert done.map.n + done.n_check == 400
    assert done.after.coverage.n == done.n_check
    fitting = split(pair.ids, share=0.5, salt="map")
    alone = fit_parameters("platt", pair.confidence["over"][fitting][:, None], pair.small_correct[fitting])
    assert done.map.parameters == alone
    assert done.map.n == fitting.sum()
    assert (done.map.share, done.map.salt) == (0.5, "map")


def test_the_split_is_the_rule_it_states_and_does_not_depend_on_order() -> None:
    ids = np.array([f"q{i}" for i in range(3000)] + ["ü", "q1"], dtype=object)
    stated = [int(hashlib.sha256(f"map:{one}".encode()).hexdigest(), 16) / 2**256 < 0.3 for one in ids]
    assert list(split(ids, share=0.3, salt="map")) == stated
    assert list(split(ids[::-1], share=0.3, salt="map")) == stated[::-1]
    assert 0.27 < np.mean(stated) < 0.33
    assert list(split(ids, share=0.3, salt="other")) != stated
    counts = np.bincount(folds(ids, 5, salt="x"))
    assert len(counts) == 5
    assert counts.min() > 500


grids = st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0.0, 0.25, 1.0])), min_size=20, max_size=60)


@given(grids, st.sampled_from(SINGLE))
@settings(max_examples=60, deadline=None)
def test_maps_of_one_signal_rise(rows: list[tuple[int, float]], kind: Kind) -> None:
    values = np.array([c / 20 for c, _ in rows])
    parameters = fit_parameters(kind, values[:, None], np.array([y for _, y in rows]))
    curve = apply(parameters, np.linspace(0, 1, 201)[:, None])
    assert np.all(np.diff(curve) >= -1e-12)
    assert np.all((curve >= 0) & (curve <= 1))


@given(grids)
@settings(max_examples=60, deadline=None)
def test_isotonic_never_worsens_the_brier_score_where_it_was_fitted(rows: list[tuple[int, float]]) -> None:
    values, correct = np.array([c / 20 for c, _ in rows]), np.array([y for _, y in rows])
    mapped = apply(fit_parameters("isotonic", values[:, None], correct), values[:, None])
    assert np.mean((mapped - correct) ** 2) <= np.mean((values - correct) ** 2) + 1e-12


@given(grids, st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_one_by_one_and_all_at_once_are_the_same_map(rows: list[tuple[int, float]], kind: Kind) -> None:
    values, correct = np.array([c / 20 for c, _ in rows]), np.array([y for _, y in rows])
    parameters = fit_parameters(kind, values[:, None], correct)
    grid = np.append(np.linspace(0, 1, 57), NAN)
    at_once = apply(parameters, grid[:, None])
    for value, many in zip(grid, at_once, strict=True):
        one = parameters([None if np.isnan(value) else float(value)])
        assert (one is None and np.isnan(many)) or one == pytest.approx(many, abs=1e-12)


def test_missing_signals_are_mapped_alike_one_by_one_and_all_at_once() -> None:
    pair = pair_of(500)
    columns = np.column_stack([pair.confidence["over"], pair.confidence["second"]])
    parameters = fit_parameters("fitted", columns, pair.small_correct)
    rows = np.array([[0.9, 0.4], [0.9, NAN], [NAN, 0.4], [NAN, NAN]])
    at_once = apply(parameters, rows)
    one_by_one = [parameters([None if np.isnan(value) else float(value) for value in row]) for row in rows]
    assert one_by_one[:2] == pytest.approx(list(at_once[:2]))
    # "over" was never missing when fitted.
    assert one_by_one[2:] == [None, None]
    assert np.isnan(at_once[2:]).all()


def test_a_signal_that_misleads_is_flattened_and_the_user_is_told() -> None:
    pair = pair_of(400)
    backwards = replace(pair, confidence={"over": 1 - pair.confidence["over"]})
    for kind in ("platt", "isotonic"):
        done = fitted(kind, backwards, "over")
        assert "does not rise" in str(done.note)
        assert done.after.distinct_values.value == 1
    parameters = fit_parameters("platt", backwards.confidence["over"][:, None], pair.small_correct)
    assert isinstance(parameters, Sigmoid)
    assert parameters([0.3]) == pytest.approx(pair.small_correct.mean(), abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grade", [0.0, 1.0])
def test_one_class_gives_a_finite_map_of_that_class(kind: Kind, grade: float) -> None:
    values = np.linspace(0.1, 0.9, 50)[:, None]
    mapped = apply(fit_parameters(kind, values, np.full(50, grade)), values)
    assert np.isfinite(mapped).all()
    assert np.abs(mapped - grade).max() < (0.51 if kind == "temperature" else 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_all_equal_confidences_are_mapped_to_the_share_that_is_right(kind: Kind) -> None:
    values, correct = np.full((100, 1), 0.95), np.arange(100) % 4 / 3
    (mapped,) = set(np.round(apply(fit_parameters(kind, values, correct), values), 9))
    assert mapped == pytest.approx(0.5, abs=0.03)


def test_perfect_separation_stays_finite() -> None:
    values = np.append(np.full(30, 0.2), np.full(30, 0.8))[:, None]
    parameters = fit_parameters("platt", values, np.repeat([0.0, 1.0], 30))
    assert isinstance(parameters, Sigmoid)
    low, high = apply(parameters, np.array([[0.2], [0.8]]))
    # Platt's targets: 1/32 and 31/32.
    assert (low, high) == pytest.approx((1 / 32, 31 / 32), abs=1e-3)


def test_platt_finds_the_line_that_made_the_data() -> None:
    rng = np.random.default_rng(3)
    values = rng.random(20_000)
    odds = 0.5 * np.log(values / (1 - values)) - 1
    parameters = fit_parameters("platt", values[:, None], (rng.random(20_000) < 1 / (1 + np.exp(-odds))).astype(float))
    assert isinstance(parameters, Sigmoid)
    assert (parameters.slope, parameters.intercept) == pytest.approx((0.5, -1), abs=0.05)


def test_temperature_finds_the_temperature_that_made_the_data() -> None:
    rng = np.random.default_rng(3)
    values = rng.random(20_000)
    odds = np.log(values / (1 - values)) / 2.5
    correct = (rng.random(20_000) < 1 / (1 + np.exp(-odds))).astype(float)
    parameters = fit_parameters("temperature", values[:, None], correct)
    assert isinstance(parameters, Sigmoid)
    assert 1 / parameters.slope == pytest.approx(2.5, rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_map_is_the_same_after_a_round_trip(kind: Kind, tmp_path: Path) -> None:
    signals = ("over", "second") if kind == "fitted" else ("over",)
    done = fitted(kind, pair_of(300), *signals)
    save(done.map, tmp_path / "map.json")
    again = load(tmp_path / "map.json", model="m", prompt="p")
    assert again == done.map
    values = {"over": 0.83, "second": None}
    assert again.apply(values) == done.map.apply(values)


def empty_of(pair: Pair) -> Pair:
    return pair.where(np.zeros(len(pair), dtype=bool))


@pytest.mark.parametrize(
    "kind, pair, signals, what",
    [
        ("platt", pair_of(100), ("p_true",), "'p_true'; they hold: over, second, noise"),
        ("platt", pair_of(100), ("over", "second"), "reads one signal, not 2"),
        ("fitted", pair_of(100), (), "reads one signal, not 0"),
        ("platt", pair_of(12), ("over",), "20 are needed"),
        ("platt", empty_of(pair_of(12)), ("over",), "no questions"),
    ],
)
def test_what_cannot_be_fitted_is_an_input_error(kind: Kind, pair: Pair, signals: tuple[str, ...], what: str) -> None:
    with pytest.raises(InputError, match=what):
        fitted(kind, pair, *signals)


def test_an_unknown_signal_fits_nothing() -> None:
    pair = pair_of(100)
    with pytest.raises(InputError, match="only 0 questions with a known confidence"):
        fitted("platt", replace(pair, confidence={"over": np.full(100, NAN)}), "over")


def test_a_share_of_all_leaves_nothing_to_check_on() -> None:
    with pytest.raises(InputError, match="no question is left to check"):
        fitted("platt", pair_of(100), "over", share=1.0)


def test_isotonic_steps_are_means_of_neighbours() -> None:
    values: Floats = np.repeat([0.1, 0.2, 0.3], 10)
    correct = np.concatenate([np.full(10, 0.6), np.full(10, 0.2), np.full(10, 0.9)])
    parameters = fit_parameters("isotonic", values[:, None], correct)
    assert isinstance(parameters, Steps)
    assert apply(parameters, np.array([[0.1], [0.2], [0.3]])) == pytest.approx([0.4, 0.4, 0.9])


# Applied to outcomes --------------------------------------------------------------------------------------------------


def map_of(*signals: str, share: float = 0.5, salt: str = "map") -> ConfidenceMap:
    term = Term(mean=0.1, deviation=1.3, weight=0.7, missing=-0.4)
    return ConfidenceMap(
        kind="fitted", signals=signals, parameters=Combination(intercept=0.2, terms=(term,) * len(signals)),
        model="m", prompt="p", n=9, share=share, salt=salt, created_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


@given(
    ids=st.lists(st.text(max_size=5), min_size=1, max_size=30, unique=True),
    share=st.floats(0.05, 0.95),
    salt=st.text(max_size=3),
)
@settings(max_examples=80, deadline=None)
def test_a_map_is_applied_to_no_question_that_it_was_fitted_on(ids: list[str], share: float, salt: str) -> None:
    pair = replace(pair_of(len(ids)), ids=np.array(ids, dtype=object))
    fitted_on = {one for one in ids if int(hashlib.sha256(f"{salt}:{one}".encode()).hexdigest(), 16) / 2**256 < share}
    made = map_of("over", share=share, salt=salt)
    if len(fitted_on) == len(ids):
        with pytest.raises(InputError, match="fitted on every one of these questions"):
            mapped(pair, made)
        return
    rest = mapped(pair, made)
    assert set(rest.ids) == set(ids) - fitted_on
    assert len(rest.confidence["fitted"]) == len(rest)


def test_the_questions_that_a_fit_left_out_are_the_ones_its_map_is_applied_to() -> None:
    pair = pair_of(400)
    done = fitted("platt", pair, "over", share=0.3, salt="mine")
    rest = mapped(pair, done.map)
    assert len(rest) == done.n_check
    assert rest.confidence["fitted"] == pytest.approx(apply(done.map.parameters, rest.confidence["over"][:, None]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapped_confidence_is_to_the_last_bit_what_a_cascade_will_compute(kind: Kind) -> None:
    """A threshold lies exactly on one of these values, so one unit in the last place would turn a decision round."""
    pair = pair_of(3000)
    signals = ("over", "second") if kind == "fitted" else ("second",)
    made = fitted(kind, pair, *signals).map
    rest = mapped(pair, made)
    for at, value in enumerate(rest.confidence["fitted"].tolist()):
        given = {name: None if np.isnan(rest.confidence[name][at]) else rest.confidence[name][at] for name in signals}
        own = made.apply(given).value
        assert (own is None and np.isnan(value)) or own == value


def test_a_mapped_confidence_costs_what_all_of_its_signals_cost() -> None:
    costs = {"over": np.full(200, 3.0), "second": np.where(np.arange(200) % 2, 4.0, NAN)}
    rest = mapped(replace(pair_of(200), signal_cost_nano_usd=costs), map_of("over", "second"))
    assert set(rest.signal_cost_nano_usd["fitted"][~np.isnan(rest.signal_cost_nano_usd["fitted"])]) == {7.0}
    assert np.isnan(rest.signal_cost_nano_usd["fitted"]).any(), "unknown where a signal's cost is"
    assert set(rest.confidence) == {"over", "second", "noise", "fitted"}


def test_where_the_call_for_a_signal_failed_the_mapped_confidence_is_unknown_as_in_a_cascade() -> None:
    """A signal that the model did not give is mapped as missing; one that was not to be had is not."""
    pair = pair_of(200)
    second = np.where(np.arange(200) % 2, NAN, pair.confidence["second"])
    costs = np.where(np.arange(200) % 4 == 1, NAN, 2.0)
    given = replace(
        pair, confidence={"over": pair.confidence["over"], "second": second}, signal_cost_nano_usd={"second": costs}
    )
    rest = mapped(given, map_of("over", "second"))
    number = np.array([int(one[1:]) for one in rest.ids])
    assert np.array_equal(np.isnan(rest.confidence["fitted"]), number % 4 == 1)


def test_a_map_of_a_signal_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="no confidence signal 'p_true'; they hold: over, second, noise"):
        mapped(pair_of(20), map_of("over", "p_true"))


def test_a_map_says_what_it_was_fitted_on() -> None:
    made = fitted("platt", pair_of(300), "over").map
    assert isinstance(made, ConfidenceMap)
    assert (made.kind, made.signals, made.model, made.prompt) == ("platt", ("over",), "m", "p")
    assert made.created_at == "2026-01-01T00:00:00Z"
