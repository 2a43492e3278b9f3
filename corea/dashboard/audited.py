"""The audit's open alarms, for the dashboard. Knows where they are kept, and nothing of pages."""

from __future__ import annotations

from collections.abc import Sequence

from corea.dashboard.alarms import Alarm
from corea.ledger.audits import Source, list_alarms


class AuditAlarms:
    """Those that nobody has approved: always deferring is the graver one."""

    def __init__(self, ledger: Source) -> None:
        self._ledger = ledger

    def current(self) -> Sequence[Alarm]:
        found = [
            Alarm(
                name=row.name,
                task=row.task or None,
                since_unix_s=row.raised_at_unix_s,
                text=row.text,
                severity="critical" if row.step_after is None else "warning",
            )
            for row in list_alarms(self._ledger, only_open=True)
        ]
        return sorted(found, key=lambda alarm: (alarm.severity != "critical", -alarm.since_unix_s))
