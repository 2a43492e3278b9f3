"""What is watched of one task: its plan, the questions seen, the bounds, the alarm, and the step to fall back to.

A watch is a value, and what it knows is a fold over what was seen: replaying the ledger gives the same numbers. The
time is only written down, so a clock that jumps changes nothing. Knows not who audits, grades, rings and tightens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from corea.audit.detector import Detector
from corea.audit.harm import Between
from corea.audit.sequence import Bounds, HarmSequence, Scope
from corea.audit.steps import ALWAYS_DEFER, Step, ladder_of
from corea.errors import InputError

Measure = Literal["drop", "disagreement"]
State = Literal["ok", "alarm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is watched for one task; ``task=None``: for all that have no plan of their own.

    ``measure``: what harm is (:mod:`corea.audit.harm`). ``limit``: its mean over all questions that must not be passed,
    a certificate's ε or :func:`~corea.audit.harm.disagreement_limit`. ``delta``: the risk of a false alarm, ever, and
    that the bounds miss, ever. ``steps``: the certified one first.
    """

    task: str | None = None
    limit: float
    delta: float = 0.05
    min_propensity: float
    measure: Measure = "drop"
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1:
            raise InputError(f"a risk of {self.delta} is none; set delta above 0 and below 1")
        if not 0 <= self.limit < 1:
            raise InputError(f"a limit of {self.limit} is none; set it from 0 to below 1")
        self.scope  # noqa: B018 - refuses a propensity of 0
        if ladder_of(self.steps) != (*self.steps, ALWAYS_DEFER):
            raise InputError("always deferring is the last step by itself; leave it out of steps")

    @property
    def scope(self) -> Scope:
        least = -1.0 if self.measure == "drop" else 0.0
        return Scope(least=least, most=1.0, min_propensity=self.min_propensity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A question that came to its end: deferred, kept, or kept and audited; several alike where none was audited.

    ``propensity``: with which probability it was to be audited if kept; 0 while auditing was paused, for deferred ones
    too, and such questions are left out. ``harm=None``: not audited. An audit that failed is
    ``drop_between(agrees=None)``, never None. ``epoch``: that of the watch when the question was asked.
    """

    propensity: float
    harm: Between | None = None
    at_unix_s: float
    epoch: int = 0
    questions: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Harm has passed the limit, at risk δ of being wrong; ``tightened_to`` is the step in force from now on."""

    task: str | None
    epoch: int
    measure: Measure
    limit: float
    bounds: Bounds
    audited: int
    at_unix_s: float | None
    tightened_to: Step

    @property
    def message(self) -> str:
        """What happened and what to do, in a line."""
        now = "every question is deferred" if self.tightened_to.threshold is None else (
            f"answers are kept from a confidence of {self.tightened_to.threshold:.4g}"
        )  # fmt: skip
        return (
            f'task "{self.task or "all"}": {self.measure} has passed {100 * self.limit:.3g} % after {self.audited} '
            f"audited answers; {now}; look at them, certify again, or approve to go back"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a task stands. ``log_e``: the evidence that harm has passed the limit; log(1/δ) rings.

    ``bounds`` and ``audited`` are of this epoch: since the beginning, the last alarm or the last approval.
    """

    state: State
    task: str | None = None
    epoch: int = 0
    step: Step = ALWAYS_DEFER
    bounds: Bounds | None = None
    audited: int = 0
    #: Questions left out: while auditing was paused, and of an earlier epoch.
    paused: int = 0
    stale: int = 0
    log_e: float | None = None
    alarm: Alarm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Everything known of one task. A value; :meth:`after` makes the next one."""

    plan: Plan
    sequence: HarmSequence
    detector: Detector
    epoch: int = 0
    #: Index of the step in force, into the plan's and :data:`ALWAYS_DEFER` after them.
    at_step: int = 0
    paused: int = 0
    stale: int = 0
    #: The last one that nobody has approved yet.
    alarm: Alarm | None = None

    @classmethod
    def of(cls, plan: Plan) -> Watch:
        return cls(
            plan=plan, sequence=HarmSequence.of(plan.scope), detector=Detector.of(plan.scope, plan.limit),
        )  # fmt: skip

    @property
    def step(self) -> Step:
        return self.plan.steps[self.at_step] if self.at_step < len(self.plan.steps) else ALWAYS_DEFER

    def after(self, seen: Seen) -> Watch:
        """With one more question; where that sets off the alarm, the next step is in force and evidence begins anew.

        Raises :class:`InputError` for an audit that the plan's scope does not allow.
        """
        if seen.epoch != self.epoch:
            # Asked under another threshold: it says nothing about this one.
            return replace(self, stale=self.stale + seen.questions)
        if seen.harm is None and not seen.propensity > 0:
            return replace(self, paused=self.paused + seen.questions)
        if seen.harm is None:
            sequence = self.sequence.after_unaudited(seen.questions)
            return replace(self, sequence=sequence, detector=self.detector.after_unaudited(seen.questions))
        sequence = self.sequence.after(seen.harm.least, seen.harm.most, seen.propensity)
        detector = self.detector.after(seen.harm.least / seen.propensity)
        watch = replace(self, sequence=sequence, detector=detector)
        return watch._tightened(seen) if detector.log_e >= -math.log(self.plan.delta) else watch

    @property
    def status(self) -> Status:
        """Takes a quarter of a millisecond: the bounds are searched for."""
        return Status(
            state="ok" if self.alarm is None else "alarm", task=self.plan.task, epoch=self.epoch, step=self.step,
            bounds=self.sequence.bounds(self.plan.delta), audited=self.detector.audited, paused=self.paused,
            stale=self.stale, log_e=self.detector.log_e, alarm=self.alarm,
        )  # fmt: skip

    def _tightened(self, seen: Seen) -> Watch:
        at_step = min(self.at_step + 1, len(self.plan.steps))
        fresh = replace(Watch.of(self.plan), epoch=self.epoch + 1, at_step=at_step)
        alarm = Alarm(
            task=self.plan.task, epoch=self.epoch, measure=self.plan.measure, limit=self.plan.limit,
            bounds=self.sequence.bounds(self.plan.delta), audited=self.detector.audited,
            at_unix_s=seen.at_unix_s if math.isfinite(seen.at_unix_s) else None, tightened_to=fresh.step,
        )  # fmt: skip
        return replace(fresh, alarm=alarm)
