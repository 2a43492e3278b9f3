"""Finds that harm has risen, however long it was low before.

The evidence of :mod:`corea.audit.sequence` is about the mean since the beginning, which a long quiet time holds down.
So it is begun anew again and again, every start with its share of the risk:

    M = Σ wₛ ∏_{i ≥ s} (1 + bZᵢ)/(1 + b·limit),  mixed over the bets b,

where w is one half at the first question and falls like s^(−1.25) over the later starts, its sum at most 1. While the
harm of every question, given the past, is at most ``limit`` on average, M is below a martingale of mean 1: that it
*ever* reaches 1/δ has probability at most δ, without a horizon. (The Shiryaev–Roberts e-detector of Shin, Ramdas and
Rinaldo 2024, arXiv 2203.03532, weighs all starts alike and bounds the mean time between false alarms instead.) The
first start alone is the test of the lower bound at δ/2: once that bound has passed the limit, M has reached 1/δ.

Knows no tasks and no clock. Standard library only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from corea.audit.sequence import Bets, Scope, bets, log_sum

#: A new start after so many audited answers: sooner, and the starts share the risk thinly; later, and a change waits.
AUDITS_PER_START = 64
#: How fast the risk falls from start to start, and ζ(1.25) − 1 = Σ s^(−1.25) over s ≥ 2, rounded upwards.
_POWER, _SUM = 1.25, 3.5952


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A value; :meth:`after` makes the next one. ``logs``: for each bet, log Σ wₛ ∏ … over the starts so far."""

    bets: Bets
    limit: float
    logs: tuple[float, ...]
    audited: int = 0
    #: Questions whose division by 1 + b·limit is still to be done: it is the same for all, and waits for a value.
    waiting: int = 0

    @classmethod
    def of(cls, scope: Scope, limit: float) -> Detector:
        made = bets(scope.least, scope.min_propensity)
        return cls(bets=made, limit=limit, logs=(math.log(0.5),) * len(made.sizes))

    def after(self, value: float) -> Detector:
        """With one more audited answer; ``value``: its harm at the least ÷ its propensity."""
        audited = self.audited + 1
        starts = audited % AUDITS_PER_START == 0
        if not value and not starts:
            return replace(self, audited=audited, waiting=self.waiting + 1)
        logs = self._settled(value)
        if starts:
            begun = log_weight(audited // AUDITS_PER_START)
            logs = tuple(log_sum((log, begun)) for log in logs)
        return replace(self, logs=logs, audited=audited, waiting=0)

    def after_unaudited(self, questions: int = 1) -> Detector:
        return replace(self, waiting=self.waiting + questions)

    @property
    def log_e(self) -> float:
        """log M: an alarm at level δ once it has been log(1/δ)."""
        n = self.waiting
        each = zip(self.logs, self.bets.sizes, strict=True)
        return self.bets.mixed(log - n * math.log1p(bet * self.limit) for log, bet in each)

    def _settled(self, value: float) -> tuple[float, ...]:
        n = self.waiting + 1
        return tuple(
            log + math.log1p(bet * value) - n * math.log1p(bet * self.limit)
            for log, bet in zip(self.logs, self.bets.sizes, strict=True)
        )


def log_weight(start: int) -> float:
    """log wₛ of the start after ``start`` · :data:`AUDITS_PER_START` audited answers; of the first, one half."""
    if start == 0:
        return math.log(0.5)
    s = start + 1
    return -math.log(2 * _SUM) - _POWER * math.log(s)
