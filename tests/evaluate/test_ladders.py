"""From outcomes of many tiers to one certified ladder: alignment, choice and promise share no question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corea.config import parse
from corea.errors import InputError
from corea.evaluate.certification import Terms, certified
from corea.evaluate.ladders import (
    MIN_GAIN,
    Found,
    Stack,
    certificate_of_ladder,
    choosing_of,
    find,
    search,
    signals_of,
    stack_of,
)
from corea.evaluate.outcomes import CONFIDENCE, SIGNAL_COST, Outcomes, read, write
from corea.identity import hashes_of, shapes_of
from corea.policy.certificate import Certificate
from corea.policy.ladder import Answers, kept_by
from corea.policy.ladder_certificate import LadderCertificate, check_ladder_applies

AT = "2026-01-01T00:00:00+00:00"
TERMS = Terms(max_drop=0.05, delta=0.1)
COSTS = {"s": 10, "m": 300, "l": 1000}
Rows = list[dict[str, Any]]


def rows(n: int = 600, seed: int = 0, *, costs: dict[str, int] | None = None) -> Rows:
    """Tiers that are right as often as they say: the small one on every second question nearly always, the middle one
    on all of them, the last one without fail."""
    rng = np.random.default_rng(seed)
    made: Rows = []
    prices = costs or COSTS
    for index in range(n):
        small = 0.98 + 0.02 * rng.random() if rng.random() < 0.5 else 0.5 * rng.random()
        for tier, sure in (("s", small), ("m", 0.9 + 0.1 * rng.random()), ("l", 1.0)):
            one = {"id": f"q{index:05}", "tier": tier, "question": f"say {index}", "task": "toy", "gold": "1"}
            right = float(rng.random() < sure)
            made.append({**one, "correct": right, "cost_nano_usd": prices[tier], CONFIDENCE + "logprob": sure})
    return made


def outcomes(folder: Path, given: Rows, *, tiers: tuple[str, ...] = ("s", "m", "l"), **metadata: Any) -> Outcomes:
    signals = ("logprob", "noise") if any(CONFIDENCE + "noise" in row for row in given) else ("logprob",)
    write(folder / "o.parquet", given, metadata={"tiers": list(tiers), "data_hash": "d1", **metadata}, signals=signals)
    return read(folder / "o.parquet")


def found_in(folder: Path, given: Rows, **of: Any) -> tuple[Outcomes, Stack, Found, dict[str, str]]:
    made = outcomes(folder, given, **of)
    stack = stack_of(made)
    return made, stack, *find(made, stack, TERMS)


# Aligned --------------------------------------------------------------------------------------------------------------


def test_tiers_are_brought_side_by_side_whatever_the_order_of_their_rows(tmp_path: Path) -> None:
    given = rows(40)
    shuffled = [given[at] for at in np.random.default_rng(1).permutation(len(given))]
    stack = stack_of(outcomes(tmp_path, shuffled))
    answers = stack.judged_by({"s": "logprob", "m": "logprob"})
    by_key = {(row["question"], row["tier"]): row for row in given}
    assert (answers.correct.shape, answers.cost.shape, answers.confidence.shape) == ((40, 3), (40, 3), (40, 2))
    for at, key in enumerate(answers.keys):
        assert answers.correct[at].tolist() == [by_key[key, tier]["correct"] for tier in "sml"]
        assert answers.confidence[at].tolist() == [by_key[key, tier][CONFIDENCE + "logprob"] for tier in "sm"]
        assert answers.cost[at].tolist() == [10.0, 300.0, 1000.0]


def test_what_the_confidence_costs_is_part_of_each_tiers_cost_but_not_of_the_last_ones(tmp_path: Path) -> None:
    given = [{**row, SIGNAL_COST + "logprob": 7} for row in rows(30)]
    answers = stack_of(outcomes(tmp_path, given)).judged_by({"s": "logprob", "m": "logprob"})
    assert answers.cost[0].tolist() == [17.0, 307.0, 1000.0]


def test_a_reply_that_was_cut_off_is_of_unknown_confidence(tmp_path: Path) -> None:
    given = [{**row, "finish_reason": "length" if row["tier"] == "m" else "stop"} for row in rows(30)]
    answers = stack_of(outcomes(tmp_path, given)).judged_by({"s": "logprob", "m": "logprob"})
    assert np.isnan(answers.confidence[:, 1]).all()
    assert not np.isnan(answers.confidence[:, 0]).any()


def test_a_question_that_one_tier_did_not_answer_is_an_error_or_leaves_with_a_count(tmp_path: Path) -> None:
    made = outcomes(tmp_path, [row for row in rows(30) if (row["id"], row["tier"]) != ("q00003", "m")])
    with pytest.raises(InputError, match="1 of 30 questions lack an answer"):
        stack_of(made)
    stack = stack_of(made, drop_incomplete=True)
    assert (len(stack), stack.left_out) == (29, 1)
    assert all("q00003" not in pair.ids for pair in stack.pairs)


def test_prices_out_of_order_are_told_with_the_order_that_would_do(tmp_path: Path) -> None:
    made = outcomes(tmp_path, rows(30, costs={"s": 10, "m": 2000, "l": 1000}))
    with pytest.raises(InputError, match=r"2,000 nano-USD at m and 1,000 at l after it.*--tiers s,l,m"):
        stack_of(made)
    assert stack_of(made, tiers=["s", "l"]).tiers == ("s", "l")


@pytest.mark.parametrize(
    "names, said",
    [(["s", "x"], 'no tier "x"'), (["s"], "needs two tiers or more"), (list("abcdef"), "up to 5 with --tiers")],
)
def test_tiers_that_make_no_ladder_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        stack_of(outcomes(tmp_path, rows(10)), tiers=names)


# Signals --------------------------------------------------------------------------------------------------------------


def with_noise(given: Rows) -> Rows:
    rng = np.random.default_rng(3)
    return [{**row, CONFIDENCE + "noise": rng.random()} for row in given]


def test_each_tier_is_judged_by_its_best_signal_or_by_the_named_one(tmp_path: Path) -> None:
    made = outcomes(tmp_path, with_noise(rows()))
    stack = stack_of(made)
    choosing = choosing_of(stack)
    assert signals_of(stack, choosing, made, None)["s"] == "logprob"
    assert signals_of(stack, choosing, made, "noise") == {"s": "noise", "m": "noise"}


def test_a_tier_without_confidences_is_in_no_ladder_and_without_any_there_is_none(tmp_path: Path) -> None:
    silent = [{**row, CONFIDENCE + "logprob": None if row["tier"] == "m" else 0.5} for row in rows()]
    _, _, found, signals = found_in(tmp_path, silent)
    assert set(signals) == {"s"}
    assert {one.tiers for one in found.candidates} == {("s", "l")}
    assert "m has no confidence" in found.notes[0]
    with pytest.raises(InputError, match="no tier but the last has a confidence"):
        found_in(tmp_path, [{**row, CONFIDENCE + "logprob": None} for row in rows()])


# The search -----------------------------------------------------------------------------------------------------------


def test_three_tiers_are_found_where_the_middle_one_saves_what_neither_pair_can(tmp_path: Path) -> None:
    _, _, found, _ = found_in(tmp_path, rows(1500))
    assert found.ladder.tiers == ("s", "m", "l")
    assert found.ladder.holds
    assert found.ladder.expected_saving is not None
    assert found.verdict.count("would save") == 2
    assert "; the best pair, " in found.verdict
    assert found.candidates[0].tiers == ("s", "m", "l")
    assert found.chosen_on + found.ladder.n == 1500


def test_two_tiers_are_found_and_it_is_said_where_a_third_adds_nothing(tmp_path: Path) -> None:
    # The middle tier costs as good as what the last one does.
    dear = rows(900, costs={"s": 10, "m": 995, "l": 1000})
    _, _, found, _ = found_in(tmp_path, dear)
    assert len(found.ladder.tiers) == 2
    assert "a third tier adds" in found.verdict
    pair = next(one for one in found.candidates if len(one.tiers) == 2)
    more = next(one for one in found.candidates if len(one.tiers) == 3)
    assert more.foreseen < pair.foreseen + MIN_GAIN


def test_what_the_certifying_questions_say_never_changes_the_choice() -> None:
    rng = np.random.default_rng(5)
    n = 400
    sure = rng.random((n, 2))
    correct = np.column_stack([rng.random((n, 2)) < sure**0.3, np.ones(n)]).astype(np.float64)
    keys = np.array([f"q{index}" for index in range(n)], dtype=object)
    one = Answers(
        tiers=("s", "m", "l"), correct=correct, cost=np.tile([1.0, 5.0, 50.0], (n, 1)), confidence=sure, keys=keys
    )
    choosing = np.arange(n) < 150
    other = np.where(choosing[:, None], correct, 1 - correct)
    first, second = search(one, choosing, TERMS), search(replace(one, correct=other), choosing, TERMS)
    assert first.candidates == second.candidates
    assert first.ladder.tiers == second.ladder.tiers


def test_a_tier_that_is_dominated_by_a_cheaper_one_is_told(tmp_path: Path) -> None:
    given = [{**row, "correct": 0.0} if row["tier"] == "m" else row for row in rows()]
    _, _, found, _ = found_in(tmp_path, given)
    assert any("m is no more often right than s" in note for note in found.notes)
    assert "m" not in found.ladder.tiers
    last = [{**row, "correct": 1.0} for row in rows()]
    _, _, found, _ = found_in(tmp_path, last)
    assert any(note.startswith("l is no more") and "promised against" in note for note in found.notes)


def test_a_confidence_that_never_varies_is_told_and_promises_no_more_than_it_may(tmp_path: Path) -> None:
    flat = [{**row, CONFIDENCE + "logprob": 0.5} for row in rows(900)]
    _, stack, found, signals = found_in(tmp_path, flat)
    assert any("s is equally sure of all its answers" in note for note in found.notes)
    if found.ladder.holds:
        counted = kept_by(found.ladder, stack.judged_by(signals))
        assert (counted.harm[0] - counted.gain[0]) / 900 < 0.08


def test_too_few_questions_to_choose_and_certify_are_refused_and_a_few_more_are_told_what_is_needed(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="30 questions are too few to choose a ladder"):
        found_in(tmp_path, rows(30))
    made = outcomes(tmp_path, rows(70))
    found, _ = find(made, stack_of(made), Terms())
    assert not found.ladder.holds
    assert "no ladder would save anything that could be certified" in found.verdict
    assert found.ladder.needed_n is not None


def test_without_prices_no_ladder_is_better_than_another(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="savings cannot be compared"):
        found_in(tmp_path, [{**row, "cost_nano_usd": None} for row in rows(300)])
    with pytest.raises(InputError, match="savings cannot be compared"):
        found_in(tmp_path, rows(300, costs={"s": 0, "m": 0, "l": 0}))


def test_grades_that_are_averages_certify_no_ladder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="correctness must be 0 or 1"):
        found_in(tmp_path, [{**row, "correct": 0.5} for row in rows(300)])


# The artifact ---------------------------------------------------------------------------------------------------------


def config(tiers: str = "sml") -> Any:
    common = 'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
    judged = 'threshold = 0.5\nconfidence = { estimator = "logprob" }\n'
    return parse(
        "".join(f'[[tiers]]\nname = "{name}"\nmodel = "{name}"\n{common}{judged}' for name in tiers[:-1])
        + f'[[tiers]]\nname = "{tiers[-1]}"\nmodel = "{tiers[-1]}"\n{common}',
        source="x",
    )


def test_a_ladder_of_three_is_bound_to_all_its_tiers_as_a_cascade_of_them_has_them(tmp_path: Path) -> None:
    shapes = list(shapes_of(config()).values())
    made, stack, found, signals = found_in(tmp_path, rows(1500), shapes=shapes)
    certificate = certificate_of_ladder(made, stack, found, signals, created_at=AT)
    assert isinstance(certificate, LadderCertificate)
    assert (certificate.tiers, certificate.tie_key, certificate.tasks) == (("s", "m", "l"), "question", ("toy",))
    models, prompts = hashes_of(shapes_of(config()).values())
    fits: dict[str, Any] = {"models_hash": models, "prompts_hash": prompts, "signals": ("logprob", "logprob")}
    check_ladder_applies(certificate, **fits, source="x")
    others, _ = hashes_of(shapes_of(config("mls")).values())
    with pytest.raises(InputError, match="other models"):
        check_ladder_applies(certificate, **{**fits, "models_hash": others}, source="x")


def test_a_ladder_of_two_is_a_certificate_that_a_cascade_of_the_two_obeys_today(tmp_path: Path) -> None:
    dear = rows(900, costs={"s": 10, "m": 995, "l": 1000})
    made, stack, found, signals = found_in(tmp_path, dear, shapes=list(shapes_of(config()).values()))
    certificate = certificate_of_ladder(made, stack, found, signals, created_at=AT)
    assert isinstance(certificate, Certificate)
    (promise,) = certificate.promises
    assert (certificate.small, certificate.large) == found.ladder.tiers
    assert promise.certified.threshold == found.ladder.rungs[0].threshold
    assert (promise.certified.harm, promise.certified.n) == (found.ladder.harm, found.ladder.n)
    models, _ = hashes_of(shapes_of(config("".join(found.ladder.tiers))).values())
    assert certificate.models_hash == models
    rest = stack.where(~choosing_of(stack)).pairs[stack.tiers.index(certificate.small)]
    assert promise.certified == certified(rest, "logprob", TERMS)


def test_foreign_outcomes_bind_a_ladder_to_nothing(tmp_path: Path) -> None:
    made, stack, found, signals = found_in(tmp_path, rows(1500))
    certificate = certificate_of_ladder(made, stack, found, signals, created_at=AT)
    assert (certificate.models_hash, certificate.prompts_hash) == (None, None)
