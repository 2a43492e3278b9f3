from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corea.errors import InputError
from corea.ledger import Ledger, outcomes
from corea.types import Failure, Trace
from ledger.samples import trace
from ledger.stores import Place


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with Ledger.open(place.url) as opened:
        yield opened


def deferred(id: str, small: str | None, large: str | None, kind: str = "number") -> Trace:
    """A trace whose two tiers answered so."""
    one = trace(id=id, tiers=("small", "large"))
    tried = tuple(replace(a, answer=answer) for a, answer in zip(one.attempts, (small, large), strict=True))
    return replace(one, attempts=tried, request=replace(one.request, kind=kind))  # type: ignore[arg-type]


def judged(ledger: Ledger, one: Trace, correct: float) -> dict[str, tuple[float, str]]:
    async def go() -> None:
        await ledger.write(one)
        await ledger.add_feedback(one.id, correct)

    asyncio.run(go())
    return {row["tier"]: (row["correct"], row["known"]) for row in outcomes(ledger) if row["id"] == one.id}


def test_feedback_on_a_kept_answer_is_an_outcome_of_the_small_tier_only(ledger: Ledger) -> None:
    assert judged(ledger, trace(id="kept"), 0.0) == {"small": (0.0, "told")}


def test_feedback_on_a_deferred_answer_says_nothing_of_a_small_one_that_differs(ledger: Ledger) -> None:
    assert judged(ledger, deferred("a", "41", "42"), 1.0) == {"large": (1.0, "told")}
    assert judged(ledger, deferred("b", "A", "B", "choice"), 0.0) == {"large": (0.0, "told")}


def test_the_same_answer_is_as_right_as_the_one_handed_out(ledger: Ledger) -> None:
    assert judged(ledger, deferred("a", " 42", "42"), 0.0) == {"small": (0.0, "same_answer"), "large": (0.0, "told")}


def test_another_choice_than_the_right_one_is_wrong(ledger: Ledger) -> None:
    told = judged(ledger, deferred("a", "A", "B", "choice"), 1.0)
    assert told == {"small": (0.0, "differs_from_right"), "large": (1.0, "told")}


@pytest.mark.parametrize("answers", [(None, "42"), ("42", None)])
def test_where_there_is_no_short_answer_nothing_follows(ledger: Ledger, answers: tuple[str | None, str | None]) -> None:
    assert judged(ledger, deferred("a", *answers, "choice"), 1.0) == {"large": (1.0, "told")}


def test_a_failed_attempt_has_no_outcome(ledger: Ledger) -> None:
    one = deferred("a", "42", "42")
    failed = replace(one.attempts[0], failure=Failure(kind="UpstreamRefused", message="refused"))
    assert judged(ledger, replace(one, attempts=(failed, one.attempts[1])), 1.0) == {"large": (1.0, "told")}


def test_a_source_that_speaks_again_replaces_what_it_said_and_sources_are_averaged(
    ledger: Ledger, place: Place
) -> None:
    async def go() -> None:
        await ledger.write(trace(id="a"))
        await ledger.add_feedback("a", 0.0, "wrong unit")
        await ledger.add_feedback("a", 1.0, source="user")
        await ledger.add_feedback("a", 0.5, source="judge")

    asyncio.run(go())
    assert place.sql("SELECT source, correct, note FROM feedback ORDER BY 1") == [
        ("judge", 0.5, None),
        ("user", 1.0, None),
    ]
    assert [row["correct"] for row in outcomes(ledger)] == [0.75]


def test_feedback_on_an_unknown_trace_says_so(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="no trace 'nope'.*give the id that came with the answer"):
        asyncio.run(ledger.add_feedback("nope", 1.0))


@pytest.mark.parametrize("correct", [-0.1, 1.1, float("nan")])
def test_feedback_that_is_no_probability_is_refused(ledger: Ledger, correct: float) -> None:
    with pytest.raises(InputError, match="between 0 .wrong. and 1 .right."):
        asyncio.run(ledger.add_feedback("a", correct))


def test_more_feedback_than_a_page_is_told_whole(ledger: Ledger) -> None:
    ids = [f"t{i:04}" for i in range(1001)]

    async def go() -> None:
        await asyncio.gather(*(ledger.write(trace(id=id)) for id in ids))

    asyncio.run(go())
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO feedback SELECT id, 'user', 1.0, NULL, 0.0 FROM traces")
    assert [row["id"] for row in outcomes(ledger)] == ids


def test_outcomes_of_feedback_are_lines_that_eval_import_reads(ledger: Ledger, tmp_path: Path) -> None:
    imported = pytest.importorskip("corea.evaluate.imported")

    async def go() -> None:
        for one in (trace(id="kept"), deferred("gone on", "42", "42")):
            await ledger.write(one)
            await ledger.add_feedback(one.id, 1.0)

    asyncio.run(go())
    lines: list[dict[str, Any]] = list(outcomes(ledger))
    assert lines[0]["confidence"] == {"verbalized": 0.9}
    assert (lines[0]["question"], lines[0]["cost_usd"], lines[0]["latency_ms"]) == ("6 × 7?", 1e-6, 250.0)
    source = tmp_path / "feedback.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    taken = imported.import_outcomes(source, tmp_path / "outcomes.parquet")
    assert (taken.rows, taken.questions, set(taken.tiers)) == (3, 2, {"small", "large"})
    assert set(taken.ignored) == {"known"}
