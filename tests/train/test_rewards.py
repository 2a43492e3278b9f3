"""Stating the truth earns most, failing on purpose earns nothing, and silence is never worth it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import comb, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.confidence.protocol import DIGIT_VALUES
from corea.errors import InputError
from corea.train.rewards import CLIP, WORST, Floats, Reward, conftuner_loss, hybrid, rewarding_doubt

NAN = float("nan")
DIGITS = np.array(DIGIT_VALUES)
#: c on a fine grid within the digits' range, and p on the same grid, so that c = p is a choice.
GRID = np.linspace(0.05, 0.95, 91)
GROUPS = (2, 4, 8, 16)

PROPER = [
    Reward(name="corea", distance="l2"),
    Reward(name="corea", distance="kl"),
    Reward(name="rlcr"),
    Reward(name="rewarding-doubt"),
    Reward(name="hybrid"),
    Reward(name="hybrid", mix=0.0),
    Reward(name="hybrid", mix=1.0),
]
ALL = [*PROPER, Reward(name="corea", distance="l1")]


def label(reward: Reward) -> str:
    return f"{reward.name}-{reward.distance if reward.name == 'corea' else reward.mix}"


def table(earned: Callable[[Floats, float], Floats], chances: Floats, stated: Floats, group: int) -> Floats:
    """Exact expected earnings of a reply, where every reply of a group is right with chance p and states c: (p, c)."""
    groups = [np.repeat([1.0, 0.0], [right, group - right]) for right in range(group + 1)]
    means = np.array([[earned(correct, c).mean() for c in stated] for correct in groups])
    weights = [[comb(group, k) * p**k * (1 - p) ** (group - k) for k in range(group + 1)] for p in chances]
    return np.asarray(np.array(weights) @ means)


def score_of(reward: Reward, group: int) -> Callable[[Floats, float], Floats]:
    def earned(correct: Floats, c: float) -> Floats:
        stated = np.full(group, c)
        return reward.parts(correct, stated, np.ones(group, dtype=bool), group=group).calibration

    return earned


def total_of(reward: Reward, group: int) -> Callable[[Floats, float], Floats]:
    def earned(correct: Floats, c: float) -> Floats:
        parts = reward.parts(correct, np.full(group, c), np.ones(group, dtype=bool), group=group)
        return reward.reasoning(parts) if reward.decoupled else reward.total(parts)

    return earned


@pytest.mark.parametrize("reward", PROPER, ids=label)
@pytest.mark.parametrize("group", [2, 8])
def test_the_truth_earns_most_under_a_proper_score(reward: Reward, group: int) -> None:
    chances = GRID[::5]
    best = GRID[table(score_of(reward, group), chances, GRID, group).argmax(axis=1)]
    assert best == pytest.approx(chances)


@pytest.mark.parametrize("group", GROUPS)
def test_l1_with_a_rate_for_a_target_is_nearly_honest(group: int) -> None:
    chances = GRID[::5]
    fine = np.linspace(0.05, 0.95, 181)
    best = fine[table(score_of(Reward(name="corea"), group), chances, fine, group).argmax(axis=1)]
    # A binomial's median lies within log 2 of its mean (Hamza 1995); 0.05 more where the grid's ends cut it off.
    assert np.all(np.abs(best - chances) <= log(2) / group + 0.005 + CLIP * (np.abs(chances - 0.5) > 0.35))


def test_l1_with_ones_own_grade_for_a_target_states_0_or_1_and_pays_nothing_for_trying() -> None:
    """Why there is no such reward here."""

    def own_l1(correct: Floats, c: float) -> Floats:
        return correct - np.abs(c - correct)

    stated = np.linspace(0, 1, 101)
    earned = table(own_l1, np.array([0.0, 0.2, 0.4, 0.6, 0.8]), stated, 1)
    assert list(stated[earned.argmax(axis=1)]) == [0, 0, 0, 1, 1]
    assert earned.max(axis=1)[:3] == pytest.approx(0)


def test_an_unclipped_log_score_pays_for_failing_on_purpose() -> None:
    """Why there is no such reward here: being surely wrong earns 0, being right one time in four less than 0."""

    def unclipped(correct: Floats, c: float) -> Floats:
        return correct + np.log(np.where(correct > 0.5, c, 1 - c))

    never, sometimes = table(unclipped, np.array([0.0, 0.25]), np.array([1e-9, 0.25]), 1).max(axis=1)
    assert never == pytest.approx(0, abs=1e-6)
    assert sometimes < -0.3


def test_a_log_score_that_is_clipped_but_not_scaled_still_pays_for_it() -> None:
    def clipped(correct: Floats, c: float) -> Floats:
        return correct + np.log(np.where(correct > 0.5, c, 1 - c))

    never, sometimes = table(clipped, np.array([0.0, 0.2]), DIGITS, 1).max(axis=1)
    assert sometimes < never - 0.1


@pytest.mark.parametrize("reward", ALL, ids=label)
@pytest.mark.parametrize("group", GROUPS)
def test_being_right_more_often_never_earns_less(reward: Reward, group: int) -> None:
    chances = np.linspace(0, 1, 41)
    earned = table(total_of(reward, group), chances, DIGITS, group).max(axis=1)
    assert np.all(np.diff(earned) >= -1e-12)


@pytest.mark.parametrize("name", ["corea", "rlcr", "rewarding-doubt", "hybrid"])
def test_with_a_weight_below_one_being_right_more_often_always_earns_more(name: str) -> None:
    reward = Reward(name=name, calibration_weight=0.9)  # type: ignore[arg-type]
    chances = np.linspace(0, 1, 41)
    earned = table(total_of(reward, 8), chances, DIGITS, 8).max(axis=1)
    assert np.all(np.diff(earned) > 1e-6)


def test_a_weight_above_one_would_pay_for_failing() -> None:
    """Why the configuration allows none for a reward that adds its parts."""
    earned = table(total_of(Reward(name="rlcr", calibration_weight=2.0), 1), np.array([0.0, 0.2]), DIGITS, 1)
    assert earned.max(axis=1)[1] < earned.max(axis=1)[0]


@pytest.mark.parametrize("c", [0.05, 0.5, 0.95])
def test_what_a_hybrid_reply_states_never_moves_its_reasoning(c: float) -> None:
    earned = table(total_of(Reward(name="hybrid"), 4), np.array([0.0, 0.3, 1.0]), np.array([c]), 4)[:, 0]
    assert earned == pytest.approx([0.0, 0.3, 1.0])


replies = st.integers(1, 5).flatmap(
    lambda group: st.tuples(
        st.just(group),
        st.lists(
            st.lists(
                st.tuples(st.booleans(), st.sampled_from([*DIGIT_VALUES, NAN]), st.booleans()),
                min_size=group,
                max_size=group,
            ),
            min_size=1,
            max_size=4,
        ),
    )
)


@pytest.mark.parametrize("reward", ALL, ids=label)
@given(replies)
@settings(max_examples=60, deadline=None)
def test_every_score_is_a_number_within_its_range_and_silence_gets_the_worst(
    reward: Reward, drawn: tuple[int, list[list[tuple[bool, float, bool]]]]
) -> None:
    group, groups = drawn
    rows = [row for one in groups for row in one]
    correct, stated = np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows])
    well_formed = np.array([row[2] and not np.isnan(row[1]) for row in rows])
    parts = reward.parts(correct, stated, well_formed, group=group)
    for values in (parts.correct, parts.format, parts.calibration, reward.total(parts), reward.reasoning(parts)):
        assert values.shape == correct.shape
        assert np.all(np.isfinite(values))
    assert np.all((parts.calibration >= WORST - 1e-12) & (parts.calibration <= 0))
    assert np.all(parts.calibration[np.isnan(stated)] == WORST)
    assert np.all(parts.format[~well_formed] == -1)


@pytest.mark.parametrize("reward", ALL, ids=label)
@given(st.lists(st.booleans(), min_size=4, max_size=4), st.sampled_from(DIGIT_VALUES))
@settings(max_examples=40, deadline=None)
def test_leaving_the_confidence_out_never_earns_more_than_any_statement(
    reward: Reward, grades: list[bool], c: float
) -> None:
    correct, well_formed = np.array(grades, dtype=float), np.array([True, True, True, True])
    spoken = reward.parts(correct, np.array([c, 0.5, 0.5, 0.5]), well_formed, group=4)
    silent = reward.parts(correct, np.array([NAN, 0.5, 0.5, 0.5]), well_formed & [False, True, True, True], group=4)
    assert reward.total(silent)[0] < reward.total(spoken)[0]
    assert reward.reasoning(silent)[0] < reward.reasoning(spoken)[0]


def test_reference_values() -> None:
    correct, stated = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.95, 0.45, 0.05, NAN])
    parts = Reward(name="hybrid").parts(correct, stated, ~np.isnan(stated), group=4)
    assert parts.calibration == pytest.approx([-(0.2**2), -(0.3**2), -(0.2**2), -1])
    assert Reward(name="corea").parts(correct, stated, ~np.isnan(stated), group=4).calibration == pytest.approx(
        [-0.45, -0.05, -0.45, -1]
    )
    assert Reward(name="corea", distance="l2").parts(correct, stated, ~np.isnan(stated), group=2).calibration[
        0
    ] == pytest.approx(-0.0025)
    assert rewarding_doubt(np.array([1.0, 0.0, 1.0]), np.array([0.95, 0.95, 1.0])) == pytest.approx([0, -1, 0])
    assert hybrid(correct, stated, group=4, mix=0.0)[:2] == pytest.approx([-0.0025, -0.3025])


@pytest.mark.parametrize(
    "correct, stated, group, told",
    [
        ([NAN, 1.0], [0.5, 0.5], 2, "gold answers"),
        ([2.0, 1.0], [0.5, 0.5], 2, "gold answers"),
        ([1.0, 1.0], [0.5, float("inf")], 2, "unknown must be NaN"),
        ([1.0, 1.0, 1.0], [0.5, 0.5, 0.5], 2, "whole groups of 2"),
        ([1.0, 1.0], [0.5], 2, "whole groups"),
    ],
)
def test_grades_and_confidences_that_cannot_be_stop_the_training(
    correct: list[float], stated: list[float], group: int, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        Reward().parts(np.array(correct), np.array(stated), np.ones(len(correct), dtype=bool), group=group)


@pytest.mark.parametrize("p", [0.0, 0.12, 0.31, 0.5, 0.77, 1.0])
def test_the_conftuner_loss_is_least_at_the_digit_nearest_the_truth(p: float) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: see docs/training.md")
    sure = torch.full((10, 10), -50.0).fill_diagonal_(50.0)
    right, wrong = torch.ones(10), torch.zeros(10)
    losses = [
        p * float(conftuner_loss(sure[d : d + 1], right[:1]))
        + (1 - p) * float(conftuner_loss(sure[d : d + 1], wrong[:1]))
        for d in range(10)
    ]
    assert abs(DIGIT_VALUES[int(np.argmin(losses))] - p) <= 0.05 + 1e-9


def test_the_conftuner_loss_teaches_where_every_sample_states_the_same_digit() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: see docs/training.md")
    logits = torch.zeros(4, 10)
    logits[:, 9] = 4.0
    logits.requires_grad_(True)
    conftuner_loss(logits, torch.zeros(4)).backward()
    # All stated 9 and all were wrong: 9 goes down, 0 goes up.
    assert torch.all(logits.grad[:, 9] > 0)
    assert torch.all(logits.grad[:, 0] < 0)


def test_rewards_load_without_torch() -> None:
    code = "import sys, corea.train.rewards; sys.exit('torch' in sys.modules or 'trl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
