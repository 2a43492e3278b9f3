"""A replay's results as JSON, and what must be said beside them. Computes nothing anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from corea.simulate.replay import Survey
from corea.simulate.tally import Result, Side

#: The share of the requests whose answer nobody judged from which on the bounds say little.
_MANY = 0.2


def as_json(results: Sequence[Result], notes: Sequence[str]) -> dict[str, Any]:
    """``total`` and ``tasks``, each with ``was``, ``would``, ``difference`` and ``coverage``; money in nano-USD."""
    total, *tasks = [_result(one) for one in results]
    del total["task"]
    return {"version": 1, "total": total, "tasks": tasks, "notes": list(notes)}


def notes_on(known: Survey, total: Result) -> list[str]:
    """What a reader could take amiss, one sentence or two each."""
    found = []
    cover = total.coverage
    if total.would.requests and len(known.fingerprints) > 1:
        found.append(
            f"models, prompts or thresholds changed within this traffic ({len(known.fingerprints)} configurations); "
            "--since and --until choose one of them"
        )
    if cover.estimated:
        found.append(
            f"what {cover.estimated:,} requests would cost at a tier they did not reach is estimated from those that "
            "reached it, which are harder ones; the interval does not cover that difference"
        )
    if cover.open:
        found.append(
            f"{cover.open:,} requests hang on what a tier that was not asked would have said (or on a text that is not "
            "stored): the ends of the interval hold both possibilities"
        )
    if cover.unknown:
        found.append(
            f"{cover.unknown:,} requests are in no sum as it would be: a cost is not recorded, or no request reached "
            "the tier that it would be learned from"
        )
    if cover.unguarded:
        found.append(
            f"the texts of {cover.unguarded:,} answers are not stored, so guards could not be asked about them; with "
            "[ledger] store_texts = true they can"
        )
    if total.would.drop.n and total.would.drop.unknown > _MANY * total.would.drop.n:
        found.append(
            f"nobody said whether the answers to {total.would.drop.unknown:,} requests are right, so both is counted: "
            "feedback makes the drop's bounds narrower"
        )
    return found


def _result(one: Result) -> dict[str, Any]:
    told = asdict(one)
    del told["all_tasks"]
    for name, side in (("was", one.was), ("would", one.would)):
        told[name] = _side(side)
    return told


def _side(side: Side) -> dict[str, Any]:
    return {**asdict(side), "saving": side.saving}
