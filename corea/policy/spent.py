"""What was spent and asked, hour by hour: all that a budget needs to know of the past. Knows no database.

:class:`corea.policy.hours.LedgerHours` reads it from the ledger, for all replicas together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from corea.types import Trace

HOUR_S = 3600
#: Hours that are worth knowing: eight days.
REMEMBERED_H = 8 * 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """Sums over an hour's requests. ``unknown``: how many of them cost what nobody knows; they are not in the sum."""

    requests: int = 0
    nano_usd: int = 0
    unknown: int = 0

    def __add__(self, other: Hour) -> Hour:
        return Hour(
            requests=self.requests + other.requests,
            nano_usd=self.nano_usd + other.nano_usd,
            unknown=self.unknown + other.unknown,
        )


class Spent(Protocol):
    """Both must be quick: they are on the way of every request."""

    def hours(self) -> Mapping[int, Hour]:
        """By hours since 1970, UTC: an hour that is not there had no request."""
        ...

    def note(self, trace: Trace) -> None:
        """A request of this process. It counts at once, even where the ledger does not have it yet."""
        ...


class Counted:
    """What this process asked and spent; forgotten when it ends."""

    def __init__(self) -> None:
        self._hours: dict[int, Hour] = {}

    def hours(self) -> Mapping[int, Hour]:
        return self._hours

    def note(self, trace: Trace) -> None:
        at, hour = hour_of(trace)
        self._hours[at] = self._hours.get(at, Hour()) + hour
        if len(self._hours) > REMEMBERED_H:
            del self._hours[min(self._hours)]


def hour_of(trace: Trace) -> tuple[int, Hour]:
    """The hour in which a request came, and what it adds to it."""
    at = int(trace.started_at_unix_s // HOUR_S)
    cost = trace.cost_nano_usd
    return at, Hour(requests=1, nano_usd=cost or 0, unknown=int(cost is None))
