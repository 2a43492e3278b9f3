"""Who decides, in a replay: what was decided then, other thresholds, certificates, or policies.

Knows no money and no ledger. A decider never sees what a tier answered before it has decided whether to ask it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from corea.errors import TierSkipped
from corea.policy.base import Bar, Policies, View, settle
from corea.policy.certificate import Certificate
from corea.simulate.traffic import Past
from corea.types import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Leave the tier out, or keep what reaches ``threshold``; of what just reaches it, the share ``tie_fraction``."""

    skip: bool = False
    threshold: float = 0.0
    tie_fraction: float = 1.0


class Clock:
    """Shows the time it was last set to; for whatever takes a clock. It never goes back."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, to_s: float) -> None:
        self.now_s = max(self.now_s, to_s)


class Decider(Protocol):
    """Asked for every tier but the last, in order, before it is known what the tier says."""

    def decide(self, past: Past, tier: str) -> Choice | None:
        """None: as it was decided then."""
        ...

    def observe(self, trace: Trace) -> None:
        """The request as it would have gone, its costs estimated where they are not recorded."""
        ...


class AsRecorded:
    """What was decided then."""

    def decide(self, past: Past, tier: str) -> Choice | None:
        return None

    def observe(self, trace: Trace) -> None:
        """Nothing is learned."""


class AlwaysLast:
    """The last tier answers everything, and no other one is asked."""

    def decide(self, past: Past, tier: str) -> Choice | None:
        return Choice(skip=True)

    def observe(self, trace: Trace) -> None:
        """Nothing is learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Thresholds and certificates by tier; a tier that has neither is decided ``otherwise``, by default as it was."""

    thresholds: Mapping[str, float] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    otherwise: Decider = field(default_factory=AsRecorded)

    def decide(self, past: Past, tier: str) -> Choice | None:
        if tier in self.thresholds:
            return Choice(threshold=self.thresholds[tier])
        if tier not in self.certificates:
            return self.otherwise.decide(past, tier)
        certified = self.certificates[tier].for_task(past.trace.request.task)
        if certified is None or certified.threshold is None:
            return Choice(skip=True)
        return Choice(threshold=certified.threshold, tie_fraction=certified.tie_fraction)

    def observe(self, trace: Trace) -> None:
        """Nothing is learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPolicies:
    """Policies over ``own``, which gives each tier's own bar; ``advance`` sets the clock that the policies read.

    A tier whose own bar is not known, because it was not asked, is decided as it was. Requests are taken one after
    another, each over before the next begins. A second signal is not recorded, so a policy that wants one is taken
    without it.
    """

    policies: Policies
    own: Decider = field(default_factory=AsRecorded)
    advance: Callable[[float], object] = lambda unix_s: None

    def decide(self, past: Past, tier: str) -> Choice | None:
        choice = self.own.decide(past, tier) or _recorded(past, tier)
        if choice is None or choice.skip:
            return choice
        self.advance(past.trace.started_at_unix_s)
        view = View(
            request=past.trace.request,
            tier=tier,
            own=Bar(threshold=choice.threshold, tie_fraction=choice.tie_fraction),
            certified=isinstance(self.own, Fixed) and tier in self.own.certificates,
            elapsed_s=0.0,
            left_s=math.inf,
        )
        try:
            bar = settle(self.policies.of(past.trace.request), view)
        except TierSkipped:
            return Choice(skip=True)
        return Choice(threshold=bar.threshold or 0.0, tie_fraction=bar.tie_fraction)

    def observe(self, trace: Trace) -> None:
        for policy in self.policies.of(trace.request):
            policy.after(trace)


def _recorded(past: Past, tier: str) -> Choice | None:
    """The threshold that was in force. How ties were split is not recorded: they are all kept."""
    attempt = next((attempt for attempt in past.attempts if attempt.tier == tier), None)
    if attempt is None or attempt.decision.threshold is None:
        return None
    return Choice(threshold=attempt.decision.threshold)
