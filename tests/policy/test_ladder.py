"""Ladders: counts against a slow direct cascade, validity at the edge, and the certificate as a file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import InputError
from corea.policy.certificate import Certificate
from corea.policy.certify import certify
from corea.policy.exact import p_value
from corea.policy.ladder import Answers, Path, certify_pair, certify_path, foreseen, kept_by, path_of, tally
from corea.policy.ladder_certificate import (
    CertifiedLadder,
    LadderCertificate,
    Rung,
    check_ladder_applies,
    dump,
    is_ladder,
    load,
)
from corea.policy.ties import keeps
from corea.policy.walk import Floats

NAN = float("nan")


def answers(n: int, k: int = 3, seed: int = 0, *, levels: int = 0, unknown: float = 0.0, **changes: Any) -> Answers:
    """Tiers that are right as often as they say; the last one nearly always. Each costs four times the one before."""
    rng = np.random.default_rng(seed)
    sure = rng.random((n, k - 1)) ** 0.5
    if levels:
        sure = np.round(sure * levels) / levels
    sure[rng.random((n, k - 1)) < unknown] = np.nan
    right = np.column_stack([np.nan_to_num(sure, nan=0.5), np.full(n, 0.95)])
    given_values: dict[str, Any] = {
        "tiers": tuple(f"t{tier}" for tier in range(k)),
        "correct": (rng.random((n, k)) < right).astype(np.float64),
        "cost": 4.0 ** np.arange(k) * rng.uniform(0.5, 1.5, (n, k)),
        "confidence": sure,
        "keys": np.array([f"question {seed}-{index}" for index in range(n)], dtype=object),
    }
    return Answers(**{**given_values, **changes})


def losses(of: Answers) -> Floats:
    """What keeping loses, as these tiers are made."""
    return 0.95 - of.confidence


def slowly(of: Answers, thresholds: list[float], fractions: list[float]) -> tuple[int, int, list[int], float]:
    """Harm, gain, answers by tier and cost, one question and one tier at a time, as a cascade goes."""
    last = len(of.tiers) - 1
    harm = gain = 0
    answered, cost = [0] * (last + 1), 0.0
    for row in range(len(of)):
        final = last
        for tier in range(last):
            if np.isinf(thresholds[tier]):
                continue
            cost += of.cost[row, tier]
            score = float(of.confidence[row, tier])
            if keeps(score, str(of.keys[row]), threshold=thresholds[tier], tie_fraction=fractions[tier]):
                final = tier
                break
        cost += of.cost[row, last] if final == last else 0.0
        answered[final] += 1
        harm += of.correct[row, final] < of.correct[row, last]
        gain += of.correct[row, final] > of.correct[row, last]
    return harm, gain, answered, cost


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from([0, 4]))
@settings(max_examples=25, deadline=None)
def test_the_sweep_counts_what_a_cascade_does_at_every_point_of_the_path(seed: int, k: int, levels: int) -> None:
    chose = answers(60, k, seed, levels=levels, unknown=0.1)
    other = answers(80, k, seed + 1, levels=levels, unknown=0.1)
    path = path_of(chose, losses(chose), points=12)
    counted = tally(path, other)
    assert counted.saving is not None
    for at in range(len(path.thresholds)):
        harm, gain, answered, cost = slowly(other, path.thresholds[at].tolist(), path.tie_fractions[at].tolist())
        assert (counted.harm[at], counted.gain[at], counted.answered[at].tolist()) == (harm, gain, answered)
        assert counted.saving[at] == pytest.approx(1 - cost / other.cost[:, -1].sum())


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.sampled_from([0, 3]))
@settings(max_examples=25, deadline=None)
def test_a_path_goes_from_nearly_nothing_to_all_that_is_known_and_never_back(seed: int, k: int, levels: int) -> None:
    chose = answers(100, k, seed, levels=levels, unknown=0.2)
    path = path_of(chose, losses(chose))
    assert (path.thresholds[1:] <= path.thresholds[:-1]).all()
    counts = tally(path, chose).answered
    assert (np.diff(counts[:, -1]) <= 0).all()
    assert counts[0, -1] >= 0.9 * 100 - k
    unknown_to_all = np.isnan(chose.confidence).all(axis=1).sum()
    assert counts[-1, -1] == unknown_to_all


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_what_is_certified_passes_its_test_and_is_what_a_cascade_would_do(seed: int) -> None:
    chose, other = answers(200, 3, seed), answers(400, 3, seed + 1, unknown=0.05)
    found = certify_path(path_of(chose, losses(chose)), other, max_drop=0.05, delta=0.1)
    if not found.holds:
        assert (found.harm, found.gain, found.p_value, found.expected_shares) == (0, 0, None, (0.0, 0.0, 1.0))
        return
    counted = kept_by(found, other)
    assert (counted.harm[0], counted.gain[0]) == (found.harm, found.gain)
    assert found.drop == (found.harm - found.gain) / 400
    assert found.p_value == p_value(400, found.harm, found.gain, 0.05)
    assert found.p_value <= 0.1
    assert found.expected_shares == pytest.approx(tuple(counted.answered[0] / 400))
    assert counted.saving is not None
    assert found.expected_saving is not None
    assert found.expected_saving == pytest.approx(float(counted.saving[0]))
    assert found.expected_saving > 0


def test_two_tiers_are_certified_just_as_a_pair_is() -> None:
    pair = answers(500, 2)
    found = certify_pair(pair, max_drop=0.05)
    plain = certify(
        pair.confidence[:, 0], pair.correct[:, 0], pair.correct[:, 1], pair.keys, max_drop=0.05,
        small_cost=pair.cost[:, 0], large_cost=pair.cost[:, 1],
    )  # fmt: skip
    assert found.rungs == (Rung(tier="t0", threshold=plain.threshold, tie_fraction=plain.tie_fraction),)
    assert (found.harm, found.gain, found.p_value) == (plain.harm, plain.gain, plain.p_value)
    assert (found.expected_saving, found.method) == (plain.expected_saving, plain.method)


def edge(n: int, rng: np.random.Generator, *, keys: Any) -> Answers:
    """Two tiers whose surest half does no net harm; just below it both lose so much that the drop passes 2 points.

    Along any path that keeps the surest first, nothing warns before: this is the hardest there is. Gains occur too.
    """
    sure = rng.random((n, 2))
    harm = np.where(sure > 0.5, 0.01, 0.35)
    fate = rng.random(n)[:, None]
    last = (fate[:, 0] < 0.9).astype(np.float64)
    # A kept answer harms (last right, tier wrong) or gains (the other way round), at the same rate above the half.
    wrong = rng.random((n, 2)) < harm
    better = rng.random((n, 2)) < 0.09
    correct = np.where(last[:, None] == 1, np.where(wrong, 0.0, 1.0), np.where(better, 1.0, 0.0))
    cost = np.tile([1.0, 5.0, 50.0], (n, 1))
    return Answers(
        tiers=("s", "m", "l"), correct=np.column_stack([correct, last]), cost=cost, confidence=sure, keys=keys
    )


def true_drop(found: CertifiedLadder) -> float:
    """The exact drop of a ladder of :func:`edge`: tiers are independent, so levels are integrated by hand."""

    def kept(threshold: float | None) -> tuple[float, float]:
        """P(kept), and the net drop of what is kept."""
        if threshold is None:
            return 0.0, 0.0
        sure, unsure = 1 - max(threshold, 0.5), max(0.5 - threshold, 0.0)
        return sure + unsure, sure * (0.9 * 0.01 - 0.1 * 0.09) + unsure * (0.9 * 0.35 - 0.1 * 0.09)

    (first, drop), (_, later) = (kept(rung.threshold) for rung in found.rungs)
    return drop + (1 - first) * later


def just_over_the_edge() -> Path:
    """Two harmless ladders, then one that really loses a hair more than 2 points, and one that loses more."""
    over = 0.5 - 0.02 * (1 + 1e-6) / (0.9 * 0.35 - 0.1 * 0.09)
    return Path(thresholds=np.array([[0.9, 0.9], [0.5, 0.5], [over, 0.5], [over, 0.45]]), tie_fractions=np.ones((4, 2)))


@pytest.mark.parametrize("delta", [0.05, 0.1])
@pytest.mark.parametrize("sharp", [True, False])
def test_a_ladder_that_loses_too_much_is_certified_with_probability_at_most_delta(delta: float, sharp: bool) -> None:
    # Every draw has fresh questions to certify; what is promised is held to the truth. Paths are given, or were found
    # on a hundred other questions: then the first that loses too much lies further beyond the edge.
    n, draws = 300, 2_000
    rng = np.random.default_rng(7)
    keys = np.array([f"q{index}" for index in range(n)], dtype=object)
    chose = [edge(100, rng, keys=keys[:100]) for _ in range(20)]
    found_paths = [path_of(one, np.where(one.confidence > 0.5, 0.0, 0.3), points=60) for one in chose]
    paths = [just_over_the_edge()] if sharp else found_paths
    kept = broken = 0
    for draw in range(draws):
        found = certify_path(paths[draw % len(paths)], edge(n, rng, keys=keys), delta=delta)
        kept += found.holds
        broken += found.holds and true_drop(found) > 0.02
    assert kept > 0.3 * draws
    assert broken / draws <= delta + 3 * (delta * (1 - delta) / draws) ** 0.5
    # Or it would not lie at the edge, and show nothing.
    assert broken / draws >= delta / (2 if sharp else 5)


def test_where_every_ladder_on_the_path_fails_nothing_is_promised_and_no_number_helps() -> None:
    poor = answers(400)
    poor = replace(poor, correct=np.column_stack([np.zeros((400, 2)), np.ones(400)]))
    found = certify_path(path_of(poor, losses(poor)), poor)
    assert not found.holds
    assert [rung.threshold for rung in found.rungs] == [None, None]
    assert (found.expected_saving, found.needed_n) == (0.0, None)
    assert "more would not help" in found.promise


def test_too_few_questions_certify_nothing_and_say_how_many_are_needed() -> None:
    good = answers(100, correct=np.ones((100, 3)))
    found = certify_path(path_of(good, np.zeros((100, 2))), good)
    assert not found.holds
    assert found.needed_n is not None
    assert 101 <= found.needed_n <= 200
    assert "more are needed" in found.promise
    more = answers(found.needed_n, seed=1, correct=np.ones((found.needed_n, 3)))
    assert certify_path(path_of(good, np.zeros((100, 2))), more).holds


def test_equal_confidences_are_split_by_the_hash_of_the_question() -> None:
    flat = answers(300, confidence=np.full((300, 2), 0.7), correct=np.ones((300, 3)))
    path = path_of(flat, np.zeros((300, 2)), points=10)
    counted = tally(path, flat)
    assert len(set(counted.answered[:, -1].tolist())) > 3
    assert set(path.thresholds[np.isfinite(path.thresholds)].tolist()) == {0.7}
    assert certify_path(path, flat).holds


def test_a_tier_without_any_known_confidence_is_told_by_name() -> None:
    silent = answers(50)
    silent = replace(silent, confidence=np.column_stack([silent.confidence[:, 0], np.full(50, np.nan)]))
    with pytest.raises(InputError, match=r"no confidence of tier t1 is known.*leave it out"):
        path_of(silent, losses(silent))


def test_a_dearer_tier_that_is_no_better_is_kept_back_by_the_path() -> None:
    # The middle one costs nearly as much as the last: asking it can only cost.
    dear = answers(400, cost=np.tile([1.0, 95.0, 100.0], (400, 1)))
    pair = dear.of([0, 2])
    limits = {"n": 400, "max_drop": 0.05, "delta": 0.05}
    of_three = foreseen(tally(path_of(dear, losses(dear)), dear), **limits)  # type: ignore[arg-type]
    of_two = foreseen(tally(path_of(pair, losses(pair)), pair), **limits)  # type: ignore[arg-type]
    assert of_two > of_three


def test_questions_of_unknown_cost_do_not_count_for_savings_and_without_any_the_furthest_is_taken() -> None:
    some = answers(400)
    cost = some.cost.copy()
    cost[::2, 1] = np.nan
    path = path_of(some, losses(some))
    counted = tally(path, replace(some, cost=cost)).saving
    half = tally(path, some.where(np.arange(400) % 2 == 1)).saving
    assert counted is not None
    assert half is not None
    assert counted == pytest.approx(half)
    unpriced = replace(some, cost=np.full((400, 3), np.nan))
    found = certify_path(path_of(unpriced, losses(unpriced)), unpriced, max_drop=0.05, delta=0.1)
    assert found.holds
    assert found.expected_saving is None
    with pytest.raises(InputError, match="no question has a known cost of every tier"):
        foreseen(tally(path, unpriced), n=400, max_drop=0.05, delta=0.1)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"correct": np.full((50, 3), 0.5)}, "correctness must be 0 or 1"),
        ({"confidence": np.full((50, 2), 1.5)}, "a confidence lies in"),
        ({"cost": np.ones((50, 2))}, r"of shape \(50, 3\)"),
        ({"tiers": ("one",)}, "two tiers or more"),
    ],
)
def test_answers_that_cannot_be_are_refused_in_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        answers(50, **change)
    assert "\n" not in str(refused.value)


def test_limits_that_cannot_be_are_refused() -> None:
    some = answers(50)
    path = path_of(some, losses(some))
    with pytest.raises(InputError, match="accuracy that may be lost"):
        certify_path(path, some, max_drop=0.0)
    with pytest.raises(InputError, match="the risk that the promise is wrong"):
        certify_path(path, some, delta=1.0)


def test_a_tier_that_the_certified_ladder_never_keeps_is_not_asked() -> None:
    path = Path(thresholds=np.array([[0.3, np.inf]]), tie_fractions=np.ones((1, 2)))
    good = answers(300, correct=np.ones((300, 3)))
    found = certify_path(path, good)
    assert [rung.threshold for rung in found.rungs] == [0.3, None]
    kept = good.confidence[:, 0] >= 0.3
    spent = good.cost[:, 0].sum() + good.cost[~kept, 2].sum()
    assert found.expected_saving == pytest.approx(1 - spent / good.cost[:, 2].sum())


# The file -------------------------------------------------------------------------------------------------------------


def certificate(**changes: Any) -> LadderCertificate:
    certified = CertifiedLadder(
        rungs=(Rung(tier="s", threshold=0.9, tie_fraction=0.25), Rung(tier="m", threshold=None)), last="l", n=600,
        max_drop=0.02, delta=0.05, harm=3, gain=1, drop=2 / 600, expected_saving=0.4, expected_shares=(0.5, 0.0, 0.5),
        p_value=0.01,
    )  # fmt: skip
    given_values: dict[str, Any] = {
        "certified": certified, "tiers": ("s", "m", "l"), "signals": {"s": "logprob", "m": "verbalized"},
        "tasks": ("toy",), "models_hash": "m1", "prompts_hash": "p1", "data_hash": "d1",
        "created_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return LadderCertificate(**{**given_values, **changes})


def test_a_ladders_certificate_survives_the_disk_as_plain_json(tmp_path: File) -> None:
    file = tmp_path / "ladder.json"
    dump(certificate(), file)
    assert load(file) == certificate()
    assert is_ladder(file)
    told = json.loads(file.read_text())
    assert (told["kind"], told["tiers"]) == ("ladder", ["s", "m", "l"])
    assert told["certified"]["rungs"][0] == {"tier": "s", "threshold": 0.9, "tie_fraction": 0.25}


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda told: told["certified"]["rungs"][0].update(threshold=0.5), "was altered"),
        (lambda told: told.update(version=99), "newer than this corea"),
        (lambda told: told.update(kind="pair"), "no certificate of a ladder"),
        (lambda told: told.update(colour="red"), "colour"),
        (lambda told: told.pop("certified"), "certified"),
    ],
)
def test_a_ladders_certificate_that_is_not_what_was_written_is_refused(tmp_path: File, spoil: Any, said: str) -> None:
    file = tmp_path / "ladder.json"
    dump(certificate(), file)
    told = json.loads(file.read_text())
    spoil(told)
    file.write_text(json.dumps(told))
    with pytest.raises(InputError, match=said):
        load(file)


def test_a_file_that_is_missing_or_no_json_is_told(tmp_path: File) -> None:
    with pytest.raises(InputError, match="make one with: corea eval ladder"):
        load(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("{")
    assert not is_ladder(tmp_path / "x.json")
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path / "x.json")


def test_a_ladder_whose_rungs_are_of_other_tiers_than_it_names_is_refused(tmp_path: File) -> None:
    dump(certificate(tiers=("m", "s", "l")), tmp_path / "ladder.json")
    with pytest.raises(InputError, match="contradicts itself"):
        load(tmp_path / "ladder.json")


def test_each_tier_gets_its_own_threshold_out_of_the_one_promise() -> None:
    first, second = (certificate().of_tier(index) for index in range(2))
    assert isinstance(first, Certificate)
    found, none = first.for_task(None), second.for_task("toy")
    assert found is not None
    assert none is not None
    assert (found.threshold, found.tie_fraction, first.signal) == (0.9, 0.25, "logprob")
    assert (none.threshold, second.signal) == (None, "verbalized")


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"models_hash": "m2"}, "other models"),
        ({"prompts_hash": "p2"}, "other prompts"),
        ({"signals": ("logprob", "logprob")}, "other confidence"),
        ({"signals": ("logprob",)}, "made for 3 tiers"),
    ],
)
def test_a_ladders_certificate_is_void_for_other_tiers_models_prompts_or_signals(
    changed: dict[str, Any], said: str
) -> None:
    fits: dict[str, Any] = {"models_hash": "m1", "prompts_hash": "p1", "signals": ("logprob", "verbalized")}
    check_ladder_applies(certificate(), **fits, source="ladder.json")
    with pytest.raises(InputError, match=said):
        check_ladder_applies(certificate(), **{**fits, **changed}, source="ladder.json")


def test_reading_a_ladders_certificate_loads_no_numpy() -> None:
    code = "import sys, corea.policy.ladder_certificate; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
