"""The ledger's rows → what is known of each task, and which step is in force. A fold: no clock, no network, no model.

The rows are the truth, and every replica folds them in the order of their places, never past an audit that has not
ended. So a restart, or another replica, ends at the same numbers. Feedback that comes late changes a row that was
folded already; then all rows of the epoch are folded anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from corea.audit.harm import Between, disagreement, drop_between
from corea.audit.order import InOrder
from corea.audit.steps import ALWAYS_DEFER, Step
from corea.audit.watch import Alarm, Measure, Plan, Seen, Watch
from corea.ledger.audits import AlarmRow, AuditRow, epoch_of


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """By which step a task's questions are kept now. ``tightened``: an alarm is open, so it is not the certified one.

    ``bar``: the certified threshold's evidence is kept apart from that of another certificate by it.
    """

    plan: Plan
    epoch: int
    at_step: int

    @property
    def step(self) -> Step:
        steps = (*self.plan.steps, ALWAYS_DEFER)
        return steps[self.at_step]

    @property
    def tightened(self) -> bool:
        return self.at_step > 0

    @property
    def bar(self) -> float | None:
        return self.step.threshold


def in_force(plan: Plan, alarms: Iterable[AlarmRow]) -> InForce:
    """From all alarms of the plan's task, open and cleared."""
    rows = list(alarms)
    opened = [row for row in rows if row.cleared_at_unix_s is None]
    steps = (*plan.steps, ALWAYS_DEFER)
    at_step = 0
    for row in opened:
        wanted = Step(threshold=row.step_after)
        # The configuration may have changed since: then the first one that is as strict.
        at_step = max(at_step, next(i for i, step in enumerate(steps) if step.strictness >= wanted.strictness))
        # Never the certified one while an alarm is open, however strict a new certificate is.
        at_step = max(at_step, 1)
    return InForce(plan=plan, epoch=epoch_of(rows), at_step=at_step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A watch, and what of the ledger is in it: rows up to ``place``, so many, so often changed."""

    watch: Watch
    place: int = 0
    rows: int = 0
    changes: int = 0
    #: What rang, once; the watch itself goes on with the next epoch, which the ledger's rows are not of yet.
    rang: Alarm | None = None

    @classmethod
    def of(cls, now: InForce, *, min_propensity: float) -> Evidence:
        """Nothing known yet. ``min_propensity``: a row of an earlier configuration may have been drawn with less."""
        plan = replace(now.plan, min_propensity=min(now.plan.min_propensity, min_propensity))
        return cls(watch=replace(Watch.of(plan), epoch=now.epoch, at_step=now.at_step))

    def after(self, rows: Sequence[AuditRow]) -> Evidence:
        """With more rows, in order; as far as the first that has not ended, or up to an alarm."""
        queue: InOrder[AuditRow] = InOrder()
        for row in rows:
            queue.add(None if row.state == "running" else row)
        found = self
        for row in queue.ready():
            if found.rang is not None:
                break
            found = found._with(row)
        return found

    def _with(self, row: AuditRow) -> Evidence:
        after = self.watch.after(seen_of(row, self.watch.plan.measure))
        known = replace(
            self, place=row.place or self.place, rows=self.rows + 1, changes=self.changes + row.revision
        )  # fmt: skip
        if after.epoch != self.watch.epoch:
            return replace(known, rang=after.alarm)
        return replace(known, watch=after)


def seen_of(row: AuditRow, measure: Measure) -> Seen:
    """A row that has ended, as the watch takes it."""
    harm: Between | None = None
    if row.state in ("done", "failed", "lost"):
        right = row.was_right
        harm = drop_between(agrees=row.agrees, small_right=right) if measure == "drop" else disagreement(row.agrees)
    propensity = 0.0 if row.state == "paused" else row.propensity
    return Seen(
        propensity=propensity, harm=harm, at_unix_s=row.asked_at_unix_s, epoch=row.epoch, questions=row.questions
    )
