"""Where traces are kept: SQLite by default, PostgreSQL by URL.

Names load on first use: ``import corea.ledger`` and ``corea.ledger.ids`` never import SQLAlchemy, the rest does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corea.ledger.database import reading
    from corea.ledger.ids import new_trace_id
    from corea.ledger.queries import Totals, TraceRow, get_trace, list_traces, totals
    from corea.ledger.writer import Ledger

__all__ = ["Ledger", "Totals", "TraceRow", "get_trace", "list_traces", "new_trace_id", "reading", "totals"]

_HOMES = {
    "Ledger": "corea.ledger.writer",
    "Totals": "corea.ledger.queries",
    "TraceRow": "corea.ledger.queries",
    "get_trace": "corea.ledger.queries",
    "list_traces": "corea.ledger.queries",
    "new_trace_id": "corea.ledger.ids",
    "reading": "corea.ledger.database",
    "totals": "corea.ledger.queries",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'corea.ledger' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
