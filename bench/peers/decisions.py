"""What a method decided on every split, what became of it, and thresholds set on the calibration part.

Saving is against the large model alone, on the test part. A cascade pays for the small model on every question, unless
it keeps none; a batch pays for it even then; a router only where the small one answers. Knows not whose decisions they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from bench.certify_public import Case, Floats
from bench.peers.cases import Bools, Ints
from corea.policy.rules import Sample, Threshold, naive

MAX_DROP, DELTA = 0.02, 0.05
Kind = Literal["cascade", "router", "batch"]
#: Asks a peer, in its own environment.
Ask = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """``kept``: (draws, n), where the small model's answer is handed out. ``score``: (n,), higher is surer, or None.

    A batch is decided as a whole: its promise is about the test part, and not about all questions.
    """

    method: str
    kept: Bools
    kind: Kind = "cascade"
    score: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one method on one case, over its splits; shares, not per cent.

    ``within``: splits in which at most 2 points were truly lost; ``within_seen``: in which the test part shows so.
    ``saving_within``: the mean saving if a split in which more was truly lost saves nothing; what is lost stays lost.
    """

    saving: float
    saving_within: float
    drop: float
    within: float
    within_seen: float
    oracle_saving: float
    auroc: float | None


def figures(case: Case, calibration: Bools, made: Decisions) -> Figures:
    """``calibration``: (draws, n)."""
    saving = np.array([saved(case, kept, ~cal, made.kind) for kept, cal in zip(made.kept, calibration, strict=True)])
    best = np.array([saved(case, _oracle(case), ~cal, "cascade") for cal in calibration])
    lost = (case.large_correct - case.small_correct) * made.kept
    seen = (lost * ~calibration).sum(axis=1) / (~calibration).sum(axis=1)
    drop = seen if made.kind == "batch" else lost.mean(axis=1)
    within = drop <= MAX_DROP + 1e-12
    return Figures(
        saving=float(saving.mean()),
        saving_within=float(np.where(within, saving, np.minimum(saving, 0.0)).mean()),
        drop=float(drop.mean()),
        within=float(within.mean()),
        within_seen=float((seen <= MAX_DROP + 1e-12).mean()),
        oracle_saving=float(best.mean()),
        auroc=None if made.score is None else auroc(made.score, case.small_correct),
    )


def saved(case: Case, kept: Bools, part: Bools, kind: Kind) -> float:
    """Share of the large model's spend on the part; a cascade that keeps nothing at all has no small model to pay."""
    if kind == "cascade" and not kept.any():
        return 0.0
    asked = part & kept if kind == "router" else part
    return float((case.large_cost[part & kept].sum() - case.small_cost[asked].sum()) / case.large_cost[part].sum())


def thresholded(case: Case, score: Floats, threshold: Threshold) -> Bools:
    """Which questions a threshold keeps, ties by the hash of the id; unknown scores never."""
    if threshold is None:
        return np.zeros(len(score), dtype=np.bool_)
    value, tied = threshold
    return np.asarray((score > value) | ((score == value) & (case.fractions <= tied)))


def tuned(case: Case, score: Floats, calibration: Bools, kind: Kind = "cascade") -> Bools:
    """The naive threshold on any score, (draws, n): the cheapest that lost at most 2 points on the calibration part.

    Keeps nothing where that saves nothing there.
    """
    rows = []
    for part in calibration:
        sample = Sample.of(score[part], case.small_correct[part], case.large_correct[part], case.ids[part])
        kept = thresholded(case, score, naive(sample, MAX_DROP, DELTA))
        rows.append(kept if saved(case, kept, part, kind) > 0 else np.zeros_like(kept))
    return np.array(rows)


def auroc(score: Floats, correct: Floats) -> float | None:
    """Of the small model's right answers against its wrong ones, where the score is known; None for one kind only."""
    known = ~np.isnan(score)
    right = correct[known] >= 0.5
    hits, misses = int(right.sum()), int((~right).sum())
    if not hits or not misses:
        return None
    ranks = rankdata(score[known])
    return float((ranks[right].sum() - hits * (hits + 1) / 2) / (hits * misses))


def rows_of(case: Case, rows: Ints) -> Case:
    """The questions at these rows, in this order."""
    fields = ("ids", "confidence", "small_correct", "large_correct", "small_cost", "large_cost", "fractions")
    return replace(case, **{name: getattr(case, name)[rows] for name in fields})


def masks(rows: Sequence[Sequence[int]], n: int) -> Bools:
    """(draws, n), True at the places listed."""
    made = np.zeros((len(rows), n), dtype=np.bool_)
    for row, positions in zip(made, rows, strict=True):
        row[list(positions)] = True
    return made


def _oracle(case: Case) -> Bools:
    return np.asarray(case.small_correct >= case.large_correct)
