"""Questions in the order in which their lots were drawn, as rows for the ledger. Knows no clock and no database.

What was not drawn is only counted, and one row stands for a whole run of it; so the ledger grows with the audits, not
with the traffic. A process that is killed loses the run after its last row, which makes harm look larger, not smaller.
"""

from __future__ import annotations

from dataclasses import replace

from corea.ledger.audits import AuditRow

#: A run that is longer gets a second row.
MAX_RUN = 100_000


class Book:
    """Rows of all watches that are not in the ledger yet."""

    def __init__(self) -> None:
        self._rows: list[AuditRow] = []
        #: The last row of each watch, while it is a run that may grow: its index.
        self._open: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def drawn(self) -> int:
        """Audits among the rows."""
        return sum(row.state == "running" for row in self._rows)

    def count(self, row: AuditRow) -> None:
        """One more question without an audit, like ``row``."""
        at = self._open.get(row.task)
        if at is not None and _alike(self._rows[at], row) and self._rows[at].questions < MAX_RUN:
            self._rows[at] = replace(row, questions=self._rows[at].questions + row.questions)
            return
        self._open[row.task] = len(self._rows)
        self._rows.append(row)

    def add(self, row: AuditRow) -> None:
        """A row of its own: it ends the run of its watch."""
        self._open.pop(row.task, None)
        self._rows.append(row)

    def take(self) -> list[AuditRow]:
        """All rows, in order; none are left."""
        rows, self._rows, self._open = self._rows, [], {}
        return rows

    def put_back(self, rows: list[AuditRow]) -> None:
        """They could not be written: before all others."""
        self._rows = rows + self._rows
        self._open = {task: at + len(rows) for task, at in self._open.items()}


def _alike(one: AuditRow, two: AuditRow) -> bool:
    return (one.state, one.epoch, one.bar) == (two.state, two.epoch, two.bar)
