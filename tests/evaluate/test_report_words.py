"""Figures as people read them: rounded, never to something they are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.evaluate.metrics import Estimate
from corea.evaluate.report.words import chance, dollars, interval, number, percent, points, shortened, value_of


@pytest.mark.parametrize(
    "nano_usd,told",
    [
        (0, "$0.00"),
        (1_234_567_891_000, "$1,234.57"),
        (1_000_000_000, "$1.00"),
        (570_000_000, "$0.570"),
        (38_200_000, "$0.0382"),
        (-38_200_000, "−$0.0382"),
        (99_198, "$0.0000992"),
        (None, "unknown"),
    ],
)
def test_money_has_cents_or_three_digits_that_count(nano_usd: float | None, told: str) -> None:
    assert dollars(nano_usd) == told


def test_shares_and_differences_of_shares() -> None:
    assert [percent(share) for share in (0.0, 0.0004, 0.6328, 1.0, None)] == [
        "0\u00a0%", "0.0\u00a0%", "63.3\u00a0%", "100\u00a0%", "unknown",
    ]  # fmt: skip
    assert [points(share) for share in (0.02, 0.01, -0.0138, -0.0001)] == [
        "2\u00a0points", "1\u00a0point", "−1.4\u00a0points", "0\u00a0points",
    ]  # fmt: skip


@given(st.floats(0, 1, exclude_max=True))
def test_a_threshold_below_one_is_not_shown_as_one_unless_it_is_within_a_billionth(value: float) -> None:
    assert float(number(value)) < 1 or value > 1 - 1e-9


def test_an_estimate_without_a_value_is_a_dash_and_one_without_width_has_no_interval() -> None:
    unknown = Estimate(value=None, n=3, note="why")
    exact = Estimate(value=1.0, low=1.0, high=1.0, n=3)
    plain = Estimate(value=0.5, low=0.25, high=0.75, n=3)
    assert (value_of(unknown, "percent"), interval(unknown, "percent")) == ("–", "")
    assert (value_of(exact, "percent"), interval(exact, "percent")) == ("100\u00a0%", "")
    assert (value_of(plain, "number"), interval(plain, "number")) == ("0.500", "0.250 to 0.750")
    assert interval(plain, "points") == "25.0 to 75.0"
    assert (chance(0.0346), chance(1e-9), chance(None)) == ("0.035", "< 0.0001", "unknown")


@given(st.text(max_size=50), st.integers(2, 30))
def test_a_shortened_name_is_short_and_printable(text: str, most: int) -> None:
    shown = shortened(text, most)
    assert len(shown) <= most
    assert shown.isprintable()
