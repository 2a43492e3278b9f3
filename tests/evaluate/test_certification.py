"""From outcomes to a certificate: choice and promise share no question, and a promise is one a cascade can keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.confidence.fitted import ConfidenceMap, Sigmoid, checksum
from corea.config import parse
from corea.errors import InputError
from corea.evaluate.certification import (
    Choice,
    Terms,
    best_signal,
    certificate_of,
    choose,
    fit_map,
    with_map,
)
from corea.evaluate.maps import split
from corea.evaluate.outcomes import Outcomes, Pair
from corea.identity import Shape, hashes_of, shapes_of
from corea.policy.ties import keeps

NAN = float("nan")
AT = "2026-01-01T00:00:00+00:00"


def pair_of(n: int, seed: int = 0, *, tasks: tuple[str | None, ...] = ("toy",), **changes: Any) -> Pair:
    """A small model whose signal ``good`` is worth something, ``noise`` is not; nothing else has a price."""
    rng = np.random.default_rng(seed)
    good = rng.random(n)
    small = (rng.random(n) < 0.5 + good / 2).astype(float)
    given_values: dict[str, Any] = {
        "small": "small", "large": "large", "ids": names(n, "q"),
        "tasks": np.array([tasks[i % len(tasks)] for i in range(n)], dtype=object),
        "small_correct": small, "large_correct": np.maximum(small, rng.random(n) < 0.9),
        "small_cost_nano_usd": np.full(n, 1.0), "large_cost_nano_usd": np.full(n, 20.0),
        "confidence": {"noise": rng.random(n), "good": good}, "questions": names(n, "say "),
    }  # fmt: skip
    return Pair(**{**given_values, **changes})


def names(n: int, prefix: str) -> Any:
    return np.array([f"{prefix}{i}" for i in range(n)], dtype=object)


def shapes(confidence: str = '{ estimator = "logprob" }', tiers: int = 2) -> list[Shape]:
    common = 'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
    judged = "".join(
        f'[[tiers]]\nname = "t{i}"\n{common}threshold = 0.5\nconfidence = {confidence}\n' for i in range(tiers - 1)
    )
    return list(shapes_of(parse(f'{judged}[[tiers]]\nname = "large"\n{common}', source="x")).values())


def outcomes(*, tiers: tuple[str, ...] = ("small", "large"), **metadata: Any) -> Outcomes:
    return Outcomes(table=pa.table({}), metadata={"tiers": list(tiers), "data_hash": "d1", **metadata})


FOREIGN = outcomes()
OWN = outcomes(shapes=shapes())
INLINE = outcomes(shapes=shapes('{ estimator = "verbalized" }'))


# Choosing a signal ----------------------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=60, unique=True), st.randoms())
@settings(max_examples=60, deadline=None)
def test_no_question_both_chooses_and_certifies(ids: list[str], random: Any) -> None:
    pair = replace(pair_of(len(ids)), ids=np.array(ids, dtype=object))
    try:
        choice = choose(pair, None, FOREIGN)
    except InputError as exc:
        chosen_on = int(split(pair.ids, share=1 / 3, salt="signal").sum())
        assert chosen_on in (0, len(ids)), exc  # noqa: PT017 - the property is that nothing else is refused
        return
    certifying = set(choice.pair.ids)
    assert choice.chosen_on + len(certifying) == len(ids)
    # The certifying questions may say what they like: the choice was made without them.
    rest = np.array([one in certifying for one in ids])
    spoilt = {name: np.where(rest, random.random(), values) for name, values in pair.confidence.items()}
    turned = replace(pair, confidence=spoilt, small_correct=np.where(rest, 0.0, pair.small_correct))
    assert choose(turned, None, FOREIGN).signal == choice.signal
    # And an id chooses or certifies, whatever else is in the data.
    fewer = pair.where(np.arange(len(ids)) % 2 == 0)
    assert set(choose(replace(fewer, confidence={"good": fewer.confidence["good"]}), None, FOREIGN).pair.ids) == set(
        fewer.ids
    )


def test_the_better_signal_is_chosen_on_a_third_of_the_questions() -> None:
    choice = choose(pair_of(900), None, FOREIGN)
    assert choice.signal == "good"
    assert 250 < choice.chosen_on < 350
    assert len(choice.pair) == 900 - choice.chosen_on


def test_a_named_signal_or_the_only_one_costs_no_questions() -> None:
    pair = pair_of(90)
    assert choose(pair, "noise", FOREIGN) == Choice(pair=pair, signal="noise")
    only = replace(pair, confidence={"good": pair.confidence["good"]})
    assert choose(only, None, FOREIGN).chosen_on == 0
    for wrong in ("p_true", ""):
        with pytest.raises(InputError, match=f"no confidence signal '{wrong}'; they hold: noise, good"):
            choose(pair, wrong, FOREIGN)


def test_a_dear_signal_must_be_worth_its_cost() -> None:
    pair = pair_of(900)
    twin = np.clip(pair.confidence["good"] + 1e-9, 0, 1)
    both = replace(pair, confidence={"dear": twin, "cheap": pair.confidence["good"]})
    priced = replace(both, signal_cost_nano_usd={"dear": np.full(900, 15.0), "cheap": np.zeros(900)})
    assert best_signal(priced) == "cheap"


@pytest.mark.parametrize("costs", [1.0, NAN])
def test_a_signal_that_is_at_times_unknown_is_not_counted_as_wrong_there(costs: float) -> None:
    pair = pair_of(900, small_cost_nano_usd=np.full(900, costs))
    # It knows which answers are right, of all but a tenth of them.
    knowing = np.where(np.arange(900) % 10 == 0, NAN, 0.25 + pair.small_correct / 2)
    assert best_signal(replace(pair, confidence={"good": pair.confidence["good"], "knowing": knowing})) == "knowing"


def test_a_signal_that_is_always_unknown_is_not_chosen() -> None:
    pair = pair_of(300)
    unknown = np.full(300, NAN)
    assert best_signal(replace(pair, confidence={"unknown": unknown, "good": pair.confidence["good"]})) == "good"


def test_without_any_confidence_there_is_nothing_to_certify() -> None:
    for told in (
        lambda p: choose(p, None, FOREIGN),
        lambda p: fit_map(FOREIGN, p, "fitted", (), share=0.5, created_at=AT),
    ):
        with pytest.raises(InputError, match="no row of tier small holds a confidence"):
            told(pair_of(90, confidence={}))


def test_a_tier_that_states_its_confidence_in_the_reply_is_judged_by_that_or_not_at_all() -> None:
    """Judged by another signal it would not be asked for that line, and its answers would be others."""
    good = pair_of(300).confidence["good"]
    stated = pair_of(300, confidence={"logprob": good, "p_true": good, "verbalized": np.round(good, 1)})
    assert choose(stated, None, INLINE).signal == "verbalized"
    assert choose(stated, "verbalized", INLINE).signal == "verbalized"
    for refused in (
        lambda: choose(stated, "logprob", INLINE),
        lambda: fit_map(INLINE, stated, "platt", ("p_true",), share=0.5, created_at=AT),
    ):
        with pytest.raises(InputError, match="was asked to state its confidence in the reply"):
            refused()
    fit_map(INLINE, stated, "fitted", ("p_true", "verbalized"), share=0.5, created_at=AT)
    # Foreign outcomes run no cascade, and what was not asked inline is judged by anything.
    assert choose(stated, "logprob", FOREIGN).signal == choose(stated, "logprob", OWN).signal == "logprob"


# The certificate ------------------------------------------------------------------------------------------------------


def certified(pair: Pair, signal: str = "good", *, of: Outcomes = OWN, **terms: Any) -> Any:
    return certificate_of(of, choose(pair, signal, of), Terms(**terms), created_at=AT)


def test_a_certificate_says_what_it_was_made_from() -> None:
    made = certified(pair_of(900, tasks=("law", "art")), delta=0.1, max_drop=0.05)
    (promise,) = made.promises
    assert promise.task is None
    assert (promise.certified.n, promise.certified.delta, promise.certified.max_drop) == (900, 0.1, 0.05)
    assert (made.small, made.large, made.signal, made.tasks) == ("small", "large", "good", ("art", "law"))
    assert (made.models_hash, made.prompts_hash) == hashes_of(shapes())
    assert (made.data_hash, made.created_at, made.tie_key) == ("d1", AT, "question")


def test_the_counts_are_those_of_the_questions_that_the_threshold_keeps() -> None:
    pair = pair_of(2000)
    pair = replace(pair, confidence={"good": np.round(pair.confidence["good"], 1)})
    found = certified(pair, max_drop=0.05).promises[0].certified
    kept = np.array([
        keeps(value, text, threshold=found.threshold, tie_fraction=found.tie_fraction)
        for value, text in zip(pair.confidence["good"].tolist(), pair.questions, strict=True)
    ])  # fmt: skip
    assert 0 < found.tie_fraction < 1, "or the test shows little"
    assert found.kept == kept.sum()
    assert found.harm == (kept & (pair.small_correct < pair.large_correct)).sum()
    assert found.expected_saving == pytest.approx(kept.mean() - 1 / 20)


def test_the_cost_of_asking_for_the_confidence_is_in_the_saving() -> None:
    pair = pair_of(2000)
    dear = replace(pair, signal_cost_nano_usd={"good": np.full(2000, 3.0)})
    free, paid = (certified(one, max_drop=0.05).promises[0].certified for one in (pair, dear))
    assert paid.kept == free.kept
    assert free.expected_saving - paid.expected_saving == pytest.approx(3 / 20)


def test_outcomes_that_do_not_say_what_answered_bind_a_certificate_to_nothing() -> None:
    made = certified(pair_of(300), of=FOREIGN)
    assert (made.models_hash, made.prompts_hash) == (None, None)
    assert certified(replace(pair_of(300), questions=np.array([], dtype=object)), of=OWN).tie_key == "id"


def test_samples_are_part_of_the_signal() -> None:
    pair = pair_of(300)
    pair = replace(pair, confidence={"self_consistency": pair.confidence["good"]})
    made = certified(pair, "self_consistency", of=outcomes(shapes=shapes(), samples=8))
    assert made.signal == "self_consistency:8:0.7"


def test_each_task_has_its_own_promise_at_its_own_risk_or_a_share_of_it() -> None:
    pair = pair_of(900, tasks=("law", "art", "maths"))
    made = certified(pair, by_task=True)
    assert [promise.task for promise in made.promises] == ["art", "law", "maths"]
    assert {promise.certified.n for promise in made.promises} == {300}
    assert made.for_task("chess") is None
    shared = certified(pair, by_task=True, split_delta=True)
    assert {promise.certified.delta for promise in shared.promises} == {0.05 / 3}


def test_tasks_with_a_handful_of_questions_get_no_promise_and_are_told_how_many_they_need() -> None:
    pair = pair_of(9, tasks=("law", "art", "maths"))
    for promise in certified(replace(pair, small_correct=np.ones(9)), by_task=True).promises:
        assert promise.certified.threshold is None
        assert promise.certified.needed_n is not None
        assert "Nothing can be promised with these 3 questions: about 150 more are needed." in promise.certified.promise


@pytest.mark.parametrize("tasks,said", [((None,), "6 of 6"), (("law", None, None), "4 of 6")])
def test_questions_of_no_task_are_told_and_never_become_a_promise_for_every_task(
    tasks: tuple[str | None, ...], said: str
) -> None:
    pair = pair_of(6, tasks=tasks)
    with pytest.raises(InputError, match=f"{said} questions name no task"):
        certified(pair, by_task=True)
    untold = replace(pair, tasks=np.array([], dtype=object))
    with pytest.raises(InputError, match="6 of 6 questions name no task"):
        certified(untold, by_task=True)


def test_two_tiers_of_three_can_be_certified_for_a_cascade_of_the_two() -> None:
    three = outcomes(tiers=("small", "large", "huge"), shapes=shapes(tiers=3))
    made = certified(pair_of(300), of=three)
    assert (made.models_hash, made.prompts_hash) == hashes_of(shapes())


def test_grades_that_are_averages_certify_nothing() -> None:
    with pytest.raises(InputError, match="correctness must be 0 or 1"):
        certified(pair_of(300, small_correct=np.full(300, 0.5)))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("grade", [0.0, 1.0])
def test_one_class_and_one_confidence_are_certified_like_anything_else(value: float, grade: float) -> None:
    pair = pair_of(600, small_correct=np.full(600, grade), confidence={"good": np.full(600, value)})
    found = certified(replace(pair, large_correct=np.ones(600))).promises[0].certified
    assert (found.kept, found.harm) == ((600, 0) if grade else (0, 0))
    assert (found.threshold, found.tie_fraction) == ((value, 1.0) if grade else (None, 1.0))


def test_a_certificate_does_not_depend_on_the_order_of_the_rows() -> None:
    pair = pair_of(900)
    pair = replace(pair, confidence={name: np.round(values, 1) for name, values in pair.confidence.items()})
    shuffled = np.random.default_rng(1).permutation(900)
    turned = replace(
        pair, **{name: getattr(pair, name)[shuffled] for name in ("ids", "tasks", "questions")},
        **{name: getattr(pair, name)[shuffled] for name in ("small_correct", "large_correct")},
        confidence={name: values[shuffled] for name, values in pair.confidence.items()},
    )  # fmt: skip
    one, other = (
        certificate_of(OWN, choose(given_pair, None, OWN), Terms(max_drop=0.05), created_at=AT)
        for given_pair in (pair, turned)
    )
    assert one == other


# Maps -----------------------------------------------------------------------------------------------------------------


def map_for(shape: list[Shape], *signals: str, model: str | None = None) -> ConfidenceMap:
    models, prompts = hashes_of(shape[:1])
    return ConfidenceMap(
        kind="platt", signals=signals, parameters=Sigmoid(slope=1.0, intercept=0.5), model=model or models,
        prompt=prompts, n=9, share=0.5, salt="map", created_at=AT,
    )  # fmt: skip


def test_a_map_is_certified_on_the_questions_it_was_not_fitted_on() -> None:
    pair = pair_of(900)
    made = fit_map(OWN, pair, "platt", ("good",), share=0.5, created_at=AT)
    choice = with_map(pair, made.map, OWN)
    assert (choice.signal, choice.chosen_on) == ("fitted", 0)
    assert len(choice.pair) == made.n_check == 900 - made.map.n
    certificate = certificate_of(OWN, choice, Terms(max_drop=0.05), created_at=AT, fitted=made.map)
    assert certificate.signal == f"fitted:{checksum(made.map)[:16]}"
    assert certificate.promises[0].certified.n == made.n_check


def test_a_map_of_all_signals_reads_each_of_them_once() -> None:
    pair = pair_of(300)
    assert fit_map(OWN, pair, "fitted", (), share=0.5, created_at=AT).map.signals == ("noise", "good")
    assert fit_map(OWN, pair, "fitted", ("good", "good"), share=0.5, created_at=AT).map.signals == ("good",)


def test_a_map_holds_for_the_model_it_was_fitted_for_and_foreign_ones_are_not_asked() -> None:
    pair = pair_of(300)
    with pytest.raises(InputError, match="fitted for another model or prompt than these outcomes; fit one for them"):
        with_map(pair, map_for(shapes(), "good", model="other"), OWN)
    with pytest.raises(InputError, match="fitted for another model or prompt"):
        with_map(pair, fit_map(FOREIGN, pair, "platt", ("good",), share=0.5, created_at=AT).map, OWN)
    assert with_map(pair, map_for(shapes(), "good", model="other"), FOREIGN).signal == "fitted"


def test_a_map_reads_as_many_samples_as_the_cascade_will_draw() -> None:
    pair = pair_of(300, confidence={"self_consistency": pair_of(300).confidence["good"]})
    usual, more = (outcomes(shapes=shapes(), samples=samples) for samples in (5, 8))
    made = fit_map(usual, pair, "platt", (), share=0.5, created_at=AT).map
    with_map(pair, made, usual)
    for refused in (
        lambda: with_map(pair, made, more),
        lambda: fit_map(more, pair, "platt", (), share=0.5, created_at=AT),
    ):
        with pytest.raises(InputError, match="self_consistency of 5 samples, not 8; collect it with --samples 5"):
            refused()


def test_a_map_whose_signal_the_outcomes_lack_is_told() -> None:
    with pytest.raises(InputError, match="no confidence signal 'p_true'; they hold: noise, good"):
        with_map(pair_of(300), map_for(shapes(), "p_true"), OWN)
