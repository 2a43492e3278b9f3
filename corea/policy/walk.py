"""Held-out questions in the order in which a cascade would keep them, with harm and gain counted on the way.

Knows no test: what may be kept is decided by whoever walks along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corea.errors import InputError
from corea.policy.ties import DIGEST_BYTES, digest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Strings = NDArray[np.object_] | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """``order``: rows of known score, surest first, shape (known,). The rest has one entry a *stop*, a place where a
    threshold can lie, shape (stops,): ``kept`` questions kept there, ``harm`` and ``gain`` among them. ``n`` counts
    all questions, those that can never be kept included."""

    n: int
    order: Ints
    scores: Floats
    kept: Ints
    harm: Ints
    gain: Ints
    #: Position in the hash range of the last row kept at each stop; empty where no score occurs twice.
    fractions: Floats

    def threshold_at(self, stop: int) -> tuple[float, float]:
        """(score, tie fraction) that keeps exactly the questions up to this stop; the fraction is 1 where all tied
        questions are kept."""
        last = int(self.kept[stop]) - 1
        score = float(self.scores[last])
        complete = last + 1 == len(self.scores) or self.scores[last + 1] != score
        return score, 1.0 if complete else float(self.fractions[last])


def walk(score: Floats, small_correct: Floats, large_correct: Floats, ids: Strings) -> Walk:
    """Sort by score, highest first, ties by the hash of the id; rows with NaN (unknown) come last and are no stop.

    All of shape (n,). Questions with the same score and the same id cannot be told apart, so they share a stop.
    Raises :class:`InputError` for arrays that do not fit together and for correctness that is not 0 or 1.
    """
    small_correct, large_correct = (np.asarray(values, dtype=np.float64) for values in (small_correct, large_correct))
    n = len(score)
    if not n == len(small_correct) == len(large_correct) == len(ids):
        raise InputError(
            f"confidence, correctness of both models and ids must be equally long, not {n}, {len(small_correct)}, "
            f"{len(large_correct)} and {len(ids)}"
        )
    for name, values in (("small", small_correct), ("large", large_correct)):
        if not ((values == 0) | (values == 1)).all():
            raise InputError(
                f"the {name} model's correctness must be 0 or 1 to certify: where several samples a question were "
                "averaged, grade the one sample that the cascade would hand out"
            )
    order = np.argsort(-score)[: n - int(np.isnan(score).sum())]
    scores = score[order]
    tied = scores[1:] == scores[:-1]
    fractions = np.empty(0)
    if tied.any():
        order, fractions = _split_ties(order, scores, tied, ids)
        tied = tied & (fractions[1:] == fractions[:-1])
    kept = np.append(np.flatnonzero(~tied) + 1, len(scores)) if len(scores) else np.empty(0, dtype=np.int64)
    net = (small_correct - large_correct).astype(np.int8)[order]
    harm, gain = np.cumsum(net < 0, dtype=np.int64), np.cumsum(net > 0, dtype=np.int64)
    last = kept - 1
    return Walk(n=n, order=order, scores=scores, kept=kept, harm=harm[last], gain=gain[last], fractions=fractions)


def _split_ties(order: Ints, scores: Floats, tied: NDArray[np.bool_], ids: Strings) -> tuple[Ints, Floats]:
    """The order with each run of equal scores sorted by hash, and the hash fraction of each tied row (0 elsewhere)."""
    shared = np.append(tied, False) | np.append(False, tied)
    rows = order[shared]
    # Hashed in the order of the rows: strings far apart in memory are slow to visit.
    wanted = np.zeros(len(ids), dtype=bool)
    wanted[rows] = True
    digests = b"".join([digest(key) for key in np.asarray(ids, dtype=object)[wanted].tolist()])
    by_row = np.zeros(len(ids))
    by_row[wanted] = (np.frombuffer(digests, dtype=f">u{DIGEST_BYTES}") >> np.uint64(11)) / 2**53
    run = np.cumsum(np.diff(scores[shared], prepend=np.inf) != 0)
    by_hash = np.argsort(by_row[rows])
    # A stable sort of small integers is a radix sort: far quicker than sorting by two keys.
    rows = rows[by_hash[np.argsort(run.astype(np.min_scalar_type(run[-1]))[by_hash], kind="stable")]]
    order, fractions = order.copy(), np.zeros(len(order))
    order[shared], fractions[shared] = rows, by_row[rows]
    return order, fractions
