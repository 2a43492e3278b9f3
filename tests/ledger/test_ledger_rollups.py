from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from corea.errors import InputError
from corea.ledger import Ledger, prune, roll_up, summary
from corea.ledger.records import attempt_rows, trace_row
from corea.ledger.retention import count
from corea.ledger.rollups import Group, Summary, _spans
from corea.ledger.schema import LATENCY_EDGES_S, attempts, rollups, traces
from corea.types import Trace, Usage
from ledger.samples import attempt, trace
from ledger.stores import Place

HOUR_S, DAY_S = 3600, 86_400


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with Ledger.open(place.url) as opened:
        yield opened


def write(ledger: Ledger, *some: Trace) -> None:
    async def go() -> None:
        await asyncio.gather(*(ledger.write(one) for one in some))

    asyncio.run(go())


def write_as_before(ledger: Ledger, *some: Trace) -> None:
    """As a replica that knows no roll-ups does."""
    with ledger.engine.begin() as connection:
        for one in some:
            connection.execute(insert(traces), {**trace_row(one, store_texts=True), "rolled_up": False})
            if one.attempts:
                connection.execute(insert(attempts), attempt_rows(one, store_texts=True))


def by_key(one: Trace, key_id: str, profile: str = "fast") -> Trace:
    return replace(one, metadata={"key": key_id, "model": profile})


def counted(some: Sequence[Trace]) -> Summary:
    """The plain way to the same sums."""
    usages = [u for one in some for a in one.attempts for u in (a.usage, a.confidence_usage) if u is not None]
    latencies = Counter(sum(edge < one.elapsed_s for edge in LATENCY_EDGES_S) for one in some)
    return Summary(
        traces=len(some),
        deferred=sum(one.deferred for one in some),
        errors=sum(one.final is None for one in some),
        cost_nano_usd=sum(one.cost_nano_usd or 0 for one in some),
        cost_unknown=sum(one.cost_nano_usd is None for one in some),
        saved_nano_usd=sum(one.saved_nano_usd or 0 for one in some),
        saved_unknown=sum(one.saved_nano_usd is None for one in some),
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        tokens_unknown=sum(any(a.usage is None for a in one.attempts) for one in some),
        latencies=tuple(latencies[i] for i in range(len(LATENCY_EDGES_S) + 1)),
    )


_numbers = itertools.count()
some_traces = st.builds(
    lambda tiers, task, at_s, cost, elapsed_s, usage, key: by_key(
        replace(
            trace(id=f"t{next(_numbers)}", tiers=tiers, task=task, started_at_unix_s=at_s, cost_nano_usd=cost),
            attempts=tuple(replace(attempt(tier=tier), usage=usage) for tier in tiers),
            elapsed_s=elapsed_s,
        ),
        key,
    ),
    st.sampled_from([(), ("small",), ("small", "large")]),
    st.sampled_from([None, "maths", "law"]),
    st.floats(0, 3 * DAY_S),
    st.none() | st.integers(0, 10**9),
    st.floats(0, 200),
    st.none() | st.just(Usage(prompt_tokens=7, completion_tokens=3)),
    st.sampled_from(["k1", "k2"]),
)


