"""BARGAIN (Zeighami, Shankar, Parameswaran 2025, "Guaranteed Accurate AI for Less"): its package, class BARGAIN_A.

It is given a set of records, asks the large model about as many as it needs, and promises that at least a share T of
its output is what the large model would have said. Here "as good as the large model" is: the small one is not wrong where
the large one is right. That is kinder than equal answers, as two wrong answers may differ; T = 1 − ε then means a drop
of at most ε. It needs no calibration part: what it asks is paid for, and counts as deferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.peers.cases import Bools, Questions, unknown_last
from bench.peers.decisions import DELTA, MAX_DROP, Ask, Decisions, masks, saved
from bench.peers.environments import Package

PACKAGE = Package(name="bargain", version="0.1.3", others=("numpy==2.4.6", "pandas==3.1.1", "openai==3.57.0"))
METHOD = "BARGAIN"


def decided(
    questions: list[Questions], calibration: Mapping[str, Bools], ask: Ask
) -> dict[str, tuple[Decisions, Bools]]:
    """By case: what it decides on each test part, and (draws, n) on all questions taken as one batch."""
    reply = ask(asked(questions, calibration))
    made = {}
    for one in questions:
        n, found = len(one), reply["cases"][one.name]
        tests = Decisions(method=METHOD, kept=masks(found["tests"], n), score=one.case.confidence, only_test=True)
        made[one.name] = (tests, masks(found["whole"], n))
    return made


def asked(questions: list[Questions], calibration: Mapping[str, Bools]) -> dict[str, Any]:
    cases = {
        one.name: {
            "score": unknown_last(one.case.confidence).tolist(),
            "as_good": (one.case.small_correct >= one.case.large_correct).tolist(),
            "tests": [np.flatnonzero(~part).tolist() for part in calibration[one.name]],
        }
        for one in questions
    }
    return {"target": 1 - MAX_DROP, "delta": DELTA, "cases": cases}


def one_batch(one: Questions, kept: Bools) -> tuple[float, float]:
    """Saving and share within 2 points of the draws, on all questions as one batch."""
    every = np.ones(len(one), dtype=np.bool_)
    savings = [_paid(one, row, every) for row in kept]
    drops = ((one.case.large_correct - one.case.small_correct) * kept).mean(axis=1)
    return float(np.mean(savings)), float((drops <= MAX_DROP + 1e-12).mean())


def _paid(one: Questions, kept: Bools, part: Bools) -> float:
    """It asks the small model about everything before it knows that nothing can be kept."""
    if kept.any():
        return saved(one.case, kept, part, "cascade")
    return -float(one.case.small_cost[part].sum() / one.case.large_cost[part].sum())
