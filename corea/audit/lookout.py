"""What all replicas know, read from the ledger every few seconds: evidence, alarms, steps, what is lost and spent.

Blocks, so it is called in a thread. Time limits are of the monotonic clock: an audit is lost when *this* process has
seen it run for too long, whatever the wall clock does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from corea.audit.evidence import Evidence, InForce, in_force
from corea.audit.gathering import alarm_row, gathered
from corea.audit.harm import drop_between
from corea.audit.watch import Plan, Status
from corea.ledger import audits
from corea.ledger.audits import AlarmRow, Source
from corea.ledger.queries import HasEngine
from corea.ledger.spending import day_of

#: How much later than its deadline an audit counts as lost: its end may be waiting for the ledger.
LOST_AFTER_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the ledger says. ``rung``: alarms that this replica was the first to raise; ``lost``: audits given up."""

    rung: tuple[AlarmRow, ...]
    open: tuple[AlarmRow, ...]
    lost: int
    spent_nano_usd: int
    at_unix_s: float


def read_statuses(ledger: Source, plans: Iterable[Plan]) -> list[Status]:
    """Of each plan's watch, from the ledger alone: nothing is written and nothing rings."""
    alarms = audits.list_alarms(ledger)
    found = [in_force(plan, _of(plan, alarms)) for plan in plans]
    return [_status(gathered(ledger, now, None)) for now in found]


class Lookout:
    """The watches of all plans. :meth:`look` by one thread at a time; the others may be asked from any."""

    def __init__(
        self,
        ledger: HasEngine,
        plans: Sequence[Plan],
        *,
        deadline_s: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._plans = tuple(plans)
        self._lost_after_s = deadline_s + LOST_AFTER_S
        self._clock, self._wall_clock = clock, wall_clock
        self._steps: dict[str | None, InForce] = {plan.task: in_force(plan, ()) for plan in plans}
        self._evidence: dict[str | None, Evidence] = {}
        self._seen_running: dict[str, float] = {}

    def in_force(self, task: str | None) -> InForce | None:
        """The step for a question of this task, as of the last look; None where nobody watches it."""
        return self._steps.get(task) or self._steps.get(None)

    def statuses(self) -> list[Status]:
        """Of each watch, as of the last look."""
        found = [self._evidence.get(plan.task) for plan in self._plans]
        return [_status(evidence) for evidence in found if evidence is not None]

    def begin(self) -> Look:
        """The steps in force, by the alarms alone: quick, however much evidence there is. Raises LedgerError."""
        alarms = audits.list_alarms(self._ledger)
        self._steps = {plan.task: in_force(plan, _of(plan, alarms)) for plan in self._plans}
        return self._seen(rung=(), lost=0)

    def look(self, own: Iterable[str]) -> Look:
        """Reads all there is, and rings where that has to be. ``own``: trace ids of audits that this process runs.

        Raises :class:`LedgerError`.
        """
        lost = self._end_lost(own)
        self._hear_feedback()
        alarms = audits.list_alarms(self._ledger)
        rung = [row for plan in self._plans if (row := self._look_at(plan, alarms)) is not None]
        return self._seen(rung=tuple(rung), lost=lost)

    def _seen(self, *, rung: tuple[AlarmRow, ...], lost: int) -> Look:
        now = self._wall_clock()
        now = now if math.isfinite(now) else 0.0
        spent = audits.spent_nano_usd(self._ledger, day_of(now))
        opened = tuple(audits.list_alarms(self._ledger, only_open=True))
        return Look(rung=rung, open=opened, lost=lost, spent_nano_usd=spent, at_unix_s=now)

    def _look_at(self, plan: Plan, alarms: Iterable[AlarmRow]) -> AlarmRow | None:
        now = in_force(plan, _of(plan, alarms))
        self._steps[plan.task] = now
        evidence = gathered(self._ledger, now, self._evidence.get(plan.task))
        if evidence.rang is None:
            self._evidence[plan.task] = evidence
            return None
        row = alarm_row(evidence.rang, now, at_unix_s=self._wall_clock())
        first = audits.raise_alarm(self._ledger, row)
        now = in_force(plan, _of(plan, audits.list_alarms(self._ledger)))
        self._steps[plan.task] = now
        # Of the new epoch there is hardly anything yet: whatever rings there rings at the next look.
        self._evidence[plan.task] = Evidence.of(now, min_propensity=1.0)
        return row if first else None

    def _end_lost(self, own: Iterable[str]) -> int:
        now_s = self._clock()
        running = set(audits.running(self._ledger)).difference(own)
        self._seen_running = {id: self._seen_running.get(id, now_s) for id in running}
        over = [id for id, since_s in self._seen_running.items() if now_s - since_s >= self._lost_after_s]
        return audits.lose(self._ledger, over, at_unix_s=self._wall_clock()) if over else 0

    def _hear_feedback(self) -> None:
        """Sharpens the harm of audited answers; of deferred ones it tells of the large model's answer, and no harm."""
        judged = []
        for row in audits.take_feedback(self._ledger):
            if row.state == "deferred":
                judged.append(row)
                continue
            harm = drop_between(agrees=row.agrees, small_right=row.was_right)
            judged.append(replace(row, harm_least=harm.least, harm_most=harm.most))
        if judged:
            audits.judge(self._ledger, judged)


def _of(plan: Plan, alarms: Iterable[AlarmRow]) -> list[AlarmRow]:
    return [row for row in alarms if row.task == (plan.task or "")]


def _status(evidence: Evidence) -> Status:
    return replace(evidence.watch.status, state="alarm" if evidence.watch.at_step else "ok")