def test_sums_are_those_of_the_traces_whoever_wrote_them_and_whatever_was_pruned(ledger: Ledger) -> None:
    known: list[Trace] = []

    @settings(deadline=None, max_examples=15)
    @given(st.lists(some_traces, max_size=8), st.lists(some_traces, max_size=4), st.booleans(), st.floats(0, 3 * DAY_S))
    def holds(new: list[Trace], old: list[Trace], folded: bool, before_unix_s: float) -> None:
        write(ledger, *new)
        write_as_before(ledger, *old)
        known.extend([*new, *old])
        if folded:
            roll_up(ledger, batch=3)
        assert summary(ledger) == [counted(known)]
        since, until = sorted([before_unix_s, DAY_S * 1.3])
        hours = (since // HOUR_S * HOUR_S, until // HOUR_S * HOUR_S)
        some = [one for one in known if hours[0] <= one.started_at_unix_s // HOUR_S * HOUR_S < hours[1]]
        assert summary(ledger, since_unix_s=since, until_unix_s=until) == [counted(some)]
        of_law = [one for one in some if one.request.task == "law"]
        assert summary(ledger, since_unix_s=since, until_unix_s=until, task="law") == [counted(of_law)]
        told = {one.group["tier"]: one.traces for one in summary(ledger, by=["tier"])}
        assert told == Counter(one.tier or "" for one in known)
        told = {one.group["day"]: one.traces for one in summary(ledger, by=["day"])}
        assert told == Counter(one.started_at_unix_s // DAY_S * DAY_S for one in known)
        prune(ledger, before_unix_s=before_unix_s, batch=3)
        assert count(ledger, before_unix_s=before_unix_s) == 0
        assert summary(ledger) == [counted(known)]

    holds()


def test_a_trace_written_twice_is_summed_once(ledger: Ledger) -> None:
    write(ledger, trace(id="one"))
    write(ledger, trace(id="one"), trace(id="two"), trace(id="two"))
    assert summary(ledger)[0].traces == 2


def test_pruning_deletes_the_old_with_all_that_hangs_on_them_and_leaves_the_rest(ledger: Ledger, place: Place) -> None:
    write(ledger, *(trace(id=f"t{i}", started_at_unix_s=float(i), tiers=("small", "large")) for i in range(10)))
    asyncio.run(ledger.add_feedback("t1", 1.0))
    asyncio.run(ledger.add_feedback("t8", 1.0))
    seen: list[int] = []
    assert prune(ledger, before_unix_s=7.0, batch=3, on_batch=seen.append) == 7
    assert seen == [3, 6, 7]
    assert place.sql("SELECT id FROM traces ORDER BY 1") == [("t7",), ("t8",), ("t9",)]
    assert place.sql("SELECT count(*) FROM attempts") == [(6,)]
    assert place.sql("SELECT trace_id FROM feedback") == [("t8",)]


def test_groups_come_largest_first_and_may_be_combined(ledger: Ledger) -> None:
    write(ledger, *(by_key(trace(started_at_unix_s=5.0), "k1") for _ in range(3)))
    write(
        ledger, *(by_key(trace(started_at_unix_s=HOUR_S + 5.0), "k2") for _ in range(2)), trace(started_at_unix_s=1.0)
    )
    groups: list[Group] = ["key_id", "hour"]
    assert [(one.group["key_id"], one.group["hour"], one.traces) for one in summary(ledger, by=groups)] == [
        ("k1", 0, 3), ("k2", HOUR_S, 2), ("", 0, 1)]  # fmt: skip
    assert [one.traces for one in summary(ledger, by=["profile"], profile="fast")] == [5]
    assert summary(ledger, key_id="nobody") == [Summary()]


def test_an_unknown_group_names_those_there_are(ledger: Ledger) -> None:
    with pytest.raises(InputError, match='no group is called "model"; there are: tier, task'):
        summary(ledger, by=["model"])  # type: ignore[list-item]


def test_quantiles_of_latency_are_within_a_factor_of_two(ledger: Ledger) -> None:
    write(ledger, *(replace(trace(), elapsed_s=i / 100) for i in range(1, 1001)))
    one = summary(ledger)[0]
    for quantile in (0.05, 0.5, 0.9, 0.99):
        found = one.latency_s(quantile)
        assert found is not None
        assert quantile * 10 / 2 <= found <= quantile * 10 * 2
    assert Summary().latency_s(0.5) is None


def test_whole_days_are_read_as_days(ledger: Ledger) -> None:
    write(ledger, *(trace(started_at_unix_s=float(hour * HOUR_S)) for hour in range(72)))
    clause = _spans(5 * HOUR_S, 71 * HOUR_S, hourly=False)
    with ledger.engine.connect() as connection:
        rows = connection.execute(select(rollups.c.span_s).where(clause)).scalars().all()
    assert Counter(rows) == {HOUR_S: 19 + 23, DAY_S: 1}


@pytest.mark.parametrize("at_s", [float("inf"), -5.0, 1e300])
def test_a_trace_from_outside_of_time_spoils_no_sum(ledger: Ledger, at_s: float) -> None:
    write(
        ledger, trace(started_at_unix_s=at_s, cost_nano_usd=2**62), trace(cost_nano_usd=2**62, started_at_unix_s=at_s)
    )
    assert summary(ledger)[0].traces == 2
