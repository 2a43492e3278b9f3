"""COREA's certified threshold, and what needs no package: the naive threshold, the lot, the oracle."""

from __future__ import annotations

import numpy as np

from bench.certify_public import Case
from bench.peers.cases import Bools
from bench.peers.decisions import DELTA, MAX_DROP, Decisions, saved, thresholded, tuned
from corea.policy.certify import certify

CERTIFIED, NAIVE, LOT, ORACLE = "**COREA, certified**", "naive threshold", "by lot", "oracle"


def decided(case: Case, calibration: Bools, rng: np.random.Generator) -> list[Decisions]:
    """``calibration``: (draws, n)."""
    kept = np.array([certified(case, part) for part in calibration])
    right = case.small_correct >= case.large_correct
    return [
        Decisions(method=CERTIFIED, kept=kept, score=case.confidence),
        Decisions(method=NAIVE, kept=tuned(case, case.confidence, calibration), score=case.confidence),
        Decisions(
            method=LOT, kept=np.array([_by_lot(case, part, rng) for part in calibration]), kind="router"
        ),
        Decisions(method=ORACLE, kept=np.broadcast_to(right, calibration.shape)),
    ]  # fmt: skip


def certified(case: Case, part: Bools) -> Bools:
    """What the certified threshold of that part keeps, of all questions: (n,)."""
    done = certify(
        case.confidence[part], case.small_correct[part], case.large_correct[part], case.ids[part], max_drop=MAX_DROP,
        delta=DELTA, small_cost=case.small_cost[part], large_cost=case.large_cost[part],
    )  # fmt: skip
    return thresholded(case, case.confidence, None if done.threshold is None else (done.threshold, done.tie_fraction))


def in_batch(batch: Case) -> Bools:
    """What is kept where there is nothing but these questions: both models answer the first half, which calibrates."""
    part = np.arange(len(batch.ids)) < len(batch.ids) // 2
    return certified(batch, part) & ~part


def _by_lot(case: Case, part: Bools, rng: np.random.Generator) -> Bools:
    """The largest share whose expected loss on the part is within 2 points, sent to the small model by lot."""
    drop = float((case.large_correct[part] - case.small_correct[part]).mean())
    share = 1.0 if drop <= MAX_DROP else MAX_DROP / drop
    kept = rng.random(len(part)) < share
    return kept if saved(case, kept, part, "router") > 0 else np.zeros_like(kept)
