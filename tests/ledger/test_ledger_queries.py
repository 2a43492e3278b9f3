from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import LedgerError
from corea.ledger import Ledger, Totals, get_trace, list_traces, reading, totals
from corea.types import Trace
from ledger.samples import trace
from ledger.stores import Place


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with Ledger.open(place.url) as opened:
        yield opened


def write(ledger: Ledger, *traces: Trace) -> None:
    async def go() -> None:
        await asyncio.gather(*(ledger.write(one) for one in traces))

    asyncio.run(go())


def test_the_newest_trace_comes_first_with_what_a_list_shows(ledger: Ledger) -> None:
    old, new = trace(started_at_unix_s=1.0), trace(started_at_unix_s=2.0, tiers=("small", "large"))
    write(ledger, new, old)
    first, second = list_traces(ledger)
    assert (first.id, second.id) == (new.id, old.id)
    assert (first.question, first.answer, first.tier, first.deferred, first.error) == (
        "6 × 7?",
        "42",
        "large",
        True,
        False,
    )
    assert (second.confidence, second.cost_nano_usd, second.saved_nano_usd) == (0.9, 1_000, 4_000)


def test_pages_of_any_size_hold_every_trace_once_in_order(ledger: Ledger) -> None:
    # Many start at the same time: the id decides then.
    written = [trace(id=f"t{i:02}", started_at_unix_s=float(i // 7)) for i in range(30)]
    write(ledger, *written)
    expected = [f"t{i:02}" for i in range(29, -1, -1)]

    @settings(deadline=None, max_examples=15)
    @given(st.integers(1, 31))
    def pages_are_whole(limit: int) -> None:
        seen: list[str] = []
        while page := list_traces(ledger, limit=limit, before=seen[-1] if seen else None):
            seen += [row.id for row in page]
        assert seen == expected

    pages_are_whole()


def test_lists_can_be_narrowed(ledger: Ledger) -> None:
    write(
        ledger,
        trace(id="a", task="maths", started_at_unix_s=1.0),
        trace(id="b", task="law", started_at_unix_s=2.0),
        trace(id="c", task="maths", tiers=("small", "large"), started_at_unix_s=3.0),
    )

    def ids(**narrowed: object) -> str:
        return "".join(row.id for row in list_traces(ledger, **narrowed))  # type: ignore[arg-type]

    assert ids() == "cba"
    assert ids(deferred=True) == "c"
    assert ids(deferred=False) == "ba"
    assert ids(tier="large") == "c"
    assert ids(task="maths") == "ca"
    assert ids(since_unix_s=2.0) == "cb"
    assert ids(task="maths", before="c") == "a"
    assert ids(limit=1) == "c"


def test_a_page_after_an_unknown_trace_is_an_error(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="start again without it"):
        list_traces(ledger, before="nope")


def test_a_trace_is_found_by_a_prefix_that_is_its_alone(ledger: Ledger) -> None:
    first, second, third = trace(id="abc1"), trace(id="abd2"), trace(id="abd")
    write(ledger, first, second, third)
    assert get_trace(ledger, "abc1") == first
    assert get_trace(ledger, "abc") == first
    assert get_trace(ledger, "abd") == third


def test_a_prefix_is_text_not_a_pattern(ledger: Ledger) -> None:
    write(ledger, trace(id="abc"), trace(id="ABC"), trace(id="a%c"))
    assert get_trace(ledger, "A").id == "ABC"
    assert get_trace(ledger, "a%").id == "a%c"


def test_an_ambiguous_prefix_names_the_candidates(ledger: Ledger) -> None:
    write(ledger, *(trace(id=f"ab{i}") for i in range(3)))
    with pytest.raises(LedgerError, match="several traces: ab0, ab1, ab2; write more of it"):
        get_trace(ledger, "ab")
    write(ledger, *(trace(id=f"ab{i}") for i in range(3, 9)))
    with pytest.raises(LedgerError, match="ab4, …; write more of it"):
        get_trace(ledger, "ab")


def test_an_unknown_id_names_the_nearest_or_else_the_newest(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="it has none yet"):
        get_trace(ledger, "zz")
    write(ledger, *(trace(id=f"abcdef{i}") for i in range(4)))
    with pytest.raises(LedgerError, match=r"did you mean abcdef3, ?"):
        get_trace(ledger, "abcdfe3")
    with pytest.raises(LedgerError, match="the newest are abcdef3, abcdef2, abcdef1"):
        get_trace(ledger, "zz")


def test_totals_count_the_unknown_apart(ledger: Ledger) -> None:
    failed = trace(task="law", tiers=(), cost_nano_usd=10)
    write(
        ledger,
        trace(cost_nano_usd=100, baseline_nano_usd=500),
        trace(cost_nano_usd=600, baseline_nano_usd=500, tiers=("small", "large")),
        trace(cost_nano_usd=None),
        trace(cost_nano_usd=50, baseline_nano_usd=None),
    )
    expected = Totals(
        traces=4, deferred=1, errors=0, cost_nano_usd=750, cost_unknown=1, saved_nano_usd=300, saved_unknown=2
    )
    assert totals(ledger) == expected
    assert expected.deferral_rate == 0.25
    write(ledger, failed)
    assert totals(ledger, task="maths") == expected


def test_a_trace_that_no_tier_answered_counts_as_an_error(ledger: Ledger) -> None:
    from dataclasses import replace

    write(ledger, replace(trace(), final=None))
    assert (totals(ledger).errors, totals(ledger).deferred, list_traces(ledger)[0].error) == (1, 1, True)


def test_totals_of_nothing_have_no_deferral_rate(ledger: Ledger) -> None:
    assert totals(ledger, since_unix_s=0.0).traces == 0
    assert totals(ledger).deferral_rate is None


def test_reading_goes_on_while_another_connection_writes(ledger: Ledger, place: Place) -> None:
    write(ledger, trace(id="a"))
    with ledger.engine.connect() as other, reading(place.url) as engine:
        other.exec_driver_sql("DELETE FROM attempts")
        assert [row.id for row in list_traces(engine)] == ["a"]
        assert len(get_trace(engine, "a").attempts) == 1
        assert totals(engine).traces == 1
        other.rollback()


def test_a_ledger_that_broke_while_open_is_a_ledger_error(bare_place: Place) -> None:
    with Ledger.open(bare_place.url) as ledger:
        for table in ("attempts", "feedback", "traces"):
            bare_place.sql(f"DROP TABLE {table}")
        with pytest.raises(LedgerError, match=r"no such table|does not exist"):
            list_traces(ledger)
