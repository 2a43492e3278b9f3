"""cascadeflow: its package, the confidence estimator and the validator that accepts a draft.

It reads the question and the small model's reply, so it is run where replies are at hand. It would take the tokens'
log-probabilities too, half of its weight; outcomes hold only their mean, so it goes without, as it does with providers
that give none. "As shipped" accepts what its validator passes with the thresholds that its agent uses by default; a
second row lets the naive rule set a threshold on its confidence. It promises nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.certify_public import Floats
from bench.peers.cases import Bools, Questions
from bench.peers.decisions import Ask, Decisions, tuned
from bench.peers.environments import Package

PACKAGE = Package(name="cascadeflow", version="1.2.0", others=("pydantic==2.14.4", "httpx==0.28.1", "tiktoken==0.14.0"))
SHIPPED, TUNED = "cascadeflow, as shipped", "cascadeflow's confidence, naive threshold"


def decided(questions: list[Questions], calibration: Mapping[str, Bools], ask: Ask) -> dict[str, list[Decisions]]:
    """By case, of those with replies."""
    with_replies = [one for one in questions if one.replies is not None]
    reply = ask({"cases": {one.name: asked(one) for one in with_replies}})["cases"]
    return {one.name: _of(one, calibration[one.name], reply[one.name]) for one in with_replies}


def asked(one: Questions) -> list[dict[str, str | None] | None]:
    """None where the texts may not be published, and for replies that were cut off: those are never kept."""
    assert one.replies is not None
    rows = zip(one.texts, one.replies.texts, one.replies.finishes, strict=True)
    return [
        None
        if question is None or reply is None or finish == "length"
        else {"query": question, "response": reply, "finish_reason": finish}
        for question, reply, finish in rows
    ]


def _of(one: Questions, calibration: Bools, told: list[dict[str, Any] | None]) -> list[Decisions]:
    accepted = np.array([row is not None and row["accepted"] for row in told])
    score: Floats = np.array([np.nan if row is None else row["confidence"] for row in told])
    return [
        Decisions(method=SHIPPED, kept=np.broadcast_to(accepted, calibration.shape), score=score),
        Decisions(method=TUNED, kept=tuned(one.case, score, calibration), score=score),
    ]
