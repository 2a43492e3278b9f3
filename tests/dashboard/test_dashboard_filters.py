"""An address says which requests are meant, and nothing else."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.dashboard.data import Cursor
from corea.dashboard.filters import NONE, OUTCOMES, PERIODS, Filters
from corea.errors import InputError

VALUES = st.none() | st.text(st.characters(exclude_categories=["Cs"])).filter(lambda value: value != NONE)


@given(
    filters=st.builds(
        Filters, period=st.sampled_from(sorted(PERIODS)), task=VALUES, key=VALUES, profile=VALUES, route=VALUES,
        outcome=st.none() | st.sampled_from(OUTCOMES),
    )
)  # fmt: skip
def test_what_is_written_into_an_address_is_read_from_it(filters: Filters) -> None:
    assert Filters.read(dict(parse_qsl(filters.query().removeprefix("?"), keep_blank_values=True))) == filters


def test_nothing_chosen_is_the_last_week_and_no_query() -> None:
    assert Filters.read({}) == Filters() == Filters.read({"task": "", "outcome": "", "period": ""})
    assert Filters().query() == ""
    assert not Filters(period="all").narrow


@pytest.mark.parametrize("query", [{"period": "1y"}, {"outcome": "lost"}])
def test_an_address_that_nobody_made_is_refused_with_what_there_is(query: dict[str, str]) -> None:
    with pytest.raises(InputError, match="there are: "):
        Filters.read(query)


def test_a_period_begins_with_a_whole_hour() -> None:
    now = 1_764_072_000.0 + 1_799
    assert Filters(period="24h").since_unix_s(now) == 1_764_072_000 - 86_400
    assert Filters(period="all").since_unix_s(now) is None
    assert Filters(period="90d").since_unix_s(5.0) == 0


@given(st.floats(allow_nan=False, allow_infinity=False), st.text())
def test_a_cursor_is_read_as_it_was_written(at: float, id: str) -> None:
    cursor = Cursor(started_at_unix_s=at, id=id)
    assert Cursor.read(str(cursor)) == cursor


@pytest.mark.parametrize("written", ["~", "nan~x", "inf~x", "x~y", "17 64~x"])
def test_a_damaged_cursor_is_refused(written: str) -> None:
    with pytest.raises(InputError, match="newest"):
        Cursor.read(written)
