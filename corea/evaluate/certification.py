"""Outcomes → certificate: which signal, on which questions, for which models. The statistics are in corea.policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from corea.confidence import SelfConsistency
from corea.confidence.fitted import ConfidenceMap, Kind, checksum
from corea.confidence.named import INLINE
from corea.errors import InputError
from corea.evaluate.curves import DeferralCurve, area_under, curve_of
from corea.evaluate.maps import CheckedMap, fit, mapped, split
from corea.evaluate.outcomes import Outcomes, Pair
from corea.evaluate.pairs import has_texts, tie_keys
from corea.identity import Shape, as_last, asks_inline, hashes_of, signal_label
from corea.policy.certificate import Certificate, Certified, Promise
from corea.policy.certify import certify, certify_by_task

#: Share of the questions on which a signal is chosen, where the user named none. The others certify.
CHOICE_SHARE = 1 / 3
_CHOICE_SALT = "signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The questions that may certify, and the signal they are judged by.

    ``chosen_on``: questions spent on choosing it, 0 where there was no choice.
    """

    pair: Pair
    signal: str
    chosen_on: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is to be promised: at most ``max_drop`` of accuracy lost, with probability 1 − ``delta``.

    ``by_task``: one promise a task, each at ``delta``, or all of them together where ``split_delta``.
    """

    max_drop: float = 0.02
    delta: float = 0.05
    by_task: bool = False
    split_delta: bool = False


def choose(pair: Pair, signal: str | None, outcomes: Outcomes) -> Choice:
    """The named signal on all questions; or the best one by a third of them, with the other two thirds to certify.

    To choose and to certify on the same questions would void the promise. Raises :class:`InputError` for a signal that
    the outcomes lack or that a cascade could not be judged by, and where they hold none.
    """
    if signal is not None:
        pair.judged_by(signal)
        _check_asked((signal,), outcomes, pair)
        return Choice(pair=pair, signal=signal)
    usable = usable_signals(outcomes, pair)
    if not usable:
        raise _no_confidence(pair)
    if len(usable) == 1:
        return Choice(pair=pair, signal=usable[0])
    best, choosing = best_on_a_part(pair, usable)
    if not choosing.any() or choosing.all():
        raise InputError(f"{len(pair)} questions are too few to choose a signal on; name one with --signal")
    return Choice(pair=pair.where(~choosing), signal=best, chosen_on=int(choosing.sum()))


def best_on_a_part(pair: Pair, signals: Sequence[str]) -> tuple[str, NDArray[np.bool_]]:
    """The best of the signals by a third of the questions, and which these are, (n,): by a hash of the id.

    The first signal where the part is empty.
    """
    choosing = split(pair.ids, share=CHOICE_SHARE, salt=_CHOICE_SALT)
    if not choosing.any():
        return signals[0], choosing
    part = replace(pair, confidence={name: pair.confidence[name] for name in signals}).where(choosing)
    return best_signal(part), choosing


def best_signal(pair: Pair) -> str:
    """The signal whose cascade is most accurate over all budgets, its own cost included (:func:`area_under`).

    Where costs are unknown, each question counts as one: the area under accuracy against deferral.
    """
    curves = {signal: curve_of(pair, signal) for signal in pair.confidence}
    areas = {signal: area_under(curve).value for signal, curve in curves.items()}
    if any(area is None for area in areas.values()):
        areas = {signal: _area_by_deferral(curve) for signal, curve in curves.items()}
    return max(areas, key=lambda signal: areas[signal] or 0.0)


def certificate_of(
    outcomes: Outcomes,
    choice: Choice,
    terms: Terms,
    *,
    created_at: str,
    fitted: ConfidenceMap | None = None,
) -> Certificate:
    """Certify the chosen signal. ``fitted``: the map behind the signal ``fitted``. Raises :class:`InputError`."""
    pair = choice.pair
    tasks = sorted({str(task) for task in pair.tasks if task is not None})
    shapes = shapes_of_pair(outcomes, pair)
    models, prompts = hashes_of(shapes) if shapes else (None, None)
    return Certificate(
        promises=_promises(pair, choice.signal, terms),
        small=pair.small,
        large=pair.large,
        signal=signal_label(
            choice.signal,
            samples=outcomes.samples,
            map_checksum=checksum(fitted) if fitted else "",
        ),
        guards=pair.guards,
        tie_key="question" if has_texts(pair) else "id",
        tasks=tuple(tasks),
        models_hash=models,
        prompts_hash=prompts,
        data_hash=str(outcomes.metadata.get("data_hash", "")),
        created_at=created_at,
    )


def certified(pair: Pair, signal: str, terms: Terms) -> Certified:
    """What can be promised for all tasks together. Raises :class:`InputError` for fractional correctness."""
    judged = pair.judged_by(signal)
    return certify(
        judged.confidence[signal],
        judged.small_correct,
        judged.large_correct,
        tie_keys(judged),
        max_drop=terms.max_drop,
        delta=terms.delta,
        small_cost=judged.small_cost_nano_usd,
        large_cost=judged.large_cost_nano_usd,
    )


def with_map(pair: Pair, fitted: ConfidenceMap, outcomes: Outcomes) -> Choice:
    """The questions the map was not fitted on, judged by it. Raises :class:`InputError` for another model's map."""
    shapes = shapes_of_pair(outcomes, pair)
    if shapes and hashes_of(shapes[:1]) != (fitted.model, fitted.prompt):
        raise InputError("the map was fitted for another model or prompt than these outcomes; fit one for them")
    _check_mappable(fitted.signals, outcomes, pair)
    return Choice(pair=mapped(pair, fitted), signal="fitted")


