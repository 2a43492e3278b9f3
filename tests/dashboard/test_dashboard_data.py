"""What the pages say is what the traces say: every figure against a plain loop over them, on both databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from corea.dashboard import data
from corea.dashboard.filters import DAY_S, OUTCOMES, PERIODS, Filters
from corea.ledger import Ledger
from corea.ledger.records import attribution
from corea.ledger.schema import rollups, traces
from corea.types import Decision, Reason, Trace
from dashboard.filled import KEYS, LAST, NOW, PROFILES, TASKS, attempt, some_traces, trace, write
from ledger.stores import KINDS, fresh


@dataclass(frozen=True, slots=True)
class Filled:
    ledger: Ledger
    traces: list[Trace]

    def meant(self, filters: Filters) -> list[Trace]:
        """By a loop."""
        since = filters.since_unix_s(NOW)
        return [one for one in self.traces if (since is None or one.started_at_unix_s >= since) and fits(one, filters)]


def fits(one: Trace, filters: Filters) -> bool:
    key, profile = attribution(one)
    of_trace = {"task": one.request.task, "key": key, "profile": profile, "route": one.tier}
    for name, value in of_trace.items():
        wanted = getattr(filters, name)
        if wanted is not None and (value or "") != wanted:
            return False
    outcome = "failed" if one.final is None else "deferred" if one.deferred else "kept"
    return filters.outcome in (None, outcome)


@pytest.fixture(scope="module", params=KINDS)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with fresh(request.param, tmp_path_factory.mktemp("data")) as place, Ledger.open(place.url) as ledger:
        # Text with NUL and lone surrogates goes in and comes out on both.
        made = some_traces(160)
        made.append(replace(made[0], id="only-one-starts-so"))
        write(ledger, made, feedback=0.6)
        yield Filled(ledger, made)


FILTERS = st.builds(
    Filters,
    period=st.sampled_from(sorted(PERIODS)),
    task=st.none() | st.sampled_from([one or "" for one in TASKS]),
    key=st.none() | st.sampled_from([one or "" for one in KEYS]),
    profile=st.none() | st.sampled_from([one or "" for one in PROFILES]),
    route=st.none() | st.sampled_from(["small", "large", "", "gone"]),
    outcome=st.none() | st.sampled_from(OUTCOMES),
)
EVERYTHING = Filters(period="all")


@settings(max_examples=16, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(filters=FILTERS, size=st.integers(1, 60))
def test_pages_of_the_list_together_are_the_traces_that_the_filters_mean(
    filled: Filled, filters: Filters, size: int
) -> None:
    parts = list(data.pages(filled.ledger, filters, now_unix_s=NOW, texts=False, size=size))
    listed = [row["id"] for part in parts for row in part]
    meant = sorted(filled.meant(filters), key=lambda one: (one.started_at_unix_s, one.id), reverse=True)
    assert listed == [one.id for one in meant]
    assert all(len(part) == size for part in parts[:-1])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(filters=FILTERS.map(lambda one: replace(one, outcome=None)))
def test_totals_are_the_sums_over_those_traces(filled: Filled, filters: Filters) -> None:
    found = data.totals(filled.ledger, filters, now_unix_s=NOW)
    meant = filled.meant(filters)
    assert found.total.traces == len(meant)
    assert found.total.deferred == sum(one.deferred for one in meant)
    assert found.total.errors == sum(one.final is None for one in meant)
    assert found.total.cost_nano_usd == sum(one.cost_nano_usd or 0 for one in meant)
    assert found.total.saved_nano_usd == sum(one.saved_nano_usd or 0 for one in meant)
    assert sum(found.total.latencies) == len(meant)
    assert sum(bar.sums.traces for bar in found.bars) == len(meant)
    for name, parts in found.by.items():
        assert sum(part.traces for part in parts) == len(meant), name
    tasks = Counter(one.request.task or "" for one in meant)
    assert {part.group["task"]: part.traces for part in found.by["task"]} == tasks
    # What may be chosen does not shrink with what is chosen.
    everything = Filters(period=filters.period)
    assert set(found.choices["task"]) == {one.request.task or "" for one in filled.meant(everything)}
    assert data.choices(filled.ledger, filters, now_unix_s=NOW) == found.choices


@pytest.mark.parametrize("period", sorted(PERIODS))
def test_bars_have_no_gaps_and_fit_a_small_chart(filled: Filled, period: str) -> None:
    bars = data.totals(filled.ledger, Filters(period=period), now_unix_s=NOW).bars
    starts = [bar.start_unix_s for bar in bars]
    assert len({bar.length_s for bar in bars}) == 1
    assert [b - a for a, b in pairwise(starts)] == [bars[0].length_s] * (len(bars) - 1)
    assert 1 <= len(bars) <= data.BARS + 2
    assert starts[-1] <= NOW < starts[-1] + bars[-1].length_s


def test_years_of_days_become_weeks_or_more(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        old = [trace(i, Random(i), at=NOW - i * 30 * DAY_S) for i in range(40)]
        write(ledger, old)
        bars = data.totals(ledger, EVERYTHING, now_unix_s=NOW).bars
    assert len(bars) <= data.BARS + 2
    assert sum(bar.sums.traces for bar in bars) == 40


def test_nothing_asked_is_nothing_found_and_no_error(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        found = data.totals(ledger, EVERYTHING, now_unix_s=NOW)
        assert (found.total.traces, found.bars) == (0, [])
        assert data.page(ledger, EVERYTHING, now_unix_s=NOW, limit=5) == ([], None)
        assert data.decisions(ledger, EVERYTHING, now_unix_s=NOW).requests == 0
        assert data.judged(ledger, EVERYTHING, now_unix_s=NOW) == ([], False)
        assert data.find(ledger, "x") is None


def test_a_list_has_texts_and_what_decided_about_the_first_attempt(filled: Filled) -> None:
    rows, _ = data.page(filled.ledger, EVERYTHING, now_unix_s=NOW, limit=200)
    by_id = {one.id: one for one in filled.traces}
    for row in rows:
        first = by_id[row["id"]].attempts[0]
        assert row["question"] == by_id[row["id"]].request.question
        assert row["first"]["reason"] == first.decision.reason
        assert (row["first"]["confidence"], row["first"]["guard"]) == (first.confidence.value, first.decision.guard)


def test_decisions_are_counted_by_reason_and_guard(filled: Filled) -> None:
    found = data.decisions(filled.ledger, EVERYTHING, now_unix_s=NOW)
    attempts = [one for trace in filled.traces for one in trace.attempts]
    counts = Counter((a.tier, a.decision.keep, a.decision.reason.value, a.decision.guard) for a in attempts)
    assert {(one.tier, one.keep, one.reason, one.guard): one.count for one in found.decided} == counts
    assert found.requests == len(filled.traces)
    assert any(one.guard == "repeats" for one in found.decided)


def test_of_each_policy_the_newest_word_is_told(tmp_path: Path) -> None:
    rng = Random(3)

    def decided(policy: str | None, note: str | None) -> Decision:
        return Decision(keep=True, reason=Reason.CONFIDENT, threshold=0.5, policy=policy, note=note)

    said = [("budget", "old"), ("latency", None), (None, None), ("budget", "it costs 1.2 points"), ("budget", "older")]
    made = [
        trace(n, rng, at=NOW - (0 if note == "it costs 1.2 points" else 100 - n), final=0,
              attempts=(attempt(decision=decided(policy, note)),))
        for n, (policy, note) in enumerate(said)
    ]  # fmt: skip
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        write(ledger, made)
        found = data.decisions(ledger, EVERYTHING, now_unix_s=NOW).policies
    assert [(one.policy, one.count, one.said) for one in found] == [
        ("budget", 3, "it costs 1.2 points"),
        ("latency", 1, None),
    ]


def test_only_the_newest_requests_are_looked_at_for_decisions(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SAMPLE", 10)
    found = data.decisions(filled.ledger, EVERYTHING, now_unix_s=NOW)
    newest = sorted(filled.traces, key=lambda one: (one.started_at_unix_s, one.id))[-10:]
    assert found.requests == 10
    assert sum(one.count for one in found.decided) == sum(len(one.attempts) for one in newest)
    assert len(data.asked_first(filled.ledger, EVERYTHING, now_unix_s=NOW)) == 10


def test_feedback_tells_of_the_answer_handed_out_and_of_attempts_that_gave_the_same(filled: Filled) -> None:
    found, capped = data.judged(filled.ledger, EVERYTHING, now_unix_s=NOW)
    told = [one for one in found if one.told]
    by_id = {one.id: one for one in filled.traces}
    assert not capped
    assert len({one.trace_id for one in told}) == len(told) > 50
    for one in told:
        final = by_id[one.trace_id].attempt
        assert final is not None
        assert (one.tier, one.reason, one.confidence) == (final.tier, final.decision.reason, final.confidence.value)
    # All answers are 42: a deferred one is judged with the one handed out.
    follows = [one for one in found if not one.told]
    assert {one.tier for one in follows} == {"small"}
    correct = {one.trace_id: one.correct for one in told}
    assert all(correct[one.trace_id] == one.correct for one in follows)
    maths, _ = data.judged(filled.ledger, Filters(period="all", task="maths"), now_unix_s=NOW)
    assert {one.trace_id for one in maths} == {
        one.trace_id for one in found if by_id[one.trace_id].request.task == "maths"
    }


def test_a_cap_on_feedback_is_told(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "JUDGED", 5)
    found, capped = data.judged(filled.ledger, EVERYTHING, now_unix_s=NOW)
    assert capped
    assert len({one.trace_id for one in found}) == 5
    # What was left out is older than the period, so nothing of it is missing.
    _, capped = data.judged(filled.ledger, Filters(period="24h"), now_unix_s=NOW + 5 * DAY_S)
    assert not capped


def test_an_attempt_that_no_threshold_was_held_against_is_not_asked_first(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        direct = replace(trace(1, Random(1)), attempts=(attempt("large", decision=LAST),), final=0)
        relayed = replace(LAST, reason=Reason.RELAYED)
        other = replace(trace(2, Random(2)), attempts=(attempt("large", decision=relayed),), final=0)
        write(ledger, [direct, other])
        assert data.asked_first(ledger, EVERYTHING, now_unix_s=NOW) == []


def test_a_trace_is_found_by_its_id_or_how_it_starts_if_only_one_does(filled: Filled) -> None:
    found = data.find(filled.ledger, "t00007")
    assert found is not None
    assert found.id == "t00007"
    assert data.find(filled.ledger, "t0000") is None
    only = data.find(filled.ledger, "only-")
    assert only is not None
    assert only.id == "only-one-starts-so"
    assert data.find(filled.ledger, "") is None
    assert data.find(filled.ledger, "%") is None
    assert data.find(filled.ledger, "t\x00\ud800") is None


def test_traces_that_an_older_replica_wrote_are_listed_too(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        write(ledger, some_traces(20))
        with ledger.engine.begin() as connection:
            connection.execute(rollups.delete())
            connection.execute(update(traces).values(rolled_up=False))
        rows, _ = data.page(ledger, Filters(period="all", outcome="deferred"), now_unix_s=NOW, limit=50)
        assert {row["id"] for row in rows} == {
            one.id for one in some_traces(20) if one.deferred and one.final is not None
        }
        assert data.totals(ledger, EVERYTHING, now_unix_s=NOW).total.traces == 20


def test_every_pair_of_dimensions_narrows_together(filled: Filled) -> None:
    for task, route in product(("maths", ""), ("small", "large", "")):
        filters = Filters(period="all", task=task, route=route)
        rows, _ = data.page(filled.ledger, filters, now_unix_s=NOW, limit=500)
        assert {row["id"] for row in rows} == {one.id for one in filled.meant(filters)}
