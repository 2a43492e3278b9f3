"""Intervals, the reliability diagram and the frontier, in plain Python: the gateway has no numpy. Knows no ledger.

All of it describes the requests at hand and promises nothing: certificates do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

_Z = 1.959963984540054
BINS = 10
#: Points of a frontier at most; a curve of 400 pixels shows no more.
_POINTS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of ``n`` with its 95 % interval (Wilson 1927)."""

    value: float
    low: float
    high: float
    n: int


def rate(right: float, n: int) -> Rate | None:
    """``right`` may be a fraction, where a judge was not sure. None of nothing."""
    if not n:
        return None
    p = right / n
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * sqrt(max(p * (1 - p), 0.0) / n + _Z**2 / (4 * n**2))
    # At 0 and 1 the interval ends there exactly; sums of floats may end a hair beyond.
    return Rate(value=p, low=min(max(centre - half, 0.0), p), high=max(min(centre + half, 1.0), p), n=n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """An attempt of which it is known how right it was. ``told``: by feedback on this very answer; else it follows
    from another tier's answer, which is known more often where the two agree."""

    confidence: float
    correct: float
    told: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Attempts whose confidence lies in [low_edge, high_edge), the last bin with 1."""

    low_edge: float
    high_edge: float
    confidence: float
    right: Rate
    told: bool


def reliability(judgements: Sequence[Judgement]) -> list[Bin]:
    """Bins that hold any, the least confident first; those told and those that follow apart."""
    found: list[Bin] = []
    for i in range(BINS):
        for told in (True, False):
            inside = [one for one in judgements if one.told is told and min(int(one.confidence * BINS), BINS - 1) == i]
            right = rate(sum(one.correct for one in inside), len(inside))
            if right is not None:
                mean = sum(one.confidence for one in inside) / len(inside)
                found.append(Bin(low_edge=i / BINS, high_edge=(i + 1) / BINS, confidence=mean, right=right, told=told))
    return found


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """ECE over the bins that were told of; None where there is none."""
    told = [one for one in bins if one.told]
    n = sum(one.right.n for one in told)
    return sum(one.right.n * abs(one.confidence - one.right.value) for one in told) / n if n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as the first tier saw it. ``confidence`` is None where it deferred whatever the threshold.

    ``kept_nano_usd``: what it costs if kept there; ``deferred_nano_usd``: if deferred; ``alone_nano_usd``: of the last
    tier alone.
    """

    confidence: float | None
    kept_nano_usd: int
    deferred_nano_usd: int
    alone_nano_usd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a threshold would have done: share kept and saving over all requests, accuracy over the judged kept ones.

    ``told``: every judgement is of an answer that was handed out.
    """

    threshold: float
    kept: float
    saving: float | None
    right: Rate
    told: bool


def frontier(asked: Sequence[Asked], judgements: Sequence[Judgement], *, least: int) -> list[Point]:
    """Points at thresholds spread evenly over the confidences, strictest first, with ``least`` judgements or more."""
    known = sorted((one.confidence for one in asked if one.confidence is not None), reverse=True)
    alone = sum(one.alone_nano_usd for one in asked)
    found: list[Point] = []
    for threshold in _spread(known):
        judged = [one for one in judgements if one.confidence >= threshold]
        right = rate(sum(one.correct for one in judged), len(judged))
        if right is None or right.n < least:
            continue
        kept = [one.confidence is not None and one.confidence >= threshold for one in asked]
        costs = [
            one.kept_nano_usd if is_kept else one.deferred_nano_usd for one, is_kept in zip(asked, kept, strict=True)
        ]
        found.append(
            Point(
                threshold=threshold,
                kept=sum(kept) / len(asked),
                saving=1 - sum(costs) / alone if alone else None,
                right=right,
                told=all(one.told for one in judged),
            )
        )
    return found


def _spread(descending: Sequence[float]) -> list[float]:
    """At most so many different values, evenly by rank, the first and the last among them."""
    if not descending:
        return []
    last = len(descending) - 1
    places = sorted({round(i * last / (_POINTS - 1)) for i in range(_POINTS)})
    return list(dict.fromkeys(descending[place] for place in places))