def fit_map(
    outcomes: Outcomes, pair: Pair, kind: Kind, signals: tuple[str, ...], *, share: float, created_at: str
) -> CheckedMap:
    """A confidence map for the small tier, of its signals; all of them where none is named.

    Raises as :func:`corea.evaluate.maps.fit` does, and for signals that a cascade could not be judged by.
    """
    signals = tuple(dict.fromkeys(signals)) or tuple(pair.confidence)
    if not signals:
        raise _no_confidence(pair)
    _check_mappable(signals, outcomes, pair)
    shapes = shapes_of_pair(outcomes, pair)
    models, prompts = hashes_of(shapes[:1]) if shapes else ("", "")
    rng = np.random.default_rng(0)
    return fit(kind, pair, signals, model=models, prompt=prompts, created_at=created_at, rng=rng, share=share)


def _promises(pair: Pair, signal: str, terms: Terms) -> tuple[Promise, ...]:
    if not terms.by_task:
        return (Promise(certified=certified(pair, signal, terms)),)
    untasked = len(pair) - sum(task is not None for task in pair.tasks)
    if untasked:
        raise InputError(
            f"{untasked} of {len(pair)} questions name no task, and so would be in no promise; name their tasks, or "
            "certify all together, without --by task"
        )
    judged = pair.judged_by(signal)
    found = certify_by_task(
        judged.confidence[signal],
        judged.small_correct,
        judged.large_correct,
        tie_keys(judged),
        judged.tasks,
        max_drop=terms.max_drop,
        delta=terms.delta,
        split_delta=terms.split_delta,
        small_cost=judged.small_cost_nano_usd,
        large_cost=judged.large_cost_nano_usd,
    )
    return tuple(Promise(task=task, certified=one) for task, one in found.items())


def _area_by_deferral(curve: DeferralCurve) -> float:
    """Mean accuracy over all deferral rates. Always asking the small model joins it, as in :func:`area_under`."""
    rates, accuracies = np.append(curve.deferral_rate, 0.0), np.append(curve.accuracy, curve.small.accuracy)
    return float(np.trapezoid(accuracies[::-1], rates[::-1]))


def shapes_of_pair(outcomes: Outcomes, pair: Pair) -> list[Shape]:
    """Of the pair's two tiers, as they stand in a cascade of the two; none for foreign outcomes."""
    shapes = dict(zip(outcomes.tiers, outcomes.metadata.get("shapes", ()), strict=False))
    if pair.small not in shapes or pair.large not in shapes:
        return []
    return [shapes[pair.small], as_last(shapes[pair.large])]


def usable_signals(outcomes: Outcomes, pair: Pair) -> tuple[str, ...]:
    """Signals that a cascade can be judged by, asking the small tier just as it was asked for these outcomes.

    Where the reply states the confidence, it must be a stated one: judged by another, the tier would not be asked for
    that line, and its answers would be others.
    """
    shapes = shapes_of_pair(outcomes, pair)
    stated = bool(shapes) and asks_inline(shapes[0])
    return tuple(name for name in pair.confidence if name in INLINE or not stated)


def _check_asked(signals: Sequence[str], outcomes: Outcomes, pair: Pair) -> None:
    known = [name for name in signals if name in pair.confidence]
    if not known or not set(known).isdisjoint(usable_signals(outcomes, pair)):
        return
    raise InputError(
        f"tier {pair.small} was asked to state its confidence in the reply, and judged by {' and '.join(known)} it "
        f"would not be; use {' or '.join(INLINE)}, or run it again configured with another estimator: corea eval run"
    )


def _check_mappable(signals: Sequence[str], outcomes: Outcomes, pair: Pair) -> None:
    """A map's cascade must be able to ask for its signals as they were asked for here."""
    _check_asked(signals, outcomes, pair)
    usual = SelfConsistency().samples
    if "self_consistency" in signals and outcomes.samples not in (0, usual):
        raise InputError(
            f"a map reads self_consistency of {usual} samples, not {outcomes.samples}; collect it with --samples "
            f"{usual}, or name other signals with --signal"
        )


def _no_confidence(pair: Pair) -> InputError:
    return InputError(
        f"no row of tier {pair.small} holds a confidence, and without one nothing can be kept; "
        "run the tier with: corea eval run, or import rows with a confidence"
    )
