"""Rows of the audit, and traces that lead to them."""

from __future__ import annotations

from typing import Any

from corea.audit.steps import Step
from corea.audit.watch import Plan
from corea.ledger.audits import AuditRow, State

PLAN = Plan(
    task=None, limit=0.05, min_propensity=0.5, measure="disagreement", steps=(Step(threshold=0.8), Step(threshold=0.9))
)


def row(number: int, state: State = "done", **more: Any) -> AuditRow:
    """``number`` is its place, and names its trace."""
    usual: dict[str, Any] = {
        "trace_id": f"t{number}", "task": "", "epoch": 0, "bar": 0.8, "propensity": 0.5, "day": 20_000,
        "asked_at_unix_s": 1.7e9, "place": number,
    }  # fmt: skip
    if state == "done":
        usual |= {"agrees": True}
    return AuditRow(**{**usual, "state": state, **more})
