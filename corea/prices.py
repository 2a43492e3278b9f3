"""Usage → cost, in integer nano-USD. Knows no tiers and keeps no totals.

Prices come from the configuration, from genai-prices (a table that ships with the package; nothing is fetched), or, for
embedded models, from a nominal rate per parameter. A price that is not known is None, never 0.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, cached_property
from importlib.metadata import version
from typing import Protocol

from corea.types import Usage

logger = logging.getLogger("corea.prices")

#: Nominal price of an embedded model: USD per million tokens for each billion parameters. About what hosted
#: endpoints charge for small open models ($0.20 per million tokens at 7–8 billion parameters).
EMBEDDED_USD_PER_MILLION_TOKENS_PER_BILLION_PARAMETERS = 0.025

_REFERENCE = Usage(prompt_tokens=1000, completion_tokens=1000)


class Price(Protocol):
    """What tokens cost."""

    @property
    def source(self) -> str:
        """Where the price is from, in words for a summary."""
        ...

    @property
    def reference_nano_usd(self) -> int:
        """Cost of 1,000 prompt and 1,000 completion tokens: what tiers are ordered by."""
        ...

    def cost_nano_usd(self, usage: Usage) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPrice:
    """A flat price per token, in nano-USD per million tokens."""

    input_nano_usd_per_million: int
    output_nano_usd_per_million: int
    cached_input_nano_usd_per_million: int
    source: str = "configuration"

    @classmethod
    def per_million(
        cls,
        input_usd: float,
        output_usd: float,
        cached_input_usd: float | None = None,
        *,
        source: str = "configuration",
    ) -> FixedPrice:
        """From USD per million tokens. Decimal, because 0.15 has no exact float."""
        return cls(
            input_nano_usd_per_million=_nano(input_usd),
            output_nano_usd_per_million=_nano(output_usd),
            cached_input_nano_usd_per_million=_nano(input_usd if cached_input_usd is None else cached_input_usd),
            source=source,
        )

    @property
    def reference_nano_usd(self) -> int:
        return self.cost_nano_usd(_REFERENCE)

    def cost_nano_usd(self, usage: Usage) -> int:
        """Reasoning tokens are part of the completion tokens, and priced as such. Rounded half up, once."""
        cached = min(usage.cached_prompt_tokens, usage.prompt_tokens)
        millionths = (
            (usage.prompt_tokens - cached) * self.input_nano_usd_per_million
            + cached * self.cached_input_nano_usd_per_million
            + usage.completion_tokens * self.output_nano_usd_per_million
        )
        return (millionths + 500_000) // 1_000_000


@dataclass(frozen=True)
class ListedPrice:
    """A price from genai-prices, with its tiers, cache and reasoning rules."""

    model: str
    provider: str | None
    api_url: str | None

    @property
    def source(self) -> str:
        return f"genai-prices {version('genai-prices')}"

    @cached_property
    def reference_nano_usd(self) -> int:
        return self.cost_nano_usd(_REFERENCE)

    def cost_nano_usd(self, usage: Usage) -> int:
        from genai_prices import Usage as ListedUsage
        from genai_prices import calc_price

        counted = ListedUsage(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=min(usage.cached_prompt_tokens, usage.prompt_tokens),
            output_tokens=usage.completion_tokens,
        )
        if self.provider is not None:
            price = calc_price(counted, self.model, provider_id=self.provider)
        else:
            price = calc_price(counted, self.model, provider_api_url=self.api_url)
        return int((price.total_price * 10**9).to_integral_value(rounding="ROUND_HALF_UP"))


@cache
def listed_price(model: str, *, provider: str | None = None, api_url: str | None = None) -> Price | None:
    """The public list price, or None, with one warning, where there is none."""
    price = ListedPrice(model=model, provider=provider, api_url=api_url)
    try:
        _ = price.reference_nano_usd
    except LookupError:
        logger.warning(
            'no list price for "%s" at %s: its cost is unknown; add prices = { input = …, output = … } to the tier',
            model,
            provider or api_url,
        )
        return None
    return price


@cache
def embedded_price(model: str) -> Price | None:
    """Nominal price of a catalogue model, by its parameters; None, with one warning, for any other file."""
    from corea.catalogue import CATALOGUE

    known = CATALOGUE.get(model)
    if known is None:
        logger.warning(
            'no price for the model file "%s": its cost is unknown; add prices = { input = …, output = … } to the tier',
            model,
        )
        return None
    usd = EMBEDDED_USD_PER_MILLION_TOKENS_PER_BILLION_PARAMETERS * known.parameters / 1e9
    return FixedPrice.per_million(usd, usd, source=f"nominal, by {known.parameters / 1e9:.2f} B parameters")


def prices_version() -> str:
    """Names the price table, for traces."""
    return f"genai-prices {version('genai-prices')}"


def format_usd(nano_usd: int | None) -> str:
    """Money for people: ``$0.000012``, ``$1.20``, ``unknown``."""
    if nano_usd is None:
        return "unknown"
    usd = Decimal(nano_usd) / 10**9
    digits = 2 if abs(usd) >= 1 else 6
    return f"{'-' if usd < 0 else ''}${abs(usd):,.{digits}f}"


def _nano(usd: float) -> int:
    return int((Decimal(str(usd)) * 10**9).to_integral_value())
