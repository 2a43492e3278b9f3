"""The ledger's audits and feedback → outcomes of both tiers, from which a new certificate can be proposed.

The questions are a fair sample of the traffic: those whose lot lies below the least share with which answers were
audited. Of the kept ones every such answer was audited, whatever its confidence; of the deferred ones both answers are
in the trace. So no weights are needed, and none are used. Nothing is left out because of what became of it: where
nobody knows who is right, the outcome is the worst that it can be. Only harm, gain, confidence and costs mean anything
in these outcomes; the models' accuracies do not.

Knows no files and changes nothing. Needs the extra ``evaluate``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from corea.config import Config
from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, SCHEMA, SIGNAL_COST, Outcomes
from corea.identity import shapes_of, signal_of
from corea.types import Reason

Known = Literal["exact", "agreed", "worst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """``exact``: feedback says who is right. ``agreed``: the same answer, so no harm and no gain. ``worst``: nobody
    knows, so it counts as harm. ``other``: left out, as asked of another configuration, without a text, or not asked
    of the small model because a policy said so."""

    outcomes: Outcomes
    signal: str
    exact: int
    agreed: int
    worst: int
    other: int


def gathered_outcomes(rows: Sequence[Mapping[str, Any]], config: Config, *, fingerprint: str) -> Gathered:
    """From :func:`corea.ledger.audits.fair_sample`. ``fingerprint``: of the configuration in force.

    Raises :class:`InputError` for a cascade that is not of two tiers, a ledger without texts, and for no rows.
    """
    if len(config.tiers) != 2:
        raise InputError("the ledger certifies two tiers; certify more as a whole with: corea eval ladder")
    if not config.ledger.store_texts or config.ledger.redact:
        raise InputError(
            "a certificate splits ties by the question's text, which this ledger does not keep as it was (store_texts, "
            "redact); certify outcomes of your own questions: corea eval run"
        )
    usable = [row for row in rows if row["fingerprint"] == fingerprint and row["messages"] and not _spared(row)]
    if not usable:
        raise InputError(
            f"none of {len(rows)} audited questions was asked of this configuration; wait for more, or certify "
            "outcomes of your own questions: corea eval run"
        )
    small, large = (tier.name for tier in config.tiers)
    signal = signal_of(config.tiers[0].confidence).split(":")[0]
    found = {"exact": 0, "agreed": 0, "worst": 0}
    lines: list[dict[str, Any]] = []
    for row in usable:
        small_right, large_right, known = judged(row)
        found[known] += 1
        shared = {
            "id": row["trace_id"], "task": row["request_task"], "kind": row["kind"],
            "question": row["messages"][-1]["content"],
        }  # fmt: skip
        of_small = {
            "correct": small_right,
            "text": row["text"],
            "finish_reason": row["finish_reason"],
            CONFIDENCE + signal: _confidence(row),
        }
        lines += [
            {**shared, **of_small, "tier": small, "cost_nano_usd": row["small_cost_nano_usd"], SIGNAL_COST + signal: 0},
            {**shared, "tier": large, "correct": large_right, "cost_nano_usd": row["large_cost_nano_usd"]},
        ]
    schema = pa.schema(
        [*SCHEMA, pa.field(CONFIDENCE + signal, pa.float64()), pa.field(SIGNAL_COST + signal, pa.int64())]
    )
    metadata = {
        "tiers": [small, large],
        "data_hash": _hash(lines),
        "samples": config.tiers[0].confidence.samples if signal == "self_consistency" else 0,
        "shapes": list(shapes_of(config).values()),
    }
    outcomes = Outcomes(table=pa.Table.from_pylist(lines, schema=schema), metadata=metadata)
    return Gathered(outcomes=outcomes, signal=signal, other=len(rows) - len(usable), **found)


def judged(row: Mapping[str, Any]) -> tuple[float, float, Known]:
    """Whether the small and the large answer are right, at worst: so that harm − gain is the most it can be.

    ``was_right`` is about the answer handed out: the small model's, or the large one's where the row was deferred. Of
    two different answers one at most is right.
    """
    agrees, told = row["agrees"], row["was_right"]
    if agrees:
        right = 1.0 if told is None else float(told)
        return right, right, "agreed" if told is None else "exact"
    if told is None:
        return 0.0, 1.0, "worst"
    if row["state"] == "deferred":
        # A wrong large answer leaves no room for harm, whatever the small one is.
        return 0.0, float(told), "exact"
    if not told:
        return 0.0, 1.0, "worst"
    return (1.0, 0.0, "exact") if agrees is False else (1.0, 1.0, "worst")


def _spared(row: Mapping[str, Any]) -> bool:
    """Whether a policy left the small model out: for a budget or a deadline, which say nothing about the question.

    A gate looks at the question, and is part of what is certified: what it leaves out is never kept.
    """
    return bool(row["reason"] == Reason.SKIPPED and row["policy"] != "gate")


def _confidence(row: Mapping[str, Any]) -> float | None:
    """None, as an answer that a guard objects to: it is never kept, however sure."""
    return None if row["reason"] == Reason.GUARDED else row["confidence"]


def _hash(lines: Sequence[Mapping[str, Any]]) -> str:
    said = "\n".join(f"{line['id']} {line['tier']} {line['correct']}" for line in lines)
    return hashlib.sha256(said.encode()).hexdigest()[:16]
