"""BARGAIN (Zeighami, Shankar, Parameswaran 2025, "Guaranteed Accurate AI for Less"): its package, class BARGAIN_A.

It is given a set of records, asks the large model about as many as it needs, and promises that at least a share T of
its output is what the large model would have said. Here an answer is taken for as good where the small model is not
wrong with the large one right. That is kinder than equal answers, as two wrong answers may differ; T = 1 − ε then means
a drop of at most ε. It needs no calibration part: what it asks is paid for, and counts as deferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.peers.cases import Bools, Ints, Questions, unknown_last
from bench.peers.decisions import DELTA, MAX_DROP, Ask, Decisions, masks
from bench.peers.environments import Package

PACKAGE = Package(name="bargain", version="0.1.3", others=("numpy==2.4.6", "pandas==3.1.1", "openai==3.57.0"))
METHOD = "BARGAIN"


def decided(
    questions: list[Questions], calibration: Mapping[str, Bools], batches: Mapping[str, Ints], ask: Ask
) -> dict[str, tuple[Decisions, Bools]]:
    """By case: what it decides on each test part, and on each batch: (batches, size of a batch).

    ``batches``: rows of the case, in the order of the batch.
    """
    reply = ask(asked(questions, calibration, batches))
    made = {}
    for one in questions:
        found, tests = reply["cases"][one.name], _tests(calibration[one.name])
        rows = [[test[at] for at in kept] for test, kept in zip(tests, found["tests"], strict=True)]
        decisions = Decisions(method=METHOD, kept=masks(rows, len(one)), score=one.case.confidence, kind="batch")
        made[one.name] = (decisions, masks(found["batches"], batches[one.name].shape[1]))
    return made


def asked(questions: list[Questions], calibration: Mapping[str, Bools], batches: Mapping[str, Ints]) -> dict[str, Any]:
    cases = {
        one.name: {
            "score": unknown_last(one.case.confidence).tolist(),
            "as_good": (one.case.small_correct >= one.case.large_correct).tolist(),
            "tests": _tests(calibration[one.name]),
            "batches": batches[one.name].tolist(),
        }
        for one in questions
    }
    return {"target": 1 - MAX_DROP, "delta": DELTA, "cases": cases}


def _tests(calibration: Bools) -> list[list[int]]:
    return [np.flatnonzero(~part).tolist() for part in calibration]
