"""Where traces are kept: SQLite by default, PostgreSQL by URL.

Names load on first use: ``import corea.ledger`` and ``corea.ledger.ids`` never import SQLAlchemy, the rest does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corea.ledger.database import reading
    from corea.ledger.feedback import outcomes
    from corea.ledger.ids import new_trace_id
    from corea.ledger.queries import Totals, TraceRow, get_trace, list_traces, totals
    from corea.ledger.retention import prune
    from corea.ledger.rollups import Summary, roll_up, summary
    from corea.ledger.writer import Ledger

__all__ = [
    "Ledger",
    "Summary",
    "Totals",
    "TraceRow",
    "get_trace",
    "list_traces",
    "new_trace_id",
    "outcomes",
    "prune",
    "reading",
    "roll_up",
    "summary",
    "totals",
]

_HOMES = {
    "Ledger": "corea.ledger.writer",
    "Summary": "corea.ledger.rollups",
    "Totals": "corea.ledger.queries",
    "TraceRow": "corea.ledger.queries",
    "get_trace": "corea.ledger.queries",
    "list_traces": "corea.ledger.queries",
    "new_trace_id": "corea.ledger.ids",
    "outcomes": "corea.ledger.feedback",
    "prune": "corea.ledger.retention",
    "reading": "corea.ledger.database",
    "roll_up": "corea.ledger.rollups",
    "summary": "corea.ledger.rollups",
    "totals": "corea.ledger.queries",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'corea.ledger' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
