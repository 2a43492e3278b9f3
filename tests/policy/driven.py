"""Requests through policies without models: what a tier would say is given, and policies decide and learn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from corea.errors import TierSkipped
from corea.policy.base import Bar, Policy, View, settle
from corea.policy.thresholds import decide
from corea.types import Attempt, Confidence, Decision, Reason, Request, Trace

SMALL_NANO_USD, LARGE_NANO_USD = 1_000, 10_000


class Wall:
    """A clock that shows what it is told."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Driven:
    """A cascade of two. ``own``: the small tier's bar."""

    policies: Sequence[Policy]
    wall: Wall = field(default_factory=Wall)
    own: Bar = field(default_factory=lambda: Bar(threshold=0.5))
    certified: bool = False
    small_nano_usd: int | None = SMALL_NANO_USD
    large_nano_usd: int | None = LARGE_NANO_USD
    small_s: float = 1.0
    large_s: float = 3.0
    traces: list[Trace] = field(default_factory=list)

    def view(self, question: str = "6 × 7?", task: str | None = None) -> View:
        return View(
            request=Request.of(question, task=task),
            tier="small",
            own=self.own,
            certified=self.certified,
            elapsed_s=0.0,
            left_s=300.0,
        )

    def ask(self, sure: float | None, *, question: str = "6 × 7?", task: str | None = None) -> Trace:
        view = self.view(question, task)
        confidence = Confidence(value=sure, source="told", note=None if sure is not None else "not told")
        try:
            bar = settle(self.policies, view)
        except TierSkipped as exc:
            skipped = Decision(keep=False, reason=Reason.SKIPPED, policy=exc.policy)
            attempts = [Attempt(tier="small", model="s", decision=skipped, confidence=confidence, cost_nano_usd=0)]
        else:
            decision = decide(
                threshold=bar.threshold, tie_fraction=bar.tie_fraction, confidence=confidence, question=question
            )
            if bar.policy is not None:
                decision = replace(decision, policy=bar.policy, note=bar.note)
            attempts = [
                Attempt(
                    tier="small", model="s", decision=decision, confidence=confidence,
                    cost_nano_usd=self.small_nano_usd, latency_s=self.small_s,
                )
            ]  # fmt: skip
        if not attempts[0].decision.keep:
            last = Decision(keep=True, reason=Reason.LAST_TIER)
            unknown = Confidence.unknown("none", "not asked")
            attempts.append(
                Attempt(
                    tier="large", model="l", decision=last, confidence=unknown, cost_nano_usd=self.large_nano_usd,
                    latency_s=self.large_s,
                )
            )  # fmt: skip
        return self._done(view.request, attempts)

    def asked(self, n: int, rng: random.Random, *, for_s: float) -> list[Trace]:
        """So many, evenly over so many seconds, each as sure as the lot says."""
        start_s, before = self.wall.now_s, len(self.traces)
        for index in range(n):
            self.wall.now_s = start_s + for_s * index / n
            self.ask(rng.random(), question=str(index))
        self.wall.now_s = start_s + for_s
        return self.traces[before:]

    @property
    def spent_nano_usd(self) -> int:
        return sum(trace.cost_nano_usd or 0 for trace in self.traces)

    def _done(self, request: Request, attempts: Sequence[Attempt]) -> Trace:
        costs = [attempt.cost_nano_usd for attempt in attempts]
        trace = Trace(
            id=str(len(self.traces)),
            request=request,
            attempts=tuple(attempts),
            final=len(attempts) - 1,
            started_at_unix_s=self.wall.now_s,
            elapsed_s=sum(attempt.latency_s for attempt in attempts),
            cost_nano_usd=None if None in costs else sum(cost or 0 for cost in costs),
            baseline_nano_usd=self.large_nano_usd,
        )
        for policy in self.policies:
            policy.after(trace)
        self.traces.append(trace)
        return trace


def deferred(traces: Sequence[Trace]) -> float:
    """The share that the small tier did not answer."""
    return sum(trace.tier == "large" for trace in traces) / len(traces)
