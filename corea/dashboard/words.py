"""Figures in a form for people: money, shares, times. Knows no HTML and no ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import floor, log10

UNKNOWN = "–"
#: A narrow no-break space, between a number and its unit.
_UNIT = "\u202f"
_SHORT = ((1e9, "G"), (1e6, "M"), (1e4, "k"))


def money(nano_usd: float | None) -> str:
    """``$12.30``, ``$0.0123``: cents from a dollar on, else three significant digits."""
    if nano_usd is None:
        return UNKNOWN
    usd = abs(nano_usd) / 1e9
    digits = 2 if usd >= 1 or not usd else min(2 - floor(log10(usd)), 9)
    return f"{'−' if nano_usd < 0 else ''}${usd:,.{digits}f}"


def dollars(nano_usd: Sequence[float | None]) -> list[str]:
    """A column of money with as many decimals for all: four digits of the largest count."""
    most = max((abs(one) / 1e9 for one in nano_usd if one is not None), default=0.0)
    digits = min(max(3 - floor(log10(most)), 2), 9) if most else 2
    return [UNKNOWN if one is None else f"{'−' if one < 0 else ''}${abs(one) / 1e9:,.{digits}f}" for one in nano_usd]


def share(value: float | None, digits: int = 1) -> str:
    """``63.3 %``."""
    if value is None:
        return UNKNOWN
    return f"{100 * value:.{digits}f}{_UNIT}%".replace("-", "−")


def between(low: float, high: float) -> str:
    """An interval of shares, in %: ``42.7–53.6``, never broken over two lines."""
    return f"{100 * low:.1f}\u2060–\u2060{100 * high:.1f}"


def points(value: float) -> str:
    """A share as an axis says it: ``60``."""
    return f"{100 * value:.1f}".removesuffix(".0").replace("-", "−")


def count(value: int) -> str:
    return f"{value:,}"


def short(value: float) -> str:
    """A count for an axis: ``1,200``, ``12k``."""
    for size, unit in _SHORT:
        if abs(value) >= size:
            scale = 1e3 if unit == "k" else size
            return f"{value / scale:.1f}".removesuffix(".0") + unit
    return f"{value:,.1f}".removesuffix(".0")


def counted(value: int, noun: str) -> str:
    """``1 request``, ``1,810 requests``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"


def seconds(value: float | None) -> str:
    """``320 ms``, ``1.4 s``, ``71 s``."""
    if value is None:
        return UNKNOWN
    if value < 1:
        return f"{1000 * value:.0f}{_UNIT}ms"
    return f"{value:.1f}{_UNIT}s" if value < 10 else f"{value:,.0f}{_UNIT}s"


def number(value: float | None) -> str:
    """A confidence or a threshold: up to four digits, all of which count, so none is rounded across an edge."""
    return UNKNOWN if value is None else f"{value:.4f}".rstrip("0").rstrip(".") or "0"


def when(unix_s: float) -> str:
    """``2026-11-25 08:00:03``, UTC."""
    return _time(unix_s).strftime("%Y-%m-%d %H:%M:%S")


def iso(unix_s: float) -> str:
    return _time(unix_s).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def day(unix_s: float) -> str:
    at = _time(unix_s)
    return f"{at.day} {at:%b}"


def hour(unix_s: float) -> str:
    return _time(unix_s).strftime("%H:%M")


def clipped(text: str, most: int) -> str:
    """On one line, at most so many characters."""
    # Not split() of the whole: a prompt may have megabytes.
    flat = " ".join(text[: 4 * most].split())
    return flat if len(flat) <= most and len(text) <= 4 * most else flat[: most - 1].rstrip() + "…"


def _time(unix_s: float) -> datetime:
    return datetime.fromtimestamp(min(max(unix_s, 0.0), 2.5e11), UTC)
