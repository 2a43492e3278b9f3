"""Measures what each threshold costs in accuracy, for a budget to tell: :mod:`corea.policy.drops`. Promises nothing."""

from __future__ import annotations

from corea.errors import InputError
from corea.evaluate.certification import choose, shapes_of_pair
from corea.evaluate.curves import curve_of
from corea.evaluate.outcomes import Outcomes, Pair
from corea.identity import hashes_of, signal_label
from corea.policy.drops import Drops

#: More than anybody can tell apart.
POINTS = 1000


def drops_of(outcomes: Outcomes, pair: Pair, *, signal: str | None, created_at: str) -> Drops:
    """By the named signal on all questions, or the best one by a third of them on the others.

    Raises :class:`InputError` for a signal that the outcomes lack, and where no confidence is known.
    """
    choice = choose(pair, signal, outcomes)
    curve = curve_of(choice.pair, choice.signal).thin(POINTS)
    # The first one keeps nothing.
    thresholds, lost = curve.thresholds[:0:-1], (curve.large.accuracy - curve.accuracy)[:0:-1]
    if not len(thresholds):
        raise InputError(f'no confidence "{choice.signal}" is known of any question; name another one with --signal')
    shapes = shapes_of_pair(outcomes, pair)
    models, prompts = hashes_of(shapes) if shapes else (None, None)
    return Drops(
        thresholds=tuple(thresholds.tolist()),
        drop=tuple(lost.tolist()),
        n=len(choice.pair),
        signal=signal_label(choice.signal, samples=outcomes.samples),
        models_hash=models,
        prompts_hash=prompts,
        data_hash=str(outcomes.metadata.get("data_hash", "")),
        created_at=created_at,
    )
