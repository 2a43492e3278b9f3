"""Outcomes → certificate: which signal, on which questions, for which models. The statistics are in corea.policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corea.confidence.fitted import ConfidenceMap, Kind, checksum
from corea.errors import InputError
from corea.evaluate.curves import area_under, curve_of
from corea.evaluate.maps import CheckedMap, fit, mapped, split
from corea.evaluate.outcomes import Outcomes, Pair
from corea.evaluate.pairs import has_texts, tie_keys
from corea.identity import hashes_of, signal_label
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


def choose(pair: Pair, signal: str | None) -> Choice:
    """The named signal on all questions; or the best one by a third of them, with the other two thirds to certify.

    To choose and to certify on the same questions would void the promise. Raises :class:`InputError` for a signal that
    the outcomes lack, and where they hold none.
    """
    if not pair.confidence:
        raise InputError(
            f"no row of tier {pair.small} holds a confidence, and without one nothing can be kept; "
            "run the tier with: corea eval run, or import rows with a confidence"
        )
    if signal is not None or len(pair.confidence) == 1:
        only = signal or next(iter(pair.confidence))
        pair.judged_by(only)
        return Choice(pair=pair, signal=only)
    choosing = split(pair.ids, share=CHOICE_SHARE, salt=_CHOICE_SALT)
    if not choosing.any() or choosing.all():
        raise InputError(f"{len(pair)} questions are too few to choose a signal on; name one with --signal")
    return Choice(pair=pair.where(~choosing), signal=best_signal(pair.where(choosing)), chosen_on=int(choosing.sum()))


def best_signal(pair: Pair) -> str:
    """The signal whose cascade is most accurate over all budgets, its own cost included (:func:`area_under`).

    Where costs are unknown, each question counts as one: the area under accuracy against deferral.
    """
    curves = {signal: curve_of(pair, signal) for signal in pair.confidence}
    areas = {signal: area_under(curve).value for signal, curve in curves.items()}
    if any(area is None for area in areas.values()):
        areas = {s: float(np.trapezoid(c.accuracy[::-1], c.deferral_rate[::-1])) for s, c in curves.items()}
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
    shapes = _shapes(outcomes, pair)
    models, prompts = hashes_of(shapes) if shapes else (None, None)
    return Certificate(
        promises=_promises(pair.judged_by(choice.signal), choice.signal, terms),
        small=pair.small,
        large=pair.large,
        signal=signal_label(
            choice.signal,
            samples=int(outcomes.metadata.get("samples") or 0),
            map_checksum=checksum(fitted) if fitted else "",
        ),
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
    shapes = _shapes(outcomes, pair)
    if shapes and hashes_of(shapes[:1]) != (fitted.model, fitted.prompt):
        raise InputError("the map was fitted for another model or prompt than these outcomes; fit one for them")
    return Choice(pair=mapped(pair, fitted), signal="fitted")


def fit_map(
    outcomes: Outcomes, pair: Pair, kind: Kind, signals: tuple[str, ...], *, share: float, created_at: str
) -> CheckedMap:
    """A confidence map for the small tier. Raises as :func:`corea.evaluate.maps.fit` does."""
    shapes = _shapes(outcomes, pair)
    models, prompts = hashes_of(shapes[:1]) if shapes else ("", "")
    rng = np.random.default_rng(0)
    return fit(kind, pair, signals, model=models, prompt=prompts, created_at=created_at, rng=rng, share=share)


def _promises(judged: Pair, signal: str, terms: Terms) -> tuple[Promise, ...]:
    if not terms.by_task:
        return (Promise(certified=certified(judged, signal, terms)),)
    if not len(judged.tasks):
        raise InputError("the outcomes name no task; certify them all together, without --by task")
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


def _shapes(outcomes: Outcomes, pair: Pair) -> list[dict[str, object]]:
    """Of the pair's two tiers; none for foreign outcomes."""
    shapes = dict(zip(outcomes.tiers, outcomes.metadata.get("shapes", ()), strict=False))
    return [shapes[name] for name in (pair.small, pair.large) if name in shapes]
