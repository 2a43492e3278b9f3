"""The cheapest threshold with a promise: "with probability 1 − δ, at most ε of the large model's accuracy is lost".

One fixed sequence of thresholds, the strictest first, each tested exactly at level δ; the first failure ends the walk
for good (fixed-sequence testing, as in Angelopoulos et al. 2021, *Learn then Test*). No correction is due: let t* be
the supremum of the thresholds that lose more than ε; to certify any of them, the one test at t* must have passed.

Maps, gates, prompts and the choice of signal must have been fixed on other questions than those given here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corea.errors import InputError
from corea.policy.certificate import Certified
from corea.policy.exact import first_failure, p_value, passes
from corea.policy.power import about_needed, needed
from corea.policy.walk import Floats, Strings, Walk, walk

#: Where costs are unknown, a threshold that keeps fewer is no use to size the data for.
USEFUL_SHARE = 0.1


def certify(
    confidence: Floats,
    small_correct: Floats,
    large_correct: Floats,
    ids: Strings,
    *,
    max_drop: float = 0.02,
    delta: float = 0.05,
    small_cost: Floats | None = None,
    large_cost: Floats | None = None,
) -> Certified:
    """Certify on n held-out questions that both models answered.

    All arrays of shape (n,): ``confidence`` in [0, 1] or NaN (unknown: never kept), correctness 0 or 1, costs in one
    currency or NaN. ``ids``: what will be hashed at run time to split ties. The threshold is None where nothing passes,
    or where nothing that passes saves money.
    Raises :class:`InputError` for fractional correctness and for arrays that do not fit together.
    """
    path = walk(checked(confidence), small_correct, large_correct, ids)
    return along(path, savings(path, small_cost, large_cost), max_drop=max_drop, delta=delta)


def along(path: Walk, saving: Floats | None, *, max_drop: float, delta: float) -> Certified:
    """What holds on a walk whose stops save so much, (stops,), or None: the cheapest of those before the first failure.

    Stops may have been left out of the walk, if that was not decided by what was answered.
    """
    stop = _last_passing(path, max_drop, delta)
    if stop is not None and saving is not None:
        # Of equals the last one, which keeps most.
        stop -= int(saving[stop::-1].argmax())
    chosen = stop is not None and (saving is None or saving[stop] > 0)
    if stop is None or not chosen:
        return Certified(
            threshold=None, tie_fraction=1.0, n=path.n, max_drop=max_drop, delta=delta, kept=0, harm=0,
            gain=0, drop=0.0, expected_saving=None if saving is None else 0.0, expected_deferral_rate=1.0, p_value=None,
            needed_n=_needed_n(path, saving, max_drop, delta),
        )  # fmt: skip
    threshold, tie_fraction = path.threshold_at(stop)
    kept, harm, gain = int(path.kept[stop]), int(path.harm[stop]), int(path.gain[stop])
    return Certified(
        threshold=threshold, tie_fraction=tie_fraction, n=path.n, max_drop=max_drop, delta=delta,
        kept=kept, harm=harm, gain=gain, drop=(harm - gain) / path.n,
        expected_saving=None if saving is None else float(saving[stop]),
        expected_deferral_rate=1 - kept / path.n, p_value=p_value(path.n, harm, gain, max_drop),
    )  # fmt: skip


def certify_by_task(
    confidence: Floats,
    small_correct: Floats,
    large_correct: Floats,
    ids: Strings,
    tasks: Strings,
    *,
    max_drop: float = 0.02,
    delta: float = 0.05,
    split_delta: bool = False,
    small_cost: Floats | None = None,
    large_cost: Floats | None = None,
) -> dict[str | None, Certified]:
    """One certificate a task, each at its own ``delta``; ``split_delta`` shares it out for a promise about all of them.

    ``tasks``: shape (n,), None for questions of no task. The other arguments are those of :func:`certify`.
    """
    names = np.asarray(tasks, dtype=object)
    keys = np.asarray(ids, dtype=object)
    found: list[str | None] = sorted({name for name in names if name is not None})
    found += [None] if any(name is None for name in names) else []
    certified: dict[str | None, Certified] = {}
    for name in found:
        mask = np.array([task == name for task in names])
        certified[name] = certify(
            confidence[mask], small_correct[mask], large_correct[mask], keys[mask], max_drop=max_drop,
            delta=delta / len(found) if split_delta else delta,
            small_cost=None if small_cost is None else small_cost[mask],
            large_cost=None if large_cost is None else large_cost[mask],
        )  # fmt: skip
    return certified


def checked(confidence: Floats) -> Floats:
    """The same, shape (n,). Raises :class:`InputError` for what is no probability; NaN is unknown, and no objection."""
    # NaN fails both comparisons.
    if ((confidence < 0) | (confidence > 1)).any():
        raise InputError(
            "a confidence lies in [0, 1] or is NaN (unknown); fit a map first if the signal is no probability"
        )
    return confidence


def savings(path: Walk, small_cost: Floats | None, large_cost: Floats | None) -> Floats | None:
    """Share of the large model's spend saved at each stop, net of the small model's calls on all questions.

    Only questions whose two costs are both known count. None where there are none, or where the large model is free.
    """
    if small_cost is None or large_cost is None:
        return None
    if not path.n == len(small_cost) == len(large_cost):
        raise InputError(f"costs must be one a question: {path.n} each, not {len(small_cost)} and {len(large_cost)}")
    known = ~(np.isnan(small_cost) | np.isnan(large_cost))
    always = float(large_cost.sum(where=known))
    if not always > 0:
        return None
    spared = np.cumsum(np.where(known, large_cost, 0.0)[path.order])[path.kept - 1]
    return np.asarray((spared - float(small_cost.sum(where=known))) / always)


def _last_passing(path: Walk, max_drop: float, delta: float) -> int | None:
    """Index of the last stop before the first failure; None if even keeping nothing fails."""
    if not passes(path.n, 0, 0, max_drop, delta) or len(path.kept) == 0:
        return None
    # Only a stop with a new harm or gain can change the verdict.
    changed = np.flatnonzero(np.diff(path.harm + path.gain, prepend=0))
    failed = first_failure(path.n, path.harm[changed], path.gain[changed], max_drop, delta)
    stop = int(changed[failed]) - 1 if failed < len(changed) else len(path.kept) - 1
    return stop if stop >= 0 else None


def _needed_n(path: Walk, saving: Floats | None, max_drop: float, delta: float) -> int | None:
    """Questions with which the walk should reach its easiest useful stop, at the rates seen there and before."""
    useful: NDArray[np.bool_] = path.kept >= USEFUL_SHARE * path.n if saving is None else saving > 0
    about = about_needed(path.harm / path.n, path.gain / path.n, max_drop, delta)
    candidates = np.flatnonzero(useful & np.isfinite(about))
    if len(candidates) == 0:
        return None
    # Every stop on the way must pass as well. Where one has lost more than ε by now, that is taken for chance.
    hardest = np.maximum.accumulate(np.where(np.isfinite(about), about, 0.0))
    easiest = int(candidates[hardest[candidates].argmin()])
    binding = int(np.where(np.isfinite(about), about, 0.0)[: easiest + 1].argmax())
    count = needed(int(path.harm[binding]) / path.n, int(path.gain[binding]) / path.n, max_drop, delta)
    return None if count is None else max(count, path.n + 1)
