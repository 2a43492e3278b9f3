"""Made-up days: what arrives when, of what kind and at what price, and always the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, SIGNAL_COST, Outcomes, read, write
from corea.simulate.days import DAYS, HOUR_S, Clock, Day, Event, Stretch, burst, drift, events, pool_of, price_change

SIGNALS = ("logprob", "p_true")


@pytest.fixture
def outcomes(tmp_path: Path) -> Outcomes:
    """Eight questions, of which the small tier gets the first two wrong; the ninth has no answer of the large one."""
    rows: list[dict[str, Any]] = []
    for i in range(9):
        one = {"id": f"q{i}", "task": "t", "question": f"question {i}"}
        reading = {CONFIDENCE + "logprob": i / 10, CONFIDENCE + "p_true": 0.5, SIGNAL_COST + "p_true": 7}
        rows.append({**one, **reading, "tier": "small", "correct": float(i > 1), "cost_nano_usd": 10, "latency_s": 1.0})
        rows.append({**one, "tier": "large", "correct": 1.0, "cost_nano_usd": 100, "latency_s": 3.0})
    rows[-1]["error"] = "UpstreamTimeout: no"
    rows[2]["finish_reason"] = "length"
    write(tmp_path / "o.parquet", rows, metadata={"tiers": ["small", "large"], "data_hash": "d"}, signals=SIGNALS)
    return read(tmp_path / "o.parquet")


def drawn(day: Day, outcomes: Outcomes, seed: int = 0, signal: str = "logprob") -> list[Event]:
    return list(events(day, outcomes, np.random.default_rng(seed), signal=signal))


@pytest.mark.parametrize("name", DAYS)
def test_a_day_has_about_as_many_requests_as_expected_in_order_of_time(name: str, outcomes: Outcomes) -> None:
    day = DAYS[name](100.0)
    found = drawn(day, outcomes)
    assert len(found) == pytest.approx(day.expected_requests, rel=0.1)
    times = [event.time_s for event in found]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < day.length_s == 24 * HOUR_S


def test_the_same_seed_gives_the_same_day_and_another_one_another(outcomes: Outcomes) -> None:
    day = drift(20.0)
    assert drawn(day, outcomes, 1) == drawn(day, outcomes, 1)
    assert drawn(day, outcomes, 1) != drawn(day, outcomes, 2)


def test_a_burst_is_as_dense_as_it_says(outcomes: Outcomes) -> None:
    found = drawn(burst(200.0, times=5.0, at_h=10, for_h=2), outcomes)
    inside = sum(10 * HOUR_S <= event.time_s < 12 * HOUR_S for event in found)
    assert inside == pytest.approx(2000, rel=0.1)
    assert len(found) - inside == pytest.approx(4400, rel=0.1)


def test_a_drift_ends_with_the_share_of_hard_questions_it_says(outcomes: Outcomes) -> None:
    found = drawn(drift(300.0, shift=0.6), outcomes)

    def wrong(since_h: float, until_h: float) -> float:
        part = [e for e in found if since_h * HOUR_S <= e.time_s < until_h * HOUR_S]
        return sum(1 - e.tiers["small"].correct for e in part) / len(part)

    assert wrong(0, 8) == pytest.approx(0.25, abs=0.05)
    assert wrong(16, 24) == pytest.approx(0.6 + 0.4 * 0.25, abs=0.05)
    assert wrong(8, 12) < wrong(12, 16)


def test_a_price_change_is_of_one_tier_from_its_hour_on(outcomes: Outcomes) -> None:
    for event in drawn(price_change(50.0, times=2.0, at_h=12), outcomes):
        costs: Mapping[str, int | None] = {name: answer.cost_nano_usd for name, answer in event.tiers.items()}
        assert costs == {"small": 10, "large": 200 if event.time_s >= 12 * HOUR_S else 100}


def test_questions_that_a_tier_did_not_answer_are_left_out_and_counted(outcomes: Outcomes) -> None:
    pool = pool_of(outcomes, signal="p_true")
    assert pool.left_out == 1
    assert [question.id for question in pool.questions] == [f"q{i}" for i in range(8)]


def test_an_answer_costs_its_reply_and_the_reading_of_its_confidence(outcomes: Outcomes) -> None:
    first = pool_of(outcomes, signal="p_true").questions[0].tiers
    assert (first["small"].cost_nano_usd, first["large"].cost_nano_usd) == (17, 100)
    assert pool_of(outcomes, signal="logprob").questions[0].tiers["small"].cost_nano_usd == 10


def test_a_reply_that_was_cut_off_and_the_last_tier_have_no_confidence(outcomes: Outcomes) -> None:
    tiers = [question.tiers for question in pool_of(outcomes, signal="logprob").questions]
    assert [one["small"].confidence for one in tiers] == [0.0, None, *(i / 10 for i in range(2, 8))]
    assert {one["large"].confidence for one in tiers} == {None}


def test_what_cannot_be_drawn_is_refused_with_what_to_do(outcomes: Outcomes) -> None:
    with pytest.raises(InputError, match="several confidence signals"):
        pool_of(outcomes)
    with pytest.raises(InputError, match="'guess'; they hold: logprob, p_true"):
        pool_of(outcomes, signal="guess")
    with pytest.raises(InputError, match='no tier "huge"'):
        drawn(price_change(1.0, tier="huge"), outcomes)
    with pytest.raises(InputError, match="sort them by until_s"):
        Day(name="d", arrivals=(Stretch(until_s=2.0, per_hour=1), Stretch(until_s=1.0, per_hour=1)))
    with pytest.raises(InputError, match="shift lies between 0 and 1"):
        Stretch(until_s=1.0, per_hour=1, shift=1.5)
    with pytest.raises(InputError, match="per_hour must be 0 or more"):
        Stretch(until_s=1.0, per_hour=float("nan"))


def test_an_hour_without_requests_has_none(outcomes: Outcomes) -> None:
    day = Day(name="d", arrivals=(Stretch(until_s=HOUR_S, per_hour=0), Stretch(until_s=2 * HOUR_S, per_hour=30)))
    assert all(event.time_s >= HOUR_S for event in drawn(day, outcomes))


def test_the_clock_never_goes_back() -> None:
    clock = Clock()
    clock.advance(5.0)
    clock.advance(3.0)
    assert clock() == 5.0
