"""Whether one more request fits a key's limits: a pure function of what the key used. Knows neither SQL nor clocks.

Requests and tokens are counted by whole seconds, and a request fits if it and all of the last 60 seconds and the
current one fit. Any 60 seconds lie within 61 such seconds, so no minute, wherever it begins, holds more than the limit;
the price is that a steady stream reaches only 60/61 of it. Money is counted by days and months of UTC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from corea.ledger.keys import Limits
from corea.ledger.records import KEY, RESERVATION, RESERVED

WINDOW_S = 60
DAY_S = 86_400

LimitName = Literal["requests_per_minute", "tokens_per_minute", "day_nano_usd", "month_nano_usd"]
#: (second, requests, tokens)
Second = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A request that asks to be let in. The estimates are the most it can use: what it did use comes later."""

    id: str
    key_id: str
    limits: Limits
    tokens: int
    nano_usd: int
    #: A reservation that is neither settled nor written with a trace is given back after this long.
    expires_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A request that was let in, and what was set aside for it."""

    id: str
    key_id: str
    tokens: int
    nano_usd: int
    #: Where its tokens are counted; None where the key has no limits.
    second: int | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """To be put into the trace's metadata: so the ledger charges the key and frees the reservation."""
        return {KEY: self.key_id, RESERVATION: self.id, RESERVED: self.nano_usd}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A request that does not fit. ``retry_after_s=None``: it never will, being larger than the limit itself."""

    limit: LimitName
    most: int
    used: int
    wanted: int
    retry_after_s: float | None

    @property
    def message(self) -> str:
        """One line for the client."""
        what = _WORDS[self.limit]
        if self.retry_after_s is None:
            return (
                f"the request needs {_amount(self, self.wanted)} and its key may use {_amount(self, self.most)} {what}"
            )
        wait = f"try again in {math.ceil(self.retry_after_s):,} s"
        return f"the key's limit of {_amount(self, self.most)} {what} is used up; {wait}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a key used so far, as of ``now``."""

    seconds: tuple[Second, ...] = ()
    day_nano_usd: int = 0
    month_nano_usd: int = 0
    #: Set aside for requests that still run.
    reserved_nano_usd: int = 0
    #: When the first of those reservations expires.
    first_expiry_unix_s: float | None = None


def recent(seconds: Sequence[Sequence[int]], now_unix_s: float) -> tuple[Second, ...]:
    """Those that a window which ends now may hold. Seconds from the future stay: a clock was set back."""
    oldest = math.floor(now_unix_s) - WINDOW_S
    return tuple((at, requests, tokens) for at, requests, tokens in seconds if at >= oldest)


def admit(used: Used, demand: Demand, now_unix_s: float) -> tuple[Used, Granted | Refused]:
    """The decision, and what the key has used after it. A refused request uses nothing."""
    used = replace(used, seconds=recent(used.seconds, now_unix_s))
    refused = _refused_for_rate(used, demand, now_unix_s) or _refused_for_money(used, demand, now_unix_s)
    if refused is not None:
        return used, refused
    second = max(math.floor(now_unix_s), used.seconds[-1][0] if used.seconds else 0)
    granted = Granted(id=demand.id, key_id=demand.key_id, tokens=demand.tokens, nano_usd=demand.nano_usd, second=second)
    expiry = now_unix_s + demand.expires_s
    after = replace(
        used,
        seconds=_counted(used.seconds, second, requests=1, tokens=demand.tokens),
        reserved_nano_usd=used.reserved_nano_usd + demand.nano_usd,
        first_expiry_unix_s=expiry if used.first_expiry_unix_s is None else min(expiry, used.first_expiry_unix_s),
    )
    return after, granted


def settle(seconds: Sequence[Second], granted: Granted, tokens: int) -> tuple[Second, ...]:
    """The estimate replaced by what was used, while it is still in the window."""
    if granted.second is None or not any(at == granted.second for at, _, _ in seconds):
        return tuple(seconds)
    return _counted(seconds, granted.second, requests=0, tokens=tokens - granted.tokens)


def month_start_day(day: int) -> int:
    """The first day, since 1970, of the month that a day lies in."""
    return day - (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).day + 1


def _refused_for_rate(used: Used, demand: Demand, now: float) -> Refused | None:
    limits = demand.limits
    rates: tuple[tuple[LimitName, int | None, int, int], ...] = (
        ("requests_per_minute", limits.requests_per_minute, 1, 1),
        ("tokens_per_minute", limits.tokens_per_minute, 2, demand.tokens),
    )
    for name, most, column, wanted in rates:
        total = sum(second[column] for second in used.seconds)
        if most is None or total + wanted <= most:
            continue
        wait_s = _until_fits(used.seconds, column, total + wanted - most, now) if wanted <= most else None
        return Refused(limit=name, most=most, used=total, wanted=wanted, retry_after_s=wait_s)
    return None


def _until_fits(seconds: Sequence[Second], column: int, excess: int, now: float) -> float:
    """Seconds until so much of the window has passed that ``excess`` is gone."""
    for second in seconds:
        excess -= second[column]
        if excess <= 0:
            return max(second[0] + WINDOW_S + 1 - now, 0.0)
    return WINDOW_S + 1.0


def _refused_for_money(used: Used, demand: Demand, now: float) -> Refused | None:
    limits, day = demand.limits, int(now // DAY_S)
    next_month = month_start_day(month_start_day(day) + 31)
    budgets: tuple[tuple[LimitName, int | None, int, int], ...] = (
        ("month_nano_usd", limits.month_nano_usd, used.month_nano_usd, next_month),
        ("day_nano_usd", limits.day_nano_usd, used.day_nano_usd, day + 1),
    )
    for name, most, spent, renewed_day in budgets:
        total = spent + used.reserved_nano_usd
        # A budget that is used up to the last cent lets in nothing, not even what costs nothing by estimate.
        if most is None or (total + demand.nano_usd <= most and total < most):
            continue
        wait_s = renewed_day * DAY_S - now
        if spent + demand.nano_usd <= most and spent < most and used.first_expiry_unix_s is not None:
            # Only what is set aside is in the way, and some of it may be given back.
            wait_s = min(wait_s, max(used.first_expiry_unix_s - now, 1.0))
        never = demand.nano_usd > most
        return Refused(
            limit=name, most=most, used=total, wanted=demand.nano_usd, retry_after_s=None if never else wait_s
        )
    return None


def _counted(seconds: Sequence[Second], at: int, *, requests: int, tokens: int) -> tuple[Second, ...]:
    found = {second[0]: second for second in seconds}
    _, before, before_tokens = found.get(at, (at, 0, 0))
    found[at] = (at, before + requests, before_tokens + tokens)
    return tuple(found[second] for second in sorted(found))


_WORDS: dict[LimitName, str] = {
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "day_nano_usd": "per day",
    "month_nano_usd": "per month",
}


def _amount(refused: Refused, amount: int) -> str:
    return f"${amount / 10**9:,.6g}" if refused.limit.endswith("usd") else f"{amount:,}"
