"""What a request may cost for the money to last: the rest of a window's budget ÷ the requests expected in its rest.

Windows are hours or days of UTC, so that all replicas, and a process that begins anew, have the same one. What was
spent belongs to the window in which its request came: a clock that goes back finds that window's money spent already,
and one that goes forward, however far, opens one new window. Pure: the clock is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corea.policy.spent import HOUR_S, Hour

#: Requests added to each hour of a profile: an hour without traffic so far may have some today.
_SMOOTHING = 1.0
#: How fast the level of traffic is forgotten, in halves a window.
_HALVES_PER_WINDOW = 12
#: A second: of a shorter time nobody can say how much traffic is usual in it.
_LEAST_H = 1 / HOUR_S
_EVENLY = (1.0,) * 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """``window`` is its first hour since 1970; ``passed``: which share of its time is over."""

    window: int
    passed: float
    spent_nano_usd: float
    left_nano_usd: float
    requests_left: float

    @property
    def per_request_nano_usd(self) -> float:
        """What is left for each request that is expected; nothing once all is spent."""
        return max(self.left_nano_usd, 0.0) / max(self.requests_left, 1.0)


def pace(
    hours: Mapping[int, Hour],
    *,
    now_s: float,
    budget_nano_usd: int,
    window_h: int,
    unknown_nano_usd: float,
    since_s: float = 0.0,
) -> Pace:
    """``unknown_nano_usd``: what a request is taken to cost of which nobody knows it; ``since_s``: watched since then.

    The requests to come are the level of traffic (those of the last hours ÷ those usual in such hours, halved in
    weight every twelfth of a window) × those usual in the hours left. What is usual at which hour of the day is learned
    from the days before; on the first day all hours are alike.
    """
    now_h = now_s / HOUR_S
    window = int(now_h) // window_h * window_h
    spent = sum(
        hour.nano_usd + hour.unknown * unknown_nano_usd
        for at, hour in hours.items()
        if window <= at < window + window_h
    )
    usual = profile(hours, int(now_h) // 24)
    level = _level(hours, now_h, usual, since_h=since_s / HOUR_S, half_h=window_h / _HALVES_PER_WINDOW)
    ahead = [min(at + 1, window + window_h) - max(at, now_h) for at in range(int(now_h), window + window_h)]
    usual_left = sum(width * usual[(int(now_h) + i) % 24] for i, width in enumerate(ahead))
    return Pace(
        window=window,
        passed=(now_h - window) / window_h,
        spent_nano_usd=spent,
        left_nano_usd=budget_nano_usd - spent,
        requests_left=level * usual_left,
    )


def profile(hours: Mapping[int, Hour], today: int) -> Sequence[float]:
    """How much traffic is usual at each hour of the day, 1 on average, from the days before; even without any."""
    sums = [0] * 24
    for at, hour in hours.items():
        if at // 24 < today:
            sums[at % 24] += hour.requests
    mean = sum(sums) / 24
    if mean == 0 or not any(at // 24 < today - 1 or at % 24 == 0 for at in hours if at // 24 < today):
        # Of a day that was not seen from its beginning nobody knows its shape.
        return _EVENLY
    return [(one + _SMOOTHING) / (mean + _SMOOTHING) for one in sums]


def _level(hours: Mapping[int, Hour], now_h: float, usual: Sequence[float], *, since_h: float, half_h: float) -> float:
    """Requests an hour ÷ those usual; 0 where none was seen."""
    past = [at for at in hours if at <= now_h]
    if not past:
        return 0.0
    first = min(past)
    # Watched since the middle of the first hour: the part of it before that says nothing.
    start_h = max(first, since_h) if int(since_h) == first else first
    seen = expected = 0.0
    for at in range(max(first, int(now_h) - 24), int(now_h) + 1):
        begin, end = max(at, start_h), min(at + 1, now_h)
        weight = 0.5 ** ((now_h - (begin + end) / 2) / half_h)
        requests = hours.get(at, Hour()).requests
        seen += weight * requests
        expected += weight * usual[at % 24] * max(end - begin, _LEAST_H if requests else 0.0)
    return seen / expected if expected > 0 else 0.0
