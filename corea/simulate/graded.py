"""Outcomes as traffic: every tier was asked every question and graded, so nothing of a replay is estimated.

Knows no policy. Needs corea[evaluate].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, REPLIES, SIGNAL_COST, Outcomes
from corea.simulate.traffic import Past
from corea.types import Attempt, Confidence, Decision, Message, Reason, Request, Trace, Usage

_UNUSED = ("gold", "domain")


def graded(outcomes: Outcomes, *, signal: str | None = None) -> tuple[list[Past], int]:
    """The questions that every tier answered, in the file's order, and how many others there are.

    ``signal``: the confidence that every tier but the last is judged by; the only one, where there is one. Raises
    :class:`InputError` for one that is not there, or none named of several.
    """
    chosen = signal_of(outcomes, signal)
    by_id: dict[str, dict[str, dict[str, Any]]] = {}
    for row in outcomes.table.drop_columns(
        [name for name in _UNUSED if name in outcomes.table.column_names]
    ).to_pylist():
        by_id.setdefault(row["id"], {})[row["tier"]] = row
    tiers = outcomes.tiers
    whole = (tried for tried in by_id.values() if all(t in tried and tried[t]["error"] is None for t in tiers))
    found = [_past([tried[tier] for tier in tiers], chosen, second) for second, tried in enumerate(whole)]
    if not found:
        raise InputError("no question was answered by all tiers; ask them with: corea eval run")
    return found, len(by_id) - len(found)


def signal_of(outcomes: Outcomes, signal: str | None) -> str:
    known = ", ".join(outcomes.signals) or "none"
    if signal is None and len(outcomes.signals) == 1:
        return outcomes.signals[0]
    if signal is None:
        raise InputError(f"the outcomes hold several confidence signals, or none ({known}); name one")
    if signal not in outcomes.signals:
        raise InputError(f"the outcomes hold no confidence signal {signal!r}; they hold: {known}")
    return signal


def reading_cost_nano_usd(row: Mapping[str, Any], signal: str) -> int | None:
    """What it costs to learn the confidence, beyond the reply; as in ``Pair.judged_by``."""
    if (told := row.get(SIGNAL_COST + signal)) is not None:
        return int(told)
    cost, replies = row["cost_nano_usd"], REPLIES.get(signal, 1.0)
    return 0 if replies == 1.0 else None if cost is None else round(cost * (replies - 1.0))


def _past(tried: list[dict[str, Any]], signal: str, second: int) -> Past:
    first, last = tried[0], len(tried) - 1
    question = next((row["question"] for row in tried if row["question"] is not None), first["id"])
    attempts = tuple(_attempt(row, signal, is_last=i == last) for i, row in enumerate(tried))
    costs = [attempt.cost_nano_usd for attempt in attempts]
    task = next((row["task"] for row in tried if row["task"] is not None), None)
    trace = Trace(
        id=first["id"],
        request=Request(messages=(Message(role="user", content=question),), task=task, kind=first["kind"]),
        attempts=attempts,
        final=last,
        started_at_unix_s=float(second),
        elapsed_s=sum(attempt.latency_s for attempt in attempts),
        cost_nano_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        baseline_nano_usd=attempts[last].cost_nano_usd,
    )
    return Past(trace=trace, right={row["tier"]: row["correct"] for row in tried})


def _attempt(row: Mapping[str, Any], signal: str, *, is_last: bool) -> Attempt:
    """The last tier is not asked how sure it is, nor billed for it. Tokens of a second turn are not in the file."""
    reading = 0 if is_last else reading_cost_nano_usd(row, signal)
    cost, value = row["cost_nano_usd"], None if is_last else row[CONFIDENCE + signal]
    decision = Decision(keep=False, reason=Reason.BELOW_THRESHOLD)
    if row["finish_reason"] == "length":
        decision = Decision(keep=False, reason=Reason.CUT_OFF)
    elif value is None:
        decision = Decision(keep=False, reason=Reason.UNKNOWN_CONFIDENCE)
    counted = row["prompt_tokens"] is not None and row["completion_tokens"] is not None
    return Attempt(
        tier=row["tier"],
        model=row["tier"],
        decision=Decision(keep=True, reason=Reason.LAST_TIER) if is_last else decision,
        confidence=Confidence(value=value, source="none" if is_last else signal),
        text=row["text"] or "",
        answer=row["answer"],
        finish_reason=row["finish_reason"],
        usage=_usage(row) if counted else None,
        confidence_usage=Usage() if reading == 0 else None,
        cost_nano_usd=None if cost is None or reading is None else cost + reading,
        latency_s=row["latency_s"] or 0.0,
    )


def _usage(row: Mapping[str, Any]) -> Usage:
    return Usage(prompt_tokens=row["prompt_tokens"], completion_tokens=row["completion_tokens"])
