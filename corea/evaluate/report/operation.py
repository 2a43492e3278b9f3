"""One signal, what may be promised of it, and the threshold that the page looks at.

A signal that is chosen here is chosen on other questions than those that certify it: the promise would be void.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from corea.errors import InputError
from corea.evaluate.baselines import Point
from corea.evaluate.certification import Terms, best_on_a_part, certified
from corea.evaluate.curves import deferral_curve
from corea.evaluate.metrics import Estimate, Resamples, Settings, estimate_of, rank
from corea.evaluate.outcomes import Floats, Pair
from corea.evaluate.pairs import tie_keys
from corea.evaluate.report.figures import Certification, Choice, Operation
from corea.evaluate.report.gallery import is_wrong
from corea.policy.ties import keeps

#: Where this share of the costs is known, the others are left out; below, costs count as unknown.
KNOWN_COSTS = 0.95

Mask = NDArray[np.bool_]


def known_costs(pair: Pair) -> tuple[Mask, str | None]:
    """Questions that costs are summed over, (n,): all of them, or those whose two costs are known if nearly all are."""
    known = ~np.isnan(pair.small_cost_nano_usd + pair.large_cost_nano_usd)
    unknown = len(pair) - int(known.sum())
    if not unknown:
        return known, None
    told = f"cost unknown for {unknown:,} of {len(pair):,}"
    if known.mean() < KNOWN_COSTS:
        return np.ones(len(pair), dtype=np.bool_), told
    return known, f"{told}, left out"


def choose(pair: Pair, signal: str | None, candidates: Sequence[str] | None) -> tuple[Choice, Mask]:
    """The signal that is certified, and the questions left to certify it on, (n,).

    The one named; the only candidate (None: every signal there is); or, as ``corea certify`` chooses, the one whose
    cascade is best on a third of the questions. Raises :class:`InputError` for a signal that the outcomes lack.
    """
    every = np.ones(len(pair), dtype=np.bool_)
    if signal is not None:
        pair.judged_by(signal)
        return Choice(signal=signal, how="named", note=f"{signal} was named beforehand."), every
    names = tuple(pair.confidence if candidates is None else candidates)
    if not names:
        return Choice(signal=None, how="none", note="There is no confidence signal that a cascade could use."), every
    for name in names:
        pair.judged_by(name)
    if len(names) == 1:
        return Choice(signal=names[0], how="only", note=f"{names[0]} is the only signal a cascade could use."), every
    best, choosing = best_on_a_part(pair, names)
    n = int(choosing.sum())
    note = (
        f"{best} is the best of {len(names)} signals, by accuracy over all budgets, on {n:,} questions taken "
        f"out by a hash of their ids; what is certified is certified on the other {len(pair) - n:,}."
    )
    return Choice(signal=best, how="chosen", n=n, note=note), ~choosing


def certification_of(
    pair: Pair, certifying: Mask, signal: str | None, *, max_drop: float, delta: float
) -> Certification:
    """What may be promised of this signal, with the questions that are ``certifying``, (n,)."""
    n = int(certifying.sum())
    if signal is None:
        return Certification(certified=None, n=n, note="without a confidence there is nothing to certify")
    if not n:
        return Certification(certified=None, n=0, note="no questions are left to certify on")
    if np.isnan(pair.confidence[signal][certifying]).all():
        return Certification(certified=None, n=n, note=f"{signal} is unknown for every question")
    # Of all questions: where any text is missing, ids are hashed for all.
    keyed = replace(pair, questions=tie_keys(pair)).where(certifying)
    try:
        found = certified(keyed, signal, Terms(max_drop=max_drop, delta=delta))
    except InputError as exc:
        return Certification(certified=None, n=n, note=str(exc))
    return Certification(certified=found, n=n)


def operate(
    pair: Pair, signal: str | None, certification: Certification, *, max_drop: float, resamples: Resamples,
    settings: Settings,
) -> tuple[Operation, Mask]:  # fmt: skip
    """The cascade at the certified threshold, else at the cheapest that looks good, and what it keeps, (n,)."""
    promised = certification.certified
    none = np.zeros(len(pair), dtype=np.bool_)
    if signal is None:
        return _operation(pair, none, resamples, settings), none
    paid = pair.judged_by(signal)
    if promised is not None and promised.threshold is not None:
        kept = _kept(paid, signal, promised.threshold, promised.tie_fraction)
        found = _operation(paid, kept, resamples, settings)
        threshold, tie_fraction = promised.threshold, promised.tie_fraction
        return replace(found, by="certified", threshold=threshold, tie_fraction=tie_fraction), kept
    naive = naive_threshold(paid, signal, max_drop)
    if naive is None:
        return _operation(pair, none, resamples, settings), none
    kept = np.asarray(paid.confidence[signal] >= naive)
    return replace(_operation(paid, kept, resamples, settings), by="naive", threshold=naive), kept


def naive_threshold(paid: Pair, signal: str, max_drop: float) -> float | None:
    """The cheapest threshold that lost at most ``max_drop`` on these very questions; None if it saves nothing."""
    curve = deferral_curve(paid, rank(paid.confidence[signal]))
    # Costs fall along the curve, so the last one within is the cheapest.
    last = int(np.flatnonzero(curve.accuracy >= curve.large.accuracy - max_drop - 1e-9)[-1])
    known, _ = known_costs(paid)
    kept = paid.confidence[signal] >= curve.thresholds[last]
    spared = float(np.where(kept, paid.large_cost_nano_usd, 0.0)[known].sum() - paid.small_cost_nano_usd[known].sum())
    # An unknown cost is no objection.
    return None if last == 0 or spared <= 0 else float(curve.thresholds[last])


def _kept(pair: Pair, signal: str, threshold: float, tie_fraction: float) -> Mask:
    confidence, keys = pair.confidence[signal], tie_keys(pair)
    kept = np.asarray(confidence > threshold)
    for i in np.flatnonzero(confidence == threshold):
        kept[i] = keeps(float(confidence[i]), str(keys[i]), threshold=threshold, tie_fraction=tie_fraction)
    return kept


def _operation(pair: Pair, kept: Mask, resamples: Resamples, settings: Settings) -> Operation:
    """``kept`` of all questions at ``pair``'s costs; where nothing is kept, the small model is not asked."""
    accuracy = np.where(kept, pair.small_correct, pair.large_correct)
    columns = np.column_stack([accuracy, pair.large_correct - accuracy, 1.0 - kept])
    means, drawn = columns.mean(axis=0), resamples.means(columns)
    right, drop, deferred = (estimate_of(float(means[i]), drawn[:, i], len(pair), settings) for i in range(3))
    cost, saving = _costs(pair, kept, resamples, settings)
    return Operation(
        by="none",
        threshold=None,
        tie_fraction=1.0,
        n=len(pair),
        kept=int(kept.sum()),
        kept_wrong=int((kept & is_wrong(pair.small_correct)).sum()),
        point=Point(accuracy=right, cost_nano_usd=cost, saving=saving, deferral_rate=deferred),
        drop=drop,
    )


def _costs(pair: Pair, kept: Mask, resamples: Resamples, settings: Settings) -> tuple[Estimate, Estimate]:
    known, note = known_costs(pair)
    n = int(known.sum())
    asked = kept.any()
    small = pair.small_cost_nano_usd if asked else np.zeros(len(pair))
    cost = small + np.where(kept, 0.0, pair.large_cost_nano_usd)
    if np.isnan(cost[known]).any() or np.isnan(pair.large_cost_nano_usd[known]).any():
        unknown = Estimate(value=None, n=n, note=note)
        return unknown, unknown
    columns = np.where(known[:, None], np.column_stack([cost, pair.large_cost_nano_usd, known]), 0.0)
    (spent, alone, share), drawn = columns.mean(axis=0), resamples.means(columns)
    estimate = estimate_of(float(spent / share), _ratio(drawn[:, 0], drawn[:, 2]), n, settings, note)
    if not alone:
        return estimate, Estimate(value=None, n=n, note="the large model costs nothing: no saving")
    saving = estimate_of(float(1 - spent / alone), 1 - _ratio(drawn[:, 0], drawn[:, 1]), n, settings, note)
    return estimate, saving


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))
