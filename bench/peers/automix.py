"""AutoMix (Madaan et al. 2023, arXiv 2310.12963): its package, meta-verification by one threshold.

It picks the threshold with the greatest lift in performance for money over a straight line from the small model to the
large one (IBC). It promises nothing about accuracy, and is not told of the 2 points: there is no place to say it.
The scores are given as their ranks among the calibration part, so that its grid of 20 steps is as fine everywhere. A
verification costs as much as the small model's answer when it chooses, its own default; it is not charged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.certify_public import Floats
from bench.peers.cases import Bools, Questions, unknown_last
from bench.peers.decisions import Ask, Decisions, masks
from bench.peers.environments import Package

PACKAGE = Package(
    name="automix-llm", version="1.0.3", others=("numpy==2.4.6", "pandas==3.1.1", "scipy==1.17.1", "tqdm==4.70.1")
)
METHOD = "AutoMix, threshold"
BINS = 20


def decided(questions: list[Questions], calibration: Mapping[str, Bools], ask: Ask) -> dict[str, Decisions]:
    reply = ask(asked(questions, calibration))
    return {
        one.name: Decisions(
            method=METHOD, kept=masks(reply["cases"][one.name], len(one)), score=one.case.confidence
        )
        for one in questions
    }  # fmt: skip


def asked(questions: list[Questions], calibration: Mapping[str, Bools]) -> dict[str, Any]:
    cases = {}
    for one in questions:
        score = unknown_last(one.case.confidence)
        cases[one.name] = {
            "small": one.case.small_correct.tolist(),
            "large": one.case.large_correct.tolist(),
            "draws": [
                {
                    "train": np.flatnonzero(part).tolist(),
                    "score": ranked(score, score[part]).tolist(),
                    "costs": [float(one.case.small_cost[part].mean()), float(one.case.large_cost[part].mean())],
                }
                for part in calibration[one.name]
            ],
        }
    return {"bins": BINS, "cases": cases}


def ranked(score: Floats, among: Floats) -> Floats:
    """Share of ``among`` that is no higher, (n,)."""
    return np.asarray(np.searchsorted(np.sort(among), score, side="right") / len(among))
