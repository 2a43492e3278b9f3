"""Outcomes as a cascade with guards sees them: an answer that a guard objects to is of unknown confidence.

Guards defer more, which can cost gains as well as harm, so a certificate is made with those that will be in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc

from corea.confidence.protocol import parse
from corea.evaluate.outcomes import Outcomes, Pair
from corea.guards.base import Guard, Judged
from corea.guards.registry import first_objection, labels

_JUDGED = ["id", "question", "kind", "text", "finish_reason"]


def guarded(pair: Pair, outcomes: Outcomes, guards: Sequence[Guard]) -> Pair:
    """The pair without the confidence of answers that a guard objects to; ``Pair.guards`` says which were asked.

    Outcomes without the replies' texts, as foreign ones often are, cannot be judged: then none was asked.
    """
    rows = outcomes.table.filter(pc.equal(outcomes.table["tier"], pair.small)).select(_JUDGED)
    rows = rows.filter(pc.is_valid(rows["text"]))
    by_id = {row["id"]: row for row in rows.to_pylist()} if guards else {}
    if not guards or any(id not in by_id for id in pair.ids):
        return pair
    objected = np.array([_objected(by_id[id], guards) for id in pair.ids], dtype=bool)
    confidence = {signal: np.where(objected, np.nan, stated) for signal, stated in pair.confidence.items()}
    return replace(pair, confidence=confidence, guards=labels(guards))


def _objected(row: dict[str, str | None], guards: Sequence[Guard]) -> bool:
    """Confidence is left out: where it is missing, nothing is kept anyway."""
    text, kind = row["text"] or "", row["kind"]
    judged = Judged(
        question=row["question"] or "",
        text=text,
        answer=parse(text, kind).answer,  # type: ignore[arg-type]
        kind=kind,  # type: ignore[arg-type]
        finish_reason=row["finish_reason"],
    )
    return first_objection(guards, judged) is not None
