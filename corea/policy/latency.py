"""A target for the 95th percentile of answering times, from live measurements: skip a tier, keep more of it, or hedge.

A cascade is late where a tier's answer is deferred and the rest takes long. What the last requests took says how often
that would be so, with the tier and without it. Leaving it out costs money and no accuracy. Keeping more costs accuracy,
and a certificate forbids it, so it is only done where leaving out does not help: the rest alone is too slow.

Another cause is a tier that once in a while is slow itself. There the next one is asked beside it (a hedge: Dean and
Barroso, "The Tail at Scale", CACM 2013): at the last moment that leaves the rest time enough, but not before nine in
ten answers of the tier are there. Who is first wins; the other is stopped, and its cost may stay unknown. At most one
request in twenty is hedged, or an overload would be doubled. Knows no clock: traces say how long attempts took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from corea.policy.base import Bar, Hedge, View, skipped
from corea.policy.recent import Recent
from corea.policy.thresholds import OUTRUN
from corea.types import Attempt, Reason, Trace

Means = Literal["skip", "keep", "hedge"]

#: Of all requests, so many may be late; a little less is aimed at.
LATE, _AIM = 0.05, 0.04
#: How much one late request changes what is planned for, and how far that may go.
_STEP, _LEAST_AIM, _MOST_AIM = 0.02, -0.05, 0.06
_REMEMBERED, _LEAST = 128, 30
#: Of all requests, so many may be hedged; and how many of those that were not may be made up for at once.
HEDGED, _MADE_UP = 0.05, 2.0
#: Times of a tier that those of the rest are added to.
_SAMPLED = 32
#: So many are asked in any case, or it would never be seen that a tier is quick again.
_PROBES = 0.02
#: So many of a tier's answers are there before anything is hedged. Not as many as make up a whole twentieth: a few more
#: slow ones than that would hide themselves.
_USUAL = 0.9
#: What of a target is kept in hand: what is begun at the last moment is late by a hair.
_SPARE = 0.1
#: Where the rest would be too late so often, a hedge is not worth its money.
_HOPELESS = 0.5
_UNASKED = frozenset({Reason.SKIPPED, Reason.NOT_CERTIFIED})
_JUDGED = frozenset({Reason.CONFIDENT, Reason.BELOW_THRESHOLD, Reason.TIED})


@dataclass(slots=True, kw_only=True)
class _Tier:
    """Seconds of its own attempts, and of all that came after one that was deferred."""

    own_s: Recent = field(default_factory=lambda: Recent(_REMEMBERED))
    rest_s: Recent = field(default_factory=lambda: Recent(_REMEMBERED))
    #: Confidences; below 0 where no threshold would keep the answer.
    sure: Recent = field(default_factory=lambda: Recent(_REMEMBERED))
    #: What of a whole request is owed to those that are to leave it out.
    owed: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Odds:
    """Probabilities of being late: kept by the tier, deferred by it, not asked at all; and the share deferred."""

    kept: float
    deferred: float
    without: float
    share_deferred: float

    @property
    def as_it_is(self) -> float:
        return (1 - self.share_deferred) * self.kept + self.share_deferred * self.deferred


class Latency:
    """``p95_s``: of whole requests, from the cascade's first attempt. ``tiers``: names, the last one too."""

    name = "latency"

    def __init__(self, *, p95_s: float, tiers: Sequence[str], means: Sequence[Means] = ("skip", "keep")) -> None:
        self.p95_s = p95_s
        self._means = frozenset(means)
        self._tiers = {tier: _Tier() for tier in tiers[:-1]}
        self._elapsed_s = Recent(_REMEMBERED)
        self._aim = _AIM
        self._hedges_left = 0.0
        #: Hedges begun, and those that were wanted but would have been too many.
        self.hedges = self.refused_hedges = 0

    @property
    def may_hedge(self) -> bool:
        return "hedge" in self._means

    @property
    def measured_p95_s(self) -> float | None:
        """Of the last requests; None of none."""
        return self._elapsed_s.quantile(1 - LATE)

    @property
    def late(self) -> float:
        """The share of the last requests that took longer than they should."""
        return self._elapsed_s.share_above(self.p95_s)

    def before(self, view: View, bar: Bar) -> Bar:
        tier = self._tiers.get(view.tier)
        if tier is None or bar.threshold is None or min(len(tier.own_s), len(tier.rest_s)) < _LEAST:
            return bar
        target_s, aim = self.p95_s - view.elapsed_s, self._aim
        odds = _odds(tier, target_s, bar.threshold)
        bar = self._hedged(tier, target_s, bar)
        if odds.as_it_is <= aim:
            return bar
        if "skip" in self._means and odds.without < odds.as_it_is and self._leaves_out(odds):
            share = (odds.as_it_is - aim) / (odds.as_it_is - odds.without)
            return self._left_out(tier, view, bar, min(share, 1 - _PROBES))
        if "keep" in self._means and odds.kept < odds.deferred:
            return self._lowered(tier, bar, odds, aim)
        return bar

    def after(self, trace: Trace) -> None:
        self._hedges_left = min(self._hedges_left + HEDGED, _MADE_UP)
        if trace.final is None:
            return
        self._elapsed_s.add(trace.elapsed_s)
        late = float(trace.elapsed_s > self.p95_s)
        self._aim = min(max(self._aim + _STEP * (_AIM - late), _LEAST_AIM), _MOST_AIM)
        for index, attempt in enumerate(trace.attempts):
            if (tier := self._tiers.get(attempt.tier)) is not None:
                _learn(tier, attempt, trace.attempts[index + 1 :])

    def _hedged(self, tier: _Tier, target_s: float, bar: Bar) -> Bar:
        """With the next tier asked too, where this one is slower than it usually is and the rest would still help."""
        own_s, rest_s = tier.own_s.quantile(_USUAL), tier.rest_s.quantile(1 - LATE)
        if not self.may_hedge or own_s is None or rest_s is None:
            return bar
        after_s = max(own_s, (1 - _SPARE) * target_s - rest_s)
        if tier.rest_s.share_above(target_s - after_s) > _HOPELESS:
            return bar
        return replace(bar, hedge=Hedge(after_s=after_s, allowed=self._allows_hedge, policy=self.name))

    def _allows_hedge(self) -> bool:
        if self._hedges_left < 1:
            self.refused_hedges += 1
            return False
        self._hedges_left -= 1
        self.hedges += 1
        return True

    def _leaves_out(self, odds: _Odds) -> bool:
        """Whether to leave the tier out rather than keep more: where that is enough, and where it is the better one."""
        return "keep" not in self._means or odds.without <= max(LATE, odds.kept)

    def _left_out(self, tier: _Tier, view: View, bar: Bar, share: float) -> Bar:
        tier.owed += max(share, 0.0)
        if tier.owed < 1:
            return bar
        tier.owed -= 1
        raise skipped(self.name, view.tier, f"with it, more than one in twenty would take over {self.p95_s:.4g} s")

    def _lowered(self, tier: _Tier, bar: Bar, odds: _Odds, aim: float) -> Bar:
        share = (aim - odds.kept) / (odds.deferred - odds.kept)
        threshold = tier.sure.quantile(max(share, _PROBES))
        if threshold is None or bar.threshold is None or threshold >= bar.threshold:
            return bar
        note = f"more than one in twenty would take over {self.p95_s:.4g} s, if as many were deferred"
        return replace(bar, threshold=max(threshold, 0.0), tie_fraction=1.0, note=note)


def _odds(tier: _Tier, target_s: float, threshold: float) -> _Odds:
    """The tier's time and that of the rest are taken to be independent."""
    own_s = list(tier.own_s)[:: max(1, len(tier.own_s) // _SAMPLED)]
    deferred = sum(tier.rest_s.share_above(target_s - one) for one in own_s) / len(own_s)
    return _Odds(
        kept=tier.own_s.share_above(target_s),
        deferred=deferred,
        without=tier.rest_s.share_above(target_s),
        share_deferred=tier.sure.share_below(threshold),
    )


def _learn(tier: _Tier, attempt: Attempt, later: Sequence[Attempt]) -> None:
    if _is_outrun(attempt):
        # It took longer, nobody knows how much: still among the slowest.
        tier.own_s.add(attempt.latency_s)
    elif attempt.decision.reason not in _UNASKED:
        tier.own_s.add(attempt.latency_s)
        value = attempt.confidence.value
        tier.sure.add(value if value is not None and attempt.decision.reason in _JUDGED else -1.0)
    if later and not attempt.decision.keep:
        tier.rest_s.add(sum(one.latency_s for one in later))


def _is_outrun(attempt: Attempt) -> bool:
    return attempt.failure is not None and attempt.failure.kind == OUTRUN
