"""From outcomes to a gate with its certificate: what fits, what certifies, and when no gate is better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from corea.confidence.fitted import ConfidenceMap, Sigmoid, checksum
from corea.config import parse
from corea.errors import InputError
from corea.evaluate.certification import Terms, certified
from corea.evaluate.gates import (
    METHOD,
    MIN_FIT,
    SHARES,
    Found,
    Split,
    asks,
    certificate_with,
    fit,
    gated,
    search,
    split_of,
)
from corea.evaluate.maps import split
from corea.evaluate.metrics import Settings
from corea.evaluate.outcomes import Outcomes, Pair
from corea.identity import hashes_of, shapes_of
from corea.policy.certificate import check_applies
from corea.policy.gate import Gate, label
from corea.policy.ties import keeps
from corea.types import Request

AT = "2026-01-01T00:00:00+00:00"
TERMS = Terms(max_drop=0.05, delta=0.1)
NAN = float("nan")
FOREIGN = Outcomes(table=pa.table({}), metadata={"tiers": ["small", "large"], "data_hash": "d1"})


def pair_of(n: int = 600, *, seed: int = 0, hard: float = 0.5, told: bool = False, **changes: Any) -> Pair:
    """A small model that is nearly always right on sums, seldom on proofs, and whose confidence says little.

    ``told``: its confidence says all there is to know. It costs a third of the large one, which is never wrong.
    """
    rng = np.random.default_rng(seed)
    proof = rng.random(n) < hard
    small = (rng.random(n) < np.where(proof, 0.2, 0.99)).astype(float)
    texts = np.array(
        [
            f"{'prove that' if one else 'what is the sum of'} {a} and {b}"
            for one, a, b in zip(proof, *_numbers(n, rng), strict=True)
        ],
        dtype=object,
    )
    given_values: dict[str, Any] = {
        "small": "small", "large": "large", "ids": np.array([f"q{i}" for i in range(n)], dtype=object),
        "tasks": np.array(["maths"] * n, dtype=object), "small_correct": small, "large_correct": np.ones(n),
        "small_cost_nano_usd": np.full(n, 30.0), "large_cost_nano_usd": np.full(n, 100.0),
        "confidence": {"logprob": 0.5 * rng.random(n) + (0.5 * small if told else 0.25)},
        "questions": texts,
    }  # fmt: skip
    return Pair(**{**given_values, **changes})


def _numbers(n: int, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """In words, so that no two texts are one and the same to the gate."""
    names = ["red", "blue", "green", "old", "new", "tall", "thin", "wide", "cold", "warm"]
    drawn = rng.integers(len(names), size=(2, n, 3))
    first, second = ([" ".join(names[at] for at in row) for row in of] for of in drawn)
    return first, second


def found_in(pair: Pair, *, terms: Terms = TERMS, outcomes: Outcomes = FOREIGN) -> tuple[Split, Found]:
    halves = split_of(pair, outcomes, signal="logprob")
    gate = fit(halves.judged.where(halves.fitting), outcomes, tasks=halves.judged.tasks, created_at=AT)
    return halves, search(halves, terms, gate, rng=np.random.default_rng(0), settings=Settings(resamples=100))


def measured() -> Outcomes:
    common = 'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\n'
    judged = 'threshold = 0.5\nconfidence = { estimator = "logprob" }\n'
    config = parse(f'[[tiers]]\nname = "small"\n{common}{judged}[[tiers]]\nname = "large"\n{common}', source="x")
    metadata = {"tiers": ["small", "large"], "data_hash": "d1", "shapes": list(shapes_of(config).values())}
    return Outcomes(table=pa.table({}), metadata=metadata)


# Worth it, or not -----------------------------------------------------------------------------------------------------


def test_where_the_question_tells_and_the_confidence_does_not_a_gate_saves_what_no_threshold_could() -> None:
    halves, found = found_in(pair_of())
    assert found.gate is not None
    assert found.plain.threshold is None
    rest = halves.judged.where(~halves.fitting)
    proofs = np.array([str(text).startswith("prove") for text in rest.questions])
    assert (asks(found.gate, rest) == ~proofs).mean() > 0.9
    assert found.saving.value == pytest.approx(found.certified.expected_saving)
    assert (found.gain.low or 0) > 0.1
    assert "with a gate and 0.0% without" in found.verdict


def test_where_the_confidence_tells_all_no_gate_is_better_and_none_is_made() -> None:
    halves, found = found_in(pair_of(told=True, small_cost_nano_usd=np.full(600, 1.0)))
    assert found.gate is None
    assert (found.kind, found.skipped) == ("none", 0.0)
    assert found.certified == found.plain == certified(halves.judged.where(~halves.fitting), "logprob", TERMS)
    assert found.gain.value == 0
    assert "no gate is better" in found.verdict


def test_questions_that_are_all_alike_make_no_gate() -> None:
    same = np.array(["what is it?"] * 600, dtype=object)
    assert found_in(pair_of(questions=same, told=True))[1].gate is None


def test_a_small_model_that_is_always_right_needs_no_gate() -> None:
    _, found = found_in(pair_of(small_correct=np.ones(600)))
    assert found.gate is None
    assert found.certified.kept == found.certified.n


def test_a_verdict_says_so_where_the_certifying_questions_disagree_and_the_choice_stands() -> None:
    _, found = found_in(pair_of())
    worse = replace(found, gain=replace(found.gain, value=-0.01))
    assert "no gate would have been better" in worse.verdict
    assert "corea certify" in worse.verdict


# Together -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_certified_is_what_a_cascade_with_this_gate_does(seed: int) -> None:
    """Counted question by question, as it is served."""
    halves, found = found_in(pair_of(seed=seed, told=seed == 2))
    rest = halves.judged.where(~halves.fitting)
    harm = gain = kept = 0
    cost = 0.0
    for at, text in enumerate(rest.questions):
        skipped = found.gate is not None and found.gate.skip(Request.of(text, task="maths")) is not None
        stated = float(rest.confidence["logprob"][at])
        held = found.certified
        keep = not skipped and keeps(stated, text, threshold=held.threshold, tie_fraction=held.tie_fraction)
        net = rest.small_correct[at] - rest.large_correct[at]
        harm, gain, kept = harm + (keep and net < 0), gain + (keep and net > 0), kept + keep
        cost += (0 if skipped else rest.small_cost_nano_usd[at]) + (0 if keep else rest.large_cost_nano_usd[at])
    assert (harm, gain, kept) == (found.certified.harm, found.certified.gain, found.certified.kept)
    assert 1 - cost / rest.large_cost_nano_usd.sum() == pytest.approx(found.certified.expected_saving)


def test_a_fixed_cut_is_certified_as_deferring_what_it_skips_at_no_cost() -> None:
    pair = pair_of()
    halves, _ = found_in(pair)
    gate = replace(fit(halves.judged.where(halves.fitting), FOREIGN, tasks=pair.tasks, created_at=AT), cut=0.6)
    seen = gated(halves.judged, gate)
    asked = asks(gate, pair)
    assert 0 < asked.sum() < len(pair)
    assert np.isnan(seen.confidence["logprob"][~asked]).all()
    assert (seen.confidence["logprob"][asked] == pair.confidence["logprob"][asked]).all()
    assert set(seen.small_cost_nano_usd[~asked]) == {0.0}
    assert set(seen.small_cost_nano_usd[asked]) == {30.0}


def test_what_the_confidence_costs_is_spared_as_well() -> None:
    pair = pair_of(signal_cost_nano_usd={"logprob": np.full(600, 7.0)})
    halves, _ = found_in(pair)
    assert set(halves.judged.small_cost_nano_usd) == {37.0}
    gate = replace(fit(halves.judged.where(halves.fitting), FOREIGN, tasks=pair.tasks, created_at=AT), cut=1.0)
    assert gated(pair, gate).judged_by("logprob").small_cost_nano_usd.sum() == 0


def test_the_walked_cut_keeps_no_answer_of_unknown_confidence_but_pays_for_it() -> None:
    unknown = np.arange(600) % 3 == 0
    pair = pair_of()
    blind = replace(pair, confidence={"logprob": np.where(unknown, NAN, 0.5)})
    halves, found = found_in(blind)
    assert found.kind == "walked"
    assert found.certified.method == METHOD
    assert found.certified.threshold == 0.0
    assert found.gate is not None
    rest = halves.judged.where(~halves.fitting)
    asked = asks(found.gate, rest)
    assert found.certified.kept == (asked & ~np.isnan(rest.confidence["logprob"])).sum()
    assert found.certified.expected_saving == pytest.approx(
        (100 * found.certified.kept - 30 * asked.sum()) / (100 * len(rest))
    )


def test_fitting_and_certifying_share_no_question_and_do_not_depend_on_the_order_of_rows() -> None:
    pair = pair_of()
    halves, found = found_in(pair)
    assert found.fitted_on + found.certified.n == len(pair)
    order = np.random.default_rng(3).permutation(len(pair))
    turned = split_of(_turned(pair, order), FOREIGN, signal="logprob")
    assert set(turned.judged.ids[turned.fitting]) == set(halves.judged.ids[halves.fitting])


def test_nothing_of_the_certifying_questions_moves_the_gate() -> None:
    pair = pair_of()
    fitting = split(pair.ids, share=1 / 3, salt="gate")
    turned = replace(
        pair,
        small_correct=np.where(fitting, pair.small_correct, 1 - pair.small_correct),
        small_cost_nano_usd=np.where(fitting, 30.0, 1000.0),
    )
    (_, found), (_, other) = found_in(pair), found_in(turned)
    assert found.candidates == other.candidates
    assert found.gate is not None
    assert other.gate is not None
    assert found.gate.words == other.gate.words
    # The small model costs more than the large one there: nothing is promised, and nobody is asked.
    assert (other.certified.threshold, other.saving.value, other.skipped) == (None, 0.0, 1.0)


def _turned(pair: Pair, order: Any) -> Pair:
    arrays = ("ids", "tasks", "questions", "small_correct", "large_correct", "small_cost_nano_usd")
    changed = {name: getattr(pair, name)[order] for name in (*arrays, "large_cost_nano_usd")}
    return replace(pair, **changed, confidence={name: one[order] for name, one in pair.confidence.items()})


def test_the_promise_is_kept_on_questions_that_nobody_saw() -> None:
    """Fifty draws at δ = 10 %: more than thirteen broken ones are rarer than once in a thousand."""
    halves, _ = found_in(pair_of(seed=5, told=True))
    gate = fit(halves.judged.where(halves.fitting), FOREIGN, tasks=halves.judged.tasks, created_at=AT)
    everyone = pair_of(3000, seed=99, small_cost_nano_usd=np.ones(3000))
    unsure = 0.7 * np.random.default_rng(1).random(3000) + 0.3 * everyone.small_correct
    population = gated(replace(everyone, confidence={"logprob": unsure}), replace(gate, cut=0.15))
    lost, stated = population.large_correct - population.small_correct, population.confidence["logprob"]
    # To keep all that the gate lets through would break the promise.
    assert lost[~np.isnan(stated)].sum() / len(population) > 2 * TERMS.max_drop
    rng = np.random.default_rng(11)
    broken = certifying = 0
    for _ in range(50):
        held = certified(_turned(population, rng.integers(3000, size=300)), "logprob", TERMS)
        certifying += held.threshold is not None
        kept = np.zeros(3000, dtype=bool) if held.threshold is None else stated >= held.threshold
        broken += float((lost * kept).mean()) > TERMS.max_drop
    assert certifying > 0
    assert broken <= 13


# The artifact ---------------------------------------------------------------------------------------------------------


def test_the_certificate_is_bound_to_the_gate_and_to_the_tiers() -> None:
    outcomes = measured()
    halves, found = found_in(pair_of(), outcomes=outcomes)
    made = certificate_with(outcomes, halves, found, TERMS, created_at=AT)
    assert found.gate is not None
    assert (made.gate, made.promises[0].certified) == (label(found.gate), found.certified)
    shapes = outcomes.metadata["shapes"]
    assert (found.gate.model, found.gate.prompt) == hashes_of(shapes[:1])
    models, prompts = hashes_of(shapes)
    check_applies(made, models_hash=models, prompts_hash=prompts, signal="logprob", gate=made.gate)
    with pytest.raises(InputError, match="other gates"):
        check_applies(made, models_hash=models, prompts_hash=prompts, signal="logprob")


def test_without_a_gate_the_certificate_names_none() -> None:
    halves, found = found_in(pair_of(told=True, small_cost_nano_usd=np.full(600, 1.0)))
    assert certificate_with(FOREIGN, halves, found, TERMS, created_at=AT).gate is None


def test_a_maps_confidence_is_certified_on_questions_that_neither_map_nor_gate_were_fitted_on() -> None:
    pair = pair_of(900)
    fitted = ConfidenceMap(
        kind="platt", signals=("logprob",), parameters=Sigmoid(slope=1.0, intercept=0.0), model="", prompt="", n=450,
        share=0.5, salt="map", created_at=AT,
    )  # fmt: skip
    halves = split_of(pair, FOREIGN, fitted=fitted)
    seen_by_map = set(pair.ids[split(pair.ids, share=0.5, salt="map")])
    assert not seen_by_map & set(halves.judged.ids)
    gate = fit(halves.judged.where(halves.fitting), FOREIGN, tasks=pair.tasks, created_at=AT)
    found = search(halves, TERMS, gate, rng=np.random.default_rng(0), settings=Settings(resamples=50))
    made = certificate_with(FOREIGN, halves, found, TERMS, created_at=AT, fitted=fitted)
    assert made.signal == f"fitted:{checksum(fitted)[:16]}"


def test_without_a_named_signal_the_fitting_questions_choose_it() -> None:
    pair = pair_of(told=True)
    noise = np.random.default_rng(4).random(len(pair))
    halves = split_of(replace(pair, confidence={"noise": noise, **pair.confidence}), FOREIGN)
    assert halves.signal == "logprob"


# Refusals -------------------------------------------------------------------------------------------------------------


def test_outcomes_without_texts_are_refused() -> None:
    with pytest.raises(InputError, match="do not hold the texts of all"):
        split_of(pair_of(questions=np.array([], dtype=object)), FOREIGN, signal="logprob")
    texts = np.array([None, *["what?"] * 599], dtype=object)
    with pytest.raises(InputError, match="do not hold the texts of all"):
        split_of(pair_of(questions=texts), FOREIGN, signal="logprob")


def test_too_few_outcomes_are_refused_with_how_many_would_do() -> None:
    with pytest.raises(InputError, match=rf"100 questions are too few.*{MIN_FIT} are needed"):
        split_of(pair_of(100), FOREIGN, signal="logprob")


def test_unknown_costs_are_refused_for_a_gate_only_saves_money() -> None:
    with pytest.raises(InputError, match="give the tiers prices"):
        found_in(pair_of(small_cost_nano_usd=np.full(600, NAN)))


def test_a_question_of_unknown_cost_is_left_out_of_the_savings_and_said() -> None:
    costs = np.where(np.arange(600) % 50 == 0, NAN, 30.0)
    _, found = found_in(pair_of(small_cost_nano_usd=costs))
    assert found.saving.value is not None
    assert "cost unknown for" in str(found.saving.note)


def test_a_tier_without_confidence_or_without_the_named_one_is_refused() -> None:
    with pytest.raises(InputError, match="holds a confidence"):
        split_of(pair_of(confidence={}), FOREIGN)
    with pytest.raises(InputError, match="no confidence signal 'p_true'"):
        split_of(pair_of(), FOREIGN, signal="p_true")


def test_questions_of_a_task_that_the_gate_does_not_know_are_refused() -> None:
    pair = pair_of()
    gate = fit(pair, FOREIGN, tasks=np.array(["law"], dtype=object), created_at=AT)
    with pytest.raises(InputError, match='not fitted on questions of task "maths", but on: law'):
        asks(gate, pair)


def test_fixed_cuts_skip_the_shares_that_they_name() -> None:
    _, found = found_in(pair_of())
    fixed = sorted((one for one in found.candidates if one.kind == "fixed"), key=lambda one: one.share or 0)
    assert [one.share for one in fixed] == pytest.approx(list(SHARES))
    assert [one.cut for one in fixed] == sorted(one.cut or 0 for one in fixed)


def test_a_gate_fitted_twice_on_the_same_questions_is_the_same() -> None:
    pair = pair_of(200)

    def made() -> Gate:
        return fit(pair, FOREIGN, tasks=pair.tasks, created_at=AT)

    assert label(made()) == label(made())
