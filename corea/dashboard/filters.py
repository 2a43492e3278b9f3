"""Which requests a page is about, as its address says. Knows neither the ledger nor HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args
from urllib.parse import urlencode

from corea.errors import InputError

Dimension = Literal["task", "key", "profile", "route"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
Outcome = Literal["kept", "deferred", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
#: In an address, "" means any, so that a form with nothing chosen asks for everything.
NONE = "(none)"

HOUR_S, DAY_S = 3600, 86_400
#: Name, what it is called, seconds.
PERIODS: Mapping[str, tuple[str, int | None]] = {
    "24h": ("24 hours", DAY_S),
    "7d": ("7 days", 7 * DAY_S),
    "30d": ("30 days", 30 * DAY_S),
    "90d": ("90 days", 90 * DAY_S),
    "all": ("All time", None),
}
DEFAULT_PERIOD = "7d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """None is any; "" is none, e.g. requests without a task. ``route``: the tier whose answer was handed out."""

    period: str = DEFAULT_PERIOD
    task: str | None = None
    key: str | None = None
    profile: str | None = None
    route: str | None = None
    outcome: Outcome | None = None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Filters:
        """Raises :class:`InputError` for a period or an outcome that does not exist."""
        period, outcome = query.get("period") or DEFAULT_PERIOD, query.get("outcome") or None
        if period not in PERIODS:
            raise InputError(f"there is no such period; there are: {', '.join(PERIODS)}")
        if outcome is not None and outcome not in OUTCOMES:
            raise InputError(f"there is no such outcome; there are: {', '.join(OUTCOMES)}")
        told = {name: query.get(name) or None for name in DIMENSIONS}
        chosen = {name: "" if value == NONE else value for name, value in told.items()}
        return cls(period=period, outcome=outcome, **chosen)

    def since_unix_s(self, now_unix_s: float) -> int | None:
        """The beginning of the hour in which the period begins, as the sums are of whole hours."""
        length_s = PERIODS[self.period][1]
        return None if length_s is None else max(int(now_unix_s - length_s), 0) // HOUR_S * HOUR_S

    def value(self, dimension: Dimension) -> str | None:
        return cast("str | None", getattr(self, dimension))

    def having(self, dimension: Dimension, value: str | None) -> Filters:
        changed: dict[str, Any] = {dimension: value}
        return replace(self, **changed)

    @property
    def narrow(self) -> bool:
        """Whether anything but the period is chosen."""
        return self.outcome is not None or any(self.value(name) is not None for name in DIMENSIONS)

    def query(self, **more: str) -> str:
        """``?period=…``, or nothing where all is as by default."""
        told: dict[str, str] = {} if self.period == DEFAULT_PERIOD else {"period": self.period}
        told |= {str(name): value or NONE for name in DIMENSIONS if (value := self.value(name)) is not None}
        if self.outcome is not None:
            told["outcome"] = self.outcome
        told |= more
        return f"?{urlencode(told, errors='replace')}" if told else ""
