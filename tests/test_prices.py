"""Money: integers, known or unknown, never made up."""

from __future__ import annotations

import logging
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.catalogue import CATALOGUE
from corea.prices import FixedPrice, embedded_price, format_usd, listed_price
from corea.types import Usage

_counts = st.integers(0, 10**9)
_usages = st.builds(
    Usage, prompt_tokens=_counts, cached_prompt_tokens=_counts, completion_tokens=_counts, reasoning_tokens=_counts
)


def test_a_million_tokens_cost_what_the_price_says() -> None:
    price = FixedPrice.per_million(0.15, 0.60, 0.075)
    usage = Usage(prompt_tokens=1_000_000, cached_prompt_tokens=400_000, completion_tokens=1_000_000)
    assert price.cost_nano_usd(usage) == 90_000_000 + 30_000_000 + 600_000_000


def test_reasoning_tokens_are_counted_once_as_completion() -> None:
    price = FixedPrice.per_million(1, 1)
    with_reasoning = Usage(completion_tokens=100, reasoning_tokens=90)
    assert price.cost_nano_usd(with_reasoning) == price.cost_nano_usd(Usage(completion_tokens=100))


def test_cached_tokens_cost_as_much_as_others_unless_a_price_is_given() -> None:
    price = FixedPrice.per_million(3, 0)
    assert price.cost_nano_usd(Usage(prompt_tokens=10, cached_prompt_tokens=10)) == 30_000


@given(usage=_usages, input_usd=st.decimals(0, 1000, places=6), output_usd=st.decimals(0, 1000, places=6))
def test_cost_is_exact_to_half_a_nano_dollar(usage: Usage, input_usd: Decimal, output_usd: Decimal) -> None:
    cost = FixedPrice.per_million(float(input_usd), float(output_usd)).cost_nano_usd(usage)
    exact = (usage.prompt_tokens * input_usd + usage.completion_tokens * output_usd) * 1000
    assert isinstance(cost, int)
    assert abs(cost - exact) <= Decimal("0.5")


@given(_usages, _usages)
def test_usage_adds_up(one: Usage, two: Usage) -> None:
    total = one + two
    assert total.prompt_tokens == one.prompt_tokens + two.prompt_tokens
    assert total == two + one


def test_a_listed_price_is_found_by_endpoint_and_counts_cached_tokens() -> None:
    price = listed_price("gpt-4o-mini", api_url="https://api.openai.com/v1")
    assert price is not None
    plain = price.cost_nano_usd(Usage(prompt_tokens=1000, completion_tokens=100))
    cached = price.cost_nano_usd(Usage(prompt_tokens=1000, cached_prompt_tokens=1000, completion_tokens=100))
    assert plain == 1000 * 150 + 100 * 600
    assert 0 < cached < plain
    assert "genai-prices" in price.source


def test_an_unlisted_model_is_unknown_and_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="corea"):
        for _ in range(3):
            assert listed_price("my-own-model", api_url="http://127.0.0.1:8000/v1") is None
    assert len(caplog.records) == 1
    assert "prices = {" in caplog.text


def test_embedded_prices_are_proportional_to_parameters() -> None:
    small, large = (embedded_price(name) for name in ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"))
    assert small is not None
    assert large is not None
    ratio = CATALOGUE["qwen2.5-coder-1.5b"].parameters / CATALOGUE["qwen2.5-coder-0.5b"].parameters
    assert large.reference_nano_usd / small.reference_nano_usd == pytest.approx(ratio, rel=1e-3)
    assert "nominal" in small.source


def test_a_users_own_file_has_no_price(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="corea"):
        assert embedded_price("/somewhere/my.gguf") is None
    assert "its cost is unknown" in caplog.text


@pytest.mark.parametrize(
    "nano,text",
    [
        (None, "unknown"),
        (0, "$0.000000"),
        (12_345, "$0.000012"),
        (-12_345, "-$0.000012"),
        (1_234_567_890_000, "$1,234.57"),
    ],
)
def test_money_for_people(nano: int | None, text: str) -> None:
    assert format_usd(nano) == text
