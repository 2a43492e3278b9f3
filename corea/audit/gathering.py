"""Evidence from the ledger: what is new of it, or all of it where what was known has changed. Blocks."""

from __future__ import annotations

from dataclasses import replace

from corea.audit.evidence import Evidence, InForce
from corea.audit.watch import Alarm
from corea.errors import InputError
from corea.ledger import audits
from corea.ledger.audits import AlarmRow, Source

_PAGE = 5000


def gathered(ledger: Source, now: InForce, known: Evidence | None) -> Evidence:
    """Under the step in force. ``known``: what was gathered before, if that may be gone on with; :class:`LedgerError`.

    Always deferring keeps nothing, so of that there is no evidence.
    """
    if now.bar is None:
        return Evidence.of(now, min_propensity=1.0)
    if known is not None and known.rang is None and _goes_on(known, now) and not _has_changed(ledger, now, known):
        try:
            return _read_on(ledger, now, known)
        except InputError:
            # Another replica draws with less than any row so far: other bets, from the beginning.
            pass
    least = audits.least_propensity(ledger, task=now.plan.task or "", epoch=now.epoch, bar=now.bar)
    return _read_on(ledger, now, Evidence.of(now, min_propensity=1.0 if least is None else least))


def alarm_row(alarm: Alarm, now: InForce, *, at_unix_s: float) -> AlarmRow:
    """For the ledger. ``now``: the step under which it rang."""
    return AlarmRow(
        id=audits.new_alarm_id(),
        name=audits.NAME,
        task=alarm.task or "",
        epoch=alarm.epoch,
        raised_at_unix_s=at_unix_s,
        text=alarm.message,
        limit=alarm.limit,
        low=alarm.bounds.low,
        high=alarm.bounds.high,
        audited=alarm.audited,
        step_before=now.bar,
        step_after=alarm.tightened_to.threshold,
    )


def _read_on(ledger: Source, now: InForce, known: Evidence) -> Evidence:
    while True:
        rows = audits.read(
            ledger, task=now.plan.task or "", epoch=now.epoch, bar=now.bar or 0.0, after=known.place, limit=_PAGE
        )
        known = known.after(rows)
        # Less than a page, or one that is still running, or an alarm.
        if len(rows) < _PAGE or known.place != rows[-1].place or known.rang is not None:
            return known


def _goes_on(known: Evidence, now: InForce) -> bool:
    watch = known.watch
    plan = replace(watch.plan, min_propensity=now.plan.min_propensity)
    return (watch.epoch, watch.at_step, plan) == (now.epoch, now.at_step, now.plan)


def _has_changed(ledger: Source, now: InForce, known: Evidence) -> bool:
    """A row that was folded was judged since, or one appeared before it: places are given before they are seen."""
    found = audits.digest(
        ledger, task=now.plan.task or "", epoch=now.epoch, bar=now.bar or 0.0, upto=known.place
    )  # fmt: skip
    return found != (known.rows, known.changes)
